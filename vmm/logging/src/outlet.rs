//! An inherited output stream, written to without waiting for its reader.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

/// What fits a pipe that says it can be written to (pipe(7)).
const PIPE_BUF: usize = 4096;

/// One end of a stream that others may hold too: their flags are left alone, as `O_NONBLOCK` belongs
/// to the open file description, which a shell or a parent shares.
#[derive(Debug)]
pub struct Outlet {
    file: File,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Each call says that it does not wait (`MSG_DONTWAIT`).
    Socket,
    /// A regular file: nobody reads, so nobody is waited for. Or a pipe or terminal that was opened
    /// anew, with a description and flags of our own.
    Own,
    /// Could not be opened anew: looked at before each write. Another process that writes to the
    /// same pipe at the same moment can still make such a write wait.
    Shared,
}

impl Outlet {
    /// Opens another handle on `stream`.
    ///
    /// # Errors
    /// `stream` is closed, or there are too many open files.
    pub fn new(stream: impl AsFd) -> io::Result<Self> {
        let file = File::from(stream.as_fd().try_clone_to_owned()?);
        let kind = file.metadata()?.file_type();
        if kind.is_socket() {
            return Ok(Self { file, kind: Kind::Socket });
        }
        if kind.is_file() {
            return Ok(Self { file, kind: Kind::Own });
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY;
        match OpenOptions::new().write(true).custom_flags(flags).open(path) {
            Ok(file) => Ok(Self { file, kind: Kind::Own }),
            Err(_) => Ok(Self { file, kind: Kind::Shared }),
        }
    }

    /// Writes what can be written at once, perhaps not all.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if that is nothing; others if nobody will read it.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.kind {
            Kind::Socket => {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                Ok(send(self.file.as_raw_fd(), bytes, flags)?)
            }
            Kind::Own => (&self.file).write(bytes),
            Kind::Shared if self.wait(Duration::ZERO) => {
                (&self.file).write(bytes.get(..PIPE_BUF).unwrap_or(bytes))
            }
            Kind::Shared => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Waits until something can be written, or `limit` has passed, or a signal came, and returns
    /// whether something can.
    #[must_use]
    pub fn wait(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLOUT)];
        let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::ZERO);
        // An error is for the write to find.
        matches!(poll(&mut fds, limit), Ok(1..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    /// Writes until nothing more goes in; how much did.
    fn fill(outlet: &Outlet) -> usize {
        let mut total = 0;
        loop {
            match outlet.write(&[b'x'; 100]) {
                Ok(count) => total += count,
                Err(error) => {
                    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                    return total;
                }
            }
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_never_blocks_and_keeps_its_flags() {
        let (mut reader, writer) = io::pipe().unwrap();
        let outlet = Outlet::new(&writer).unwrap();
        assert_eq!(outlet.kind, Kind::Own);
        let total = fill(&outlet);
        assert!(total >= 60_000, "{total}");
        let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK), "the caller's description is left alone");
        assert!(!outlet.wait(Duration::from_millis(1)));
        reader.read_exact(&mut vec![0; total]).unwrap();
        assert!(outlet.wait(Duration::ZERO));
        drop(reader);
        assert_eq!(outlet.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_stream_that_cannot_be_opened_anew_never_blocks_either() {
        let (_reader, writer) = io::pipe().unwrap();
        let file = File::from(OwnedFd::from(writer));
        assert!(fill(&Outlet { file, kind: Kind::Shared }) >= 4096);
    }

    #[test]
    fn a_socket_that_nobody_reads_never_blocks_and_keeps_its_flags() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let outlet = Outlet::new(&writer).unwrap();
        assert_eq!(outlet.kind, Kind::Socket);
        assert!(fill(&outlet) > 0);
        let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
        drop(reader);
        assert_eq!(outlet.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
