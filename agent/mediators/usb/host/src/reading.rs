//! All that a device says of itself, before it is judged.
//!
//! | | asked for |
//! | --- | --- |
//! | BOS | if the device is of USB 2.1 or later, as the kernel does |
//! | texts | those that the device and its configurations name, in the first language it has |
//! | HID report descriptors | of every HID interface that is meant, in every configuration, for which the device is put into each |
//!
//! It is asked by single calls of the kernel's, each with an end of its own ([`usbport`]). A library that asks by transfers needs a thread to hear of
//! their ends: of one that cannot be started it makes that every later device waits for ever, in the process that all desktops stand on.

use std::io;
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use usbdescriptors::{PinnedDescriptor, kind};
use usbport::{Descriptor, Whose};

use crate::authorization;
use crate::hold::{Hold, HoldError, Node};
use usbsysfs::UsbDevices;
use usbsysfs::Vetted;

/// Longest a control request may take.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest that asking for all of it may take. A configuration that is chosen by then has its five seconds besides.
pub const READING_MAX: Duration = Duration::from_secs(15);
/// Most bytes of a descriptor: a page, what usbfs takes in one piece.
const DESCRIPTOR_MAX: u16 = 4096;
/// How long a kernel whose stock for transfers (`usbfs_memory_mb`) is in use is waited for between two attempts.
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
        source: io::Error,
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
    // Compared with what was vetted before anything is asked.
    let node = hold.open()?;
    // The kernel knows it, whatever the device would say.
    let configuration = sysfs.configuration(&vetted.found().bus_id).unwrap_or_default();
    let until = Moment::now() + READING_MAX;
    let mut reading = Reading { node, hold, configuration, until, read: Vec::new() };
    reading.device_wide()?;
    reading.reports()?;
    Ok(reading.read)
}

struct Reading {
    // Let go of before the hold is.
    node: Node,
    hold: Hold,
    /// The `bConfigurationValue` of the configuration it is in; 0 if it is in none.
    configuration: u8,
    until: Moment,
    read: Vec<PinnedDescriptor>,
}

