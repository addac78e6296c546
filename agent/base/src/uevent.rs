//! The kernel's word on devices that come and go (`NETLINK_KOBJECT_UEVENT`).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};

/// Longest message of the kernel's, in bytes (`UEVENT_BUFFER_SIZE` and its header).
const MESSAGE_MAX: usize = 8192;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// An input device came or went.
    pub input: bool,
    /// A monitor, or a graphics card.
    pub screen: bool,
    /// A USB device or controller.
    pub usb: bool,
}

/// The socket on which the kernel's messages about devices come in.
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Listens to the kernel.
    ///
    /// # Errors
    /// The kernel does not offer it.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // Group 1 is the kernel's; udev's own messages go to group 2.
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    /// Becomes readable when something changed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Returns what changed since the last call. Messages that were lost count as everything.
    pub fn take(&self) -> Changes {
        let mut changes = Changes::default();
        let mut buffer = [0; MESSAGE_MAX];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((count, from)) => {
                    // Only the kernel itself has the port 0.
                    if from.is_some_and(|from| from.pid() == 0) {
                        read(buffer.get(..count).unwrap_or_default(), &mut changes);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => changes = Changes { input: true, screen: true, usb: true },
                Err(_) => return changes,
            }
        }
    }
}

/// Reads one message: `ACTION@PATH`, then `KEY=VALUE`, each ended by a zero byte.
fn read(message: &[u8], changes: &mut Changes) {
    for field in message.split(|byte| *byte == 0) {
        match field {
            b"SUBSYSTEM=input" => changes.input = true,
            b"SUBSYSTEM=drm" => changes.screen = true,
            b"SUBSYSTEM=usb" => changes.usb = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_input_devices_and_cards_are_told_apart_from_others() {
        let message = |subsystem: &str| {
            format!(
                "add@/devices/x\0ACTION=add\0DEVPATH=/devices/x\0SUBSYSTEM={subsystem}\0SEQNUM=9\0"
            )
        };
        let mut changes = Changes::default();
        read(message("block").as_bytes(), &mut changes);
        read(b"", &mut changes);
        assert_eq!(changes, Changes::default());
        read(message("input").as_bytes(), &mut changes);
        assert_eq!(changes, Changes { input: true, ..Changes::default() });
        read(message("drm").as_bytes(), &mut changes);
        read(message("usb").as_bytes(), &mut changes);
        assert_eq!(changes, Changes { input: true, screen: true, usb: true });
    }
}
