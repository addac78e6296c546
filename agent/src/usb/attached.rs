//! One device in a domain: the VMM's socket, the stream, the filter, the device.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use usbfilter::{Event, Filter, Out};
use usbhost::{Export, Said};
use usbredir::{Body, Packet, Role, Session};

use super::Way;
use crate::external::listen;

/// Who this end says it is.
const VERSION: &str = concat!("bulkhead-agent ", env!("CARGO_PKG_VERSION"));
/// Bytes that may wait for a VMM; nothing more is asked of the device on its behalf until it reads.
const WAITING_MAX: usize = 1 << 20;

/// Why a device is taken out of its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The VMM hung up: its domain stops, or it was put out.
    NoVmm,
    /// The device was pulled out, or fails.
    NoDevice(String),
    /// It came back different.
    Changed(String),
    /// It, or the guest's end, broke the rules.
    Broken(String),
}

pub(super) struct Attached {
    pub(super) path: PathBuf,
    stream: UnixStream,
    session: Session,
    filter: Filter,
    export: Export,
    out: Out,
    /// What the device says waits until the guest's end has said hello.
    early: Vec<Packet>,
}

/// A way into a domain, open.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) path: PathBuf,
    listener: Option<UnixListener>,
}

impl Door {
    /// Opens a way: listens, where somebody is to connect.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(super) fn open(way: Way) -> io::Result<Self> {
        Ok(match way {
            Way::Dial(path) => Self { path, listener: None },
            Way::Listen(path) => Self { listener: Some(listen(&path)?), path },
        })
    }

    /// A connection to the domain's VMM.
    ///
    /// # Errors
    /// Nobody is there.
    pub(super) fn enter(&self) -> io::Result<UnixStream> {
        let stream = match &self.listener {
            Some(listener) => listener.accept()?.0,
            None => UnixStream::connect(&self.path)?,
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

impl Attached {
    pub(super) fn new(path: &Path, stream: UnixStream, filter: Filter, export: Export) -> Self {
        let session = Session::new(Role::Host, VERSION);
        let (path, out, early) = (path.to_owned(), Out::default(), Vec::new());
        Self { path, stream, session, filter, export, out, early }
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Whether it reads from the VMM, and whether it waits to write to it.
    pub(super) fn wants(&self) -> (bool, bool) {
        let waiting = self.session.output().len();
        (self.export.has_room() && waiting < WAITING_MAX, waiting > 0)
    }

    pub(super) fn filter(&mut self) -> &mut Filter {
        &mut self.filter
    }

    /// Bytes of the VMM's, if there are any.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<Vec<Event>, End> {
        let room = self.session.room().min(buffer.len());
        let space = buffer.get_mut(..room).unwrap_or_default();
        match self.stream.read(space) {
            Ok(0) => return Err(End::NoVmm),
            Ok(count) => {
                self.session.feed(space.get(..count).unwrap_or_default());
            }
            Err(error) if transient(&error) => return Ok(Vec::new()),
            Err(_) => return Err(End::NoVmm),
        }
        let broken = |error: usbredir::Error| End::Broken(format!("its VMM sent {error}"));
        while let Some(packet) = self.session.next().map_err(broken)? {
            if matches!(packet.body, Body::Hello { .. }) {
                for packet in std::mem::take(&mut self.early) {
                    self.filter.from_device(packet, &mut self.out);
                }
            } else {
                self.filter.from_guest(packet, &mut self.out);
            }
        }
        self.carry_out()
    }

    /// The device has something to say.
    pub(super) fn said(&mut self, said: Said) -> Result<Vec<Event>, End> {
        match said {
            Said::Packet(packet) if self.session.agreed().is_none() => self.early.push(packet),
            Said::Packet(packet) => {
                // Keys that nobody reads are worth nothing; answers there are only as many as questions.
                let late = matches!(packet.body, Body::Interrupt(_))
                    && self.session.output().len() > WAITING_MAX;
                if !late {
                    self.filter.from_device(packet, &mut self.out);
                }
            }
            Said::Descriptors(bytes) => match usbfilter::Pinned::from_sysfs(&bytes) {
                Ok(pinned) => self.filter.read_again(&pinned, &mut self.out),
                Err(error) => return Err(End::Changed(error.to_string())),
            },
            Said::Gone(why) => return Err(End::NoDevice(why)),
        }
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<Vec<Event>, End> {
        for packet in self.out.to_device.drain(..) {
            self.export.take(packet);
        }
        for packet in self.out.to_guest.drain(..) {
            // Too long for what the guest's end can: it asked for it.
            if let Err(error) = self.session.send(&packet) {
                return Err(End::Broken(format!("its VMM cannot take what it asked for: {error}")));
            }
        }
        let events = std::mem::take(&mut self.out.events);
        for event in &events {
            match event {
                Event::Changed(change) => return Err(End::Changed(format!("{change:?}"))),
                Event::Violation(violation) => return Err(End::Broken(format!("{violation:?}"))),
                Event::Refused { .. } => {}
            }
        }
        self.write()?;
        Ok(events)
    }

    /// Writes what waits for the VMM, as far as it takes it.
    pub(super) fn write(&mut self) -> Result<(), End> {
        while !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(End::NoVmm),
                Ok(count) => self.session.sent(count),
                Err(error) if transient(&error) => return Ok(()),
                Err(_) => return Err(End::NoVmm),
            }
        }
        Ok(())
    }

    /// Tells the guest that it is gone.
    pub(super) fn farewell(&mut self) {
        if self.session.send(&Packet { id: 0, body: Body::DeviceDisconnect }).is_ok() {
            // If this fails the VMM sees the end of the stream, which says the same.
            let _ = self.write();
        }
    }
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
