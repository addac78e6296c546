//! The virtio 1.2 PCI transport (section 4.1), modern interface only.
//!
//! ```text
//!  vCPU: configuration space, BAR 0 --> VirtioPci { registers } --DRIVER_OK--> Core --> Device::activate
//!  guest write to a notify address --ioeventfd--> VirtioPciWorker --> Device::queue_notified
//!  Device --Interrupt--> IrqLine --> MSI-X vector --irqfd--> guest
//! ```
//! One 64-bit BAR holds everything, so that a guest sizes and maps one window a device:
//!
//! | offset | what |
//! | --- | --- |
//! | 0x0000 | common configuration (section 4.1.4.3) |
//! | 0x0100 | ISR status (section 4.1.4.5); always zero in effect, as there is no interrupt pin |
//! | 0x0200 | device-specific configuration |
//! | 0x1000 | notifications: queue `i` at `+ 4 * i` |
//! | 0x2000 | MSI-X table |
//! | 0x3000 | MSI-X pending bits |
//!
//! Register accesses take the transport's lock only, and nothing done under it waits for the device,
//! however long that works on a queue: see module `core` for how it is started and reset.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]
#![allow(
    clippy::cast_possible_truncation,
    reason = "registers are halves and bytes of wider values; lengths and indices are checked"
)]

mod common;
mod core;
mod function;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod line;
mod spec;
mod worker;

#[cfg(test)]
mod tests;

pub use function::VirtioPci;
pub use worker::VirtioPciWorker;

/// Why a device could not be put on the bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device has more queues than there are notification addresses.
    #[error("a device has {0} queues; at most {max} fit", max = spec::QUEUES_MAX)]
    Queues(usize),
    /// An interrupt vector could not be had or set.
    #[error("no interrupt vectors")]
    Msi(#[from] pci::host::MsiError),
    /// Its capabilities or BARs do not fit the configuration space.
    #[error("configuration space")]
    Layout(#[from] pci::config::LayoutError),
    /// An eventfd could not be made.
    #[error("could not create an eventfd")]
    EventFd(#[source] std::io::Error),
}
