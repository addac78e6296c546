//! MSI-X: the capability, the vector table and the pending bit array (PCI Express 5.0 section 7.7.2).
//!
//! A vector is *live* when MSI-X is enabled, the function is not masked and the vector is not. Only
//! then is its [`MsiVector`] unmasked, so that a guest that enables three of 64 vectors costs the host
//! three. What a device signals while a vector is not live waits in it and shows as a pending bit.

use crate::host::{MsiController, MsiError, MsiMessage, MsiVector};

/// Capability ID of MSI-X.
pub const CAPABILITY_ID: u8 = 0x11;
/// Bits of message control, which follows ID and link, that a guest may write.
pub const CONTROL_WRITABLE: u16 = CONTROL_ENABLE | CONTROL_FUNCTION_MASK;
/// Bytes of a table entry: address, data, vector control.
pub const ENTRY_SIZE: u64 = 16;
/// Most vectors a function can have.
pub const VECTORS_MAX: u16 = 2048;

const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_FUNCTION_MASK: u16 = 1 << 14;
/// Offset of vector control in an entry, and its mask bit.
const VECTOR_CONTROL: usize = 12;
const VECTOR_MASKED: u8 = 1;
/// The two lowest address bits are always zero: messages are aligned.
const ADDRESS_LOW_MASK: u8 = 0xfc;

struct Slot {
    /// As the guest wrote it.
    entry: [u8; ENTRY_SIZE as usize],
    vector: Box<dyn MsiVector>,
    /// Where the vector delivers to now.
    live: Option<MsiMessage>,
}

const RESET_ENTRY: [u8; ENTRY_SIZE as usize] = {
    let mut entry = [0; ENTRY_SIZE as usize];
    entry[VECTOR_CONTROL] = VECTOR_MASKED;
    entry
};

impl Slot {
    fn masked(&self) -> bool {
        self.entry.get(VECTOR_CONTROL).is_none_or(|control| control & VECTOR_MASKED != 0)
    }

    fn message(&self) -> MsiMessage {
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, ..] = self.entry;
        MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        }
    }

    /// Makes the vector what the guest's registers say; the kernel is asked only for changes.
    fn sync(&mut self, allowed: bool) -> Result<bool, MsiError> {
        let wanted = (allowed && !self.masked()).then(|| self.message());
        if wanted == self.live {
            return Ok(false);
        }
        match wanted {
            Some(message) => self.vector.unmask(message)?,
            None => self.vector.mask()?,
        }
        self.live = wanted;
        Ok(true)
    }
}

/// The state of a function's MSI-X.
pub struct Msix {
    slots: Vec<Slot>,
    enabled: bool,
    function_masked: bool,
}

impl Msix {
    /// Makes `count` (1 to [`VECTORS_MAX`]) vectors, all masked.
    pub fn new(controller: &dyn MsiController, count: u16) -> Result<Self, MsiError> {
        let slot = |_| Ok(Slot { entry: RESET_ENTRY, vector: controller.allocate()?, live: None });
        let slots = (0..count.clamp(1, VECTORS_MAX)).map(slot).collect::<Result<_, MsiError>>()?;
        Ok(Self { slots, enabled: false, function_masked: false })
    }

    /// Returns how many vectors there are.
    pub fn count(&self) -> u16 {
        // Bounded by VECTORS_MAX.
        self.slots.len() as u16
    }

    /// Returns the capability's body after ID and link, for a table and a PBA at these BAR offsets
    /// (multiples of 8) in these BARs.
    pub fn capability(&self, table: (u8, u32), pba: (u8, u32)) -> [u8; 10] {
        let [c0, c1] = self.count().saturating_sub(1).to_le_bytes();
        let [t0, t1, t2, t3] = (table.1 & !7 | u32::from(table.0 & 7)).to_le_bytes();
        let [p0, p1, p2, p3] = (pba.1 & !7 | u32::from(pba.0 & 7)).to_le_bytes();
        [c0, c1, t0, t1, t2, t3, p0, p1, p2, p3]
    }

    /// Returns the bytes of the table.
    pub fn table_size(&self) -> u64 {
        ENTRY_SIZE * u64::from(self.count())
    }

    /// Returns the bytes of the pending bit array: whole quadwords.
    pub fn pba_size(&self) -> u64 {
        u64::from(self.count()).div_ceil(64) * 8
    }

