//! The socket to one guest's agent.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use crate::mediator::Time;
use sendqueue::SendQueue;

use super::Way;
use base::sockets::{dial, listen};

/// How often a VMM that does not listen is tried.
const DIAL_EVERY: Time = Time::from_millis(500);

/// What became of reading or writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// So many bytes.
    Some(usize),
    /// None for now.
    Nothing,
    /// The other end is gone.
    Gone,
}

impl Did {
    fn of(result: io::Result<usize>) -> Self {
        match result {
            Ok(0) => Self::Gone,
            Ok(count) => Self::Some(count),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Self::Nothing,
                _ => Self::Gone,
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

#[derive(Debug)]
pub(super) struct End {
    way: Way,
    listener: Option<UnixListener>,
    stream: Option<Connection>,
    /// No connection is made before.
    again: Time,
}

impl End {
    /// For the domain of this name.
    pub(super) fn new(way: Way, domain: &str) -> io::Result<Self> {
        let listener = match &way {
            Way::Dial(_) => None,
            Way::Listen(path) => Some(listen(path, domain)?),
        };
        Ok(Self { way, listener, stream: None, again: Time::ZERO })
    }

    /// Connects or accepts, if that is due; returns whether a connection was made.
    pub(super) fn connect(&mut self, now: Time) -> bool {
        if self.stream.is_some() || now < self.again {
            return false;
        }
        let stream = match (&self.way, &self.listener) {
            (_, Some(listener)) => listener.accept().map(|(stream, _)| stream),
            (Way::Dial(path), None) => {
                self.again = now.saturating_add(DIAL_EVERY);
                dial(path)
            }
            (Way::Listen(_), None) => return false,
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

    /// The connection, for polling.
    pub(super) fn stream(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.socket.as_fd())
    }

    /// What becomes readable when the other end has read something, for polling.
    pub(super) fn reads(&self) -> Option<BorrowedFd<'_>> {
        self.stream.as_ref().map(|stream| stream.queue.fd())
    }

    /// Whether the other end has read all that was written.
    pub(super) fn is_read(&self) -> bool {
        self.stream.as_ref().is_some_and(|Connection { socket, queue }| {
            queue.is_read(socket).unwrap_or_else(|error| {
                tracing::error!("a clipboard's socket does not say what was read: {error}");
                false
            })
        })
    }

    /// What becomes readable when somebody wants to connect, while nobody is and it is time.
    pub(super) fn door(&self, now: Time) -> Option<BorrowedFd<'_>> {
        let free = self.stream.is_none() && now >= self.again;
        self.listener.as_ref().filter(|_| free).map(AsFd::as_fd)
    }

    /// When to try again.
    pub(super) fn due(&self, now: Time) -> Option<Time> {
        let waits = self.stream.is_none() && (self.listener.is_none() || now < self.again);
        waits.then_some(self.again)
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Did {
        self.stream.as_mut().map_or(Did::Nothing, |stream| Did::of(stream.socket.read(buffer)))
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Did {
        self.stream.as_mut().map_or(Did::Nothing, |stream| Did::of(stream.socket.write(bytes)))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        if let Way::Listen(path) = &self.way {
            // There is nobody to tell, and the next agent removes it as well.
            let _ = fs::remove_file(path);
        }
    }
}
