//! The socket by which a device enters a domain.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::Way;
use base::sockets::{dial, listen};

/// A way into a domain, open.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) path: PathBuf,
    listener: Option<UnixListener>,
}

impl Door {
    /// Opens a way into the domain of this name: listens, where somebody is to connect.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(way: Way, domain: &str) -> io::Result<Self> {
        Ok(match way {
            Way::Dial(path) => Self { path, listener: None },
            Way::Listen(path) => Self { listener: Some(listen(&path, domain)?), path },
        })
    }

    /// A connection to the domain's VMM.
    ///
    /// # Errors
    /// Nobody is there.
    pub(crate) fn enter(&self) -> io::Result<UnixStream> {
        let stream = match &self.listener {
            Some(listener) => listener.accept()?.0,
            None => dial(&self.path)?,
        };
        stream.set_nonblocking(true)?;
        Ok(stream)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.listener.is_some() {
            // There is nobody to tell, and the next agent removes it as well.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
