//! The clipboard's sockets, clock and thread; what may cross is decided in the crate `clipboard`.
//!
//! ```text
//!  VMM's port com.redhat.spice.0 <--dials-- End --+
//!                                                 +--> service thread: Mediator --> daemon: audit, words, questions
//!  external guest --connects--> vdagent.sock End -+
//! ```
//! On a thread of its own, so that a picture that is decoded holds up neither a desktop nor the supervisor. It and the daemon
//! speak by messages; neither waits for the other.

mod end;
#[cfg(test)]
mod tests;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::mediator::{Chord, DomainIndex, Outcome, Paste, Ticket};
use audit::AuditEvent;
use monitor::{Denial, Permit, Request};
use policy::Policy;

use worker::Service;

use base::mailbox::Mediator;

/// The port that distributions' SPICE agents open in the guest.
pub const GUEST_PORT: &str = "com.redhat.spice.0";

/// Where a domain's agent is reached.
#[derive(Clone, Debug)]
pub enum Way {
    /// Its VMM listens here.
    Dial(PathBuf),
    /// Whoever runs it connects here.
    Listen(PathBuf),
}

/// What the daemon tells the clipboard.
#[derive(Debug)]
pub enum Command {
    /// A chord was pressed with this domain in front.
    Chord(Chord, DomainIndex, Option<Ticket>),
    /// A question was answered.
    Answered(u64, bool),
    /// A paste is permitted.
    Permitted(Permit<Paste>),
    /// A paste is not.
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

/// What the clipboard tells the daemon.
#[derive(Debug)]
pub enum Happening {
    /// Have the monitor decide: [`Command::Permitted`] or [`Command::Refused`].
    Authorize(Request<Paste>),
    /// Write this down.
    Note(AuditEvent),
    /// A chord has come to its end.
    Said(Option<Ticket>, Outcome),
    /// Ask a person: [`Command::Answered`].
    Ask(Option<Ticket>, u64, String),
    /// Ask no more.
    Withdraw(u64),
    /// A guest's agent has announced itself, or is gone.
    Agent(DomainIndex, bool),
}

/// The running mediator. Once its thread has ended it takes nothing any more: then nothing crosses.
pub type Clipboard = Mediator<Command, Happening>;

/// Starts the thread for these domains.
///
/// # Errors
/// The process has no thread or file descriptor left, or a socket cannot be made.
pub fn start(domains: Vec<(String, Way)>, policy: Arc<Policy>) -> io::Result<Clipboard> {
    let (mut mediator, ends) = Mediator::new("clipboard")?;
    let mut service = Service::new(domains, policy, ends)?;
    mediator.run(move || service.run())?;
    Ok(mediator)
}
