//! What a rule of the policy decides on is not had by saying that none does.
use audit::events::ClipboardPaste;
use monitor::{Basis, Grant, MediatorId, Monitor, NoRule, Owed, Request};

struct Paste;

impl Grant for Paste {
    type Event = ClipboardPaste;
    type Owed = Owed;
}

fn paste(monitor: &mut Monitor, basis: Basis, event: ClipboardPaste) {
    let _ = monitor.authorize(
        MediatorId::new("clipboard"),
        Request { number: 1, basis, owed: NoRule, event, grant: Paste },
    );
}

fn main() {
    let _ = paste;
}
