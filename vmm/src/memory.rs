//! Guest RAM.
//!
//! By default private anonymous memory, aligned to 2 MiB and offered to transparent huge pages: a
//! guest that touches 256 MiB then takes some 40 nested page faults instead of 16,000, and no file
//! descriptor exists through which another process could map it (docs/design/decisions/0001). With huge
//! pages requested it is a memfd from the host's pool, so that it cannot be split or reclaimed.

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use virtio::GuestMemory;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestRegionMmap};

use crate::layout;
use vmm_control::MemorySize;

/// Size of an x86 huge page, in bytes.
const HUGE_PAGE: usize = 2 << 20;

/// Why guest RAM could not be had.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host would not map it.
    #[error(
        "the host has no {0} of memory to spare for the guest; lower --memory or close other programs"
    )]
    Map(MemorySize, #[source] io::Error),
    /// The huge-page pool is too small.
    #[error(
        "the host's huge-page pool cannot hold {0}; raise it (sysctl vm.nr_hugepages={1}) or leave out --hugepages"
    )]
    HugePages(MemorySize, u64, #[source] io::Error),
    /// vm-memory refused the layout.
    #[error("the guest's memory map is not valid")]
    Layout(#[source] vm_memory::GuestRegionCollectionError),
}

/// Allocates RAM of the given size, split around the 32-bit device hole.
pub fn allocate(size: MemorySize, hugepages: bool) -> Result<GuestMemory, MemoryError> {
    let mut parts = vec![(GuestAddress(0), layout::low_ram(size))];
    if layout::high_ram(size) > 0 {
        parts.push((GuestAddress(layout::HIGH_RAM_START), layout::high_ram(size)));
    }
    let mut regions = Vec::with_capacity(parts.len());
    for (address, bytes) in parts {
        let length = usize::try_from(bytes)
            .map_err(|_| MemoryError::Map(size, io::ErrorKind::OutOfMemory.into()))?;
        let region = if hugepages {
            from_pool(length).map_err(|e| MemoryError::HugePages(size, size.bytes() >> 21, e))?
        } else {
            anonymous(length).map_err(|e| MemoryError::Map(size, e))?
        };
        let region = GuestRegionMmap::new(region, address).ok_or_else(|| {
            MemoryError::Map(size, io::Error::other("region does not fit the address space"))
        })?;
        regions.push(region);
    }
    GuestMemory::from_regions(regions).map_err(MemoryError::Layout)
}

/// Maps a region from the huge-page pool, through a memfd.
fn from_pool(length: usize) -> io::Result<vm_memory::MmapRegion> {
    // SAFETY: the name is a static C string; the result is checked before it is owned.
    let fd = unsafe {
        let fd = libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_HUGETLB);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        OwnedFd::from_raw_fd(fd)
    };
    let file = File::from(fd);
    file.set_len(length as u64)?;
    MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED)
        .with_file_offset(FileOffset::new(file, 0))
        .build()
        .map_err(io::Error::other)
}

/// Maps private memory whose host address is a multiple of the huge-page size.
fn anonymous(length: usize) -> io::Result<vm_memory::MmapRegion> {
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: maps fresh address space chosen by the kernel and gives back the unaligned ends,
    // which nothing refers to yet. The result is checked.
    let aligned = unsafe {
        let whole = length + HUGE_PAGE;
        let start = libc::mmap(std::ptr::null_mut(), whole, libc::PROT_NONE, flags, -1, 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let head = (start as usize).next_multiple_of(HUGE_PAGE) - start as usize;
        if head > 0 {
            libc::munmap(start, head);
        }
        let aligned = start.byte_add(head);
        if HUGE_PAGE > head {
            libc::munmap(aligned.byte_add(length), HUGE_PAGE - head);
        }
        if libc::mprotect(aligned, length, prot) != 0 {
            let error = io::Error::last_os_error();
            libc::munmap(aligned, length);
            return Err(error);
        }
        // Advice only. Guest RAM is of no use in a core dump and a danger in one.
        libc::madvise(aligned, length, libc::MADV_HUGEPAGE);
        libc::madvise(aligned, length, libc::MADV_DONTDUMP);
        aligned
    };
    // SAFETY: `aligned` starts a mapping of `length` bytes that lives until the process ends
    // (guest RAM is mapped once); vm-memory does not unmap what it did not map.
    unsafe {
        MmapRegionBuilder::new(length)
            .with_mmap_prot(prot)
            .with_mmap_flags(flags)
            .with_raw_mmap_pointer(aligned.cast())
            .build()
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::{Bytes, GuestMemoryBackend, GuestMemoryRegion};

    #[test]
    fn ram_is_aligned_to_huge_pages_and_split_around_the_hole() {
        let memory = allocate("4G".parse().unwrap(), false).unwrap();
        let regions: Vec<_> = memory.iter().map(|r| (r.start_addr().0, r.len())).collect();
        assert_eq!(regions, [(0, 3 << 30), (4 << 30, 1 << 30)]);
        for region in memory.iter() {
            assert_eq!(region.as_ptr() as usize % HUGE_PAGE, 0);
        }
        memory.write_obj(7u8, GuestAddress((5 << 30) - 1)).unwrap();
        assert!(memory.write_obj(7u8, GuestAddress(5 << 30)).is_err());
    }
}
