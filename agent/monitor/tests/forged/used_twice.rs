//! One permit is for one effect.
use monitor::Permit;

fn effect(permit: Permit<u8>) -> u8 {
    permit.into_grant()
}

fn twice(permit: Permit<u8>) -> u8 {
    effect(permit) + effect(permit)
}

fn main() {
    let _ = twice;
}
