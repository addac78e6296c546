//! Having a device: its node in usbfs, and its port while its interfaces are admitted.

use std::fs::OpenOptions;
use std::io::ErrorKind;

use nusb::MaybeFuture;

use super::ExportError;
use crate::authorization;
use usbsysfs::UsbDevices;
use usbsysfs::Vetted;

/// Opens the device, by its own node and without a look at any other: a device in a reset holds up whoever asks the kernel for its
/// texts. What nusb has read is compared with what was vetted before anything is done with it.
pub(super) fn open(sysfs: &UsbDevices, vetted: &Vetted) -> Result<nusb::Device, ExportError> {
    let (found, failed) = (vetted.found(), |source| ExportError::Usbfs { what: "open", source });
    let node = format!("/dev/bus/usb/{:03}/{:03}", found.bus, found.address);
    let node = OpenOptions::new().read(true).write(true).open(node).map_err(|error| {
        if error.kind() == ErrorKind::NotFound {
            ExportError::Gone
        } else {
            ExportError::Node(error)
        }
    })?;
    let device = nusb::Device::from_fd(node.into()).wait().map_err(failed)?;
    let mut said = device.device_descriptor().as_bytes().to_vec();
    for configuration in device.configurations() {
        said.extend_from_slice(configuration.as_bytes());
    }
    if said != found.descriptors {
        return Err(ExportError::Changed);
    }
    // Which configuration it is in nusb asks the device; the kernel knows.
    let configuration = sysfs.configuration(&found.bus_id).unwrap_or_default();
    if configuration_of(&device) != configuration {
        // Of a part somebody else's driver has the rest, in the configuration it is in.
        if !vetted.share().is_whole() {
            return Err(ExportError::Changed);
        }
        device.set_configuration(configuration).wait().map_err(failed)?;
    }
    Ok(device)
}

/// Returns the `bConfigurationValue` of the configuration it is in; 0 if it is in none.
pub(super) fn configuration_of(device: &nusb::Device) -> u8 {
    device.active_configuration().map_or(0, |active| active.configuration_value())
}

/// Keeps the host's drivers off a device whose interfaces are admitted, until it is dropped; then they are not any more. A driver that
/// has an interface already keeps it, also over a reset: so of a device of which the seat has a part the seat's driver has it before the
/// port is taken.
pub(super) struct Hold {
    pub(super) sysfs: UsbDevices,
    pub(super) vetted: Vetted,
    _port: usbport::Claim,
}

impl Hold {
    pub(super) fn take(sysfs: UsbDevices, vetted: Vetted) -> Result<Self, ExportError> {
        let (hub, port) = vetted.found().bus_id.parent().ok_or(ExportError::Gone)?;
        let node = sysfs.node(&hub).ok_or(ExportError::Gone)?;
        let port = usbport::Claim::take(&node, port).map_err(ExportError::Port)?;
        Ok(Self { sysfs, vetted, _port: port })
    }

    /// Admits the interfaces of the configuration it is in.
    pub(super) fn admit(&self) {
        // One that went meanwhile cannot be claimed, and that is told.
        let _ = authorization::admit(&self.sysfs, &self.vetted.found().bus_id, self.vetted.share());
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // One that is gone has no interfaces.
        let _ =
            authorization::withdraw(&self.sysfs, &self.vetted.found().bus_id, self.vetted.share());
    }
}
