//! One device in a domain: a thread of its own between the VMM's socket and the device, so that none waits for another's.

mod door;
mod line;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};
use std::thread::{self, JoinHandle};

use nix::sys::eventfd::{EfdFlags, EventFd};
use usbfilter::{Counts, Event};
use usbhost::export::ExportError;
use usbhost::{Export, Found, Sysfs};

pub(super) use door::Door;
use line::Line;
pub(super) use line::Stream;

/// Why a device is taken out of its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The VMM hung up: its domain stops, or it was put out.
    NoVmm,
    /// The device was pulled out, or fails.
    NoDevice(String),
    /// It did not come back from a reset; what is there now is another device.
    Lost(String),
    /// It came back different.
    Changed(String),
    /// It, or the guest's end, broke the rules.
    Broken(String),
}

/// What the thread tells.
#[derive(Debug)]
pub(super) enum Word {
    /// The filter refused something.
    Refused(Event),
    /// It is over. Nothing follows.
    Ended(End),
}

/// What the thread is told.
enum Order {
    /// Tell what was refused again and again.
    Flush,
    /// Say farewell, and end.
    Close,
}

/// Why a device cannot be attached.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error("no thread or file descriptor for the device")]
    Thread(#[from] io::Error),
}

/// The broker's end of it.
pub(super) struct Attached {
    pub(super) path: PathBuf,
    orders: mpsc::Sender<Order>,
    bell: Arc<Bell>,
    thread: JoinHandle<(Counts, Option<End>)>,
}

struct Bell(EventFd);

impl Bell {
    fn ring(&self) {
        // A full counter is a bell that was heard.
        let _ = self.0.write(1);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }
}

impl Attached {
    /// Opens the device and joins it to a stream to the VMM. `tell` is called on the thread of the device.
    pub(super) fn start(
        path: &Path,
        stream: Stream,
        sysfs: Sysfs,
        found: Found,
        tell: impl Fn(Word) + Send + 'static,
    ) -> Result<Self, AttachError> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let bell = Arc::new(Bell(EventFd::from_flags(flags).map_err(io::Error::from)?));
        let export = Export::open(sysfs, found, Waker::from(Arc::clone(&bell)))?;
        let (orders, inbox) = mpsc::channel();
        let mut line = Line::new(stream, export, inbox, Arc::clone(&bell));
        let run = move || {
            let end = line.run(&tell);
            if let Some(end) = &end {
                tell(Word::Ended(end.clone()));
            }
            (line.close(), end)
        };
        let thread = thread::Builder::new().name("usb-device".to_owned()).spawn(run)?;
        Ok(Self { path: path.to_owned(), orders, bell, thread })
    }

    fn order(&self, order: Order) {
        // One that has ended has said so.
        let _ = self.orders.send(order);
        self.bell.ring();
    }

    /// Has it tell what was refused again and again.
    pub(super) fn flush(&self) {
        self.order(Order::Flush);
    }

    /// Ends it, and waits until the device is let go, so that nobody else finds it in use: up to
    /// [`CONTROL_TIMEOUT`](usbhost::export::CONTROL_TIMEOUT) with a device that hangs. Returns what was counted, and why it had
    /// ended if it did so by itself.
    ///
    /// # Errors
    /// The thread panicked, and what it counted is lost.
    pub(super) fn close(self) -> thread::Result<(Counts, Option<End>)> {
        self.order(Order::Close);
        self.thread.join()
    }
}
