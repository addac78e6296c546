//! What USB costs a guest: reads from a stick, with the filter and without it, and beside QEMU's own emulated stick.

use serde_json::{Value, json};

use crate::peers::Vmm;
use crate::{Failure, Guest, Outcome, WardPc, ensure};

/// Blocks of the stick: 32 MiB.
const BLOCKS: usize = 65_536;
/// Where the VMM takes its device.
const SOCKET: &str = "/run/measured/usb.sock";
/// How long one pattern is read, in milliseconds.
const READ_MS: u64 = 4000;
/// Sizes of one read, in KiB.
pub const SIZES: [u64; 2] = [4, 64];

/// How the guest gets its stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// bulkhead-vmm's `--usb`, a stick at the other end of the stream.
    Plain,
    /// The same, and the read-only filter before the stick.
    Filtered,
    /// QEMU's `qemu-xhci` and `usb-storage`, within QEMU's own process.
    Qemu,
}

impl Way {
    /// What tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "bulkhead-vmm, stick over usbredir",
            Self::Filtered => "the same, filtered (read-only)",
            Self::Qemu => "QEMU q35, its own usb-storage",
        }
    }
}

/// Reads a second of each of [`SIZES`], one at a time and past the guest's page cache.
pub fn reads(pc: &WardPc, way: Way, disk: &str) -> Outcome<Vec<f64>> {
    let usb = format!("socket={SOCKET}");
    let image = format!("{}/tmp/stick.img", crate::peers::QEMU_ROOT);
    let (vmm, arguments): (Vmm, Vec<&str>) = match way {
        Way::Plain | Way::Filtered => (Vmm::Bulkhead, vec!["--usb", &usb]),
        Way::Qemu => {
            pc.sh(&format!(
                "[ -s {image} ] || dd if=/dev/urandom of={image} bs=1M count=32 2>/dev/null"
            ))?;
            let drive = "if=none,id=stick,format=raw,file=/tmp/stick.img";
            (
                Vmm::Q35,
                vec!["-drive", drive, "-device", "qemu-xhci", "-device", "usb-storage,drive=stick"],
            )
        }
    };
    let guest = Guest::start_vmm_with(pc, "measured", vmm, disk, &arguments)?;
    let blocks = BLOCKS.to_string();
    let filtered = if way == Way::Filtered { "filtered" } else { "plain" };
    if way != Way::Qemu {
        pc.spawn(&["/share/usb-stick", SOCKET, &blocks, filtered], "/tmp/stick.log")?;
    }
    let there = "for n in $(seq 300); do [ -b /dev/sda ] && [ $(cat /sys/block/sda/size) -gt 0 ] && break; sleep 0.1; done; cat /sys/block/sda/size";
    let size =
        guest.probe.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", there]}))?;
    ensure!(size["output"].as_str().is_some_and(|text| text.trim() == blocks), "{way:?}: {size}");
    let mut speeds = Vec::new();
    for kib in SIZES {
        let question = json!({"op": "blk-speed", "device": "/dev/sda", "kib": kib, "write": false,
            "random": false, "ms": READ_MS});
        let answer: Value = guest.probe.ask(question)?;
        let value = |key: &str| answer.get(key).and_then(Value::as_f64);
        let (Some(requests), Some(us)) = (value("requests"), value("us")) else {
            return Err(Failure(format!("the probe answered {answer}")));
        };
        speeds.push(requests * 1e6 / us);
    }
    guest.power_off()?;
    pc.sh("killall usb-stick 2>/dev/null; true")?;
    Ok(speeds)
}
