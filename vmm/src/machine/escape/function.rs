//! Ways out by a passed-through function, for a machine that has one: by its registers, its IOMMU group, the IOMMU's container
//! and KVM's knowledge of them.
//!
//! What the kernel says is VFIO's (`linux/vfio.h`), of a function on the PC's root bus. KVM answers nobody but the process that
//! made the VM, and an attempt is a process of its own: there the filter is seen and KVM's own check, not what KVM would do.

use std::ffi::CString;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use libc::{c_long, c_ulong};
use nix::errno::Errno;

use super::Verdict::{Out, Refused};
use super::World;
use super::attempts::{Attempt, NOT_THERE, OPEN, dies, ends, findings_in};
use super::deeds::{self as d, PAGE, at, plain};
use super::limits::Allowlist;
use super::{Role, Verdict};
use Errno::*;
use Role::*;

/// What the machine has of a passed-through function.
pub(super) struct Function {
    /// Its address on this PC.
    address: CString,
    /// Vendor and device.
    identity: u32,
    /// Its IOMMU group's node.
    node: PathBuf,
    device: RawFd,
    group: RawFd,
    container: RawFd,
    /// KVM's device that knows the group.
    kvm: RawFd,
    /// The machine has none. What is tried of it ends at a filter as it would, or is refused for want of a descriptor.
    pub(super) stands_in: bool,
}

impl Function {
    /// Stands in for one where there is none: which filter ends what is seen all the same.
    pub(super) fn stand_in() -> Self {
        Self {
            address: CString::default(),
            identity: 0,
            node: PathBuf::from("/dev/vfio/0"),
            device: -1,
            group: -1,
            container: -1,
            kvm: -1,
            stands_in: true,
        }
    }

    /// Finds it among the machine's descriptors, each with what it is of, and reads from its configuration space that it is what sysfs calls
    /// by this address.
    pub(super) fn find(address: &str, open: &[(RawFd, PathBuf)]) -> Self {
        let of = |is: &dyn Fn(&str) -> bool| {
            let found = open.iter().find(|(_, what)| what.to_str().is_some_and(is));
            found.unwrap_or_else(|| panic!("{address} is not among {open:?}"))
        };
        let number = |name: &str| {
            let path = Path::new("/sys/bus/pci/devices").join(address).join(name);
            let text = std::fs::read_to_string(path).unwrap();
            u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).unwrap()
        };
        let group = of(&is_group);
        let this = Self {
            address: CString::new(address).unwrap(),
            identity: number("vendor") | number("device") << 16,
            node: group.1.clone(),
            device: of(&|what| what.contains("[vfio-device]")).0,
            group: group.0,
            container: of(&|what| what == CONTAINER).0,
            kvm: of(&|what| what.contains("kvm-vfio")).0,
            stands_in: false,
        };
        this.identified(|place| plain(libc::SYS_pread64, &[this.device as u64, place, 4, CONFIG]))
            .expect("its configuration space is where VFIO has it");
        this
    }

    /// Has `read` put the first four bytes of configuration space at a place in memory, and looks whether that is what they are.
    fn identified(&self, read: impl FnOnce(u64) -> Result<(), Errno>) -> Result<(), Errno> {
        let mut found = 0u32;
        read((&raw mut found) as u64)?;
        // SAFETY: it is there, and the kernel may have written to it.
        let found = unsafe { (&raw const found).read_volatile() };
        if found == self.identity { Ok(()) } else { Err(EIO) }
    }
}

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (vendor, device) = (self.identity & 0xffff, self.identity >> 16);
        write!(f, "{} ({vendor:04x}:{device:04x})", self.address.to_string_lossy())
    }
}

const CONTAINER: &str = "/dev/vfio/vfio";

fn is_group(what: &str) -> bool {
    let number = what.strip_prefix("/dev/vfio/").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
}

/// Where a region begins in the device's file: bits 40 and up are its number, as in every kernel there is.
const fn region(number: u64) -> u64 {
    number << 40
}

const BAR0: u64 = region(0);
const CONFIG: u64 = region(7);
const VGA: u64 = region(8);
/// Of configuration space, a byte that nothing in the PC reads.
const INTERRUPT_LINE: u64 = CONFIG + 0x3c;
/// I/O addresses that no guest of this size has: from 64 GiB on.
const FREE: u64 = 64 << 30;
/// Where a write is an interrupt.
const INTERRUPTS: u64 = 0xfee0_0000;
/// The PC's memory as the kernel sees it (x86-64).
const KERNEL: u64 = 0xffff_8880_0000_0000;

