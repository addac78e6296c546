//! What USB costs a guest: reads from a stick, with the filter and without it, and beside QEMU's ways to have one.

use std::fs;

use serde_json::{Value, json};

use crate::agent::{Agent, SEAT_MACHINE, seat_policy};
use crate::guest::Probe;
use crate::measure::{Memory, memory, process_memory};
use crate::peers::{QEMU_ROOT, Vmm};
use crate::usb_device::{plug_stick, pull_stick};
use crate::{Failure, Guest, Outcome, WardPc, ensure};

/// Blocks of the stick: 32 MiB.
const BLOCKS: usize = 65_536;
/// Where the VMM takes its device.
const SOCKET: &str = "/run/measured/usb.sock";
/// The agent of this build, in the PC.
const AGENT: &str = "/share/bulkhead-agent";
/// How long one pattern is read, in milliseconds.
const READ_MS: u64 = 3000;
/// Sizes of one read, in KiB.
pub const SIZES: [u64; 2] = [4, 64];

/// How the guest gets its stick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// bulkhead-vmm's `--usb`, a stick in memory at the other end of the stream.
    Plain,
    /// The same, and the read-only filter before the stick.
    Filtered,
    /// QEMU's `usb-redir`, the same stick at the other end of the stream.
    QemuRedir,
    /// The agent: a stick in the PC's port, through usbfs and the read-only filter.
    Agent,
    /// QEMU's `usb-host`: the same stick in the PC's port.
    QemuHost,
    /// QEMU's `usb-storage`, within QEMU's own process.
    QemuStorage,
}

impl Way {
    /// In the order in which they are measured.
    pub const ALL: [Self; 6] = [
        Self::Plain,
        Self::Filtered,
        Self::QemuRedir,
        Self::Agent,
        Self::QemuHost,
        Self::QemuStorage,
    ];

    /// Returns what tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "bulkhead-vmm, stick over usbredir",
            Self::Filtered => "the same, filtered (read-only)",
            Self::QemuRedir => "QEMU usb-redir, the same stick",
            Self::Agent => "bulkhead-agent, stick in the PC, filtered",
            Self::QemuHost => "QEMU usb-host, stick in the PC",
            Self::QemuStorage => "QEMU usb-storage, in its own process",
        }
    }
}

