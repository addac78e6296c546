//! A mediator cannot say itself what its verdict owes.
use monitor::Owed;

fn less(owed: Owed) -> Owed {
    Owed { answer: false, ..owed }
}

fn main() {
    let _ = less;
}
