//! The size of a guest's memory.

use std::fmt;
use std::str::FromStr;

use notation::Mistake;

const MIB: u64 = 1 << 20;

/// Size of guest RAM in bytes, a whole number of MiB within [`notation::MEMORY_MIN`] and [`notation::MEMORY_MAX`], written as
/// [`notation`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// What a domain of the machine file gets when the file says nothing.
    pub const DOMAIN_DEFAULT: Self = Self(1 << 30);

    /// Returns the size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 / MIB)
    }
}

impl FromStr for MemorySize {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        notation::memory(text).map(Self)
    }
}
