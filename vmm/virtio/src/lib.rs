//! Virtio 1.2 devices and the checked descriptor chain through which alone they touch guest memory.
//!
//! The crate knows nothing of PCI or KVM: a transport (crate `virtio-pci`) feeds a [`Device`] its
//! configuration accesses and queue notifications, and an [`Interrupt`] carries the answers back.

pub mod device;

pub use device::{Activation, ActivateError, Device, GuestMemory, Interrupt};
