//! One `bulkhead-vmm` for each domain: started, watched, restarted, stopped.
//!
//! | file | what |
//! | --- | --- |
//! | [`lifecycle`] | the life of a domain: a pure state machine |
//! | [`spec`] | what a VMM is told to run |
//! | [`process`], [`capture`], [`vmm_control_client`] | the VMM's process, what it says, its control socket |
//! | [`cgroup`] | what it may use |
//! | `interrupts` | on which processors those of its PCI functions are served |
//! | [`pressure`] | whether it has wanted more than it gets for long |
//! | [`boot`] | what a guest starts from: files, or an image, which is verified |
//! | [`devices`], [`disks`] | the slow work, which [`background`] runs |
//! | [`record`], [`adoption`] | what an earlier agent wrote down of its VMMs, and which of them are taken up |
//! | [`agent_lock`] | one agent at a time, and when the one before last ran |
//! | [`renewal`] | a domain that keeps nothing begins anew |
//! | [`trial`] | whether the guest of a new image comes up: a pure state machine |
//! | [`entries`], [`screen`] | what the audit log and the screen say of domains |
//! | [`desired_state`] | what is desired of a domain, for the next agent |
//! | [`remains`] | what earlier agents left running, for the doctor, which only looks |
//! | [`leftovers`] | VMMs of an earlier agent whose domains this PC does not have any more |
//!
//! [`Supervisor`] carries out what the state machines decide. It runs on the event loop's thread
//! and never waits: the hand-over of devices is a background job, at most one a domain.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod adoption;
pub mod agent_lock;
mod background;
pub mod boot;
pub mod capture;
pub mod cgroup;
pub mod desired_state;
pub mod devices;
pub mod disks;
pub mod entries;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod host_network;
mod interrupts;
pub mod leftovers;
pub mod lifecycle;
pub mod pressure;
pub mod process;
pub mod record;
pub mod remains;
pub mod renewal;
mod report;
mod runtime;
pub mod screen;
pub mod spec;
pub mod trial;
mod users;
pub mod vmm_control_client;

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clock::Moment;

use base::layout::Layout;
use config::cores::{self, Cores};
use config::domain_policies::{DomainPolicy, no_domain};
use config::machine::{DomainHardware, Kind, Machine};
use control::reports::ConfiguredInterface;
use handover::handover::Handover;
use host_network::{Judgement, Rule};

use background::{BackgroundJobs, survived};
use boot::{BootFiles, StartedImage};
use cgroup::Cgroups;
use desired_state::DesiredState;
use lifecycle::{Event, State, Time};
use record::VmmRecord;
use runtime::TrialEnd;
pub use runtime::{Adoption, DomainRuntime, ImageNews, VmmMismatch};
use users::sandbox_ids;
use vmm_control::Command;

/// How often the host's interfaces are looked at while domains run.
const HOST_NETWORK_AGAIN: Duration = Duration::from_secs(10);

/// What the supervisor needs besides the machine file.
pub struct Parts {
    /// The agent's directories, with each domain's own in them.
    pub layout: Layout,
    pub vmm: PathBuf,
    pub handover: Arc<Handover>,
    /// Where VMMs get their groups; `None` when there are none.
    pub cgroups: Option<Arc<Cgroups>>,
    /// Whether VMMs get a user of their own.
    pub as_root: bool,
    /// The level from which VMMs log to standard error, as `--log-level` of the VMM takes it.
    pub log_level: String,
    /// Where screens and input go; `None` without a seat.
    pub seat: Option<seat::Handle>,
}

/// What a background job reports.
enum Report {
    /// The functions are handed over, or not; the files come next.
    DevicesDone,
    /// What the guest starts from.
    Boot(Box<(BootFiles, Option<StartedImage>)>),
    /// The domain has nothing that it could start from.
    NoBoot,
    /// The guest of an image did not come up.
    DidNotComeUp(TrialEnd),
    /// The job is done.
    Done(Event),
}

/// Starts, watches and stops the VMMs of all domains.
pub struct Supervisor {
    domains: Vec<DomainRuntime>,
    externals: Vec<String>,
    shared: SupervisorContext,
    reports: mpsc::Receiver<(usize, Report)>,
    host_network_next: Time,
    pressure_next: Time,
}

