//! The channel between the agent and a worker that lives on: messages of one packet each.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use worker_link::{FILES_MAX, MESSAGE_MAX};

/// The agent's end. It never blocks: a worker that takes nothing fills its own socket and nobody's else.
pub struct Channel {
    socket: OwnedFd,
    /// Where a message is received; none before the first is looked for. It is looked for more often than there is one.
    buffer: Cell<Vec<u8>>,
}

impl Channel {
    /// Makes a channel: this end, and the descriptor that a worker is started with.
    ///
    /// # Errors
    /// The process has no descriptor left.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, workers) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { socket: ours, buffer: Cell::default() }, workers))
    }

    /// Sends a message, with copies of these descriptors.
    ///
    /// # Errors
    /// The worker is gone, takes nothing ([`io::ErrorKind::WouldBlock`]), or the message is longer than [`MESSAGE_MAX`] or has more than [`FILES_MAX`] descriptors.
    pub fn send(&self, message: &[u8], files: &[BorrowedFd<'_>]) -> io::Result<()> {
        if message.len() > MESSAGE_MAX || files.len() > FILES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES_MAX))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(message)], &mut ancillary, flags)?;
        Ok(())
    }

    /// Receives the next message, if there is one. Descriptors that a worker sends are never received.
    ///
    /// # Errors
    /// The worker is gone ([`io::ErrorKind::UnexpectedEof`]), or sent more than a message may be ([`io::ErrorKind::InvalidData`]).
    pub fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        match self.receive_next() {
            // It ended without having read everything. The kernel says so once, and then gives what it had said before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => self.receive_next(),
            received => received,
        }
    }

    fn receive_next(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = self.buffer.take();
        buffer.resize(MESSAGE_MAX, 0);
        let received = self.receive_in(&mut buffer);
        let message =
            received.map(|count| count.and_then(|count| buffer.get(..count)).map(<[u8]>::to_vec));
        self.buffer.set(buffer);
        message
    }

    /// Receives the next message here; returns its length.
    fn receive_in(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        // Without room for them the kernel throws descriptors away.
        let mut none = RecvAncillaryBuffer::default();
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let mut space = [IoSliceMut::new(buffer)];
        match recvmsg(&self.socket, &mut space, &mut none, flags) {
            Ok(received) if received.flags.contains(rustix::net::ReturnFlags::TRUNC) => {
                Err(io::ErrorKind::InvalidData.into())
            }
            Ok(received) if received.bytes == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => Ok(Some(received.bytes)),
            Err(error) => match io::Error::from(error) {
                error if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(None),
                error => Err(error),
            },
        }
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Channel").field(&self.socket).finish()
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    /// A worker's end that is used as this one is.
    fn pair() -> (Channel, Channel) {
        let (ours, workers) = Channel::pair().unwrap();
        (ours, Channel { socket: workers, buffer: Cell::default() })
    }

    #[test]
    fn messages_arrive_whole_one_by_one_and_the_end_is_told_from_none() {
        let (ours, workers) = pair();
        assert!(ours.receive().unwrap().is_none());
        workers.send(b"one", &[]).unwrap();
        workers.send(&vec![7; MESSAGE_MAX], &[]).unwrap();
        assert_eq!(ours.receive().unwrap().unwrap(), b"one");
        assert_eq!(ours.receive().unwrap().unwrap(), vec![7; MESSAGE_MAX]);
        drop(workers);
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(ours.send(b"late", &[]).is_err(), "and no signal");
    }

    #[test]
    fn a_worker_that_takes_nothing_holds_up_nobody_and_one_that_sends_too_much_is_told() {
        let (ours, workers) = pair();
        let full = (0..100_000).find_map(|_| ours.send(&[0; 1000], &[]).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
        assert!(ours.send(&vec![0; MESSAGE_MAX + 1], &[]).is_err());
        let too_long = vec![0; MESSAGE_MAX + 1];
        rustix::net::send(&workers.socket, &too_long, SendFlags::empty()).unwrap();
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_last_word_of_a_worker_that_left_something_unread_is_heard() {
        let (ours, workers) = pair();
        ours.send(b"too late", &[]).unwrap();
        workers.send(b"last word", &[]).unwrap();
        drop(workers);
        assert_eq!(ours.receive().unwrap().unwrap(), b"last word");
        assert_eq!(ours.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn no_descriptor_comes_from_a_worker() {
        let (ours, workers) = pair();
        let (mut left, sent) = UnixStream::pair().unwrap();
        workers.send(b"take this", &[sent.as_fd()]).unwrap();
        drop(sent);
        assert_eq!(ours.receive().unwrap().unwrap(), b"take this");
        // Nobody has the end that was sent, but for a moment the child of another test.
        left.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(left.read(&mut [0]).expect("somebody took it"), 0);
    }
}
