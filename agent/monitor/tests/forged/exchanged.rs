//! What a permit is for is not exchanged for something else.
use monitor::Permit;

fn exchange(mut permit: Permit<u8>) -> Permit<u8> {
    permit.grant = 2;
    permit
}

fn main() {
    let _ = exchange;
}
