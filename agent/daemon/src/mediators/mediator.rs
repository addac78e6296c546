//! What the daemon needs of every mediator. Nothing here has a default: what a new one leaves out does not compile.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;

use monitor::core::Cause;
use monitor::{MediatorId, Monitor};
use policy::Policy;
use seat::ToMediators;
use usb::Stop;

use crate::DaemonError;
use crate::seat::SeatClient;
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
}

/// The rules in force.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) policy: &'a Arc<Policy>,
    /// Whether break-glass is open.
    pub(crate) break_glass: bool,
}

/// How a mediator comes to be: a row of the table needs this.
pub(super) trait Start: Mediator + Sized {
    /// What the monitor knows it by.
    const ID: MediatorId;

    /// Lists the paths of its sockets for a domain, besides those of a VMM's ports.
    fn sockets(layout: &Layout, entry: &DomainHardware) -> Vec<PathBuf>;

    /// Starts it. What it changes on the PC waits for [`Mediator::activate`].
    ///
    /// # Errors
    /// The agent does not start without it.
    fn start(place: Place<'_>) -> Result<Self, DaemonError>;
}

/// The daemon's side of a part of the agent that runs on a thread of its own, asks the monitor for permits, and holds what they permit.
pub(crate) trait Mediator {
    /// Takes over what it mediates, which may change the PC. The agent's start cannot fail any more: one that fails before leaves the PC as it is.
    fn activate(&mut self, place: Place<'_>);

    /// Returns what the seat's thread tells it directly, if it listens to that. It must not wait.
    fn listener(&self) -> Option<Box<dyn Fn(ToMediators) + Send>>;

    /// Asks its thread whether it still comes round.
    fn probe(&self);

    /// Returns whether its thread has come round since it was last probed, or is no more, which is reported elsewhere.
    fn is_responsive(&self) -> bool;

    /// Becomes readable when there is an event; `None` without a thread.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Processes the events of its thread.
    fn process_events(&mut self, seat: &SeatClient, monitor: &mut Monitor);

    /// Handles what a person answered to its question of this number, silence being no.
    fn answered(&mut self, number: u64, yes: bool);

    /// Ends what it has permits for and these rules, or the lost record, do not permit any more.
    fn revoke(&mut self, cause: Cause, rules: Rules<'_>);

    /// Lets through from now on what break-glass alone permits.
    fn break_glass_opened(&mut self, rules: Rules<'_>);

    /// Returns what every banner says of it.
    fn banner_note(&self) -> Option<String>;

    /// Returns what `status` says if it does not do what this policy wants.
    fn fault(&self, policy: &Policy) -> Option<String>;

    /// Ends it: what it holds it lets go. What happened last is recorded, and what it still wanted is refused.
    fn stop(&mut self, stop: Stop, monitor: &mut Monitor);
}
