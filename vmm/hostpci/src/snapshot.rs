//! Configuration space and BARs of a function as they were when it was looked at: what VFIO and sysfs
//! both can say. Hardware that a guest has had, or a broken card, may say anything of itself.
//! Sources: PCI Local Bus 3.0 chapter 6, PCI Express 5.0 chapter 7.

use std::ops::Range;

/// Bytes of configuration space that every function has.
pub const SIZE: u16 = 256;
/// How many base address registers there are.
pub const BARS: usize = 6;
/// End of the header: capabilities start here.
const HEADER_END: u16 = 0x40;
/// Space for capabilities has room for this many; a list that is longer is a loop.
const CAPABILITIES_MAX: usize = (SIZE - HEADER_END) as usize / 4;

/// Registers of the header.
mod register {
    pub(super) const STATUS: u16 = 0x06;
    pub(super) const HEADER_TYPE: u16 = 0x0e;
    pub(super) const BAR0: u16 = 0x10;
    pub(super) const CAPABILITIES: u16 = 0x34;
    pub(super) const INTERRUPT_PIN: u16 = 0x3d;
}

/// Header type; bit 7 says that the device has several functions.
const HEADER_TYPE_MASK: u8 = 0x7f;
/// Status: there is a capability list.
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// BAR bits (section 7.5.1.2.1).
const BAR_IO: u32 = 1;
const BAR_WIDTH: u32 = 0b110;
const BAR_64: u32 = 0b100;
const BAR_PREFETCHABLE: u32 = 0b1000;
/// In sysfs' `resource` (`IORESOURCE_IO` of the kernel's ioport.h).
const RESOURCE_IO: u64 = 0x100;

/// Capability IDs (PCI Code and ID Assignment 1.11, chapter 2) whose layout is known here.
pub mod id {
    /// Power management.
    pub const POWER: u8 = 0x01;
    /// Vital product data.
    pub const VPD: u8 = 0x03;
    /// Message-signalled interrupts.
    pub const MSI: u8 = 0x05;
    /// Whatever the vendor likes.
    pub const VENDOR: u8 = 0x09;
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// Message-signalled interrupts by table.
    pub const MSIX: u8 = 0x11;
    /// Advanced features.
    pub const AF: u8 = 0x13;
}

/// What kind of addresses a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes up two registers.
    Memory64,
}

/// One base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Bytes; never 0.
    pub size: u64,
    /// What kind of addresses it decodes.
    pub kind: BarKind,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

/// One capability of the function's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The capability's ID; see [`id`].
    pub id: u8,
    /// The offset of its first byte in the configuration space.
    pub at: u16,
    /// One past its last byte.
    pub end: u16,
    /// Whether all of it is there; otherwise another one begins, or the space ends, before it does.
    pub whole: bool,
}

/// Configuration space and BARs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    config: [u8; SIZE as usize],
    /// Bytes of each BAR; 0 if there is none.
    sizes: [u64; BARS],
}

impl Snapshot {
    /// Makes a snapshot from the first 256 bytes and the size of each BAR.
    #[must_use]
    pub const fn new(config: [u8; SIZE as usize], sizes: [u64; BARS]) -> Self {
        Self { config, sizes }
    }

    /// Makes a snapshot from sysfs' `config` and `resource`. `None` if that is not the whole of it.
    #[must_use]
    pub fn from_sysfs(config: &[u8], resources: &str) -> Option<Self> {
        let mut config: [u8; SIZE as usize] = config.get(..usize::from(SIZE))?.try_into().ok()?;
        let mut sizes = [0; BARS];
        for (index, (line, size)) in resources.lines().zip(&mut sizes).enumerate() {
            let mut numbers = line
                .split_whitespace()
                .map(|text| u64::from_str_radix(text.trim_start_matches("0x"), 16));
            let (Some(Ok(start)), Some(Ok(end)), Some(Ok(flags))) =
                (numbers.next(), numbers.next(), numbers.next())
            else {
                return None;
            };
            if end > start {
                *size = (end - start).saturating_add(1);
            }
            // A virtual function has no BAR registers of its own, and sysfs knows what it has all the same.
            let at = usize::from(register::BAR0) + 4 * index;
            if *size > 0
                && flags & RESOURCE_IO != 0
                && let Some(byte) = config.get_mut(at)
            {
                *byte |= 1;
            }
        }
        Some(Self { config, sizes })
    }

