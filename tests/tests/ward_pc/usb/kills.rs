//! The agent, a worker or a VMM is killed, at whatever moment, under typing, copying and pasting, with a stick being read and networks that answer: the rest goes
//! on, and what was killed comes back.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::patience::patience;
use tests::runner::is_in_full;
use tests::seat::Person;
use tests::usb_device::{plug_stick, pull_stick};
use tests::ward::{CLINICAL_NIC, INTERNET_NIC, Ward};
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::{
    MIB, RULES, SOON, devices, host_has_its_switches, is_attached, no_disk_on_host, run, until,
    wait_for,
};
use crate::suite::seat::{GREEN, RED, down, in_front, keys};

/// Processes that are killed, one after the other, where the test is asked for by name.
const KILLS: usize = 10;
/// The same in a run that takes its time.
const KILLS_IN_FULL: usize = 100;
/// The longest that a process is left alone before it is killed, in milliseconds.
const ALONE_MAX: u64 = 1500;
/// What an agent may have more of after two more VMMs have died: descriptors, and KiB of its own.
const DESCRIPTORS_MORE: u64 = 6;
const MEMORY_MORE: u64 = 2048;

/// What all processes of the PC may have more of at the end than when each had been killed once: processes that have ended and are not buried, descriptors,
/// and KiB of memory that are nobody else's.
const ALL_MORE: [u64; 3] = [0, 12, 8192];

/// KEY_B, KEY_C as Linux counts them.
const B: u64 = 48;
const C: u64 = 46;

/// What may be pasted.
const TEXT_IN: &str = r#"
[[clipboard]]
id = "text-in"
from = "internet"
to = "clinical"
types = ["text/plain"]
max_bytes = 4096
action = "allow"
"#;
/// The guests' addresses, and the servers of their networks; neither reaches the other's.
const ADDRESSES: [&str; 2] = ["10.1.0.5/24", "10.2.0.6/24"];
const SERVERS: [&str; 2] = ["10.1.0.1", "10.2.0.1"];
/// Whoever works for the agent now, apart from it.
const WORKERS: &str = "cat /sys/fs/cgroup/bulkhead.workers*/cgroup.procs /sys/fs/cgroup/bulkhead.workers*/*/cgroup.procs 2>/dev/null; true";
/// How long a person waits for what a paste says.
const PASTED: Duration = Duration::from_millis(1500);

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
    /// How many workers were killed, by what they are for.
    workers: BTreeMap<String, usize>,
}

