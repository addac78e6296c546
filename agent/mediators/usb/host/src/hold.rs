//! Having a device: its port while its interfaces are admitted, and its node in usbfs, which its worker gets with few rights.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::OwnedFd;

use usbdescriptors::Share;
use usbsysfs::{DeviceSnapshot, UsbDevices, Vetted};

use crate::authorization;

/// A device that cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// It is not there any more.
    #[error("the device is gone")]
    Gone,
    /// Its descriptors are not those that were judged.
    #[error("it says something else of itself than before; plug it in again")]
    Changed,
    /// Its node in usbfs cannot be opened.
    #[error("its node below /dev/bus/usb cannot be opened: the agent has to be root")]
    Node(#[source] io::Error),
    /// What serves it would have rights over the whole device, its other interfaces too.
    #[error("its node in usbfs cannot be given fewer rights: is the kernel older than Linux 4.6?")]
    Rights(#[source] io::Error),
    /// Its port cannot be had.
    #[error(
        "its port cannot be kept from the host's own drivers: is another program using it? The agent has to be root"
    )]
    Port(#[source] io::Error),
}

/// Keeps the host's drivers off a device whose interfaces are admitted, until it is dropped; then they are not any more. A driver that
/// has an interface already keeps it, also over a reset: so of a device of which the seat has a part the seat's driver has it before the
/// port is taken.
#[derive(Debug)]
pub struct Hold {
    sysfs: UsbDevices,
    vetted: Vetted,
    _port: usbport::Claim,
}

impl Hold {
    /// Takes the port of a device, which is [authorised](crate::Grants) and vetted.
    ///
    /// # Errors
    /// Somebody else has it, or the device is gone.
    pub fn take(sysfs: UsbDevices, vetted: Vetted) -> Result<Self, HoldError> {
        let (hub, port) = vetted.found().bus_id.parent().ok_or(HoldError::Gone)?;
        let node = sysfs.node(&hub).ok_or(HoldError::Gone)?;
        let port = usbport::Claim::take(&node, port).map_err(HoldError::Port)?;
        Ok(Self { sysfs, vetted, _port: port })
    }

    /// Returns the device.
    #[must_use]
    pub fn vetted(&self) -> &Vetted {
        &self.vetted
    }

    /// Admits the interfaces that are meant, of the configuration it is in, and returns its `bConfigurationValue`, 0 if it is in none; `None` if the device is
    /// another by now, or gone. Waits for whatever is done with the device.
    pub fn admit(&self) -> Option<u8> {
        let DeviceSnapshot { bus_id, address, .. } = self.vetted.found();
        if self.sysfs.address(bus_id) != Some(*address) {
            return None;
        }
        // One that went meanwhile cannot be claimed, and that is told.
        let _ = authorization::admit(&self.sysfs, bus_id, self.vetted.share());
        Some(self.sysfs.configuration(bus_id).unwrap_or_default())
    }

    /// Opens the device's node with all rights.
    ///
    /// # Errors
    /// It cannot be opened, or is another device's by now.
    pub fn open(&self) -> Result<Node, HoldError> {
        let found = self.vetted.found();
        let file = open(found)?;
        let mut said = Vec::new();
        let most = u64::try_from(found.descriptors.len()).unwrap_or(u64::MAX).saturating_add(1);
        (&file).take(most).read_to_end(&mut said).map_err(HoldError::Node)?;
        if said == found.descriptors { Ok(Node(file)) } else { Err(HoldError::Changed) }
    }

    /// Opens the device's node for its worker: the interfaces that are meant can be claimed by it and no others, no driver can be taken from any, and
    /// the device is not reset while somebody else has one of them.
    ///
    /// # Errors
    /// It cannot be opened, is another device's by now, or the kernel knows no such rights.
    pub fn open_for_worker(&self) -> Result<OwnedFd, HoldError> {
        let Node(file) = self.open()?;
        usbport::drop_privileges(&file, mask(self.vetted.share())).map_err(HoldError::Rights)?;
        Ok(file.into())
    }
}

/// Returns the interfaces as the kernel counts them in: those with a number beyond 31 cannot be claimed then.
fn mask(share: &Share) -> u32 {
    (0..32).filter(|number| share.has(*number)).fold(0, |mask, number| mask | 1 << number)
}

impl Drop for Hold {
    fn drop(&mut self) {
        // One that is gone has no interfaces.
        let _ =
            authorization::withdraw(&self.sysfs, &self.vetted.found().bus_id, self.vetted.share());
    }
}

/// A device's open node, with all rights.
#[derive(Debug)]
pub struct Node(pub(crate) File);

impl Node {
    /// Resets the device, so that its next user finds it as if it had just been plugged in. Nobody may have an interface of it any more. One that is gone
    /// needs no reset.
    pub fn reset(&self) {
        let _ = usbport::reset(&self.0);
    }

    /// Puts the interfaces of a part that are authorised into their first settings: what waits at their endpoints ends, and these are not halted and begin
    /// anew (USB 2.0, sections 9.1.1.5 and 9.4.5). What the device itself keeps besides stays: a card that has power, or a PIN that was given. Nobody may have an
    /// interface of the part any more.
    pub fn choose_first_settings(&self, part: &Share) {
        for number in (0..=u8::MAX).filter(|number| part.has(*number)) {
            // One that is gone, or does not take it, says so with its next transfer. Of one that answers nothing the kernel waits five seconds for each.
            let chosen = usbport::choose_first_setting(&self.0, number);
            if chosen.is_err_and(|error| error.kind() == ErrorKind::TimedOut) {
                break;
            }
        }
    }
}

/// Opens a device by its own node and without a look at any other: a device in a reset holds up whoever asks the kernel for its texts.
fn open(found: &DeviceSnapshot) -> Result<File, HoldError> {
    let node = format!("/dev/bus/usb/{:03}/{:03}", found.bus, found.address);
    OpenOptions::new().read(true).write(true).open(node).map_err(|error| {
        if error.kind() == ErrorKind::NotFound { HoldError::Gone } else { HoldError::Node(error) }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_worker_may_claim_the_interfaces_of_its_share_and_no_others() {
        let some = |numbers: &[u8]| Share::Interfaces(BTreeSet::from_iter(numbers.iter().copied()));
        assert_eq!(mask(&Share::Whole), u32::MAX);
        assert_eq!(mask(&some(&[1, 3])), 0b1010);
        assert_eq!(mask(&some(&[31])), 1 << 31);
        assert_eq!(mask(&some(&[32, 200])), 0, "there is no bit for it");
        assert_eq!(mask(&some(&[])), 0);
    }
}
