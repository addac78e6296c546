//! A desktop that keeps nothing begins anew: by command, and at the times of the policy, with somebody at the screen.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::seat::{Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, SOON, in_front};

/// Longest from one start of a guest that was renewed to its first answer.
const ANEW: Duration = Duration::from_secs(40);
/// How long is counted down.
const MINUTE: Duration = Duration::from_secs(60);
/// What the Internet desktop stores, and what its base image has in its place.
const STORED: &str = "DOWNLOAD-20261128";
const DISK: &str = "/tmp/renewal.img";

fn machine() -> String {
    format!("stop_deadline = \"2s\"\n{SEAT_MACHINE}disks = [{{ path = \"{DISK}\" }}]\n")
}

fn policy() -> String {
    seat_policy()
        .replace("persistence = \"discard\"", "persistence = \"discard\"\nrenew_at = [\"07:00\"]")
}

/// Runs a line in a guest's shell; what it wrote.
fn shell(probe: &Probe<'_>, line: &str) -> Outcome<String> {
    let answer = probe.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))?;
    Ok(answer["output"].as_str().unwrap_or_default().to_owned())
}

fn store(probe: &Probe<'_>) -> Outcome {
    shell(probe, &format!("echo {STORED} > /dev/vda && sync"))?;
    ensure!(stored(probe)?, "it does not keep what was written while it runs");
    Ok(())
}

fn stored(probe: &Probe<'_>) -> Outcome<bool> {
    Ok(shell(probe, &format!("head -c {} /dev/vda", STORED.len()))?.contains(STORED))
}

/// Asks the clinical guest until this holds; each answer of it is one that care did not wait for.
fn until(
    clinical: &Probe<'_>,
    what: &str,
    time: Duration,
    mut holds: impl FnMut() -> Outcome<bool>,
) -> Outcome<Duration> {
    let (end, mut longest) = (Instant::now() + patience(time), Duration::ZERO);
    loop {
        let asked = Instant::now();
        clinical.ask(json!({"op": "timing"}))?;
        longest = longest.max(asked.elapsed());
        if holds()? {
            return Ok(longest);
        }
        ensure!(Instant::now() < end, "waited in vain for {what}");
    }
}

fn domain(agent: &Agent<'_>, index: usize) -> Outcome<Value> {
    Ok(agent.status()?["domains"][index].clone())
}

/// Returns whether another VMM than this one runs the Internet desktop.
fn began_anew(agent: &Agent<'_>, before: &Value) -> Outcome<bool> {
    let now = domain(agent, 1)?;
    Ok(now["state"] == "running" && now["pid"] != before["pid"])
}

/// Returns the yellow edge that a question has, in the middle of the screen.
fn asked(picture: &Picture) -> bool {
    let (width, height) = (picture.width, picture.height);
    picture.others(width / 8, height / 8, width * 3 / 4, height * 3 / 4, 0xff_c4_00)
        < width * 3 / 4 * (height * 3 / 4) - 500
}

fn count(ward: &Ward, kind: &str) -> Outcome<usize> {
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    Ok(log.matches(&format!("\"kind\":\"{kind}\"")).count())
}

#[ward_test(shows = ["I-4", "I-5"])]
fn a_desktop_that_keeps_nothing_begins_anew_by_command_and_at_its_time_while_the_other_works(
    ward: &Ward,
) -> Outcome {
    ward.pc
        .sh(&format!("rm -rf /tmp/state; dd if=/dev/zero of={DISK} bs=1M count=4 2>/dev/null"))?;
    let before = ward.pc.sh("date +%s")?;
    let result = renewals(ward);
    // What the PC's clock shows concerns the tests after this one.
    ward.pc.sh(&format!("date -s @{} >/dev/null; rm -rf /tmp/state {DISK}", before.trim()))?;
    result
}

fn renewals(ward: &Ward) -> Outcome {
    ward.pc.sh("date -s '2026-11-28 06:30:00' >/dev/null")?;
    let agent = Agent::launch_with(&ward.pc, &machine(), &policy(), &[])?;
    let result = steps(ward, &agent);
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}

fn steps(ward: &Ward, agent: &Agent<'_>) -> Outcome {
    let [clinical, internet] = ["clinical", "internet"].map(|domain| agent.probe(domain));
    clinical.wait_ready()?;
    internet.wait_ready()?;
    let mut person = Person::at(&ward.pc)?;
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    let care = domain(agent, 0)?["pid"].clone();

    ward.pc.progress(
        "by command: what was stored is gone, the clinical desktop answers all the while",
    );
    store(&internet)?;
    let first = domain(agent, 1)?;
    ward.pc.spawn(
        &["/share/bulkhead", "--runtime", "/run/bulkhead", "renew", "internet"],
        "/tmp/renew.log",
    )?;
    let longest = until(&clinical, "another VMM", ANEW, || began_anew(agent, &first))?;
    internet.wait_ready()?;
    ensure!(!stored(&internet)?, "what was stored before the renewal is there");
    let kept = ward.pc.sh(&format!("head -c 17 {DISK} | tr -d '\\0'"))?;
    ensure!(kept.trim().is_empty(), "it was written to the base image: {kept}");
    ward.pc.progress(&format!("the longest answer of the clinical desktop took {longest:?}"));
    let refused = agent.bulkhead(&["renew", "clinical"])?;
    ensure!(
        refused.status == Some(1) && refused.stderr.contains("keeps what it stores"),
        "{refused:?}"
    );

    ward.pc.progress("at its time: a question that counts down, put off once");
    store(&internet)?;
    let second = domain(agent, 1)?;
    ward.pc.sh("date -s '2026-11-28 07:00:01' >/dev/null")?;
    // A box takes the keyboard: who works in the other desktop is told, and not asked.
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!asked(&person.look()?), "a question took the keyboard from the clinical desktop");
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the question, 20 seconds before the end", Duration::from_secs(60), asked)?;
    person.answers("1")?;
    person.answers("ret")?;
    until(&clinical, "the entry", SOON, || Ok(count(ward, "renewal-put-off")? == 1))?;
    ensure!(stored(&internet)? && !began_anew(agent, &second)?, "it began all the same");

    ward.pc.progress("a quarter of an hour later: said again, and done after a minute");
    ward.pc.sh("date -s '2026-11-28 07:16:00' >/dev/null")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(!asked(&person.look()?), "there is nothing to choose any more, and a question");
    // What put it off before does not begin it.
    person.answers("1")?;
    person.answers("ret")?;
    ensure!(!began_anew(agent, &second)?, "it began before its minute was over");
    until(&clinical, "another VMM", MINUTE + ANEW, || began_anew(agent, &second))?;
    internet.wait_ready()?;
    ensure!(!stored(&internet)?, "what was stored before its time is there");
    ensure!(domain(agent, 0)?["pid"] == care, "the clinical desktop was started anew");

    ward.pc.progress("what is on the record");
    for (kind, times) in [("renewal-began", 2), ("renewal-put-off", 1), ("renewal-ended", 2)] {
        until(&clinical, kind, SOON, || Ok(count(ward, kind)? == times))?;
    }
    let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
    ensure!(verified.status == Some(0), "{verified:?}");
    Ok(())
}
