//! One VM's view of the IOMMU: guest RAM, and the groups of the functions it has.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hostpci::{Address, Blocked, InspectError, Sysfs, VFIO_PCI};
use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_create_device,
    kvm_device_attr, kvm_device_type_KVM_DEV_TYPE_VFIO,
};
use kvm_ioctls::{DeviceFd, VmFd};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use pci::host::MsiController;
use vfio_bindings::bindings::vfio::{
    VFIO_API_VERSION, VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1v2_IOMMU,
};
use vm_memory::{Address as _, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::device::Device;
use crate::function::{FunctionError, VfioFunction};
use crate::slots::MemorySlots;
use crate::sys;

const NODE: &str = "/dev/vfio/vfio";

/// Why a function could not be passed through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Looking it up failed.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// It may not be handed over.
    #[error(transparent)]
    Blocked(#[from] Blocked),
    /// No driver, or the wrong one.
    #[error("{}", not_bound(*address, driver.as_deref()))]
    NotBound {
        /// The function.
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
    },
    /// VFIO itself is not there or not for us.
    #[error("{}", cannot_open(NODE, source))]
    Vfio {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// VFIO does not offer what every kernel since 4.0 does.
    #[error("this kernel's VFIO has no type 1 IOMMU: load the module vfio_iommu_type1")]
    NoType1,
    /// KVM would not be told.
    #[error(
        "KVM would not take note of a passed-through function: use a kernel with CONFIG_KVM_VFIO"
    )]
    Kvm(#[source] io::Error),
    /// The same function twice.
    #[error("{0} is named twice; name it once")]
    Twice(Address),
    /// The group's file cannot be opened.
    #[error("{address}: {}", cannot_open(&format!("/dev/vfio/{group}"), source))]
    Group {
        /// The function.
        address: Address,
        /// Its group.
        group: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// VFIO itself sees another driver in the group.
    #[error(
        "{0}: VFIO says that another driver has a device of its IOMMU group; `bulkhead doctor` lists the group"
    )]
    NotViable(Address),
    /// The IOMMU would not confine it.
    #[error("{}", cannot_confine(*address, source))]
    Confine {
        /// The function.
        address: Address,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Guest RAM could not be pinned.
    #[error("{}", cannot_lock(*need, *limit))]
    LockedMemory {
        /// Bytes of guest RAM.
        need: u64,
        /// The limit in bytes; `None` if there is none.
        limit: Option<u64>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Guest RAM could not be mapped for another reason.
    #[error(
        "the IOMMU would not map guest memory from {start:#x} to {end:#x}: give the guest less memory if the IOMMU's address width is too small for it (dmesg says so)"
    )]
    Map {
        /// First guest-physical address.
        start: u64,
        /// One past the last.
        end: u64,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The device itself would not open.
    #[error("{address} could not be opened through its group: `dmesg` says why")]
    Device {
        /// The function.
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Not PCI after all.
    #[error("VFIO does not know {0} as a PCI device")]
    NotPci(Address),
    /// It opened, but cannot be used.
    #[error(transparent)]
    Function(#[from] FunctionError),
}

fn not_bound(address: Address, driver: Option<&str>) -> String {
    let now = match driver {
        Some(driver) => format!("{address} is in use by this PC's driver {driver}"),
        None => format!("{address} has no driver"),
    };
    format!(
        "{now}, not {VFIO_PCI}: the agent hands it over when a domain names it; by hand, `driverctl set-override {address} {VFIO_PCI}`"
    )
}

fn cannot_open(node: &str, error: &io::Error) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => "load the module (modprobe vfio-pci)",
        io::ErrorKind::PermissionDenied => {
            "this user may not; the agent gives it to the VMM's user"
        }
        io::ErrorKind::ResourceBusy => {
            "another process has it, perhaps another VM: stop that one first"
        }
        _ => "`dmesg` says why",
    };
    format!("could not open {node}: {remedy}")
}

fn cannot_confine(address: Address, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::PermissionDenied {
        return format!(
            "this PC does not remap interrupts, so a guest with {address} could forge them: turn on interrupt remapping (with VT-d or AMD-Vi, sometimes x2APIC) in the firmware setup"
        );
    }
    format!("the IOMMU would not take {address}: `dmesg` says why")
}

fn cannot_lock(need: u64, limit: Option<u64>) -> String {
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    match limit {
        Some(limit) if limit < need => format!(
            "a guest with a passed-through function needs all its memory locked, {} MiB, and this process may lock {} MiB: raise the limit (LimitMEMLOCK= in a systemd unit, `ulimit -l` in a shell)",
            mib(need),
            mib(limit)
        ),
        _ => format!(
            "the host could not lock the guest's {} MiB of memory: close other programs or give the guest less",
            mib(need)
        ),
    }
}

/// The IOMMU domain of one VM. Guest RAM is mapped into it once, guest-physical address for I/O
/// address, when the first function is opened; other functions' BARs are not, so that two functions
/// of one guest cannot reach each other behind the mediation.
#[derive(Debug)]
pub struct Container {
    shared: Arc<Shared>,
    sysfs: Sysfs,
    open: Mutex<Opened>,
}

/// What is open already.
#[derive(Debug, Default)]
struct Opened {
    functions: BTreeSet<Address>,
    /// A group can be opened once, and two functions of it can belong to one guest.
    groups: BTreeMap<u32, Weak<Group>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    file: File,
    kvm: DeviceFd,
    /// Keeps guest RAM mapped for as long as a device might reach it.
    memory: GuestMemoryMmap<()>,
    /// Whether the IOMMU model is chosen and RAM mapped.
    mapped: Mutex<bool>,
}

impl Container {
    /// An IOMMU domain for `vm` with `memory` as its RAM. Opens `/dev/vfio/vfio`.
    pub fn new(vm: &VmFd, memory: &GuestMemoryMmap<()>) -> Result<Self, Error> {
        let file = open(NODE).map_err(|source| Error::Vfio { source })?;
        let version = sys::api_version(&file).map_err(|source| Error::Vfio { source })?;
        let type1 = sys::has_extension(&file, VFIO_TYPE1v2_IOMMU)
            .map_err(|source| Error::Vfio { source })?;
        if version != VFIO_API_VERSION.cast_signed() || !type1 {
            return Err(Error::NoType1);
        }
        let mut device =
            kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, ..Default::default() };
        let kvm = vm.create_device(&mut device).map_err(kvm_error)?;
        let shared = Shared { file, kvm, memory: memory.clone(), mapped: Mutex::new(false) };
        Ok(Self { shared: Arc::new(shared), sysfs: Sysfs::default(), open: Mutex::default() })
    }

    /// Opens, resets and takes over the function at `address`. Opens `/dev/vfio/GROUP` and reads
    /// sysfs; afterwards the function lives on what it has open.
    pub fn open(
        &self,
        address: Address,
        msi: Arc<dyn MsiController>,
        slots: Arc<dyn MemorySlots>,
    ) -> Result<VfioFunction, Error> {
        let found = self.sysfs.inspect(address)?;
        let number = found.isolated()?;
        if found.driver.as_deref() != Some(VFIO_PCI) {
            return Err(Error::NotBound { address, driver: found.driver });
        }
        let mut opened = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.functions.contains(&address) {
            return Err(Error::Twice(address));
        }
        let group = match opened.groups.get(&number).and_then(Weak::upgrade) {
            Some(group) => group,
            None => Arc::new(Group::open(Arc::clone(&self.shared), address, number)?),
        };
        opened.groups.insert(number, Arc::downgrade(&group));
        let name = CString::new(address.to_string())
            .map_err(|e| Error::Device { address, source: e.into() })?;
        let device = |source| Error::Device { address, source };
        let file = sys::device(group.file(), &name).map_err(device)?;
        let hardware = Device::new(file, group).map_err(device)?.ok_or(Error::NotPci(address))?;
        let function = VfioFunction::new(Box::new(hardware), address, &*msi, slots)?;
        opened.functions.insert(address);
        Ok(function)
    }
}

