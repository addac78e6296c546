//! Why a function cannot be passed through, and what to do.

use std::io;

use hostpci::{Address, GroupRefusal, InspectError, VFIO_PCI};

use crate::function::FunctionError;

/// VFIO's own device node.
pub(crate) const NODE: &str = "/dev/vfio/vfio";

/// Why a function could not be passed through.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The function could not be looked up in sysfs.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// The function may not be handed over.
    #[error(transparent)]
    Blocked(#[from] GroupRefusal),
    /// The function is not bound to vfio-pci.
    #[error("{}", not_bound(*address, driver.as_deref()))]
    NotBound {
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
    },
    /// VFIO is not there, or this process may not use it.
    #[error("{}", cannot_open(NODE, source))]
    Vfio {
        #[source]
        source: io::Error,
    },
    /// VFIO does not offer what every kernel since 4.0 does.
    #[error("this kernel's VFIO has no type 1 IOMMU: load the module vfio_iommu_type1")]
    NoType1,
    /// KVM did not take note of the function's group.
    #[error(
        "KVM would not take note of a passed-through function: use a kernel with CONFIG_KVM_VFIO"
    )]
    Kvm(#[source] io::Error),
    /// The function is open already.
    #[error("{0} is named twice; name it once")]
    Twice(Address),
    /// The group's file cannot be opened.
    #[error("{address}: {}", cannot_open(&format!("/dev/vfio/{group}"), source))]
    Group {
        address: Address,
        group: u32,
        #[source]
        source: io::Error,
    },
    /// VFIO itself sees another driver in the group.
    #[error(
        "{0}: VFIO says that another driver has a device of its IOMMU group; `bulkhead doctor` lists the group"
    )]
    NotViable(Address),
    /// The IOMMU could not be set up to confine the function.
    #[error("{}", cannot_confine(*address, source))]
    Confine {
        address: Address,
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
    /// VFIO did not open the device.
    #[error("{address} could not be opened through its group: `dmesg` says why")]
    Device {
        address: Address,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// VFIO says that the device is no PCI function.
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

pub(crate) fn kvm_error(error: kvm_ioctls::Error) -> Error {
    Error::Kvm(io::Error::from_raw_os_error(error.errno()))
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
