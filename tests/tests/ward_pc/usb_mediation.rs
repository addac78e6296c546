//! USB devices on their way into domains: plugged and pulled as a person would, seen from the host and from both guests.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::agent::{Agent, SEAT_MACHINE, seat_policy};
use tests::guest::Probe;
use tests::qmp::Qmp;
use tests::runner::Test;
use tests::ward::Ward;
use tests::{Failure, Outcome, ensure};
use usbfilter::Pinned;
use usbfilter::stick::{Stick, pinned};
use usbredir::{Body, Role, Session};

pub(crate) const TESTS: &[Test<Ward>] = &[
    // Shows: C-7, C-8, P-2.
    (
        "devices_reach_the_domain_the_policy_names_storage_only_to_be_read_and_nothing_else_gets_anywhere",
        mediation,
    ),
];

const RULES: &str = r#"
[[usb]]
id = "patient-media-writable"
match = { class = "mass-storage", serial = "PATIENT1" }
to = "clinical"
action = "allow"
break_glass = true

[[usb]]
id = "patient-media"
match = { class = "mass-storage", serial = "PATIENT1" }
to = "clinical"
action = "read-only"

[[usb]]
id = "card-reader"
match = { class = "smart-card" }
to = "clinical"
action = "allow"

[[usb]]
id = "laboratory-device"
match = { class = "vendor-specific", vendor = 0x0403 }
to = "internet"
action = "allow"

[break_glass]
max_duration = "2m"
reason_required = true
allow_usb = ["patient-media-writable"]
"#;

const MIB: usize = 1 << 20;
const SOON: Duration = Duration::from_secs(60);

/// Somebody at the PC's USB ports.
struct Ports<'a> {
    ward: &'a Ward,
    qmp: Qmp,
}