/// What every domain's adaptor uses.
pub(crate) struct SupervisorContext {
    parts: Parts,
    epoch: Moment,
    jobs: BackgroundJobs<Report>,
    host_rule: Rule,
    host_interfaces: Result<Vec<ConfiguredInterface>, String>,
    shutting_down: bool,
    /// Whether it was logged that the kernel does not tell what domains wait for.
    said_no_pressure: bool,
}

/// The supervisor could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an eventfd")]
pub struct SupervisorError(#[from] nix::Error);

impl Supervisor {
    /// Makes a supervisor of the machine's domains, all off. The machine file was checked against `domain_policies`.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new(
        machine: &Machine,
        domain_policies: &[DomainPolicy],
        parts: Parts,
    ) -> Result<Self, SupervisorError> {
        let (jobs, reports) = BackgroundJobs::new()?;
        let cores = Cores::read(&parts.handover.sysfs().path("")).plan(machine);
        let mut domains = Vec::new();
        let mut externals = Vec::new();
        for (policy, DomainHardware { name, kind }) in domain_policies
            .iter()
            .filter_map(|policy| Some((policy, machine.domain(&policy.name)?)))
        {
            match kind {
                Kind::External => externals.push(name.clone()),
                Kind::Vm(hardware) => domains.push(DomainRuntime::new(
                    domains.len(),
                    policy.clone(),
                    (**hardware).clone(),
                    machine.stop_deadline,
                    cores::cpus_of(&cores, hardware, name),
                    &parts,
                )),
            }
        }
        let shared = SupervisorContext {
            parts,
            epoch: Moment::now(),
            jobs,
            host_rule: Rule::of(machine),
            host_interfaces: Ok(Vec::new()),
            shutting_down: false,
            said_no_pressure: false,
        };
        let (host_network_next, pressure_next) = (Time::ZERO, Time::ZERO);
        Ok(Self { domains, externals, shared, reports, host_network_next, pressure_next })
    }

    /// Applies another policy to the same domains. What concerns a domain's VMM (persistence, network,
    /// priority) counts from its next start.
    pub fn apply_policy(&mut self, domain_policies: &[DomainPolicy]) {
        for runtime in &mut self.domains {
            if let Some(policy) =
                domain_policies.iter().find(|policy| policy.name == runtime.policy.name)
            {
                runtime.set_policy(&self.shared.parts, policy.clone());
            }
        }
    }

    /// Adopts what an earlier agent left, and starts every other domain that somebody has not stopped, in the policy's order. Returns what was
    /// done about which domain.
    pub fn adopt_and_start(&mut self) -> Vec<(String, Adoption)> {
        let found: Vec<Adoption> =
            self.domains.iter_mut().map(|runtime| runtime.adopt(&mut self.shared)).collect();
        self.give_users();
        let mut adopted = Vec::new();
        for (runtime, found) in self.domains.iter_mut().zip(found) {
            match found {
                Adoption::Nothing => runtime.feed(&mut self.shared, Event::Start),
                Adoption::StaysOff => {}
                found => adopted.push((runtime.policy.name.clone(), found)),
            }
        }
        adopted
    }

    /// Gives each domain's VMM a user of its own; one that runs on keeps its own, also one whose domain there is not any more.
    fn give_users(&mut self) {
        let held: Vec<Option<u32>> =
            self.domains.iter().map(|runtime| runtime.sandbox_id).collect();
        let recorded = VmmRecord::all(&self.shared.parts.layout);
        let elsewhere: Vec<u32> =
            recorded.into_iter().filter_map(|record| record.sandbox_id).collect();
        let ids = sandbox_ids(&held, &elsewhere);
        for (runtime, id) in self.domains.iter_mut().zip(ids).filter(|_| self.shared.parts.as_root)
        {
            runtime.sandbox_id = Some(id);
        }
        let Self { domains, shared, .. } = self;
        domains.iter_mut().for_each(|runtime| runtime.compare(&shared.parts));
    }

    /// Returns whether a domain is on its way from one state to another.
    #[must_use]
    pub fn any_under_way(&self) -> bool {
        let waits = |runtime: &DomainRuntime| match runtime.lifecycle.state() {
            // A process does not end before its threads, and this one may wait for the VMM.
            _ if runtime.is_log_starting_over() => true,
            // Nothing is being done at the moment. One that has not answered yet would be ended by the next agent.
            State::Backoff { .. } => false,
            state => !state.is_settled(),
        };
        self.domains.iter().any(waits)
    }

    /// Returns the domains whose guests run.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let running =
            |runtime: &&DomainRuntime| matches!(runtime.lifecycle.state(), State::Running { .. });
        self.domains.iter().filter(running).map(|runtime| runtime.policy.name.clone()).collect()
    }

    /// Stops every domain. Called again, without waiting for the guests.
    pub fn stop_all(&mut self) {
        let now = std::mem::replace(&mut self.shared.shutting_down, true);
        for runtime in &mut self.domains {
            // Not now that this agent goes with them.
            DesiredState::forget(&self.shared.parts.layout, &runtime.policy.name);
            runtime.feed(&mut self.shared, Event::Stop { now });
        }
    }

    /// Returns whether the agent is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.shutting_down
    }

    /// Returns whether every domain is off.
    #[must_use]
    pub fn all_off(&self) -> bool {
        self.domains.iter().all(|runtime| runtime.lifecycle.state() == State::Off)
    }

    /// Returns the domains that the agent runs.
    #[must_use]
    pub fn domains(&self) -> &[DomainRuntime] {
        &self.domains
    }

    /// Returns the domains that somebody else runs.
    #[must_use]
    pub fn externals(&self) -> &[String] {
        &self.externals
    }

    /// Returns where VMMs have their groups.
    #[must_use]
    pub fn cgroups(&self) -> Option<Arc<Cgroups>> {
        self.shared.parts.cgroups.clone()
    }

    /// Returns the rule for the host's network, and the host's configured interfaces when last looked at,
    /// or why they could not be listed.
    pub fn host_network(&self) -> (Rule, Result<&[ConfiguredInterface], &str>) {
        (self.shared.host_rule, self.shared.host_found())
    }

    /// Returns the time domains count in.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// Sends an event to a domain by name; `Err` says why that cannot be.
    pub fn command(&mut self, name: &str, event: Event) -> Result<(), String> {
        if self.shared.shutting_down {
            return Err("the agent is stopping; start it again first".to_owned());
        }
        let runtime = Self::find(&mut self.domains, &self.externals, name)?;
        runtime.feed(&mut self.shared, event);
        Ok(())
    }

    /// Restarts, after a sleep of the PC, every domain whose VMM has PCI functions, which vfio-pci does not keep through it, and says which.
    /// The others' guests notice nothing but the time.
    pub fn slept(&mut self) -> Vec<String> {
        let mut restarted = Vec::new();
        for runtime in &mut self.domains {
            let lost_devices = runtime.has_functions();
            if lost_devices && matches!(runtime.lifecycle.state(), State::Running { .. }) {
                restarted.push(runtime.policy.name.clone());
            }
            runtime.feed(&mut self.shared, Event::Slept { lost_devices });
        }
        restarted
    }

    /// Returns what people call a domain.
    #[must_use]
    pub fn label(&self, name: &str) -> String {
        let mut policies = self.domains.iter().map(|runtime| &runtime.policy);
        let policy = policies.find(|policy| policy.name == name);
        policy.map_or_else(|| name.to_owned(), |policy| policy.label.clone())
    }

    /// Returns whether a domain is on its way from one state to another.
    #[must_use]
    pub fn is_under_way(&self, name: &str) -> bool {
        let runtime = self.domains.iter().find(|runtime| runtime.policy.name == name);
        runtime.is_some_and(|runtime| !runtime.lifecycle.state().is_settled())
    }

    /// Resets a running guest.
    pub fn reset(&mut self, name: &str) -> Result<(), String> {
        let now = self.shared.now();
        let runtime = Self::find(&mut self.domains, &self.externals, name)?;
        match runtime.lifecycle.state() {
            State::Running { .. } => {
                runtime.control.send(now, Command::Reset).map_err(|problem| problem.to_string())
            }
            other => Err(format!(
                "{name} is {}, and only a running domain can be reset; `bulkhead start {name}` starts it",
                other.word()
            )),
        }
    }

    fn find<'a>(
        domains: &'a mut [DomainRuntime],
        externals: &[String],
        name: &str,
    ) -> Result<&'a mut DomainRuntime, String> {
        if externals.iter().any(|external| external == name) {
            return Err(format!("{name} is run by an external VMM; start and stop it there"));
        }
        let known = domains.iter().map(|runtime| runtime.policy.name.as_str());
        let unknown = no_domain(name, known.chain(externals.iter().map(String::as_str)));
        domains.iter_mut().find(|runtime| runtime.policy.name == name).ok_or(unknown)
    }

    /// Returns what the event loop waits on.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.shared.jobs.fd()];
        fds.extend(self.domains.iter().flat_map(DomainRuntime::fds));
        fds
    }

    /// Returns when [`Self::process_events`] is next needed even though nothing came.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let earliest = self.domains.iter().filter_map(DomainRuntime::deadline);
        let next = self.host_network_next.min(self.pressure_next);
        earliest.fold(next, Time::min)
    }

    /// Processes reports of jobs, output, answers and ends of VMMs, and what is due.
    pub fn process_events(&mut self) {
        self.shared.jobs.awake();
        while let Ok((index, report)) = self.reports.try_recv() {
            if let Some(runtime) = self.domains.get_mut(index) {
                runtime.report(&mut self.shared, report);
            }
        }
        for runtime in &mut self.domains {
            runtime.process_events(&mut self.shared);
        }
        self.open_gate();
        if self.shared.now() >= self.host_network_next {
            self.look_at_host_network();
        }
        if self.shared.now() >= self.pressure_next {
            self.pressure_next = self.shared.now() + pressure::LOOK_EVERY;
            for domain in &mut self.domains {
                domain.look_at_pressure(&mut self.shared);
                domain.keep_interrupts();
            }
        }
    }

    /// Takes the domains that have begun or ended to press since the last call, in the order in which they did.
    pub fn pressure_changes(&mut self) -> Vec<(String, pressure::Change)> {
        let changes = self.domains.iter_mut().flat_map(|domain| {
            let name = domain.policy.name.clone();
            domain.pressure_changes.drain(..).map(move |change| (name.clone(), change))
        });
        changes.collect()
    }

    /// Takes what there is to record of images since the last call.
    pub fn image_news(&mut self) -> Vec<ImageNews> {
        self.domains.iter_mut().flat_map(|domain| domain.image_news.drain(..)).collect()
    }

    /// Looks at the host's network once no NIC is being handed over, and lets the domains start that wait for that.
    fn open_gate(&mut self) {
        let gated = self.domains.iter().any(|runtime| runtime.lifecycle.state() == State::Gated);
        if !gated || self.domains.iter().any(DomainRuntime::devices_on_their_way) {
            return;
        }
        self.look_at_host_network();
        let verdict = self.shared.host_verdict();
        for runtime in
            self.domains.iter_mut().filter(|runtime| runtime.lifecycle.state() == State::Gated)
        {
            runtime.feed(&mut self.shared, Event::Gate(verdict.clone()));
        }
    }

    fn look_at_host_network(&mut self) {
        self.host_network_next = self.shared.now() + HOST_NETWORK_AGAIN;
        let found = host_network::configured_interfaces().map_err(|e| printable::explain(&e));
        if found != self.shared.host_interfaces {
            self.shared.host_interfaces = found;
            self.shared.say_host_network();
        }
    }
}

