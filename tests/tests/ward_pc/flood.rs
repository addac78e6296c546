//! One domain is flooded from outside and does its worst inside; the other is measured, beside what it does when all is quiet.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE};
use tests::guest::Probe;
use tests::patience::patience;
use tests::runner::is_in_full;
use tests::seat::Person;
use tests::usb_device::{plug_stick, pull_stick};
use tests::ward::{CLINICAL_NIC, INTERNET_MAC, INTERNET_NIC, Ward};
use tests::ward_test;
use tests::{Failure, Network, Outcome, ensure, measure_seat};

use super::seat::{GREEN, RED, SOON, in_front};

/// The clinical guest's address and its server.
const ADDRESS: &str = "10.1.0.2/24";
const SERVER: &str = "10.1.0.1";
/// How often the clinical guest asks its server in one measurement, 50 ms apart.
const PINGS: usize = 100;
/// How often Caps Lock is pressed in one measurement.
const KEYS: usize = 40;
/// How long its disk is measured, in milliseconds.
const DISK: u64 = 4000;
/// How long the flood takes at most, in milliseconds: a measurement takes about half of it.
const FLOOD: u64 = 30_000;
/// The same where switches are timed, which takes minutes.
const FLOOD_IN_FULL: u64 = 400_000;
/// Switches that are timed in a full run: quiet, and flooded, which are as many as the agent keeps the times of.
const SWITCHES: [usize; 2] = [200, 1024];
/// Frames a second into the flooded NIC.
const FRAMES: usize = 20_000;
/// Within which the agent has looked where a NIC's interrupts go.
const INTERRUPTS_KEPT: Duration = Duration::from_secs(20);
/// Longest that anything of the other domain may take at all: a person would call it stuck.
const STUCK: Duration = Duration::from_secs(2);

/// What somebody at the clinical desktop gets, in microseconds: half of the time, and in 99 of 100.
#[derive(Clone, Copy, Debug)]
struct Served {
    network: [u64; 2],
    disk: [u64; 2],
    /// From Caps Lock to the light that its guest puts on.
    key: [u64; 2],
    switch: u64,
    /// From a hotkey's time stamp to the flip that shows the other domain, by the agent's account, where it is measured.
    switches: Option<[u64; 2]>,
}

fn served(ward: &Ward, clinical: &Probe<'_>, person: &mut Person<'_>) -> Outcome<Served> {
    let count = PINGS.to_string();
    let argv = ["/bin/busybox", "ping", "-i", "0.05", "-W", "5", "-c", &count, SERVER];
    let answer = clinical.ask(json!({"op": "run", "argv": argv}))?;
    let output = answer["output"].as_str().unwrap_or_default();
    let mut times: Vec<u64> = output
        .lines()
        .filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse::<f64>().ok())
        .filter_map(|milliseconds| Duration::try_from_secs_f64(milliseconds / 1000.0).ok())
        .filter_map(|time| u64::try_from(time.as_micros()).ok())
        .collect();
    ensure!(times.len() == PINGS, "{} of {PINGS} pings were answered: {output}", times.len());
    times.sort_unstable();
    let disk = clinical.ask(
        json!({"op": "blk-speed", "device": "/dev/vda", "kib": 4, "ms": DISK, "random": true}),
    )?;
    let of_disk = |key: &str| disk[key].as_u64().unwrap_or(u64::MAX);
    let mut keys = measure_seat::round_trips(&ward.pc, KEYS)?;
    keys.sort_unstable_by(f64::total_cmp);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "microseconds")]
    let of_keys = |place: usize| keys[place] as u64;
    let began = Instant::now();
    person.chord(&["ctrl", "alt", "2"])?;
    person.see("the Internet banner", SOON, in_front(RED))?;
    let switch = began.elapsed();
    person.chord(&["ctrl", "alt", "1"])?;
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    Ok(Served {
        network: [PINGS / 2, PINGS * 99 / 100].map(|place| times[place]),
        disk: [of_disk("p50_us"), of_disk("p99_us")],
        key: [KEYS / 2, KEYS * 99 / 100].map(of_keys),
        switch: u64::try_from(switch.as_micros()).unwrap_or(u64::MAX),
        switches: None,
    })
}

