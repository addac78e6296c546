//! A desktop that keeps nothing begins anew: by command, and at the times of the policy, with somebody at the screen.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::desktops;
use tests::guest::Probe;
use tests::patience::patience;
use tests::seat::{Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, RED, SOON, in_front};

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

/// How long the Internet desktop may stand idle, by the policy of the test below.
const IDLE: Duration = Duration::from_secs(60);
/// Longest until a small desktop is drawn, and until it has said something.
const DRAWN: Duration = Duration::from_secs(120);
const SAID: Duration = Duration::from_secs(40);

#[ward_test(shows = ["I-4"], in_full)]
fn a_desktop_that_stands_idle_begins_anew_and_one_that_is_used_does_not(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let agent = desktops::start_with_renewal_when_idle(&ward.pc, "1m")?;
    let mut person = Person::at(&ward.pc)?;
    let result = stands_idle(ward, &agent, &mut person);
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()
}

/// Has the Internet desktop, which is in front, say on its serial port how many of the file there are.
fn tells(ward: &Ward, person: &mut Person<'_>, word: &str, files: usize) -> Outcome {
    person.enters(&format!("echo {word}=$(ls kept 2> e | wc -l)= > /dev/ttyS0\n"))?;
    let end = Instant::now() + patience(SAID);
    loop {
        let log = ward.pc.sh("cat /tmp/state/log/internet.log")?;
        if log.contains(&format!("{word}={files}=")) {
            return Ok(());
        }
        ensure!(Instant::now() < end, "it never said that it has {files}: {log}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn stands_idle(ward: &Ward, agent: &Agent<'_>, person: &mut Person<'_>) -> Outcome {
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    let first = domain(agent, 1)?;
    let care = domain(agent, 0)?["pid"].clone();

    ward.pc.progress("it is used for longer than it may stand idle, and goes on");
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(RED))?;
    person.enters("echo mine > kept\n")?;
    let begun = Instant::now();
    while begun.elapsed() < IDLE + IDLE / 2 {
        person.types(&["spc"])?;
        std::thread::sleep(Duration::from_secs(5));
        ensure!(!asked(&person.look()?), "a question to somebody who works");
    }
    person.types(&["ret"])?;
    tells(ward, person, "before", 1)?;
    ensure!(!began_anew(agent, &first)?, "it began anew while it was used");

    ward.pc
        .progress("somebody works in the other one until it stood idle and the countdown is over");
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner again", SOON, in_front(GREEN))?;
    let left = Instant::now();
    while !began_anew(agent, &first)? {
        ensure!(left.elapsed() < patience(IDLE + MINUTE + ANEW), "it did not begin anew");
        person.types(&["spc"])?;
        std::thread::sleep(Duration::from_secs(2));
        ensure!(!asked(&person.look()?), "a question took the keyboard from the clinical desktop");
    }
    let took = left.elapsed();
    ensure!(took > IDLE + MINUTE - Duration::from_secs(10), "after {took:?} already");
    ward.pc.progress(&format!("it began anew {took:?} after it was left"));

    ward.pc.progress("it is drawn anew, and has nothing of what was there");
    let end = Instant::now() + patience(DRAWN);
    loop {
        let log = ward.pc.sh("cat /tmp/state/log/internet.log")?;
        // Of this VMM, or of it and the one before.
        let behind = log.rsplit_once("before=").map_or(log.as_str(), |(_, behind)| behind);
        if behind.contains("SMALL-DESKTOP ready") {
            break;
        }
        ensure!(Instant::now() < end, "it is not up again: {log}");
        std::thread::sleep(Duration::from_secs(1));
    }
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner again", SOON, in_front(RED))?;
    tells(ward, person, "after", 0)?;
    ensure!(domain(agent, 0)?["pid"] == care, "the clinical desktop was started anew");
    for kind in ["renewal-began", "renewal-ended"] {
        ensure!(count(ward, kind)? == 1, "{kind}: {}", count(ward, kind)?);
    }
    Ok(())
}
