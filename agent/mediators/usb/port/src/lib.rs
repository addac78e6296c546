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
//! A few things besides are done to the open node of a device: a reset ([`reset`]), putting an interface into its first setting
//! ([`choose_first_setting`]), taking from the node the rights that whoever gets it is not to have ([`drop_privileges`]), and what reading the
//! device takes before it is judged: its descriptors ([`read_descriptor`]), an interface ([`take_interface`]), and a configuration
//! ([`choose_configuration`]). Each of these is one call of the kernel's that ends by itself: no thread is needed that somebody else starts, and no
//! transfer outlives its call.
//!
//! This is the one place of the USB mediation with `unsafe` code: nothing but ten `ioctl`s.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// The kernel's own codes for the requests, from `linux/usbdevice_fs.h`.
mod request {
    use nix::libc::{c_char, c_uint, c_void};

    /// `struct usbdevfs_ctrltransfer`.
    #[repr(C)]
    pub(super) struct ControlTransfer {
        pub(super) request_type: u8,
        pub(super) request: u8,
        pub(super) value: u16,
        pub(super) index: u16,
        pub(super) length: u16,
        /// In milliseconds; 0 is for ever.
        pub(super) timeout: u32,
        pub(super) data: *mut c_void,
    }

    /// `struct usbdevfs_disconnect_claim`.
    #[repr(C)]
    pub(super) struct DisconnectClaim {
        pub(super) interface: c_uint,
        /// 0: whatever driver has it.
        pub(super) flags: c_uint,
        pub(super) driver: [c_char; 256],
    }

    nix::ioctl_readwrite!(control, b'U', 0, ControlTransfer);
    nix::ioctl_read!(set_configuration, b'U', 5, c_uint);
    nix::ioctl_read!(disconnect_claim, b'U', 27, DisconnectClaim);
    nix::ioctl_read!(claim_port, b'U', 24, c_uint);
    nix::ioctl_read!(release_port, b'U', 25, c_uint);
    nix::ioctl_none!(reset, b'U', 20);
    nix::ioctl_read!(set_interface, b'U', 4, [c_uint; 2]);
    nix::ioctl_read!(claim_interface, b'U', 15, c_uint);
    nix::ioctl_read!(release_interface, b'U', 16, c_uint);
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

/// Whose descriptor is asked for: where the question goes to (USB 2.0, table 9-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The device's own.
    Device,
    /// One of an interface, which this node has [taken](take_interface).
    Interface,
}

/// A descriptor to be read (USB 2.0, section 9.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Whose it is.
    pub whose: Whose,
    /// Its type, and which of them.
    pub kind: u8,
    pub index: u8,
    /// The language of a text, the number of an interface, 0 otherwise.
    pub target: u16,
    /// Most bytes that are read: a page, what the kernel takes in one piece.
    pub length: u16,
}

/// Reads a descriptor from the device of an open node, and waits no longer than this for it. No signal ends that wait but one that ends the process.
/// The kernel may wait for the device's lock before, as for all of these, and after it for a controller that does not let go.
///
/// # Errors
/// What the kernel says: `ETIMEDOUT` of a device that does not answer, `EPIPE` of one that refuses, `ENODEV` of one that is gone, `ENOMEM` when its
/// stock for transfers is in use.
pub fn read_descriptor(
    node: &File,
    Descriptor { whose, kind, index, target, length }: Descriptor,
    timeout: Duration,
) -> io::Result<Vec<u8>> {
    const GET_DESCRIPTOR: u8 = 6;
    let mut bytes = vec![0_u8; length.into()];
    let mut transfer = request::ControlTransfer {
        request_type: match whose {
            Whose::Device => 0x80,
            Whose::Interface => 0x81,
        },
        request: GET_DESCRIPTOR,
        value: u16::from_le_bytes([index, kind]),
        index: target,
        length,
        timeout: milliseconds(timeout),
        data: bytes.as_mut_ptr().cast(),
    };
    // SAFETY: the kernel reads the request the pointer leads to and writes at most `length` bytes to `data`, which has as many; both live until the
    // call is over, and it keeps neither.
    let count = unsafe { request::control(node.as_raw_fd(), &mut transfer) }?;
    bytes.truncate(usize::try_from(count).unwrap_or_default());
    Ok(bytes)
}