/// Times so many switches in a full run, and nothing in another.
fn switches(ward: &Ward, agent: &Agent<'_>, count: usize) -> Outcome<Option<[u64; 2]>> {
    if !is_in_full() {
        return Ok(None);
    }
    let seat = measure_seat::switch(&ward.pc, agent, count)?;
    let of = |key: &str| seat[key].as_u64().ok_or_else(|| Failure(format!("no {key} in {seat}")));
    Ok(Some([of("switch_p50_us")?, of("switch_p99_us")?]))
}

/// Floods the Internet NIC while `during` runs: frames to its address, so many a second.
fn flooded<T>(network: &Network, during: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let over = AtomicBool::new(false);
    let mac: Vec<u8> =
        INTERNET_MAC.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    let frame = [mac.as_slice(), &[0x02, 0xee, 10, 2, 0, 1, 0x88, 0xb5], &[0x5a; 50]].concat();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                (0..FRAMES / 50).for_each(|_| network.inject(frame.clone()));
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        // Also when it panics: the thread ends.
        let _over = Over(&over);
        during()
    })
}

/// Ends the flood when it goes.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Announces a clipboard a thousand times (spice-protocol, `vd_agent.h`: a chunk of the client's, a message of protocol 1, type 6, 8 bytes), each time the loop comes round.
const CLIPBOARD: &str = r"for i in 1 2 3 4 5 6 7 8 9 10; do printf '\001\0\0\0\034\0\0\0\001\0\0\0\006\0\0\0\0\0\0\0\0\0\0\0\010\0\0\0\0\0\0\0\140\0\0\0'; done > /tmp/ten; \
    for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/ten; done > /tmp/hundred; for i in 1 2 3 4 5 6 7 8 9 10; do cat /tmp/hundred; done > /tmp/thousand; \
    port=/dev/$(basename $(dirname $(grep -l com.redhat.spice.0 /sys/class/virtio-ports/*/name))); \
    (while :; do cat /tmp/thousand; echo >> /tmp/announced; done > $port) &";
/// Reads the stick, past the page cache, each time the loop comes round.
const USB: &str = "(while :; do dd if=/dev/sda of=/dev/null bs=64k && echo >> /tmp/read; echo 3 > /proc/sys/vm/drop_caches; done) &";
/// The stick's bytes.
const STICK: usize = 2 << 20;
/// What the security office adds, for the stick.
const RULE: &str = "\n[[usb]]\nid = \"stick\"\nmatch = { class = \"mass-storage\" }\nto = \"internet\"\naction = \"read-only\"\n";

/// Has the Internet guest spin on every processor, and keep memory, disk, screen, console, clipboard and its USB stick busy.
fn do_its_worst(internet: &Probe<'_>) -> Outcome {
    let script = "for i in 1 2 3 4; do (while :; do :; done) & done; (while :; do dd if=/dev/zero of=/tmp/thrash bs=1M count=64; done) & \
        (while :; do dd if=/dev/vda of=/dev/null bs=64k; echo 3 > /proc/sys/vm/drop_caches; done) & (while :; do dd if=/dev/zero of=/dev/ttyS0 bs=4k count=64; done) &";
    let line = format!("({script} {CLIPBOARD} {USB}) >/dev/null 2>&1 </dev/null &");
    internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))?;
    let millis = if is_in_full() { FLOOD_IN_FULL } else { FLOOD };
    internet.ask(json!({"op": "flood-screen", "millis": millis, "background": true})).map(drop)
}

