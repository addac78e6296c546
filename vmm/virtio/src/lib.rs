//! Virtio 1.2 devices and the checked descriptor chain through which alone they touch guest memory.
//!
//! The crate knows nothing of PCI or KVM: a transport (crate `virtio-pci`) feeds a [`Device`] its
//! configuration accesses and queue notifications, and an [`Interrupt`] carries the answers back.
//!
//! ```text
//!   transport --Activation--> Device { CheckedQueue --pop--> Chain { Reader, Writer } }
//!             <--Interrupt---
//! ```

mod backlog;
pub mod blk;
pub mod chain;
mod complaints;
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
