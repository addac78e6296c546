//! The system calls of VFIO, checked: the one place here with `unsafe` in it besides BAR slots.
//!
//! Source: linux/vfio.h (Linux 6.1). Requests that carry an array are built as words in a vector
//! whose length is what their `argsz` field says, so the kernel never sees a size we do not own.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::NonNull;

use hostpci::Address;
use libc::{c_int, c_ulong};
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DMA_MAP_FLAG_READ, VFIO_DMA_MAP_FLAG_WRITE, VFIO_IRQ_SET_ACTION_TRIGGER,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_REGION_INFO_CAP_SPARSE_MMAP, VFIO_TYPE,
    vfio_device_info, vfio_group_status, vfio_iommu_type1_dma_map, vfio_irq_info,
};
use vmm_sys_util::ioctl::{
    ioctl, ioctl_with_mut_ptr, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val,
};

const fn request(number: u32) -> c_ulong {
    ((VFIO_TYPE as c_ulong) << 8) | (VFIO_BASE + number) as c_ulong
}

const GET_API_VERSION: c_ulong = request(0);
const CHECK_EXTENSION: c_ulong = request(1);
const SET_IOMMU: c_ulong = request(2);
const GROUP_GET_STATUS: c_ulong = request(3);
const GROUP_SET_CONTAINER: c_ulong = request(4);
const GROUP_GET_DEVICE_FD: c_ulong = request(6);
const DEVICE_GET_INFO: c_ulong = request(7);
const DEVICE_GET_REGION_INFO: c_ulong = request(8);
const DEVICE_GET_IRQ_INFO: c_ulong = request(9);
const DEVICE_SET_IRQS: c_ulong = request(10);
const DEVICE_RESET: c_ulong = request(11);
const DEVICE_GET_PCI_HOT_RESET_INFO: c_ulong = request(12);
const DEVICE_PCI_HOT_RESET: c_ulong = request(13);
const IOMMU_MAP_DMA: c_ulong = request(13);

/// Largest answer with an array that is believed, in bytes. A region has a handful of areas and a
/// bus has at most 256 functions of 8 bytes.
const ANSWER_MAX: u32 = 16 << 10;

/// Returns the version of the VFIO interface behind `container`.
pub(crate) fn api_version(container: &File) -> io::Result<c_int> {
    // SAFETY: takes no argument.
    check(unsafe { ioctl(container, GET_API_VERSION) })
}

/// Returns whether `container` offers `extension`.
pub(crate) fn has_extension(container: &File, extension: u32) -> io::Result<bool> {
    // SAFETY: the argument is a number.
    let answer = unsafe { ioctl_with_val(container, CHECK_EXTENSION, c_ulong::from(extension)) };
    check(answer).map(|answer| answer > 0)
}

/// Chooses the IOMMU model of a container that has a group.
pub(crate) fn set_iommu(container: &File, model: u32) -> io::Result<()> {
    // SAFETY: the argument is a number.
    check(unsafe { ioctl_with_val(container, SET_IOMMU, c_ulong::from(model)) }).map(drop)
}

/// Lets devices of the container read and write `size` bytes at `host` as if they were at `guest`.
///
/// # Safety
/// `host` starts `size` bytes of mapped memory that Rust reaches only as volatile memory for as
/// long as the container lives. (The kernel pins the pages: they are not reused even if unmapped.)
pub(crate) unsafe fn map_dma(
    container: &File,
    guest: u64,
    host: *const u8,
    size: u64,
) -> io::Result<()> {
    let map = vfio_iommu_type1_dma_map {
        argsz: argsz::<vfio_iommu_type1_dma_map>(),
        flags: VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
        vaddr: host as u64,
        iova: guest,
        size,
    };
    // SAFETY: a plain structure of the size it states; the memory is the caller's promise.
    check(unsafe { ioctl_with_ref(container, IOMMU_MAP_DMA, &map) }).map(drop)
}

/// Reads the status flags of a group.
pub(crate) fn group_flags(group: &File) -> io::Result<u32> {
    let mut status =
        vfio_group_status { argsz: argsz::<vfio_group_status>(), ..Default::default() };
    // SAFETY: a plain structure of the size it states.
    check(unsafe { ioctl_with_mut_ref(group, GROUP_GET_STATUS, &mut status) })?;
    Ok(status.flags)
}

