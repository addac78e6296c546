//! The usbredir protocol 0.7: a USB device carried over a stream. Both ends, without I/O.
//!
//! ```text
//!  device -- usb-host --- packets --> usb-guest -- controller of a virtual machine
//! ```
//! [`packet`] has the packets as data; what they mean is in their documentation.
#![forbid(unsafe_code)]

pub mod packet;

pub use packet::{Body, Packet, Status};
