//! Unix sockets that one user alone may connect to: control socket, ports, USB devices, seat.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};

/// Why a socket could not be made; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another process listens at this path.
    #[error("{}: another process listens there; stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something else than a socket lies there.
    #[error("{}: something that is not a socket lies there; remove it, or choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The directory is not there.
    #[error("{}: its directory does not exist; create it first", .0.display())]
    NoDirectory(PathBuf),
    /// The process may not create files there.
    #[error("{}: not permitted; let this user write to the directory", .0.display())]
    NotPermitted(PathBuf),
    /// Unix socket addresses have 107 bytes.
    #[error("{}: the path is longer than the 107 bytes a socket may have; choose a shorter one", .0.display())]
    PathTooLong(PathBuf),
    /// The kernel refused for another reason.
    #[error("{}: cannot be created", path.display())]
    Host {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Listens for byte streams on a new Unix socket at `path` that only this user may connect to. A socket on which
/// nobody answers any more is replaced.
pub fn streams(path: &Path) -> Result<UnixListener, SocketError> {
    at(path, SockType::Stream)
}

/// Returns the same for sequenced packets. What is accepted is no stream, although its type says so.
pub fn packets(path: &Path) -> Result<UnixListener, SocketError> {
    at(path, SockType::SeqPacket)
}

fn at(path: &Path, kind: SockType) -> Result<UnixListener, SocketError> {
    let fail = |source: io::Error| {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                SocketError::NoDirectory(path)
            }
            io::ErrorKind::PermissionDenied => SocketError::NotPermitted(path),
            io::ErrorKind::InvalidInput => SocketError::PathTooLong(path),
            io::ErrorKind::AddrInUse => SocketError::InUse(path),
            _ => SocketError::Host { path, source },
        }
    };
    match fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(fail)?;
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return Err(fail(error));
            }
            _ => return Err(SocketError::InUse(path.to_owned())),
        },
        Err(_) => {} // nothing there, or the bind says what is wrong
    }
    let listener = listener(path, kind).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 8;

fn listener(path: &Path, kind: SockType) -> io::Result<UnixListener> {
    let address = UnixAddr::new(path).map_err(|error| match error {
        nix::Error::ENAMETOOLONG => io::ErrorKind::InvalidInput.into(),
        other => io::Error::from(other),
    })?;
    let socket = socket(AddressFamily::Unix, kind, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), &address)?;
    listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_nobody_answers_on_is_replaced_and_everything_else_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("port");
        for bind in [streams, packets] {
            let live = bind(&path).unwrap();
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert!(matches!(streams(&path), Err(SocketError::InUse(_))));
            assert!(matches!(packets(&path), Err(SocketError::InUse(_))));
            drop(live);
            drop(bind(&path).unwrap());
            fs::remove_file(&path).unwrap();
            fs::write(&path, "a person's notes").unwrap();
            assert!(matches!(bind(&path), Err(SocketError::NotASocket(_))));
            assert_eq!(fs::read(&path).unwrap(), b"a person's notes");
            fs::remove_file(&path).unwrap();
            let missing = bind(&dir.path().join("no/port"));
            assert!(matches!(missing, Err(SocketError::NoDirectory(_))));
            let long = bind(&dir.path().join("x".repeat(120)));
            assert!(matches!(long, Err(SocketError::PathTooLong(_))));
        }
    }
}
