//! What the daemon needs of every mediator, and what it does with each in the same way.
//!
//! | trait | |
//! | --- | --- |
//! | [`Start`] | how it comes to be |
//! | [`Duties`] | what it does when the daemon has something for it |
//! | [`Client`] | its thread, what it does with what that says, and what is said when that is no more |
//! | [`Mediator`] | what the daemon does with each of them, made of the other two |
//!
//! None has a default: what a new mediator leaves out does not compile.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use monitor::core::Cause;
use monitor::{MediatorId, MediatorThread, Monitor, Stop, ThreadEvents};
use policy::Policy;
use seat::ToMediators;

use crate::seat::SeatClient;
use crate::worker_resources::WorkerResources;
use crate::{DaemonError, record};
use base::layout::Layout;
use config::machine::{DomainHardware, Machine};
use domains::cgroup::Cgroups;

/// What a mediator is started with.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) layout: &'a Layout,
    pub(crate) policy: &'a Arc<Policy>,
    /// Where the PC has cgroups.
    pub(crate) cgroups: Option<&'a Cgroups>,
    pub(crate) worker_resources: &'a WorkerResources,
}

/// The rules in force.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) policy: &'a Arc<Policy>,
    /// Whether break-glass is open.
    pub(crate) break_glass: bool,
}

/// How a mediator comes to be: a row of the table needs this.
pub(super) trait Start: Client + Sized {
    /// Lists the paths of its sockets for a domain, besides those of a VMM's ports.
    fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf>;

    /// Starts it. What it changes on the PC waits for [`Duties::activate`].
    ///
    /// # Errors
    /// The agent does not start without it.
    fn start(place: Place<'_>) -> Result<Self, DaemonError>;
}

/// What a mediator does when the daemon has something for it.
pub(crate) trait Duties {
    /// Takes over what it mediates, which may change the PC. The agent's start cannot fail any more: one that fails before leaves the PC as it is.
    fn activate(&mut self, place: Place<'_>);

    /// Returns what the seat's thread tells it directly, if it listens to that. It must not wait.
    fn listener(&self) -> Option<Box<dyn Fn(ToMediators) + Send>>;

    /// Handles what a person answered to its question of this number, silence being no.
    fn answered(&mut self, number: u64, yes: bool);

    /// Ends what it has permits for and these rules, or the lost record, do not permit any more.
    fn revoke(&mut self, cause: Cause, rules: Rules<'_>);

    /// Lets through from now on what break-glass alone permits.
    fn break_glass_opened(&mut self, rules: Rules<'_>);

    /// Returns what `status` says if it does not do what this policy wants.
    fn fault(&self, policy: &Policy) -> Option<String>;
}

/// What is said when the thread of a mediator is no more.
pub(super) struct Failure {
    /// The line in the agent's own log.
    pub(super) log: &'static str,
    /// The notice at the seat, shown once.
    pub(super) notice: &'static str,
    /// The note in every banner, until the agent is another one.
    pub(super) banner: &'static str,
}

/// The daemon's side of a mediator's thread.
pub(super) trait Client: Duties {
    /// The commands that its thread takes.
    type Command;
    /// The events that its thread reports.
    type Event;
    /// What the monitor knows it by.
    const ID: MediatorId;
    /// What is said when its thread is no more.
    const FAILURE: Failure;

    /// Returns its thread, if it has one.
    fn thread(&self) -> Option<&MediatorThread<Self::Command, Self::Event>>;

    /// Returns its thread, if it has one, for the monitor to hear.
    fn thread_mut(&mut self) -> Option<&mut MediatorThread<Self::Command, Self::Event>>;

    /// Takes from the seat what its thread has to know, before that is heard.
    fn look_at(&mut self, seat: &SeatClient);

    /// Handles what its thread has said. Without a seat the agent ends: what is to be recorded is recorded, and nobody is told or asked.
    fn handle(&mut self, event: Self::Event, seat: Option<&SeatClient>, monitor: &mut Monitor);

    /// Forgets what its thread had, which is no more, and tells whoever waits for it.
    fn died(&mut self);

    /// Returns what every banner says of it while its thread lives.
    fn progress(&self) -> Option<&'static str>;
}

/// The daemon's side of a part of the agent that runs on a thread of its own, asks the monitor for permits, and holds what they permit.
pub(crate) trait Mediator: Duties {
    /// Asks its thread whether it still comes round.
    fn probe(&self);

    /// Returns whether its thread has come round since it was last probed, or is no more, which is reported elsewhere.
    fn is_responsive(&self) -> bool;

    /// Becomes readable when there is an event; `None` without a thread.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Processes the events of its thread, and the death of that, which is recorded and said once.
    fn process_events(&mut self, seat: &SeatClient, monitor: &mut Monitor);

    /// Returns what every banner says of it.
    fn banner_note(&self) -> Option<String>;

    /// Ends it: what it holds it lets go. What happened last is recorded, and what it still wanted is refused.
    fn stop(&mut self, stop: Stop, monitor: &mut Monitor);
}

impl<T: Client> Mediator for T {
    fn probe(&self) {
        if let Some(thread) = self.thread() {
            thread.probe();
        }
    }

    fn is_responsive(&self) -> bool {
        self.thread().is_none_or(MediatorThread::is_responsive)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.thread().map(MediatorThread::fd)
    }

    fn process_events(&mut self, seat: &SeatClient, monitor: &mut Monitor) {
        self.look_at(seat);
        let Some(thread) = self.thread_mut() else { return };
        let ThreadEvents { events, died } = monitor.hear(thread);
        for event in events {
            self.handle(event, Some(seat), monitor);
        }
        if died {
            self.died();
            monitor.note(&[record::failed(Self::ID.name())]);
            tracing::error!("{}", Self::FAILURE.log);
            seat.notice(Self::FAILURE.notice.to_owned());
        }
    }

    fn banner_note(&self) -> Option<String> {
        let died = self.thread().is_some_and(MediatorThread::has_died);
        let words = if died { Some(Self::FAILURE.banner) } else { self.progress() };
        words.map(str::to_owned)
    }

    fn stop(&mut self, stop: Stop, monitor: &mut Monitor) {
        let Some(thread) = self.thread_mut() else { return };
        for event in monitor.end(thread, stop) {
            self.handle(event, None, monitor);
        }
    }
}
