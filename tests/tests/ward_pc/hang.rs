//! A VMM that hangs, or of which one thread does: it is ended and started again, and nobody notices in the other domain.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::Agent;
use tests::guest::Probe;
use tests::patience::patience;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};

use super::seat::{GREEN, RED, SOON, in_front, with_seat};

/// Longest until a VMM that hangs is noticed: 24 questions unanswered, or eight looks at its threads.
const NOTICED: Duration = Duration::from_secs(240);
/// Longest from then until its guest runs again.
const AGAIN: Duration = Duration::from_secs(60);
/// Holds a thread of a VMM up, and nothing else of it: a frozen group of its own. `$1` is the process, `$2` the thread's name.
const FREEZE: &str = "for t in /proc/$1/task/*; do [ \"$(cat $t/comm)\" = $2 ] && tid=${t##*/}; done; \
    group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/$1/cgroup); mkdir $group/frozen && \
    echo threaded > $group/frozen/cgroup.type && echo $tid > $group/frozen/cgroup.threads && \
    echo 1 > $group/frozen/cgroup.freeze && echo $group/frozen";

/// Returns the domain of this place as `status` has it.
fn domain(agent: &Agent<'_>, place: usize) -> Outcome<Value> {
    Ok(agent.status()?["domains"][place].clone())
}

