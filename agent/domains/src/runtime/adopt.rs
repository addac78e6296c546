//! Adopts a VMM that an earlier agent left: its guest runs on, and does not notice.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::super::adoption::{self, EarlierVmm};
use super::super::capture::Capture;
use super::super::desired_state::DesiredState;
use super::super::lifecycle::{Event, Exit};
use super::super::process::{FileId, VmmProcess};
use super::super::record::VmmRecord;
use super::super::{Parts, SupervisorContext};
use super::DomainRuntime;
use super::start::not_kept;

/// How the VMM that runs differs from one that would be started now. It runs on, and is put right when its desktop is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmmMismatch {
    /// It speaks another version of the seat link: it has no screen, keyboard and pointer.
    SeatLink,
    /// The policy or the machine file asks for something else.
    Spec,
    /// The program was replaced since.
    Program,
}

impl fmt::Display for VmmMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SeatLink => {
                "is run by a bulkhead-vmm of another version, with which this agent cannot share screen and keyboard"
            }
            Self::Spec => {
                "runs as it was started; policy or machine file ask for something else since"
            }
            Self::Program => "is run by a bulkhead-vmm that was replaced since",
        })
    }
}

/// What became of the VMM that an earlier agent left of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing: it is to be started.
    Nothing,
    /// Nothing, and it is not to be started.
    StaysOff,
    /// Its guest runs on.
    RunsOn,
    /// Its VMM is being ended, and then started anew if that is wanted.
    IsEnded,
    /// Its VMM ended while no agent ran; what is done about it is what would have been done then.
    HadEnded,
}

impl DomainRuntime {
    /// Adopts what an earlier agent left of this domain.
    pub(in super::super) fn adopt(&mut self, shared: &mut SupervisorContext) -> Adoption {
        let layout = &shared.parts.layout;
        let domain = self.policy.name.clone();
        self.wanted = DesiredState::read(layout, &domain);
        let stays_off = self.wanted == Some(DesiredState::Off);
        match adoption::find(layout, shared.parts.cgroups.as_deref(), &domain) {
            EarlierVmm::Nothing => self.left_off(shared, stays_off),
            EarlierVmm::Unreachable => {
                tracing::warn!(
                    domain,
                    "something is behind its VMM's control socket that takes no caller; what it may still hold is kept from the next VMM"
                );
                self.left_off(shared, stays_off)
            }
            EarlierVmm::Running(vmm, record) => {
                tracing::info!(
                    domain,
                    pid = vmm.identity().pid,
                    "its guest runs on; taken up from an earlier agent"
                );
                self.run_on(shared, vmm, *record);
                match self.wanted {
                    Some(DesiredState::Run) | None if self.runs_what_was_given_up() => {
                        self.feed(shared, Event::Restart);
                    }
                    Some(DesiredState::Off) => self.feed(shared, Event::Stop { now: false }),
                    Some(DesiredState::Restart) => self.feed(shared, Event::Restart),
                    Some(DesiredState::Run) | None => return Adoption::RunsOn,
                }
                Adoption::IsEnded
            }
            EarlierVmm::ToEnd(vmm, why, record) => {
                tracing::warn!(
                    domain,
                    pid = vmm.identity().pid,
                    "an earlier agent left this VMM, which is ended: {why}"
                );
                self.hold(shared, vmm);
                // Until it has ended nobody else is this user; then its domain's next VMM is.
                self.sandbox_id = record.and_then(|record| record.sandbox_id);
                self.feed(shared, Event::Found { answered: false });
                let next = if stays_off { Event::Stop { now: false } } else { Event::Restart };
                self.feed(shared, next);
                Adoption::IsEnded
            }
            EarlierVmm::Ended(exit, record) => {
                tracing::warn!(
                    domain,
                    pid = record.identity.pid,
                    "its VMM ended while no agent ran"
                );
                // What may be left of it goes before anything takes its place.
                if let Some(group) = shared.parts.cgroups.as_ref().and_then(|all| all.find(&domain))
                {
                    group.kill();
                    group.remove();
                }
                self.had_ended(shared, exit);
                Adoption::HadEnded
            }
        }
    }

    fn left_off(&mut self, shared: &mut SupervisorContext, stays_off: bool) -> Adoption {
        if !stays_off {
            return Adoption::Nothing;
        }
        self.feed(shared, Event::LeftOff);
        Adoption::StaysOff
    }

