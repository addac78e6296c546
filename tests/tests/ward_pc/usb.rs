//! USB devices in a guest, over usbredir.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::guest::Probe;
use tests::runner::Test;
use tests::ward::Ward;
use tests::{Failure, Guest, Outcome, ensure};

pub(crate) const TESTS: &[Test<Ward>] = &[(
    "a_stick_over_usbredir_is_read_pulled_and_plugged_again_and_noise_is_an_unplugged_device",
    stick_over_usbredir,
)];

const SOCKET: &str = "/run/stick/usb-1.sock";
/// 8 MiB.
const BLOCKS: &str = "16384";
const SOON: Duration = Duration::from_secs(30);

/// Runs a command in the guest; what it wrote.
fn run(probe: &Probe<'_>, line: &str) -> Outcome<String> {
    let argv = ["/bin/busybox", "sh", "-c", line];
    let answer = probe.ask(json!({"op": "run", "argv": argv}))?;
    Ok(answer["output"].as_str().unwrap_or_default().to_owned())
}

/// Waits until the guest has a disk, or has none any more.
fn wait_for_disk(guest: &Guest<'_>, there: bool) -> Outcome {
    let until = Instant::now() + SOON;
    loop {
        let found = run(&guest.probe, "[ -b /dev/sda ] && cat /sys/block/sda/size || true")?;
        if found.trim().is_empty() != there {
            return Ok(());
        }
        if Instant::now() > until {
            let kernel = run(&guest.probe, "dmesg | grep -i -E 'usb|xhci|scsi|sd' | tail -40")?;
            return Err(Failure(format!(
                "the guest's disk did not come or go\n{}\n{kernel}",
                guest.logs()
            )));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// What `sha256sum` says of the reference stick's first so many bytes.
fn sum_of_stick(bytes: usize) -> Outcome<String> {
    let medium = usbfilter::stick::Stick::new(bytes / usbfilter::stick::BLOCK).medium;
    let mut program =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    program.stdin.take().ok_or("no pipe")?.write_all(&medium)?;
    let output = program.wait_with_output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or("").to_owned())
}

fn stick_over_usbredir(ward: &Ward) -> Outcome {
    let guest = Guest::start(&ward.pc, "stick", &["--usb", &format!("socket={SOCKET}")])?;
    let plug = || ward.pc.spawn(&["/share/usb-stick", SOCKET, BLOCKS], "/tmp/stick.log");
    wait_for_disk(&guest, false)?;
    let mut stick = plug()?;
    wait_for_disk(&guest, true)?;
    let size = run(&guest.probe, "cat /sys/block/sda/size")?;
    ensure!(size.trim() == BLOCKS, "the disk has {size} blocks");

    ward.pc.progress("reading 4 MiB");
    let sum = |bytes: usize| {
        run(&guest.probe, &format!("head -c {bytes} /dev/sda | sha256sum"))
            .map(|text| text.split_whitespace().next().unwrap_or_default().to_owned())
    };
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
