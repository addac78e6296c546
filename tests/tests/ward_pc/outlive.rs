//! Guests outlive the agent: it is killed or replaced under two running desktops, and the next one takes them up.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::seat::{Person, Picture};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, RED, SOON, in_front, keys, saw, start, typed};

/// Longest from the start of the next agent to picture and input: two seconds on a ward PC. This one is emulated, and many times slower.
const BACK: Duration = Duration::from_secs(4);
/// Longest that a guest may take for an answer meanwhile.
const STUCK: Duration = Duration::from_secs(2);
/// How long there is no agent.
const AWAY: Duration = Duration::from_secs(3);
/// What no guest may get of another.
const MARK: &str = "CHART-20261128";
/// What both guests have for their clipboard.
const PORT: &str = "/dev/virtio-ports/com.redhat.spice.0";

fn next(ward: &Ward) -> Outcome<Agent<'_>> {
    Agent::launch_with(&ward.pc, SEAT_MACHINE, &seat_policy(), &[])
}

/// Asks both guests until `over` says so; the longest that an answer took.
fn answered_until(
    probes: &[Probe<'_>; 2],
    mut over: impl FnMut() -> Outcome<bool>,
) -> Outcome<Duration> {
    let mut longest = Duration::ZERO;
    loop {
        for probe in probes {
            let asked = Instant::now();
            probe.ask(json!({"op": "timing"}))?;
            longest = longest.max(asked.elapsed());
        }
        if over()? {
            return Ok(longest);
        }
    }
}

fn painted(picture: &Picture) -> bool {
    in_front(RED)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
}

fn locked(picture: &Picture) -> bool {
    picture.mostly(100, 100, 50, 50) != 0x12_3456 && picture.banner_colour() == 0x28_2828
}

/// What the doctor says where an agent with these directories was.
fn left_over(ward: &Ward) -> Outcome<String> {
    let argv = [
        &["/share/bulkhead", "doctor", "--images", "/share"][..],
        &["--machine", "/tmp/etc/machine.toml", "--policy", "/tmp/etc/policy.toml"],
        &["--state", "/tmp/state", "--runtime", "/run/bulkhead"],
    ];
    Ok(ward.pc.exec(&argv.concat(), Duration::from_secs(60))?.stdout)
}

#[ward_test(shows = ["I-4", "I-5"])]
fn guests_and_their_people_hardly_notice_that_their_agent_is_killed(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let first = start(ward)?;
    let mut person = Person::at(&ward.pc)?;
    let probes = [first.probe("clinical"), first.probe("internet")];
    let mut last = None;
    let result = (|| {
        let pids = vmms(&first)?;
        probes[1].ask(json!({"op": "paint", "colour": 0x12_3456}))?;
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet picture", SOON, painted)?;
        probes.iter().try_for_each(|probe| keys(probe).map(drop))?;
        person.key("b", true)?;
        saw(&probes[1], "internet", &[(48, 1)])?;

        ward.pc.progress(
            "the agent is killed while a key is held: the guests answer, the key comes up",
        );
        first.kill()?;
        let away = Instant::now();
        let longest = answered_until(&probes, || Ok(away.elapsed() > AWAY))?;
        saw(&probes[1], "internet", &[(48, 0)])?;
        person.key("b", false)?;
        person.types(&["a"])?;
        clipboards_are_apart(&probes)?;
        let said = left_over(ward)?;
        for domain in ["clinical", "internet"] {
            let left = format!("warn  leftovers: {domain}: its guest runs (process ");
            ensure!(said.contains(&left), "the doctor does not name {domain}'s guest: {said}");
        }

        ward.pc.progress("another agent: the same desktop in front, picture and input");
        let agent = last.insert(next(ward)?);
        let began = Instant::now();
        person.see("the Internet picture again", SOON, painted)?;
        let picture = began.elapsed();
        let mut waited = Instant::now();
        let back = answered_until(&probes, || {
            person.types(&["c"])?;
            let seen = keys(&probes[1])?;
            ensure!(seen.iter().all(|(code, _)| *code == 46), "keys of before: {seen:?}");
            ensure!(waited.elapsed() < patience(SOON), "no key arrives");
            Ok(!seen.is_empty())
        })?;
        let (input, longest) = (began.elapsed(), longest.max(back));
        ward.pc.progress(&format!(
            "picture back after {picture:?}, input after {input:?}; the longest answer {longest:?}"
        ));
        ensure!(picture < patience(BACK), "the picture came back after {picture:?}");
        ensure!(input < patience(BACK + BACK), "what is typed arrives after {input:?}");
        ensure!(longest < patience(STUCK), "a guest did not answer for {longest:?}");
        ensure!(vmms(agent)? == pids, "another VMM runs");
        let said = left_over(ward)?;
        let left = ["leftovers: clinical", "leftovers: internet"].map(|left| said.contains(left));
        ensure!(left == [false; 2], "guests that an agent has are left over: {said}");
        std::thread::sleep(Duration::from_millis(200));
        keys(&probes[1])?;
        saw(&probes[0], "clinical", &[])?;
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner again", SOON, in_front(GREEN))?;
        person.types(&["a"])?;
        saw(&probes[0], "clinical", &typed(30))?;
        clipboards_are_apart(&probes)?;

        ward.pc.progress("locked and killed: the next agent's screen is locked");
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet picture", SOON, painted)?;
        person.chord(&["ctrl", "alt", "l"])?;
        person.see("the lock", SOON, locked)?;
        last.take().map_or(Ok(()), Agent::kill)?;
        let agent = last.insert(next(ward)?);
        person.see("the lock again", SOON, locked)?;
        waited = Instant::now();
        while agent.bulkhead(&["status"])?.status == Some(2) {
            ensure!(waited.elapsed() < patience(SOON), "no agent answers");
        }
        ensure!(agent.status()?["seat"]["locked"] == true, "it says that it is not locked");
        probes.iter().try_for_each(|probe| keys(probe).map(drop))?;
        person.types(&["a"])?;
        saw(&probes[0], "clinical", &[])?;
        saw(&probes[1], "internet", &[])?;
        person.chord(&["ctrl", "alt", "l"])?;
        person.see("the Internet picture, unlocked", SOON, painted)?;

        ward.pc.progress("what is on the record");
        let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
        let gaps = log.matches("\"kind\":\"agent-gap\"").count();
        ensure!(gaps == 2 && log.contains("[\"clinical\",\"internet\"]"), "{gaps} gaps: {log}");
        ensure!(!log.contains("\"kind\":\"clipboard"), "something was copied or pasted: {log}");
        ensure!(vmms(agent)? == pids, "another VMM runs");
        Ok(())
    })();
    let logs = last.as_ref().map(Agent::logs).unwrap_or_default();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{logs}")))?;
    last.map_or(Ok(()), Agent::stop)?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

/// The agent of another build, which speaks the next version of the seat's link (`scripts/build`).
const NEXT: &str = "/share/bulkhead-agent-next";
/// What the guests paint.
const PAINT: u64 = 0x12_3456;

/// Waits until an agent that took guests up answers; both guests answer all the time.
fn answers(agent: &Agent<'_>, probes: &[Probe<'_>; 2]) -> Outcome {
    let began = Instant::now();
    answered_until(probes, || {
        ensure!(began.elapsed() < patience(SOON), "no agent answers\n{}", agent.logs());
        Ok(agent.bulkhead(&["status"])?.status != Some(2))
    })
    .map(drop)
}

/// Waits until the status says of these domains, and of no other, that their VMM speaks another version of the link.
fn are_told(agent: &Agent<'_>, expected: [bool; 2]) -> Outcome {
    let began = Instant::now();
    loop {
        let notes = agent.status()?["notes"].to_string();
        let told = ["clinical", "internet"].map(|domain| {
            notes.contains(&format!("{domain} is run by a bulkhead-vmm of another version"))
        });
        if told == expected {
            return Ok(());
        }
        ensure!(began.elapsed() < patience(SOON), "told is {told:?}, not {expected:?}: {notes}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Restarts the Internet desktop, which is in front: its picture is there again, and what is typed arrives.
fn is_shown_by_a_restart(
    agent: &Agent<'_>,
    person: &mut Person<'_>,
    probes: &[Probe<'_>; 2],
) -> Outcome {
    let restarted = agent.bulkhead(&["restart", "internet"])?;
    ensure!(restarted.status == Some(0), "{restarted:?}");
    probes[1].wait_ready()?;
    probes[1].ask(json!({"op": "paint", "colour": PAINT}))?;
    person.see("the Internet picture after its restart", SOON, painted)?;
    probes.iter().try_for_each(|probe| keys(probe).map(drop))?;
    person.types(&["a"])?;
    saw(&probes[1], "internet", &typed(30))?;
    saw(&probes[0], "clinical", &[])
}

#[ward_test(shows = ["I-5"])]
fn an_agent_of_another_build_and_link_version_shows_a_guest_again_once_its_desktop_is_restarted(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh(&format!(
        "rm -rf /tmp/state; [ -x {NEXT} ] && ! cmp -s /share/bulkhead-agent {NEXT}"
    ))?;
    let first = start(ward)?;
    let mut person = Person::at(&ward.pc)?;
    let probes = [first.probe("clinical"), first.probe("internet")];
    let mut agent = Some(first);
    let result = (|| {
        let pids = vmms(agent.as_ref().ok_or("no agent")?)?;
        for probe in &probes {
            probe.ask(json!({"op": "paint", "colour": PAINT}))?;
        }
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet picture", SOON, painted)?;

        ward.pc.progress("an agent of another build, one version up: guests run on, unseen");
        agent.take().map_or(Ok(()), Agent::leave)?;
        let next =
            agent.insert(Agent::launch_build(&ward.pc, NEXT, SEAT_MACHINE, &seat_policy(), &[])?);
        answers(next, &probes)?;
        ensure!(vmms(next)? == pids, "another VMM runs");
        are_told(next, [true, true])?;
        person.see("the words in the picture's place", SOON, |picture| {
            in_front(RED)(picture) && !painted(picture)
        })?;
        probes.iter().try_for_each(|probe| keys(probe).map(drop))?;
        person.types(&["a"])?;
        saw(&probes[0], "clinical", &[])?;
        saw(&probes[1], "internet", &[])?;

        ward.pc.progress("the Internet desktop is restarted: it is shown, the other runs on");
        is_shown_by_a_restart(next, &mut person, &probes)?;
        are_told(next, [true, false])?;
        let [clinical, internet] = vmms(next)?;
        ensure!(clinical == pids[0] && internet != pids[1], "{clinical} and {internet} run");

        ward.pc.progress("it panics: the guests run on, and a key that is held comes up");
        person.key("b", true)?;
        saw(&probes[1], "internet", &[(48, 1)])?;
        agent.take().map_or(Ok(()), Agent::panic)?;
        saw(&probes[1], "internet", &[(48, 0)])?;
        person.key("b", false)?;
        probes.iter().try_for_each(|probe| probe.ask(json!({"op": "timing"})).map(drop))?;

        ward.pc.progress("one version down: the build before takes up what both left");
        let before = agent.insert(self::next(ward)?);
        answers(before, &probes)?;
        ensure!(vmms(before)? == [clinical, internet], "another VMM runs");
        are_told(before, [false, true])?;
        person.see("the words in the picture's place", SOON, |picture| {
            in_front(RED)(picture) && !painted(picture)
        })?;
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical picture, as it was", SOON, |picture| {
            in_front(GREEN)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
        })?;
        keys(&probes[0])?;
        person.types(&["a"])?;
        saw(&probes[0], "clinical", &typed(30))?;
        person.chord(&["ctrl", "alt", "2"])?;
        person.see("the Internet banner", SOON, in_front(RED))?;
        is_shown_by_a_restart(before, &mut person, &probes)?;
        are_told(before, [false, false])?;
        ensure!(vmms(before)?[0] == clinical, "the clinical guest was restarted");

        let verified = before.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
        let gaps = log.matches("\"kind\":\"agent-gap\"").count();
        ensure!(gaps == 2, "{gaps} gaps: {log}");
        Ok(())
    })();
    let logs = agent.as_ref().map(Agent::logs).unwrap_or_default();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{logs}")))?;
    agent.map_or(Ok(()), Agent::stop)?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

/// Returns the processes of both VMMs.
fn vmms(agent: &Agent<'_>) -> Outcome<[u64; 2]> {
    let status = agent.status()?;
    Ok([0, 1].map(|domain| status["domains"][domain]["pid"].as_u64().unwrap_or(0)))
}

/// Has one guest write to what its clipboard crosses by; the other reads what comes to it, for a second.
fn clipboards_are_apart(probes: &[Probe<'_>; 2]) -> Outcome {
    for (from, to) in [(0, 1), (1, 0)] {
        let shell = |domain: usize, line: &str| {
            probes[domain].ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))
        };
        shell(from, &format!("[ -e {PORT} ] && timeout 1 sh -c 'echo {MARK} > {PORT}'; true"))?;
        let read = shell(to, &format!("timeout 1 cat {PORT}; true"))?;
        ensure!(!read.to_string().contains(MARK), "it came to the other guest: {read}");
    }
    Ok(())
}
