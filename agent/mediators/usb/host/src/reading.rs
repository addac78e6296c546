//! All that a device says of itself, before it is judged.
//!
//! | | asked for |
//! | --- | --- |
//! | BOS | if the device is of USB 2.1 or later, as the kernel does |
//! | texts | those that the device and its configurations name, in the first language it has |
//! | HID report descriptors | of every HID interface that is meant, in every configuration, for which the device is put into each |

use std::time::Duration;

use clock::Moment;
use nusb::MaybeFuture;
use nusb::transfer::{ControlIn, ControlType, Recipient, TransferError};
use usbdescriptors::{PinnedDescriptor, kind};

use crate::authorization;
use crate::hold::{self, Hold, HoldError};
use usbsysfs::UsbDevices;
use usbsysfs::Vetted;

/// Longest a control request may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that all of it may take.
const READING_MAX: Duration = Duration::from_secs(15);
/// Most bytes of a descriptor: a page, what usbfs takes in one piece.
const DESCRIPTOR_MAX: u16 = 4096;
/// The error of a kernel whose stock for transfers (`usbfs_memory_mb`) is in use.
const ENOMEM: u32 = 12;
/// How long that is waited for between two attempts.
const AGAIN: Duration = Duration::from_millis(200);
/// The language of a device that has texts and does not say in which: English (United States), as the kernel takes it.
const ENGLISH: u16 = 0x0409;

/// A device that does not say what it is.
#[derive(Debug, thiserror::Error)]
pub enum ReadingError {
    /// It cannot be had.
    #[error(transparent)]
    Hold(#[from] HoldError),
    /// It does not answer.
    #[error("it does not answer; plug it in again, or into another port")]
    Silent,
    /// The kernel has no memory for asking it.
    #[error("the kernel has no memory for its answers now; plug it in again")]
    NotNow,
    /// Its interfaces cannot be had.
    #[error(
        "the kernel does not let this device be used ({what}): is another program using it? The agent has to be root"
    )]
    Usbfs {
        /// The step that failed, as it reads behind "could not".
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: nusb::Error,
    },
}

/// Reads all that a vetted device says besides its configurations; nothing is what it refuses to say.
///
/// # Errors
/// The device cannot be used, or does not answer in time.
pub fn read_descriptors(
    sysfs: &UsbDevices,
    vetted: &Vetted,
) -> Result<Vec<PinnedDescriptor>, ReadingError> {
    let several = vetted.device().configurations.len() > 1 && vetted.share().is_whole();
    if several {
        // A driver that has an interface keeps the device in its configuration.
        let _ = authorization::withdraw(sysfs, &vetted.found().bus_id, vetted.share());
    }
    let hold = Hold::take(sysfs.clone(), vetted.clone())?;
    hold.admit();
    let device = open(sysfs, vetted)?;
    let mut reading =
        Reading { hold, device, until: Moment::now() + READING_MAX, read: Vec::new() };
    reading.device_wide()?;
    reading.reports()?;
    Ok(reading.read)
}

/// Opens the device. What the library has read is compared with what was vetted before anything is done with it.
fn open(sysfs: &UsbDevices, vetted: &Vetted) -> Result<nusb::Device, ReadingError> {
    let (found, failed) = (vetted.found(), |source| ReadingError::Usbfs { what: "open", source });
    let device = nusb::Device::from_fd(hold::open(found)?.into()).wait().map_err(failed)?;
    let mut said = device.device_descriptor().as_bytes().to_vec();
    for configuration in device.configurations() {
        said.extend_from_slice(configuration.as_bytes());
    }
    if said != found.descriptors {
        return Err(HoldError::Changed.into());
    }
    // Which configuration it is in nusb asks the device; the kernel knows.
    let configuration = sysfs.configuration(&found.bus_id).unwrap_or_default();
    if configuration_of(&device) != configuration {
        // Of a part somebody else's driver has the rest, in the configuration it is in.
        if !vetted.share().is_whole() {
            return Err(HoldError::Changed.into());
        }
        device.set_configuration(configuration).wait().map_err(failed)?;
    }
    Ok(device)
}

/// Returns the `bConfigurationValue` of the configuration it is in; 0 if it is in none.
fn configuration_of(device: &nusb::Device) -> u8 {
    device.active_configuration().map_or(0, |active| active.configuration_value())
}

struct Reading {
    device: nusb::Device,
    hold: Hold,
    until: Moment,
    read: Vec<PinnedDescriptor>,
}

