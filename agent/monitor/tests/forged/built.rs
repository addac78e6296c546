//! A permit is not built from its parts.
use monitor::Permit;

fn main() {
    let _ = Permit { grant: "paste", entry: 1 };
}
