//! One domain with everything that belongs to it, carrying out what its state machine decides.

use std::ffi::OsString;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use logging::LIMITED_BY_CALLER;
use vmm_control::Command;

use super::capture::Capture;
use super::cgroup::{DomainGroup, Limits};
use super::devices::Devices;
use super::domain::{Action, Domain, Event, Exit, State, Time};
use super::link::Link;
use super::process::VmmProcess;
use super::spec::{self, SANDBOX_ID_BASE, Start};
use super::{Parts, Report, Shared, disks};
use printable::explain;

use config::machine::VmHardware;
use config::roster::Member;
use control::reports::NicReport;

/// How often a VMM that has not answered yet is asked.
const ASK_EARLY: Duration = Duration::from_millis(100);
/// How often one that has answered is asked.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Unanswered questions after which a VMM counts as silent.
const SILENT_AFTER: u32 = 3;

/// One domain.
pub struct Slot {
    index: usize,
    pub(super) domain: Domain,
    pub(super) member: Member,
    devices: Devices,
    sandbox_id: Option<u32>,
    vmm: Option<VmmProcess>,
    capture: Option<Capture>,
    last_words: Option<String>,
    pub(super) link: Link,
    group: Option<DomainGroup>,
    /// A worker is at it.
    working: bool,
    /// Its worker hands functions over.
    devices_on_their_way: bool,
    ask_next: Time,
    unanswered: u32,
    /// Its VMM's end of the seat is to be connected to, at this time.
    seat_next: Option<Time>,
}

impl Slot {
    pub(super) fn new(
        index: usize,
        member: Member,
        hardware: VmHardware,
        stop_deadline: Duration,
        parts: &Parts,
    ) -> Self {
        let id = u32::try_from(index).ok().map(|index| SANDBOX_ID_BASE + index);
        let devices = Devices {
            domain: member.name.clone(),
            hardware,
            discard: member.discard,
            layout: parts.layout.clone(),
            handover: parts.handover.clone(),
        };
        Self {
            index,
            domain: Domain::new(stop_deadline),
            link: Link::new(&parts.layout.vmm_socket(&member.name)),
            member,
            devices,
            sandbox_id: id.filter(|_| parts.as_root),
            vmm: None,
            capture: None,
            last_words: None,
            group: None,
            working: false,
            devices_on_their_way: false,
            ask_next: Time::ZERO,
            unanswered: 0,
            seat_next: None,
        }
    }

    /// The word of another policy on it. A start that is under way goes on with the old one's.
    pub(super) fn take_member(&mut self, member: Member) {
        self.member = member;
    }

    /// The policy's word on it.
    #[must_use]
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Its life.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What it has.
    #[must_use]
    pub fn hardware(&self) -> &VmHardware {
        &self.devices.hardware
    }