impl SupervisorContext {
    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    fn host_found(&self) -> Result<&[ConfiguredInterface], &str> {
        self.host_interfaces.as_deref().map_err(String::as_str)
    }

    /// Judges the host by the host-network rule.
    fn host_verdict(&self) -> Result<(), String> {
        self.host_rule.gate(self.host_found())
    }

    fn say_host_network(&self) {
        match self.host_rule.judge(self.host_found()) {
            kept if kept.is_kept() => tracing::info!("{kept}"),
            tolerated @ Judgement::Tolerated(_) => tracing::warn!("{tolerated}"),
            broken => tracing::error!("{broken}"),
        }
    }

    /// Runs `job` on a thread of its own; it reports under `index`, at last with `done`.
    fn work(
        &self,
        index: usize,
        name: &str,
        done: fn(Result<(), String>) -> Event,
        job: impl FnOnce(&dyn Fn(Report)) -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<()> {
        self.spawn(index, name, move |tell| {
            tell(Report::Done(done(survived(|| job(tell)))));
        })
    }

    /// Runs `job` on a thread of its own; it reports under `index`.
    fn spawn(
        &self,
        index: usize,
        name: &str,
        job: impl FnOnce(&dyn Fn(Report)) + Send + 'static,
    ) -> std::io::Result<()> {
        self.jobs.spawn(index, name, job)
    }
}
