//! What is recorded of a grant is of the catalogue: a type of a mediator's own, which could become any entry, is not.
use audit::AuditEvent;
use audit::events::GrantEvent;

struct Any(AuditEvent);

impl From<Any> for AuditEvent {
    fn from(Any(event): Any) -> Self {
        event
    }
}

impl GrantEvent for Any {}

fn main() {}