/// Puts `group` into `container`.
pub(crate) fn set_container(group: &File, container: &File) -> io::Result<()> {
    let fd: c_int = container.as_raw_fd();
    // SAFETY: the argument points to an integer.
    check(unsafe { ioctl_with_ref(group, GROUP_SET_CONTAINER, &fd) }).map(drop)
}

/// Opens a device of `group`.
pub(crate) fn device(group: &File, name: &CStr) -> io::Result<File> {
    // SAFETY: the argument is a string that ends in a zero.
    let fd = check(unsafe { ioctl_with_ptr(group, GROUP_GET_DEVICE_FD, name.as_ptr()) })?;
    // SAFETY: a new descriptor that nothing else owns.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Reads flags and counts of a device.
pub(crate) fn device_info(device: &File) -> io::Result<vfio_device_info> {
    let mut info = vfio_device_info { argsz: argsz::<vfio_device_info>(), ..Default::default() };
    // SAFETY: a plain structure of the size it states.
    check(unsafe { ioctl_with_mut_ref(device, DEVICE_GET_INFO, &mut info) })?;
    Ok(info)
}

/// Where a region of a device lies in its file, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegionInfo {
    pub(crate) flags: u32,
    pub(crate) size: u64,
    pub(crate) offset: u64,
    /// If there, only these parts (offset, size) may be mapped.
    pub(crate) sparse: Option<Vec<(u64, u64)>>,
}

/// Looks a region up.
pub(crate) fn region_info(device: &File, index: u32) -> io::Result<RegionInfo> {
    const HEAD: u32 = 32;
    let answer = ask(device, DEVICE_GET_REGION_INFO, &[HEAD, 0, index, 0, 0, 0, 0, 0])?;
    let long = |at: usize| word(&answer, at) as u64 | (word(&answer, at + 1) as u64) << 32;
    let mut info =
        RegionInfo { flags: word(&answer, 1), size: long(4), offset: long(6), sparse: None };
    // Capabilities are a chain of byte offsets; each one is looked at at most once.
    let mut at = word(&answer, 3);
    for _ in 0..8 {
        let here = (at / 4) as usize;
        if at < HEAD || !at.is_multiple_of(4) || here + 4 > answer.len() {
            break;
        }
        if word(&answer, here) & 0xffff == VFIO_REGION_INFO_CAP_SPARSE_MMAP {
            let areas = answer.get(here + 4..).unwrap_or_default().chunks_exact(4);
            let pairs = areas.take(word(&answer, here + 2) as usize);
            info.sparse = Some(
                pairs
                    .map(|area| {
                        let long =
                            |i: usize| word(area, i) as u64 | (word(area, i + 1) as u64) << 32;
                        (long(0), long(2))
                    })
                    .collect(),
            );
        }
        at = word(&answer, here + 1);
    }
    Ok(info)
}

/// Reads flags and number of interrupts of one kind.
pub(crate) fn irq_info(device: &File, index: u32) -> io::Result<vfio_irq_info> {
    let mut info = vfio_irq_info { argsz: argsz::<vfio_irq_info>(), index, ..Default::default() };
    // SAFETY: a plain structure of the size it states.
    check(unsafe { ioctl_with_mut_ref(device, DEVICE_GET_IRQ_INFO, &mut info) })?;
    Ok(info)
}

