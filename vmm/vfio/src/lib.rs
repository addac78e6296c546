//! Whole PCI functions handed to a guest through VFIO.

pub mod slots;

pub use slots::{MemorySlots, Slot};
