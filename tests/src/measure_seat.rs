//! What the seat costs, beside the least it could.

use std::time::Duration;

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::guest::Probe;
use crate::peers::Vmm;
use crate::{Failure, Guest, Outcome, WardPc, ensure};

/// The keyboard that presses keys for a measurement.
const KEYBOARD: &str = "measuring keyboard";
/// How long a test waits between two presses.
const PAUSE: Duration = Duration::from_millis(40);
const CTRL: u16 = 29;
const ALT: u16 = 56;
/// The keys 1 and 2.
const DIGITS: [u16; 2] = [3, 2];

/// Plugs the measuring keyboard in.
pub fn sit_down(pc: &WardPc) -> Outcome {
    pc.plug_keyboard(KEYBOARD, 0x1d50, 0x0001)
}

/// Pulls it out.
pub fn stand_up(pc: &WardPc) -> Outcome {
    pc.pull_keyboard(KEYBOARD)
}

/// Microseconds from key to flip of a program that does nothing else, `count` times.
pub fn floor(pc: &WardPc, count: usize) -> Outcome<Vec<f64>> {
    let argv = ["/share/seat-floor", "/dev/dri/card0", KEYBOARD, &count.to_string()];
    let pid = pc.spawn(&argv, "/tmp/floor.log")?;
    for _ in 0..100 {
        if pc.tail("/tmp/floor.log").contains("READY") {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..count {
        for down in [true, false] {
            pc.press(KEYBOARD, 30, down)?;
        }
        std::thread::sleep(PAUSE);
    }
    let status = pc.wait(pid, Duration::from_secs(20))?;
    let log = pc.sh("cat /tmp/floor.log")?;
    ensure!(status == Some(0), "seat-floor ended with {status:?}: {log}");
    Ok(log.lines().filter_map(|line| line.parse().ok()).collect())
}

/// Switches to and fro `count` times; the agent's own account of how long each took is in its status.
pub fn switch(pc: &WardPc, agent: &Agent<'_>, count: usize) -> Outcome<Value> {
    for round in 0..count {
        let digit = DIGITS.get(round % 2).copied().unwrap_or(2);
        for (code, down) in
            [(CTRL, true), (ALT, true), (digit, true), (digit, false), (ALT, false), (CTRL, false)]
        {
            pc.press(KEYBOARD, code, down)?;
        }
        std::thread::sleep(PAUSE);
    }
    let status = agent.status()?;
    let seat = status.get("seat").cloned().unwrap_or_default();
    let switches = seat.get("switches").and_then(Value::as_u64).unwrap_or(0);
    ensure!(switches >= count as u64, "{switches} switches of {count}: {seat}");
    Ok(seat)
}

/// Microseconds from a press of Caps Lock to the guest's light on the keyboard, `count` times: from the seat to the
/// guest's kernel and back.
pub fn round_trips(pc: &WardPc, count: usize) -> Outcome<Vec<f64>> {
    (0..count)
        .map(|_| {
            std::thread::sleep(PAUSE);
            pc.light_round_trip(KEYBOARD, "QEMU QEMU USB Keyboard")
        })
        .collect()
}

/// Starts a QEMU guest with a virtio-gpu of its own, for comparison.
pub fn qemu_guest(pc: &WardPc, size: (u32, u32)) -> Outcome<Guest<'_>> {
    pc.sh("dd if=/dev/zero of=/tmp/qemu.img bs=1M count=1 2>/dev/null")?;
    let (width, height) = size;
    let gpu = format!("virtio-gpu-pci,xres={width},yres={height}");
    Guest::start_vmm_with(pc, "qemu", Vmm::Q35, "/tmp/qemu.img", &["-device", &gpu])
}

/// Frames a second of a text that scrolls over the whole screen.
pub fn scroll(probe: &Probe<'_>, millis: u64) -> Outcome<f64> {
    let answer = probe.ask(json!({"op": "flood-screen", "millis": millis, "scroll": true}))?;
    let updates = answer.get("updates").and_then(Value::as_f64);
    let updates = updates.ok_or_else(|| Failure(format!("the probe answered {answer}")))?;
    #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
    let seconds = millis as f64 / 1e3;
    Ok(updates / seconds)
}
