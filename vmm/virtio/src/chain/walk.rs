//! From a head index to a chain: every check of the invariant is made here.

use std::sync::Arc;

use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

use super::segment::Segment;
use super::{Chain, ChainError, MAX_DESCRIPTORS, Storage};
use crate::GuestMemory;

/// Size of a descriptor in bytes (virtio 1.2 section 2.7.5).
const DESCRIPTOR_BYTES: u32 = 16;

/// What a queue allows its chains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes in one chain, readable and writable together.
    pub(crate) bytes: u32,
    /// Whether `VIRTIO_F_INDIRECT_DESC` was negotiated.
    pub(crate) indirect: bool,
}

/// Follows the chain that starts at `head` of the table of `entries` descriptors at `table`.
pub(crate) fn walk(
    memory: &Arc<GuestMemory>,
    table: GuestAddress,
    entries: u16,
    head: u16,
    limits: Limits,
    storage: Storage,
) -> Result<Chain, ChainError> {
    let mut chain = Chain {
        head,
        segments: storage.0,
        readable: 0,
        readable_len: 0,
        writable_len: 0,
        memory: Arc::clone(memory),
    };
    let mut table = Table { base: table, entries: entries.into(), indirect: false };
    let mut index = u32::from(head);
    let mut writable_seen = false;
    let mut seen = 0;
    let mut bytes = 0_u32;

    loop {
        let descriptor = table.get(memory, index)?;
        if descriptor.refers_to_indirect_table() {
            table = table.follow(&descriptor, limits)?;
            index = 0;
            continue; // at most once: `follow` refuses a second
        }

        seen += 1;
        if seen > table.longest() {
            return Err(ChainError::TooManyDescriptors(table.longest()));
        }

        let writable = descriptor.is_write_only();
        if writable_seen && !writable {
            return Err(ChainError::ReadableAfterWritable);
        }
        writable_seen |= writable;

        bytes = bytes
            .checked_add(descriptor.len())
            .filter(|&sum| sum <= limits.bytes)
            .ok_or(ChainError::TooManyBytes(limits.bytes))?;
        chain.push(&descriptor, writable)?;

        if !descriptor.has_next() {
            return Ok(chain);
        }
        index = u32::from(descriptor.next());
    }
}

struct Table {
    base: GuestAddress,
    entries: u32,
    indirect: bool,
}

impl Table {
    fn get(&self, memory: &GuestMemory, index: u32) -> Result<Descriptor, ChainError> {
        if index >= self.entries {
            return Err(ChainError::IndexOutOfTable { index, entries: self.entries });
        }
        let outside = ChainError::TableOutsideMemory(self.base.0);
        let offset = u64::from(index) * u64::from(DESCRIPTOR_BYTES);
        let address = self.base.0.checked_add(offset).ok_or(outside)?;
        memory.read_obj(GuestAddress(address)).map_err(|_| outside)
    }

    /// Returns the longest chain that can end in this table without a loop. Direct descriptors
    /// before an indirect table are few and count against it too.
    fn longest(&self) -> usize {
        if self.indirect {
            MAX_DESCRIPTORS
        } else {
            usize::try_from(self.entries).unwrap_or(MAX_DESCRIPTORS).min(MAX_DESCRIPTORS)
        }
    }

    fn follow(&self, descriptor: &Descriptor, limits: Limits) -> Result<Self, ChainError> {
        let len = descriptor.len();
        if !limits.indirect {
            Err(ChainError::IndirectNotNegotiated)
        } else if self.indirect {
            Err(ChainError::IndirectNested)
        } else if descriptor.has_next() {
            Err(ChainError::IndirectWithNext)
        } else if len == 0 || !len.is_multiple_of(DESCRIPTOR_BYTES) {
            Err(ChainError::IndirectLength(len))
        } else {
            Ok(Self { base: descriptor.addr(), entries: len / DESCRIPTOR_BYTES, indirect: true })
        }
    }
}

impl Chain {
    fn push(&mut self, descriptor: &Descriptor, writable: bool) -> Result<(), ChainError> {
        let (address, len) = (descriptor.addr(), descriptor.len());
        let outside = ChainError::BufferOutsideMemory { address: address.0, len };
        let bytes = usize::try_from(len).map_err(|_| outside)?;
        // Nearly always one slice; two where a buffer straddles neighbouring regions.
        for slice in GuestMemoryBackend::get_slices(&*self.memory, address, bytes) {
            self.segments.push(Segment::new(&slice.map_err(|_| outside)?));
        }
        if writable {
            self.writable_len += bytes;
        } else {
            self.readable_len += bytes;
            self.readable = self.segments.len();
        }
        Ok(())
    }
}
