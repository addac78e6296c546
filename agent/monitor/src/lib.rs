//! The reference monitor: the only place of the agent that can say yes.
//!
//! ```text
//!  mediator: verdict, effect --Request<G>--> Monitor --entry--> audit log, on the disk
//!                                              |  ^
//!  person at the seat <-------question---------+  +--- rules in force, threads that die
//!                                              |
//!  mediator: effect(Permit<G>) <---------------+
//! ```
//! A mediator parses what guests say, has the policy decide, and holds the effect: an offer of a clipboard, an attachment of a USB device.
//! It cannot cause the effect by itself, since the effect takes a [`Permit`] by value, and only the [`Monitor`] makes permits: after it has
//! held the request against everything that the verdict owes ([`Owed`]) and against the rules in force, and after the audit entry is on the
//! disk: an entry of the kind that belongs to what is granted ([`Grant`]). What crosses between mediator and monitor are messages of total types, no streams and no callbacks, so that a mediator can be another
//! process.
//!
//! | module | |
//! | --- | --- |
//! | [`core`] | the decisions, a pure state machine |
//! | [`permit`] | the proof |
//! | [`authorize`] | what is asked for, and why it is refused |
//! | [`mediator_thread`] | the thread of a mediator: mailbox, liveness and death |
//! | [`break_glass`] | the rules that count for a limited time: opened by a permit, and its questions at the seat |
//!
//! **Revocation** is the other half. When another policy is in force, break-glass ends or the log fails, every mediator that runs is sent
//! [`Cause`](core::Cause) in the same turn of the event loop, and takes back what it had a permit for.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod authorize;
pub mod break_glass;
pub mod core;
pub mod mediator_thread;
mod monitor;
pub mod permit;
#[cfg(feature = "testing")]
pub mod testing;

pub use authorize::{
    Account, Basis, Denial, Grant, MediatorId, NoRule, Owed, Request, RequestId, recorded,
};
pub use mediator_thread::{MediatorThread, Stop, ThreadEvents, spawn};
pub use monitor::{Answer, Event, Monitor, NotPermitted, QuestionId};
pub use permit::Permit;
