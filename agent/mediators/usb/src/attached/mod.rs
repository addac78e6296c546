//! One device in a domain, served on the thread of its place between the VMM's socket and the device, so that none waits for another's.
//!
//! The broker has an [`Attached`], the thread a [`Serving`]. Dropping the first ends the second, and cuts the stream to the VMM at once:
//! whatever the device is about then, nothing of it reaches the guest any more.

mod door;
mod line;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::task::{Wake, Waker};

use nix::sys::eventfd::{EfdFlags, EventFd};
use usbfilter::{Counts, Event, Filter};
use usbhost::{Export, Sysfs, Vetted};

pub(super) use door::Door;
use line::Line;

use printable::explain;

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
    /// It broke the rules.
    Broken(String),
    /// The guest's end, or this one, broke them.
    Stream(String),
}

/// What is told while a device is served.
#[derive(Debug)]
pub(super) enum Word {
    /// The guest has it now.
    Begun,
    /// The filter refused something.
    Refused(Event),
    /// The guest has it no more, for a reason of its own if there is one. The device is let go next, which may take its time.
    Parted(Option<End>, Counts),
}

/// What the thread is told.
enum Order {
    /// Tell what was refused again and again.
    Flush,
    /// Say farewell, and end.
    Close,
}

/// The broker's end of a device in a domain.
pub(super) struct Attached {
    pub(super) path: PathBuf,
    orders: mpsc::Sender<Order>,
    bell: Arc<Bell>,
    stream: UnixStream,
}

/// The thread's end.
pub(super) struct Serving {
    stream: UnixStream,
    filter: Filter,
    vetted: Vetted,
    inbox: mpsc::Receiver<Order>,
    bell: Arc<Bell>,
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

/// The two ends, over a socket to the VMM that does not block.
///
/// # Errors
/// The process has no file descriptor left.
pub(super) fn join(
    path: PathBuf,
    stream: UnixStream,
    filter: Filter,
    vetted: Vetted,
) -> io::Result<(Attached, Serving)> {
    let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
    let bell = Arc::new(Bell(EventFd::from_flags(flags)?));
    let (orders, inbox) = mpsc::channel();
    let cut = stream.try_clone()?;
    let attached = Attached { path, orders, bell: Arc::clone(&bell), stream: cut };
    Ok((attached, Serving { stream, filter, vetted, inbox, bell }))
}

impl Attached {
    fn order(&self, order: Order) {
        // One that has ended has said so.
        let _ = self.orders.send(order);
        self.bell.ring();
    }

    /// Has it tell what was refused again and again.
    pub(super) fn flush(&self) {
        self.order(Order::Flush);
    }

    /// Has it part from the guest. It does so at once unless the device holds it up; whoever asks does not wait, and drops this in time.
    pub(super) fn close(&self) {
        self.order(Order::Close);
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // One that was never connected, or whose other end is gone, is cut already.
        let _ = self.stream.shutdown(Shutdown::Both);
        self.order(Order::Close);
    }
}

impl Serving {
    /// Opens the device and serves it until it is told to close or there is a reason of its own, on the thread of the device.
    ///
    /// # Errors
    /// It cannot be had; why, in words.
    pub(super) fn run(self, sysfs: Sysfs, tell: &dyn Fn(Word)) -> Result<(), String> {
        let waker = Waker::from(Arc::clone(&self.bell));
        let export = Export::open(sysfs, self.vetted, waker).map_err(|error| explain(&error))?;
        let mut line = Line::new(self.stream, self.filter, export, self.inbox, self.bell);
        tell(Word::Begun);
        let end = line.run(tell);
        tell(Word::Parted(end, line.part()));
        line.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use usbfilter::Rules;

    use super::*;

    #[test]
    fn what_the_broker_lets_go_is_cut_from_its_guest_whatever_its_thread_does() {
        let (ours, mut vmms) = UnixStream::pair().unwrap();
        let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
        let configuration = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 11, 0, 0, 0];
        let found = usbhost::Found {
            bus_id: "1-4".parse().unwrap(),
            bus: 1,
            address: 7,
            vendor: 1,
            product: 2,
            speed: String::new(),
            name: String::new(),
            serial: None,
            descriptors: [&device[..], &configuration].concat(),
            authorised: true,
            drivers: Vec::new(),
        };
        let vetted = Vetted::new(found).unwrap();
        let filter = Filter::new(Rules::Allow, vetted.pinned().clone()).unwrap();
        let (attached, serving) = join(PathBuf::new(), ours, filter, vetted).unwrap();
        drop(attached);
        // The thread is busy with a device that hangs: it has not run since.
        assert_eq!(vmms.read(&mut [0; 8]).unwrap(), 0);
        assert!(matches!(serving.inbox.try_recv(), Ok(Order::Close)));
    }
}
