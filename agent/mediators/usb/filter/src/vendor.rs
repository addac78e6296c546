//! Vendor requests, which may do anything, rewriting firmware included.
//!
//! | device | vendor requests that pass |
//! | --- | --- |
//! | all of its interfaces are in [`VENDOR_REQUESTS`], one of them vendor-specific | all: USB serial adapters set their baud rate by them, scanners alone in a device do all |
//! | a printer, with what is beside it | those of its maker that are in [`HARMLESS`] |
//! | any other | none |
//!
//! What is in [`HARMLESS`] moves no data to the device, and its value and index are fixed: open source drivers show what it does.

use usbredir::packet::Control;

use crate::descriptors::Device;
use crate::spec::{COMMUNICATIONS, COMMUNICATIONS_DATA, PRINTER, VENDOR};

/// Vendor requests pass only to devices all of whose interfaces are in this table, and one of them vendor-specific. Classes that are not
/// here (storage, smart-card readers, HID, printers, cameras, Bluetooth) work by their class requests alone, but for [`HARMLESS`].
pub const VENDOR_REQUESTS: [u8; 3] = [VENDOR, COMMUNICATIONS, COMMUNICATIONS_DATA];

/// A vendor request of printers that passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harmless {
    /// `idVendor`.
    pub vendor: u16,
    /// `bmRequestType`; always one from the device.
    pub request_type: u8,
    /// `bRequest`.
    pub request: u8,
    /// `wValue`: the least and the largest.
    pub value: (u16, u16),
    /// `wLength`, at most.
    pub length: u16,
    /// What the request does to the device.
    pub what: &'static str,
    /// The public source that says so.
    pub source: &'static str,
}

const BROTHER: u16 = 0x04f9;
const HP: u16 = 0x03f0;
const TO_DEVICE: u8 = 0xc0;
const TO_INTERFACE: u8 = 0xc1;
const SANE: &str = "SANE backends, backend/brother_mfp/brother_mfp-driver.cpp";

/// The vendor requests that pass to printers. Those to the device have a `wIndex` of 0, those to an interface that of a printer.
pub const HARMLESS: [Harmless; 4] = [
    Harmless {
        vendor: BROTHER,
        request_type: TO_DEVICE,
        request: 1,
        value: (2, 2),
        length: 255,
        what: "opens the scanner of a multifunction printer",
        source: SANE,
    },
    Harmless {
        vendor: BROTHER,
        request_type: TO_DEVICE,
        request: 2,
        value: (2, 2),
        length: 255,
        what: "closes it",
        source: SANE,
    },
    Harmless {
        vendor: BROTHER,
        request_type: TO_DEVICE,
        request: 3,
        value: (0, 0),
        length: 255,
        what: "asks which of its buttons was pressed",
        source: SANE,
    },
    Harmless {
        vendor: HP,
        request_type: TO_INTERFACE,
        request: 0,
        value: (0, 255),
        length: 1,
        what: "chooses the channel of a multifunction printer",
        source: "Linux drivers/usb/class/usblp.c, usblp_hp_channel_change_request; HPLIP io/hpmud/musb.c, write_ecp_channel",
    },
];

/// Returns whether a vendor request passes to a device.
pub(crate) fn passes(device: &Device, control: &Control) -> bool {
    let vendors = |class: u8| VENDOR_REQUESTS.contains(&class);
    let all = device.settings().all(|setting| vendors(setting.class));
    let any = device.settings().any(|setting| setting.class == VENDOR);
    all && any || HARMLESS.iter().any(|known| known.is(device, control))
}

impl Harmless {
    fn is(&self, device: &Device, control: &Control) -> bool {
        let Control { request_type, request, value, index, length, .. } = *control;
        let mut printers = device.settings().filter(|setting| setting.class == PRINTER);
        let place = if request_type == TO_INTERFACE {
            printers.any(|setting| u16::from(setting.interface) == index)
        } else {
            printers.next().is_some() && index == 0
        };
        let (least, largest) = self.value;
        (device.vendor, request_type, request) == (self.vendor, self.request_type, self.request)
            && (least..=largest).contains(&value)
            && length <= self.length
            && place
    }
}
