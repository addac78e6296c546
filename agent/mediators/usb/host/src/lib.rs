//! The host's USB devices.
//!
//! | module | |
//! | --- | --- |
//! | [`bus_id`] | where a device is plugged in |
//! | [`sysfs`] | which devices there are, and what they say of themselves |
//! | [`authority`] | keeps the host's drivers off every device nobody has admitted |
//! | [`vetted`] | a device whose descriptors a total reader took |
//! | [`export`] | one device as the host's end of a usbredir stream, by usbfs |
//!
//! Nothing here decides who gets a device, nor looks into what goes to and fro. What a device says is hostile: texts are cut and
//! cleaned, and no library is given descriptors that [`usbdescriptors`] has not read.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod authority;
pub mod bus_id;
pub mod export;
pub mod sysfs;
pub mod vetted;

pub use authority::{Authority, Grants};
pub use bus_id::BusId;
pub use export::{Export, Said};
pub use sysfs::{Found, Plugged, Sysfs};
pub use vetted::Vetted;
