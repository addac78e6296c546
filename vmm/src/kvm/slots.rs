//! KVM memory slots: guest RAM, and host memory a passed-through BAR shows.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vfio::{MemorySlots, Slot};
use virtio::GuestMemory;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::{KvmError, refused};

/// Slots from here on are for BARs; RAM takes those below.
const FIRST_BAR_SLOT: u32 = 8;
/// Most BAR mappings at once, far below the 509 every KVM offers.
const BAR_SLOTS: u32 = 256;

/// Makes `memory` the VM's RAM.
pub(super) fn set_ram(vm: &VmFd, memory: &GuestMemory) -> Result<(), KvmError> {
    for (slot, region) in (0..FIRST_BAR_SLOT).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the region is mapped for as long as the process lives (memory.rs), and Rust
        // reaches it only through vm-memory's volatile accesses.
        unsafe { vm.set_user_memory_region(slot) }.map_err(refused("map the guest's RAM"))?;
    }
    Ok(())
}

/// Memory slots of a KVM virtual machine, by their numbers.
pub struct KvmSlots {
    vm: Arc<VmFd>,
    used: Mutex<BTreeSet<u32>>,
}

impl KvmSlots {
    /// Makes the slots of this VM beyond its RAM, of which none is used.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm, used: Mutex::new(BTreeSet::new()) }
    }

    fn set(&self, slot: u32, guest: u64, host: *const u8, size: u64) -> io::Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: guest,
            memory_size: size,
            userspace_addr: host as u64,
        };
        // SAFETY: the caller of `map` keeps the mapping alive until `unmap` (its own contract);
        // a size of zero only takes a slot away.
        unsafe { self.vm.set_user_memory_region(region) }
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}

impl MemorySlots for KvmSlots {
    unsafe fn map(&self, guest: u64, host: *const u8, size: u64) -> io::Result<Slot> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = (FIRST_BAR_SLOT..FIRST_BAR_SLOT + BAR_SLOTS)
            .find(|slot| !used.contains(slot))
            .ok_or_else(|| io::Error::other("no free memory slot for a BAR"))?;
        self.set(slot, guest, host, size)?;
        used.insert(slot);
        Ok(Slot(slot))
    }

    fn unmap(&self, slot: Slot) -> io::Result<()> {
        self.set(slot.0, 0, std::ptr::null(), 0)?;
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&slot.0);
        Ok(())
    }
}
