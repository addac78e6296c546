//! A guest is not told that there is something to be had.
use clipboard::vdagent::{Message, Outbox};

fn offer(outbox: &mut Outbox) {
    outbox.send(&Message::Grab(vec![1]));
}

fn main() {
    let _ = offer;
}
