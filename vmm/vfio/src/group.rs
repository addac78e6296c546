//! IOMMU groups in a container, and the guest RAM they reach.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};

use hostpci::Address;
use kvm_bindings::{
    KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, KVM_DEV_VFIO_FILE_DEL, kvm_device_attr,
};
use kvm_ioctls::DeviceFd;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use vfio_bindings::bindings::vfio::{VFIO_GROUP_FLAGS_VIABLE, VFIO_TYPE1v2_IOMMU};
use vm_memory::{Address as _, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::error::{Error, kvm_error};
use crate::sys;

/// What the groups of a container share: its file, KVM's knowledge of it, and guest RAM.
#[derive(Debug)]
pub(crate) struct ContainerState {
    file: File,
    kvm: DeviceFd,
    /// Keeps guest RAM mapped for as long as a device might reach it.
    memory: GuestMemoryMmap<()>,
    /// Whether the IOMMU model is chosen and RAM mapped.
    mapped: Mutex<bool>,
}

impl ContainerState {
    pub(crate) fn new(file: File, kvm: DeviceFd, memory: GuestMemoryMmap<()>) -> Self {
        Self { file, kvm, memory, mapped: Mutex::new(false) }
    }

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

    fn update_kvm_device(&self, attribute: u32, group: &File) -> Result<(), kvm_ioctls::Error> {
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
    container: Arc<ContainerState>,
}

impl Group {
    pub(crate) fn open(
        container: Arc<ContainerState>,
        address: Address,
        number: u32,
    ) -> Result<Self, Error> {
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
        container.update_kvm_device(KVM_DEV_VFIO_FILE_ADD, &file).map_err(kvm_error)?;
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
        if let Err(error) = self.container.update_kvm_device(KVM_DEV_VFIO_FILE_DEL, &self.file) {
            tracing::warn!(%error, "KVM keeps a group that is being closed");
        }
    }
}

pub(crate) fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

fn locked_memory_limit() -> Option<u64> {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        Ok((soft, _)) if soft != RLIM_INFINITY => Some(soft),
        _ => None,
    }
}
