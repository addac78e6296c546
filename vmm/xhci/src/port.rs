//! One root hub port: its register set (5.4.8) and its state machine (4.19).

use crate::backend::{PortId, Speed};
use crate::spec::portsc::{self, link};

/// What a write to a port asks for beyond the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// The device at the port is to be reset.
    Reset,
}

#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) id: PortId,
    /// Of the USB 3 protocol.
    fast: bool,
    portsc: u32,
    /// PORTPMSC, PORTLI, PORTHLPMC: kept for the guest. LPM is not offered.
    others: [u32; 3],
    device: Option<Speed>,
    /// Counts devices, so that what belonged to one never reaches the next.
    generation: u64,
    /// The guest is to be told of a change.
    pub(crate) changed: bool,
}

impl Port {
    pub(crate) fn new(id: PortId, fast: bool) -> Self {
        let portsc = portsc::PP | link::RX_DETECT << portsc::PLS_SHIFT;
        Self { id, fast, portsc, others: [0; 3], device: None, generation: 0, changed: false }
    }

    pub(crate) fn takes(&self, speed: Speed) -> bool {
        self.fast == (speed == Speed::Super)
    }

    pub(crate) fn is_free(&self) -> bool {
        self.device.is_none()
    }

    /// Returns which device is there and can be talked to.
    pub(crate) fn enabled_generation(&self) -> Option<u64> {
        (self.device.is_some() && self.portsc & portsc::PED != 0).then_some(self.generation)
    }

    pub(crate) fn attach(&mut self, speed: Speed) {
        self.device = Some(speed);
        self.generation += 1;
        self.connect();
    }

    pub(crate) fn detach(&mut self) {
        if self.device.take().is_some() {
            let was = self.portsc & portsc::CCS;
            self.portsc &= !(portsc::CCS | portsc::PED | portsc::PR | 0xf << portsc::SPEED_SHIFT);
            self.set_link(link::RX_DETECT);
            if was != 0 {
                self.change(portsc::CSC);
            }
        }
    }

    /// Takes it that the controller was reset: what is there connects anew (4.2).
    pub(crate) fn reset(&mut self) {
        let (device, generation) = (self.device, self.generation);
        *self = Self { device, generation, ..Self::new(self.id, self.fast) };
        self.connect();
    }

    /// Reads register `index` (0 to 3) of the set.
    pub(crate) fn read(&self, index: usize) -> u32 {
        match index {
            0 => self.portsc,
            _ => self.others.get(index - 1).copied().unwrap_or(0),
        }
    }

    pub(crate) fn write(&mut self, index: usize, value: u32) -> Effect {
        let writable = match (index, self.fast) {
            (0, _) => return self.write_portsc(value),
            (1, true) => 0x1_ffff, // U1 and U2 timeouts, force link PM accept
            (1, false) => 0xfff8,  // remote wake, BESL, L1 slot: kept though nothing comes of them
            _ => 0,
        };
        if let Some(other) = self.others.get_mut(index.wrapping_sub(1)) {
            *other = value & writable;
        }
        Effect::None
    }

    fn write_portsc(&mut self, value: u32) -> Effect {
        self.portsc &= !(value & portsc::CHANGES);
        let kept = portsc::PIC | portsc::WAKE;
        self.portsc = self.portsc & !kept | value & kept;
        if value & portsc::PED != 0 && self.portsc & portsc::PED != 0 {
            self.disable();
        }
        let warm = self.fast && value & portsc::WPR != 0;
        if value & portsc::PR != 0 || warm {
            return self.reset_device(warm);
        }
        if value & portsc::LWS != 0 {
            self.go_to(value >> portsc::PLS_SHIFT & 0xf);
        }
        Effect::None
    }

    /// Resets the device at the port; that ends the moment it begins.
    fn reset_device(&mut self, warm: bool) -> Effect {
        if self.device.is_none() {
            return Effect::None;
        }
        let connected = self.portsc & portsc::CCS != 0;
        self.portsc |= portsc::CCS | portsc::PED;
        self.set_speed();
        self.set_link(link::U0);
        let warm = if warm { portsc::WRC } else { 0 };
        self.change(portsc::PRC | warm | if connected { 0 } else { portsc::CSC });
        Effect::Reset
    }

    /// Moves the link, as the guest wants it (4.15, 4.19.1).
    fn go_to(&mut self, state: u32) {
        let now = self.link();
        let working = self.portsc & portsc::PED != 0;
        match state {
            link::U0 if working && now != link::U0 => {
                self.set_link(link::U0);
                self.change(portsc::PLC);
            }
            link::U3 if working => self.set_link(link::U3),
            link::RESUME if working && now == link::U3 => self.set_link(link::RESUME),
            link::DISABLED if self.fast => {
                self.disable();
                self.set_link(link::DISABLED);
            }
            link::RX_DETECT if self.fast && now == link::DISABLED => {
                self.set_link(link::RX_DETECT);
                self.connect();
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        if self.device.is_none() {
            return;
        }
        self.portsc |= portsc::CCS;
        self.set_speed();
        if self.fast {
            self.portsc |= portsc::PED; // a USB 3 link trains by itself
            self.set_link(link::U0);
        } else {
            self.portsc &= !portsc::PED;
            self.set_link(link::POLLING);
        }
        self.change(portsc::CSC);
    }

    fn disable(&mut self) {
        self.portsc &= !portsc::PED;
        if self.fast {
            self.portsc &= !portsc::CCS;
            self.set_link(link::DISABLED);
        } else if self.device.is_some() {
            self.set_link(link::POLLING);
        }
    }

    fn set_speed(&mut self) {
        let speed = self.device.map_or(0, |speed| speed as u32);
        self.portsc &= !(0xf << portsc::SPEED_SHIFT);
        self.portsc |= speed << portsc::SPEED_SHIFT;
    }

    fn link(&self) -> u32 {
        (self.portsc & portsc::PLS_MASK) >> portsc::PLS_SHIFT
    }

    fn set_link(&mut self, state: u32) {
        self.portsc = self.portsc & !portsc::PLS_MASK | state << portsc::PLS_SHIFT;
    }

    fn change(&mut self, bits: u32) {
        self.portsc |= bits;
        self.changed = true;
    }
}

#[cfg(test)]
mod tests;
