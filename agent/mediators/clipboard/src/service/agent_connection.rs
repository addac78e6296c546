//! The socket to one guest's agent: its worker reads it ([`super::reader`]), and this process writes it.

use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::mediator::Time;
use crate::mediator::limits::HANG_UP;
use crate::vdagent::Outbox;
use sendqueue::SendQueue;

use base::sockets::{SocketEndpoint, connect, listen};

/// How often a VMM that does not listen is tried.
const CONNECT_EVERY: Time = Time::from_millis(500);

/// The outcome of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transferred {
    /// So many bytes were written.
    Bytes(usize),
    /// The socket takes no bytes at the moment.
    Nothing,
    /// The other end is gone.
    Disconnected,
}

impl Transferred {
    fn of(result: io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::Disconnected,
            Ok(count) => Self::Bytes(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Self::Nothing,
                _ => Self::Disconnected,
            },
        }
    }
}

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    queue: SendQueue,
    /// When it ends at the latest, as the other end has hung up.
    until: Option<Time>,
}

impl Connection {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let queue = SendQueue::of(&socket)?;
        Ok(Self { socket, queue, until: None })
    }
}

impl Drop for Connection {
    /// Ends the stream, whoever else has its descriptor.
    fn drop(&mut self) {
        // The other end may have ended it already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

/// The connection to the SPICE agent of one domain's guest: made again whenever it is gone.
#[derive(Debug)]
pub(super) struct AgentConnection {
    endpoint: SocketEndpoint,
    listener: Option<UnixListener>,
    stream: Option<Connection>,
    /// No connection is made before.
    again: Time,
}

impl AgentConnection {
    /// Makes one for the domain of this name, not connected yet; listens where the guest connects.
    pub(super) fn new(endpoint: SocketEndpoint, domain: &str) -> io::Result<Self> {
        let listener = match &endpoint {
            SocketEndpoint::Connect(_) => None,
            SocketEndpoint::Listen(path) => Some(listen(path, domain)?),
        };
        Ok(Self { endpoint, listener, stream: None, again: Time::ZERO })
    }

    /// Connects or accepts, if that is due; returns whether a connection was made.
    pub(super) fn connect(&mut self, now: Time) -> bool {
        if self.stream.is_some() || now < self.again {
            return false;
        }
        let stream = match (&self.endpoint, &self.listener) {
            (_, Some(listener)) => listener.accept().map(|(stream, _)| stream),
            (SocketEndpoint::Connect(path), None) => {
                self.again = now.saturating_add(CONNECT_EVERY);
                connect(path)
            }
            (SocketEndpoint::Listen(_), None) => return false,
        };
        self.stream = stream.and_then(Connection::new).ok();
        self.stream.is_some()
    }

    pub(super) fn disconnect(&mut self, again: Time) {
        self.stream = None;
        self.again = self.again.max(again);
    }

    /// Returns the stream, for its reader.
    ///
    /// # Errors
    /// There is none, or this process has no descriptor left.
    pub(super) fn to_be_read(&self) -> io::Result<OwnedFd> {
        let stream = self.stream.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        stream.socket.as_fd().try_clone_to_owned()
    }

    /// Returns the socket, for polling, while the other end has not hung up.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        let stream = self.stream.as_ref().filter(|stream| stream.until.is_none());
        stream.map(|stream| stream.socket.as_fd())
    }

    /// Handles that the other end has hung up: its reader reads the rest, which does not take for ever.
    pub(super) fn hung_up(&mut self, now: Time) {
        if let Some(stream) = &mut self.stream {
            stream.until.get_or_insert(now.saturating_add(HANG_UP));
        }
    }

    /// Returns when the stream ends at the latest, if the other end has hung up.
    pub(super) fn until(&self) -> Option<Time> {
        self.stream.as_ref()?.until
    }

    /// Returns what becomes readable when the other end has read something, for polling.
    pub(super) fn read_notifier(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.queue.fd())
    }

    /// Returns whether the other end has read all that was written.
    pub(super) fn is_read(&self) -> bool {
        self.stream.as_ref().is_some_and(|Connection { socket, queue, .. }| {
            queue.is_read(socket).unwrap_or_else(|error| {
                tracing::error!("a clipboard's socket does not say what was read: {error}");
                false
            })
        })
    }

    /// Returns whether something that the other end has written was not read yet.
    pub(super) fn has_unread(&self) -> bool {
        self.stream.as_ref().is_some_and(|Connection { socket, .. }| {
            rustix::io::ioctl_fionread(socket).unwrap_or_else(|error| {
                tracing::error!("a clipboard's socket does not say what is unread: {error}");
                0
            }) > 0
        })
    }

    /// Returns the listener, for polling, while nobody is connected and a connection is due.
    pub(super) fn listener(&self, now: Time) -> Option<BorrowedFd<'_>> {
        let free = self.stream.is_none() && now >= self.again;
        self.listener.as_ref().filter(|_| free).map(AsFd::as_fd)
    }

    /// Returns when a connection is due, while there is none.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        let waits = self.stream.is_none() && (self.listener.is_none() || now < self.again);
        waits.then_some(self.again)
    }

    /// Writes what waits for the guest, of which `most` bytes are made ready at a time. Nothing else is ever written.
    pub(super) fn write(&mut self, outbox: &mut Outbox, most: usize) -> Transferred {
        let Some(stream) = self.stream.as_mut().filter(|stream| stream.until.is_none()) else {
            return Transferred::Nothing;
        };
        let bytes = outbox.bytes(most);
        if bytes.is_empty() {
            return Transferred::Nothing;
        }
        let written = Transferred::of(stream.socket.write(bytes));
        if let Transferred::Bytes(count) = written {
            outbox.took(count);
        }
        written
    }
}

impl Drop for AgentConnection {
    fn drop(&mut self) {
        if let SocketEndpoint::Listen(path) = &self.endpoint {
            // There is nobody to tell, and the next agent removes it as well.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn connected() -> (AgentConnection, UnixStream, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("guest");
        let mut ours =
            AgentConnection::new(SocketEndpoint::Listen(path.clone()), "internet").unwrap();
        let guest = UnixStream::connect(&path).unwrap();
        assert!(ours.connect(Time::ZERO));
        let reader = ours.to_be_read().unwrap();
        (ours, guest, reader)
    }

    #[test]
    fn a_stream_that_is_ended_is_over_for_its_guest_though_its_reader_has_it_still() {
        let (mut ours, mut guest, reader) = connected();
        ours.disconnect(Time::ZERO);
        guest.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        assert_eq!(guest.read(&mut [0; 8]).unwrap(), 0);
        assert!(guest.write(b"to nobody").is_err());
        drop(reader);
    }

    #[test]
    fn a_guest_that_hung_up_is_written_nothing_and_waited_for_no_longer_than_there_may_be() {
        let (mut ours, guest, _reader) = connected();
        drop(guest);
        assert_eq!(ours.until(), None);
        ours.hung_up(Time::from_secs(1));
        ours.hung_up(Time::from_secs(9));
        assert_eq!(ours.until(), Some(Time::from_secs(1) + HANG_UP));
        assert!(ours.stream().is_none(), "it is not polled: that would never wait");
        let mut outbox = Outbox::of(0);
        outbox.announce(true);
        assert_eq!(ours.write(&mut outbox, 100), Transferred::Nothing);
    }
}
