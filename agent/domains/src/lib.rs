//! One `bulkhead-vmm` for each domain: started, watched, restarted, stopped.
//!
//! | file | what |
//! | --- | --- |
//! | [`domain`] | the life of a domain: a pure state machine |
//! | [`spec`] | what a VMM is told to run |
//! | [`process`], [`capture`], [`link`] | the VMM's process, what it says, its control socket |
//! | [`cgroup`] | what it may use |
//! | [`devices`], [`disks`] | the slow work, on worker threads |
//! | [`record`], [`adoption`] | what an earlier agent wrote down of its VMMs, and which of them are taken up |
//! | [`wanted`] | what is wanted of a domain, for the next agent |
//! | [`leftovers`] | VMMs of an earlier agent whose domains this PC does not have any more |
//!
//! [`Supervisor`] carries out what the state machines decide. It runs on the event loop's thread
//! and never waits: the hand-over of devices happens on worker threads, at most one a domain.
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

pub mod adoption;
pub mod capture;
pub mod cgroup;
pub mod devices;
pub mod disks;
pub mod domain;
pub mod host_network;
pub mod leftovers;
pub mod link;
pub mod process;
pub mod record;
mod slot;
pub mod spec;
pub mod wanted;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clock::Moment;

use nix::sys::eventfd::{EfdFlags, EventFd};

use base::layout::Layout;
use config::machine::{DomainEntry, Kind, Machine};
use config::roster::{Member, no_domain};
use control::reports::ConfiguredInterface;
use handover::handover::Handover;
use host_network::{Judgement, Rule};

use cgroup::Cgroups;
use domain::{Event, State, Time};
use record::VmmRecord;
pub use slot::{Outdated, Slot, Taken};
use spec::SANDBOX_ID_BASE;
use vmm_control::Command;
use wanted::Wanted;

/// How often the host's interfaces are looked at while domains run.
const HOST_NETWORK_AGAIN: Duration = Duration::from_secs(10);

/// What the supervisor needs besides the machine file.
pub struct Parts {
    /// Where things lie.
    pub layout: Layout,
    pub vmm: PathBuf,
    pub handover: Arc<Handover>,
    /// Where VMMs get their groups; `None` when there are none.
    pub cgroups: Option<Arc<Cgroups>>,
    /// Whether VMMs get a user of their own.
    pub as_root: bool,
    /// What VMMs say on their standard error.
    pub log_level: String,
    /// Where screens and input go; `None` without a seat.
    pub seat: Option<seat::Handle>,
}

/// What a worker thread reports.
enum Report {
    /// The functions are handed over, or not; the disks come next.
    DevicesDone,
    /// The job is done.
    Done(Event),
}

/// All domains.
pub struct Supervisor {
    slots: Vec<Slot>,
    externals: Vec<String>,
    shared: Shared,
    reports: mpsc::Receiver<(usize, Report)>,
    host_network_next: Time,
}

/// What every domain's adaptor uses.
pub(crate) struct Shared {
    parts: Parts,
    epoch: Moment,
    reporter: mpsc::Sender<(usize, Report)>,
    wake: Arc<EventFd>,
    host_rule: Rule,
    host_interfaces: Result<Vec<ConfiguredInterface>, String>,
    shutting_down: bool,
}

