//! The VMM's own escape tool (`vmm/src/machine/escape`) where there are functions to pass through: a machine with a NIC of the PC's,
//! closed in, and every way out tried from each of its threads' filters.

use std::time::{Duration, Instant};

use tests::patience::patience;
use tests::ward::{CLINICAL_NIC, Ward};
use tests::ward_test;
use tests::{Outcome, ensure};

/// The unit tests of the VMM's crate, as `scripts/build` makes them for the PC.
const TOOL: &str = "/share/escape-tool";
const TEST: &str =
    "machine::escape::whoever_takes_over_a_thread_of_a_vmm_finds_no_way_out_in_any_role";
const LOG: &str = "/tmp/escape.log";
/// What fifteen hundred processes take on an idle machine, many times over.
const LONGEST: Duration = Duration::from_secs(300);
/// How long one question of whether it has ended stays open.
const LOOK: Duration = Duration::from_secs(10);

/// Runs the tool with the NIC, without its walk over the numbers of system calls, which takes ten thousand processes and is
/// the same everywhere; returns what it said.
fn run(ward: &Ward) -> Outcome<String> {
    let function = format!("BULKHEAD_TEST_ESCAPE_FUNCTION={CLINICAL_NIC}");
    let environment: [&str; 4] =
        ["/bin/busybox", "env", &function, "BULKHEAD_TEST_ESCAPE_WITHOUT_WALK=1"];
    let test = [TOOL, TEST, "--exact", "--nocapture", "--test-threads=1"];
    let pid = ward.pc.spawn(&[environment.as_slice(), &test].concat(), LOG)?;
    let start = Instant::now();
    let status = loop {
        if let Some(status) = ward.pc.wait(pid, LOOK)? {
            break status;
        }
        if start.elapsed() > patience(LONGEST) {
            ward.pc.sh("killall -9 escape-tool; true")?;
            break -1;
        }
    };
    let said = ward.pc.sh(&format!("cat {LOG}; rm {LOG}"))?;
    ensure!(status == 0, "it ended with {status} after {:?}\n{said}", start.elapsed());
    Ok(said)
}

#[ward_test(shows = ["K-1.3.3"])]
fn whoever_takes_over_a_thread_of_a_vmm_with_a_passed_through_card_finds_no_way_out(
    ward: &Ward,
) -> Outcome {
    ward.pc.bind_vfio(CLINICAL_NIC)?;
    let said = run(ward);
    ward.pc.release_vfio(CLINICAL_NIC)?;
    let said = said?;
    // One that was not run, or has no card, has found nothing either. QEMU's card is an Intel 82574L.
    for line in [
        format!("escape tool: the machine has the function {CLINICAL_NIC} (8086:10d3)"),
        "escape tool: every attempt was made, by ".to_owned(),
    ] {
        // Behind what the test's own runner has begun a line with.
        let there = said.lines().find(|found| found.contains(&line));
        ward.pc.progress(there.ok_or_else(|| format!("{line} is not in:\n{said}"))?);
    }
    Ok(())
}
