//! USB devices in a guest, over usbredir: from our own ends, and from others.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Instant;
use tests::patience::patience;
use tests::ward_test;

use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::ward::Ward;
use tests::{Failure, Guest, Outcome, ensure};

use super::{LOOK, MIB, Ports, RULES, SOON, is_attached, no_disk_on_host, run, sum_of, wait_for};

const SOCKET: &str = "/run/stick/usb-1.sock";
/// Blocks of 512 bytes that are read: 8 MiB.
const BLOCKS: &str = "16384";
/// Waits until the guest has a disk, or has none any more.
fn wait_for_disk(guest: &Guest<'_>, there: bool) -> Outcome {
    let until = Instant::now() + patience(SOON);
    loop {
        let (_, found) =
            run(&guest.probe, "[ -b /dev/sda ] && [ $(cat /sys/block/sda/size) -gt 0 ]")?;
        if found == there {
            return Ok(());
        }
        if Instant::now() > until {
            let (kernel, _) =
                run(&guest.probe, "dmesg | grep -i -E 'usb|xhci|scsi|sd' | tail -40")?;
            return Err(Failure(format!(
                "the guest's disk did not come or go\n{}\n{kernel}",
                guest.logs()
            )));
        }
        std::thread::sleep(LOOK);
    }
}

/// Returns what `sha256sum` says of the first so many bytes of the guest's disk.
fn sum_in(guest: &Guest<'_>, bytes: usize) -> Outcome<String> {
    let (text, _) = run(&guest.probe, &format!("head -c {bytes} /dev/sda | sha256sum"))?;
    Ok(text.split_whitespace().next().unwrap_or_default().to_owned())
}

/// Returns what `sha256sum` says of the reference stick's first so many bytes.
fn sum_of_stick(bytes: usize) -> Outcome<String> {
    let medium = usbfilter::stick::Stick::new(bytes / usbfilter::stick::BLOCK).storage.medium;
    let mut program =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    program.stdin.take().ok_or("no pipe")?.write_all(&medium)?;
    let output = program.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or("").to_owned())
}

#[ward_test]
fn a_stick_over_usbredir_is_read_pulled_and_plugged_again_and_noise_is_an_unplugged_device(
    ward: &Ward,
) -> Outcome {
    let guest = Guest::start(&ward.pc, "stick", &["--usb", &format!("socket={SOCKET}")])?;
    let plug = || ward.pc.spawn(&["/share/usb-stick", SOCKET, BLOCKS], "/tmp/stick.log");
    wait_for_disk(&guest, false)?;
    let mut stick = plug()?;
    wait_for_disk(&guest, true)?;
    let (size, _) = run(&guest.probe, "cat /sys/block/sda/size")?;
    ensure!(size.starts_with(BLOCKS), "the disk has {size} blocks");

    ward.pc.progress("reading 4 MiB");
    let sum = |bytes: usize| sum_in(&guest, bytes);
    let first = sum(4 << 20)?;
    let expected = sum_of_stick(4 << 20)?;
    ensure!(first == expected, "read {first}, on the stick is {expected}\n{}", guest.logs());

    for round in 0..2 {
        ward.pc.progress("pulled, and plugged again");
        ward.pc.sh(&format!("kill -9 {stick}"))?;
        ward.pc.wait(stick, SOON)?;
        wait_for_disk(&guest, false)?;
        stick = plug()?;
        wait_for_disk(&guest, true)?;
        let again = sum(4 << 20)?;
        ensure!(again == first, "round {round}: {again}, before it was {first}");
    }
    ward.pc.sh(&format!("kill -9 {stick}"))?;
    wait_for_disk(&guest, false)?;

    ward.pc.progress("noise on the socket");
    let noise = ward.pc.spawn(&["/share/usb-stick", SOCKET, "noise"], "/tmp/noise.log")?;
    ward.pc.wait(noise, SOON)?;
    let log = ward.pc.sh("cat /tmp/noise.log")?;
    ensure!(log.contains("PUT-OUT true"), "{log}\n{}", guest.logs());
    stick = plug()?;
    wait_for_disk(&guest, true)?;
    ward.pc.sh(&format!("kill -9 {stick}"))?;
    guest.power_off()
}

