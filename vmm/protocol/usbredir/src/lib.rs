//! The usbredir protocol 0.7: a USB device carried over a stream. Both ends, without I/O.
//!
//! ```text
//!  device -- host's end -- Session: bytes --> Session -- guest's end -- controller of a virtual machine
//! ```
//! | module | |
//! | --- | --- |
//! | [`packet`] | the packets as data |
//! | [`wire`] | as bytes, under the capabilities that both ends have |
//! | [`session`] | one end of a stream: the hello, then packets both ways |
//!
//! Not spoken: isochronous streams, bulk streams, buffered bulk receiving (their packets end the stream; nobody sends them to
//! an end that does not offer them), and device filters, which are skipped: the policy filters.
//!
//! A stream is hostile, whichever end it comes from: a packet is checked for its type, its sender, its length and its fields before
//! anything is kept of it, and no more than one packet's bytes are.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod packet;
pub mod session;
pub mod wire;

pub use packet::{Body, Packet, Status};
pub use session::Session;
pub use wire::{Capabilities, Error, Role};
