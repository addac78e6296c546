//! The sockets by which devices enter a domain.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use super::worker::DomainWorkers;
use crate::grant::Admitted;
use base::sockets::{SocketEndpoint, connect, listen};

/// A connection to a domain's VMM, made by a verdict that is on the disk, over which nothing has gone yet.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) domain: String,
    pub(super) path: PathBuf,
    pub(super) stream: UnixStream,
    /// Most bytes of the device's transfers that may be with the kernel at once.
    pub(super) budget: u32,
    /// What serves the domain's devices.
    pub(super) workers: DomainWorkers,
}

impl Connection {
    /// Returns the path of the socket.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a connection to a VMM of a test's.
    #[cfg(test)]
    pub(crate) fn with(domain: &str, stream: UnixStream) -> Self {
        let (path, workers) = (PathBuf::new(), DomainWorkers::none());
        Self { domain: domain.to_owned(), path, stream, budget: 1 << 20, workers }
    }
}

/// A socket by which devices enter a domain.
#[derive(Debug)]
pub(crate) struct DomainSocket {
    domain: String,
    pub(crate) path: PathBuf,
    listener: Option<UnixListener>,
    pub(crate) budget: u32,
    /// What serves the domain's devices, or why nothing does.
    workers: Result<DomainWorkers, &'static str>,
}

impl DomainSocket {
    /// Opens a socket of the domain of this name: listens, where somebody is to connect. Of the transfers of a device there at most `budget` bytes may be with
    /// the kernel at once.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(
        endpoint: SocketEndpoint,
        domain: &str,
        budget: u32,
        workers: Result<DomainWorkers, &'static str>,
    ) -> io::Result<Self> {
        let (path, listener) = match endpoint {
            SocketEndpoint::Connect(path) => (path, None),
            SocketEndpoint::Listen(path) => {
                let listener = listen(&path, domain)?;
                (path, Some(listener))
            }
        };
        Ok(Self { domain: domain.to_owned(), path, listener, budget, workers })
    }

    /// Returns why nothing serves the domain's devices, if nothing does.
    pub(crate) fn has_no_workers(&self) -> Option<&'static str> {
        self.workers.as_ref().err().copied()
    }

    /// Connects to the domain's VMM, by the verdict that lets a device go there.
    ///
    /// # Errors
    /// Nobody is there, nothing serves its devices, or the verdict is about another domain.
    pub(crate) fn connect(&self, admitted: &Admitted) -> io::Result<Connection> {
        if admitted.grant().domain != self.domain {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let workers = self.workers.clone().map_err(|_| io::ErrorKind::NotFound)?;
        let stream = match &self.listener {
            Some(listener) => listener.accept()?.0,
            None => connect(&self.path)?,
        };
        stream.set_nonblocking(true)?;
        let (domain, path) = (self.domain.clone(), self.path.clone());
        Ok(Connection { domain, path, stream, budget: self.budget, workers })
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

#[cfg(test)]
mod tests {
    use usbdescriptors::Share;
    use usbfilter::Rules;

    use super::*;
    use crate::grant::{UsbAdmission, UsbGrant};

    fn admitted(domain: &str) -> Admitted {
        let grant = UsbGrant {
            bus_id: "1-4".parse().unwrap(),
            address: 7,
            domain: domain.to_owned(),
            label: String::new(),
            rules: Rules::Allow,
            share: Share::Whole,
            rule: None,
            why: String::new(),
        };
        let basis = monitor::Basis { policy: 1, break_glass: false };
        Admitted::by(monitor::testing::permit(UsbAdmission { grant, basis }, 1))
    }

    #[test]
    fn a_verdict_connects_to_the_vmm_of_its_domain_and_to_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("usb.sock");
        let vmm = UnixListener::bind(&path).unwrap();
        vmm.set_nonblocking(true).unwrap();
        let endpoint = SocketEndpoint::Connect(path);
        let unserved = DomainSocket::open(endpoint.clone(), "clinical", 7, Err("none")).unwrap();
        unserved.connect(&admitted("clinical")).unwrap_err();
        let workers = Ok(DomainWorkers::none());
        let socket = DomainSocket::open(endpoint, "clinical", 7, workers).unwrap();
        socket.connect(&admitted("internet")).unwrap_err();
        // The VMM hears nothing of it.
        assert_eq!(vmm.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let connection = socket.connect(&admitted("clinical")).unwrap();
        assert_eq!(connection.budget, 7);
        vmm.accept().unwrap();
    }
}