const SET_IOMMU: c_ulong = 0x3b66;
const SET_CONTAINER: c_ulong = 0x3b68;
const UNSET_CONTAINER: c_ulong = 0x3b69;
const GET_DEVICE: c_ulong = 0x3b6a;
const GET_REGION_INFO: c_ulong = 0x3b6c;
const SET_IRQS: c_ulong = 0x3b6e;
/// One number for both: on the container it is `VFIO_IOMMU_MAP_DMA`.
const HOT_RESET_OR_MAP: c_ulong = 0x3b71;
const UNMAP: c_ulong = 0x3b72;
const IOEVENTFD: c_ulong = 0x3b74;
const FEATURE: c_ulong = 0x3b75;
const SET_ATTRIBUTE: c_ulong = 0x4018_aee1;

const NONE: &[Verdict] = &[Refused(ENODEV)];
const WRONG: &[Verdict] = &[Refused(EINVAL)];
const TAKEN: &[Verdict] = &[Refused(EEXIST)];
const UNMAPPED: &[Verdict] = &[Refused(EFAULT)];
const NOT_ITS_OWN: &[Verdict] = &[Refused(EIO)];
/// Of a function on the root bus, which nothing resets, or whose neighbours are not this VM's.
const NEIGHBOURS: &[Verdict] = &[Refused(ENODEV), Refused(EINVAL)];

pub(super) const CLASS: &str = "A passed-through function";

/// What is tried where the machine has a function.
pub(super) const ATTEMPTS: &[Attempt] = &[
    dies("its IOMMU group anew", |w| open(&of(w).node), NOT_THERE),
    dies("another container: `/dev/vfio/vfio`", |_| open(CONTAINER), NOT_THERE),
    dies("its configuration space in sysfs", |w| in_sysfs(w, "config"), NOT_THERE),
    dies("its registers in sysfs", |w| in_sysfs(w, "resource0"), NOT_THERE),
    dies(
        "another function by its group",
        |w| pointed(of(w).group, GET_DEVICE, c"0000:ff:1f.7".as_ptr()),
        NONE,
    ),
    dies(
        "the function once more by its group",
        |w| pointed(of(w).group, GET_DEVICE, of(w).address.as_ptr()),
        OPEN,
    ),
    dies(
        "its group out of the container",
        |w| request(of(w).group, UNSET_CONTAINER, 0),
        &[Refused(EBUSY)],
    ),
    dies(
        "its group into a container again",
        |w| pointed(of(w).group, SET_CONTAINER, &raw const of(w).container),
        WRONG,
    ),
    dies("another model of the IOMMU", |w| request(of(w).container, SET_IOMMU, 1), WRONG),
    ends(
        "the VMM's own memory for the function to write (`VFIO_IOMMU_MAP_DMA`)",
        |w| map(w, memory()?, own_address()),
        &[(Main, OPEN), (Vcpu, OPEN)],
        OPEN,
    ),
    ends(
        "the VMM's code for the function to write",
        |w| map(w, code(), own_address()),
        &[(Main, UNMAPPED), (Vcpu, UNMAPPED)],
        UNMAPPED,
    ),
    ends(
        "the kernel's memory for the function to write",
        |w| map(w, KERNEL, own_address()),
        &[(Main, UNMAPPED), (Vcpu, UNMAPPED)],
        UNMAPPED,
    ),
    ends(
        "other memory in the place of the guest's",
        |w| map(w, memory()?, 0),
        &[(Main, TAKEN), (Vcpu, TAKEN)],
        TAKEN,
    ),
    ends(
        "memory where the PC has its interrupts",
        |w| map(w, memory()?, INTERRUPTS),
        &[(Main, WRONG), (Vcpu, WRONG)],
        WRONG,
    ),
    dies("taking memory from the function (`VFIO_IOMMU_UNMAP_DMA`)", unmap, OPEN),
    ends(
        "resetting what is beside it",
        hot_reset,
        &[(Main, NEIGHBOURS), (Vcpu, NEIGHBOURS)],
        NEIGHBOURS,
    ),
    ends(
        "interrupts that it does not have",
        more_interrupts,
        &[(Main, WRONG), (Vcpu, WRONG)],
        WRONG,
    ),
    ends(
        "reading its configuration space (`pread64`)",
        |w| {
            let f = of(w);
            f.identified(|place| plain(libc::SYS_pread64, &[f.device as u64, place, 4, CONFIG]))
        },
        &[(Main, OPEN), (Vcpu, OPEN)],
        OPEN,
    ),
    ends(
        "reading its configuration space (`preadv`)",
        |w| {
            let f = of(w);
            f.identified(|place| {
                let vector = [place, 4];
                plain(libc::SYS_preadv, &[f.device as u64, at(&vector), 1, CONFIG])
            })
        },
        &[(Block, OPEN)],
        OPEN,
    ),
    ends(
        "writing to its configuration space (`pwrite64`)",
        |w| plain(libc::SYS_pwrite64, &[of(w).device as u64, at(&0u8), 1, INTERRUPT_LINE]),
        &[(Main, OPEN), (Vcpu, OPEN), (Block, OPEN), (Log, OPEN)],
        OPEN,
    ),
    ends(
        "the PC's VGA registers (`pread64`)",
        |w| {
            let mut found = 0u32;
            let place = (&raw mut found) as u64;
            plain(libc::SYS_pread64, &[of(w).device as u64, place, 4, VGA + 0xa_0000])
        },
        &[(Main, WRONG), (Vcpu, WRONG)],
        WRONG,
    ),
    ends(
        "reading its registers (`read`)",
        |w| {
            let mut found = 0u32;
            plain(libc::SYS_read, &[of(w).device as u64, (&raw mut found) as u64, 4])
        },
        &[(Main, OPEN), (Vcpu, OPEN), (Block, OPEN), (Screen, OPEN), (Log, OPEN)],
        OPEN,
    ),
    ends(
        "mapping its registers",
        |w| map_registers(w, libc::PROT_READ | libc::PROT_WRITE),
        &[(Main, OPEN), (Vcpu, OPEN), (Block, OPEN), (Screen, OPEN), (Log, OPEN)],
        OPEN,
    ),
    dies(
        "mapping its registers to execute",
        |w| map_registers(w, libc::PROT_READ | libc::PROT_EXEC),
        &[Out, Refused(EPERM)],
    ),
    dies("what VFIO says of a region", region_info, OPEN),
    dies("a write to its registers by an eventfd", ioeventfd, NONE),
    dies("a feature of VFIO's (`VFIO_DEVICE_FEATURE`)", feature, &[Refused(ENOTTY)]),
    dies("handing it out", |w| d::hand_out(w.given, of(w).device), OPEN),
    ends("having KVM forget its group", forget, &[(Main, NOT_ITS_OWN)], NOT_ITS_OWN),
];

