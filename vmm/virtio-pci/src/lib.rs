//! The virtio 1.2 PCI transport (section 4.1).
#![forbid(unsafe_code)]
