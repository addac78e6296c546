//! Whole PCI functions handed to a guest through VFIO.
//!
//! ```text
//!   hostpci: may it be handed over? --Container::open--> reset --> VfioFunction on the bus
//!
//!   guest --config space--> VirtualConfig ---+-- command, read request ---> hardware
//!         --BAR pages-----> (memory, no exit)|
//!         --MSI-X table---> Msix --> Interrupts --- eventfds ------------> hardware
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | `container`, `group` | the IOMMU domain of one VM: groups, guest RAM, KVM's knowledge of them |
//! | `error` | why a function cannot be passed through, and what to do |
//! | `config` | what of configuration space a guest sees and may change, and why |
//! | `bars` | BARs as memory of the guest, less the pages that are trapped |
//! | `interrupts` | MSI and MSI-X over eventfds |
//! | `reset` | the reset whose result decides whether a function changes hands |
//! | `hardware`, `device`, `sys` | the real function behind a trait; VFIO's system calls |
//!
//! Deliberately not here: INTx and I/O BARs (docs/design/decisions/0017), expansion ROMs, migration, peer-to-peer DMA between
//! functions, hot-plug, mediated devices, `allow_unsafe_interrupts`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod bars;
mod config;
mod container;
mod device;
mod error;
mod function;
mod group;
mod hardware;
mod interrupts;
mod reset;
pub mod slots;
mod sys;
#[cfg(test)]
mod testing;

pub use config::ConfigError;
pub use container::Container;
pub use error::Error;
pub use function::{FunctionError, Notices, VfioFunction};
pub use hostpci::{Address, AddressError};
pub use reset::ResetError;
pub use slots::{MemorySlots, Slot};
