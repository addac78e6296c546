//! Guest memory: the one way the controller reaches it, every access checked by `vm-memory`.

use std::sync::atomic::Ordering;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use crate::spec::TRB_SIZE;

/// Guest memory as every device sees it; cloning shares the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;

/// An address from the guest that is not, or not wholly, in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:#x} is not in guest memory")]
pub(crate) struct Outside(pub(crate) u64);

pub(crate) struct Memory(GuestMemory);

impl Memory {
    pub(crate) fn new(memory: GuestMemory) -> Self {
        Self(memory)
    }

    /// Returns whether `length` bytes from `address` on are all there.
    pub(crate) fn check(&self, address: u64, length: u32) -> Result<(), Outside> {
        let there = length == 0 || self.0.check_range(GuestAddress(address), length as usize);
        if there { Ok(()) } else { Err(Outside(address)) }
    }

    pub(crate) fn read(&self, address: u64, data: &mut [u8]) -> Result<(), Outside> {
        self.0.read_slice(data, GuestAddress(address)).map_err(|_| Outside(address))
    }

    pub(crate) fn write(&self, address: u64, data: &[u8]) -> Result<(), Outside> {
        self.0.write_slice(data, GuestAddress(address)).map_err(|_| Outside(address))
    }

    pub(crate) fn read_u64(&self, address: u64) -> Result<u64, Outside> {
        let mut data = [0; 8];
        self.read(address, &mut data)?;
        Ok(u64::from_le_bytes(data))
    }

    pub(crate) fn read_words<const N: usize>(&self, address: u64) -> Result<[u32; N], Outside> {
        let mut words = [0; N];
        for (word, at) in words.iter_mut().zip((0..).step_by(4)) {
            let mut data = [0; 4];
            self.read(address.checked_add(at).ok_or(Outside(address))?, &mut data)?;
            *word = u32::from_le_bytes(data);
        }
        Ok(words)
    }

    pub(crate) fn write_words(&self, address: u64, words: &[u32]) -> Result<(), Outside> {
        for (word, at) in words.iter().zip((0..).step_by(4)) {
            self.write(address.checked_add(at).ok_or(Outside(address))?, &word.to_le_bytes())?;
        }
        Ok(())
    }

    /// Reads a TRB: its last word, which says whose it is, before the others. `None` if it is not the
    /// controller's.
    pub(crate) fn read_trb(&self, address: u64, cycle: bool) -> Result<Option<[u32; 4]>, Outside> {
        let last = GuestAddress(last_word(address)?);
        let control = self.0.load::<u32>(last, Ordering::Acquire).map_err(|_| Outside(address))?;
        if (control & crate::spec::trb_bit::CYCLE != 0) != cycle {
            return Ok(None);
        }
        let [a, b, c] = self.read_words(address)?;
        Ok(Some([a, b, c, control]))
    }

    /// Writes a TRB, its last word after the others.
    pub(crate) fn write_trb(&self, address: u64, words: [u32; 4]) -> Result<(), Outside> {
        let [a, b, c, control] = words;
        let last = GuestAddress(last_word(address)?);
        self.write_words(address, &[a, b, c])?;
        self.0.store(control, last, Ordering::Release).map_err(|_| Outside(address))
    }
}

fn last_word(address: u64) -> Result<u64, Outside> {
    address.checked_add(TRB_SIZE - 4).ok_or(Outside(address))
}
