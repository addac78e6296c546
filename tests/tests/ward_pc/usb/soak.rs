//! Hours of what a ward PC meets in a year, with a stick that somebody pulls in the middle of each: a guest that reboots two hundred times, a disk that is full, a clock that
//! is set by a day.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::{Agent, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::runner::is_in_full;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::{
    MIB, Ports, RULES, devices, disk_in, host_has_its_switches, is_attached, machine,
    no_disk_on_host, run, until, wait_for,
};

/// Reboots of one guest where the test is asked for by name, and in a run that takes its time.
const REBOOTS: u64 = 10;
const REBOOTS_IN_FULL: u64 = 200;
/// After how many of them the stick is pulled and plugged again.
const PULLED_EVERY: u64 = 5;
/// What a VMM may have more of after all reboots: descriptors, and KiB of its own. Its guest's memory is no part of it.
const DESCRIPTORS_MORE: u64 = 2;
const MEMORY_MORE: u64 = 512;
/// Longest that a guest goes on that was told to reboot.
const ENDS: Duration = Duration::from_millis(1500);
/// Longest that a guest takes to be there again.
const AGAIN: Duration = Duration::from_secs(60);
/// A day, in seconds.
const DAY: i64 = 86_400;
/// How long the log may go on in what is left of its last page.
const FILLED: Duration = Duration::from_secs(60);
/// A disk of its own for the audit log, so that it can be full while everything else is well.
const OWN_DISK: &str = "rm -rf /tmp/state /tmp/etc/audit.head /run/bulkhead/audit.head; mkdir -p /tmp/state/audit; mount -t tmpfs -o size=16m,mode=700 audit /tmp/state/audit";

#[ward_test(shows = ["C-8", "C-10", "I-5", "K-5.4.3"], in_full)]
fn two_hundred_reboots_a_full_disk_and_a_clock_set_by_a_day_cost_neither_the_log_nor_the_other_guest(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh(OWN_DISK)?;
    let clock = Clock::now(ward)?;
    let result = with_own_disk(ward);
    let clock = clock.put_right(ward);
    ward.pc.sh("umount -l /tmp/state/audit; rm -rf /tmp/state")?;
    result.and(clock)
}

fn with_own_disk(ward: &Ward) -> Outcome {
    let agent = Agent::launch_with(&ward.pc, &machine(), &(seat_policy() + RULES), &[])?;
    let mut ports = Ports { ward, qmp: ward.pc.qmp()? };
    let result = (|| {
        for domain in ["clinical", "internet"] {
            agent.probe(domain).wait_ready()?;
        }
        fs::write(ports.medium("patient"), vec![b'w'; 4 * MIB])?;
        ports.plug("patient", "PATIENT1")?;
        is_in_its_guest(&agent)?;
        clock_is_set(ward, &agent, &mut ports)?;
        disk_is_full(ward, &agent, &mut ports)?;
        reboots(ward, &agent, &mut ports)?;
        let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        Ok(())
    })();
    // A test that failed leaves none behind.
    let pulled = ports.pull("patient");
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    pulled?;
    agent.stop()?;
    host_has_its_switches(ward)
}

/// The time of the PC, to be put right whatever happens.
struct Clock {
    seconds: i64,
    read: Instant,
}

impl Clock {
    fn now(ward: &Ward) -> Outcome<Self> {
        let seconds = ward.pc.sh("date +%s")?.trim().parse()?;
        Ok(Self { seconds, read: Instant::now() })
    }

    fn put_right(&self, ward: &Ward) -> Outcome {
        let passed = i64::try_from(self.read.elapsed().as_secs())?;
        ward.pc.sh(&format!("date -s @{}", self.seconds + passed)).map(drop)
    }
}

