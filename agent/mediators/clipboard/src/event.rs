//! What the clipboard tells the daemon.

use audit::AuditEvent;
use monitor::Request;

use crate::mediator::{DomainIndex, Outcome, Paste, Ticket};

/// An event of the clipboard for the daemon.
#[derive(Debug)]
pub enum ClipboardEvent {
    /// The monitor is to decide this request; the answer is [`Command::Permitted`](crate::service::Command::Permitted) or
    /// [`Command::Refused`](crate::service::Command::Refused).
    Authorize(Request<Paste>),
    /// This event belongs into the audit log.
    Note(AuditEvent),
    /// The operation that a hotkey began has ended.
    Completed(Option<Ticket>, Outcome),
    /// A person is to be asked; the answer is [`Command::Answered`](crate::service::Command::Answered).
    Ask(Option<Ticket>, u64, String),
    /// The question of this number is withdrawn.
    Withdraw(u64),
    /// A guest's agent has announced itself, or is gone.
    Agent(DomainIndex, bool),
    /// A picture takes longer to be decoded than a moment; `false`: none does any more.
    Preparing(bool),
}
