//! A permit is not copied.
use monitor::Permit;

fn twice(permit: &Permit<u8>) -> Permit<u8> {
    permit.clone()
}

fn main() {
    let _ = twice;
}