impl Reading {
    fn device_wide(&mut self) -> Result<(), ReadingError> {
        let [_, _, minor, major, ..] = self.hold.vetted().pinned().device;
        if u16::from_le_bytes([minor, major]) >= 0x0201 {
            let head = self.ask(Recipient::Device, (kind::BOS, 0, 0), 5)?;
            let total = match head.as_slice() {
                [_, kind::BOS, low, high, ..] => u16::from_le_bytes([*low, *high]),
                _ => 0,
            };
            let place = (kind::BOS, 0, 0);
            let bytes = self.ask(Recipient::Device, place, total.min(DESCRIPTOR_MAX))?;
            self.pin(None, place, bytes);
        }
        let indices = self.hold.vetted().pinned().string_indices();
        if indices.is_empty() {
            return Ok(());
        }
        let languages = self.text(0, 0)?;
        let language = match languages.as_slice() {
            [_, _, low, high, ..] => u16::from_le_bytes([*low, *high]),
            _ => ENGLISH,
        };
        let speaks = !languages.is_empty();
        self.pin(None, (kind::STRING, 0, 0), languages);
        for index in indices {
            let bytes = if speaks { self.text(index, language)? } else { Vec::new() };
            self.pin(None, (kind::STRING, index, language), bytes);
        }
        Ok(())
    }

    /// Reads a text. Some devices answer only who asks for exactly as much as there is.
    fn text(&self, index: u8, language: u16) -> Result<Vec<u8>, ReadingError> {
        let place = (kind::STRING, index, language);
        let mut bytes = self.ask(Recipient::Device, place, 255)?;
        if bytes.len() < 2 {
            let length = self.ask(Recipient::Device, place, 2)?.first().copied().unwrap_or(0);
            bytes = self.ask(Recipient::Device, place, length.into())?;
        }
        // What is beyond its own length is not part of it.
        bytes.truncate(bytes.first().copied().unwrap_or_default().into());
        Ok(bytes)
    }

    fn reports(&mut self) -> Result<(), ReadingError> {
        let first = configuration_of(&self.device);
        for (configuration, interface) in self.hold.vetted().device().hid_interfaces() {
            if !self.hold.vetted().share().has(interface) {
                continue;
            }
            self.configure(configuration)?;
            // Keyboards that are there already have a driver of the host's.
            let _ = self.device.detach_kernel_driver(interface);
            let claimed = self
                .device
                .claim_interface(interface)
                .wait()
                .map_err(|source| ReadingError::Usbfs { what: "claim an interface", source })?;
            let place = (kind::REPORT, 0, interface.into());
            let bytes = self.ask(Recipient::Interface, place, DESCRIPTOR_MAX)?;
            drop(claimed);
            self.pin(Some(configuration), place, bytes);
        }
        self.configure(first)
    }

    fn configure(&self, configuration: u8) -> Result<(), ReadingError> {
        if configuration_of(&self.device) != configuration {
            let what = "choose a configuration";
            let failed = |source| ReadingError::Usbfs { what, source };
            self.device.set_configuration(configuration).wait().map_err(failed)?;
            self.hold.admit();
        }
        Ok(())
    }

    fn pin(&mut self, configuration: Option<u8>, place: (u8, u8, u16), bytes: Vec<u8>) {
        let (kind, index, target) = place;
        self.read.push(PinnedDescriptor { configuration, kind, index, target, bytes });
    }

    /// Returns what the device answers; nothing if it refuses.
    fn ask(
        &self,
        recipient: Recipient,
        (kind, index, target): (u8, u8, u16),
        length: u16,
    ) -> Result<Vec<u8>, ReadingError> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let setup = ControlIn {
            control_type: ControlType::Standard,
            recipient,
            request: 6,
            value: u16::from_le_bytes([index, kind]),
            index: target,
            length,
        };
        let mut ended = ReadingError::Silent;
        loop {
            let left = self.until.saturating_duration_since(Moment::now());
            if left.is_zero() {
                return Err(ended);
            }
            let answer = self.device.control_in(setup, left.min(CONTROL_TIMEOUT)).wait();
            match answer {
                // The stock is one for all devices, and others may have taken it: what this one says is not known, which is not that it says nothing.
                Err(TransferError::Unknown(ENOMEM)) => {
                    ended = ReadingError::NotNow;
                    std::thread::sleep(AGAIN);
                }
                answer => return said(answer, length),
            }
        }
    }
}

/// Returns what a device has answered; nothing if it refuses.
fn said(answer: Result<Vec<u8>, TransferError>, length: u16) -> Result<Vec<u8>, ReadingError> {
    match answer {
        Ok(mut bytes) => {
            bytes.truncate(length.into());
            Ok(bytes)
        }
        Err(TransferError::Disconnected) => Err(HoldError::Gone.into()),
        Err(TransferError::Cancelled) => Err(ReadingError::Silent),
        // Kept apart from a refusal by who asks.
        Err(TransferError::Unknown(ENOMEM)) => Err(ReadingError::NotNow),
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_memory_for_an_answer_is_no_device_that_refuses() {
        let none = said(Err(TransferError::Unknown(ENOMEM)), 4);
        assert!(matches!(none, Err(ReadingError::NotNow)));
        assert_eq!(said(Err(TransferError::Stall), 4).unwrap(), b"");
        assert_eq!(said(Ok(b"longer".to_vec()), 4).unwrap(), b"long");
        assert!(matches!(said(Err(TransferError::Cancelled), 4), Err(ReadingError::Silent)));
    }
}
