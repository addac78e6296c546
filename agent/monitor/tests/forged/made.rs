//! A permit is not made by the monitor's own function.
use monitor::Permit;

fn main() {
    let _ = Permit::new("paste", 1);
}
