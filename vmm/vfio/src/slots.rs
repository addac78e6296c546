//! Memory of the host that a guest reaches without an exit.

use std::io;

/// Memory of the host that the guest reaches directly: a passed-through BAR.
///
/// Implemented over KVM memory slots.
pub trait MemorySlots: Send + Sync {
    /// Makes `size` bytes at the host address `host` appear at guest-physical `guest`. All three are
    /// multiples of 4096.
    ///
    /// # Safety
    /// The caller keeps the host mapping alive, and its length unchanged, until
    /// [`MemorySlots::unmap`] has returned, and holds no Rust reference into it meanwhile.
    unsafe fn map(&self, guest: u64, host: *const u8, size: u64) -> io::Result<Slot>;

    /// Takes the mapping away again.
    fn unmap(&self, slot: Slot) -> io::Result<()>;
}

/// A mapping made by [`MemorySlots::map`]; not `Clone`, so that it is undone at most once.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot(pub u32);