/// Waits until the stick is in the clinical guest, and can be read there.
fn is_in_its_guest(agent: &Agent<'_>) -> Outcome {
    wait_for(agent, "stick", is_attached("read-only"))?;
    let clinical = agent.probe("clinical");
    disk_in(&clinical, true)?;
    until("the stick cannot be read", || {
        Ok(run(&clinical, "echo 3 > /proc/sys/vm/drop_caches; head -c 4096 /dev/sda | grep -q ww")?
            .1)
    })
}

/// Pulls the stick: no guest and no host has it.
fn pulls(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ports.pull("patient")?;
    until("the stick is still there", || Ok(!is_used(agent)?))?;
    disk_in(&agent.probe("clinical"), false)?;
    no_disk_on_host(ward)
}

/// Returns whether a guest has a device.
fn is_used(agent: &Agent<'_>) -> Outcome<bool> {
    Ok(devices(agent)?.iter().any(|device| device["state"] == "attached"))
}

fn answers(probe: &Probe<'_>) -> Outcome {
    let asked = Instant::now();
    probe.ask(json!({"op": "timing"}))?;
    ensure!(asked.elapsed() < patience(Duration::from_secs(10)), "it took {:?}", asked.elapsed());
    Ok(())
}

fn entries(ward: &Ward, kind: &str) -> Outcome<usize> {
    let line = format!("cat /tmp/state/audit/*.jsonl | grep -c '\"kind\":\"{kind}\"'; true");
    Ok(ward.pc.sh(&line)?.trim().parse()?)
}

/// The clock is set forth and back, and past where it was: each is a step on the record, and the log goes on.
fn clock_is_set(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let pids = vmms(agent)?;
    for (round, days) in [1, -1, -1, 1].into_iter().enumerate() {
        let before = entries(ward, "clock-step")?;
        ward.pc.sh(&format!("date -s @$(( $(date +%s) + {} ))", days * DAY))?;
        pulls(ward, agent, ports)?;
        until("the step is not on the record", || Ok(entries(ward, "clock-step")? > before))?;
        ports.plug("patient", "PATIENT1")?;
        is_in_its_guest(agent)?;
        for domain in ["clinical", "internet"] {
            answers(&agent.probe(domain))?;
        }
        ensure!(vmms(agent)? == pids, "a guest was restarted as the clock was set");
        let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        ward.pc.progress(&format!("the clock was set by {days} days (round {round})"));
    }
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    let steps: Vec<i64> = log
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|entry| entry["kind"] == "clock-step")
        .filter_map(|entry| entry["detail"]["seconds"].as_i64())
        .filter(|seconds| seconds.abs() > DAY / 2)
        .map(|seconds| (seconds + seconds.signum() * DAY / 2) / DAY)
        .collect();
    ensure!(steps == [1, -1, -1, 1], "the log has steps of {steps:?} days");
    Ok(())
}

/// The log's disk is full: what is pulled is gone all the same, what is plugged goes to nobody, the guests work, and all is well once there is room.
fn disk_is_full(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let pids = vmms(agent)?;
    ward.pc.sh("dd if=/dev/zero of=/tmp/state/audit/filler bs=4k 2>/dev/null; true")?;
    let began = Instant::now();
    // What is left of its last page takes some entries yet.
    while agent.status()?["audit"]["ok"] != false {
        ensure!(began.elapsed() < patience(FILLED), "the log goes on without room");
        agent.bulkhead(&["reset", "nowhere"])?;
    }
    ports.pull("patient")?;
    until("the stick is still there", || Ok(!is_used(agent)?))?;
    disk_in(&agent.probe("clinical"), false)?;
    ports.plug("patient", "PATIENT1")?;
    let plugged = Instant::now();
    while plugged.elapsed() < patience(Duration::from_secs(5)) {
        ensure!(!is_used(agent)?, "a device is used off the record: {:?}", devices(agent)?);
        no_disk_on_host(ward)?;
        for domain in ["clinical", "internet"] {
            answers(&agent.probe(domain))?;
        }
    }
    ensure!(vmms(agent)? == pids, "a guest was restarted as the disk was full");
    ward.pc.sh("rm /tmp/state/audit/filler")?;
    let freed = Instant::now();
    while agent.status()?["audit"]["ok"] == false {
        ensure!(freed.elapsed() < patience(FILLED), "the log is not taken up again");
        agent.bulkhead(&["reset", "nowhere"])?;
        std::thread::sleep(Duration::from_secs(1));
    }
    // One that was refused then may have to be plugged anew.
    pulls(ward, agent, ports)?;
    ports.plug("patient", "PATIENT1")?;
    is_in_its_guest(agent)?;
    let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
    ensure!(verified.status == Some(0), "{verified:?}");
    ward.pc.progress("the log's disk was full, and is not any more");
    Ok(())
}