/// Reads a second of each of [`SIZES`], one at a time and past the guest's page cache.
pub fn reads(pc: &WardPc, way: Way, disk: &str) -> Outcome<Vec<f64>> {
    let image = format!("{QEMU_ROOT}/tmp/stick.img");
    let ours = format!("socket={SOCKET}");
    let chardev = format!("socket,id=u,path={SOCKET},server=on,wait=off");
    let (vmm, arguments): (Vmm, Vec<&str>) = match way {
        Way::Agent => return reads_through_agent(pc, AGENT),
        Way::Plain | Way::Filtered => (Vmm::Bulkhead, vec!["--usb", &ours]),
        Way::QemuRedir => (
            Vmm::Q35,
            vec!["-device", "qemu-xhci", "-chardev", &chardev, "-device", "usb-redir,chardev=u"],
        ),
        Way::QemuHost => (
            Vmm::Q35,
            vec!["-device", "qemu-xhci", "-device", "usb-host,vendorid=0x46f4,productid=0x0001"],
        ),
        Way::QemuStorage => {
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
    if way == Way::QemuHost {
        plug(pc)?;
    }
    let guest = Guest::start_vmm_with(pc, "measured", vmm, disk, &arguments)?;
    if matches!(way, Way::Plain | Way::Filtered | Way::QemuRedir) {
        let filtered = if way == Way::Filtered { "filtered" } else { "plain" };
        pc.spawn(
            &["/tmp/measured/usb-stick", SOCKET, &BLOCKS.to_string(), filtered],
            "/tmp/stick.log",
        )?;
    }
    let speeds = speeds(&guest.probe);
    let speeds =
        speeds.map_err(|Failure(error)| Failure(format!("{way:?}: {error}\n{}", guest.logs())));
    guest.power_off()?;
    pc.sh("killall usb-stick 2>/dev/null; true")?;
    if way == Way::QemuHost {
        pull_stick(&mut pc.qmp()?, "stick")?;
    }
    speeds
}

/// Reads as [`reads`] does, through the agent that is this program.
pub fn reads_through_agent(pc: &WardPc, program: &str) -> Outcome<Vec<f64>> {
    with_agent(pc, program).map(|(speeds, _)| speeds)
}

/// Measures the memory of the agent and of the VMM, before a stick is in the guest and after it was read.
pub fn memory_of_device(pc: &WardPc) -> Outcome<[[Memory; 2]; 2]> {
    with_agent(pc, AGENT).map(|(_, memory)| memory)
}

fn with_agent(pc: &WardPc, program: &str) -> Outcome<(Vec<f64>, [[Memory; 2]; 2])> {
    let machine = SEAT_MACHINE.replace("backend = \"kms\"", "backend = \"none\"");
    let (machine, _) = machine.split_once("[domain.internet]").ok_or("no Internet domain")?;
    let machine = format!("{machine}[domain.internet]\nvmm = \"external\"\n");
    let rule = "\n[[usb]]\nid = \"stick\"\nmatch = { class = \"mass-storage\" }\nto = \"clinical\"\naction = \"read-only\"\n";
    pc.sh("rm -rf /tmp/state")?;
    let agent = Agent::launch_build(pc, program, &machine, &(seat_policy() + rule), &[])?;
    let probe = agent.probe("clinical");
    let result = (|| {
        probe.wait_ready()?;
        let status = agent.status()?;
        let pids = [&status["agent"]["pid"], &status["domains"][0]["pid"]].map(Value::as_u64);
        let [Some(daemon), Some(vmm)] = pids else { return Err(format!("{status}").into()) };
        let look = || Ok::<_, Failure>([process_memory(pc, daemon)?, memory(pc, vmm)?]);
        let before = look()?;
        plug(pc)?;
        let speeds = speeds(&probe)?;
        let after = look()?;
        pull_stick(&mut pc.qmp()?, "stick")?;
        Ok((speeds, [before, after]))
    })();
    let result = result.map_err(|Failure(error)| Failure(format!("{error}\n{}", agent.logs())))?;
    agent.stop()?;
    Ok(result)
}

/// Plugs a stick into the PC.
fn plug(pc: &WardPc) -> Outcome {
    let file = pc.dir().join("stick.img");
    if !file.exists() {
        let word = |word: u32| word.wrapping_mul(0x9e37_79b9).to_le_bytes();
        fs::write(&file, (0..u32::try_from(BLOCKS * 128)?).flat_map(word).collect::<Vec<u8>>())?;
    }
    plug_stick(&mut pc.qmp()?, "stick", &file, "measured")
}

fn speeds(probe: &Probe<'_>) -> Outcome<Vec<f64>> {
    let there = "for n in $(seq 300); do [ -b /dev/sda ] && [ $(cat /sys/block/sda/size) -gt 0 ] && break; sleep 0.1; done; cat /sys/block/sda/size";
    let size = probe.ask(json!({"op": "run", "argv": ["/bin/busybox", "sh", "-c", there]}))?;
    let blocks = BLOCKS.to_string();
    ensure!(size["output"].as_str().is_some_and(|text| text.trim() == blocks), "no stick: {size}");
    let mut speeds = Vec::new();
    for kib in SIZES {
        let question = json!({"op": "blk-speed", "device": "/dev/sda", "kib": kib, "write": false,
            "random": false, "ms": READ_MS});
        let answer: Value = probe.ask(question)?;
        let value = |key: &str| answer.get(key).and_then(Value::as_f64);
        let (Some(requests), Some(us)) = (value("requests"), value("us")) else {
            return Err(Failure(format!("the probe answered {answer}")));
        };
        speeds.push(requests * 1e6 / us);
    }
    Ok(speeds)
}
