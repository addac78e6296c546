//! What is handed over: the card that machine.toml means, and the whole of its IOMMU group.

use serde_json::json;
use tests::agent::{Agent, POLICY, doctor, machine_file};
use tests::ward::{CLINICAL_MAC, CLINICAL_NIC, INTERNET_MAC, INTERNET_NIC, SLOT, Ward};
use tests::ward_test;
use tests::{Outcome, ensure};

use super::seat::wait_for;

/// Vendor and device ID of QEMU's e1000e.
const ID: &str = "8086:10d3";

fn driver(ward: &Ward, address: &str) -> Outcome<String> {
    let link = ward.pc.sh(&format!("readlink /sys/bus/pci/devices/{address}/driver || true"))?;
    Ok(link.trim().rsplit('/').next().unwrap_or_default().to_owned())
}

/// Returns how many VMMs there are.
fn vmms(ward: &Ward) -> Outcome<usize> {
    // A process that ends meanwhile has no link any more.
    let programs = ward.pc.sh("for link in /proc/[0-9]*/exe; do readlink $link; done; true")?;
    ensure!(programs.contains("wardpc-agent"), "these are not the PC's programs: {programs}");
    Ok(programs.lines().filter(|line| line.contains("bulkhead-vmm")).count())
}

/// Makes a machine file that says of each NIC what it must be.
fn pinned(clinical: &str, internet: &str) -> String {
    let pin = |nic: &str, rest: &str| format!("nic = {{ address = \"{nic}\", {rest} }}");
    machine_file(CLINICAL_NIC, INTERNET_NIC)
        .replace(&format!("nic = \"{CLINICAL_NIC}\""), &pin(CLINICAL_NIC, clinical))
        .replace(&format!("nic = \"{INTERNET_NIC}\""), &pin(INTERNET_NIC, internet))
}

#[ward_test]
fn a_card_that_is_not_the_one_machine_toml_says_is_not_handed_over_and_the_right_one_is(
    ward: &Ward,
) -> Outcome {
    // Whatever a test before this one left them with.
    for nic in [CLINICAL_NIC, INTERNET_NIC] {
        ward.pc.release_vfio(nic)?;
        ward.pc.sh(&format!("echo {nic} > /sys/bus/pci/drivers_probe"))?;
    }
    ward.pc.progress("another model, and another MAC address");
    let other_mac = "52:54:00:00:00:01";
    let wrong = pinned("id = \"8086:1533\"", &format!("mac = \"{other_mac}\""));
    let agent = Agent::launch(&ward.pc, &wrong)?;
    let said = [
        format!("{CLINICAL_NIC} is {ID} (Ethernet), and machine.toml says 8086:1533"),
        format!(
            "{INTERNET_NIC} has the MAC address {INTERNET_MAC}, and machine.toml says {other_mac}"
        ),
    ];
    let both_said = wait_for("a word on both cards", || {
        let log = ward.pc.sh("cat /tmp/agent.log")?;
        Ok(said.iter().all(|words| log.contains(words)))
    });
    if both_said.is_err() {
        return Err(format!("not said: {said:?}\n{}", agent.logs()).into());
    }
    ensure!(vmms(ward)? == 0, "a domain runs with a card that is not its own");
    for nic in [CLINICAL_NIC, INTERNET_NIC] {
        let driver = driver(ward, nic)?;
        ensure!(driver == "e1000e", "{nic} was taken from its driver: {driver}");
    }
    agent.stop()?;

    ward.pc.progress("the right ones");
    let right = |mac: &str| format!("id = \"{ID}\", mac = \"{mac}\"");
    let agent = Agent::start(&ward.pc, &pinned(&right(CLINICAL_MAC), &right(INTERNET_MAC)))?;
    ensure!(vmms(ward)? == 2, "both domains run, and are seen to\n{}", agent.logs());
    agent.stop()
}

#[ward_test]
fn the_rest_of_a_nics_group_goes_to_vfio_pci_and_to_nobody_and_that_is_said_by_name(
    ward: &Ward,
) -> Outcome {
    const CARD: &str = "0000:01:00.0";
    const NEIGHBOUR: &str = "0000:01:00.1";
    let mut qmp = ward.pc.qmp()?;
    // The IOMMU does not keep the functions of a card apart. They are there when function 0 is.
    let function = |number: u8| {
        json!({"driver": "e1000e", "id": format!("function{number}"), "bus": SLOT, "romfile": "",
            "addr": format!("0.{number}"), "multifunction": true})
    };
    qmp.execute("device_add", function(1))?;
    qmp.execute("device_add", function(0))?;
    let result = (|| {
        wait_for("two cards in one group, each with its driver", || {
            let group =
                ward.pc.sh(&format!("ls /sys/bus/pci/devices/{CARD}/iommu_group/devices; true"))?;
            let both = driver(ward, CARD)? == "e1000e" && driver(ward, NEIGHBOUR)? == "e1000e";
            Ok(both && group.contains(CARD) && group.contains(NEIGHBOUR))
        })?;
        let examined = doctor(&ward.pc, &machine_file(CARD, INTERNET_NIC), POLICY, &[])?;
        let seen = examined.stdout.contains(NEIGHBOUR) && examined.stdout.contains("and to nobody");
        ensure!(seen, "doctor does not name what goes with the card: {examined:?}");
        let agent = Agent::start(&ward.pc, &machine_file(CARD, INTERNET_NIC))?;
        for address in [CARD, NEIGHBOUR] {
            let driver = driver(ward, address)?;
            ensure!(driver == "vfio-pci", "{address} has {driver}\n{}", agent.logs());
        }
        let log = ward.pc.sh("cat /tmp/agent.log")?;
        let said = log.lines().any(|line| {
            line.contains("nobody uses it") && line.contains(NEIGHBOUR) && line.contains(CARD)
        });
        ensure!(said, "it is not said by name\n{log}");
        // The guest has one card, and its driver works on it.
        let interface = agent.probe("clinical").interface()?;
        ensure!(interface["driver"] == "e1000e", "{interface}");
        agent.stop()?;
        for address in [CARD, NEIGHBOUR] {
            let driver = driver(ward, address)?;
            ensure!(driver == "e1000e", "{address} was not given back: {driver}");
        }
        Ok(())
    })();
    // Function 0 takes the others with it.
    qmp.unplug("function0")?;
    result
}