impl Reading {
    fn device_wide(&mut self) -> Result<(), ReadingError> {
        let [_, _, minor, major, ..] = self.hold.vetted().pinned().device;
        if u16::from_le_bytes([minor, major]) >= 0x0201 {
            let head = self.ask(Whose::Device, (kind::BOS, 0, 0), 5)?;
            let total = match head.as_slice() {
                [_, kind::BOS, low, high, ..] => u16::from_le_bytes([*low, *high]),
                _ => 0,
            };
            let place = (kind::BOS, 0, 0);
            let bytes = self.ask(Whose::Device, place, total.min(DESCRIPTOR_MAX))?;
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
        let mut bytes = self.ask(Whose::Device, place, 255)?;
        if bytes.len() < 2 {
            let length = self.ask(Whose::Device, place, 2)?.first().copied().unwrap_or(0);
            bytes = self.ask(Whose::Device, place, length.into())?;
        }
        // What is beyond its own length is not part of it.
        bytes.truncate(bytes.first().copied().unwrap_or_default().into());
        Ok(bytes)
    }

    fn reports(&mut self) -> Result<(), ReadingError> {
        let first = self.configuration;
        for (configuration, interface) in self.hold.vetted().device().hid_interfaces() {
            if !self.hold.vetted().share().has(interface) {
                continue;
            }
            self.configure(configuration)?;
            // Keyboards that are there already have a driver of the host's.
            usbport::take_interface(&self.node.0, interface)
                .map_err(|source| ReadingError::Usbfs { what: "claim an interface", source })?;
            let place = (kind::REPORT, 0, interface.into());
            let bytes = self.ask(Whose::Interface, place, DESCRIPTOR_MAX)?;
            usbport::let_go_of_interface(&self.node.0, interface);
            self.pin(Some(configuration), place, bytes);
        }
        self.configure(first)
    }

    fn configure(&mut self, configuration: u8) -> Result<(), ReadingError> {
        if self.configuration != configuration {
            let what = "choose a configuration";
            let failed = |source| ReadingError::Usbfs { what, source };
            usbport::choose_configuration(&self.node.0, configuration).map_err(failed)?;
            self.configuration = configuration;
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
        whose: Whose,
        (kind, index, target): (u8, u8, u16),
        length: u16,
    ) -> Result<Vec<u8>, ReadingError> {
        if length == 0 {
            return Ok(Vec::new());
        }
        let asked = Descriptor { whose, kind, index, target, length };
        ask_until(self.until, |timeout| usbport::read_descriptor(&self.node.0, asked, timeout))
    }
}

/// Asks until there is an answer, or until this moment: each time gets what is left, and no more than a control request may take.
fn ask_until(
    until: Moment,
    mut ask: impl FnMut(Duration) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, ReadingError> {
    let mut ended = ReadingError::Silent;
    loop {
        let left = until.saturating_duration_since(Moment::now());
        if left.is_zero() {
            return Err(ended);
        }
        match ask(left.min(CONTROL_TIMEOUT)).map_err(|error| errno(&error)) {
            // The stock is one for all devices, and others may have taken it: what this one says is not known, which is not that it says nothing.
            Err(Errno::ENOMEM) => {
                ended = ReadingError::NotNow;
                std::thread::sleep(AGAIN);
            }
            // Nor is it known if this process was interrupted.
            Err(Errno::EINTR) => {}
            answer => return said(answer),
        }
    }
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

/// Returns what a device has answered; nothing if it refuses. What it broke off counts as refused.
fn said(answer: Result<Vec<u8>, Errno>) -> Result<Vec<u8>, ReadingError> {
    match answer {
        Ok(bytes) => Ok(bytes),
        Err(Errno::ENODEV | Errno::ESHUTDOWN) => Err(HoldError::Gone.into()),
        // The last two of one whose question was taken back.
        Err(Errno::ETIMEDOUT | Errno::ENOENT | Errno::ECONNRESET) => Err(ReadingError::Silent),
        Err(_) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a device that answers so, one answer after the other, and counts how often it was asked and for how long at most.
    fn asked(
        until: Moment,
        answers: &[Result<&[u8], Errno>],
    ) -> (Result<Vec<u8>, ReadingError>, usize, Duration) {
        let (mut answers, mut times, mut longest) = (answers.iter(), 0, Duration::ZERO);
        let answer = ask_until(until, |timeout| {
            times += 1;
            longest = longest.max(timeout);
            let answer = answers.next().expect("it is asked no more often than that");
            answer.map(<[u8]>::to_vec).map_err(io::Error::from)
        });
        (answer, times, longest)
    }

    #[test]
    fn a_device_that_is_silent_gone_or_refuses_is_told_apart() {
        let soon = || Moment::now() + READING_MAX;
        for refuses in [Errno::EPIPE, Errno::EPROTO, Errno::EOVERFLOW, Errno::EHOSTUNREACH] {
            assert_eq!(asked(soon(), &[Err(refuses)]).0.unwrap(), b"", "{refuses}");
        }
        assert_eq!(asked(soon(), &[Ok(b"\x04\x03\x09\x04")]).0.unwrap(), b"\x04\x03\x09\x04");
        for gone in [Errno::ENODEV, Errno::ESHUTDOWN] {
            let answer = asked(soon(), &[Err(gone)]).0;
            assert!(matches!(answer, Err(ReadingError::Hold(HoldError::Gone))), "{gone}");
        }
        let (answer, times, longest) = asked(soon(), &[Err(Errno::ETIMEDOUT)]);
        assert!(matches!(answer, Err(ReadingError::Silent)));
        assert_eq!((times, longest), (1, CONTROL_TIMEOUT), "it is not asked a second time");
    }

    #[test]
    fn a_kernel_without_memory_for_an_answer_is_no_device_that_refuses() {
        let soon = Moment::now() + READING_MAX;
        let (answer, times, _) = asked(soon, &[Err(Errno::ENOMEM), Err(Errno::EINTR), Ok(b"it")]);
        assert_eq!((answer.unwrap(), times), (b"it".to_vec(), 3));
        // All others hold on to it.
        let (answer, times, longest) =
            asked(Moment::now() + AGAIN / 2, &[Err(Errno::ENOMEM), Err(Errno::ENOMEM)]);
        assert!(matches!(answer, Err(ReadingError::NotNow)));
        assert!(times == 1 && longest <= AGAIN / 2, "{times} {longest:?}");
    }

    #[test]
    fn a_device_whose_time_is_over_is_asked_nothing_more() {
        let (answer, times, _) = asked(Moment::now(), &[]);
        assert!(matches!(answer, Err(ReadingError::Silent)) && times == 0);
    }
}
