//! USB: one xHCI controller, whose ports are sockets.

use std::sync::{Arc, Mutex};

use vmm_control::VmSpec;
use vmm_control::limits::USB_MAX;
use xhci::XhciPci;

use super::builder::{Builder, DeviceError, Kind};
use crate::usb::{BackendQueue, Sockets};

pub(super) const KIND: Kind = Kind {
    build,
    #[cfg(test)]
    requests: &[],
};

/// Builds one controller with two ports for each socket: a device is of USB 2 or of USB 3. None without a socket.
fn build(builder: &mut Builder<'_>, spec: &VmSpec) -> Result<(), DeviceError> {
    let count = match u8::try_from(spec.usb.len()) {
        Ok(0) => return Ok(()),
        Ok(count) if spec.usb.len() <= USB_MAX => count,
        _ => return Err(DeviceError::TooManyUsb),
    };
    let backend = BackendQueue::new().map_err(DeviceError::Host)?;
    let ports = xhci::Ports { usb2: count, usb3: count };
    let (function, worker, handle) =
        XhciPci::new(ports, builder.host.memory.clone(), backend.clone(), &*builder.host.msi)
            .map_err(DeviceError::Usb)?;
    builder.add(function)?;
    let sockets = Sockets::listen(&spec.usb, handle, backend)
        .map_err(|(path, source)| DeviceError::UsbSocket { path, source })?;
    builder.parts.main_loop.push(worker);
    builder.parts.main_loop.push(Arc::new(Mutex::new(sockets)));
    Ok(())
}
