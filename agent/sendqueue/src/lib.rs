//! Whether the other end of a connected Unix stream socket has read all that was sent to it.
//!
//! What lies in a socket cannot be called back. Whoever may have to withdraw something (the clipboard, when a policy comes that no longer allows a
//! paste) sends the rest of it only once what was sent before has been read.
//!
//! ```
//! use std::io::{Read, Write};
//! use std::os::unix::net::UnixStream;
//! use sendqueue::SendQueue;
//!
//! let (mut ours, mut theirs) = UnixStream::pair()?;
//! let queue = SendQueue::of(&ours)?;
//! ours.write_all(b"offer")?;
//! assert!(!queue.is_read(&ours)?, "it lies in the socket");
//! theirs.read_exact(&mut [0; 5])?;
//! assert!(queue.is_read(&ours)?);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! [`SendQueue::fd`] is polled meanwhile: it is readable when the other end has read something. That it was read is all that is known: not by whom, nor
//! what became of it. Nothing is sent, received or buffered here.
//!
//! This is a crate of its own for its one `ioctl` (`SIOCOUTQ`), the only `unsafe` code of the clipboard's.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The kernel's own code for the request, from `linux/sockios.h`.
mod request {
    nix::ioctl_read_bad!(unread, nix::libc::TIOCOUTQ, nix::libc::c_int);
}

/// A watch over one socket's other end.
#[derive(Debug)]
pub struct SendQueue {
    epoll: Epoll,
}

impl SendQueue {
    /// Watches the other end of this socket, for as long as the socket is open.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn of(socket: &UnixStream) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // The kernel says so anew each time the other end has read something (`sock_wfree`).
        let event = EpollEvent::new(EpollFlags::EPOLLOUT | EpollFlags::EPOLLET, 0);
        epoll.add(socket, event)?;
        Ok(Self { epoll })
    }

    /// Returns whether the other end of `socket`, the one given to [`Self::of`], has read everything. If not, [`Self::fd`] becomes readable
    /// when it has read something.
    ///
    /// # Errors
    /// It is no socket of that kind.
    pub fn is_read(&self, socket: &UnixStream) -> io::Result<bool> {
        // What was reported before is asked for below.
        let _ = self.epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::ZERO);
        let mut unread = 0;
        // SAFETY: the kernel writes one `int` to where the pointer leads, which lives until the call is over.
        unsafe { request::unread(socket.as_raw_fd(), &mut unread) }?;
        Ok(unread == 0)
    }

    /// Returns a descriptor to poll.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::{Read as _, Write as _};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn tells(queue: &SendQueue) -> bool {
        poll(&mut [PollFd::new(queue.fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    #[test]
    fn a_socket_is_read_when_the_other_end_has_read_its_last_byte() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let queue = SendQueue::of(&ours).unwrap();
        assert!(queue.is_read(&ours).unwrap());
        ours.write_all(&[1; 100]).unwrap();
        ours.write_all(&[2; 100]).unwrap();
        assert!(!queue.is_read(&ours).unwrap() && !tells(&queue));
        theirs.read_exact(&mut [0; 199]).unwrap();
        assert!(!queue.is_read(&ours).unwrap());
        theirs.read_exact(&mut [0; 1]).unwrap();
        assert!(tells(&queue), "it says so without being asked");
        assert!(queue.is_read(&ours).unwrap() && !tells(&queue));
    }

    #[test]
    fn what_was_read_before_anybody_waited_is_not_missed() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        let queue = SendQueue::of(&ours).unwrap();
        ours.write_all(&[1; 9]).unwrap();
        assert!(!queue.is_read(&ours).unwrap());
        theirs.read_exact(&mut [0; 9]).unwrap();
        assert!(tells(&queue));
    }
}
