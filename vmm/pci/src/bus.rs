//! The root bus: one host bridge and up to 31 single-function devices on bus 0.
//!
//! A configuration access finds its function by number, a memory access by address. No lock of the
//! bus is held while a function runs, except the function's own, so that one that is slow stalls
//! only whoever talks to it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::bar::{BarIndex, BarKind, Window};
use crate::config::{ConfigSpace, Identity};
use crate::function::Function;

/// Devices a bus has room for.
pub const DEVICES: usize = 32;
/// Bytes of ECAM a function has (PCI Express 5.0 section 7.2.2).
const ECAM_FUNCTION: u64 = 4096;
/// Functions of a device; all but the first are absent here.
const FUNCTIONS: u64 = 8;
/// Enable bit of the configuration address port (PCI Local Bus 3.0 section 3.2.2.3.2).
const ADDRESS_ENABLE: u32 = 1 << 31;

/// BARs that do not fit where they are to go.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.describe())]
pub struct PlaceError {
    device: usize,
    bar: BarIndex,
    /// Bytes of the BAR.
    size: u64,
    space: &'static str,
    /// Bytes of all the space for BARs of its kind.
    room: u64,
}

impl PlaceError {
    fn describe(&self) -> String {
        let Self { device, bar, size, space, room } = self;
        let (size, has) = (in_words(*size), in_words(*room));
        if self.size > self.room {
            return format!(
                "device {device}: {bar} has {size}, and a guest of this PC has {has} for {space} BARs in all (the processor's address width sets that): this card cannot be passed through here; use another card"
            );
        }
        format!(
            "device {device}: {bar} of {size} does not fit beside the others into the {has} for {space} BARs; pass fewer or smaller functions through"
        )
    }
}

/// Writes bytes with the largest unit that goes into them.
fn in_words(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or_else(
        || format!("{bytes} bytes"),
        |(shift, name)| format!("{} {name}", bytes >> shift),
    )
}

type Shared = Arc<Mutex<dyn Function>>;

/// A decoded window: who answers.
#[derive(Clone, Copy)]
struct Entry {
    window: Window,
    device: usize,
    bar: BarIndex,
}

/// PCI bus 0 with its functions and the windows that they decode.
pub struct Bus {
    devices: [Option<Shared>; DEVICES],
    /// What is decoded now, by address. Where a guest lets windows overlap, the one that starts
    /// last below the access wins: deterministic, and nobody's loss but the guest's.
    windows: RwLock<Vec<Entry>>,
    /// The configuration address port.
    address: Mutex<u32>,
}

impl Default for Bus {
    fn default() -> Self {
        Self::new()
    }
}

impl Bus {
    /// Makes a bus with its host bridge.
    pub fn new() -> Self {
        let mut devices = [const { None }; DEVICES];
        if let Some(first) = devices.first_mut() {
            *first = Some(Arc::new(Mutex::new(HostBridge::new())) as Shared);
        }
        Self { devices, windows: RwLock::new(Vec::new()), address: Mutex::new(0) }
    }

    /// Puts a function in a slot (1 to 31). A number out of range or taken is the caller's mistake
    /// and leaves the bus as it was.
    pub fn add(&mut self, device: u8, function: Arc<Mutex<dyn Function>>) {
        match self.devices.get_mut(usize::from(device)) {
            Some(slot @ None) => *slot = Some(function),
            _ => tracing::error!(device, "no such slot on the bus, or taken"),
        }
    }

