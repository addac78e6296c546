//! Devices that want to end the agent, hold it up, or be taken for something else.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tests::agent::Agent;
use tests::usb_device::{Model, Plugged, SecurityKey};
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};
use usbfilter::stick::{Stick, pinned};
use usbredir::{Body, Packet};

use super::{MIB, Ports, devices, is_attached, mediation, no_disk_on_host, run, wait_for};

#[ward_test(shows = ["C-8"])]
fn a_hostile_device_ends_nothing_holds_up_nobody_and_types_nowhere(ward: &Ward) -> Outcome {
    mediation(ward, &[packets_of_no_size, silent, another_report_for_the_guest])
}

/// Returns whether the agent is the one that was there before, and built to survive.
fn is_still_there(agent: &Agent<'_>, pid: &serde_json::Value) -> Outcome {
    let status = agent.status()?;
    ensure!(status["agent"]["pid"] == *pid, "another agent: {status}");
    ensure!(status["agent"]["unwinds"] == true, "it is not built to unwind: {status}");
    Ok(())
}

/// Linux corrects this number for itself and hands it out as it is; a library divides by it.
fn packets_of_no_size(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress(
        "a stick whose bulk endpoint has packets of no size: the agent stays, it does not get in",
    );
    let pid = agent.status()?["agent"]["pid"].clone();
    let mut stick = Stick::new(4096);
    stick.descriptors = pinned(false);
    for configuration in &mut stick.descriptors.configurations {
        configuration[22..24].copy_from_slice(&0x0800_u16.to_le_bytes());
    }
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "sizeless", "4", stick)?;
    wait_for(agent, "refused stick", |device| {
        device["state"] == "blocked"
            && device["why"].as_str().is_some_and(|why| why.contains("packets of no size"))
    })?;
    no_disk_on_host(ward)?;
    is_still_there(agent, &pid)?;
    plugged.pull(&mut ports.qmp)
}

/// A stick that answers nothing more than its kernel needs to find it.
struct Silent(Stick);

impl Model for Silent {
    fn hello(&self) -> Vec<Packet> {
        Stick::hello()
    }

    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        let text = matches!(&packet.body, Body::Control(control)
            if control.request == 6 && control.value.to_le_bytes()[1] == 3);
        if !text {
            Model::take(&mut self.0, packet, answers);
        }
    }
}

fn silent(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a device that does not say what it is: break-glass is closed meanwhile");
    fs::write(ports.medium("patient"), vec![1; MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick to be read", is_attached("read-only"))?;
    // Its kernel, and then the agent, wait for ten seconds; on a busy machine the command line takes as long.
    for attempt in 1.. {
        let opened =
            agent.bulkhead(&["break-glass", "--reason", "discharge letter", "--for", "2m"])?;
        ensure!(opened.status == Some(0), "{opened:?}");
        wait_for(agent, "stick to be written", is_attached("allow"))?;
        let mut stick = Stick::new(4096);
        stick.descriptors = pinned(false);
        stick.descriptors.device[16] = 3;
        let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "silent", "4", Silent(stick))?;
        wait_for(agent, "device that is asked", |device| device["state"] == "reading")?;
        let closed = agent.bulkhead(&["break-glass", "--end"])?;
        ensure!(closed.status == Some(0), "{closed:?}");
        let asked = Instant::now();
        // What the command line itself takes in the emulated PC is in this.
        while devices(agent)?.iter().any(|device| is_attached("allow")(device)) {
            ensure!(
                asked.elapsed() < tests::patience::patience(Duration::from_secs(4)),
                "it is still written"
            );
        }
        wait_for(agent, "device that said nothing", |device| {
            device["state"] == "blocked"
                && device["why"].as_str().is_some_and(|why| why.contains("does not answer"))
        })?;
        plugged.pull(&mut ports.qmp)?;
        // A look at the list takes longer than the device is asked; the agent's log has the order.
        let log = ward.pc.sh("tail -n 60 /tmp/agent.log")?;
        let closed = log.rfind("break-glass is closed").unwrap_or(usize::MAX);
        let gone = log.rfind("disconnected from").unwrap_or(0);
        let gave_up = log.rfind("it does not answer").unwrap_or(0);
        ensure!(closed < gone, "nothing was taken away when break-glass was closed:\n{log}");
        if gone < gave_up {
            break;
        }
        ensure!(attempt < 3, "the device was not in the way:\n{log}");
    }
    wait_for(agent, "stick to be read again", is_attached("read-only"))?;
    ports.pull("patient")
}

/// Its guest is told of a keyboard where the agent was told of a security key.
fn another_report_for_the_guest(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a security key that is a keyboard once its guest asks: nobody's");
    let clinical = agent.probe("clinical");
    let keyboards = || run(&clinical, "ls /sys/class/input | grep -c event").map(|found| found.0);
    let before = keyboards()?;
    let turns = Arc::new(AtomicBool::new(false));
    let key = SecurityKey::impostor(Arc::clone(&turns));
    // The agent asks once, its guest afterwards.
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "impostor", "4", key)?;
    wait_for(agent, "impostor that was found out", |device| {
        turns.load(Ordering::Relaxed)
            && device["device"].as_str().is_some_and(|text| text.contains("vendor=1209"))
            && device["state"] != "attached"
            && device["domain"].is_null()
    })?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    ensure!(
        log.contains("something else of its reports"),
        "the audit log does not say what changed"
    );
    ensure!(keyboards()? == before, "its guest has a keyboard");
    plugged.pull(&mut ports.qmp)
}
