//! The host's USB devices.
//!
//! | module | |
//! | --- | --- |
//! | [`sysfs`] | which devices there are, and what they say of themselves |
//! | [`authority`] | keeps the host's drivers off every device nobody has admitted |
//! | [`export`] | one device as the host's end of a usbredir stream, by usbfs |
//!
//! Nothing here decides who gets a device, nor looks into what goes to and fro. What a device says is hostile: texts are cut and
//! cleaned, descriptors are only bytes here.
#![forbid(unsafe_code)]

pub mod authority;
pub mod export;
pub mod sysfs;

pub use authority::Authority;
pub use export::{Export, Said};
pub use sysfs::{BusId, Found, Sysfs};
