//! Virtio 1.2 devices and the checked descriptor chain through which alone they touch guest memory.
//!
//! The crate knows nothing of PCI or KVM: a transport (crate `virtio-pci`) feeds a [`Device`] its
//! configuration accesses and queue notifications, and an [`Interrupt`] carries the answers back.
//!
//! ```text
//!   transport --Activation--> Device { CheckedQueue --pop--> Chain { Reader, Writer } }
//!             <--Interrupt---
//! ```
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]

/// Logs what a guest's driver did wrong. Each device that does has a place of its own in the code,
/// and so its own share of the log (crate `logging`).
macro_rules! driver_error {
    ($device:literal, $error:expr) => {{
        let error: &(dyn std::error::Error + 'static) = $error;
        tracing::warn!(
            device = $device,
            error,
            "the guest's driver broke the rules; the device waits for a reset"
        );
    }};
}

mod backlog;
pub mod blk;
pub mod chain;
pub mod console;
pub mod device;
mod entropy;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod gpu;
pub mod input;
pub mod net;
pub mod queue;
pub mod rng;
#[cfg(any(test, feature = "fuzzing"))]
pub mod testing;

pub use backlog::Backlog;
pub use chain::{Chain, ChainError};
pub use device::{
    ActivateError, Activation, Device, DeviceConfig, FixedConfig, GuestMemory, Interrupt,
};
pub use queue::{CheckedQueue, Progress, QueueError};