/// The processor time that the Internet domain's VMM has had (proc(5): user and system time, in hundredths of a second).
fn worked(ward: &Ward, agent: &Agent<'_>) -> Outcome<Duration> {
    let pid = &agent.status()?["domains"][1]["pid"];
    let ticks = ward.pc.sh(&format!("cut -d' ' -f14,15 /proc/{pid}/stat"))?;
    let ticks: u64 = ticks.split_whitespace().filter_map(|word| word.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

/// How often its clipboard and its stick came round.
fn rounds(internet: &Probe<'_>) -> Outcome<[u64; 2]> {
    let line = "cat /tmp/announced 2>/dev/null | wc -l; cat /tmp/read 2>/dev/null | wc -l";
    let answer = internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))?;
    let output = answer["output"].as_str().unwrap_or_default();
    let mut counts = output.split_whitespace().filter_map(|word| word.parse().ok());
    let mut next = || counts.next().ok_or_else(|| Failure(format!("the guest said {answer}")));
    Ok([next()?, next()?])
}

/// How many frames its guest has had.
fn frames(internet: &Probe<'_>) -> Outcome<u64> {
    let name = internet.interface()?["name"].as_str().unwrap_or_default().to_owned();
    let file = format!("/sys/class/net/{name}/statistics/rx_packets");
    let answer = internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "cat", file]}))?;
    Ok(answer["output"].as_str().unwrap_or_default().trim().parse().unwrap_or(0))
}

fn said(what: &str, quiet: &Served, under: &Served) -> String {
    let one = |name: &str, quiet: [u64; 2], under: [u64; 2]| {
        let ratio = under[1] as f64 / quiet[1].max(1) as f64;
        format!(
            "{name}: p50 {} us, p99 {} us; flooded p50 {} us, p99 {} us: {ratio:.2} times",
            quiet[0], quiet[1], under[0], under[1]
        )
    };
    let switches = match (quiet.switches, under.switches) {
        (Some(quiet), Some(under)) => one("\nhotkey to the flip", quiet, under),
        _ => String::new(),
    };
    format!(
        "{what}\n{}\n{}\n{}\nhotkey to the other banner: {} ms; flooded {} ms{switches}",
        one("network, round trip", quiet.network, under.network),
        one("disk, 4 KiB anywhere", quiet.disk, under.disk),
        one("Caps Lock to the guest's light", quiet.key, under.key),
        quiet.switch / 1000,
        under.switch / 1000
    )
}

#[ward_test(shows = ["C-12", "I-3"])]
fn a_flooded_internet_domain_that_does_its_worst_leaves_the_clinical_one_its_network_disk_and_keys(
    ward: &Ward,
) -> Outcome {
    ward.pc.sh("for d in clinical internet; do dd if=/dev/urandom of=/tmp/$d.img bs=1M count=64 2>/dev/null; done")?;
    let ways: &[bool] = if is_in_full() { &[true, false] } else { &[true] };
    for &cores in ways {
        let mut machine = SEAT_MACHINE.to_owned();
        for (domain, nic) in [("clinical", CLINICAL_NIC), ("internet", INTERNET_NIC)] {
            let own = if cores && domain == "clinical" { "cores = 1\n" } else { "" };
            machine = machine.replace(
                &format!("[domain.{domain}]\n"),
                &format!("[domain.{domain}]\nnic = \"{nic}\"\n{own}disks = [ {{ path = \"/tmp/{domain}.img\", readonly = true }} ]\n"),
            );
        }
        // Both on one: the PC has one processor then.
        let online = u8::from(cores);
        ward.pc.sh(&format!("echo {online} > /sys/devices/system/cpu/cpu1/online"))?;
        let outcome = launched(ward, &machine, cores);
        ward.pc.sh("echo 1 > /sys/devices/system/cpu/cpu1/online")?;
        outcome?;
    }
    ward.pc.sh("rm /tmp/clinical.img /tmp/internet.img").map(drop)
}

fn launched(ward: &Ward, machine: &str, cores: bool) -> Outcome {
    let policy = tests::agent::POLICY.to_owned() + RULE;
    let agent = Agent::launch_with(&ward.pc, machine, &policy, &[])?;
    let stick = ward.pc.dir().join("flooded-stick.img");
    std::fs::write(&stick, vec![0x5a; STICK])?;
    plug_stick(&mut ward.pc.qmp()?, "stick", &stick, "FLOOD1")?;
    measure_seat::sit_down(&ward.pc)?;
    let outcome = compared(ward, &agent, cores);
    let tidied = measure_seat::stand_up(&ward.pc)
        .and_then(|()| pull_stick(&mut ward.pc.qmp()?, "stick").map(drop));
    outcome.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    tidied?;
    agent.stop()
}

