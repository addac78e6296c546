//! A PC that is kept from sleeping, and sleeps all the same.

use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::{Agent, POLICY, SEAT_MACHINE};
use tests::patience::patience;
use tests::seat::{Person, Picture};
use tests::ward::{Addresses, CLINICAL_NIC, Ward};
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::seat::{GREEN, SOON, in_front};
use super::usb::RULES;

/// How long it sleeps.
const SLEEP: Duration = Duration::from_secs(5);
/// Longest from the wake to the clinical guest's next start: power button, its deadline, the end, the start.
const AGAIN: Duration = Duration::from_secs(90);
/// The clinical guest's address, and the hospital's server.
const ADDRESS: &str = "10.1.0.2/24";
const SERVER: &str = "10.1.0.1";

/// A PC whose clinical domain has a card, and whose Internet domain has none.
///
/// What a PC shares with the tests does not come back from a sleep: this one's programs are in its memory, and it serves no other test. Nor does
/// QEMU's sleep a second time: it wakes at once.
struct Sleeper {
    ward: Ward,
    machine: String,
    policy: String,
}

impl Sleeper {
    fn start() -> Outcome<Self> {
        let ward = Ward::start(Addresses::Ordinary)?;
        ward.pc.sh("mkdir /tmp/share && cd /share && cp -a bulkhead* probe.cpio vmlinux fonts /tmp/share/ && mount -o bind /tmp/share /share")?;
        let card = format!("cpus = 1\nnic = \"{CLINICAL_NIC}\"");
        let machine = SEAT_MACHINE.replacen("cpus = 1", &card, 1);
        let (clinical, internet) = POLICY.rsplit_once("\"passthrough\"").ok_or("no policy")?;
        let policy = format!("{clinical}\"none\"{internet}{RULES}");
        Ok(Self { ward, machine, policy })
    }

    fn launch(&self) -> Outcome<Agent<'_>> {
        Agent::launch_with(&self.ward.pc, &self.machine, &self.policy, &[])
    }

    /// Has the PC sleep for a while, whoever keeps it from that; returns when it was woken.
    fn sleep(&self, person: &mut Person<'_>) -> Outcome<Instant> {
        let line = "sleep 1; echo mem > /sys/power/state";
        self.ward.pc.spawn(&["/bin/busybox", "sh", "-c", line], "/tmp/sleep.log")?;
        becomes(person, "suspended")?;
        std::thread::sleep(SLEEP);
        person.qmp("system_wakeup", json!({}))?;
        let woken = Instant::now();
        becomes(person, "running")?;
        Ok(woken)
    }

    /// Returns what the audit log says, which verifies.
    fn log(&self, agent: &Agent<'_>) -> Outcome<String> {
        let verified = agent.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
        ensure!(verified.status == Some(0), "{verified:?}");
        self.ward.pc.sh("cat /tmp/state/audit/*.jsonl")
    }

    /// Waits until both guests are up and the clinical one has its network; returns the domains' VMMs.
    fn is_up(&self, agent: &Agent<'_>) -> Outcome<[u64; 2]> {
        let [clinical, internet] = [agent.probe("clinical"), agent.probe("internet")];
        clinical.wait_ready()?;
        internet.wait_ready()?;
        clinical.configure(ADDRESS)?;
        ensure!(clinical.reaches(SERVER)?, "the clinical guest has no network");
        pids(agent)
    }

    /// Waits until the clinical domain, and it alone, was restarted and has its network; and the sleep is on the record.
    fn is_seen_to(&self, agent: &Agent<'_>, before: [u64; 2]) -> Outcome {
        let start = Instant::now();
        while matches!(pids(agent)?[0], pid if pid == 0 || pid == before[0]) {
            ensure!(start.elapsed() < patience(AGAIN), "the clinical domain is not restarted");
            std::thread::sleep(Duration::from_millis(500));
        }
        let after = self.is_up(agent)?;
        ensure!(after[1] == before[1], "the Internet domain, which has no card, was restarted");
        let log = self.log(agent)?;
        let mut entries = log.lines().filter(|line| line.contains("\"pc-slept\""));
        let entry = entries.next().ok_or("the sleep is not on the record")?;
        ensure!(entries.next().is_none(), "it is on the record twice: {log}");
        let entry: serde_json::Value = serde_json::from_str(entry)?;
        ensure!(entry["detail"]["domains"] == json!(["clinical"]), "{entry}");
        Ok(())
    }

    fn with_logs(&self, agent: &Agent<'_>, outcome: Outcome) -> Outcome {
        outcome.map_err(|Failure(error)| {
            let kernel = self.ward.pc.sh("dmesg | tail -30").unwrap_or_default();
            Failure(format!("{error}\n{}\n{kernel}", agent.logs()))
        })
    }
}

/// Waits until QEMU says that the PC is in this state.
fn becomes(person: &mut Person<'_>, state: &str) -> Outcome {
    let start = Instant::now();
    while person.qmp("query-status", json!({}))?["status"] != state {
        ensure!(start.elapsed() < patience(SOON), "the PC is not {state}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn locked(picture: &Picture) -> bool {
    picture.banner_colour() == 0x28_2828
}

/// Returns the VMMs of both domains.
fn pids(agent: &Agent<'_>) -> Outcome<[u64; 2]> {
    let status = agent.status()?;
    Ok([0, 1].map(|index| status["domains"][index]["pid"].as_u64().unwrap_or(0)))
}

#[ward_test]
fn a_pc_that_slept_all_the_same_is_locked_and_restarts_the_domain_with_a_card_and_no_other()
-> Outcome {
    let pc = Sleeper::start()?;
    let mut person = Person::at(&pc.ward.pc)?;
    let agent = pc.launch()?;
    let outcome = (|| {
        let before = pc.is_up(&agent)?;
        person.see("the clinical banner", SOON, in_front(GREEN))?;
        let opened = agent.bulkhead(&["break-glass", "--reason", "a drill"])?;
        ensure!(opened.status == Some(0), "{opened:?}");
        pc.ward.pc.progress("it is put to sleep behind systemd's back, and woken");
        let woken = pc.sleep(&mut person)?;
        person.see("the lock", SOON, locked)?;
        pc.ward.pc.progress(&format!("locked {:?} after the wake", woken.elapsed()));
        agent.probe("internet").ask(json!({"op": "timing"}))?;
        pc.is_seen_to(&agent, before)?;
        pc.ward.pc.progress(&format!("the network is back {:?} after the wake", woken.elapsed()));
        ensure!(agent.status()?["break_glass_seconds"].is_null(), "break-glass is open");
        ensure!(pc.log(&agent)?.contains("\"break-glass-closed\""), "break-glass outlived it");
        Ok(())
    })();
    pc.with_logs(&agent, outcome)
}

#[ward_test]
fn a_sleep_while_no_agent_runs_is_seen_to_by_the_next_one() -> Outcome {
    let pc = Sleeper::start()?;
    let mut person = Person::at(&pc.ward.pc)?;
    let first = pc.launch()?;
    let before = pc.is_up(&first)?;
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    first.kill()?;
    pc.ward.pc.progress("it sleeps while no agent runs");
    pc.sleep(&mut person)?;
    let agent = pc.launch()?;
    let outcome = (|| {
        person.see("the lock", SOON, locked)?;
        pc.is_seen_to(&agent, before)
    })();
    pc.with_logs(&agent, outcome)
}
