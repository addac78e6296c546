//! Unix sockets that one user alone may connect to, as ports are bound to.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Why a port's socket could not be made; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
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
    /// Anything else.
    #[error("{}: cannot be created", path.display())]
    Host {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Listens on a new Unix socket at `path` that only this user may connect to. A socket on which
/// nobody answers any more is replaced.
pub fn bind(path: &Path) -> Result<UnixListener, SocketError> {
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
    let listener = UnixListener::bind(path).map_err(fail)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}
