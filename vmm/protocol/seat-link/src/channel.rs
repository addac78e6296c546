//! One end of a link: packets in and out, never waiting.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect as connect_socket, socket, socketpair,
};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::PACKET_MAX;

/// Returns the agent's end of a link to the VMM that listens at `path`. Waits for nobody.
///
/// # Errors
/// Nobody listens there ([`io::ErrorKind::NotFound`], [`io::ErrorKind::ConnectionRefused`]), or too many wait already
/// ([`io::ErrorKind::WouldBlock`]): to be tried again.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    connect_socket(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Makes a link's two ends, without a path.
///
/// # Errors
/// The process has no file descriptor left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// What a read from the channel gave.
#[derive(Debug)]
pub enum Packet<'a> {
    /// A packet, and the file that came with it.
    Message(&'a [u8], Option<File>),
    /// No packet is there for now.
    Nothing,
    /// The other end is gone.
    Closed,
}

/// One end of a link.
#[derive(Debug)]
pub struct Channel {
    // The standard library has no type of its own for sequenced packets. What is used of this one,
    // sending and receiving whole packets on a connected socket, is the same.
    socket: UnixDatagram,
}

impl Channel {
    /// Takes a socket made by [`pair`] or [`connect`], or accepted by a listener of such.
    ///
    /// # Errors
    /// It is no socket.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Sends a packet; false if the other end has not made room for it yet.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send(&self, packet: &[u8]) -> io::Result<bool> {
        sent(self.socket.send(packet))
    }

    /// Sends a packet and a file with it; false if there is no room yet.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn send_file(&self, packet: &[u8], file: BorrowedFd<'_>) -> io::Result<bool> {
        sent(self.socket.send_with_fd(packet, file.as_raw_fd()).map_err(io::Error::from))
    }

    /// Takes the next packet; a file that comes with it is closed unseen.
    ///
    /// # Errors
    /// The socket fails.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; PACKET_MAX]) -> io::Result<Packet<'a>> {
        let received = self.socket.recv(buffer).map(|count| (count, None));
        packet(received, buffer)
    }

    /// Takes the next packet and the file that comes with it.
    ///
    /// # Errors
    /// The socket fails.
    pub fn receive_file<'a>(&self, buffer: &'a mut [u8; PACKET_MAX]) -> io::Result<Packet<'a>> {
        let received = self.socket.recv_with_fd(buffer.as_mut_slice()).map_err(io::Error::from);
        packet(received, buffer)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.socket.as_raw_fd()
    }
}

fn sent(result: io::Result<usize>) -> io::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(false),
        // The kernel's way to say the same when its memory for sockets is used up.
        Err(e) if e.raw_os_error() == Some(nix::Error::ENOBUFS as i32) => Ok(false),
        Err(e) => Err(e),
    }
}

fn packet(
    received: io::Result<(usize, Option<File>)>,
    buffer: &mut [u8; PACKET_MAX],
) -> io::Result<Packet<'_>> {
    match received {
        // No message of the link is empty: this is the end.
        Ok((0, _)) => Ok(Packet::Closed),
        Ok((count, file)) => Ok(Packet::Message(buffer.get(..count).unwrap_or_default(), file)),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Packet::Nothing),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Packet::Nothing),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(Packet::Closed),
        Err(e) => Err(e),
    }
}