impl Shared {
    /// Chooses the IOMMU model and maps guest RAM, once there is a group.
    fn map_memory(&self, address: Address) -> Result<(), Error> {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        if *mapped {
            return Ok(());
        }
        sys::set_iommu(&self.file, VFIO_TYPE1v2_IOMMU)
            .map_err(|source| Error::Confine { address, source })?;
        for region in self.memory.iter() {
            let (start, size) = (region.start_addr().raw_value(), region.len());
            // SAFETY: guest RAM, which Rust reaches only as volatile memory and which `self` keeps
            // mapped for as long as the container is open.
            unsafe { sys::map_dma(&self.file, start, region.as_ptr(), size) }.map_err(
                |source| {
                    if source.raw_os_error() == Some(libc::ENOMEM) {
                        let need = self.memory.iter().map(GuestMemoryRegion::len).sum();
                        Error::LockedMemory { need, limit: locked_memory_limit(), source }
                    } else {
                        Error::Map { start, end: start.saturating_add(size), source }
                    }
                },
            )?;
        }
        *mapped = true;
        Ok(())
    }

    fn tell_kvm(&self, attribute: u32, group: &File) -> Result<(), kvm_ioctls::Error> {
        let fd = group.as_raw_fd();
        self.kvm.set_device_attr(&kvm_device_attr {
            group: KVM_DEV_VFIO_FILE,
            attr: u64::from(attribute),
            addr: &raw const fd as u64,
            flags: 0,
        })
    }
}

