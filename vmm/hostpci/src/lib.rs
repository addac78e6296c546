//! PCI functions as this PC's sysfs shows them, and the one rule for which of them may be handed to a
//! guest. The VMM asks it before it opens a function, the agent before it unbinds one, and the doctor
//! to say so beforehand; nothing else in the project decides it.
//!
//! ```text
//!   sysfs --Sysfs::inspect--> Function --+--> class      is it a device, or a part of the PC itself?
//!                                        +--> group      who else is in its IOMMU group?
//!   its `config` file ------> Snapshot --+--> usable     can a guest's driver work with it at all?
//! ```
//!
//! Reads only: nothing is opened, bound or changed, so it can be asked about any PC at any time.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod address;
pub mod class;
mod function;
pub mod group;
pub mod snapshot;
mod sysfs;
#[cfg(test)]
mod testing;
pub mod usable;

pub use address::{Address, AddressError};
pub use class::Class;
pub use function::{Function, Group, Interface, Member};
pub use group::{GroupRefusal, MemberStatus};
pub use snapshot::Snapshot;
pub use sysfs::{InspectError, Sysfs};
pub use usable::Unusable;

/// The driver that hands functions to processes.
pub const VFIO_PCI: &str = "vfio-pci";
