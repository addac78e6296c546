//! PCI as a guest sees it: functions, their configuration space, MSI and MSI-X, and the bus they sit on.
//!
//! This crate knows nothing of KVM, of virtio or of VFIO. What a function needs of the machine
//! around it (interrupt vectors, doorbells) it asks for through the traits in [`host`], which the
//! VMM implements over KVM and tests implement over a recorder.
//!
//! ```text
//!   vCPU exit -> Bus (ECAM, 0xCF8, BAR windows) -> Function::{config_*, *_bar}
//!                                                     |            \
//!                                              ConfigSpace, Msix    host::{MsiVector, Doorbells}
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`function`] | the trait that every function implements: virtio's transport, xHCI, passed-through ones |
//! | [`bus`] | bus 0, which finds the function of an access, by number or by address |
//! | [`config`], [`bar`] | a configuration space as data: which bits a guest may write, and where its BARs are |
//! | [`msi`], [`msix`] | the two ways to interrupt, without a pin |
//! | [`host`] | what a function asks of the machine around it |
//!
//! Every access of a guest's ends with a value, whatever it asks for: what is not there reads as ones, and writes to it are dropped. An access takes the lock
//! of one function and no other, so that one that is slow stalls only whoever talks to it.
//!
//! Left out: bridges and further buses, functions besides 0, hot-plug, expansion ROMs, I/O BARs, interrupt pins, power management.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are halves and bytes of wider values; lengths and indices are checked"
)]

pub mod bar;
pub mod bus;
pub mod config;
pub mod function;
pub mod host;
pub mod msi;
pub mod msix;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use bar::{BarIndex, BarKind, Window};
pub use bus::Bus;
pub use config::{ConfigSpace, Identity};
pub use function::Function;
pub use msi::Msi;
pub use msix::Msix;
