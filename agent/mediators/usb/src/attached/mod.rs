//! One device in a domain, served by a worker of its own between the VMM's socket and the device, so that none waits for another's. The thread of the
//! device's place attends to the worker.
//!
//! The broker has an [`Attachment`], the thread a [`Serving`]. Dropping the first ends the second: it cuts the stream to the VMM at once, of which both
//! have a copy, and kills the worker. Whatever the device and its worker are about then, nothing of it reaches the guest any more.
//! [`Attachment::start`] is the only way to either, and takes
//! what permits it by value: the device, what of it is served and how, and the domain are those of the permit, or there is no attachment.

mod domain_socket;
mod worker;

use std::cell::Cell;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use nix::sys::eventfd::{EfdFlags, EventFd};
use usbfilter::{Counts, Filter, Rules};
use usbhost::{BusId, Hold, UsbDevices, Vetted};
use worker_link::usb::{Job, Speed};

pub(super) use domain_socket::{Connection, DomainSocket};
pub use worker::DomainWorkers;
use worker::{Attendant, BEGIN_WITHIN, Cut, DeviceWorker, LOOK_EVERY};
pub(crate) use worker::{REFUSALS, WORKER_ENDS_WITHIN};

use crate::grant::UsbGrant;
use monitor::Permit;
use printable::explain;

/// Why a device is taken out of its domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DetachReason {
    /// The VMM hung up: its domain stops, or the VMM gave the device back.
    NoVmm,
    /// The device was pulled out, or fails.
    NoDevice(String),
    /// The device did not come back from a reset; what is there now is another device.
    Lost(String),
    /// The device came back from a reset with other descriptors.
    Changed(String),
    /// The device violated the protocol of its class.
    Broken(String),
    /// The usbredir stream was violated, or what serves the device failed.
    Stream(String),
}

impl DetachReason {
    /// Returns the reason in words, for the log and the list of devices. They may be a worker's.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::NoVmm => self.seat_text(),
            Self::NoDevice(why)
            | Self::Lost(why)
            | Self::Changed(why)
            | Self::Broken(why)
            | Self::Stream(why) => why,
        }
    }

    /// Returns what is said of it at the seat, where nobody is to read what a worker that was taken over writes.
    pub(super) const fn seat_text(&self) -> &'static str {
        match self {
            Self::NoVmm => "its domain stopped",
            Self::NoDevice(_) => "it was pulled out, or does not work any more",
            Self::Lost(_) => "it did not come back from a reset as what it was",
            Self::Changed(_) => "it says something else of itself than when it was plugged in",
            Self::Broken(_) => "it does what no device of its kind does",
            Self::Stream(_) => "what connects it to its desktop failed; plug it in again",
        }
    }
}

/// Why a device is not served that was to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotServed {
    /// In words, for the log and the list of devices. They may be a worker's.
    why: String,
    /// Whether the words came from the worker, which may say what it likes.
    by_worker: bool,
}

impl NotServed {
    /// Takes what a worker says of it.
    pub(super) const fn by_worker(why: String) -> Self {
        Self { why, by_worker: true }
    }

    /// Returns the reason in words, for the log and the list of devices.
    pub(super) fn text(&self) -> &str {
        &self.why
    }

    /// Returns what is said of it at the seat.
    pub(super) fn seat_text(&self) -> &str {
        if self.by_worker { "it cannot be used; plug it in again" } else { &self.why }
    }
}

impl From<String> for NotServed {
    /// Takes the agent's own words.
    fn from(why: String) -> Self {
        Self { why, by_worker: false }
    }
}

/// How serving a device has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Served {
    /// Why it was not served, where the guest has seen nothing of it.
    pub(super) outcome: Result<(), NotServed>,
    /// Nothing went to and fro, as what serves it never began. Of one that has begun [`DeviceThreadEvent::Detached`] tells what did.
    pub(super) carried_nothing: bool,
}

impl Served {
    /// Says that it was not served, as nothing could be started that would.
    fn not(why: String) -> Self {
        Self { outcome: Err(why.into()), carried_nothing: true }
    }
}

/// Why a device is not attached that was to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    /// The permit is for another domain.
    #[error(
        "a permit for the domain {0} was used for another; this is a fault of Bulkhead's: report it"
    )]
    OtherDomain(String),
    /// The permit is for another device.
    #[error(
        "a permit for the device at {0} was used for another; this is a fault of Bulkhead's: report it"
    )]
    OtherDevice(BusId),
    /// The device cannot be filtered as the permit says.
    #[error("{0}")]
    Filter(usbfilter::Error),
    /// The process has no file descriptor left.
    #[error("there is no file descriptor for it: {0}")]
    Descriptors(io::Error),
}

