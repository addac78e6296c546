//! A device with a keyboard and something besides: the keyboard stays with the seat, whatever the rest does in its domain.

use std::sync::atomic::Ordering;

use tests::agent::Agent;
use tests::usb_device::{CardKeyboard, Plugged};
use tests::ward::Ward;
use tests::{Outcome, ensure};

use super::workers::the_worker;
use super::{Ports, is_attached, run, until, wait_for};

/// Where it is plugged in.
const INTERFACE: &str = "/sys/bus/usb/devices/1-4:1.0";

pub(super) fn keyboard_with_a_reader(
    ward: &Ward,
    agent: &Agent<'_>,
    ports: &mut Ports<'_>,
) -> Outcome {
    ward.pc.progress(
        "a keyboard with a card reader in it: the host types, its guest has the reader alone",
    );
    let clinical = agent.probe("clinical");
    let classes =
        || run(&clinical, "cat /sys/bus/usb/devices/*:*/bInterfaceClass").map(|found| found.0);
    let keyboard = CardKeyboard::default();
    let settings = keyboard.settings();
    let plugged = Plugged::plug(&ward.pc, &mut ports.qmp, "card-keyboard", "4", keyboard)?;
    let reader = wait_for(agent, "reader of a keyboard", is_attached("allow"))?;
    ensure!(reader["rule"] == "card-reader" && reader["domain"] == "clinical", "{reader}");
    until("the guest has no card reader", || Ok(classes()?.contains("0b")))?;
    ensure!(!classes()?.contains("03"), "the guest has the keyboard: {}", classes()?);
    types(ward)?;

    ward.pc.progress("the guest of the reader is reset: the keyboard types on");
    let reset = agent.bulkhead(&["reset", "clinical"])?;
    ensure!(reset.status == Some(0), "{reset:?}");
    types(ward)?;
    clinical.wait_ready()?;
    until("the guest has no card reader after its reset", || Ok(classes()?.contains("0b")))?;
    ensure!(!classes()?.contains("03"), "the guest has the keyboard: {}", classes()?);
    types(ward)?;

    ward.pc.progress("the reader is taken away by hand: the keyboard types on");
    let place = reader["bus_id"].as_str().unwrap_or_default();
    let detached = agent.bulkhead(&["usb", "detach", place])?;
    ensure!(detached.status == Some(0), "{detached:?}");
    until("the reader stays in its guest", || Ok(!classes()?.contains("0b")))?;
    types(ward)?;
    let log = ward.pc.sh("cat /tmp/state/audit/*.jsonl")?;
    ensure!(log.contains("seat_keeps_interfaces"), "the audit log does not say what stayed");

    ward.pc.progress("the reader's worker has no right to the keyboard, and is killed: the agent puts the reader back, and the keyboard types on");
    let attached = agent.bulkhead(&["usb", "attach", place, "clinical"])?;
    ensure!(attached.status == Some(0), "{attached:?}");
    wait_for(agent, "reader that is back", is_attached("allow"))?;
    until("the guest has no card reader again", || Ok(classes()?.contains("0b")))?;
    let worker = the_worker(ward)?;
    let answer = ward.pc.sh(&format!("/share/usb-rights {worker} 0"))?;
    // The driver has it: without the node's own limit it would be EBUSY.
    ensure!(answer.trim() == "EACCES", "its worker asks for the keyboard: {answer}");
    let before = settings.load(Ordering::Relaxed);
    ward.pc.sh(&format!("kill -9 {worker}"))?;
    until("nobody puts the reader back for its next guest", || {
        Ok(settings.load(Ordering::Relaxed) > before)
    })?;
    wait_for(agent, "reader that is not used any more", |device| {
        device["why"].as_str().is_some_and(|why| why.contains("the rest is not used any more"))
    })?;
    types(ward)?;
    plugged.pull(&mut ports.qmp)
}

/// Checks that the host's own driver has the keyboard: its lights can be set, and the key that it presses then is heard.
fn types(ward: &Ward) -> Outcome {
    let driver = ward.pc.sh(&format!("readlink {INTERFACE}/driver; true"))?;
    ensure!(driver.trim().ends_with("/usbhid"), "the keyboard's driver is `{}`", driver.trim());
    // One event of evdev is 24 bytes: time, type, code, value. EV_LED, LED_CAPSL, on and off; EV_KEY, KEY_A, pressed.
    let heard = ward.pc.sh(&format!(
        "event=/dev/input/$(basename $(ls -d {INTERFACE}/*/input/input*/event* | head -n 1)); \
         lights() {{ printf '\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\21\\0\\1\\0\\'$1'\\0\\0\\0' > $event; }}; \
         (sleep 1; lights 1; sleep 1; lights 0) & \
         timeout 4 cat $event | hexdump -v -e '24/1 \"%02x\" \"\\n\"' | grep -c '01001e0001000000$'; true"
    ))?;
    ensure!(
        heard.trim().parse::<u32>().is_ok_and(|times| times > 0),
        "the keyboard is not heard: {heard}"
    );
    Ok(())
}
