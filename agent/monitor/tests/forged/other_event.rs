//! A permit is not had by another kind of entry than the one that belongs to its grant.
use audit::events::{ClipboardPaste, UsbAttached};
use monitor::{Basis, Grant, MediatorId, Monitor, Owed, Request};

struct Paste;

impl Grant for Paste {
    type Event = ClipboardPaste;
    type Owed = Owed;
}

fn paste(monitor: &mut Monitor, basis: Basis, owed: Owed) {
    let event = UsbAttached { domain: String::new(), bus_id: String::new(), request: None };
    let _ = monitor.authorize(
        MediatorId::new("clipboard"),
        Request { number: 1, basis, owed, event, grant: Paste },
    );
}

fn main() {
    let _ = paste;
}
