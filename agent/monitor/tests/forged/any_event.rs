//! A grant is not had by an entry of any kind, nor by one that says that something is over.
use audit::AuditEvent;
use audit::events::ClipboardTaken;
use monitor::{Grant, NoRule};

struct Anything;

impl Grant for Anything {
    type Event = AuditEvent;
    type Owed = NoRule;
}

struct Taken;

impl Grant for Taken {
    type Event = ClipboardTaken;
    type Owed = NoRule;
}

fn main() {}
