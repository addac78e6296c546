//! The agent or a VMM is killed, at whatever moment, under typing and with a stick being read: the rest goes on, and what was killed comes back.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::runner::is_in_full;
use tests::seat::Person;
use tests::usb_device::{plug_stick, pull_stick};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::{
    MIB, RULES, SOON, host_has_its_switches, is_attached, no_disk_on_host, run, until, wait_for,
};
use crate::suite::seat::{GREEN, RED, in_front, keys};

/// Processes that are killed, one after the other, where the test is asked for by name.
const KILLS: usize = 10;
/// The same in a run that takes its time.
const KILLS_IN_FULL: usize = 100;
/// The longest that a process is left alone before it is killed, in milliseconds.
const ALONE_MAX: u64 = 1500;
/// What an agent may have more of after two more VMMs have died: descriptors, and KiB of its own.
const DESCRIPTORS_MORE: u64 = 6;
const MEMORY_MORE: u64 = 2048;

/// KEY_B, KEY_C as Linux counts them.
const B: u64 = 48;
const C: u64 = 46;

const DOMAINS: [&str; 2] = ["clinical", "internet"];
const COLOURS: [u32; 2] = [GREEN, RED];

/// Numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

/// The PC, with an agent that may be another one after each kill.
struct Scene<'a> {
    ward: &'a Ward,
    agent: Option<Agent<'a>>,
    person: Person<'a>,
    probes: [Probe<'a>; 2],
    front: usize,
}

impl<'a> Scene<'a> {
    fn launch(ward: &'a Ward) -> Outcome<Agent<'a>> {
        Agent::launch_with(&ward.pc, SEAT_MACHINE, &(seat_policy() + RULES), &[])
    }

    fn agent(&self) -> Outcome<&Agent<'a>> {
        self.agent.as_ref().ok_or_else(|| Failure("no agent runs".to_owned()))
    }

    fn pid(&self, domain: usize) -> Outcome<u64> {
        Ok(self.agent()?.status()?["domains"][domain]["pid"].as_u64().unwrap_or(0))
    }

    /// Checks that a guest answers, in the time that any answer takes.
    fn answers(&self, domain: usize) -> Outcome {
        let asked = Instant::now();
        self.probes[domain].ask(json!({"op": "timing"}))?;
        let took = asked.elapsed();
        ensure!(took < patience(Duration::from_secs(10)), "{} took {took:?}", DOMAINS[domain]);
        Ok(())
    }

    /// Has the clinical guest read the stick again and again.
    fn reads(&self) -> Outcome {
        let line = "(while [ -b /dev/sda ]; do echo 3 > /proc/sys/vm/drop_caches; head -c 1048576 /dev/sda; done) >/dev/null 2>&1 &";
        run(&self.probes[0], line).map(drop)
    }

    fn switch(&mut self, to: usize) -> Outcome {
        self.person.chord(&["ctrl", "alt", ["1", "2"][to]])?;
        self.person.see(DOMAINS[to], SOON, in_front(COLOURS[to]))?;
        self.front = to;
        Ok(())
    }

    /// Checks that what is typed arrives in the front desktop, and there alone; no key is held there.
    fn types(&mut self) -> Outcome {
        let (front, other) = (self.front, 1 - self.front);
        let mut held = std::collections::BTreeSet::new();
        let began = Instant::now();
        keys(&self.probes[other])?;
        loop {
            self.person.types(&["c"])?;
            let seen = keys(&self.probes[front])?;
            let came = seen.contains(&(C, 0));
            for (key, value) in seen {
                if value == 0 {
                    held.remove(&key)
                } else {
                    held.insert(key)
                };
            }
            if came && held.is_empty() {
                break;
            }
            ensure!(began.elapsed() < patience(SOON), "no key arrives, or {held:?} are held");
        }
        let elsewhere = keys(&self.probes[other])?;
        ensure!(elsewhere.iter().all(|(key, _)| *key != C), "{} saw {elsewhere:?}", DOMAINS[other]);
        Ok(())
    }

    /// Presses a key and holds it until the guest in front has it.
    fn hold(&mut self) -> Outcome {
        self.person.key("b", true)?;
        until("the key does not arrive", || Ok(keys(&self.probes[self.front])?.contains(&(B, 1))))
    }

    /// Kills the agent and starts the next one; both guests answer, and the key that is held comes up.
    fn kill_agent(&mut self) -> Outcome {
        self.agent.take().map_or(Ok(()), Agent::kill)?;
        let began = Instant::now();
        while !keys(&self.probes[self.front])?.contains(&(B, 0)) {
            ensure!(began.elapsed() < patience(SOON), "the key that was held is held for ever");
        }
        self.answers(0)?;
        self.answers(1)?;
        no_disk_on_host(self.ward)?;
        let agent = self.agent.insert(Self::launch(self.ward)?);
        until(
            "the next agent does not run",
            || Ok(agent.bulkhead(&["status"])?.status == Some(0)),
        )?;
        self.person.see("the same desktop", SOON, in_front(COLOURS[self.front])).map(drop)
    }