/// An event of the thread of a device, for the broker.
#[derive(Debug)]
pub(super) enum DeviceThreadEvent {
    /// The guest has the device now.
    Begun,
    /// The filter refused something, in words, so often since it was last told.
    Refused { what: String, times: u64 },
    /// The guest no longer has the device, for this reason unless it was told to close, and what went to and fro, if that is known: who failed does not
    /// say it. The device is released next, which may take its time.
    Detached(Option<DetachReason>, Option<Counts>),
}

/// A command of the broker to the thread of a device.
#[derive(Debug)]
enum DeviceThreadCommand {
    /// Report what was refused again and again.
    Flush,
    /// Disconnect the guest and end.
    Close,
    /// The guest is cut off: end.
    Cut,
}

/// The broker's handle of an attached device.
pub(super) struct Attachment {
    path: PathBuf,
    commands: mpsc::Sender<DeviceThreadCommand>,
    waker: Arc<ThreadWaker>,
    cut: Arc<Cut>,
    stream: UnixStream,
}

/// The device thread's side of an attachment.
pub(super) struct Serving {
    stream: UnixStream,
    domain: String,
    workers: DomainWorkers,
    rules: Rules,
    budget: u32,
    vetted: Vetted,
    commands: mpsc::Receiver<DeviceThreadCommand>,
    waker: Arc<ThreadWaker>,
    cut: Arc<Cut>,
}

/// What wakes the thread of the device, for the broker.
struct ThreadWaker(EventFd);

impl ThreadWaker {
    fn notify(&self) {
        // A full counter wakes it as well.
        let _ = self.0.write(1);
    }
}

impl Attachment {
    /// Attaches a device, over a connection to a VMM over which nothing has gone, as the permit says; the two ends.
    ///
    /// # Errors
    /// The permit is not for this device or not for this domain, the device cannot be served so, or the process has no file descriptor left.
    pub(super) fn start(
        permit: Permit<UsbGrant>,
        connection: Connection,
        vetted: Vetted,
    ) -> Result<(Self, Serving), StartError> {
        let grant = permit.into_grant();
        let Connection { domain, path, stream, budget, workers } = connection;
        if grant.domain != domain {
            return Err(StartError::OtherDomain(grant.domain));
        }
        let found = vetted.found();
        if (&grant.bus_id, grant.address) != (&found.bus_id, found.address) {
            return Err(StartError::OtherDevice(grant.bus_id));
        }
        // Its worker makes another like it.
        let rules = grant.rules;
        Filter::of(rules, vetted.pinned().clone(), grant.share.clone())
            .map_err(StartError::Filter)?;
        let vetted = vetted.sharing(grant.share);
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let eventfd =
            EventFd::from_flags(flags).map_err(|error| StartError::Descriptors(error.into()))?;
        let waker = Arc::new(ThreadWaker(eventfd));
        let (sender, commands) = mpsc::channel();
        let copy = stream.try_clone().map_err(StartError::Descriptors)?;
        let cut = Arc::<Cut>::default();
        let attachment = Self {
            path,
            commands: sender,
            waker: Arc::clone(&waker),
            cut: Arc::clone(&cut),
            stream: copy,
        };
        let serving =
            Serving { stream, domain, workers, rules, budget, vetted, commands, waker, cut };
        Ok((attachment, serving))
    }

    /// Returns the path of the VMM's socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn send(&self, command: DeviceThreadCommand) {
        // A thread that has ended has reported that.
        let _ = self.commands.send(command);
        self.waker.notify();
    }

    /// Has the thread report what was refused again and again.
    pub(super) fn flush(&self) {
        self.send(DeviceThreadCommand::Flush);
    }

    /// Has the thread detach the device from the guest, at once unless the device holds it up; the caller does not wait, and drops this in time.
    pub(super) fn close(&self) {
        self.send(DeviceThreadCommand::Close);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        // A stream that was never connected, or whose other end is gone, is cut already.
        let _ = self.stream.shutdown(Shutdown::Both);
        // The thread may wait for the device, and the worker have it busy.
        self.cut.cut();
        self.send(DeviceThreadCommand::Cut);
    }
}

impl Serving {
    /// Has a worker serve the device until the thread is told to close or there is another reason, on the thread of the device, which has its port
    /// as long, and the worker.
    pub(super) fn run(self, sysfs: UsbDevices, tell: &dyn Fn(DeviceThreadEvent)) -> Served {
        self.serve(sysfs, tell).unwrap_or_else(Served::not)
    }