/// A group in the container. Leaves KVM and the container when the last device of it is closed.
#[derive(Debug)]
pub(crate) struct Group {
    file: File,
    number: u32,
    container: Arc<Shared>,
}

impl Group {
    fn open(container: Arc<Shared>, address: Address, number: u32) -> Result<Self, Error> {
        let file = open(&format!("/dev/vfio/{number}")).map_err(|source| Error::Group {
            address,
            group: number,
            source,
        })?;
        let confine = |source| Error::Confine { address, source };
        if sys::group_flags(&file).map_err(confine)? & VFIO_GROUP_FLAGS_VIABLE == 0 {
            return Err(Error::NotViable(address));
        }
        sys::set_container(&file, &container.file).map_err(confine)?;
        container.map_memory(address)?;
        // KVM has to know before a device is opened: it decides how it treats non-coherent DMA.
        container.tell_kvm(KVM_DEV_VFIO_FILE_ADD, &file).map_err(kvm_error)?;
        Ok(Self { file, number, container })
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Err(error) = self.container.tell_kvm(KVM_DEV_VFIO_FILE_DEL, &self.file) {
            tracing::warn!(%error, "KVM keeps a group that is being closed");
        }
    }
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn kvm_error(error: kvm_ioctls::Error) -> Error {
    Error::Kvm(io::Error::from_raw_os_error(error.errno()))
}

fn locked_memory_limit() -> Option<u64> {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft != RLIM_INFINITY => Some(soft),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_small_a_locked_memory_limit_is_reported_with_both_figures_and_the_remedy() {
        let text = cannot_lock(4 << 30, Some(64 << 10));
        assert!(text.contains("4096 MiB") && text.contains("may lock 1 MiB"), "{text}");
        assert!(text.contains("LimitMEMLOCK="), "{text}");
        let text = cannot_lock(4 << 30, None);
        assert!(text.contains("give the guest less") && !text.contains("LimitMEMLOCK"), "{text}");
    }

    #[test]
    fn a_function_that_another_driver_or_none_has_is_refused_and_the_driver_named() {
        let address = "0000:00:05.0".parse().unwrap();
        let text = Error::NotBound { address, driver: Some("e1000e".to_owned()) }.to_string();
        assert!(text.contains("driver e1000e, not vfio-pci"), "{text}");
        let text = Error::NotBound { address, driver: None }.to_string();
        assert!(text.contains("has no driver, not vfio-pci"), "{text}");
    }

    #[test]
    fn a_group_another_vm_has_is_reported_as_such() {
        let source = io::Error::from_raw_os_error(libc::EBUSY);
        let address = "0000:00:05.0".parse().unwrap();
        let text = Error::Group { address, group: 7, source }.to_string();
        assert!(text.contains("/dev/vfio/7: another process has it"), "{text}");
    }

    #[test]
    fn missing_interrupt_remapping_is_never_answered_with_unsafe_interrupts() {
        let source = io::Error::from_raw_os_error(libc::EPERM);
        let address = "0000:00:05.0".parse().unwrap();
        let text = Error::Confine { address, source }.to_string();
        assert!(text.contains("interrupt remapping") && !text.contains("allow_unsafe"), "{text}");
    }
}
