//! Base address registers: which, how wide, and what they decode.

use std::fmt;

/// How wide a memory BAR's address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// 32 bits: placed below 4 GiB.
    Memory32,
    /// 64 bits, taking up two registers.
    Memory64,
}

/// Which of the six base address registers (PCI Local Bus 3.0, section 6.2.5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BarIndex(u8);

impl BarIndex {
    /// How many base address registers a type 0 header has.
    pub const COUNT: usize = 6;

    /// Makes the index of a BAR; `None` from 6 on.
    pub const fn new(index: usize) -> Option<Self> {
        if index < Self::COUNT { Some(Self(index as u8)) } else { None }
    }

    /// Returns the register's number, 0 to 5.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for BarIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BAR {}", self.0)
    }
}

/// A range of guest-physical addresses, in bytes, that a BAR decodes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First guest-physical address.
    pub address: u64,
    /// Length in bytes; a power of two, never zero.
    pub size: u64,
}
