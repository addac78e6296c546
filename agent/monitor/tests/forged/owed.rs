//! A mediator cannot say itself what its verdict owes.
use monitor::Owed;

fn main() {
    let _ = Owed { answer: false, ..Owed::nothing() };
}
