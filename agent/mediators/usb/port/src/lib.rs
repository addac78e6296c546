//! A port of a USB hub that this process owns, so that no driver of the host's gets what is plugged in there.
//!
//! The kernel binds a driver of its own to no interface of a device at a port that somebody owns
//! (Linux `drivers/usb/core/driver.c`, `usb_probe_interface`; `hub.c`, `usb_device_is_owned`). Only usbfs has it. That holds
//! where authorisation alone does not: an interface has to be authorised before usbfs may claim it, and the kernel asks every driver
//! again when it has reset a device of its own accord, or when a driver's module is loaded. A device can bring the first about.
//!
//! ```no_run
//! use std::path::Path;
//!
//! // Port 3 of the hub that is device 2 on bus 1.
//! let claim = usbport::Claim::take(Path::new("/dev/bus/usb/001/002"), 3)?;
//! // ... authorise the interfaces, serve the device by usbfs ...
//! drop(claim); // the host's drivers may have what is plugged in from now on
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! - The port is owned for as long as the [`Claim`] lives, whatever is plugged in and out there meanwhile, and no longer: the kernel ends it with the process, too.
//! - A port has one owner: a second claim fails with `EBUSY`, in whatever process.
//! - It decides nothing: which ports to claim, and when, is up to `usbhost`, which withdraws authorisation before it gives a claim up.
//!
//! Three things besides are done to the open node of a device: a reset ([`reset`]), putting an interface into its first setting
//! ([`choose_first_setting`]), and taking from the node the rights that whoever gets it is not to have ([`drop_privileges`]).
//!
//! This is the one place of the USB mediation with `unsafe` code: nothing but seven `ioctl`s.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The kernel's own codes for the requests, from `linux/usbdevice_fs.h`.
mod request {
    nix::ioctl_read!(claim_port, b'U', 24, nix::libc::c_uint);
    nix::ioctl_read!(release_port, b'U', 25, nix::libc::c_uint);
    nix::ioctl_none!(reset, b'U', 20);
    nix::ioctl_read!(set_interface, b'U', 4, [nix::libc::c_uint; 2]);
    nix::ioctl_read!(claim_interface, b'U', 15, nix::libc::c_uint);
    nix::ioctl_read!(release_interface, b'U', 16, nix::libc::c_uint);
    nix::ioctl_write_ptr!(drop_privileges, b'U', 30, u32);
}

/// Takes rights from an open node, for good and for whoever has it: from here on it claims no interface but those whose bits are set here, takes
/// none from a driver nor gives it back to one, and resets the device only while nobody else has an interface of it (Linux `drivers/usb/core/devio.c`,
/// `privileges_dropped`). What it is asked of endpoint 0 of the device as a whole still passes.
///
/// # Errors
/// It is no node of a device, or the kernel is older than this (4.6).
pub fn drop_privileges(node: &File, interfaces: u32) -> io::Result<()> {
    // SAFETY: the kernel reads the mask the pointer leads to, which lives until the call is over, and keeps no pointer.
    unsafe { request::drop_privileges(node.as_raw_fd(), &interfaces) }?;
    Ok(())
}

/// Resets the device of an open node, which takes its time.
///
/// # Errors
/// It is no node of a device, or the device is gone.
pub fn reset(node: &File) -> io::Result<()> {
    // SAFETY: it has no argument; what it does to the device touches no memory of this process.
    unsafe { request::reset(node.as_raw_fd()) }?;
    Ok(())
}

/// Puts an interface of an open node's device, which nobody has, into its first alternate setting. It may take the five seconds of a control request.
///
/// # Errors
/// It is no node of a device, somebody has the interface, it is not authorised, or the device does not take it.
pub fn choose_first_setting(node: &File, interface: u8) -> io::Result<()> {
    let mut number = interface.into();
    // SAFETY: the kernel reads the number the pointer leads to, which lives until the call is over, and keeps neither.
    unsafe { request::claim_interface(node.as_raw_fd(), &mut number) }?;
    // `struct usbdevfs_setinterface`: the interface, and its setting.
    let mut chosen = [number, 0];
    // SAFETY: the kernel reads the two numbers the pointer leads to, which live until the call is over, and keeps neither.
    let done = unsafe { request::set_interface(node.as_raw_fd(), &mut chosen) };
    // SAFETY: as for claiming it.
    let _ = unsafe { request::release_interface(node.as_raw_fd(), &mut number) };
    done?;
    Ok(())
}

/// A port that is owned until this is dropped. It stays owned while devices come and go there.
#[derive(Debug)]
pub struct Claim {
    hub: File,
    port: u8,
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
        Ok(Self { hub, port })
    }
}

/// Closing the hub would do it, but not at once: a process that is being started has a copy of each of our descriptors until it runs its
/// program, and as long as that lasts the port stays owned. A driver that is asked meanwhile does not take the device, without a word.
impl Drop for Claim {
    fn drop(&mut self) {
        let mut number = self.port.into();
        // SAFETY: as in `take`. A hub that is gone has no owners, so what the call says is of no use.
        let _ = unsafe { request::release_port(self.hub.as_raw_fd(), &mut number) };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_no_device_is_neither_reset_nor_has_rights_to_give_up() {
        let file = File::open("/dev/null").unwrap();
        for done in [reset(&file), drop_privileges(&file, 1), choose_first_setting(&file, 1)] {
            assert_eq!(done.unwrap_err().raw_os_error(), Some(nix::libc::ENOTTY));
        }
    }

    #[test]
    fn what_is_no_hub_has_no_ports() {
        let error = Claim::take(Path::new("/dev/null"), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
        let error = Claim::take(Path::new("/dev/bus/usb/000/000"), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