/// The clinical guest reboots again and again, the stick in it or just pulled: its VMM stays the same and grows by nothing, the other guest answers.
fn reboots(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let pids = vmms(agent)?;
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let rounds = if is_in_full() { REBOOTS_IN_FULL } else { REBOOTS };
    let mut settled = None;
    for round in 1..=rounds {
        let mark = format!("echo {round} > /tmp/before-reboot");
        ensure!(run(&clinical, &mark)?.1, "the guest writes nothing");
        clinical.ask(json!({"op": "reboot"}))?;
        let is_pulled = round % PULLED_EVERY == 0;
        if is_pulled {
            ports.pull("patient")?;
        }
        answers(&internet)?;
        // One that is about to end takes questions that nobody answers.
        std::thread::sleep(patience(ENDS));
        // What the one before wrote into its memory is gone with it.
        let began = Instant::now();
        loop {
            clinical.wait_ready()?;
            if !run(&clinical, "[ -e /tmp/before-reboot ]")?.1 {
                break;
            }
            ensure!(began.elapsed() < patience(AGAIN), "reboot {round} does not come");
            std::thread::sleep(Duration::from_millis(200));
        }
        if is_pulled {
            no_disk_on_host(ward)?;
            ports.plug("patient", "PATIENT1")?;
        }
        is_in_its_guest(agent)?;
        ensure!(vmms(agent)? == pids, "reboot {round} cost a VMM");
        if round == PULLED_EVERY {
            settled = Some(has(ward, pids[0])?);
        }
        if round % 10 == 0 {
            ward.pc.progress(&format!(
                "{round} of {rounds} reboots, the last with its stick after {:?}",
                began.elapsed()
            ));
        }
    }
    let before = settled.ok_or("no figures")?;
    let after = has(ward, pids[0])?;
    ward.pc.progress(&format!("descriptors and KiB of its VMM: {before:?}, then {after:?}"));
    ensure!(after[0] <= before[0] + DESCRIPTORS_MORE, "descriptors: {before:?}, then {after:?}");
    ensure!(after[1] <= before[1] + MEMORY_MORE, "memory: {before:?}, then {after:?}");
    Ok(())
}

fn vmms(agent: &Agent<'_>) -> Outcome<[u64; 2]> {
    let status = agent.status()?;
    Ok([0, 1].map(|place| status["domains"][place]["pid"].as_u64().unwrap_or(0)))
}

/// Measures what a VMM has: descriptors, and KiB of its heap.
fn has(ward: &Ward, pid: u64) -> Outcome<[u64; 2]> {
    let awk = "/heap/ {on=1} on && /^Rss/ {sum+=$2; on=0} END {print sum+0}";
    let figures =
        ward.pc.sh(&format!("ls /proc/{pid}/fd | wc -l; awk '{awk}' /proc/{pid}/smaps"))?;
    let mut figures = figures.split_whitespace().map(str::parse);
    match (figures.next(), figures.next()) {
        (Some(Ok(descriptors)), Some(Ok(memory))) => Ok([descriptors, memory]),
        other => Err(Failure(format!("no figures: {other:?}"))),
    }
}