    fn had_ended(&mut self, shared: &mut SupervisorContext, exit: Exit) {
        if self.wanted == Some(DesiredState::Run) && exit == Exit::PoweredOff {
            self.write_wanted(shared, DesiredState::Off);
            self.forget(shared);
            self.feed(shared, Event::Found { answered: true });
            return self.feed(shared, Event::Exited(exit));
        }
        self.forget(shared);
        match (self.wanted, exit) {
            (Some(DesiredState::Off), _) => self.feed(shared, Event::LeftOff),
            // It ended because it was to be restarted.
            (Some(DesiredState::Restart), _) | (None, Exit::PoweredOff) => {
                self.feed(shared, Event::Start);
            }
            (Some(DesiredState::Run) | None, exit) => {
                self.feed(shared, Event::Found { answered: true });
                self.feed(shared, Event::Exited(exit));
            }
        }
    }

    fn run_on(&mut self, shared: &mut SupervisorContext, vmm: VmmProcess, record: VmmRecord) {
        self.hold(shared, vmm);
        let seat = self.has_seat(&shared.parts) && record.link == seat_link::VERSION;
        self.seat_next = seat.then(|| shared.now());
        self.sandbox_id = record.sandbox_id;
        self.record = Some(record);
        self.image_runs_on(shared);
        self.feed(shared, Event::Found { answered: true });
    }

    /// Takes the process for this domain's from now on.
    fn hold(&mut self, shared: &SupervisorContext, vmm: VmmProcess) {
        let (parts, name) = (&shared.parts, &self.policy.name);
        self.capture = Capture::open(&parts.layout.vmm_log(name))
            .inspect_err(|error| {
                tracing::warn!(domain = name, "the VMM's log cannot be read: {error}")
            })
            .ok();
        // Its limits stay what they are: they fit the guest that runs.
        self.group = parts.cgroups.as_ref().and_then(|groups| groups.find(name));
        // Its processors are not: what the machine file says of them counts for all domains at once.
        self.not_kept = self.keep_adopted();
        if let Some(why) = &self.not_kept {
            tracing::warn!(domain = name, "{why}");
        }
        (self.ask_next, self.unanswered) = (shared.now(), 0);
        self.vmm = Some(vmm);
    }

    /// Keeps a VMM that was taken up to its processors; returns why that cannot be.
    fn keep_adopted(&self) -> Option<String> {
        let cpus = match &self.cpus {
            Ok(cpus) => cpus.as_deref(),
            Err(why) => return Some(why.clone()),
        };
        match &self.group {
            Some(group) => {
                group.keep_to(cpus).err().map(|error| not_kept(cpus, &printable::explain(&error)))
            }
            None => cpus.map(|_| not_kept(cpus, "its VMM is in no cgroup")),
        }
    }

    /// Finds out whether its VMM is as one would be started now.
    pub(in super::super) fn compare(&mut self, parts: &Parts) {
        let outdated = self.record.as_ref().and_then(|record| self.outdated_by(parts, record));
        if outdated != self.outdated
            && let Some(outdated) = outdated
        {
            tracing::warn!(domain = self.policy.name, "{outdated}");
        }
        self.outdated = outdated;
    }

    /// Returns how a VMM of this record differs from one that would be started now.
    pub(super) fn outdated_by(&self, parts: &Parts, record: &VmmRecord) -> Option<VmmMismatch> {
        if record.link != seat_link::VERSION {
            return Some(VmmMismatch::SeatLink);
        }
        // Another image than it runs is nothing that its VMM is behind in: it waits for a start (`image_note`).
        let now = self.started_as(parts, self.policy.discard, record.image.as_ref());
        if !now.is_ok_and(|(_, now)| now.spec == record.spec) {
            return Some(VmmMismatch::Spec);
        }
        let program = fs::metadata(&parts.vmm)
            .map(|file| FileId { device: file.dev(), inode: file.ino() })
            .ok();
        let replaced = record.executable.zip(program).is_some_and(|(runs, is)| runs != is);
        replaced.then_some(VmmMismatch::Program)
    }

    /// Returns how its VMM differs from one that would be started now.
    #[must_use]
    pub fn outdated(&self) -> Option<VmmMismatch> {
        self.outdated
    }
}
