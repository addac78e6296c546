//! The clipboard's sockets, clock, thread and processes; what may cross is decided in [`crate::mediator`].
//!
//! ```text
//!  VMM's port com.redhat.spice.0 <--connects-- AgentConnection --+
//!                                                 |  ^           +--> service thread: ClipboardMediator --> daemon: audit, words, questions
//!  external guest --connects--> vdagent.sock AgentConnection -----+          ^
//!                                    reads:       |  writes: Outbox          |
//!                                                 +--> reader, a process of that guest alone
//! ```
//! On a thread of its own, so that content that is cleaned and hashed holds up neither a desktop nor the supervisor. It and the daemon
//! speak by messages; neither waits for the other. No guest's bytes are read here: each guest's stream is read by a process of its own ([`reader`]), and a
//! picture is decoded by one that sees no guest ([`decoding`]).

mod agent_connection;
pub mod decoding;
mod memory;
pub mod reader;
mod thread;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub use crate::mediator::ClipboardEvent;
use crate::mediator::{DomainIndex, Hotkey, Paste, Ticket};
use monitor::{Denial, MediatorId, MediatorThread, Permit};
use policy::Policy;

use thread::Service;
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

/// A domain whose guest may copy and paste.
#[derive(Debug)]
pub struct Domain {
    /// The domain's name, as in the machine file.
    pub name: String,
    /// Where its guest's agent is met.
    pub endpoint: SocketEndpoint,
    /// The cgroup of its workers, if there is one.
    pub group: Option<PathBuf>,
}

/// The workers' program, as it is started.
#[derive(Debug, Default)]
pub struct WorkerPrograms {
    /// What reads a guest's stream, in the cgroup of its domain; without it nothing is copied or pasted.
    pub reading: Option<Program>,
    /// What decodes pictures; without it none crosses.
    pub decoding: Option<Program>,
}

/// Starts the thread for these domains, in the order that gives their workers their numbers.
///
/// # Errors
/// The process has no thread or file descriptor left, or a socket cannot be made.
pub fn start(
    domains: Vec<Domain>,
    policy: Arc<Policy>,
    workers: WorkerPrograms,
) -> io::Result<Clipboard> {
    let service = |ends| Service::new(domains, policy, workers, ends);
    monitor::spawn(CLIPBOARD, service, |mut service| service.run())
}

/// Waits until there is something.
#[cfg(test)]
fn until<T>(mut what: impl FnMut() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        if let Some(found) = what() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it does not happen");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}
