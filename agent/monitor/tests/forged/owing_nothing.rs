//! What a verdict owes comes of a verdict.
use monitor::Owed;

fn main() {
    let _ = Owed::nothing();
}
