//! Doorbells: guest writes that signal an eventfd without leaving the kernel.

use std::io;
use std::sync::Arc;

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use pci::host::Doorbells;
use vmm_sys_util::eventfd::EventFd;

/// [`Doorbells`] over KVM's ioeventfd.
pub struct KvmDoorbells {
    vm: Arc<VmFd>,
}

impl KvmDoorbells {
    /// Makes the doorbells of this VM.
    pub fn new(vm: Arc<VmFd>) -> Self {
        Self { vm }
    }
}

impl Doorbells for KvmDoorbells {
    fn attach(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        self.vm
            .register_ioevent(fd, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }

    fn detach(&self, fd: &EventFd, address: u64) -> io::Result<()> {
        self.vm
            .unregister_ioevent(fd, &IoEventAddress::Mmio(address), NoDatamatch)
            .map_err(|e| io::Error::from_raw_os_error(e.errno()))
    }
}