fn of(world: &World) -> &Function {
    &world.function
}

fn open(path: impl AsRef<Path>) -> Result<(), Errno> {
    d::open(path.as_ref().to_str().unwrap(), libc::O_RDWR)
}

fn in_sysfs(world: &World, name: &str) -> Result<(), Errno> {
    let address = of(world).address.to_str().unwrap();
    open(format!("/sys/bus/pci/devices/{address}/{name}"))
}

fn request(fd: RawFd, request: c_ulong, argument: u64) -> Result<(), Errno> {
    plain(libc::SYS_ioctl, &[fd as u64, request, argument])
}

fn pointed<T>(fd: RawFd, number: c_ulong, argument: *const T) -> Result<(), Errno> {
    request(fd, number, argument as u64)
}

/// Returns a page of this process's own.
fn memory() -> Result<u64, Errno> {
    d::map(libc::PROT_READ | libc::PROT_WRITE, 0)
}

/// Returns a page of the program.
fn code() -> u64 {
    (memory as fn() -> Result<u64, Errno>) as usize as u64 & !(PAGE - 1)
}

/// Returns an I/O address that no other process of the tool takes: what one of them maps stays when it is over.
fn own_address() -> u64 {
    FREE + u64::from(std::process::id()) * PAGE
}

/// Makes a page of memory one that the function reads and writes at an I/O address.
fn map(world: &World, host: u64, guest: u64) -> Result<(), Errno> {
    let read_and_write = 3 << 32;
    pointed(of(world).container, HOT_RESET_OR_MAP, &[32 | read_and_write, host, guest, PAGE])
}

