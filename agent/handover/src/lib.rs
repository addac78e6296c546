//! The PC's PCI functions: which of them may be handed to a domain, and their hand-over to vfio-pci
//! and back. What a function is and whether its IOMMU group can be given away is the crate `hostpci`'s,
//! which the VMM asks too; what the machine file says of them is the crate `claims`'.
//!
//! | file | what |
//! | --- | --- |
//! | [`judge`] | whether a function may be handed over: every refusal, before anything is touched |
//! | [`host_use`] | what the host lives from: disks in use, the seat's screen, keyboard and pointer |
//! | [`pins`] | what machine.toml says a function must be, so that a moved card is not taken for another |
//! | [`handover`] | driver_override, unbind, bind, and the record that outlives a crash |
//! | [`reserve`] | early at boot, what no driver has yet is kept from every one of the host's |
//! | [`processor`] | who made the processor, and what its BIOS calls virtualisation and IOMMU |
//! | [`sysfs`] | the few ways the agent touches sysfs, so that a test can stand in for the kernel |
// A print waits for its reader, and panics when that is gone.
#![deny(clippy::print_stderr)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod handover;
pub mod host_use;
pub mod judge;
pub mod pins;
pub mod processor;
pub mod reserve;
pub mod sysfs;

pub use claims::{AddressError, ClaimedFunction, Claims, PciAddress, Role};
