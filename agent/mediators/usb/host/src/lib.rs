//! The host's USB devices: what is done to them. What the kernel says of them is in [`usbsysfs`].
//!
//! ```text
//!  broker --Grants--> kernel's switches: no driver of the host's gets a device that nobody has admitted
//!    |                usbport: nor after a reset that the kernel makes of its own accord
//!    +----Export::open--> usbfs <--> device
//!           ^  |
//!    submit |  | events                 packets of usbredir, both ways
//!           |  v
//!         filter <--> session <--> VMM
//! ```
//!
//! | module | |
//! | --- | --- |
//! | [`authorization`] | keeps the host's drivers off every device nobody has admitted, and gives it back when no guest runs any more |
//! | [`export`] | one device as the host's end of a usbredir stream, by usbfs |
//!
//! - **Nothing here decides** who gets a device, nor looks into what goes to and fro: the broker does the first (crate `usb`), the filter the second (`usbfilter`).
//! - **Packets wait for nothing**: an [`Export`] takes them and hands out [`ExportEvent`]s. Opening a device, authorising it and withdrawing that may wait for it,
//!   and are for the thread of that device alone.
//! - **A device is hostile.** Texts are cut and cleaned, and no library is given descriptors that [`usbdescriptors`] has not read: an export takes
//!   a [`Vetted`] device only.
//! - What the kernel's switches were is on the disk before they are changed, so that an agent that was killed leaves the next one what it has to put back.
//!
//! Left out: isochronous transfers and bulk streams, which no packet of ours carries, and hubs, which stay the host's.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

pub mod authorization;
pub mod export;

pub use authorization::{Grants, UsbAuthorization};
pub use export::{Export, ExportEvent};
pub use usbsysfs::{BusId, Found, Plugged, UsbDevices, Vetted, bus_id};