    /// Does that.
    ///
    /// # Errors
    /// The device cannot be had, or no worker started; why, in words.
    fn serve(self, sysfs: UsbDevices, tell: &dyn Fn(DeviceThreadEvent)) -> Result<Served, String> {
        let Self { stream, domain, workers, rules, budget, vetted, commands, waker, cut } = self;
        // Its thread was busy when its permit was withdrawn: the device is not touched.
        if cut.is_done() {
            return Ok(Served { outcome: Ok(()), carried_nothing: true });
        }
        let job = job(&vetted, rules, budget);
        let what = format!("the device at {} to {domain}", vetted.found().bus_id);
        let hold = Hold::take(sysfs, vetted).map_err(|error| explain(&error))?;
        let node = hold.open().map_err(|error| explain(&error))?;
        let workers_node = hold.open_for_worker().map_err(|error| explain(&error))?;
        let share = job.share.clone();
        // Of a part the other interfaces are in use.
        let reset = || {
            if share.is_whole() { node.reset() } else { node.choose_first_settings(&share) }
        };
        // Dropped behind the worker, of which nothing is left then, and before the port.
        let afterwards = Afterwards::new(&reset);
        let worker = DeviceWorker::start(&workers, stream.into(), workers_node, &job)
            .map_err(|error| format!("what serves USB devices does not start: {error}"))?;
        afterwards.arm();
        match worker.killed_by() {
            Ok(killed_by) => cut.take(killed_by),
            // It may have begun meanwhile, and nobody has heard it.
            Err(error) => {
                let why = format!("there is no file descriptor for it: {error}");
                return Ok(Served { outcome: Err(why.into()), carried_nothing: false });
            }
        }
        let authorise = || hold.admit();
        let (commands, waker, cut) = (&commands, &*waker, &*cut);
        let attendant = Attendant {
            worker,
            commands,
            waker,
            cut,
            authorise: &authorise,
            tell,
            begin_within: BEGIN_WITHIN,
            look_every: LOOK_EVERY,
            what,
        };
        Ok(attendant.attend())
    }

    /// Gives a test, which is the thread of the device, the stream to the VMM.
    #[cfg(test)]
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

/// Does something when it is dropped, also by a thread that fails, if it was armed.
struct Afterwards<'a> {
    what: &'a dyn Fn(),
    armed: Cell<bool>,
}

impl<'a> Afterwards<'a> {
    const fn new(what: &'a dyn Fn()) -> Self {
        Self { what, armed: Cell::new(false) }
    }

    fn arm(&self) {
        self.armed.set(true);
    }
}

impl Drop for Afterwards<'_> {
    fn drop(&mut self) {
        if self.armed.get() {
            (self.what)();
        }
    }
}

/// Returns what a worker is told of a device.
fn job(vetted: &Vetted, rules: Rules, budget: u32) -> Job {
    let found = vetted.found();
    Job {
        read_only: rules == Rules::ReadOnly,
        speed: Speed::of(&found.speed),
        share: vetted.share().clone(),
        budget,
        descriptors: found.descriptors.clone(),
        others: vetted.pinned().others.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use usbfilter::Rules;

    use super::*;

    fn vetted() -> Vetted {
        let device = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
        let configuration = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 11, 0, 0, 0];
        let found = usbhost::DeviceSnapshot {
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
        Vetted::new(found).unwrap()
    }

    fn permit(domain: &str, bus_id: &str, address: u8) -> Permit<UsbGrant> {
        let grant = UsbGrant {
            bus_id: bus_id.parse().unwrap(),
            address,
            domain: domain.to_owned(),
            label: String::new(),
            rules: Rules::Allow,
            share: usbdescriptors::Share::Whole,
            rule: None,
            why: String::new(),
        };
        monitor::testing::permit(grant, 1)
    }

    #[test]
    fn a_permit_attaches_the_device_that_it_is_for_to_the_domain_that_it_is_for_and_nothing_else() {
        let start = |permit| {
            let (ours, mut vmms) = UnixStream::pair().unwrap();
            let started = Attachment::start(permit, Connection::with("clinical", ours), vetted());
            let refused = started.err().map(|error| error.to_string());
            // Nothing is left of a connection that was not permitted.
            assert!(refused.is_none() || vmms.read(&mut [0; 8]).unwrap() == 0);
            refused
        };
        assert_eq!(start(permit("clinical", "1-4", 7)), None);
        let other = |permit| start(permit).unwrap().contains("was used for another");
        assert!(other(permit("internet", "1-4", 7)));
        assert!(other(permit("clinical", "1-5", 7)));
        // The next device that is plugged in there.
        assert!(other(permit("clinical", "1-4", 8)));
    }

    #[test]
    fn what_the_broker_lets_go_is_cut_from_its_guest_whatever_its_thread_does() {
        let (ours, mut vmms) = UnixStream::pair().unwrap();
        let (attachment, serving) = Attachment::start(
            permit("clinical", "1-4", 7),
            Connection::with("clinical", ours),
            vetted(),
        )
        .unwrap();
        drop(attachment);
        // The thread is busy with a device that hangs: it has not run since.
        assert_eq!(vmms.read(&mut [0; 8]).unwrap(), 0);
        assert!(matches!(serving.commands.try_recv(), Ok(DeviceThreadCommand::Cut)));
        // Nor does it touch the device when it comes to it, which it would not find.
        let nowhere = tempfile::tempdir().unwrap();
        let served = serving.run(UsbDevices::at(nowhere.path()), &|event| panic!("{event:?}"));
        assert!(served.outcome.is_ok() && served.carried_nothing);
    }
}
