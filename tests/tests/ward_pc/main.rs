//! End-to-end: the VMM and the agent in one simulated ward PC, booted once.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "a test program: serde_json values are indexed by key, and it may end on what it cannot do"
)]

mod agent;
mod bad_input;
mod budgets;
mod vmm;

use tests::runner::{self, Test};
use tests::wardpc::Hardware;
use tests::{Failure, Network, Outcome, WardPc};

/// MAC addresses of the two NICs.
pub(crate) const CLINICAL_MAC: &str = "52:54:00:0a:01:05";
pub(crate) const INTERNET_MAC: &str = "52:54:00:0a:02:06";
/// Where the two NICs are.
pub(crate) const CLINICAL_NIC: &str = "0000:00:05.0";
pub(crate) const INTERNET_NIC: &str = "0000:00:06.0";

/// What every test has at hand.
pub(crate) struct Ward {
    pub(crate) pc: WardPc,
    pub(crate) clinical: Network,
    pub(crate) internet: Network,
}

fn main() {
    let ok = match set_up() {
        Ok((ward, _dir)) => {
            let tests: Vec<Test<Ward>> =
                [vmm::TESTS, budgets::TESTS, bad_input::TESTS, agent::TESTS].concat();
            runner::run(&ward, &tests)
        }
        Err(Failure(error)) => {
            println!("test the_simulated_ward_pc_starts ... FAILED\n{error}");
            println!("\ntest result: FAILED. 0 passed; 1 failed");
            false
        }
    };
    std::process::exit(if ok { 0 } else { 101 });
}

fn set_up() -> Outcome<(Ward, tempfile::TempDir)> {
    let dir = tempfile::tempdir()?;
    let clinical = Network::start(dir.path(), "clinical", [10, 1, 0, 1])?;
    let internet = Network::start(dir.path(), "internet", [10, 2, 0, 1])?;
    let pc = WardPc::start(
        dir.path(),
        &Hardware {
            // A 5 GiB guest fits beside the PC itself.
            memory_mib: 8192,
            cpus: 2,
            nics: vec![(5, CLINICAL_MAC, &clinical), (6, INTERNET_MAC, &internet)],
            count_instructions: false,
            extra: vec![],
        },
    )?;
    Ok((Ward { pc, clinical, internet }, dir))
}
