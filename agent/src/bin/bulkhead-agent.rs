//! bulkhead-agent.
fn main() {}
