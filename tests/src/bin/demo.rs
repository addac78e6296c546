//! Shows the main job in plain words: `scripts/demo`.

use std::time::Instant;

use tests::agent::{Agent, machine_file};
use tests::isolation::{self, Try};
use tests::runner::Place;
use tests::ward::{CLINICAL_NIC, INTERNET_NIC, Ward};
use tests::{Failure, Outcome, ensure};

fn main() {
    match show() {
        Ok(()) => {}
        Err(Failure(error)) => {
            eprintln!("\nThis does not hold: {error}");
            std::process::exit(1);
        }
    }
}

fn show() -> Outcome {
    let started = Instant::now();
    let say = |what: &str| println!("[{:5.0} s] {what}", started.elapsed().as_secs_f64());
    say("A ward PC is switched on: emulated, with virtualisation, an IOMMU and two NICs.");
    let ward = Ward::start()?;
    say("It is up. bulkhead-agent starts: it takes both NICs from the host and starts two guests,");
    say("each an unmodified Debian kernel in bulkhead-vmm.");
    let agent = Agent::start(&ward.pc, &machine_file(CLINICAL_NIC, INTERNET_NIC))?;
    let sides = isolation::sides(&ward, &agent)?;
    for side in &sides {
        let nic = side.nic_in_words();
        say(&format!("The {} guest is up. Its NIC is the PC's {}: {nic}.", side.name, side.nic));
    }
    say("What `bulkhead status` says on the PC:");
    let status = agent.bulkhead(&["status"])?;
    println!("\n{}", indent(&status.stdout));
    say("Who reaches whom, tried from inside both guests:");
    println!();
    let tries = isolation::try_all(&sides, &|tried: &Try| println!("    {tried}"))?;
    println!();
    let wrong = tries.iter().filter(|tried| !tried.holds()).count();
    ensure!(wrong == 0, "{wrong} of {} tries came out wrong", tries.len());
    let interfaces = ward.pc.sh("ls /sys/class/net")?;
    ensure!(interfaces.split_whitespace().all(|name| name == "lo"), "the host has {interfaces}");
    say("The host itself has no network: loopback is its only interface.");
    agent.stop()?;
    for nic in [CLINICAL_NIC, INTERNET_NIC] {
        let driver = ward.pc.sh(&format!("readlink /sys/bus/pci/devices/{nic}/driver || true"))?;
        ensure!(!driver.contains("vfio-pci"), "{nic} was not given back: {driver}");
    }
    say("Both guests are shut down, and the host has its NICs back.");
    println!("\nAll {} tries came out as they have to.", tries.len());
    Ok(())
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}
