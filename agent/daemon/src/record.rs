//! What the daemon itself writes into the audit log.

use audit::AuditEvent;
use audit::events::{ClipboardNotDelivered, PartFailed};
use monitor::NotPermitted;

/// Returns the event that a mediator, or the seat, has died by a fault of ours.
pub(super) fn failed(what: &str) -> AuditEvent {
    PartFailed { what: what.to_owned() }.into()
}

/// Returns the event that a paste whose entry says it is allowed does not reach its domain, where its mediator is not there to say so.
pub(super) fn not_delivered(domain: &str, why: &NotPermitted) -> AuditEvent {
    ClipboardNotDelivered { domain: domain.to_owned(), why: why.to_string() }.into()
}
