//! Whole PCI functions handed to a guest through VFIO.
//!
//! ```text
//!   sysfs --inspect--> may it be handed over? --Container::open--> reset --> VfioFunction on the bus
//!
//!   guest --config space--> VirtualConfig ---+-- command, read request ---> hardware
//!         --BAR pages-----> (memory, no exit)|
//!         --MSI-X table---> Msix --> Interrupts --- eventfds ------------> hardware
//! ```
//!
//! | module | what |
//! | --- | --- |
//! | [`inspect`] | sysfs: is it there, isolated, ours; every refusal with its remedy; reads only |
//! | `container` | the IOMMU domain of one VM: groups, guest RAM, KVM's knowledge of them |
//! | `config` | what of configuration space a guest sees and may change, and why |
//! | `bars` | BARs as memory of the guest, less the pages that are trapped |
//! | `interrupts` | MSI and MSI-X over eventfds |
//! | `reset` | the reset whose result decides whether a function changes hands |
//! | `hardware`, `device`, `sys` | the real function behind a trait; VFIO's system calls |
//!
//! Deliberately not here: INTx, I/O BARs, expansion ROMs, migration, peer-to-peer DMA between
//! functions, hot-plug, mediated devices, `allow_unsafe_interrupts`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod address;
mod bars;
mod config;
mod container;
mod device;
mod function;
mod hardware;
pub mod inspect;
mod interrupts;
mod reset;
pub mod slots;
mod sys;
#[cfg(test)]
mod testing;

pub use address::{Address, AddressError};
pub use config::ConfigError;
pub use container::{Container, Error};
pub use function::{FunctionError, Notices, VfioFunction};
pub use inspect::Sysfs;
pub use reset::ResetError;
pub use slots::{MemorySlots, Slot};
