//! What vmm/fuzz calls.

use crate::session::Session;
use crate::wire::Role;

/// Gives a session any bytes in pieces; the first says which end it is. Panics are what is looked for.
pub fn session(input: &[u8]) {
    let Some((first, mut bytes)) = input.split_first() else { return };
    let role = if first & 1 == 0 { Role::Host } else { Role::Guest };
    let mut session = Session::new(role, "fuzz");
    let piece = usize::from(first >> 1) + 1;
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(piece.min(bytes.len()));
        bytes = later;
        if session.feed(now) == 0 {
            return;
        }
        loop {
            match session.next() {
                // What came in can be said by the other end, not by this one; it must not panic.
                Ok(Some(packet)) => drop(session.send(&packet)),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
