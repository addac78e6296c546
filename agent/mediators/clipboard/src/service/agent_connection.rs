//! The socket to one guest's agent.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::mediator::Time;
use crate::vdagent::Outbox;
use sendqueue::SendQueue;

use base::sockets::{SocketEndpoint, connect, listen};

/// How often a VMM that does not listen is tried.
const CONNECT_EVERY: Time = Time::from_millis(500);

/// The outcome of reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transferred {
    /// This many bytes.
    Bytes(usize),
    /// None for now.
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
}

impl Connection {
    fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let queue = SendQueue::of(&socket)?;
        Ok(Self { socket, queue })
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

    pub(super) fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Returns the socket, for polling.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.socket.as_fd())
    }

    /// Returns what becomes readable when the other end has read something, for polling.
    pub(super) fn read_notifier(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.queue.fd())
    }

    /// Returns whether the other end has read all that was written.
    pub(super) fn is_read(&self) -> bool {
        self.stream.as_ref().is_some_and(|Connection { socket, queue }| {
            queue.is_read(socket).unwrap_or_else(|error| {
                tracing::error!("a clipboard's socket does not say what was read: {error}");
                false
            })
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

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Transferred {
        self.stream
            .as_mut()
            .map_or(Transferred::Nothing, |stream| Transferred::of(stream.socket.read(buffer)))
    }

    /// Writes what waits for the guest, of which `most` bytes are made ready at a time. Nothing else is ever written.
    pub(super) fn write(&mut self, outbox: &mut Outbox, most: usize) -> Transferred {
        let Some(stream) = &mut self.stream else { return Transferred::Nothing };
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
