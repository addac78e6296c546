//! What the kernel says of the host's USB devices, and what they are to the policy.
//!
//! | module | |
//! | --- | --- |
//! | [`bus_id`] | where a device is plugged in |
//! | [`devices`] | which devices there are, and what they say of themselves |
//! | [`vetted`] | a device whose descriptors a total reader took |
//! | [`identity`] | a device as the policy is asked about it |
//!
//! Files of sysfs are read and nothing else: no device is opened, asked or changed, so that the command line can say of a device what the
//! agent would be asked. What a device says is hostile: texts are cut and cleaned, and nobody is given descriptors that [`usbdescriptors`]
//! has not read.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod bus_id;
pub mod devices;
pub mod identity;
pub mod vetted;

pub use bus_id::BusId;
pub use devices::{DeviceSnapshot, Plugged, UsbDevices};
pub use identity::{Identity, described};
pub use vetted::Vetted;
