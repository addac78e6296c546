//! The filter in the USB stream: what a guest may ask of a device, and what a device may say of itself.
//!
//! ```text
//!  guest's end -- Packet --> Filter::from_guest  --.-- to_device --> host end -- device
//!              <-- to_guest --'-- Filter::from_device <-- Packet --
//!                                 events: audit log, broker
//! ```
//! A pure state machine between the two ends of usbredir: no I/O, no threads, no clock. Every device
//! goes through it; the verdict ([`Rules`]) decides what it does.
//!
//! | | for whom |
//! | --- | --- |
//! | control requests that could rewrite firmware or address what is not there are answered with a stall ([`VENDOR_REQUESTS`]) | every device |
//! | descriptors are compared with those that policy was asked about ([`Pinned`]); different ones never reach the guest, [`Event::Changed`] | every device |
//! | USB Attached SCSI is taken out of what the guest is shown | storage |
//! | interfaces that are the seat's, and requests that concern the device as a whole, are not there for the guest | a device of which the guest has a [part](Share) |
//! | Bulk-Only Transport is followed, and only SCSI commands that cannot write reach the device | read-only storage |
//!
//! Bulk data pass without being copied. Nothing grows with what a guest or a device says: at most
//! [`IN_FLIGHT_MAX`] transfers are known at once, of their data only a CBW is kept, and at most [`BYTES_IN_FLIGHT_MAX`] bytes of them are with the device, or its budget's ([`Filter::within`]).
//!
//! Left out: isochronous transfers and bulk streams (the packets do not exist here), CBI and UFI
//! storage under read-only ([`Unsupported`]).
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod admission;
mod bot;
mod control;
mod event;
mod filter;
#[cfg(any(test, feature = "testing"))]
pub mod fuzz;
mod identity;
mod shown;
mod spec;
#[cfg(any(test, feature = "testing"))]
pub mod stick;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod traffic;
mod uas;
mod vendor;

pub use admission::{Error, INTERFACE_MAX, Rules, Unsupported};
pub use control::CONTROL_BYTES_MAX;
pub use event::{Change, CommandRefusal, Counts, Event, Refusal, Violation};
pub use filter::{BYTES_IN_FLIGHT_MAX, BYTES_IN_FLIGHT_MIN, FAULTS_MAX, Filter, IN_FLIGHT_MAX};
pub use traffic::Out;
pub use usbdescriptors::{self as descriptors, Device, Pinned, Share};
pub use vendor::{HARMLESS, Harmless, VENDOR_REQUESTS};
