//! Devices that are not storage, and storage that is something else besides.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tests::agent::Agent;
use tests::usb_device::{Model, Plugged, SecurityKey};
use tests::ward::Ward;
use tests::{Outcome, ensure};
use usbfilter::Pinned;
use usbfilter::stick::{Stick, pinned};
use usbredir::{Body, Packet};

use super::{MIB, Ports, disk_in, is_attached, no_disk_on_host, run, until, wait_for};

pub(super) fn work_and_are_refused(
    ward: &Ward,
    agent: &Agent<'_>,
    ports: &mut Ports<'_>,
) -> Outcome {
    others(ward, agent, ports)?;
    serial_adapter(ward, agent, ports)?;
    security_key(ward, agent, ports)?;
    super::parts::keyboard_with_a_reader(ward, agent, ports)?;
    stick_with_a_keyboard_in_it(ward, agent, ports)?;
    stick_that_becomes_a_keyboard(ward, agent, ports)?;
    stick_that_never_rests(ward, agent, ports)
}

fn others(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    let (clinical, internet) = (agent.probe("clinical"), agent.probe("internet"));
    ward.pc.progress("a stick nobody knows is blocked and invisible");
    fs::write(ports.medium("unknown"), vec![7; MIB])?;
    ports.plug("unknown", "FOUND-IN-A-CAR-PARK")?;
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

    ward.pc.progress(
        "a smart-card reader behind a hub works in its domain, a keyboard stays with the seat",
    );
    ports.plug_device("usb-hub", "hub", "4")?;
    ports.plug_device("usb-ccid", "reader", "4.1")?;
    let reader = wait_for(agent, "card reader", is_attached("allow"))?;
    ensure!(reader["rule"] == "card-reader", "{reader}");
    // The port the agent owns is one of the hub's.
    ensure!(reader["bus_id"].as_str().is_some_and(|id| id.ends_with(".1")), "{reader}");
    until("the guest has no card reader", || {
        Ok(run(&clinical, "cat /sys/bus/usb/devices/*/bInterfaceClass | grep -q 0b")?.1)
    })?;
    ports.pull_device("reader")?;
    ports.pull_device("hub")?;
    ports.plug_device("usb-kbd", "second-keyboard", "4")?;
    wait_for(agent, "keyboard of the host", |device| {
        device["state"] == "host"
            && device["device"].as_str().is_some_and(|d| d.contains("03/01/01"))
    })?;
    ports.pull_device("second-keyboard")
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
    let port = || Ok(run(&internet, "[ -c /dev/ttyUSB0 ]")?.1);
    until("the guest has no serial port", port)?;
    let hosts = ward.pc.sh("ls /dev/ttyUSB* 2>/dev/null || true")?;
    ensure!(hosts.trim().is_empty(), "the host has {hosts}");
    let (said, done) = run(&internet, "echo 'HbA1c 5.4 %' > /dev/ttyUSB0")?;
    ensure!(done, "{said}");
    until("nothing came out of the adapter", || {
        Ok(fs::read_to_string(&out).unwrap_or_default().contains("HbA1c 5.4 %"))
    })?;
    ports.pull_device("adapter")?;
    until("the adapter stays in the guest", || Ok(!port()?))?;
    // QEMU leaves its other end, whose name the next round takes.
    until("QEMU keeps the adapter's other end", || {
        Ok(ports.qmp.execute("chardev-remove", json!({"id": "lab"})).is_ok())
    })
}

/// Returns a stick's descriptors with a boot keyboard beside the storage.
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

fn stick_with_a_keyboard_in_it(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a hospital's stick that is a keyboard as well: no desktop gets either");
    let mut stick = Stick::new(4096);
    stick.descriptors = composite();
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "composite", "4", stick)?;
    let kept = wait_for(agent, "composite device", |device| {
        device["state"] == "host" && is_composite(device)
    })?;
    let why = kept["why"].as_str().unwrap_or_default();
    ensure!(why.contains("storage with a keyboard or mouse in it never enters a domain"), "{kept}");
    no_disk_on_host(ward)?;
    disk_in(&agent.probe("clinical"), false)?;
    plugged.pull(&mut ports.qmp)
}

fn is_composite(device: &serde_json::Value) -> bool {
    device["device"].as_str().is_some_and(|text| text.contains("08/06/50+03/01/01"))
}

/// Shows that nobody gets the keyboard of a device that had none in it before.
fn nobody_gets_the_keyboard(ward: &Ward, agent: &Agent<'_>) -> Outcome {
    let blocked = wait_for(agent, "composite device", |device| {
        device["state"] == "blocked" && is_composite(device)
    })?;
    let why = blocked["why"].as_str().unwrap_or_default();
    ensure!(why.contains("is not accepted"), "{blocked}");
    no_disk_on_host(ward)?;
    disk_in(&agent.probe("clinical"), false)
}

/// A stick with a serial number that is something else after a reset.
struct Turncoat {
    stick: Stick,
    turns: Turns,
}

enum Turns {
    /// It is a keyboard as well, from the first reset after this is set.
    Keyboard(Arc<AtomicBool>),
    /// It wants another current, after each.
    Restless,
}

