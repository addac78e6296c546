//! Power: ACPI hardware-reduced sleep and reset registers, and the power button's event.
//!
//! | port offset | register | source |
//! | --- | --- | --- |
//! | 0 | reset: writing [`RESET_VALUE`] resets the machine | ACPI 6.5 section 4.8.3.6 |
//! | 1 | sleep control: `SLP_EN` with type [`SLEEP_TYPE_S5`] powers off | section 4.8.3.7 |
//! | 2 | sleep status: reads as zero | section 4.8.3.7 |
//! | 3 | events: which happened; reading clears (generic event device, section 5.6.9) | ours |

use std::sync::{Arc, Mutex, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use crate::layout;
use crate::port_io::PortDevice;

/// What the guest writes to the reset register.
pub const RESET_VALUE: u8 = 0xb0;
/// The sleep type of soft-off, as the DSDT's `\_S5` says.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Event bit of the power button.
pub const EVENT_POWER_BUTTON: u8 = 1;

/// Offsets of the registers from the first port.
pub mod offset {
    /// Reset register.
    pub const RESET: u16 = 0;
    /// Sleep control register.
    pub const SLEEP_CONTROL: u16 = 1;
    /// Sleep status register.
    pub const SLEEP_STATUS: u16 = 2;
    /// Pending events.
    pub const EVENTS: u16 = 3;
}

const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
/// `SLP_EN` and the three bits of `SLP_TYP`.
const SLEEP_BITS: u8 = SLEEP_ENABLE | 7 << SLEEP_TYPE_SHIFT;
const SOFT_OFF: u8 = SLEEP_ENABLE | SLEEP_TYPE_S5 << SLEEP_TYPE_SHIFT;

/// What the guest asked the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Soft-off: the machine is to be switched off.
    PowerOff,
    /// Reset: the machine is to start anew.
    Reset,
}

pub struct Power {
    state: State,
    interrupt: EventFd,
    request: Box<dyn Fn(Request) + Send>,
}

/// What the guest, or the button, can change.
#[derive(Default)]
struct State {
    events: u8,
}

impl Power {
    /// How many ports it answers on.
    pub const PORTS: u16 = 4;

    /// Makes the device. `interrupt` raises the event device's line; `request` is told what the
    /// guest wants and must not block.
    pub fn new(interrupt: EventFd, request: Box<dyn Fn(Request) + Send>) -> Self {
        Self { state: State::default(), interrupt, request }
    }

    /// Tells the guest that a person pressed the power button.
    pub fn press_button(this: &Arc<Mutex<Self>>) -> std::io::Result<()> {
        let mut power = this.lock().unwrap_or_else(PoisonError::into_inner);
        power.state.events |= EVENT_POWER_BUTTON;
        power.interrupt.write(1)
    }
}

impl PortDevice for Power {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        if let [byte] = data {
            *byte = match offset {
                offset::EVENTS => std::mem::take(&mut self.state.events),
                _ => 0,
            };
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        let [value] = data else { return };
        match offset {
            offset::RESET if *value == RESET_VALUE => (self.request)(Request::Reset),
            offset::SLEEP_CONTROL if *value & SLEEP_BITS == SOFT_OFF => {
                (self.request)(Request::PowerOff);
            }
            _ => {}
        }
    }

    fn reset(&mut self) {
        self.state = State::default();
    }
}

/// Machine code for [`layout::low::RESET_VECTOR`]: the whole BIOS.
///
/// Linux restarts a hardware-reduced machine without EFI by jumping there in real mode, past the ACPI
/// reset register, so the code writes that register: `mov dx, port; mov al, value; out dx, al`, and
/// then `hlt` for ever.
pub const BIOS: [u8; 9] = {
    let [low, high] = (layout::port::POWER + offset::RESET).to_le_bytes();
    [0xba, low, high, 0xb0, RESET_VALUE, 0xee, 0xf4, 0xeb, 0xfd]
};

/// The keyboard controller's reset line (IBM PC/AT, port 0x64): no keyboard, only the command that
/// every x86 system falls back on, and a status that says "ready" so that nobody polls for it.
pub struct ResetLine {
    request: Box<dyn Fn(Request) + Send>,
}

/// "Pulse output line 0", which is the processor's reset.
const PULSE_RESET: u8 = 0xfe;

impl ResetLine {
    /// How many ports it answers on.
    pub const PORTS: u16 = 1;

    /// Makes the port. `request` is told what the guest wants and must not block.
    pub fn new(request: Box<dyn Fn(Request) + Send>) -> Self {
        Self { request }
    }
}

impl PortDevice for ResetLine {
    fn read(&mut self, _: u16, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _: u16, data: &[u8]) {
        if data == [PULSE_RESET] {
            (self.request)(Request::Reset);
        }
    }

    /// Does nothing: the port has no state.
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn power() -> (Power, Arc<Mutex<Vec<Request>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let interrupt = EventFd::new(libc::EFD_NONBLOCK).unwrap();
        (Power::new(interrupt, Box::new(move |r| sink.lock().unwrap().push(r))), seen)
    }

    #[test]
    fn only_the_right_values_reset_or_power_off() {
        let (mut power, seen) = power();
        for value in 0..=255 {
            power.write(offset::RESET, &[value]);
        }
        assert_eq!(*seen.lock().unwrap(), [Request::Reset]);
        seen.lock().unwrap().clear();
        power.write(offset::SLEEP_CONTROL, &[SLEEP_TYPE_S5 << 2]);
        power.write(offset::SLEEP_CONTROL, &[SLEEP_ENABLE | 3 << 2]);
        power.write(offset::SLEEP_CONTROL, &[SLEEP_ENABLE | SLEEP_TYPE_S5 << 2, 0]);
        assert!(seen.lock().unwrap().is_empty());
        power.write(offset::SLEEP_CONTROL, &[SLEEP_ENABLE | SLEEP_TYPE_S5 << 2]);
        assert_eq!(*seen.lock().unwrap(), [Request::PowerOff]);
    }

    #[test]
    fn a_button_press_is_seen_once() {
        let (power, _) = power();
        let power = Arc::new(Mutex::new(power));
        Power::press_button(&power).unwrap();
        let mut power = power.lock().unwrap();
        assert_eq!(power.interrupt.read().unwrap(), 1);
        let mut byte = [0xff];
        power.read(offset::EVENTS, &mut byte);
        assert_eq!(byte, [EVENT_POWER_BUTTON]);
        power.read(offset::EVENTS, &mut byte);
        assert_eq!(byte, [0]);
    }
}