    /// Gives every BAR an address in `low` (32-bit BARs) or `high` (64-bit ones), each aligned to
    /// its size, largest first so that alignment wastes nothing.
    pub fn place_bars(&mut self, low: Range<u64>, high: Range<u64>) -> Result<(), PlaceError> {
        let mut bars = Vec::new();
        for (device, function) in self.devices.iter().enumerate() {
            let Some(function) = function else { continue };
            let declared = lock(function).bars();
            for (index, bar) in declared.into_iter().enumerate() {
                if let (Some((size, kind)), Some(index)) = (bar, BarIndex::new(index)) {
                    bars.push((size, kind, device, index));
                }
            }
        }
        bars.sort_by_key(|(size, ..)| std::cmp::Reverse(*size));
        let (mut next_low, mut next_high) = (low.start, high.start);
        for (size, kind, device, bar) in bars {
            let (next, end, space) = match kind {
                BarKind::Memory32 => (&mut next_low, low.end, "32-bit"),
                BarKind::Memory64 => (&mut next_high, high.end, "64-bit"),
            };
            let at = next.checked_next_multiple_of(size);
            let after = at.and_then(|at| at.checked_add(size)).filter(|after| *after <= end);
            let (Some(at), Some(after)) = (at, after) else {
                let all = if kind == BarKind::Memory32 { &low } else { &high };
                let room = all.end.saturating_sub(all.start);
                return Err(PlaceError { device, bar, size, space, room });
            };
            *next = after;
            if let Some(Some(function)) = self.devices.get(device) {
                lock(function).place_bar(bar, at);
            }
        }
        Ok(())
    }

    /// Reads configuration space at an offset into the ECAM window.
    pub fn ecam_read(&self, offset: u64, data: &mut [u8]) {
        let (device, register) = ecam_target(offset);
        self.config_read(device, register, data);
    }

    /// Writes configuration space at an offset into the ECAM window.
    pub fn ecam_write(&self, offset: u64, data: &[u8]) {
        let (device, register) = ecam_target(offset);
        self.config_write(device, register, data);
    }

    /// Reads ports 0xcf8 to 0xcff; `offset` counts from 0xcf8.
    pub fn io_read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0xff);
        match offset {
            0 if data.len() == 4 => {
                let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
                data.copy_from_slice(&address.to_le_bytes());
            }
            4..=7 => {
                if let Some((device, register)) = self.port_target(offset) {
                    self.config_read(device, register, data);
                }
            }
            _ => {}
        }
    }

    /// Writes ports 0xcf8 to 0xcff; only a write of four bytes sets the address.
    pub fn io_write(&self, offset: u16, data: &[u8]) {
        match (offset, data) {
            (0, [a, b, c, d]) => {
                // Bits 1:0 and 30:24 are reserved.
                let address = u32::from_le_bytes([*a, *b, *c, *d]) & (ADDRESS_ENABLE | 0xff_fffc);
                *self.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
            }
            (4..=7, _) => {
                if let Some((device, register)) = self.port_target(offset) {
                    self.config_write(device, register, data);
                }
            }
            _ => {}
        }
    }

    /// Reads memory; `false` where nothing decodes the address, `data` then unchanged.
    pub fn mmio_read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some((function, bar, offset)) = self.find(address, data.len()) else { return false };
        lock(&function).bar_read(bar, offset, data);
        true
    }

    /// Writes memory; `false` where nothing decodes the address.
    pub fn mmio_write(&self, address: u64, data: &[u8]) -> bool {
        let Some((function, bar, offset)) = self.find(address, data.len()) else { return false };
        lock(&function).bar_write(bar, offset, data);
        true
    }

    /// Brings every function back to the state before the guest first ran, or on the way there: see
    /// [`Bus::is_reset`]. Call with all vCPUs stopped.
    pub fn reset(&self) {
        for (device, function) in self.devices.iter().enumerate() {
            if let Some(function) = function {
                lock(function).reset();
                self.update_windows(device, function);
            }
        }
        *self.address.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Returns whether every function has completed its reset.
    pub fn is_reset(&self) -> bool {
        self.devices.iter().flatten().all(|function| lock(function).is_reset())
    }

    fn config_read(&self, device: Option<usize>, register: u16, data: &mut [u8]) {
        data.fill(0xff);
        if let Some(function) = device.and_then(|d| self.devices.get(d)).and_then(Option::as_ref) {
            lock(function).config_read(register, data);
        }
    }

    fn config_write(&self, device: Option<usize>, register: u16, data: &[u8]) {
        let Some(device) = device else { return };
        if let Some(Some(function)) = self.devices.get(device) {
            lock(function).config_write(register, data);
            self.update_windows(device, function);
        }
    }

    fn port_target(&self, offset: u16) -> Option<(Option<usize>, u16)> {
        let address = *self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if address & ADDRESS_ENABLE == 0 {
            return None;
        }
        // Bus 23:16, device 15:11, function 10:8, register 7:2; the port adds bits 1:0.
        let register = (address & 0xfc) as u16 + (offset & 3);
        let device = (address >> 11 & 0x1f) as usize;
        let here = address & 0xff_0700 == 0;
        Some((here.then_some(device), register))
    }

    fn find(&self, address: u64, length: usize) -> Option<(Shared, BarIndex, u64)> {
        let windows = self.windows.read().unwrap_or_else(PoisonError::into_inner);
        let after = windows.partition_point(|entry| entry.window.address <= address);
        let entry = after.checked_sub(1).and_then(|index| windows.get(index))?;
        let offset = address - entry.window.address;
        let end = offset.checked_add(length as u64)?;
        if end > entry.window.size {
            return None;
        }
        let function = self.devices.get(entry.device)?.clone()?;
        Some((function, entry.bar, offset))
    }

    /// Takes over what `function` decodes now and tells it what moved.
    fn update_windows(&self, device: usize, function: &Shared) {
        // The function's lock is held throughout, so that two writes cannot be taken over in the
        // wrong order; a memory access holds the window lock only before it takes a function's.
        let mut function = lock(function);
        let now = function.windows();
        let mut moved = Vec::new();
        {
            let mut windows = self.windows.write().unwrap_or_else(PoisonError::into_inner);
            for (index, now) in now.into_iter().enumerate() {
                let Some(bar) = BarIndex::new(index) else { continue };
                let mine = |entry: &Entry| entry.device == device && entry.bar == bar;
                let before = windows.iter().find(|entry| mine(entry)).map(|entry| entry.window);
                if before == now {
                    continue;
                }
                windows.retain(|entry| !mine(entry));
                if let Some(window) = now {
                    let at = windows.partition_point(|e| e.window.address <= window.address);
                    windows.insert(at, Entry { window, device, bar });
                }
                moved.push((bar, now));
            }
        }
        for (bar, now) in moved {
            function.bar_moved(bar, now);
        }
    }
}

