//! One domain at run time, with everything that belongs to it: carries out what its life-cycle decides.

mod adopt;
mod events;
mod health;
mod start;

use std::os::fd::BorrowedFd;
use std::time::Duration;

use clock::Moment;
use vmm_control::{Command, HungThread};

use super::boot::BootFiles;
use super::boot::ImageSerial;
use super::capture::Capture;
use super::cgroup::DomainGroup;
use super::desired_state::DesiredState;
use super::devices::Devices;
use super::lifecycle::{Action, Event, Lifecycle, State, Time};
use super::pressure::{Change, Pressure};
use super::process::VmmProcess;
use super::record::VmmRecord;
use super::vmm_control_client::VmmControlClient;
use super::{Parts, Report, SupervisorContext};
pub use adopt::{Adoption, VmmMismatch};
use health::Health;
pub use health::ImageNews;
pub(super) use health::TrialEnd;

use config::domain_policies::DomainPolicy;
use config::machine::{Boot, VmHardware};
use control::reports::NicReport;

/// Unanswered questions after which a VMM counts as silent.
const SILENT_AFTER: u32 = 3;
/// Seconds that a thread has waited for the host until it is said: a disk that recovers from an error, or has many long requests before it, takes less.
const WAITS_AFTER: u64 = 120;

/// A domain that the agent runs: its life-cycle, its VMM and what the VMM has.
pub struct DomainRuntime {
    index: usize,
    pub(super) lifecycle: Lifecycle,
    pub(super) policy: DomainPolicy,
    pub(super) devices: Devices,
    pub(super) sandbox_id: Option<u32>,
    /// What its guest starts from, once that is verified.
    boot: Option<BootFiles>,
    /// Whether its last start found nothing that it could start from.
    has_no_boot: bool,
    /// The trial of its guest, while that is waited for.
    health: Option<Health>,
    /// The image on trial from which its guest runs on, of which nobody knows whether it came up.
    unjudged: Option<ImageSerial>,
    /// The image whose guest has to come up once its VMM is there, and in how long.
    awaited: Option<(ImageSerial, Duration)>,
    /// Why the image that its last start had on trial did not stay: its guest did not come up.
    image_problem: Option<String>,
    /// Why an image that was to come into force with its last start could not.
    image_refused: Option<String>,
    /// What there is to record of its image since somebody asked.
    pub(super) image_news: Vec<ImageNews>,
    vmm: Option<VmmProcess>,
    record: Option<VmmRecord>,
    /// The desired state that is on the disk.
    wanted: Option<DesiredState>,
    /// How its VMM differs from one that would be started now.
    outdated: Option<VmmMismatch>,
    capture: Option<Capture>,
    pub(super) control: VmmControlClient,
    group: Option<DomainGroup>,
    /// The processors that its VMM is kept to, as `cpuset.cpus` takes them, or why it cannot be started.
    cpus: Result<Option<String>, String>,
    /// Why its VMM, which was taken up from an earlier agent, is not kept to its processors.
    not_kept: Option<String>,
    /// Whether it was said that interrupts of its functions are served elsewhere.
    said_interrupts: bool,
    /// Why its VMM has to end at once.
    must_end: Option<String>,
    /// Whether a background job is at work for it.
    working: bool,
    /// Whether that job hands functions over.
    devices_on_their_way: bool,
    ask_next: Time,
    unanswered: u32,
    /// The thread of its VMM that has waited for the host for long.
    waits: Option<HungThread>,
    /// When its VMM's end of the seat link is next connected to.
    seat_next: Option<Time>,
    pressure: Pressure,
    /// The changes of its pressure since somebody asked.
    pub(super) pressure_changes: Vec<Change>,
}

impl DomainRuntime {
    pub(super) fn new(
        index: usize,
        policy: DomainPolicy,
        hardware: VmHardware,
        stop_deadline: Duration,
        cpus: Result<Option<String>, String>,
        parts: &Parts,
    ) -> Self {
        let devices = Devices {
            domain: policy.name.clone(),
            hardware,
            discard: policy.discard,
            layout: parts.layout.clone(),
            handover: parts.handover.clone(),
        };
        Self {
            index,
            lifecycle: Lifecycle::new(stop_deadline),
            control: VmmControlClient::new(&parts.layout.vmm_socket(&policy.name)),
            policy,
            devices,
            sandbox_id: None,
            boot: None,
            has_no_boot: false,
            health: None,
            unjudged: None,
            awaited: None,
            image_problem: None,
            image_refused: None,
            image_news: Vec::new(),
            vmm: None,
            record: None,
            wanted: None,
            outdated: None,
            capture: None,
            group: None,
            cpus,
            not_kept: None,
            said_interrupts: false,
            must_end: None,
            working: false,
            devices_on_their_way: false,
            ask_next: Time::ZERO,
            unanswered: 0,
            waits: None,
            seat_next: None,
            pressure: Pressure::default(),
            pressure_changes: Vec::new(),
        }
    }

