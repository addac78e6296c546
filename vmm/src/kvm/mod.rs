//! The kernel's side of the machine: one VM, its memory slots, interrupt routes and doorbells.

mod doorbells;
mod interrupts;
mod slots;

use std::io;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_API_VERSION, KVM_CAP_PMU_CAPABILITY, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES, KVM_PMU_CAP_DISABLE, kvm_enable_cap, kvm_irqchip,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use virtio::GuestMemory;

pub use doorbells::KvmDoorbells;
pub use interrupts::{Interrupts, KvmMsi};
pub use slots::KvmSlots;

use crate::layout;

/// Why KVM cannot be used, or refused something while the machine was built.
#[derive(Debug, thiserror::Error)]
pub enum KvmError {
    /// `/dev/kvm` is not there.
    #[error(
        "/dev/kvm is not there: this PC's processor has virtualisation off or the kvm modules are not loaded; \
         turn on Intel VT-x / AMD-V (SVM) in the firmware setup, then `modprobe kvm-intel` or `modprobe kvm-amd`"
    )]
    Absent,
    /// The process may not open `/dev/kvm`.
    #[error("no permission to open /dev/kvm; run as root or add the user to the group `kvm`")]
    Permission,
    /// `/dev/kvm` could not be opened for another reason.
    #[error("could not open /dev/kvm")]
    Open(#[source] io::Error),
    /// A kernel from before 2007 or something else entirely.
    #[error(
        "/dev/kvm speaks version {0} of its interface, not {KVM_API_VERSION}; install a current kernel"
    )]
    Version(i32),
    /// KVM lacks a capability that this VMM is built on.
    #[error("this kernel's KVM lacks {0}; install Linux 5.10 or newer")]
    Capability(&'static str),
    /// An ioctl failed.
    #[error("KVM would not {what}")]
    Ioctl {
        /// What was asked of it.
        what: &'static str,
        #[source]
        source: io::Error,
    },
}

/// Turns an errno of kvm-ioctls into a [`KvmError`] that says what was asked.
pub(crate) fn refused(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> KvmError {
    move |e| KvmError::Ioctl { what, source: io::Error::from_raw_os_error(e.errno()) }
}

/// A virtual machine with RAM and interrupt controllers but no vCPU yet.
pub struct Vm {
    kvm: Kvm,
    fd: Arc<VmFd>,
    /// The interrupt controllers as they were created, to which a reset returns.
    irqchips: [kvm_irqchip; 3],
}

/// What KVM must offer.
const NEEDED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "an in-kernel interrupt controller"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::Irqfd, "irqfd"),
    (Cap::IrqRouting, "interrupt routing"),
    (Cap::UserMemory, "user memory slots"),
    (Cap::SetTssAddr, "a task-state address"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::TscDeadlineTimer, "a TSC deadline timer"),
];

impl Vm {
    /// Opens KVM and creates a VM with `memory` as its RAM.
    pub fn new(memory: &GuestMemory) -> Result<Self, KvmError> {
        let kvm = Kvm::new().map_err(|e| match e.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => KvmError::Absent,
            libc::EACCES | libc::EPERM => KvmError::Permission,
            errno => KvmError::Open(io::Error::from_raw_os_error(errno)),
        })?;
        let version = kvm.get_api_version();
        if u32::try_from(version) != Ok(KVM_API_VERSION) {
            return Err(KvmError::Version(version));
        }
        for (cap, name) in NEEDED {
            if !kvm.check_extension(*cap) {
                return Err(KvmError::Capability(name));
            }
        }
        let fd = Arc::new(kvm.create_vm().map_err(refused("create a virtual machine"))?);
        disable_counters(&kvm, &fd)?;
        fd.set_tss_address(layout::KVM_TSS).map_err(refused("set the task-state address"))?;
        fd.create_irq_chip().map_err(refused("create the interrupt controllers"))?;
        slots::set_ram(&fd, memory)?;
        let mut irqchips = [
            kvm_irqchip { chip_id: KVM_IRQCHIP_PIC_MASTER, ..Default::default() },
            kvm_irqchip { chip_id: KVM_IRQCHIP_PIC_SLAVE, ..Default::default() },
            kvm_irqchip { chip_id: KVM_IRQCHIP_IOAPIC, ..Default::default() },
        ];
        for chip in &mut irqchips {
            fd.get_irqchip(chip).map_err(refused("tell the interrupt controllers' state"))?;
        }
        Ok(Self { kvm, fd, irqchips })
    }

    /// Puts the interrupt controllers back into the state they were created in.
    pub fn reset_irqchip(&self) -> Result<(), KvmError> {
        for chip in &self.irqchips {
            self.fd.set_irqchip(chip).map_err(refused("reset the interrupt controllers"))?;
        }
        Ok(())
    }

    /// Returns the VM's file descriptor, shared with what maps, routes and signals at run time.
    pub fn fd(&self) -> &Arc<VmFd> {
        &self.fd
    }

    /// Creates the vCPU with this APIC ID.
    pub fn create_vcpu(&self, id: u8) -> Result<VcpuFd, KvmError> {
        self.fd.create_vcpu(u64::from(id)).map_err(refused("create a vCPU"))
    }

    /// Returns the processor features KVM can give a guest on this host.
    pub fn supported_cpuid(&self) -> Result<CpuId, KvmError> {
        self.kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(refused("list the processor features it supports"))
    }

    /// Returns the model-specific registers that make up a vCPU's state.
    pub fn msr_indices(&self) -> Result<Vec<u32>, KvmError> {
        let list = self.kvm.get_msr_index_list().map_err(refused("list its registers"))?;
        Ok(list.as_slice().to_vec())
    }
}

/// Takes the performance counters away from the guest. Hiding them in CPUID is not enough: AMD's
/// legacy counters have no bit there, and KVM emulates them for every guest it has not been told
/// otherwise of. Has to come before the first vCPU. Not seen on AMD hardware.
fn disable_counters(kvm: &Kvm, vm: &VmFd) -> Result<(), KvmError> {
    let offered = kvm.check_extension_raw(KVM_CAP_PMU_CAPABILITY.into());
    if u32::try_from(offered).unwrap_or(0) & KVM_PMU_CAP_DISABLE == 0 {
        tracing::debug!("this kernel cannot take performance counters away; Linux 5.18 can");
        return Ok(());
    }
    let mut cap = kvm_enable_cap { cap: KVM_CAP_PMU_CAPABILITY, ..Default::default() };
    cap.args = [KVM_PMU_CAP_DISABLE.into(), 0, 0, 0];
    vm.enable_cap(&cap).map_err(refused("take performance counters away from the guest"))
}