/// Where nothing is mapped: the guest's memory is left to who tries next.
fn unmap(world: &World) -> Result<(), Errno> {
    let mut what = [24u64, FREE - PAGE, PAGE];
    pointed(of(world).container, UNMAP, what.as_mut_ptr())
}

fn hot_reset(world: &World) -> Result<(), Errno> {
    pointed(of(world).device, HOT_RESET_OR_MAP, &[16u32, 0, 1, of(world).group as u32])
}

fn more_interrupts(world: &World) -> Result<(), Errno> {
    let trigger_by_eventfd = 1 << 2 | 1 << 5;
    let msi_x = 2;
    pointed(of(world).device, SET_IRQS, &[24u32, trigger_by_eventfd, msi_x, 4096, 1, u32::MAX])
}

fn map_registers(world: &World, protection: i32) -> Result<(), Errno> {
    let shared = libc::MAP_SHARED as u64;
    let device = of(world).device as u64;
    plain(libc::SYS_mmap, &[0, PAGE, protection as u64, shared, device, BAR0])
}

fn region_info(world: &World) -> Result<(), Errno> {
    let mut info = [32u32, 0, 7, 0, 0, 0, 0, 0];
    pointed(of(world).device, GET_REGION_INFO, info.as_mut_ptr())
}

/// Takes an eventfd away that is not there: one that was would write to the registers.
fn ioeventfd(world: &World) -> Result<(), Errno> {
    let of_32_bits = 4 << 32;
    pointed(of(world).device, IOEVENTFD, &[32u64 | of_32_bits, BAR0, 0, 0xffff_ffff])
}

/// Asks whether its state can be taken along (`VFIO_DEVICE_FEATURE_MIGRATION`).
fn feature(world: &World) -> Result<(), Errno> {
    let probe_whether_it_can_be_read = 1 << 18 | 1 << 16;
    let mut feature = [8u32, probe_whether_it_can_be_read | 1, 0, 0, 0, 0];
    pointed(of(world).device, FEATURE, feature.as_mut_ptr())
}

fn forget(world: &World) -> Result<(), Errno> {
    let group_file = 1u64 << 32;
    let delete = 2;
    let attribute = [group_file, delete, at(&of(world).group)];
    pointed(of(world).kvm, SET_ATTRIBUTE, &attribute)
}

/// Requests that a filter must not allow beyond the role's own, each of which some attempt finds.
const PLANTED_REQUESTS: &[(&str, c_ulong)] = &[
    ("VFIO_GROUP_GET_DEVICE_FD", GET_DEVICE),
    ("VFIO_GROUP_UNSET_CONTAINER", UNSET_CONTAINER),
    ("VFIO_SET_IOMMU", SET_IOMMU),
    ("VFIO_IOMMU_MAP_DMA", HOT_RESET_OR_MAP),
    ("VFIO_IOMMU_UNMAP_DMA", UNMAP),
    ("VFIO_DEVICE_SET_IRQS", SET_IRQS),
    ("KVM_SET_DEVICE_ATTR", SET_ATTRIBUTE),
];
/// Calls likewise.
const PLANTED_CALLS: &[(&str, c_long)] = &[
    ("pread64", libc::SYS_pread64),
    ("preadv", libc::SYS_preadv),
    ("pwrite64", libc::SYS_pwrite64),
];

/// Tries whether the attempts notice filters that are wider than they should be; returns what they do not notice.
pub(super) fn planted(world: &World) -> Vec<String> {
    let mut unnoticed = Vec::new();
    for role in Role::ALL {
        let lists = Allowlist::of(role);
        let requests = PLANTED_REQUESTS.iter().filter(|it| !lists.ioctls.contains(&it.1));
        let requests = requests.map(|(name, request)| (name, lists.clone().asking(*request)));
        let calls = PLANTED_CALLS.iter().filter(|it| lists.calls.iter().all(|c| c.number != it.1));
        let calls = calls.map(|(name, number)| (name, lists.clone().with(*number)));
        for (name, wider) in requests.chain(calls) {
            if findings_in(CLASS, ATTEMPTS, world, role, &wider).next().is_none() {
                unnoticed.push(format!("{role:?}: no attempt notices a filter that allows {name}"));
            }
        }
    }
    unnoticed
}

#[test]
fn a_group_is_told_from_the_container_by_its_number() {
    assert!(is_group("/dev/vfio/12") && !is_group(CONTAINER));
    assert!(!is_group("/dev/vfio/") && !is_group("/dev/vfio/noiommu-0"));
}