impl Ports<'_> {
    /// The medium of a stick, on the test's side.
    fn medium(&self, name: &str) -> PathBuf {
        self.ward.pc.dir().join(format!("{name}.img"))
    }

    /// Plugs a stick in.
    fn plug(&mut self, name: &str, serial: &str) -> Outcome {
        let file = self.medium(name);
        let node = format!("{name}-medium");
        let blockdev = json!({"driver": "raw", "node-name": node,
            "file": {"driver": "file", "filename": file}});
        self.qmp.execute("blockdev-add", blockdev)?;
        let device = json!({"driver": "usb-storage", "id": name, "bus": "xhci.0", "port": "3",
            "drive": node, "serial": serial});
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Plugs something else in.
    fn plug_device(&mut self, driver: &str, name: &str) -> Outcome {
        let device = json!({"driver": driver, "id": name, "bus": "xhci.0", "port": "4"});
        self.qmp.execute("device_add", device).map(drop)
    }

    /// Pulls a device out.
    fn pull(&mut self, name: &str) -> Outcome {
        self.qmp.execute("device_del", json!({"id": name}))?;
        // The medium can be taken once the device is gone.
        let node = format!("{name}-medium");
        let until = Instant::now() + SOON;
        while self.medium(name).exists() {
            match self.qmp.execute("blockdev-del", json!({"node-name": node})) {
                Ok(_) => return Ok(()),
                Err(error) => ensure!(Instant::now() < until, "{error:?}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn mediation(ward: &Ward) -> Outcome {
    ward.pc.sh("rm -rf /tmp/state")?;
    let machine = SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"none\"");
    let agent = Agent::launch_with(&ward.pc, &machine, &(seat_policy() + RULES), &[])?;
    let result = (|| {
        for domain in ["clinical", "internet"] {
            agent.probe(domain).wait_ready()?;
        }
        let mut ports = Ports { ward, qmp: ward.pc.qmp()? };
        read_only_stick(ward, &agent, &mut ports)?;
        others(ward, &agent, &mut ports)?;
        serial_adapter(ward, &agent, &mut ports)?;
        stick_with_a_keyboard_in_it(ward, &agent, &mut ports)?;
        break_glass(ward, &agent, &mut ports)?;
        through_restarts(ward, &agent, &mut ports)?;
        cycles(ward, &agent, &mut ports)
    })();
    result.map_err(|Failure(error)| {
        let list = agent.bulkhead(&["usb", "list"]).map(|output| output.stdout);
        let kernel = ward.pc.sh("dmesg | grep -i -E 'usb|sd |scsi' | tail -15");
        Failure(format!("{error}\n{list:?}\n{kernel:?}\n{}", agent.logs()))
    })?;
    agent.stop()?;
    let switch = ward.pc.sh("cat /sys/bus/usb/devices/usb1/authorized_default")?;
    ensure!(switch.trim() == "1", "the host's own switch is {switch}");
    ward.pc.sh("rm -rf /tmp/state").map(drop)
}

/// Runs a command in a guest: what it wrote, and whether it succeeded.
fn run(probe: &Probe<'_>, line: &str) -> Outcome<(String, bool)> {
    let line = format!("{line}; echo STATUS $?");
    let answer = probe.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", line]}))?;
    let output = answer["output"].as_str().unwrap_or_default().to_owned();
    // What it complained of comes after what it wrote.
    let done = output.lines().any(|line| line == "STATUS 0");
    Ok((output, done))
}

/// The devices as the agent lists them.
fn devices(agent: &Agent<'_>) -> Outcome<Vec<Value>> {
    let mut output = agent.bulkhead(&["usb", "list", "--json"])?;
    if output.status.is_none() {
        // Seen once in hundreds of calls, in the emulated PC; the signal was not known then.
        println!("`bulkhead usb list` once more: {}", output.stderr);
        output = agent.bulkhead(&["usb", "list", "--json"])?;
    }
    ensure!(output.status == Some(0), "usb list: {output:?}");
    let answer: Value = serde_json::from_str(&output.stdout)?;
    Ok(answer["usb"].as_array().cloned().unwrap_or_default())
}

/// Waits until there is a device of which this holds.
fn wait_for(agent: &Agent<'_>, what: &str, wanted: impl Fn(&Value) -> bool) -> Outcome<Value> {
    let until = Instant::now() + SOON;
    loop {
        let all = devices(agent)?;
        if let Some(found) = all.iter().find(|device| wanted(device)) {
            return Ok(found.clone());
        }
        ensure!(Instant::now() < until, "no {what}: {all:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Waits until a guest has a disk, or has none.
fn disk_in(probe: &Probe<'_>, there: bool) -> Outcome {
    let until = Instant::now() + SOON;
    // A disk is there once its size is known.
    while run(probe, "[ -b /dev/sda ] && [ $(cat /sys/block/sda/size) -gt 0 ]")?.1 != there {
        ensure!(Instant::now() < until, "the guest's disk did not come or go");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// The host's kernel has no disk of it.
fn no_disk_on_host(ward: &Ward) -> Outcome {
    let disks = ward.pc.sh("ls /sys/block | grep '^sd' || true")?;
    ensure!(disks.trim().is_empty(), "the host has {disks}");
    Ok(())
}

fn sum_of(file: &std::path::Path) -> Outcome<String> {
    let output = Command::new("sha256sum").arg(file).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next().unwrap_or("").to_owned())
}

fn is_attached(verdict: &'static str) -> impl Fn(&Value) -> bool {
    move |device| device["state"] == "attached" && device["verdict"] == verdict
}

fn read_only_stick(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    ward.pc.progress("a stick of the hospital's: 64 MiB are read");
    let pattern: Vec<u8> =
        (0u32..16 << 20).flat_map(|word| word.wrapping_mul(0x9e37_79b9).to_le_bytes()).collect();
    let medium = ports.medium("patient");
    fs::write(&medium, &pattern[..64 * MIB])?;
    let before = sum_of(&medium)?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick in the clinical domain", is_attached("read-only"))?;
    no_disk_on_host(ward)?;
    disk_in(&clinical, true)?;
    let (sum, _) = run(&clinical, "sha256sum /dev/sda")?;
    ensure!(sum.starts_with(&before), "read {sum}, on the stick is {before}");
    ensure!(run(&clinical, "[ $(cat /sys/block/sda/ro) = 1 ]")?.1, "it is not shown as protected");
    disk_in(&internet, false)?;

    ward.pc.progress("nothing the guest does writes to it");
    for attempt in [
        "dd if=/dev/zero of=/dev/sda bs=4k count=1 conv=fsync",
        // What a hostile kernel would do: its own protection switched off.
        "blockdev --setrw /dev/sda && echo 0 > /sys/block/sda/device/allow_restart; blockdev --setrw /dev/sda; dd if=/dev/zero of=/dev/sda bs=64k count=4 conv=fsync",
        "mke2fs -F /dev/sda",
    ] {
        let (output, done) = run(&clinical, attempt)?;
        ensure!(!done, "`{attempt}` succeeded: {output}");
    }
    // Past its own kernel's protection: WRITE (10) and (16), UNMAP, FORMAT UNIT, ATA PASS-THROUGH, a vendor's own.
    for (cdb, out) in [
        (vec![0x2a, 0, 0, 0, 0, 0, 0, 0, 8, 0], 4096),
        (vec![0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], 4096),
        (vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], 24),
        (vec![0x04, 0, 0, 0, 0, 0], 0),
        (vec![0xa1, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0x35, 0, 0], 512),
        (vec![0xc1, 0, 0, 0, 0, 0, 0, 0, 0, 0], 512),
    ] {
        let question = json!({"op": "scsi", "device": "/dev/sda", "cdb": cdb, "out": out});
        let answer = clinical.ask(question)?;
        let protect = answer["status"] == 2 && answer["key"] == 7 && answer["asc"] == 0x27;
        ensure!(protect, "{cdb:02x?} is answered with {answer}");
    }
    let (sum, _) =
        run(&clinical, "echo 3 > /proc/sys/vm/drop_caches; head -c 1048576 /dev/sda | sha256sum")?;
    let first = {
        let part = ward.pc.dir().join("part");
        fs::write(&part, &pattern[..MIB])?;
        sum_of(&part)?
    };
    ensure!(sum.starts_with(&first), "after that it reads {sum}");

    ward.pc.progress("pulled while it is read");
    clinical.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c",
        "(dd if=/dev/sda of=/dev/null bs=64k; true) > /dev/null 2>&1 &"]}))?;
    ports.pull("patient")?;
    disk_in(&clinical, false)?;
    ensure!(sum_of(&medium)? == before, "the stick is not what it was");
    Ok(())
}

fn others(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    ward.pc.progress("a stick nobody knows is blocked and invisible");
    fs::write(ports.medium("unknown"), vec![7; MIB])?;
    ports.plug("unknown", "FOUND-IN-THE-CAR-PARK")?;
    let blocked = wait_for(agent, "blocked stick", |device| {
        device["state"] == "blocked"
            && device["device"].as_str().is_some_and(|d| d.contains("CAR-PARK"))
    })?;
    let why = blocked["why"].as_str().unwrap_or_default();
    ensure!(why.contains("no rule gives mass-storage devices like this"), "{why}");
    no_disk_on_host(ward)?;
    disk_in(&clinical, false)?;
    disk_in(&internet, false)?;
    let bus_id = blocked["bus_id"].as_str().unwrap_or_default();
    agent.bulkhead(&["usb", "attach", bus_id, "internet"])?;
    std::thread::sleep(Duration::from_secs(2));
    wait_for(agent, "stick that is still blocked", |device| {
        device["state"] == "blocked" && device["bus_id"] == bus_id
    })?;
    disk_in(&internet, false)?;
    ports.pull("unknown")?;

    ward.pc.progress("a smart-card reader works in its domain, a keyboard stays with the seat");
    ports.plug_device("usb-ccid", "reader")?;
    let reader = wait_for(agent, "card reader", is_attached("allow"))?;
    ensure!(reader["rule"] == "card-reader", "{reader}");
    let until = Instant::now() + SOON;
    while !run(&clinical, "cat /sys/bus/usb/devices/*/bInterfaceClass | grep -q 0b")?.1 {
        ensure!(Instant::now() < until, "the guest has no card reader");
        std::thread::sleep(Duration::from_millis(200));
    }
    ports.pull("reader")?;
    ports.plug_device("usb-kbd", "second-keyboard")?;
    wait_for(agent, "keyboard of the host", |device| {
        device["state"] == "host"
            && device["device"].as_str().is_some_and(|d| d.contains("03/01/01"))
    })?;
    ports.pull("second-keyboard")
}

/// A stick's descriptors with a boot keyboard beside the storage.
fn composite() -> Pinned {
    let mut pinned = pinned(false);
    let Some(configuration) = pinned.configurations.first_mut() else { return pinned };
    configuration.extend([9, 4, 1, 0, 1, 3, 1, 1, 0]);
    configuration.extend([9, 0x21, 0x11, 0x01, 0, 1, 0x22, 63, 0]);
    configuration.extend([7, 5, 0x83, 3, 8, 0, 10]);
    let total = u16::try_from(configuration.len()).unwrap_or_default().to_le_bytes();
    configuration[2..4].copy_from_slice(&total);
    configuration[4] = 2;
    pinned
}

/// Serves a device to the PC's QEMU, which has it at a port as if it were real, until the stream ends.
fn serve(mut stream: UnixStream, mut stick: Stick) {
    let mut session = Session::new(Role::Host, "composite");
    let mut buffer = vec![0; 65536];
    let mut answers = Vec::new();
    loop {
        while !session.output().is_empty() {
            let Ok(count) = stream.write(session.output()) else { return };
            session.sent(count);
        }
        let room = session.room().min(buffer.len());
        let Ok(count @ 1..) = stream.read(&mut buffer[..room]) else { return };
        session.feed(&buffer[..count]);
        while let Ok(Some(packet)) = session.next() {
            match packet.body {
                Body::Hello { .. } => answers.extend(Stick::hello()),
                Body::Bulk(_) | Body::Control(_) => stick.take(packet, &mut answers),
                Body::SetConfiguration(_) | Body::GetConfiguration | Body::Reset => {
                    stick.take(packet, &mut answers);
                }
                _ => {}
            }
        }
        for answer in answers.drain(..) {
            if session.send(&answer).is_err() {
                return;
            }
        }
    }
}

fn stick_with_a_keyboard_in_it(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a hospital's stick that is a keyboard as well: nobody gets it");
    let keyboards = || ward.pc.sh("ls /sys/class/input | grep -c event || true");
    let before = keyboards()?;
    let socket = ward.pc.dir().join("composite");
    let listener = UnixListener::bind(&socket)?;
    let addr = json!({"type": "unix", "data": {"path": socket}});
    let backend = json!({"type": "socket", "data": {"addr": addr, "server": false}});
    ports.qmp.execute("chardev-add", json!({"id": "composite", "backend": backend}))?;
    let (stream, _) = listener.accept()?;
    let ours = stream.try_clone()?;
    let mut stick = Stick::new(4096);
    stick.descriptors = composite();
    let server = std::thread::spawn(move || serve(stream, stick));
    let device = json!({"driver": "usb-redir", "id": "composite", "bus": "xhci.0", "port": "4",
        "chardev": "composite"});
    ports.qmp.execute("device_add", device)?;
    let blocked = wait_for(agent, "composite device", |device| {
        device["device"].as_str().is_some_and(|text| text.contains("08/06/50+03/01/01"))
    })?;
    let why = blocked["why"].as_str().unwrap_or_default();
    ensure!(blocked["state"] == "blocked" && why.contains("keyboards and mice never"), "{blocked}");
    no_disk_on_host(ward)?;
    ensure!(keyboards()? == before, "the host types what it says");
    disk_in(&agent.probe("clinical"), false)?;
    ports.qmp.execute("device_del", json!({"id": "composite"}))?;
    ours.shutdown(std::net::Shutdown::Both)?;
    server.join().map_err(|_| Failure("the device's end failed".into()))
}

fn serial_adapter(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a serial adapter works in the other domain");
    let internet = agent.probe("internet");
    let out = ward.pc.dir().join("serial-out");
    let backend = json!({"type": "file", "data": {"out": out}});
    ports.qmp.execute("chardev-add", json!({"id": "lab", "backend": backend}))?;
    let device = json!({"driver": "usb-serial", "id": "adapter", "bus": "xhci.0", "port": "4",
        "chardev": "lab", "always-plugged": true});
    ports.qmp.execute("device_add", device)?;
    wait_for(agent, "serial adapter", is_attached("allow"))?;
    let until = Instant::now() + SOON;
    while !run(&internet, "[ -c /dev/ttyUSB0 ]")?.1 {
        ensure!(Instant::now() < until, "the guest has no serial port");
        std::thread::sleep(Duration::from_millis(200));
    }
    let (said, done) = run(&internet, "echo 'HbA1c 5.4 %' > /dev/ttyUSB0")?;
    ensure!(done, "{said}");
    while !fs::read_to_string(&out).unwrap_or_default().contains("HbA1c 5.4 %") {
        ensure!(Instant::now() < until, "nothing came out of the adapter");
        std::thread::sleep(Duration::from_millis(100));
    }
    ports.qmp.execute("device_del", json!({"id": "adapter"}))?;
    let until = Instant::now() + SOON;
    while run(&internet, "[ -c /dev/ttyUSB0 ]")?.1 {
        ensure!(Instant::now() < until, "the adapter stays in the guest");
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}

/// A guest that is reset, and a VMM that is killed, with a device attached: it is there again afterwards.
fn through_restarts(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let clinical = agent.probe("clinical");
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
    ward.pc.sh(&format!("kill -9 {pid}"))?;
    wait_for(agent, "stick that waits", |device| device["state"] == "waiting")?;
    no_disk_on_host(ward)?;
    wait_for(agent, "stick that is back", is_attached("read-only"))?;
    clinical.wait_ready()?;
    disk_in(&clinical, true)?;
    ensure!(run(&clinical, "head -c 4096 /dev/sda | grep -q ww")?.1, "it cannot be read");
    ports.pull("patient")?;
    disk_in(&clinical, false)
}

fn break_glass(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let clinical = agent.probe("clinical");
    ward.pc.progress("break-glass: the stick may be written while it is open, and not after");
    fs::write(ports.medium("patient"), vec![1; 4 * MIB])?;
    ports.plug("patient", "PATIENT1")?;
    wait_for(agent, "stick to be read", is_attached("read-only"))?;
    let refused = agent.bulkhead(&["break-glass", "--reason", "x", "--for", "1h"])?;
    ensure!(
        refused.status == Some(1) && refused.stderr.contains("2 minutes at most"),
        "{refused:?}"
    );
    let opened = agent.bulkhead(&["break-glass", "--reason", "discharge letter", "--for", "2m"])?;
    ensure!(opened.status == Some(0), "{opened:?}");
    wait_for(agent, "stick to be written", is_attached("allow"))?;
    disk_in(&clinical, true)?;
    let (output, done) = run(
        &clinical,
        "head -c 65536 /dev/zero | tr '\\0' 'w' | dd of=/dev/sda bs=64k conv=fsync",
    )?;
    ensure!(done, "{output}");
    let closed = agent.bulkhead(&["break-glass", "--end"])?;
    ensure!(closed.status == Some(0), "{closed:?}");
    wait_for(agent, "stick to be read again", is_attached("read-only"))?;
    disk_in(&clinical, true)?;
    let (_, done) = run(
        &clinical,
        "blockdev --setrw /dev/sda; dd if=/dev/zero of=/dev/sda bs=4k count=1 conv=fsync",
    )?;
    ensure!(!done, "it can be written after break-glass");
    ports.pull("patient")?;
    let medium = fs::read(ports.medium("patient"))?;
    ensure!(medium[..65536].iter().all(|byte| *byte == b'w') && medium[65536] == 1, "not written");
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    for word in [
        "break-glass-opened",
        "discharge letter",
        "break-glass-closed",
        "usb-detached",
        "\"break_glass\":true",
        "usb-refused",
    ] {
        ensure!(log.contains(word), "`{word}` is not in the audit log");
    }
    Ok(())
}

fn cycles(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    const CYCLES: usize = 15;
    ward.pc.progress(&format!("plugged and pulled {CYCLES} times: nothing is left behind"));
    let counts = || -> Outcome<(usize, usize)> {
        let pid = agent.status()?["agent"]["pid"].as_u64().unwrap_or(0);
        let count = |what: &str| -> Outcome<usize> {
            Ok(ward.pc.sh(&format!("ls /proc/{pid}/{what} | wc -l"))?.trim().parse().unwrap_or(0))
        };
        Ok((count("fd")?, count("task")?))
    };
    let mut first = None;
    for _ in 0..CYCLES {
        ports.plug("patient", "PATIENT1")?;
        wait_for(agent, "stick", is_attached("read-only"))?;
        ports.pull("patient")?;
        let until = Instant::now() + SOON;
        while devices(agent)?.iter().any(|device| device["state"] == "attached") {
            ensure!(Instant::now() < until, "it is still attached");
            std::thread::sleep(Duration::from_millis(50));
        }
        first.get_or_insert(counts()?);
    }
    std::thread::sleep(Duration::from_secs(1));
    let last = counts()?;
    let first = first.unwrap_or_default();
    ensure!(
        last.0 <= first.0 && last.1 <= first.1,
        "file descriptors and threads: {first:?}, then {last:?}"
    );
    Ok(())
}
