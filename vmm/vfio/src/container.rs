//! One VM's view of the IOMMU: guest RAM, and the groups of the functions it has.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hostpci::{Address, Sysfs, VFIO_PCI};
use kvm_bindings::{kvm_create_device, kvm_device_type_KVM_DEV_TYPE_VFIO};
use kvm_ioctls::VmFd;
use pci::host::MsiController;
use vfio_bindings::bindings::vfio::{VFIO_API_VERSION, VFIO_TYPE1v2_IOMMU};
use vm_memory::GuestMemoryMmap;

use crate::device::Device;
use crate::error::{Error, NODE, kvm_error};
use crate::function::VfioFunction;
use crate::group::{ContainerState, Group, open};
use crate::slots::MemorySlots;
use crate::sys;

/// The IOMMU domain of one VM. Guest RAM is mapped into it once, guest-physical address for I/O
/// address, when the first function is opened; other functions' BARs are not, so that two functions
/// of one guest cannot reach each other behind the mediation.
#[derive(Debug)]
pub struct Container {
    shared: Arc<ContainerState>,
    sysfs: Sysfs,
    open: Mutex<OpenDevices>,
}

/// What is open already.
#[derive(Debug, Default)]
struct OpenDevices {
    functions: BTreeSet<Address>,
    /// A group can be opened once, and two functions of it can belong to one guest.
    groups: BTreeMap<u32, Weak<Group>>,
}

impl Container {
    /// Makes an IOMMU domain for `vm` with `memory` as its RAM. Opens `/dev/vfio/vfio`.
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
        let shared = Arc::new(ContainerState::new(file, kvm, memory.clone()));
        Ok(Self { shared, sysfs: Sysfs::default(), open: Mutex::default() })
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
