//! The host's USB devices: what is done to them. What the kernel says of them is in [`usbsysfs`].
//!
//! ```text
//!  broker --Grants--> kernel's switches: no driver of the host's gets a device that nobody has admitted
//!    |                usbport: nor after a reset that the kernel makes of its own accord
//!    +----Hold------> its port, its interfaces --.
//!    |                its node, with few rights  +--> the device's worker (usbexport), which serves it
//!    '----read_descriptors--> usbfs <--> device, before it is judged
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`authorization`] | keeps the host's drivers off every device nobody has admitted, and gives it back when no guest runs any more |
//! | [`hold`] | having a device that is served: its port, its interfaces, its node |
//! | [`reading`] | what a device says of itself, before it is judged |
//!
//! - **Nothing here decides** who gets a device, nor looks into what goes to and fro: the broker does the first (crate `usb`), the filter in the device's
//!   worker the second (`usbfilter`).
//! - Opening a device, authorising it, reading it and withdrawing it may wait for it, and are for the thread of that device alone.
//! - **A device is hostile.** Texts are cut and cleaned, and no library is given descriptors that [`usbdescriptors`] has not read: a hold is on
//!   a [`Vetted`] device only.
//! - What the kernel's switches were is on the disk before they are changed, so that an agent that was killed leaves the next one what it has to put back.
//!
//! Left out: hubs, which stay the host's.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod authorization;
pub mod hold;
pub mod reading;

pub use authorization::{Grants, UsbAuthorization};
pub use hold::{Hold, HoldError, Node};
pub use reading::{READING_MAX, ReadingError, read_descriptors};
pub use usbsysfs::{BusId, DeviceSnapshot, Plugged, UsbDevices, Vetted, bus_id};