/// Sets the eventfds that interrupts `start..` of one kind signal; `None` leaves one out.
pub(crate) fn set_irqs(
    device: &File,
    index: u32,
    start: u32,
    triggers: &[Option<RawFd>],
) -> io::Result<()> {
    let count = u32::try_from(triggers.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    let mut words = vec![0, flags, index, start, count];
    words.extend(triggers.iter().map(|fd| fd.unwrap_or(-1) as u32));
    send(device, DEVICE_SET_IRQS, words)
}

/// Turns all interrupts of one kind off.
pub(crate) fn disable_irqs(device: &File, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    send(device, DEVICE_SET_IRQS, vec![0, flags, index, 0, 0])
}

/// Resets the function alone.
pub(crate) fn reset(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    check(unsafe { ioctl(device, DEVICE_RESET) }).map(drop)
}

/// Returns every function that a reset of this one's bus or slot would reset, this one included, and
/// the IOMMU group each is in.
pub(crate) fn hot_reset_scope(device: &File) -> io::Result<Vec<(u32, Address)>> {
    let answer = ask(device, DEVICE_GET_PCI_HOT_RESET_INFO, &[12, 0, 0])?;
    let pairs = answer.get(3..).unwrap_or_default().chunks_exact(2);
    let scope: Vec<_> = pairs
        .take(word(&answer, 2) as usize)
        .map(|pair| {
            let [low, high, bus, devfn] = word(pair, 1).to_ne_bytes();
            (word(pair, 0), Address::from_parts(u16::from_ne_bytes([low, high]), bus, devfn))
        })
        .collect();
    if scope.len() as u64 != u64::from(word(&answer, 2)) {
        // Part of the scope unseen is a scope unknown.
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(scope)
}

/// Resets the bus or slot of a device all of whose neighbours are in `group`.
pub(crate) fn hot_reset(device: &File, group: &File) -> io::Result<()> {
    send(device, DEVICE_PCI_HOT_RESET, vec![0, 0, 1, group.as_raw_fd() as u32])
}

/// Sends a request that carries an array; the first word becomes its size in bytes.
fn send(file: &File, request: c_ulong, mut words: Vec<u32>) -> io::Result<()> {
    let bytes = bytes_of(&words);
    if let Some(argsz) = words.first_mut() {
        *argsz = bytes;
    }
    // SAFETY: the kernel reads as many bytes as the first word says, and those are the vector's.
    match check(unsafe { ioctl_with_ptr(file, request, words.as_ptr()) })? {
        0 => Ok(()),
        // That many interrupts could be had, and none was turned on.
        _ => Err(io::Error::from_raw_os_error(libc::ENOSPC)),
    }
}

/// Asks for an answer with an array, and again with more room if the kernel wants it.
fn ask(file: &File, request: c_ulong, head: &[u32]) -> io::Result<Vec<u32>> {
    let mut bytes = bytes_of(head);
    loop {
        let mut words = head.to_vec();
        words.resize((bytes / 4) as usize, 0);
        if let Some(argsz) = words.first_mut() {
            *argsz = bytes;
        }
        // One ioctl states the size it wants in `argsz`; the other fails with ENOSPC and states a
        // count of 8-byte entries in its third word.
        // SAFETY: the kernel writes at most as many bytes as the first word says, and those are the
        // vector's.
        let wanted = match check(unsafe { ioctl_with_mut_ptr(file, request, words.as_mut_ptr()) }) {
            Ok(_) if word(&words, 0) <= bytes => return Ok(words),
            Ok(_) => word(&words, 0),
            Err(e) if e.raw_os_error() == Some(libc::ENOSPC) => {
                word(&words, 2).saturating_mul(8).saturating_add(bytes_of(head))
            }
            Err(e) => return Err(e),
        };
        if wanted <= bytes || wanted > ANSWER_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes = wanted.next_multiple_of(4);
    }
}

/// Returns what a structure's `argsz` says.
#[expect(clippy::cast_possible_truncation, reason = "VFIO's structures have a few dozen bytes")]
const fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

/// Returns the size of a request. Too large a one gets a size that the kernel refuses.
fn bytes_of(words: &[u32]) -> u32 {
    u32::try_from(size_of_val(words)).unwrap_or(0)
}

fn word(words: &[u32], index: usize) -> u32 {
    words.get(index).copied().unwrap_or(0)
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Memory of a device, or in tests ordinary memory, mapped into this process for a guest to reach.
/// Nobody here ever looks into it.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    size: usize,
}

// SAFETY: an address range, never dereferenced here.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `size` bytes of `file` at `offset`.
    pub(crate) fn new(file: &File, offset: u64, size: u64) -> io::Result<Self> {
        let size = usize::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
        let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: maps fresh address space chosen by the kernel; the result is checked.
        let start = unsafe {
            let none = std::ptr::null_mut();
            libc::mmap(none, size, protection, libc::MAP_SHARED, file.as_raw_fd(), offset)
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(first) if start != libc::MAP_FAILED => Ok(Self { start: first, size }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns where it starts in this process.
    pub(crate) fn host(&self) -> *const u8 {
        self.start.as_ptr()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of which no reference was ever made; guests lost it before.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.size) };
    }
}