/// Returns a time as the kernel counts it. None is the shortest there is: 0 would be for ever.
fn milliseconds(timeout: Duration) -> u32 {
    u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Takes an interface of an open node's device from whatever driver has it, if one has, and claims it for this node.
///
/// # Errors
/// It is no node of a device, the device has no such interface in its configuration, or it is not authorised.
pub fn take_interface(node: &File, interface: u8) -> io::Result<()> {
    let interface = interface.into();
    let mut taken = request::DisconnectClaim { interface, flags: 0, driver: [0; 256] };
    // SAFETY: the kernel reads what the pointer leads to, which lives until the call is over, and keeps no pointer.
    unsafe { request::disconnect_claim(node.as_raw_fd(), &mut taken) }?;
    Ok(())
}

/// Gives up an interface that was [taken](take_interface). One that this node does not have stays as it is.
pub fn let_go_of_interface(node: &File, interface: u8) {
    let mut number = interface.into();
    // SAFETY: the kernel reads the number the pointer leads to, which lives until the call is over, and keeps neither.
    let _ = unsafe { request::release_interface(node.as_raw_fd(), &mut number) };
}

/// Puts an open node's device into the configuration of this `bConfigurationValue`; 0 is none. It may take the five seconds of a control request.
///
/// # Errors
/// It is no node of a device, somebody has an interface of it, it has no such configuration, or does not take it.
pub fn choose_configuration(node: &File, configuration: u8) -> io::Result<()> {
    let mut number = configuration.into();
    // SAFETY: the kernel reads the number the pointer leads to, which lives until the call is over, and keeps neither.
    unsafe { request::set_configuration(node.as_raw_fd(), &mut number) }?;
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
        for done in [
            reset(&file),
            drop_privileges(&file, 1),
            choose_first_setting(&file, 1),
            take_interface(&file, 1),
            choose_configuration(&file, 1),
        ] {
            assert_eq!(done.unwrap_err().raw_os_error(), Some(nix::libc::ENOTTY));
        }
        let_go_of_interface(&file, 1);
    }

    #[test]
    fn what_is_no_device_says_nothing_of_itself_and_is_not_waited_for() {
        let file = File::open("/dev/null").unwrap();
        let whose = Whose::Device;
        let asked = Descriptor { whose, kind: 3, index: 0, target: 0, length: 255 };
        let error = read_descriptor(&file, asked, Duration::from_secs(5)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
    }

    #[test]
    fn the_kernel_is_asked_by_the_codes_of_its_own_headers() {
        // As they come out of linux/usbdevice_fs.h on a PC, and as docs/design/sandbox.md has them.
        let control = nix::request_code_readwrite!(b'U', 0, size_of::<request::ControlTransfer>());
        assert_eq!(control, 0xc018_5500);
        let taken = nix::request_code_read!(b'U', 27, size_of::<request::DisconnectClaim>());
        assert_eq!(taken, 0x8108_551b);
        assert_eq!(nix::request_code_read!(b'U', 5, size_of::<nix::libc::c_uint>()), 0x8004_5505);
    }

    #[test]
    fn no_question_to_a_device_is_without_an_end() {
        assert_eq!(milliseconds(Duration::ZERO), 1, "0 is for ever");
        assert_eq!(milliseconds(Duration::from_micros(10)), 1);
        assert_eq!(milliseconds(Duration::from_secs(5)), 5000);
        assert_eq!(milliseconds(Duration::MAX), u32::MAX);
    }

    #[test]
    fn what_is_no_hub_has_no_ports() {
        let error = Claim::take(Path::new("/dev/null"), 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::ENOTTY));
        let error = Claim::take(Path::new("/dev/bus/usb/000/000"), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