impl Model for Turncoat {
    fn hello(&self) -> Vec<Packet> {
        Stick::hello()
    }

    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        match packet.body {
            Body::Control(mut control)
                if (control.request_type, control.request) == (0x80, 6)
                    && control.value.to_le_bytes()[1] == 3 =>
            {
                control.data = if control.value == 0x0300 {
                    vec![4, 3, 9, 4]
                } else {
                    let text: Vec<u8> =
                        "PATIENT1".encode_utf16().flat_map(u16::to_le_bytes).collect();
                    [&[18, 3][..], &text].concat()
                };
                control.data.truncate(control.length.into());
                control.length = control.data.len().try_into().unwrap_or(0);
                answers.push(Packet { id: packet.id, body: Body::Control(control) });
            }
            Body::Reset => {
                match &self.turns {
                    Turns::Keyboard(now) if now.load(Ordering::Relaxed) => {
                        self.stick.descriptors = composite();
                    }
                    Turns::Keyboard(_) => {}
                    Turns::Restless => {
                        for configuration in &mut self.stick.descriptors.configurations {
                            configuration[8] ^= 1;
                        }
                    }
                }
                Model::take(&mut self.stick, packet, answers);
            }
            _ => Model::take(&mut self.stick, packet, answers),
        }
    }
}

fn stick_that_becomes_a_keyboard(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress(
        "a hospital's stick that is a keyboard as well after a reset: nobody has it any more",
    );
    let mut stick = Stick::new(4096);
    stick.descriptors = pinned(false);
    let turns = Arc::new(AtomicBool::new(false));
    let turncoat = Turncoat { stick, turns: Turns::Keyboard(Arc::clone(&turns)) };
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "turncoat", "4", turncoat)?;
    wait_for(agent, "stick", is_attached("read-only"))?;
    let clinical = agent.probe("clinical");
    disk_in(&clinical, true)?;
    turns.store(true, Ordering::Relaxed);
    // A guest that starts anew resets what is at its ports.
    let reset = agent.bulkhead(&["reset", "clinical"])?;
    ensure!(reset.status == Some(0), "{reset:?}");
    clinical.wait_ready()?;
    nobody_gets_the_keyboard(ward, agent)?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    ensure!(log.contains("03/01/01"), "the audit log does not say what it became");
    plugged.pull(&mut ports.qmp)
}

fn stick_that_never_rests(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress(
        "a hospital's stick that is another after each reset: it comes and goes a few times only",
    );
    let mut stick = Stick::new(4096);
    stick.descriptors = pinned(false);
    let turncoat = Turncoat { stick, turns: Turns::Restless };
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "unstable", "4", turncoat)?;
    wait_for(agent, "device that is off for good", |device| {
        device["why"].as_str().is_some_and(|why| why.contains("after each reset"))
    })?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    ensure!(log.contains("after each reset"), "the audit log does not say so");
    no_disk_on_host(ward)?;
    plugged.pull(&mut ports.qmp)
}

/// Asks what a browser asks a security key first, and a message there and back.
fn security_key(ward: &Ward, agent: &Agent<'_>, ports: &mut Ports<'_>) -> Outcome {
    ward.pc.progress("a security key answers in its domain, which has a stick as well");
    // The seat's keyboard and mouse have one each.
    let hosts = || ward.pc.sh("ls /dev | grep hidraw");
    let before = hosts()?;
    let clinical = agent.probe("clinical");
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "key", "4", SecurityKey::default())?;
    ports.plug("patient", "PATIENT1")?;
    disk_in(&clinical, true)?;
    let key = wait_for(agent, "security key", |device| device["rule"] == "staff-security-key")?;
    ensure!(key["name"] == "Hospital Security key" && key["domain"] == "clinical", "{key}");
    until("the guest has no /dev/hidraw0", || Ok(run(&clinical, "[ -c /dev/hidraw0 ]")?.1))?;
    // Report number 0; channel, command, length, data; 64 bytes.
    let asks = |name: &str, head: &str, data: &str| {
        let line = format!(
            "exec 3<>/dev/hidraw0; (printf '\\0{head}{data}'; head -c 64 /dev/zero) | head -c 65 > /tmp/{name}; \
             dd if=/tmp/{name} bs=65 count=1 >&3 2>/dev/null && \
             timeout 20 dd bs=64 count=1 <&3 2>/dev/null | hexdump -v -e '/1 \"%02x\"'"
        );
        run(&clinical, &line).map(|(output, _)| output)
    };
    let init = asks("init", "\\377\\377\\377\\377\\206\\0\\10", "abcdefgh")?;
    // The nonce, then channel 01020304 and protocol 2.
    ensure!(init.starts_with("ffffffff860011616263646566676801020304020100"), "{init}");
    let ping = asks("ping", "\\1\\2\\3\\4\\201\\0\\4", "ward")?;
    ensure!(ping.starts_with("0102030481000477617264"), "{ping}");
    ensure!(hosts()? == before, "the host has it too: {}", hosts()?);
    ensure!(run(&clinical, "dd if=/dev/sda of=/dev/null bs=64k count=16")?.1, "no stick beside it");
    ports.pull("patient")?;
    disk_in(&clinical, false)?;
    let ping = asks("ping", "\\1\\2\\3\\4\\201\\0\\4", "room")?;
    ensure!(ping.starts_with("01020304810004726f6f6d"), "without the stick: {ping}");
    plugged.pull(&mut ports.qmp)?;
    until("the key stays in the guest", || Ok(!run(&clinical, "[ -c /dev/hidraw0 ]")?.1))
}
