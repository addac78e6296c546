//! Virtio 1.2 devices and the checked descriptor chain through which alone they touch guest memory.
//!
//! The crate knows nothing of PCI or KVM: a transport (crate `virtio-pci`) feeds a [`Device`] its
//! configuration accesses and queue notifications, and an [`Interrupt`] carries the answers back.
//!
//! ```text
//!   transport --Activation--> Device { CheckedQueue --pop--> Chain { Reader, Writer } }
//!             <--Interrupt---
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`device`] | the trait that every device implements, and what it is given |
//! | [`queue`] | a split virtqueue that hands out nothing but checked chains |
//! | [`chain`] | a chain whose every byte lies in guest memory, read and written once |
//! | [`blk`] | a disk on a file or block device of the host (section 5.2) |
//! | [`net`] | a network card on a tap (section 5.1) |
//! | [`console`] | a console with named ports, each a Unix socket (section 5.3) |
//! | [`rng`] | an entropy source (section 5.4) |
//! | [`gpu`], [`input`] | a screen (section 5.7), a keyboard or a pointer (section 5.8), for the agent at the other end of a seat link |
//!
//! A new device is a folder of its own: a type with the trait [`Device`], its wire format in `spec.rs`, a fuzz entry in `fuzz.rs`. It takes its requests
//! from a [`CheckedQueue`] by [`CheckedQueue::serve`], which hands it chain after chain and tells the driver. [`rng`] is the smallest one to begin from.
//!
//! # Against hostile guests
//! - A chain is read once and has an end; whoever holds one can reach no byte outside of guest memory. No reference to guest memory is ever made, as a vCPU may change it at any moment.
//! - Whatever is wrong with a ring is one error, and means one thing: the device says that it needs a reset, and touches the queue no more.
//! - A device does a bounded piece of work at a time, and gives the others of its thread their turn ([`Backlog`]); between two pieces it sees whether a reset waits.
//! - What a driver did wrong is logged under a limit of each device's own.
//!
//! Left out: packed rings, the legacy interface, live migration, vhost. Each device says what of its own section it does not offer.
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