/// The supervisor could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an eventfd")]
pub struct SupervisorError(#[from] nix::Error);

impl Supervisor {
    /// A supervisor of the machine's domains, all off. `roster` is the policy's, which the machine
    /// was checked against.
    pub fn new(
        machine: &Machine,
        roster: &[Member],
        parts: Parts,
    ) -> Result<Self, SupervisorError> {
        let (reporter, reports) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC)?);
        let mut slots = Vec::new();
        let mut externals = Vec::new();
        for (member, DomainEntry { name, kind }) in
            roster.iter().filter_map(|member| Some((member, machine.domain(&member.name)?)))
        {
            match kind {
                Kind::External => externals.push(name.clone()),
                Kind::Vm(hardware) => slots.push(Slot::new(
                    slots.len(),
                    member.clone(),
                    (**hardware).clone(),
                    machine.stop_deadline,
                    &parts,
                )),
            }
        }
        let shared = Shared {
            parts,
            epoch: Moment::now(),
            reporter,
            wake,
            host_rule: Rule::of(machine),
            host_interfaces: Ok(Vec::new()),
            shutting_down: false,
        };
        Ok(Self { slots, externals, shared, reports, host_network_next: Time::ZERO })
    }

    /// Applies another policy to the same domains. What concerns a domain's VMM (persistence, network,
    /// priority) counts from its next start.
    pub fn take_roster(&mut self, roster: &[Member]) {
        for slot in &mut self.slots {
            if let Some(member) = roster.iter().find(|member| member.name == slot.member.name) {
                slot.take_member(&self.shared.parts, member.clone());
            }
        }
    }

    /// Takes up what an earlier agent left, and starts every other domain that somebody has not stopped, in the policy's order. What was
    /// found of which domain.
    pub fn take_up_and_start(&mut self) -> Vec<(String, Taken)> {
        let found: Vec<Taken> =
            self.slots.iter_mut().map(|slot| slot.take_up(&mut self.shared)).collect();
        self.give_users();
        let mut taken = Vec::new();
        for (slot, found) in self.slots.iter_mut().zip(found) {
            match found {
                Taken::Nothing => slot.feed(&mut self.shared, Event::Start),
                Taken::StaysOff => {}
                found => taken.push((slot.member.name.clone(), found)),
            }
        }
        taken
    }

    /// Each domain's VMM has a user of its own; one that runs on keeps its, also one whose domain there is not any more.
    fn give_users(&mut self) {
        let held: Vec<Option<u32>> = self.slots.iter().map(|slot| slot.sandbox_id).collect();
        let recorded = VmmRecord::all(&self.shared.parts.layout);
        let elsewhere: Vec<u32> =
            recorded.into_iter().filter_map(|record| record.sandbox_id).collect();
        let ids = sandbox_ids(&held, &elsewhere);
        for (slot, id) in self.slots.iter_mut().zip(ids).filter(|_| self.shared.parts.as_root) {
            slot.sandbox_id = Some(id);
        }
        let Self { slots, shared, .. } = self;
        slots.iter_mut().for_each(|slot| slot.compare(&shared.parts));
    }

    /// Whether a domain is on its way from one state to another.
    #[must_use]
    pub fn any_under_way(&self) -> bool {
        let waits = |slot: &Slot| match slot.domain.state() {
            // Nothing is being done at the moment. One that has not answered yet would be ended by the next agent.
            State::Backoff { .. } => false,
            state => !state.is_settled(),
        };
        self.slots.iter().any(waits)
    }

    /// The domains whose guests run.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let running = |slot: &&Slot| matches!(slot.domain.state(), State::Running { .. });
        self.slots.iter().filter(running).map(|slot| slot.member.name.clone()).collect()
    }

    /// Stops every domain. Called again, without waiting for the guests.
    pub fn stop_all(&mut self) {
        let now = std::mem::replace(&mut self.shared.shutting_down, true);
        for slot in &mut self.slots {
            // Not now that this agent goes with them.
            Wanted::forget(&self.shared.parts.layout, &slot.member.name);
            slot.feed(&mut self.shared, Event::Stop { now });
        }
    }

    /// Whether the agent is on its way out.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.shared.shutting_down
    }

    /// Whether every domain is off.
    #[must_use]
    pub fn all_off(&self) -> bool {
        self.slots.iter().all(|slot| slot.domain.state() == State::Off)
    }

    /// The domains the agent runs.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The domains somebody else runs.
    #[must_use]
    pub fn externals(&self) -> &[String] {
        &self.externals
    }

    /// Where VMMs have their groups.
    #[must_use]
    pub fn cgroups(&self) -> Option<Arc<Cgroups>> {
        self.shared.parts.cgroups.clone()
    }

    /// The rule for the host's network, and the host's configured interfaces when last looked at,
    /// or why they could not be listed.
    pub fn host_network(&self) -> (Rule, Result<&[ConfiguredInterface], &str>) {
        (self.shared.host_rule, self.shared.host_found())
    }

    /// The time domains count in.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// Sends an event to a domain by name; `Err` says why that cannot be.
    pub fn command(&mut self, name: &str, event: Event) -> Result<(), String> {
        if self.shared.shutting_down {
            return Err("the agent is stopping; start it again first".to_owned());
        }
        let slot = Self::find(&mut self.slots, &self.externals, name)?;
        slot.feed(&mut self.shared, event);
        Ok(())
    }

    /// The PC slept: restarts every domain whose VMM has PCI functions, which vfio-pci does not keep through it, and says which. The others'
    /// guests notice nothing but the time.
    pub fn slept(&mut self) -> Vec<String> {
        let mut restarted = Vec::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.has_functions()) {
            if matches!(slot.domain.state(), State::Running { .. }) {
                restarted.push(slot.member.name.clone());
            }
            slot.feed(&mut self.shared, Event::Slept);
        }
        restarted
    }

    /// Whether a domain is on its way from one state to another.
    #[must_use]
    pub fn is_under_way(&self, name: &str) -> bool {
        let slot = self.slots.iter().find(|slot| slot.member.name == name);
        slot.is_some_and(|slot| !slot.domain.state().is_settled())
    }

    /// Resets a running guest.
    pub fn reset(&mut self, name: &str) -> Result<(), String> {
        let now = self.shared.now();
        let slot = Self::find(&mut self.slots, &self.externals, name)?;
        match slot.domain.state() {
            State::Running { .. } => slot.link.send(now, Command::Reset),
            other => Err(format!(
                "{name} is {}, and only a running domain can be reset; `bulkhead start {name}` starts it",
                other.word()
            )),
        }
    }

    fn find<'a>(
        slots: &'a mut [Slot],
        externals: &[String],
        name: &str,
    ) -> Result<&'a mut Slot, String> {
        if externals.iter().any(|external| external == name) {
            return Err(format!("{name} is run by an external VMM; start and stop it there"));
        }
        let known = slots.iter().map(|slot| slot.member.name.as_str());
        let unknown = no_domain(name, known.chain(externals.iter().map(String::as_str)));
        slots.iter_mut().find(|slot| slot.member.name == name).ok_or(unknown)
    }

    /// What the event loop waits on.
    pub fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.shared.wake.as_fd()];
        fds.extend(self.slots.iter().flat_map(Slot::fds));
        fds
    }

    /// When [`Self::turn`] is next needed even though nothing came.
    #[must_use]
    pub fn deadline(&self) -> Time {
        let slots = self.slots.iter().filter_map(Slot::deadline).min();
        slots.map_or(self.host_network_next, |at| at.min(self.host_network_next))
    }

    /// Takes everything that happened: reports of workers, words and ends of VMMs, time.
    pub fn turn(&mut self) {
        // Only a wake-up; what counts is in the channel.
        let _ = self.shared.wake.read();
        while let Ok((index, report)) = self.reports.try_recv() {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.report(&mut self.shared, report);
            }
        }
        for slot in &mut self.slots {
            slot.turn(&mut self.shared);
        }
        self.open_gate();
        if self.shared.now() >= self.host_network_next {
            self.look_at_host_network();
        }
    }

    /// The host's network is looked at once no NIC is on its way any more.
    fn open_gate(&mut self) {
        let gated = self.slots.iter().any(|slot| slot.domain.state() == State::Gated);
        if !gated || self.slots.iter().any(Slot::devices_on_their_way) {
            return;
        }
        self.look_at_host_network();
        let verdict = self.shared.host_verdict();
        for slot in self.slots.iter_mut().filter(|slot| slot.domain.state() == State::Gated) {
            slot.feed(&mut self.shared, Event::Gate(verdict.clone()));
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

impl Shared {
    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    fn host_found(&self) -> Result<&[ConfiguredInterface], &str> {
        self.host_interfaces.as_deref().map_err(String::as_str)
    }

    /// The host-network rule.
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
        let (reporter, wake) = (self.reporter.clone(), self.wake.clone());
        std::thread::Builder::new().name(format!("devices-{name}")).spawn(move || {
            let tell = |report| {
                // The receiver lives as long as the agent; a full eventfd is awake already.
                let _ = reporter.send((index, report));
                let _ = wake.write(1);
            };
            tell(Report::Done(done(survived(|| job(&tell)))));
        })?;
        Ok(())
    }
}

/// The users of domains' VMMs, by the users that those have which run already: each has one that no other has, nor one `elsewhere`, if
/// possible that of its place.
fn sandbox_ids(held: &[Option<u32>], elsewhere: &[u32]) -> Vec<u32> {
    let mut taken: BTreeSet<u32> = held.iter().copied().flatten().collect();
    taken.extend(elsewhere);
    let mut ids = Vec::new();
    for (own, held) in (SANDBOX_ID_BASE..).zip(held) {
        let id = held.unwrap_or_else(|| {
            // There are as many numbers from each as domains at least.
            let free = (own..).chain(SANDBOX_ID_BASE..own).find(|id| !taken.contains(id));
            free.unwrap_or(own)
        });
        taken.insert(id);
        ids.push(id);
    }
    ids
}

/// What became of a job, a fault of ours in it included: nobody is to wait for a thread that is no more.
fn survived(job: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(job))
        .unwrap_or_else(|_| Err("the agent failed at it: report it with the log".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_vmms_have_one_user_whatever_those_have_that_run_on() {
        let base = SANDBOX_ID_BASE;
        assert_eq!(sandbox_ids(&[None, None], &[]), [base, base + 1]);
        // The policy has them the other way round now.
        assert_eq!(sandbox_ids(&[Some(base + 1), Some(base)], &[]), [base + 1, base]);
        assert_eq!(sandbox_ids(&[None, Some(base)], &[base]), [base + 1, base]);
        assert_eq!(sandbox_ids(&[Some(base + 1), None], &[base + 1]), [base + 1, base + 2]);
        // Those of a domain that there is not any more, and that are being ended.
        assert_eq!(sandbox_ids(&[None, None], &[base, base + 2]), [base + 1, base + 3]);
    }

    #[test]
    fn a_worker_that_fails_is_waited_for_by_nobody() {
        assert_eq!(survived(|| Ok(())), Ok(()));
        let failed = survived(|| panic!("a fault of ours"));
        assert!(failed.unwrap_err().contains("report it"));
    }
}
