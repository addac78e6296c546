//! The x86 I/O port space: a handful of fixed devices, known when the machine is built.

use std::sync::{Arc, Mutex, PoisonError};

/// A device on I/O ports. `offset` counts from the device's first port. An access may be 1, 2 or 4
/// bytes wide, a string instruction many of them; a device that knows less reads as all ones and
/// drops the write.
pub trait PortDevice: Send {
    /// Reads from the device; `data` is all ones on entry.
    fn read(&mut self, offset: u16, data: &mut [u8]);
    /// Takes what the guest wrote.
    fn write(&mut self, offset: u16, data: &[u8]);
    /// Brings the device back to the state before the guest first ran, whatever it did. Host resources stay open.
    fn reset(&mut self);
}

/// Ports in a row and who answers on them.
struct Range {
    first: u16,
    count: u16,
    device: Arc<Mutex<dyn PortDevice>>,
}

/// The ports and who answers on them.
#[derive(Default)]
pub struct PortBus {
    devices: Vec<Range>,
}

impl PortBus {
    /// Puts `device` on `count` ports from `first` on.
    pub fn add(&mut self, first: u16, count: u16, device: Arc<Mutex<dyn PortDevice>>) {
        self.devices.push(Range { first, count, device });
    }

    /// Carries out an `in` instruction; ports nobody answers on read as all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((offset, device)) = self.find(port) {
            device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data);
        }
    }

    /// Carries out an `out` instruction; dropped where nobody answers.
    pub fn write(&self, port: u16, data: &[u8]) {
        if let Some((offset, device)) = self.find(port) {
            device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data);
        }
    }

    /// Brings every device back to the state before the guest first ran. Call with all vCPUs stopped.
    pub fn reset(&self) {
        for Range { device, .. } in &self.devices {
            device.lock().unwrap_or_else(PoisonError::into_inner).reset();
        }
    }

    fn find(&self, port: u16) -> Option<(u16, &Mutex<dyn PortDevice>)> {
        self.devices.iter().find_map(|Range { first, count, device }| {
            let offset = port.checked_sub(*first)?;
            (offset < *count).then_some((offset, &**device))
        })
    }
}
