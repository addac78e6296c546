//! Whatever is reset, killed or changed while a device is in a domain.

use std::fs;
use std::time::Duration;

use serde_json::json;
use tests::ward_test;

use tests::agent::{Agent, seat_policy};
use tests::ward::Ward;
use tests::{Failure, Outcome, ensure};

use super::{
    MIB, Ports, RULES, devices, disk_in, host_has_its_switches, is_attached, machine,
    no_disk_on_host, run, taken_away_in_time, until, wait_for,
};

/// Checks a guest that is reset, and a VMM that is killed, with a device attached: it is there again afterwards.
fn guest_and_vmm(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let clinical = agent.probe("clinical");
    fs::write(ports.medium("patient"), vec![b'w'; 4 * MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick", is_attached("read-only"))?;
    disk_in(&clinical, true)?;
    ward.pc.progress("the guest is reset with the stick in it");
    let reset = agent.bulkhead(&["reset", "clinical"])?;
    ensure!(reset.status == Some(0), "{reset:?}");
    clinical.wait_ready()?;
    disk_in(&clinical, true)?;
    ensure!(run(&clinical, "head -c 4096 /dev/sda | grep -q ww")?.1, "it cannot be read");
    ward.pc.progress("the VMM is killed with the stick in it");
    let pid = agent.status()?["domains"][0]["pid"].as_u64().unwrap_or(0);
    // It waits no longer than its domain's VMM takes to start, which a look at the state can miss; the log misses nothing.
    let recorded = || {
        let lines = ward
            .pc
            .sh("cat /tmp/state/audit/*.jsonl | grep -c '\"kind\":\"usb-attached\"'; true")?;
        Ok::<u64, Failure>(lines.trim().parse().unwrap_or(0))
    };
    let before = recorded()?;
    ward.pc.sh(&format!("kill -9 {pid}"))?;
    until("no record of the stick's being attached anew", || {
        no_disk_on_host(ward)?;
        Ok(recorded()? > before)
    })?;
    wait_for(agent, "stick that is back", is_attached("read-only"))?;
    clinical.wait_ready()?;
    disk_in(&clinical, true)?;
    ensure!(run(&clinical, "head -c 4096 /dev/sda | grep -q ww")?.1, "it cannot be read");
    Ok(())
}

/// Has the kernel reset a device of its own accord: while that lasts, its drivers must not get it.
fn kernel_resets_it(ward: &Ward, agent: &Agent<'_>) -> Outcome {
    ward.pc.progress("the host's kernel resets the stick: no driver of the host's gets it");
    let clinical = agent.probe("clinical");
    let stick = wait_for(agent, "stick", is_attached("read-only"))?;
    let place = format!("/sys/bus/usb/devices/{}", stick["bus_id"].as_str().unwrap_or_default());
    let numbers = ward.pc.sh(&format!("cat {place}/busnum {place}/devnum"))?;
    let numbers: Vec<u16> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [bus, device] = numbers[..] else { return Err(format!("no numbers: {numbers:?}").into()) };
    for _ in 0..3 {
        ward.pc.reset_usb(&format!("/dev/bus/usb/{bus:03}/{device:03}"))?;
        // As long as a driver takes to find a disk.
        for _ in 0..10 {
            no_disk_on_host(ward)?;
            // There may be none for a moment, but there is an interface.
            let drivers =
                ward.pc.sh(&format!("ls -d {place}:*/ && readlink {place}:*/driver; true"))?;
            ensure!(drivers.contains(":1."), "no interface: {drivers}");
            ensure!(!drivers.contains("storage"), "the host has it: {drivers}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    until("the stick is not back in its guest", || {
        Ok(run(&clinical, "[ -b /dev/sda ] && echo 3 > /proc/sys/vm/drop_caches; head -c 4096 /dev/sda | grep -q ww")?.1)
    })
}

/// Checks that rules that no longer allow it take it away, and others give it back.
fn other_rules(ward: &Ward, agent: &Agent<'_>) -> Outcome {
    ward.pc.progress("a policy without its rule takes the stick away, the next gives it back");
    let clinical = agent.probe("clinical");
    let rules = seat_policy() + RULES;
    let apply = |serial: u32, rules: &str| {
        let text = rules.replace("serial = 1\n", &format!("serial = {serial}\n"));
        ward.pc.sh(&format!("cat > /tmp/etc/next.toml <<'END'\n{text}END"))?;
        let applied = agent.bulkhead(&["policy", "apply", "/tmp/etc/next.toml"])?;
        ensure!(applied.status == Some(0), "{applied:?}");
        Ok(())
    };
    apply(2, &rules.replace("PATIENT1", "PATIENT2"))?;
    wait_for(agent, "blocked stick", |device| device["state"] == "blocked")?;
    disk_in(&clinical, false)?;
    no_disk_on_host(ward)?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    taken_away_in_time(ward, &log, "policy-applied")?;
    apply(3, &rules)?;
    wait_for(agent, "stick that is back", is_attached("read-only"))?;
    disk_in(&clinical, true)
}

pub(super) fn all(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    guest_and_vmm(ward, agent, ports)?;
    kernel_resets_it(ward, agent)?;
    other_rules(ward, agent)?;
    ports.pull("patient")?;
    disk_in(&agent.probe("clinical"), false)
}

/// The agent is killed, and another started.
#[ward_test(shows = ["C-8"])]
fn an_agent_that_is_killed_leaves_its_device_to_the_next_one(ward: &Ward) -> Outcome {
    replaced(ward, "killed", Agent::kill)
}

/// The agent is asked to leave its guests running, as `systemctl restart` does, and another started.
#[ward_test(shows = ["C-8"])]
fn an_agent_that_leaves_its_guests_running_leaves_its_device_to_the_next_one(
    ward: &Ward,
) -> Outcome {
    replaced(ward, "asked to leave", Agent::leave)
}

/// Plugs a stick in that no rule gives to anybody, beside the other one.
fn plug_denied(ports: &mut Ports<'_>) -> Outcome {
    let medium = ports.medium("denied");
    fs::write(&medium, vec![b'd'; MIB])?;
    let blockdev = json!({"driver": "raw", "node-name": "denied-medium",
        "file": {"driver": "file", "filename": medium}});
    ports.qmp.execute("blockdev-add", blockdev)?;
    let stick = json!({"driver": "usb-storage", "id": "denied", "bus": "xhci.0", "port": "4",
        "drive": "denied-medium", "serial": "NOBODYS"});
    ports.qmp.execute("device_add", stick).map(drop)
}

/// Ends an agent so and starts another, with a device in a domain and one that is denied: the host gets neither.
fn replaced<'pc>(ward: &'pc Ward, how: &str, end: fn(Agent<'pc>) -> Outcome) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let start = || Agent::launch_with(&ward.pc, &machine(), &(seat_policy() + RULES), &[]);
    let mut ports = Ports { ward, qmp: ward.pc.qmp()? };
    let first = start()?;
    // One that has not answered yet is not taken up.
    for domain in ["clinical", "internet"] {
        first.probe(domain).wait_ready()?;
    }
    fs::write(ports.medium("patient"), vec![b'w'; 4 * MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(&first, "stick", is_attached("read-only"))?;
    disk_in(&first.probe("clinical"), true)?;
    plug_denied(&mut ports)?;
    wait_for(&first, "denied stick", |device| device["state"] == "blocked")?;
    ward.pc.progress(&format!(
        "the agent is {how} with a stick in a domain and one denied: the host gets neither"
    ));
    let clinical = first.probe("clinical");
    end(first)?;
    for _ in 0..10 {
        no_disk_on_host(ward)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    disk_in(&clinical, false)?;
    ward.pc.progress("another agent gives it to its domain again");
    let second = start()?;
    let result = (|| {
        // Its guests answer whether it runs or not.
        until("the second agent does not run", || {
            Ok(second.bulkhead(&["status"])?.status == Some(0))
        })?;
        second.probe("clinical").wait_ready()?;
        wait_for(&second, "stick", is_attached("read-only"))?;
        wait_for(&second, "denied stick", |device| device["state"] == "blocked")?;
        disk_in(&second.probe("clinical"), true)?;
        no_disk_on_host(ward)?;
        let (_, read) = run(&second.probe("clinical"), "head -c 4096 /dev/sda | grep -q ww")?;
        ensure!(read, "it cannot be read");
        ports.pull("denied")?;
        ports.pull("patient")?;
        disk_in(&second.probe("clinical"), false)
    })();
    result.map_err(|Failure(error)| Failure(format!("{error}\n{}", second.logs())))?;
    second.stop()?;
    host_has_its_switches(ward)?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

pub(super) fn cycles(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let cycles = if tests::runner::is_in_full() { 100 } else { 20 };
    ward.pc.progress(&format!("plugged and pulled {cycles} times: nothing is left behind"));
    let counts = || -> Outcome<(usize, usize)> {
        let pid = agent.status()?["agent"]["pid"].as_u64().unwrap_or(0);
        let count = |what: &str| -> Outcome<usize> {
            Ok(ward.pc.sh(&format!("ls /proc/{pid}/{what} | wc -l"))?.trim().parse().unwrap_or(0))
        };
        Ok((count("fd")?, count("task")?))
    };
    let mut first = None;
    for _ in 0..cycles {
        ports.plug("patient", "PATIENT1")?;
        wait_for(agent, "stick", is_attached("read-only"))?;
        ports.pull("patient")?;
        until("it is still attached", || {
            Ok(!devices(agent)?.iter().any(|device| device["state"] == "attached"))
        })?;
        first.get_or_insert(counts()?);
    }
    let first = first.unwrap_or_default();
    let mut last = first;
    // The thread of the last one ends when the agent looks at its devices next.
    until("file descriptors or threads are left behind", || {
        last = counts()?;
        Ok(last.0 <= first.0 && last.1 <= first.1)
    })
    .map_err(|Failure(error)| {
        Failure(format!("{error}: descriptors and threads {first:?}, then {last:?}"))
    })
}
