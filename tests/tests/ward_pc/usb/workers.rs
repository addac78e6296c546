//! The worker that serves a device: what it has, and what its end costs.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::Agent;
use tests::confinement::is_nobody_nowhere;
use tests::patience::patience;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Failure, Outcome, ensure};

use super::{
    MIB, Ports, devices, disk_in, is_attached, mediation, no_disk_on_host, run, until, wait_for,
};

/// Whom the workers of the first domain run as.
const OF_FIRST_DOMAIN: u32 = 63_998;

#[ward_test(shows = ["C-8", "C-10", "I-3"])]
fn a_usb_devices_worker_is_nobody_nowhere_and_its_end_costs_its_device_alone(
    ward: &Ward,
) -> Outcome {
    mediation(ward, &[has_its_device_alone, hangs, is_killed])
}

/// Returns the workers that serve USB devices.
fn workers(ward: &Ward) -> Outcome<Vec<String>> {
    let list = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q '^bulkhead-worker usb ' && echo ${p#/proc/}; done; true";
    Ok(ward.pc.sh(list)?.split_whitespace().map(str::to_owned).collect())
}

pub(super) fn the_worker(ward: &Ward) -> Outcome<String> {
    match &workers(ward)?[..] {
        [one] => Ok(one.clone()),
        other => Err(Failure(format!("for one device there are {other:?}"))),
    }
}

fn has_its_device_alone(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a stick's worker has the stick, its VMM, the agent, and nothing else");
    ensure!(workers(ward)?.is_empty(), "without a device there is a worker");
    fs::write(ports.medium("patient"), vec![b'w'; 4 * MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick", is_attached("read-only"))?;
    disk_in(&agent.probe("clinical"), true)?;
    let proc = format!("/proc/{}", the_worker(ward)?);
    is_nobody_nowhere(&ward.pc, &proc, OF_FIRST_DOMAIN)?;
    let files = ward.pc.sh(&format!("for f in {proc}/fd/*; do readlink $f; done"))?;
    let devices = files.lines().filter(|file| file.starts_with("/dev/bus/usb/"));
    let mut devices: Vec<&str> = devices.collect();
    devices.dedup();
    ensure!(devices.len() == 1, "it has other devices than one: {files}");
    let known = ["/dev/bus/usb/", "/dev/null", "socket:", "anon_inode:"];
    let others = files.lines().find(|file| !known.iter().any(|known| file.starts_with(known)));
    ensure!(others.is_none(), "it has {others:?} open");
    // The agent has given its copy of what the worker has away: it has the device open once, to reset it.
    let agents = ward
        .pc
        .sh("for f in /proc/$(pidof bulkhead-agent)/fd/*; do readlink $f; done | grep -c ^/dev/bus/usb/; true")?;
    // The device, and the hub that its port is of.
    ensure!(agents.trim() == "2", "the agent has {} nodes open", agents.trim());
    Ok(())
}

/// Returns how often the kernel's log says that this device was reset.
fn resets_of(ward: &Ward, device: &Value) -> Outcome<usize> {
    let place = device["bus_id"].as_str().unwrap_or_default().replace('.', "\\.");
    ensure!(!place.is_empty(), "it is at no place: {device}");
    let log = format!("dmesg | grep -c 'usb {place}: reset .* USB device number'; true");
    let count = ward.pc.sh(&log)?;
    count.trim().parse().map_err(|_| Failure(format!("no number: {count}")))
}

fn hangs(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a stick's worker hangs: it is found out, and the stick is reset");
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let stick = wait_for(agent, "stick", is_attached("read-only"))?;
    let before = resets_of(ward, &stick)?;
    ward.pc.sh(&format!("kill -STOP {}", the_worker(ward)?))?;
    // Seven looks, ten seconds apart, the first of which asks.
    let found = Instant::now() + patience(Duration::from_secs(100));
    let words = "what serves it failed: it has not answered for a minute";
    loop {
        internet.ask(json!({"op": "timing"}))?;
        let blocked = |device: &Value| {
            device["state"] == "blocked"
                && device["why"].as_str().is_some_and(|why| why.contains(words))
        };
        let all = devices(agent)?;
        if all.iter().any(blocked) {
            break;
        }
        ensure!(Instant::now() < found, "a worker that hangs is not found out: {all:?}");
        std::thread::sleep(Duration::from_secs(2));
    }
    disk_in(&clinical, false)?;
    until("nobody resets the stick for its next guest", || Ok(resets_of(ward, &stick)? > before))?;
    no_disk_on_host(ward)?;
    ensure!(workers(ward)?.is_empty(), "a worker is left");
    ports.pull("patient")?;
    until("the stick that was pulled is listed", || {
        Ok(devices(agent)?.iter().all(|device| device["state"] != "blocked"))
    })?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick that is back", is_attached("read-only"))?;
    disk_in(&clinical, true)
}

fn is_killed(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a stick's worker is killed while the stick is read");
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    let stick = wait_for(agent, "stick", is_attached("read-only"))?;
    run(
        &clinical,
        "(while [ -b /dev/sda ]; do echo 3 > /proc/sys/vm/drop_caches; head -c 1048576 /dev/sda; done) >/dev/null 2>&1 &",
    )?;
    // The guest has it, and its worker answers it: nobody resets it.
    let resets = || resets_of(ward, &stick);
    let before = resets()?;
    ward.pc.sh(&format!("kill -9 {}", the_worker(ward)?))?;
    internet.ask(json!({"op": "timing"}))?;
    no_disk_on_host(ward)?;
    let words = "what serves it failed: it was ended by signal 9; plug it in again";
    wait_for(agent, "stick that was detached in words", |device| {
        device["state"] == "blocked"
            && device["why"].as_str().is_some_and(|why| why.contains(words))
    })?;
    disk_in(&clinical, false)?;
    until("nobody resets the stick for its next guest", || Ok(resets()? > before))?;
    no_disk_on_host(ward)?;
    internet.ask(json!({"op": "timing"}))?;
    clinical.ask(json!({"op": "timing"}))?;
    ensure!(workers(ward)?.is_empty(), "a worker is left");
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    let recorded =
        log.lines().any(|line| line.contains("\"kind\":\"usb-detached\"") && line.contains(words));
    ensure!(recorded, "the audit log does not say why it was detached");

    ward.pc.progress("plugged in again it is read again");
    ports.pull("patient")?;
    until("the stick that was pulled is listed", || {
        Ok(devices(agent)?.iter().all(|device| device["state"] != "blocked"))
    })?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick that is back", is_attached("read-only"))?;
    disk_in(&clinical, true)?;
    ensure!(run(&clinical, "head -c 4096 /dev/sda | grep -q ww")?.1, "it cannot be read");
    ports.pull("patient")?;
    disk_in(&clinical, false)?;
    until("the worker of a device that was pulled is left", || Ok(workers(ward)?.is_empty()))
}
