//! The clipboard's sockets, clock, thread and processes; what may cross is decided in [`crate::mediator`].
//!
//! ```text
//!  VMM's port com.redhat.spice.0 <--connects-- AgentConnection --+
//!                                                                +--> service thread: ClipboardMediator --> daemon: audit, words, questions
//!  external guest --connects--> vdagent.sock AgentConnection -+
//! ```
//! On a thread of its own, so that content that is cleaned and hashed holds up neither a desktop nor the supervisor. It and the daemon
//! speak by messages; neither waits for the other. A picture is decoded in a process of its own ([`decoding`]).

mod agent_connection;
pub mod decoding;
#[cfg(test)]
mod rogue_tests;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::sync::Arc;

pub use crate::mediator::ClipboardEvent;
use crate::mediator::{DomainIndex, Hotkey, Paste, Ticket};
use monitor::{Denial, MediatorId, MediatorThread, Permit};
use policy::Policy;

use worker::Service;
pub use workers::Program;

use base::sockets::SocketEndpoint;

/// A command of the daemon to the clipboard.
#[derive(Debug)]
pub enum Command {
    /// A hotkey was pressed with this domain in front, or stands for one of the command line.
    Hotkey(Hotkey, DomainIndex, Option<Ticket>),
    /// A question was answered.
    Answered(u64, bool),
    /// The paste is permitted.
    Permitted(Permit<Paste>),
    /// The paste of this number is denied.
    Refused(u64, Denial),
    /// The audit log has failed: what was permitted is taken back.
    RecordLost,
    /// Another policy is in force.
    Policy(Arc<Policy>),
    /// The screen was locked.
    Locked,
    /// The guests' screens have this size, in pixels.
    Screen(Option<(u32, u32)>),
}

/// The running mediator. Once its thread has ended it takes nothing any more: then nothing crosses.
pub type Clipboard = MediatorThread<Command, ClipboardEvent>;

/// What the monitor knows the mediator by.
pub const CLIPBOARD: MediatorId = MediatorId::new("clipboard");

/// Starts the thread for these domains. `worker` is the program that decodes pictures; without it none crosses.
///
/// # Errors
/// The process has no thread or file descriptor left, or a socket cannot be made.
pub fn start(
    domains: Vec<(String, SocketEndpoint)>,
    policy: Arc<Policy>,
    worker: Option<Program>,
) -> io::Result<Clipboard> {
    let service = |ends| Service::new(domains, policy, worker, ends);
    monitor::spawn(CLIPBOARD, service, |mut service| service.run())
}