    /// Applies another policy. A start that is under way goes on with the old one.
    pub(super) fn set_policy(&mut self, parts: &Parts, policy: DomainPolicy) {
        self.policy = policy;
        self.compare(parts);
    }

    /// Returns what the policy says of the domain.
    #[must_use]
    pub fn policy(&self) -> &DomainPolicy {
        &self.policy
    }

    /// Returns where the domain is in its life.
    #[must_use]
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Returns the hardware that the machine file gives it.
    #[must_use]
    pub fn hardware(&self) -> &VmHardware {
        &self.devices.hardware
    }

    /// Returns the process id of its VMM, if one runs.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.vmm.as_ref().map(|vmm| vmm.identity().pid)
    }

    /// Returns how long its VMM has been there, whichever agent started it.
    #[must_use]
    pub fn vmm_age(&self) -> Option<Duration> {
        let started = self.vmm.as_ref()?.identity().started();
        Some(Moment::now().saturating_duration_since(Moment::since_start(started)))
    }

    /// Returns whether it waits for an image that it can start from.
    #[must_use]
    pub fn waits_for_image(&self) -> bool {
        let is_image = matches!(self.devices.hardware.boot, Boot::Image(_));
        is_image && self.has_no_boot && matches!(self.lifecycle.state(), State::Backoff { .. })
    }

    /// Returns why its VMM is not kept to its processors.
    #[must_use]
    pub fn not_kept(&self) -> Option<&str> {
        self.not_kept.as_deref()
    }

    /// Returns what to say of a thread of its VMM that has waited for the host for long. A restart would change nothing about that.
    #[must_use]
    pub fn waits(&self) -> Option<String> {
        let HungThread { thread, seconds, .. } =
            self.waits.as_ref().filter(|hung| hung.seconds >= WAITS_AFTER)?;
        Some(format!(
            "its VMM's thread {thread} has waited for the host for {seconds} s, most likely for a disk that does not answer: look at the host's disks (dmesg)"
        ))
    }

    /// Returns whether its VMM has stopped answering. It runs on for a while: a guest matters more than its status.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.unanswered >= SILENT_AFTER
            && matches!(self.lifecycle.state(), State::Running { answered: true, .. })
    }

    /// Returns what it has wanted more of than it got, for long.
    #[must_use]
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// Returns its PCI functions, as they are now.
    #[must_use]
    pub fn functions(&self) -> Vec<NicReport> {
        let handed_over = self.devices.handover.handed_over();
        let hardware = &self.devices.hardware;
        let one = |address| {
            let former = handed_over.get(&address).and_then(|former| former.driver.clone());
            let (driver, problem) = match self.devices.handover.sysfs().inspect(address) {
                Ok(function) => (function.driver, None),
                Err(error) => (None, Some(error.to_string())),
            };
            let nic = hardware.nic.as_ref().is_some_and(|nic| nic.address == address);
            let goes_with = handed_over
                .iter()
                .filter(|(_, former)| former.companion_of() == Some(address))
                .map(|(companion, _)| companion.to_string())
                .collect();
            NicReport {
                address: address.to_string(),
                driver,
                former_driver: former,
                nic,
                goes_with,
                problem,
            }
        };
        hardware.pci_functions().map(one).collect()
    }

    /// Returns whether its VMM has PCI functions of its own.
    pub(super) fn has_functions(&self) -> bool {
        self.devices.hardware.pci_functions().next().is_some()
    }

    /// Returns whether its VMM's log is being started over, which is soon done.
    pub(super) fn is_log_starting_over(&self) -> bool {
        self.capture.as_ref().is_some_and(Capture::is_starting_over)
    }

    pub(super) fn devices_on_their_way(&self) -> bool {
        self.devices_on_their_way
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // Its end is looked at when its log has started over, for which the capture's deadline wakes the loop.
        let adopted =
            self.vmm.as_ref().filter(|vmm| vmm.is_adopted() && !self.is_log_starting_over());
        let ends = adopted
            .map(VmmProcess::fd)
            .into_iter()
            .chain(self.health.as_ref().and_then(Health::fd));
        self.capture.as_ref().and_then(Capture::fd).into_iter().chain(self.control.fd()).chain(ends)
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // While a question is on its way its own deadline counts, and the next one waits.
        let may_ask =
            matches!(self.lifecycle.state(), State::Running { .. }) && !self.control.is_busy();
        let asking = may_ask.then_some(self.ask_next);
        let said = self.capture.as_ref().and_then(Capture::deadline);
        let health = self.health.as_ref().map(Health::deadline);
        let all = [
            health,
            self.lifecycle.deadline(),
            self.control.deadline(),
            asking,
            self.seat_next,
            said,
        ];
        all.into_iter().flatten().min()
    }

    /// Gives the state machine an event, and does what it says, until it says nothing more.
    pub(super) fn feed(&mut self, shared: &mut SupervisorContext, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.lifecycle.state();
            let problem_before = self.lifecycle.problem().map(str::to_owned);
            // What is found says nothing of what is wanted.
            let found = matches!(event, Event::Found { .. });
            let action = self.lifecycle.handle(shared.now(), event);
            self.log_transition(before, problem_before.as_deref());
            if !found {
                self.write_wanted(shared, self.now_wanted());
            }
            next = action.and_then(|action| self.perform(shared, action));
        }
    }

    fn now_wanted(&self) -> DesiredState {
        match (self.lifecycle.wanted(), self.lifecycle.state()) {
            // Another agent may have what this one did not.
            (false, _) if self.lifecycle.has_given_up() => DesiredState::Run,
            (false, _) => DesiredState::Off,
            (true, State::Stopping(_)) => DesiredState::Restart,
            (true, _) => DesiredState::Run,
        }
    }

    /// Writes down what is wanted, before anything of it is done: whatever becomes of this agent, the next one goes on with it. An
    /// agent that ends with its guests leaves nothing to go on with.
    fn write_wanted(&mut self, shared: &SupervisorContext, wanted: DesiredState) {
        if shared.shutting_down || self.wanted == Some(wanted) {
            return;
        }
        let name = &self.policy.name;
        match wanted.write(&shared.parts.layout, name) {
            Ok(()) => self.wanted = Some(wanted),
            Err(error) => tracing::warn!(
                domain = name,
                "cannot write down what is wanted of it: {error}; an agent that follows this one would not know"
            ),
        }
    }

    /// Logs a change of state, and a problem that is new.
    fn log_transition(&self, before: State, problem_before: Option<&str>) {
        let (name, after) = (self.policy.name.as_str(), self.lifecycle.state());
        let moved = before.word() != after.word();
        let failed_again = moved && matches!(after, State::Backoff { .. });
        let problem = self.lifecycle.problem();
        if let Some(problem) = problem.filter(|p| failed_again || Some(*p) != problem_before) {
            tracing::error!(domain = name, "{problem}");
        }
        if moved {
            tracing::info!(domain = name, "{} -> {}", before.word(), after.word());
        }
    }

    fn perform(&mut self, shared: &mut SupervisorContext, action: Action) -> Option<Event> {
        match action {
            Action::Prepare => self.prepare(shared),
            // The supervisor opens the gate for all at once.
            Action::AskGate => None,
            Action::Spawn if self.is_superseded(shared) => Some(Event::Superseded),
            Action::Spawn => Some(Event::Spawned(self.spawn(shared))),
            Action::PressPowerButton => {
                let sent = self.control.send(shared.now(), Command::PowerButton);
                if let (Err(_), Some(vmm)) = (sent, &mut self.vmm) {
                    vmm.press_power_button();
                }
                None
            }
            Action::EndVmm => {
                let sent = self.control.send(shared.now(), Command::Stop);
                if let (Err(_), Some(vmm)) = (sent, &self.vmm) {
                    vmm.end();
                }
                None
            }
            Action::KillVmm => {
                if let Some(vmm) = &self.vmm {
                    vmm.kill();
                }
                if let Some(group) = &self.group {
                    group.kill();
                }
                None
            }
            Action::Release => self.release(shared),
        }
    }

    fn prepare(&mut self, shared: &SupervisorContext) -> Option<Event> {
        if self.working {
            return Some(Event::Prepared(Err(BUSY.to_owned())));
        }
        self.devices.discard = self.policy.discard;
        let devices = self.devices.clone();
        let started = shared.work(self.index, &self.policy.name, Event::Prepared, move |report| {
            devices.prepare(report)
        });
        self.working = started.is_ok();
        self.devices_on_their_way = self.working;
        let failed = started.err()?;
        Some(Event::Prepared(Err(format!("cannot start a thread: {failed}"))))
    }

    fn release(&mut self, shared: &SupervisorContext) -> Option<Event> {
        if self.working {
            return Some(Event::Released(Err(BUSY.to_owned())));
        }
        let devices = self.devices.clone();
        let started =
            shared.work(self.index, &self.policy.name, Event::Released, move |_| devices.release());
        self.working = started.is_ok();
        let failed = started.err()?;
        Some(Event::Released(Err(format!("cannot start a thread: {failed}"))))
    }

    pub(super) fn report(&mut self, shared: &mut SupervisorContext, report: Report) {
        if !matches!(report, Report::DidNotComeUp(..)) {
            self.devices_on_their_way = false;
        }
        match report {
            Report::DevicesDone => {}
            Report::NoBoot => self.has_no_boot = true,
            Report::Boot(found) => {
                let (boot, image) = *found;
                self.has_no_boot = false;
                self.boot = Some(boot);
                self.image_started(image);
            }
            Report::DidNotComeUp(end) => self.did_not_come_up(shared, end),
            Report::Done(event) => {
                self.working = false;
                self.feed(shared, event);
            }
        }
    }
}

/// Why a domain fails whose background job the kernel holds.
const BUSY: &str = "its devices are still held by an earlier attempt; see the log for which driver does not let go";
