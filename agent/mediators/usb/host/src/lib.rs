//! The host's USB devices: what is done to them. What the kernel says of them is in [`usbsysfs`].
//!
//! | module | |
//! | --- | --- |
//! | [`authorization`] | keeps the host's drivers off every device nobody has admitted |
//! | [`export`] | one device as the host's end of a usbredir stream, by usbfs |
//!
//! Nothing here decides who gets a device, nor looks into what goes to and fro. What a device says is hostile: texts are cut and
//! cleaned, and no library is given descriptors that [`usbdescriptors`] has not read.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod authorization;
pub mod export;

pub use authorization::{Grants, UsbAuthorization};
pub use export::{Export, ExportEvent};
pub use usbsysfs::{BusId, Found, Plugged, Sysfs, Vetted, bus_id};
