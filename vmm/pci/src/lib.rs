//! PCI as a guest sees it: functions, their configuration space, MSI-X, and the bus they sit on.
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
