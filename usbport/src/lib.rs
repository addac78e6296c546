//! A port of a USB hub that this process owns.
//!
//! The kernel binds a driver of its own to no interface of a device at a port that somebody owns
//! (Linux `drivers/usb/core/driver.c`, `usb_probe_interface`; `hub.c`, `usb_device_is_owned`). Only usbfs has it. That holds
//! where authorisation alone does not: an interface has to be authorised before usbfs may claim it, and the kernel asks every driver
//! again when it has reset a device of its own accord, or when a driver's module is loaded. A device can bring the first about.
//!
//! This is the one place of the USB mediation with `unsafe` code: nothing but one `ioctl`.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The kernel's own code for the request, from `linux/usbdevice_fs.h`.
mod request {
    nix::ioctl_read!(claim_port, b'U', 24, nix::libc::c_uint);
}

/// A port that is owned until this is dropped. It stays owned while devices come and go there.
#[derive(Debug)]
pub struct Claim {
    _hub: File,
}

impl Claim {
    /// Takes the port with this number, from 1, of the hub with this node in `/dev/bus/usb`. The node of a bus itself is that of its
    /// root hub.
    ///
    /// # Errors
    /// The hub is gone or has no such port, somebody else owns it (`EBUSY`), or this process may not (`EACCES`).
    pub fn take(hub: &Path, port: u8) -> io::Result<Self> {
        let hub = OpenOptions::new().read(true).write(true).open(hub)?;
        let mut number = port.into();
        // SAFETY: the kernel reads the number the pointer leads to, which lives until the call is over, and keeps neither.
        unsafe { request::claim_port(hub.as_raw_fd(), &mut number) }?;
        Ok(Self { _hub: hub })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_no_hub_has_no_ports() {
        let error = Claim::take(Path::new("/dev/null"), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
        let error = Claim::take(Path::new("/dev/bus/usb/000/000"), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