    /// Returns whether MSI-X is on.
    pub fn enabled(&self) -> bool {
        self.enabled
    }

    /// Takes what the guest wrote to message control. Returns whether a vector became live or ceased to be.
    pub fn set_control(&mut self, control: u16) -> bool {
        self.enabled = control & CONTROL_ENABLE != 0;
        self.function_masked = control & CONTROL_FUNCTION_MASK != 0;
        self.sync_all()
    }

    /// Reads the table; zero beyond its end.
    pub fn table_read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            *byte = self
                .slot(at / ENTRY_SIZE)
                .and_then(|s| s.entry.get(within(at)))
                .copied()
                .unwrap_or(0);
        }
    }

    /// Writes the table. Returns whether a vector became live or ceased to be.
    pub fn table_write(&mut self, offset: u64, data: &[u8]) -> bool {
        let allowed = self.enabled && !self.function_masked;
        let mut touched = None;
        for (new, at) in data.iter().zip(offset..) {
            let index = at / ENTRY_SIZE;
            let slot = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index));
            if let Some(byte) = slot.and_then(|slot| slot.entry.get_mut(within(at))) {
                *byte = *new & writable(within(at));
                touched.get_or_insert(index);
            }
        }
        // An access of at most 8 bytes touches at most two entries.
        let first = touched.unwrap_or(0);
        (first..=first + 1).fold(false, |changed, index| self.sync(index, allowed) | changed)
    }

    /// Reads the pending bit array; zero beyond its end.
    pub fn pba_read(&self, offset: u64, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(offset..) {
            let first = at.saturating_mul(8);
            *byte = (0..8).fold(0, |bits, bit| {
                let slot = first.checked_add(bit).and_then(|index| self.slot(index));
                let pending = slot.is_some_and(|s| s.live.is_none() && s.vector.pending());
                bits | u8::from(pending) << bit
            });
        }
    }

    /// Raises vector `index`, now or when it is next live. Nothing happens where there is none.
    pub fn trigger(&self, index: u16) {
        if let Some(slot) = self.slot(u64::from(index)) {
            // The counter is at its end only when 2^64 - 2 events wait: it is pending then.
            let _ = slot.vector.trigger().write(1);
        }
    }

    /// Returns the vector itself, for a device that signals its eventfd.
    pub fn vector(&self, index: u16) -> Option<&dyn MsiVector> {
        self.slot(u64::from(index)).map(|slot| &*slot.vector)
    }

    /// Returns which vectors are live.
    pub fn live(&self) -> impl Iterator<Item = (u16, bool)> {
        (0..).zip(&self.slots).map(|(index, slot)| (index, slot.live.is_some()))
    }

    /// Masks everything and drops what is pending.
    pub fn reset(&mut self) {
        (self.enabled, self.function_masked) = (false, false);
        for slot in &mut self.slots {
            slot.entry = RESET_ENTRY;
        }
        self.sync_all();
        for slot in &mut self.slots {
            slot.vector.clear();
        }
    }

    fn slot(&self, index: u64) -> Option<&Slot> {
        usize::try_from(index).ok().and_then(|index| self.slots.get(index))
    }

    fn sync_all(&mut self) -> bool {
        let allowed = self.enabled && !self.function_masked;
        (0..u64::from(self.count())).fold(false, |changed, i| self.sync(i, allowed) | changed)
    }

    fn sync(&mut self, index: u64, allowed: bool) -> bool {
        let slot = usize::try_from(index).ok().and_then(|index| self.slots.get_mut(index));
        match slot.map(|slot| slot.sync(allowed)) {
            None => false,
            Some(Ok(changed)) => changed,
            Some(Err(error)) => {
                tracing::warn!(index, %error, "an interrupt vector does not work");
                false
            }
        }
    }
}

fn within(offset: u64) -> usize {
    (offset % ENTRY_SIZE) as usize
}

/// Returns which bits of an entry's byte exist.
fn writable(byte: usize) -> u8 {
    match byte {
        0 => ADDRESS_LOW_MASK,
        VECTOR_CONTROL => VECTOR_MASKED,
        13..=15 => 0,
        _ => 0xff,
    }
}

#[cfg(test)]
mod tests;