/// Debian's program has the device; the VMM, its guest.
#[ward_test]
fn a_stick_that_debians_usbredirect_has_is_read_in_a_guest(ward: &Ward) -> Outcome {
    const PORT: &str = "127.0.0.1:4000";
    let mut ports = Ports { ward, qmp: ward.pc.qmp()? };
    let pattern: Vec<u8> =
        (0u32..2 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let medium = ports.medium("patient");
    fs::write(&medium, &pattern)?;
    let before = sum_of(&medium)?;
    ports.plug("patient", "ANY")?;
    let guest = Guest::start(&ward.pc, "stick", &["--usb", &format!("socket={SOCKET}")])?;
    ward.pc.progress("usbredirect takes the stick from the PC's own kernel, and listens");
    // QEMU's stick; the loader and the libraries are Debian's too.
    let argv = [
        "/share/usbredirect/ld-linux-x86-64.so.2",
        "--library-path",
        "/share/usbredirect",
        "/share/usbredirect/usbredirect",
        "--device",
        "46f4:0001",
        "--as",
        PORT,
    ];
    let usbredirect = ward.pc.spawn(&argv, "/tmp/usbredirect.log")?;
    let bridge = ward.pc.spawn(&["/share/bridge", PORT, SOCKET], "/tmp/bridge.log")?;
    let result = (|| {
        wait_for_disk(&guest, true)?;
        no_disk_on_host(ward)?;
        ensure!(sum_in(&guest, pattern.len())? == before, "it reads something else");
        ward.pc.progress("it is written, too: nobody filters here");
        let (said, done) = run(
            &guest.probe,
            "head -c 1048576 /dev/zero | tr '\\0' 'w' | dd of=/dev/sda bs=64k conv=fsync",
        )?;
        ensure!(done, "{said}");
        ward.pc.progress("usbredirect is killed: the guest's disk is gone");
        ward.pc.sh(&format!("kill -9 {usbredirect}"))?;
        wait_for_disk(&guest, false)
    })();
    result.map_err(|Failure(error)| {
        let logs = ["usbredirect", "bridge"].map(|name| ward.pc.tail(&format!("/tmp/{name}.log")));
        Failure(format!("{error}\n{}\n{}", logs.join("\n"), guest.logs()))
    })?;
    ward.pc.sh(&format!("kill -9 {usbredirect} {bridge} 2>/dev/null; true"))?;
    ward.pc.wait(usbredirect, SOON)?;
    ward.pc.wait(bridge, SOON)?;
    ports.pull("patient")?;
    let after = fs::read(&medium)?;
    ensure!(after[..MIB].iter().all(|byte| *byte == b'w'), "it was not written");
    ensure!(after[MIB..] == pattern[MIB..], "more was written");
    guest.power_off()
}

/// A domain that another VMM runs connects to the agent, and gets what the policy gives it, filtered.
#[ward_test(shows = ["C-7"])]
fn a_domain_of_another_vmm_gets_its_device_filtered(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let machine = SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"none\"");
    let (machine, _) = machine.split_once("[domain.internet]").ok_or("no Internet domain")?;
    let machine = format!("{machine}[domain.internet]\nvmm = \"external\"\n");
    let rules = RULES.replace("to = \"clinical\"", "to = \"internet\"");
    let agent = Agent::launch_with(&ward.pc, &machine, &(seat_policy() + &rules), &[])?;
    agent.probe("clinical").wait_ready()?;
    let mut ports = Ports { ward, qmp: ward.pc.qmp()? };
    let medium = ports.medium("patient");
    fs::write(&medium, vec![b'w'; 4 * MIB])?;
    let before = sum_of(&medium)?;
    let guest = Guest::start(&ward.pc, "stick", &["--usb", &format!("socket={SOCKET}")])?;
    let bridge = ward.pc.spawn(
        &["/share/bridge", "/run/bulkhead/internet/usb-1.sock", SOCKET],
        "/tmp/bridge.log",
    )?;
    let result = (|| {
        ports.plug("patient", "PATIENT1")?;
        wait_for(&agent, "stick", is_attached("read-only"))?;
        wait_for_disk(&guest, true)?;
        no_disk_on_host(ward)?;
        ward.pc.progress("its guest reads the stick, and cannot write it");
        ensure!(sum_in(&guest, 4 * MIB)? == before, "it reads something else");
        let write =
            "blockdev --setrw /dev/sda; dd if=/dev/zero of=/dev/sda bs=4k count=1 conv=fsync";
        ensure!(!run(&guest.probe, write)?.1, "it can write");
        ports.pull("patient")?;
        wait_for_disk(&guest, false)?;
        ensure!(sum_of(&medium)? == before, "the stick is not what it was");
        Ok(())
    })();
    result.map_err(|Failure(error)| {
        let bridge = ward.pc.tail("/tmp/bridge.log");
        Failure(format!("{error}\n{bridge}\n{}\n{}", agent.logs(), guest.logs()))
    })?;
    ward.pc.sh(&format!("kill -9 {bridge}"))?;
    ward.pc.wait(bridge, SOON)?;
    guest.power_off()?;
    agent.stop()?;
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}
