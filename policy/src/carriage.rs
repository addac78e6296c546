//! What of an admitted USB device cannot work, since this version does not carry it: for the officer, before the rule is signed, and for
//! whoever plugs the device in.
//!
//! | | why |
//! | --- | --- |
//! | cameras' pictures, sound | isochronous transfers |
//! | a vendor-specific function beside others, such as a scanner in a printer, or beside a keyboard | vendor requests may do anything, rewriting firmware included |
//! | storage that speaks only USB Attached SCSI | it needs bulk streams, and its writes are not followed |
//! | read-only storage that is neither Bulk-Only nor SCSI | its writes cannot be told apart |
//!
//! A device says by its class triples alone what is meant here; a camera that sends its pictures by bulk transfers, of which there are few,
//! works. What is refused in the stream is the business of the filter there; a test of the agent's holds the two against each other.

use std::fmt;

use crate::decide::Decision;
use crate::enforcement;
use crate::language::UsbClass;
use crate::request::{UsbDevice, UsbFunction};

/// Something of a device that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Limit {
    /// Sound or pictures.
    Isochronous(UsbClass),
    /// A vendor-specific function beside functions of this class.
    VendorRequests(UsbClass),
    /// Storage that speaks nothing but USB Attached SCSI.
    OnlyAttachedScsi,
    /// Storage whose writes cannot be told apart, by a rule that wants them to be.
    CannotBeReadOnly,
}

/// Classes all of whose interfaces a device must have for vendor requests to reach it, one of them vendor-specific: USB serial adapters.
const WITH_VENDOR_REQUESTS: [UsbClass; 3] =
    [UsbClass::VENDOR_SPECIFIC, UsbClass(0x02), UsbClass(0x0a)];

impl Limit {
    /// Returns what of this device cannot work, if it is admitted so; nothing of one that is denied.
    #[must_use]
    pub fn of(device: &UsbDevice<'_>, decision: Decision) -> Vec<Self> {
        Self::among(device, decision, None)
    }

    /// Returns the same of the rest of a device whose keyboard stays with the seat. No vendor request passes beside that.
    #[must_use]
    pub fn of_rest(rest: &UsbDevice<'_>, decision: Decision) -> Vec<Self> {
        Self::among(rest, decision, Some(UsbClass::HID))
    }

    fn among(device: &UsbDevice<'_>, decision: Decision, kept: Option<UsbClass>) -> Vec<Self> {
        let mut found = Vec::new();
        if decision == Decision::Deny {
            return found;
        }
        let functions = device.functions;
        let streams = functions.iter().filter(|function| is_isochronous(function));
        found.extend(streams.map(|function| Self::Isochronous(function.class)));
        let vendors = |function: &&UsbFunction| function.class == UsbClass::VENDOR_SPECIFIC;
        let beside = |function: &&UsbFunction| !WITH_VENDOR_REQUESTS.contains(&function.class);
        let other = kept.or_else(|| functions.iter().find(beside).map(|other| other.class));
        if let (Some(_), Some(other)) = (functions.iter().find(vendors), other) {
            found.push(Self::VendorRequests(other));
        }
        let storage =
            || functions.iter().filter(|function| function.class == UsbClass::MASS_STORAGE);
        let attached = |function: &UsbFunction| function.protocol == ATTACHED_SCSI;
        if storage().any(attached) && storage().all(attached) {
            found.push(Self::OnlyAttachedScsi);
        }
        let followed = |function: &UsbFunction| {
            attached(function)
                || function.protocol == BULK_ONLY && SCSI.contains(&function.subclass)
        };
        if decision == Decision::ReadOnly && !storage().all(followed) {
            found.push(Self::CannotBeReadOnly);
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// `bInterfaceProtocol` of mass storage (USB Mass Storage Class 1.4, tables 1 and 2).
const BULK_ONLY: u8 = 0x50;
const ATTACHED_SCSI: u8 = 0x62;
/// `bInterfaceSubClass` of mass storage whose commands are SCSI's: transparent, MMC, SFF-8070i.
const SCSI: [u8; 3] = [0x06, 0x02, 0x05];

/// `bInterfaceSubClass` of the streams of audio and video devices (USB Audio 1.0, A.2; USB Video 1.1, A.2). MIDI and the controls are others.
const STREAMING: u8 = 0x02;

/// Returns whether a function streams what this version does not carry.
fn is_isochronous(function: &UsbFunction) -> bool {
    if enforcement::of_class(function.class).is_none() {
        return false;
    }
    match function.class {
        UsbClass::AUDIO | UsbClass::VIDEO => function.subclass == STREAMING,
        class => class == UsbClass::AUDIO_VIDEO,
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isochronous(class) => {
                let (what, who) = match *class {
                    UsbClass::AUDIO => ("its sound", "sound uses"),
                    UsbClass::VIDEO => ("its picture", "nearly all cameras use"),
                    _ => ("its picture and sound", "cameras and sound use"),
                };
                write!(
                    f,
                    "{what} cannot work: {who} isochronous transfers, which this version does not carry"
                )
            }
            Self::VendorRequests(class) => write!(
                f,
                "its vendor-specific part may not work: beside {class} no vendor requests pass but those known to be harmless"
            ),
            Self::OnlyAttachedScsi => f.write_str(
                "it cannot work: this storage speaks only USB Attached SCSI, which is not offered; use another adapter",
            ),
            Self::CannotBeReadOnly => f.write_str(
                "it cannot work: this storage speaks neither Bulk-Only Transport nor SCSI, so its writes cannot be told apart; allow it or deny it",
            ),
        }
    }
}
