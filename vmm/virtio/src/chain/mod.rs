//! The checked descriptor chain: the one way a device reaches guest memory.
//!
//! **Invariant.** Whoever holds a [`Chain`] knows that
//! - every byte of it lies in guest memory, which the chain keeps mapped;
//! - what the device may read comes before what it may write (virtio 1.2 section 2.7.4.2);
//! - it has at most [`MAX_DESCRIPTORS`] descriptors and at most the queue's limit of bytes, so it
//!   has an end: a loop is refused as too many descriptors;
//! - at most one indirect table was followed, at the end, and it was a proper one
//!   (section 2.7.5.3).
//!
//! Zero-length descriptors, which the specification does not mention, count as descriptors and
//! must keep the order, but carry nothing: their address is never looked at.
//!
//! Descriptors are read once. The *contents* of guest memory may change at any moment while a
//! vCPU runs, so nothing here ever makes a `&[u8]` of them: bytes are copied out once
//! ([`Reader`]), copied in ([`Writer`]), or moved by the kernel between guest memory and a file
//! descriptor (both).

mod cursor;
mod segment;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

pub use cursor::{Exhausted, Reader, Writer};
pub(crate) use walk::{Limits, walk};

use crate::GuestMemory;
use segment::Segment;

/// The most descriptors in one chain, direct and indirect together. The largest queue the devices
/// here offer is shorter; a whole chain still goes into one vectored system call (`IOV_MAX`).
pub const MAX_DESCRIPTORS: usize = 1024;

/// Why a descriptor chain is not one. The guest is to blame for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A descriptor index beyond the table.
    #[error("descriptor {index} is beyond the table of {entries}")]
    IndexOutOfTable {
        /// The index of the descriptor, which is beyond the table.
        index: u32,
        /// How many descriptors the table has.
        entries: u32,
    },
    /// A descriptor table is not in guest memory.
    #[error("the descriptor table at {0:#x} is not in guest memory")]
    TableOutsideMemory(u64),
    /// A buffer is not, or not wholly, in guest memory.
    #[error("the buffer of {len} bytes at {address:#x} is not wholly in guest memory")]
    BufferOutsideMemory {
        /// The guest-physical address that it names.
        address: u64,
        /// The length that it names, in bytes.
        len: u32,
    },
    /// More than the table holds (so it loops), or more than [`MAX_DESCRIPTORS`].
    #[error("the chain loops or has more than {0} descriptors")]
    TooManyDescriptors(usize),
    /// More bytes than the queue's limit.
    #[error("the chain has more than {0} bytes")]
    TooManyBytes(u32),
    /// A readable descriptor after a writable one.
    #[error("a readable descriptor follows a writable one")]
    ReadableAfterWritable,
    /// An indirect descriptor without the feature.
    #[error("an indirect descriptor, but the feature was not negotiated")]
    IndirectNotNegotiated,
    /// An indirect descriptor inside an indirect table.
    #[error("an indirect descriptor in an indirect table")]
    IndirectNested,
    /// An indirect descriptor that says there is a next one.
    #[error("an indirect descriptor with a successor")]
    IndirectWithNext,
    /// An indirect table of a length that is zero or not a multiple of a descriptor's 16 bytes.
    #[error("an indirect table of {0} bytes")]
    IndirectLength(u32),
}

/// A descriptor chain that passed every check; see the module's invariant.
#[derive(Debug)]
#[must_use = "a chain that is neither given back nor kept is lost to the guest"]
pub struct Chain {
    head: u16,
    /// The buffers, those that the device reads before those that it writes.
    segments: Vec<Segment>,
    /// How many of `segments` are readable.
    readable: usize,
    readable_len: usize,
    writable_len: usize,
    /// Keeps what the segments point to mapped.
    memory: Arc<GuestMemory>,
}

impl Chain {
    /// Returns how many bytes the device may read.
    pub fn readable_len(&self) -> usize {
        self.readable_len
    }

    /// Returns how many bytes the device may write.
    pub fn writable_len(&self) -> usize {
        self.writable_len
    }

    /// Reads from the first readable byte.
    pub fn reader(&self) -> Reader<'_> {
        Reader::new(self.segments.get(..self.readable).unwrap_or_default(), self.readable_len)
    }

    /// Writes from the first writable byte.
    pub fn writer(&self) -> Writer<'_> {
        Writer::new(self.segments.get(self.readable..).unwrap_or_default(), self.writable_len)
    }

    pub(crate) fn head(&self) -> u16 {
        self.head
    }

    /// Returns the allocation, emptied, for the next chain to be built in.
    pub(crate) fn into_storage(mut self) -> Storage {
        self.segments.clear();
        Storage(self.segments)
    }
}

/// An allocation that chains of one queue share one after the other.
#[derive(Debug, Default)]
pub(crate) struct Storage(Vec<Segment>);
