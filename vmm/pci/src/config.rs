//! Configuration space of a function with a type 0 header: registers as data.
//!
//! Every byte has a value and a mask of the bits a guest may write. What needs more than a mask
//! (the command register's effect on decoding, BAR sizing) is derived from the bytes when asked.
//! Source: PCI Local Bus 3.0 chapter 6, PCI Express 5.0 section 7.5.

use crate::bar::{BarIndex, BarKind, Window};

/// Bytes of a conventional configuration space; what lies beyond reads as zero.
pub const SIZE: usize = 256;

/// Offsets of the header's registers.
pub mod register {
    /// Vendor ID, device ID.
    pub const ID: u16 = 0x00;
    /// Command register.
    pub const COMMAND: u16 = 0x04;
    /// Status register.
    pub const STATUS: u16 = 0x06;
    /// Revision ID, then three bytes of class code.
    pub const CLASS: u16 = 0x08;
    /// First base address register.
    pub const BAR0: u16 = 0x10;
    /// Subsystem vendor ID, subsystem ID.
    pub const SUBSYSTEM: u16 = 0x2c;
    /// Offset of the first capability.
    pub const CAPABILITIES: u16 = 0x34;
    /// End of the header: capabilities start here.
    pub const HEADER_END: u16 = 0x40;
}

/// Bits of the command register (section 6.2.2).
pub mod command {
    /// Memory BARs decode.
    pub const MEMORY: u16 = 1 << 1;
    /// The function may read and write memory by itself.
    pub const BUS_MASTER: u16 = 1 << 2;
    /// The function may not raise its interrupt pin.
    pub const INTX_DISABLE: u16 = 1 << 10;
}

/// Status register: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// BAR bits: 64 bits wide, prefetchable.
const BAR_64: u64 = 0b100;
const BAR_PREFETCHABLE: u64 = 0b1000;
/// The low bits of a memory BAR say what it is.
const BAR_KIND: u64 = 0xf;

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Base class, subclass, programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    size: u64,
    kind: BarKind,
}

/// A function's configuration space (PCI 3.0, section 6.1), as the guest sees it.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    initial: [u8; SIZE],
    bars: [Option<Bar>; BarIndex::COUNT],
    last_capability: u16,
    next_capability: u16,
}

/// Why a configuration space cannot be laid out so.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LayoutError {
    /// A capability of so many bytes does not fit any more: all of them have 192 bytes.
    #[error("no room for another capability of {0} bytes")]
    Capability(usize),
    /// A BAR of this size in bytes is not a power of two of at least 16, too large for its kind, or has no register left.
    #[error("{0} cannot be a memory BAR of {1:#x} bytes")]
    Bar(BarIndex, u64),
}

