//! Devices that want to end the agent.

use tests::agent::Agent;
use tests::usb_device::Plugged;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};
use usbfilter::stick::{Stick, pinned};

use super::{Ports, mediation, no_disk_on_host, wait_for};

#[ward_test(shows = ["C-8"])]
fn a_device_with_packets_of_no_size_ends_nothing_and_does_not_get_in(ward: &Ward) -> Outcome {
    mediation(ward, &[packets_of_no_size])
}

/// Whether the agent is the one that was there before, and built to survive.
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