impl<'a> Scene<'a> {
    fn launch(ward: &'a Ward) -> Outcome<Agent<'a>> {
        let nic = |machine: String, domain: &str, nic: &str| {
            let section = format!("[domain.{domain}]\n");
            machine.replace(&section, &format!("{section}nic = \"{nic}\"\n"))
        };
        let machine = nic(SEAT_MACHINE.to_owned(), "clinical", CLINICAL_NIC);
        let machine = nic(machine, "internet", INTERNET_NIC);
        let policy = seat_policy().replace("\"none\"", "\"passthrough\"");
        Agent::launch_with(&ward.pc, &machine, &(policy + TEXT_IN + RULES), &[])
    }

    /// Gives a guest that has just started its address, and has it say that it has a clipboard.
    fn join(&self, domain: usize) -> Outcome {
        self.probes[domain].ask(json!({"op": "paste"}))?;
        self.probes[domain].configure(ADDRESSES[domain])?;
        until("its network does not answer", || self.probes[domain].reaches(SERVERS[domain]))?;
        let other = self.probes[domain].reaches(SERVERS[1 - domain])?;
        ensure!(!other, "{} reaches the other network", DOMAINS[domain]);
        Ok(())
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
        // An emulated network may lose a frame.
        let mut tries = (0..3).map(|_| self.probes[domain].reaches(SERVERS[domain]));
        ensure!(
            tries.by_ref().any(|reached| matches!(reached, Ok(true))),
            "the network of {} does not answer",
            DOMAINS[domain]
        );
        Ok(())
    }

    /// Copies a text in the Internet desktop, and begins to paste it in the clinical one.
    fn begins_to_paste(&mut self, text: &str) -> Outcome {
        // Until a reader that was killed has a successor nobody takes what the guest says, and its agent tries again.
        let began = Instant::now();
        while let Err(Failure(error)) = self.probes[1].ask(json!({"op": "copy", "text": text})) {
            let is_full = error.contains("temporarily unavailable");
            ensure!(is_full && began.elapsed() < patience(SOON), "{error}");
            std::thread::sleep(Duration::from_millis(500));
        }
        self.switch(1)?;
        self.person.chord(&["ctrl", "alt", "c"])?;
        self.switch(0)?;
        self.person.chord(&["ctrl", "alt", "v"])
    }

    /// Returns what the clinical desktop's programs find in the clipboard.
    fn pasted(&self) -> Outcome<Option<String>> {
        let answer = self.probes[0].ask(json!({"op": "paste"}))?;
        Ok(answer["text"].as_str().map(str::to_owned))
    }

    /// Checks that a text is pasted, in the place of one of those that were there, and that nothing comes the way for which there is no rule.
    fn pastes(&mut self, text: &str, before: &[&str]) -> Outcome {
        let began = Instant::now();
        loop {
            self.begins_to_paste(text)?;
            std::thread::sleep(PASTED);
            let pasted = self.pasted()?;
            let Some(pasted) = pasted else {
                ensure!(
                    began.elapsed() < patience(SOON),
                    "{text} is not pasted\n{}",
                    self.ward.pc.sh("tail -n 20 /tmp/state/audit/*; ps | grep worker")?
                );
                continue;
            };
            if pasted == text {
                break;
            }
            ensure!(before.contains(&pasted.as_str()), "another text is pasted: {pasted}");
            ensure!(began.elapsed() < patience(SOON), "{text} is not pasted, {pasted} is");
        }
        let answer = self.probes[1].ask(json!({"op": "paste"}))?;
        ensure!(answer["text"].is_null(), "the Internet desktop was given {answer}");
        Ok(())
    }

    /// Kills one of those that work for the agent, and returns whether there was one: the agent and both VMMs are what they were.
    fn kill_worker(&mut self, number: u64) -> Outcome<bool> {
        let workers = self.ward.pc.sh(WORKERS)?;
        let workers: Vec<&str> = workers.split_whitespace().collect();
        let Some(count) = u64::try_from(workers.len()).ok().filter(|count| *count > 0) else {
            return Ok(false);
        };
        let before = [self.pid(0)?, self.pid(1)?];
        let victim = workers[usize::try_from(number % count).unwrap_or(0)];
        // One that has ended by itself meanwhile is no fault, and is not counted.
        let line = format!(
            "tr '\\0' ' ' < /proc/{victim}/cmdline 2>/dev/null; kill -9 {victim} 2>/dev/null && echo killed; true"
        );
        let said = self.ward.pc.sh(&line)?;
        let Some(words) = said.trim_end().strip_suffix("killed") else { return Ok(false) };
        // What it is for; the words behind it are numbers of its own and its group.
        let role = words.split_whitespace().nth(1).unwrap_or("unknown");
        *self.workers.entry(role.to_owned()).or_default() += 1;
        self.answers(0)?;
        self.answers(1)?;
        no_disk_on_host(self.ward)?;
        ensure!([self.pid(0)?, self.pid(1)?] == before, "a worker's death cost a desktop");
        Ok(true)
    }

    /// Plugs the stick in again if it was its worker that was killed: the agent has it blocked until somebody does.
    fn plugs_again(&mut self, medium: &Path) -> Outcome {
        let is_blocked = |device: &Value| {
            let why = device["why"].as_str().unwrap_or_default();
            device["state"] == "blocked" && why.contains("plug it in again")
        };
        if !devices(self.agent()?)?.iter().any(is_blocked) {
            return Ok(());
        }
        pull_stick(self.person.hardware(), "patient")?;
        until("the stick that was pulled is listed", || {
            Ok(!devices(self.agent()?)?.iter().any(is_blocked))
        })?;
        plug_stick(self.person.hardware(), "patient", medium, "PATIENT1")
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

    /// Checks that what is typed arrives in the front desktop, and there alone, and that no key is down in either.
    fn types(&mut self) -> Outcome {
        let (front, other) = (self.front, 1 - self.front);
        let began = Instant::now();
        keys(&self.probes[other])?;
        loop {
            self.person.types(&["c"])?;
            if keys(&self.probes[front])?.contains(&(C, 0)) {
                break;
            }
            ensure!(began.elapsed() < patience(SOON), "no key arrives");
        }
        let elsewhere = keys(&self.probes[other])?;
        ensure!(elsewhere.iter().all(|(key, _)| *key != C), "{} saw {elsewhere:?}", DOMAINS[other]);
        for (probe, domain) in self.probes.iter().zip(DOMAINS) {
            let mut held = Vec::new();
            until("a key stays down", || {
                held = down(probe)?;
                Ok(held.is_empty())
            })
            .map_err(|Failure(error)| Failure(format!("{error} in {domain}: {held:?}")))?;
        }
        Ok(())
    }

    /// Presses a key and holds it until the guest in front has it.
    fn hold(&mut self) -> Outcome {
        self.person.key("b", true)?;
        until("the key does not arrive", || Ok(keys(&self.probes[self.front])?.contains(&(B, 1))))?;
        let held = down(&self.probes[self.front])?;
        ensure!(held == [B], "{} has {held:?} down", DOMAINS[self.front]);
        Ok(())
    }

    /// Kills the agent and starts the next one; both guests answer, and a key that is held comes up.
    fn kill_agent(&mut self, is_held: bool) -> Outcome {
        self.agent.take().map_or(Ok(()), Agent::kill)?;
        let began = Instant::now();
        while is_held && !keys(&self.probes[self.front])?.contains(&(B, 0)) {
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
        self.probes[domain].wait_ready()?;
        self.join(domain)
    }

    /// Measures what all processes of the PC have, in the order of [`ALL_MORE`], with the stick in its guest.
    fn all_have(&self) -> Outcome<[u64; 3]> {
        let line = "cat /proc/[0-9]*/status 2>/dev/null | awk '/^State:.Z/ { dead++ } /^RssAnon:/ { memory += $2 } END { print dead + 0; print memory + 0 }'; \
                    for p in /proc/[0-9]*; do ls $p/fd 2>/dev/null; done | wc -l";
        let figures = self.ward.pc.sh(line)?;
        let figures: Vec<u64> = figures.split_whitespace().flat_map(str::parse).collect();
        let [dead, memory, descriptors] = figures[..] else {
            return Err(Failure(format!("no figures: {figures:?}")));
        };
        Ok([dead, descriptors, memory])
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

#[ward_test(shows = ["C-8", "C-10", "I-5"])]
fn whatever_is_killed_at_whatever_moment_the_rest_goes_on_and_it_comes_back(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let agent = Scene::launch(ward)?;
    let probes = DOMAINS.map(|domain| agent.probe(domain));
    let person = Person::at(&ward.pc)?;
    let mut scene =
        Scene { ward, agent: Some(agent), person, probes, front: 0, workers: BTreeMap::new() };
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
    scene.join(0)?;
    scene.join(1)?;
    let medium = ward.pc.dir().join("patient.img");
    fs::write(&medium, vec![b'w'; 4 * MIB])?;
    plug_stick(scene.person.hardware(), "patient", &medium, "PATIENT1")?;
    let mut numbers = Numbers(20_261_129);
    let mut counts = [0; 4];
    let mut had_early = [0; 3];
    let rounds = if is_in_full() { KILLS_IN_FULL } else { KILLS };
    for round in 0..rounds {
        scene.plugs_again(&medium)?;
        wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
        super::disk_in(&scene.probes[0], true)?;
        if round == 4 {
            had_early = scene.all_have()?;
        }
        scene.reads()?;
        let before = format!("before kill {round}");
        let last = round.checked_sub(1).map(|last| format!("after kill {last}"));
        scene.pastes(&before, &[last.as_deref().unwrap_or_default()])?;
        scene.switch(usize::from(numbers.below(2) == 1))?;
        scene.types()?;
        // All four in the first four rounds.
        let victim = if round < 4 { round } else { usize::try_from(numbers.below(4)).unwrap_or(0) };
        let text = format!("at kill {round}");
        // In the middle of a paste, or of a key that is held.
        let in_a_paste = numbers.below(2) == 0;
        match in_a_paste {
            true => scene.begins_to_paste(&text)?,
            false => scene.hold()?,
        }
        let alone = if in_a_paste { ALONE_MAX / 10 } else { ALONE_MAX };
        std::thread::sleep(Duration::from_millis(numbers.below(alone)));
        let killed = match victim {
            0 => scene.kill_agent(!in_a_paste).map(|()| true),
            3 => scene.kill_worker(numbers.below(1000)),
            domain => scene.kill_vmm(domain - 1).map(|()| true),
        };
        let killed = killed.map_err(|Failure(e)| {
            Failure(format!("kill {round}, of {victim}, in a paste: {in_a_paste}: {e}"))
        })?;
        scene.person.key("b", false)?;
        scene.types()?;
        let found = scene.pasted()?;
        ensure!(
            found.as_ref().is_none_or(|found| *found == text || *found == before),
            "kill {round}, of {victim}: the clipboard has {found:?}"
        );
        scene.pastes(&format!("after kill {round}"), &[&before, &text])?;
        counts[victim] += usize::from(killed);
        ward.pc.progress(&format!(
            "killed {} times the agent, {} the clinical VMM, {} the Internet VMM, {} a worker",
            counts[0], counts[1], counts[2], counts[3]
        ));
    }
    ward.pc.progress(&format!("workers killed: {:?}", scene.workers));
    scene.plugs_again(&medium)?;
    wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
    let mut have = [0; 3];
    let grew = until("the PC's processes have more than they had", || {
        have = scene.all_have()?;
        let may_have = had_early.iter().zip(ALL_MORE).map(|(had, more)| had + more);
        Ok(have.iter().zip(may_have).all(|(have, may)| *have <= may))
    });
    let figures = format!("unburied, descriptors and KiB of all: {had_early:?}, then {have:?}");
    ward.pc.progress(&figures);
    grew.map_err(|Failure(error)| Failure(format!("{error}; {figures}")))?;
    scene.hold()?;
    scene.kill_agent(true)?;
    scene.person.key("b", false)?;
    wait_for(scene.agent()?, "stick", is_attached("read-only"))?;
    // What one agent gathers over the deaths of several VMMs, once it has had a picture of each.
    scene.plugs_again(&medium)?;
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
    let left = ward.pc.sh("for p in $(pidof bulkhead-vmm); do readlink /proc/$p/exe; done | wc -l; ls -d /sys/fs/cgroup/bulkhead-*/*/ | wc -l")?;
    let left: Vec<&str> = left.split_whitespace().collect();
    ensure!(left == ["2", "2"], "VMMs and groups: {left:?}");
    let verified = scene.agent()?.bulkhead(&["audit", "verify", "/tmp/state/audit"])?;
    ensure!(verified.status == Some(0), "{verified:?}");
    pull_stick(scene.person.hardware(), "patient")
}