/// Waits until the interrupts of each domain's NIC are served by its own processors alone: a flood of the other's network is none of theirs.
fn interrupts_are_apart(ward: &Ward) -> Outcome {
    let of = |nic: &str| {
        let lists = ward.pc.sh(&format!(
            "for i in $(ls /sys/bus/pci/devices/{nic}/msi_irqs); do cat /proc/irq/$i/smp_affinity_list 2>/dev/null; done; true"
        ))?;
        Ok::<_, Failure>(lists.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    let since = Instant::now();
    loop {
        let (clinical, internet) = (of(CLINICAL_NIC)?, of(INTERNET_NIC)?);
        let served_by =
            |lists: &[String], cpu: &str| !lists.is_empty() && lists.iter().all(|list| list == cpu);
        if served_by(&clinical, "1") && served_by(&internet, "0") {
            return Ok(());
        }
        ensure!(
            since.elapsed() < patience(INTERRUPTS_KEPT),
            "the clinical NIC's interrupts go to {clinical:?}, the Internet one's to {internet:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn compared(ward: &Ward, agent: &Agent<'_>, cores: bool) -> Outcome {
    let what = if cores { "each on its core" } else { "both on one core" };
    let mut person = Person::at(&ward.pc)?;
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    clinical.wait_ready()?;
    internet.wait_ready()?;
    clinical.configure(ADDRESS)?;
    internet.configure("10.2.0.2/24")?;
    ensure!(clinical.reaches(SERVER)?, "the clinical guest has no network");
    person.see("the clinical banner", SOON, in_front(GREEN))?;
    let there = "for n in $(seq 300); do [ -b /dev/sda ] && break; sleep 0.1; done; [ -b /dev/sda ] && echo there";
    let stick = internet.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", there]}))?;
    ensure!(stick["output"] == "there\n", "the Internet guest has no stick: {stick}");
    if cores {
        interrupts_are_apart(ward)?;
    }
    let mut quiet = served(ward, &clinical, &mut person)?;
    quiet.switches = switches(ward, agent, SWITCHES[0])?;
    do_its_worst(&internet)?;
    let before = (Instant::now(), worked(ward, agent)?, frames(&internet)?);
    let under = flooded(&ward.internet, || {
        let served = served(ward, &clinical, &mut person)?;
        Ok(Served { switches: switches(ward, agent, SWITCHES[1])?, ..served })
    })?;
    // It does do its worst: it has the processor for most of what the other leaves, and the frames arrive.
    let took = worked(ward, agent)?.saturating_sub(before.1);
    let share = took.as_secs_f64() / before.0.elapsed().as_secs_f64();
    let arrived = frames(&internet)?.saturating_sub(before.2);
    let [announced, read] = rounds(&internet)?;
    ward.pc.progress(&format!(
        "{}\nthe flooded VMM has {:.0} % of a processor, {arrived} frames came to its guest, its clipboard was announced {announced} thousand times and its stick read {read} times",
        said(what, &quiet, &under),
        share * 100.0
    ));
    ensure!(
        share > 0.3 && arrived > 1000 && announced > 0 && read > 0,
        "the Internet domain is not flooded: {share}, {arrived}, {announced}, {read}"
    );
    let stuck = u64::try_from(patience(STUCK).as_micros()).unwrap_or(u64::MAX);
    for worst in [under.network[1], under.disk[1], under.key[1]] {
        ensure!(worst < stuck, "the clinical domain is held up: {under:?}, quiet {quiet:?}");
    }
    let status: Value = agent.status()?;
    ensure!(status["domains"][0]["restarts"] == 0, "{status}");
    Ok(())
}