impl ConfigSpace {
    /// Makes a function without BARs and capabilities.
    pub fn new(identity: Identity) -> Self {
        let mut this = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            initial: [0; SIZE],
            bars: [None; BarIndex::COUNT],
            last_capability: 0,
            next_capability: register::HEADER_END,
        };
        let [base, sub, interface] = identity.class;
        this.set(register::ID, &identity.vendor.to_le_bytes());
        this.set(register::ID + 2, &identity.device.to_le_bytes());
        this.set(register::CLASS, &[identity.revision, interface, sub, base]);
        this.set(register::SUBSYSTEM, &identity.subsystem_vendor.to_le_bytes());
        this.set(register::SUBSYSTEM + 2, &identity.subsystem.to_le_bytes());
        let command = command::MEMORY | command::BUS_MASTER | command::INTX_DISABLE;
        this.set_writable(register::COMMAND, &command.to_le_bytes());
        this
    }

    /// Adds a memory BAR of `size` bytes.
    pub fn add_bar(
        &mut self,
        bar: BarIndex,
        size: u64,
        kind: BarKind,
        prefetchable: bool,
    ) -> Result<(), LayoutError> {
        let fail = LayoutError::Bar(bar, size);
        let next = BarIndex::new(bar.index() + 1);
        let wide = kind == BarKind::Memory64;
        let fits = size.is_power_of_two() && size >= 16 && (wide || size <= 1 << 31);
        let taken = |b: BarIndex| self.bars.get(b.index()).is_none_or(Option::is_some);
        let upper_half = bar.index().checked_sub(1).and_then(BarIndex::new).is_some_and(|below| {
            matches!(self.bars.get(below.index()), Some(Some(Bar { kind: BarKind::Memory64, .. })))
        });
        if !fits || taken(bar) || upper_half || (wide && next.is_none_or(taken)) {
            return Err(fail);
        }
        let mask = !(size - 1) & !BAR_KIND;
        let kind_bits =
            if wide { BAR_64 } else { 0 } | if prefetchable { BAR_PREFETCHABLE } else { 0 };
        let width = if wide { 8 } else { 4 };
        let at = bar_register(bar);
        self.set(at, kind_bits.to_le_bytes().get(..width).unwrap_or_default());
        self.set_writable(at, mask.to_le_bytes().get(..width).unwrap_or_default());
        if let Some(slot) = self.bars.get_mut(bar.index()) {
            *slot = Some(Bar { size, kind });
        }
        Ok(())
    }

    /// Appends a capability: `body` is what follows its ID and link, `writable` the bits of it a
    /// guest may write (missing bytes: none). Returns its offset.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, LayoutError> {
        let at = self.next_capability;
        let end = usize::from(at) + 2 + body.len();
        if end > SIZE || writable.len() > body.len() {
            return Err(LayoutError::Capability(body.len() + 2));
        }
        let [offset, _] = at.to_le_bytes();
        if self.last_capability == 0 {
            self.set(register::STATUS, &STATUS_CAPABILITIES.to_le_bytes());
            self.set(register::CAPABILITIES, &[offset]);
        } else {
            self.set(self.last_capability + 1, &[offset]);
        }
        self.set(at, &[id, 0]);
        self.set(at + 2, body);
        self.set_writable(at + 2, writable);
        self.last_capability = at;
        self.next_capability = u16::try_from(end.next_multiple_of(4)).unwrap_or(SIZE as u16);
        Ok(at)
    }

    /// Fixes bytes, as of reset.
    pub fn set(&mut self, offset: u16, data: &[u8]) {
        copy_in(&mut self.bytes, offset, data);
        copy_in(&mut self.initial, offset, data);
    }

    /// Allows a guest to write the bits set in `mask`.
    pub fn set_writable(&mut self, offset: u16, mask: &[u8]) {
        copy_in(&mut self.writable, offset, mask);
    }

    /// Reads any number of bytes from any offset; zero beyond the end.
    pub fn read(&self, offset: u16, data: &mut [u8]) {
        for (byte, at) in data.iter_mut().zip(usize::from(offset)..) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes what may be written.
    pub fn write(&mut self, offset: u16, data: &[u8]) {
        for (new, at) in data.iter().zip(usize::from(offset)..) {
            if let (Some(byte), Some(mask)) = (self.bytes.get_mut(at), self.writable.get(at)) {
                *byte = (*byte & !mask) | (new & mask);
            }
        }
    }

    /// Returns two bytes, little-endian.
    pub fn word(&self, offset: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(offset, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    /// Returns the command register.
    pub fn command(&self) -> u16 {
        self.word(register::COMMAND)
    }

    /// Returns what each BAR decodes at this moment, as [`crate::Function::windows`] does.
    pub fn windows(&self) -> [Option<Window>; BarIndex::COUNT] {
        let mut windows = [None; BarIndex::COUNT];
        if self.command() & command::MEMORY == 0 {
            return windows;
        }
        for (index, (window, bar)) in windows.iter_mut().zip(self.bars).enumerate() {
            if let (Some(bar), Some(index)) = (bar, BarIndex::new(index)) {
                let address = self.bar_address(index, bar.kind);
                // A window that would run over the end of the address space decodes nothing.
                if address.checked_add(bar.size).is_some() {
                    *window = Some(Window { address, size: bar.size });
                }
            }
        }
        windows
    }

    /// Returns size in bytes and kind of each BAR, as [`crate::Function::bars`] does.
    pub fn bars(&self) -> [Option<(u64, BarKind)>; BarIndex::COUNT] {
        self.bars.map(|bar| bar.map(|bar| (bar.size, bar.kind)))
    }

    /// Places a BAR as [`crate::Function::place_bar`] does. The place is part of the state a reset returns to.
    pub fn place_bar(&mut self, bar: BarIndex, address: u64) {
        let Some(Some(Bar { kind, .. })) = self.bars.get(bar.index()).copied() else { return };
        let at = bar_register(bar);
        let width = if kind == BarKind::Memory64 { 8 } else { 4 };
        self.write(at, address.to_le_bytes().get(..width).unwrap_or_default());
        let mut placed = [0; 8];
        self.read(at, &mut placed);
        copy_in(&mut self.initial, at, placed.get(..width).unwrap_or_default());
    }

    /// Goes back to what was set, with the BARs where they were placed.
    pub fn reset(&mut self) {
        self.bytes = self.initial;
    }

    fn bar_address(&self, bar: BarIndex, kind: BarKind) -> u64 {
        let mut bytes = [0; 8];
        let width = if kind == BarKind::Memory64 { 8 } else { 4 };
        self.read(bar_register(bar), bytes.get_mut(..width).unwrap_or_default());
        u64::from_le_bytes(bytes) & !BAR_KIND
    }
}

/// Returns the offset of a BAR's register.
pub fn bar_register(bar: BarIndex) -> u16 {
    // At most 0x10 + 4 * 5.
    register::BAR0 + 4 * bar.index() as u16
}

fn copy_in(bytes: &mut [u8; SIZE], offset: u16, data: &[u8]) {
    for (new, at) in data.iter().zip(usize::from(offset)..) {
        if let Some(byte) = bytes.get_mut(at) {
            *byte = *new;
        }
    }
}
