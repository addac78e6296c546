//! End-to-end: the VMM and the agent in the simulated ward PC.
#![allow(clippy::indexing_slicing, reason = "serde_json values are indexed by key")]

#[path = "suite.rs"] // which the compliance table names as well
mod suite;

fn main() {
    std::process::exit(if tests::runner::run() { 0 } else { 101 });
}