    /// Returns one byte; 0 beyond the end.
    #[must_use]
    pub fn byte(&self, at: u16) -> u8 {
        self.config.get(usize::from(at)).copied().unwrap_or(0)
    }

    /// Returns two bytes, little-endian; 0 beyond the end.
    #[must_use]
    pub fn word(&self, at: u16) -> u16 {
        u16::from_le_bytes([self.byte(at), self.byte(at.saturating_add(1))])
    }

    /// Returns four bytes, little-endian; 0 beyond the end.
    #[must_use]
    pub fn long(&self, at: u16) -> u32 {
        u32::from(self.word(at)) | u32::from(self.word(at.saturating_add(2))) << 16
    }

    /// Returns some bytes; none of a range that leaves the space.
    #[must_use]
    pub fn bytes(&self, range: Range<u16>) -> &[u8] {
        self.config.get(usize::from(range.start)..usize::from(range.end)).unwrap_or_default()
    }

    /// Returns 0 for an ordinary function, 1 and 2 for bridges.
    #[must_use]
    pub fn header_type(&self) -> u8 {
        self.byte(register::HEADER_TYPE) & HEADER_TYPE_MASK
    }

    /// Returns whether it can interrupt by pin.
    #[must_use]
    pub fn has_pin(&self) -> bool {
        self.byte(register::INTERRUPT_PIN) != 0
    }

    /// Returns the BARs of an ordinary function; `None` where there is none, or the upper half of the one before.
    #[must_use]
    pub fn bars(&self) -> [Option<Bar>; BARS] {
        let mut bars = [None; BARS];
        let mut upper_half = false;
        for (at, (slot, size)) in (register::BAR0..).step_by(4).zip(bars.iter_mut().zip(self.sizes))
        {
            if std::mem::take(&mut upper_half) {
                continue;
            }
            let bits = self.long(at);
            let kind = match (bits & BAR_IO, bits & BAR_WIDTH) {
                (BAR_IO, _) => BarKind::Io,
                (_, BAR_64) => BarKind::Memory64,
                _ => BarKind::Memory32,
            };
            upper_half = kind == BarKind::Memory64;
            let prefetchable = kind != BarKind::Io && bits & BAR_PREFETCHABLE != 0;
            if size > 0 {
                *slot = Some(Bar { size, kind, prefetchable });
            }
        }
        bars
    }

    /// Returns the capability list in its order. One that is not whole is shortened; a list that leads into
    /// a capability of known length, or back to one that was there, ends there.
    #[must_use]
    pub fn capabilities(&self) -> Vec<Capability> {
        let mut list: Vec<Capability> = Vec::new();
        if self.word(register::STATUS) & STATUS_CAPABILITIES == 0 {
            return list;
        }
        let mut at = u16::from(self.byte(register::CAPABILITIES)) & !3;
        while at >= HEADER_END && list.len() < CAPABILITIES_MAX {
            // What the vendor says of the length of its own capability is often wrong.
            match list.iter_mut().find(|one| one.at <= at && at < one.end) {
                Some(one) if one.at < at && one.id == id::VENDOR => {
                    (one.end, one.whole) = (at, false);
                }
                Some(_) => break,
                None => {}
            }
            let id = self.byte(at);
            let declared = at + self.length(id, at);
            let room = list.iter().map(|one| one.at).filter(|start| *start > at).min();
            let end = declared.min(room.unwrap_or(SIZE));
            list.push(Capability { id, at, end, whole: end == declared });
            at = u16::from(self.byte(at + 1)) & !3;
        }
        list
    }

    /// Returns how many bytes a capability takes. An unknown one is taken to be its ID, link and two bytes.
    fn length(&self, id: u8, at: u16) -> u16 {
        match id {
            id::POWER | id::VPD => 8,
            id::AF => 6,
            id::MSI => msi_length(self.word(at + 2)),
            id::MSIX => 12,
            id::VENDOR => u16::from(self.byte(at + 2)).max(4),
            id::EXPRESS if self.word(at + 2) & 0xf < 2 => 0x14,
            id::EXPRESS => 0x3c,
            _ => 4,
        }
    }
}

/// Returns the bytes of an MSI capability, by its message control (section 7.7.1).
fn msi_length(control: u16) -> u16 {
    const WIDE: u16 = 1 << 7;
    const MASKABLE: u16 = 1 << 8;
    let data = if control & WIDE != 0 { 12 } else { 8 };
    data + if control & MASKABLE != 0 { 12 } else { 2 }
}

#[cfg(test)]
mod tests;
