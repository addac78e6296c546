//! A domain that wants more of the PC than it gets.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::patience::patience;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};

use super::seat::{SOON, with_seat};

/// Two minutes of pressure, and what a minute's average takes to rise.
const SAID: Duration = Duration::from_secs(360);
/// Two minutes of calm, and what the average takes to fall.
const OVER: Duration = Duration::from_secs(420);

/// Returns what is said of a domain's pressure.
fn pressure(status: &Value, domain: usize) -> &[Value] {
    status["domains"][domain]["pressure"].as_array().map_or(&[], Vec::as_slice)
}

#[ward_test(in_full)]
fn a_domain_that_wants_more_than_it_gets_is_said_on_the_banner_in_status_and_on_the_record(
    ward: &Ward,
) -> Outcome {
    with_seat(ward, |agent, person, [_, internet]| {
        let calm = person.see("a banner", SOON, |_| true)?;
        ward.pc.progress("the Internet guest spins, and gets a twentieth of a processor");
        let pid = agent.status()?["domains"][1]["pid"].as_u64().unwrap_or(0);
        let group = ward.pc.sh(&format!("sed -n 's/^0:://p' /proc/{pid}/cgroup"))?;
        let ceiling = format!("/sys/fs/cgroup{}/cpu.max", group.trim());
        let before = ward.pc.sh(&format!("cat {ceiling}"))?;
        let spin = "while :; do :; done > /dev/null 2>&1 &";
        internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", spin]}))?;
        ward.pc.sh(&format!("echo 5000 100000 > {ceiling}"))?;
        let start = Instant::now();
        let said = loop {
            let status = agent.status()?;
            if let [one] = pressure(&status, 1) {
                break one.clone();
            }
            ensure!(start.elapsed() < patience(SAID), "nothing is said: {status}");
            std::thread::sleep(Duration::from_secs(2));
        };
        ward.pc.progress(&format!("said after {:?}: {said}", start.elapsed()));
        ensure!(start.elapsed() > Duration::from_secs(100), "it was said too soon");
        ensure!(said["resource"] == "processor", "{said}");
        ensure!(pressure(&agent.status()?, 0).is_empty(), "the clinical domain presses");
        person.see("the banner's word", SOON, |picture| picture.banner() != calm.banner())?;
        person.photograph(&ward.pc.dir().join("pressure.png"))?;

        ward.pc.progress("it has its processor again, and does not spin");
        ward.pc.sh(&format!("echo {} > {ceiling}", before.trim()))?;
        internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "killall", "busybox"]}))?;
        let start = Instant::now();
        while !pressure(&agent.status()?, 1).is_empty() {
            ensure!(start.elapsed() < patience(OVER), "it is said for ever");
            std::thread::sleep(Duration::from_secs(2));
        }
        person.see("the banner as before", SOON, |picture| picture.banner() == calm.banner())?;
        let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
        for kind in ["pressure-began", "pressure-ended"] {
            let entries = log.lines().filter(|line| line.contains(kind));
            let entries: Vec<Value> =
                entries.filter_map(|l| serde_json::from_str(l).ok()).collect();
            ensure!(entries.len() == 1, "{kind}: {entries:?}");
            ensure!(entries[0]["domain"] == "internet", "{kind}: {entries:?}");
        }
        Ok(())
    })
}