/// Waits until the domain of this place has another VMM than `pid`, and the other guest has answered all the time; returns what was said to be wrong.
fn replaced(agent: &Agent<'_>, place: usize, pid: u64, other: &Probe<'_>) -> Outcome<String> {
    let began = Instant::now();
    let mut problem = String::new();
    loop {
        let asked = Instant::now();
        other.ask(json!({"op": "timing"}))?;
        ensure!(asked.elapsed() < patience(SOON), "the other guest was held up");
        let now = domain(agent, place)?;
        if let Some(said) = now["problem"].as_str() {
            said.clone_into(&mut problem);
        }
        match now["pid"].as_u64() {
            Some(other) if other != pid => return Ok(problem),
            _ => ensure!(began.elapsed() < patience(NOTICED), "not noticed: {now}"),
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

#[ward_test(shows = ["C-10", "I-5"])]
fn a_vmm_that_hangs_or_has_a_thread_that_does_is_started_again_and_the_other_guest_answers(
    ward: &Ward,
) -> Outcome {
    with_seat(ward, |agent, person, [clinical, internet]| {
        let pids = [domain(agent, 0)?, domain(agent, 1)?].map(|d| d["pid"].as_u64().unwrap_or(0));
        let ready = |probe: &Probe<'_>| {
            let began = Instant::now();
            probe.wait_ready()?;
            ensure!(began.elapsed() < patience(AGAIN), "it took {:?}", began.elapsed());
            Ok(())
        };

        ward.pc.progress("the Internet domain's VMM is stopped as a whole");
        person.chord(&["ctrl", "alt", "2"])?;
        let banner = person.see("the Internet banner", SOON, in_front(RED))?;
        ward.pc.progress("and of the clinical domain's the thread that writes the serial log");
        let held_up = ward.pc.sh(&format!("set -- {} serial; {FREEZE}", pids[0]))?;
        let began = Instant::now();
        ward.pc.sh(&format!("kill -STOP {}", pids[1]))?;
        person.see("the banner's word", patience(NOTICED), |picture| {
            in_front(RED)(picture) && picture.banner() != banner.banner()
        })?;
        let said = began.elapsed();
        let problem = replaced(agent, 1, pids[1], &clinical)?;
        ensure!(problem.contains("questions in a row unanswered"), "it said: {problem}");
        ward.pc.progress(&format!("said after {said:?}, another VMM after {:?}", began.elapsed()));
        ready(&internet)?;
        loop {
            let now = domain(agent, 0)?;
            ensure!(now["pid"] == pids[0] && now["state"] == "running", "it was ended: {now}");
            if now["problem"].as_str().is_some_and(|p| p.contains("serial has waited for the host"))
            {
                break;
            }
            ensure!(began.elapsed() < patience(NOTICED), "the thread is not missed: {now}");
            std::thread::sleep(Duration::from_secs(1));
        }
        let held_up = held_up.trim();
        ward.pc.sh(&format!("echo 0 > {held_up}/cgroup.freeze; cat {held_up}/cgroup.threads > ${{held_up%/*}}/cgroup.threads 2>/dev/null; true").replace("${held_up%/*}", held_up.rsplit_once('/').map_or("", |(above, _)| above)))?;
        ward.pc.sh(&format!("rmdir {held_up}"))?;

        ward.pc.progress("one vCPU's thread of the clinical domain's VMM is held up");
        let began = Instant::now();
        let frozen = ward.pc.sh(&format!("set -- {} vcpu0; {FREEZE}", pids[0]))?;
        let problem = replaced(agent, 0, pids[0], &internet)?;
        ensure!(problem.contains("vcpu0 has not come round"), "it said: {problem}");
        ensure!(began.elapsed() > Duration::from_secs(30), "after {:?} already", began.elapsed());
        ward.pc.progress(&format!("another VMM after {:?}", began.elapsed()));
        ward.pc.sh(&format!("rmdir {} 2>/dev/null; true", frozen.trim()))?;
        ready(&clinical)?;

        ward.pc
            .progress("the Internet domain's VMM may have no more memory than its program takes");
        let pid = domain(agent, 1)?["pid"].as_u64().ok_or("the Internet domain does not run")?;
        let group = ward.pc.sh(&format!("sed -n 's/^0:://p' /proc/{pid}/cgroup"))?;
        let limit = format!("/sys/fs/cgroup{}/memory.max", group.trim());
        let before = ward.pc.sh(&format!("cat {limit}"))?;
        let began = Instant::now();
        ward.pc.sh(&format!("echo 8M > {limit}"))?;
        replaced(agent, 1, pid, &clinical)?;
        ready(&internet)?;
        ward.pc.progress(&format!("its guest is there again after {:?}", began.elapsed()));
        ensure!(ward.pc.sh(&format!("cat {limit}"))? == before, "the next one has less memory");

        let log = agent.bulkhead(&["audit", "show", "--json", "/tmp/state/audit"])?.stdout;
        ensure!(log.contains("vcpu0 has not come round"), "not in the log");
        ensure!(log.contains("SIGKILL"), "not in the log: the VMM without memory");
        person.chord(&["ctrl", "alt", "1"])?;
        person.see("the clinical banner", SOON, in_front(GREEN)).map(drop)
    })
}

#[ward_test(shows = ["C-10", "I-5"], in_full)]
fn a_desktop_that_fails_again_and_again_is_left_off_and_tried_once_by_who_switches_to_it(
    ward: &Ward,
) -> Outcome {
    with_seat(ward, |agent, person, [clinical, internet]| {
        ward.pc.progress("each VMM of the clinical domain is killed as it comes");
        person.chord(&["ctrl", "alt", "2"])?;
        let banner = person.see("the Internet banner", SOON, in_front(RED))?;
        let began = Instant::now();
        let mut killed = Vec::new();
        while killed.len() < 8 {
            let now = domain(agent, 0)?;
            match now["pid"].as_u64().filter(|pid| !killed.contains(pid)) {
                Some(pid) => {
                    ward.pc.sh(&format!("kill -9 {pid}"))?;
                    killed.push(pid);
                }
                None => std::thread::sleep(Duration::from_millis(500)),
            }
            internet.ask(json!({"op": "timing"}))?;
            ensure!(began.elapsed() < patience(Duration::from_secs(400)), "{killed:?}: {now}");
        }
        let settled = Instant::now();
        let off = loop {
            let now = domain(agent, 0)?;
            if now["state"] == "off" {
                break now;
            }
            ensure!(settled.elapsed() < patience(SOON), "not off: {now}");
            std::thread::sleep(Duration::from_millis(500));
        };
        let problem = off["problem"].as_str().unwrap_or_default();
        ensure!(problem.contains("left off"), "it said: {off}");
        let status = agent.bulkhead(&["status"])?;
        ensure!(status.status == Some(1), "it counts as wanted: {status:?}");
        ward.pc.progress(&format!("left off after {:?}", began.elapsed()));
        std::thread::sleep(Duration::from_secs(70));
        ensure!(domain(agent, 0)?["state"] == "off", "it was started by itself");

        person.see("the word of it in the other desktop's banner", SOON, |picture| {
            in_front(RED)(picture) && picture.banner() != banner.banner()
        })?;
        ward.pc.progress("somebody switches to it: it is tried, and runs");
        person.chord(&["ctrl", "alt", "1"])?;
        clinical.wait_ready()?;
        clinical.ask(json!({"op": "paint", "colour": 0x12_3456}))?;
        person
            .see("the clinical picture", SOON, |picture| {
                in_front(GREEN)(picture) && picture.mostly(100, 100, 50, 50) == 0x12_3456
            })
            .map(drop)
    })
}
