//! End-to-end: the VMM and the agent in one simulated ward PC, booted once.
#![allow(clippy::indexing_slicing, reason = "serde_json values are indexed by key")]

mod agent;
mod bad_input;
mod budgets;
mod clipboard;
mod seat;
mod seat_trouble;
mod usb;
mod vmm;

use tests::runner::{self, Test};
use tests::ward::Ward;

fn main() {
    let tests: Vec<Test<Ward>> = [
        vmm::TESTS,
        budgets::TESTS,
        bad_input::TESTS,
        agent::TESTS,
        seat::TESTS,
        seat_trouble::TESTS,
        clipboard::TESTS,
        usb::TESTS,
    ]
    .concat();
    std::process::exit(if runner::run(&tests) { 0 } else { 101 });
}
