//! Having a device: its node in usbfs, and its port while its interfaces are admitted.

use nusb::MaybeFuture;
use nusb::transfer::{ControlIn, ControlType, Recipient};

use super::{CONTROL_TIMEOUT, ExportError};
use crate::authority;
use crate::sysfs::{Found, Sysfs};

pub(super) fn open(found: &Found) -> Result<nusb::Device, ExportError> {
    let failed = |source| ExportError::Usbfs { what: "list devices", source };
    let mut devices = nusb::list_devices().wait().map_err(failed)?;
    let info = devices
        .find(|info| info.busnum() == found.bus && info.device_address() == found.address)
        .ok_or(ExportError::Gone)?;
    info.open().wait().map_err(|source| ExportError::Usbfs { what: "open", source })
}

/// Keeps the host's drivers off a device whose interfaces are admitted, until it is dropped; then they are not any more.
pub(super) struct Hold {
    pub(super) sysfs: Sysfs,
    pub(super) found: Found,
    _port: usbport::Claim,
}

impl Hold {
    pub(super) fn take(sysfs: Sysfs, found: Found) -> Result<Self, ExportError> {
        let (hub, port) = found.bus_id.parent().ok_or(ExportError::Gone)?;
        let node = sysfs.node(&hub).ok_or(ExportError::Gone)?;
        let port = usbport::Claim::take(&node, port).map_err(ExportError::Port)?;
        Ok(Self { sysfs, found, _port: port })
    }

    /// Admits the interfaces of the configuration it is in.
    pub(super) fn admit(&self) {
        // One that went meanwhile cannot be claimed, and that is told.
        let _ = authority::admit(&self.sysfs, &self.found.bus_id);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        // One that is gone has no interfaces.
        let _ = authority::withdraw(&self.sysfs, &self.found.bus_id);
    }
}

/// The HID report descriptors (HID 1.11, 7.1.1) of these interfaces; none where the device does not answer. At most 4 KiB each.
///
/// # Errors
/// The device cannot be used.
pub fn report_descriptors(
    sysfs: &Sysfs,
    found: &Found,
    interfaces: &[u8],
) -> Result<Vec<(u8, Vec<u8>)>, ExportError> {
    let hold = Hold::take(sysfs.clone(), found.clone())?;
    hold.admit();
    let device = open(found)?;
    let read = |interface: &u8| {
        let setup = ControlIn {
            control_type: ControlType::Standard,
            recipient: Recipient::Interface,
            request: 6,
            value: 0x2200,
            index: (*interface).into(),
            length: 4096,
        };
        // Keyboards that are there already have a driver of the host's.
        let _ = device.detach_kernel_driver(*interface);
        let claimed = device.claim_interface(*interface).wait().ok()?;
        let report = claimed.control_in(setup, CONTROL_TIMEOUT).wait().ok()?;
        Some((*interface, report))
    };
    Ok(interfaces.iter().filter_map(read).collect())
}