fn lock(function: &Shared) -> std::sync::MutexGuard<'_, dyn Function + 'static> {
    function.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns device and register of an ECAM offset; no device for other buses and functions.
fn ecam_target(offset: u64) -> (Option<usize>, u16) {
    let function = offset / ECAM_FUNCTION;
    let device = usize::try_from(function / FUNCTIONS).ok();
    let present = function.is_multiple_of(FUNCTIONS);
    (device.filter(|_| present), (offset % ECAM_FUNCTION) as u16)
}

/// A host bridge that does nothing but be there: Linux wants one at 00:00.0.
struct HostBridge {
    config: ConfigSpace,
}

impl HostBridge {
    fn new() -> Self {
        // The identity of QEMU's generic PCIe host bridge, which every system knows.
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0008,
            revision: 0,
            class: [0x06, 0x00, 0x00],
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        Self { config: ConfigSpace::new(identity) }
    }
}

impl Function for HostBridge {
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.config.write(offset, data);
    }

    fn config_space(&self) -> &ConfigSpace {
        &self.config
    }

    fn config_space_mut(&mut self) -> &mut ConfigSpace {
        &mut self.config
    }

    fn bar_read(&mut self, _: BarIndex, _: u64, _: &mut [u8]) {}

    fn bar_write(&mut self, _: BarIndex, _: u64, _: &[u8]) {}

    fn bar_moved(&mut self, _: BarIndex, _: Option<Window>) {}

    fn reset(&mut self) {
        self.config.reset();
    }
}

#[cfg(test)]
mod tests;
