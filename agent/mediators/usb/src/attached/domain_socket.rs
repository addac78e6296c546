//! The sockets by which devices enter a domain.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use base::sockets::{SocketEndpoint, connect, listen};

/// A connection to a domain's VMM, over which nothing has gone yet.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) domain: String,
    pub(super) path: PathBuf,
    pub(super) stream: UnixStream,
}

impl Connection {
    /// Returns the path of the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a connection to a VMM of a test's.
    #[cfg(test)]
    pub(crate) fn with(domain: &str, stream: UnixStream) -> Self {
        Self { domain: domain.to_owned(), path: PathBuf::new(), stream }
    }
}

/// A socket by which devices enter a domain.
#[derive(Debug)]
pub(crate) struct DomainSocket {
    domain: String,
    pub(crate) path: PathBuf,
    listener: Option<UnixListener>,
}

impl DomainSocket {
    /// Opens a socket of the domain of this name: listens, where somebody is to connect.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(endpoint: SocketEndpoint, domain: &str) -> io::Result<Self> {
        let (path, listener) = match endpoint {
            SocketEndpoint::Connect(path) => (path, None),
            SocketEndpoint::Listen(path) => {
                let listener = listen(&path, domain)?;
                (path, Some(listener))
            }
        };
        Ok(Self { domain: domain.to_owned(), path, listener })
    }

    /// Connects to the domain's VMM.
    ///
    /// # Errors
    /// Nobody is there.
    pub(crate) fn connect(&self) -> io::Result<Connection> {
        let stream = match &self.listener {
            Some(listener) => listener.accept()?.0,
            None => connect(&self.path)?,
        };
        stream.set_nonblocking(true)?;
        Ok(Connection { domain: self.domain.clone(), path: self.path.clone(), stream })
    }
}

impl Drop for DomainSocket {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // There is nobody to tell, and the next agent removes it as well.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