    /// The process of its VMM.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.vmm.as_ref().map(|vmm| vmm.identity().pid)
    }

    /// Whether its VMM has stopped answering. It runs on: a guest matters more than its status.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.unanswered >= SILENT_AFTER
            && matches!(self.domain.state(), State::Running { answered: true, .. })
    }

    /// Its PCI functions, as they are now.
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

    pub(super) fn devices_on_their_way(&self) -> bool {
        self.devices_on_their_way
    }

    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.capture.as_ref().map(AsFd::as_fd).into_iter().chain(self.link.fd())
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // While a question is on its way its own deadline counts, and the next one waits.
        let may_ask = matches!(self.domain.state(), State::Running { .. }) && !self.link.is_busy();
        let asking = may_ask.then_some(self.ask_next);
        let all = [self.domain.deadline(), self.link.deadline(), asking, self.seat_next];
        all.into_iter().flatten().min()
    }

    /// Gives the state machine an event, and does what it says, until it says nothing more.
    pub(super) fn feed(&mut self, shared: &mut Shared, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            let before = self.domain.state();
            let problem_before = self.domain.problem().map(str::to_owned);
            let action = self.domain.handle(shared.now(), event);
            self.say(before, problem_before.as_deref());
            next = action.and_then(|action| self.perform(shared, action));
        }
    }

    fn say(&self, before: State, problem_before: Option<&str>) {
        let (name, after) = (self.member.name.as_str(), self.domain.state());
        let moved = before.word() != after.word();
        let failed_again = moved && matches!(after, State::Backoff { .. });
        let problem = self.domain.problem();
        if let Some(problem) = problem.filter(|p| failed_again || Some(*p) != problem_before) {
            tracing::error!(domain = name, "{problem}");
        }
        if moved {
            tracing::info!(domain = name, "{} -> {}", before.word(), after.word());
        }
    }

    fn perform(&mut self, shared: &mut Shared, action: Action) -> Option<Event> {
        match action {
            Action::Prepare => self.prepare(shared),
            // The supervisor opens the gate for all at once.
            Action::AskGate => None,
            Action::Spawn => Some(Event::Spawned(self.spawn(shared))),
            Action::PressPowerButton => {
                let sent = self.link.send(shared.now(), Command::PowerButton);
                if let (Err(_), Some(vmm)) = (sent, &mut self.vmm) {
                    vmm.press_power_button();
                }
                None
            }
            Action::EndVmm => {
                let sent = self.link.send(shared.now(), Command::Stop);
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

    fn prepare(&mut self, shared: &Shared) -> Option<Event> {
        if self.working {
            return Some(Event::Prepared(Err(BUSY.to_owned())));
        }
        self.devices.discard = self.member.discard;
        let devices = self.devices.clone();
        let started = shared.work(self.index, &self.member.name, Event::Prepared, move |report| {
            let taken = devices.take();
            report(Report::DevicesDone);
            taken.and_then(|()| devices.make_disks())
        });
        self.working = started.is_ok();
        self.devices_on_their_way = self.working;
        let failed = started.err()?;
        Some(Event::Prepared(Err(format!("cannot start a thread: {failed}"))))
    }

    fn release(&mut self, shared: &Shared) -> Option<Event> {
        if self.working {
            return Some(Event::Released(Err(BUSY.to_owned())));
        }
        let devices = self.devices.clone();
        let started =
            shared.work(self.index, &self.member.name, Event::Released, move |_| devices.release());
        self.working = started.is_ok();
        let failed = started.err()?;
        Some(Event::Released(Err(format!("cannot start a thread: {failed}"))))
    }

    pub(super) fn report(&mut self, shared: &mut Shared, report: Report) {
        self.devices_on_their_way = false;
        if let Report::Done(event) = report {
            self.working = false;
            self.feed(shared, event);
        }
    }

    fn spawn(&mut self, shared: &mut Shared) -> Result<(), String> {
        self.remove_sockets(shared);
        let hardware = &self.devices.hardware;
        let layout = &shared.parts.layout;
        let files = disks::files(&self.member.name, &hardware.disks, self.devices.discard, layout);
        let level = &shared.parts.log_level;
        let name = &self.member.name;
        let seat = shared.parts.seat.as_ref().and_then(|seat| seat.index(name)).is_some();
        let start = Start {
            disks: &files,
            sandbox_id: self.sandbox_id,
            seat,
            stop_deadline: self.domain.stop_deadline(),
        };
        let told =
            spec::hand(&spec::of(name, hardware, layout, &start)).map_err(|e| explain(&e))?;
        let arguments = ["run", "--spec-fd", "0", "--log-level", level].map(OsString::from);
        let (vmm, capture) = VmmProcess::start(&shared.parts.vmm, &arguments, Some(told))
            .map_err(|e| explain(&e))?;
        let identity = vmm.identity();
        tracing::info!(domain = self.member.name, pid = identity.pid, "VMM started");
        if let Err(error) = shared.record.note(layout, &self.member.name, Some(identity)) {
            tracing::warn!(domain = self.member.name, "cannot write down the VMM: {error}");
        }
        self.group = self.join_group(shared, identity.pid);
        self.link = Link::new(&layout.vmm_socket(&self.member.name));
        (self.ask_next, self.unanswered) = (shared.now(), 0);
        self.seat_next = seat.then(|| shared.now());
        (self.vmm, self.capture) = (Some(vmm), Some(capture));
        Ok(())
    }

    /// A VMM that died leaves its sockets; the next one could not listen there.
    fn remove_sockets(&self, shared: &Shared) {
        let Ok(entries) = fs::read_dir(shared.parts.layout.domain(&self.member.name)) else {
            return;
        };
        for entry in entries.flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "sock")
                && let Err(error) = fs::remove_file(entry.path())
            {
                tracing::warn!(domain = self.member.name, "cannot remove an old socket: {error}");
            }
        }
    }

    fn join_group(&self, shared: &Shared, pid: i32) -> Option<DomainGroup> {
        let cgroups = shared.parts.cgroups.as_ref()?;
        let limits = Limits {
            memory: self.devices.hardware.memory.bytes(),
            high_priority: self.member.high_priority,
        };
        let joined = cgroups.domain(&self.member.name, limits).and_then(|(group, missing)| {
            group.add(pid)?;
            Ok((group, missing))
        });
        match joined {
            Ok((group, missing)) => {
                if !missing.is_empty() && self.domain.restarts() == 0 {
                    tracing::warn!(
                        domain = self.member.name,
                        "the kernel does not offer {}; the domain runs without",
                        missing.join(", ")
                    );
                }
                Some(group)
            }
            Err(error) => {
                tracing::warn!(
                    domain = self.member.name,
                    "no limits on CPU and memory: {}",
                    explain(&error)
                );
                None
            }
        }
    }

    pub(super) fn turn(&mut self, shared: &mut Shared) {
        self.listen(shared);
        self.reap(shared);
        self.talk(shared);
        self.connect_seat(shared);
        self.feed_tick(shared);
    }

    fn feed_tick(&mut self, shared: &mut Shared) {
        if self.domain.deadline().is_some_and(|deadline| shared.now() >= deadline) {
            self.feed(shared, Event::Tick);
        }
    }

    /// What the VMM says.
    fn listen(&mut self, shared: &Shared) {
        let Some(capture) = &mut self.capture else { return };
        let turn = capture.turn(shared.now());
        let domain = self.member.name.as_str();
        if turn.dropped > 0 {
            tracing::warn!(target: LIMITED_BY_CALLER, domain, "vmm: {} lines left out", turn.dropped);
        }
        for line in turn.lines {
            tracing::info!(target: LIMITED_BY_CALLER, domain, "vmm: {line}");
        }
        self.last_words = capture.last_line().map(str::to_owned);
        if turn.ended {
            self.capture = None;
        }
    }

    fn reap(&mut self, shared: &mut Shared) {
        let Some(vmm) = &mut self.vmm else { return };
        let Some(exit) = vmm.ended() else { return };
        // Its last words may have come since they were last read.
        self.listen(shared);
        let exit = match (exit, self.last_words.take()) {
            (Exit::Failed(how), Some(line)) => Exit::Failed(format!("{how}: {line}")),
            (exit, _) => exit,
        };
        (self.vmm, self.capture, self.seat_next) = (None, None, None);
        if let Some(seat) = &shared.parts.seat
            && let Some(index) = seat.index(&self.member.name)
        {
            seat.tell(seat::Command::Detach(index));
        }
        self.link = Link::new(&shared.parts.layout.vmm_socket(&self.member.name));
        if let Some(group) = self.group.take() {
            // What the VMM may have started goes with it.
            group.kill();
            group.remove();
        }
        if let Err(error) = shared.record.note(&shared.parts.layout, &self.member.name, None) {
            tracing::warn!(domain = self.member.name, "cannot write down the VMM's end: {error}");
        }
        self.feed(shared, Event::Exited(exit));
    }

    /// The VMM's control socket.
    fn talk(&mut self, shared: &mut Shared) {
        let now = shared.now();
        for (request, result) in self.link.turn(now) {
            match (request, result) {
                (Command::Status, Ok(())) => {
                    self.unanswered = 0;
                    self.ask_next = now + ASK_AGAIN;
                    self.feed(shared, Event::Answered);
                }
                (Command::Status, Err(problem)) => self.unheard(&problem),
                (Command::PowerButton, Err(problem)) => {
                    tracing::warn!(
                        domain = self.member.name,
                        "power button: {problem}; pressing it by signal"
                    );
                    if let Some(vmm) = &mut self.vmm {
                        vmm.press_power_button();
                    }
                }
                (Command::Stop, Err(_)) => {
                    if let Some(vmm) = &self.vmm {
                        vmm.end();
                    }
                }
                (Command::Reset, Err(problem)) => {
                    tracing::warn!(domain = self.member.name, "reset: {problem}");
                }
                // The agent never pauses a guest.
                (Command::Pause | Command::Resume, Err(_)) | (_, Ok(())) => {}
            }
        }
        let State::Running { answered, .. } = self.domain.state() else { return };
        if now >= self.ask_next && !self.link.is_busy() {
            self.ask_next = now + if answered { ASK_AGAIN } else { ASK_EARLY };
            if let Err(problem) = self.link.send(now, Command::Status)
                && answered
            {
                self.unheard(&problem);
            }
        }
    }

    /// Connects the seat to the VMM as soon as that listens for it.
    fn connect_seat(&mut self, shared: &Shared) {
        let now = shared.now();
        let Some(parts) =
            self.seat_next.filter(|next| now >= *next).and(shared.parts.seat.as_ref())
        else {
            return;
        };
        self.seat_next = Some(now + ASK_EARLY);
        let name = &self.member.name;
        if let Some(index) = parts.index(name)
            && let Ok(link) = seat_link::connect(&shared.parts.layout.seat_socket(name))
        {
            parts.tell(seat::Command::Attach(index, link));
            self.seat_next = None;
        }
    }

    fn unheard(&mut self, problem: &str) {
        self.unanswered = self.unanswered.saturating_add(1);
        if self.unanswered == SILENT_AFTER {
            tracing::warn!(domain = self.member.name, "{problem}; its guest runs on");
        }
    }
}

/// A worker that the kernel holds.
const BUSY: &str = "its devices are still held by an earlier attempt; see the log for which driver does not let go";