    /// Kills a domain's VMM and has it started at once; the other guest answers all the time.
    fn kill_vmm(&mut self, domain: usize) -> Outcome {
        let pid = self.pid(domain)?;
        self.ward.pc.sh(&format!("kill -9 {pid}"))?;
        self.answers(1 - domain)?;
        no_disk_on_host(self.ward)?;
        // What keeps failing has ever longer delays, and is left off in the end; somebody who starts it begins anew.
        until("its end is not noticed", || Ok(self.pid(domain)? != pid))?;
        self.agent()?.bulkhead(&["start", DOMAINS[domain]])?;
        until("there is no other VMM", || {
            self.answers(1 - domain)?;
            Ok(![0, pid].contains(&self.pid(domain)?))
        })?;
        self.probes[domain].wait_ready()
    }

    /// Measures what the agent has: descriptors, and KiB of memory that are nobody else's (screens are shared with VMMs).
    fn has(&self) -> Outcome<[u64; 2]> {
        let line = "pid=$(pidof bulkhead-agent); ls /proc/$pid/fd | wc -l; sed -n 's/^RssAnon:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status";
        let figures = self.ward.pc.sh(line)?;
        let mut figures = figures.split_whitespace().map(str::parse);
        match (figures.next(), figures.next()) {
            (Some(Ok(descriptors)), Some(Ok(memory))) => Ok([descriptors, memory]),
            other => Err(Failure(format!("no figures: {other:?}"))),
        }
    }
}

#[ward_test(shows = ["C-8", "C-10", "I-5"], in_full)]
fn whatever_is_killed_at_whatever_moment_the_rest_goes_on_and_it_comes_back(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let agent = Scene::launch(ward)?;
    let probes = DOMAINS.map(|domain| agent.probe(domain));
    let person = Person::at(&ward.pc)?;
    let mut scene = Scene { ward, agent: Some(agent), person, probes, front: 0 };
    let result = kills(&mut scene);
    result.map_err(|Failure(error)| {
        let logs = scene.agent.as_ref().map(Agent::logs).unwrap_or_default();
        Failure(format!("{error}\n{logs}"))
    })?;
    scene.agent.take().map_or(Ok(()), Agent::stop)?;
    host_has_its_switches(ward)?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

fn kills(scene: &mut Scene<'_>) -> Outcome {
    let ward = scene.ward;
    scene.probes.iter().try_for_each(Probe::wait_ready)?;
    let medium = ward.pc.dir().join("patient.img");
    fs::write(&medium, vec![b'w'; 4 * MIB])?;
    plug_stick(scene.person.hardware(), "patient", &medium, "PATIENT1")?;
    let mut numbers = Numbers(20_261_129);
    let mut counts = [0; 3];
    let rounds = if is_in_full() { KILLS_IN_FULL } else { KILLS };
    for round in 0..rounds {
        wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
        super::disk_in(&scene.probes[0], true)?;
        scene.reads()?;
        scene.switch(usize::from(numbers.below(2) == 1))?;
        scene.types()?;
        // All three in the first three rounds.
        let victim = if round < 3 { round } else { usize::try_from(numbers.below(3)).unwrap_or(0) };
        scene.hold()?;
        std::thread::sleep(Duration::from_millis(numbers.below(ALONE_MAX)));
        let killed = match victim {
            0 => scene.kill_agent(),
            domain => scene.kill_vmm(domain - 1),
        };
        killed.map_err(|Failure(e)| Failure(format!("kill {round}, of {victim}: {e}")))?;
        scene.person.key("b", false)?;
        scene.types()?;
        counts[victim] += 1;
        ward.pc.progress(&format!(
            "killed {} times the agent, {} the clinical VMM, {} the Internet VMM",
            counts[0], counts[1], counts[2]
        ));
    }
    scene.hold()?;
    scene.kill_agent()?;
    scene.person.key("b", false)?;
    wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
    // What one agent gathers over the deaths of several VMMs, once it has had a picture of each.
    let mut had = Vec::new();
    for _ in 0..3 {
        scene.kill_vmm(0)?;
        scene.kill_vmm(1)?;
        wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
        had.push(scene.has()?);
    }
    let [_, before, after] = had[..] else { return Err("not looked at three times".into()) };
    ward.pc.progress(&format!("descriptors and KiB of the agent: {before:?}, then {after:?}"));
    ensure!(after[0] <= before[0] + DESCRIPTORS_MORE, "descriptors: {before:?}, then {after:?}");
    ensure!(after[1] <= before[1] + MEMORY_MORE, "memory: {before:?}, then {after:?}");
    // One that ended after its agent is a zombie for as long as the PC's first process does not look, and has no program.
    let left = ward.pc.sh("for p in $(pidof bulkhead-vmm); do readlink /proc/$p/exe; done | wc -l; ls -d /sys/fs/cgroup/bulkhead*/*/ | wc -l")?;
    let left: Vec<&str> = left.split_whitespace().collect();
    ensure!(left == ["2", "2"], "VMMs and groups: {left:?}");
    let verified = scene.agent()?.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
    ensure!(verified.status == Some(0), "{verified:?}");
    pull_stick(scene.person.hardware(), "patient")
}
