//! The thread of a device: the VMM's stream, the filter, the device.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use ratelimit::{Rate, RateLimiter};
use usbexport::{Export, ExportEvent};
use usbfilter::{Event, Filter, Out};
use usbredir::{Body, Packet, Role, Session};
use worker_link::usb::{Command, Counts, Message, Reason};

use super::super::WorkerError;
use super::TransferWaker;
use super::channel::Channel;

/// Who this end says it is.
const VERSION: &str = concat!("bulkhead-worker ", env!("CARGO_PKG_VERSION"));
/// Bytes that may wait for a VMM; nothing more is asked of the device on its behalf until it reads.
const WAITING_MAX: usize = 1 << 20;
/// Refusals that are told for one device; the rest are counted in the message at its end. The agent holds every worker to it.
const REFUSALS: Rate = Rate { burst: 64, every: Duration::from_secs(60) };
/// Packets that may wait for the device; nothing more is read until it has done some. One read may bring [`BATCH`] bytes of them beyond it.
const ASKED_MAX: usize = 128;
/// Bytes read from a VMM at a time.
const BATCH: usize = 64 * 1024;

/// Why the guest has the device no longer.
#[derive(Debug)]
pub(super) struct End {
    reason: Reason,
    why: String,
}

impl End {
    fn of(reason: Reason, why: impl Into<String>) -> Self {
        Self { reason, why: why.into() }
    }

    fn no_vmm() -> Self {
        Self::of(Reason::NoVmm, "")
    }

    /// Returns what the agent is told of it.
    pub(super) fn detached(self, counts: Counts) -> Message {
        Message::Detached { reason: self.reason, counts, why: self.why }
    }
}

/// Why a turn was the last: the device's or its guest's fault, or the worker has nobody any more for whom it could go on.
enum Last {
    Of(End),
    Worker(WorkerError),
}

impl From<End> for Last {
    fn from(end: End) -> Self {
        Self::Of(end)
    }
}

impl From<WorkerError> for Last {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

/// The device's end of the stream. [`Export`] is it; tests have another.
pub(super) trait DeviceEnd {
    fn submit(&mut self, packet: Packet);
    fn events(&mut self) -> Vec<ExportEvent>;
    fn close(self);
}

impl DeviceEnd for Export {
    fn submit(&mut self, packet: Packet) {
        Self::submit(self, packet);
    }

    fn events(&mut self) -> Vec<ExportEvent> {
        Self::events(self)
    }

    fn close(self) {
        Self::close(self);
    }
}

/// Passes packets between the VMM's stream, the filter and the device.
pub(super) struct Pump<D> {
    stream: UnixStream,
    session: Session,
    filter: Filter,
    device: D,
    out: Out,
    /// What the device says waits until the guest's end has said hello.
    early: Vec<Packet>,
    /// For the device. A control request, or a reset, takes its time, and the agent has to be heard between two.
    asked: VecDeque<Packet>,
    buffer: Vec<u8>,
    agent: Rc<Channel>,
    waker: Arc<TransferWaker>,
    /// The device is gone, and nothing can be done to it.
    gone: bool,
    refusals: RateLimiter,
}

impl<D: DeviceEnd> Pump<D> {
    /// Makes a pump over a non-blocking socket to the VMM.
    pub(super) fn new(
        stream: UnixStream,
        filter: Filter,
        device: D,
        agent: Rc<Channel>,
        waker: Arc<TransferWaker>,
    ) -> Self {
        let (out, early, buffer) = (Out::default(), Vec::new(), vec![0; BATCH]);
        let (asked, session) = (VecDeque::new(), Session::new(Role::Host, VERSION));
        let mut refusals = RateLimiter::new(REFUSALS);
        // Since a fixed moment, from now on.
        refusals.is_available(now());
        Self {
            stream,
            session,
            filter,
            device,
            out,
            early,
            asked,
            buffer,
            agent,
            waker,
            gone: false,
            refusals,
        }
    }

    /// Serves the device until the agent has it closed, or there is a reason why it cannot go on.
    ///
    /// # Errors
    /// The agent is gone.
    pub(super) fn run(&mut self) -> Result<End, WorkerError> {
        loop {
            let done = self.process_events();
            for event in self.out.events.drain(..) {
                // A guest may do what is refused faster than anybody writes it down. The rest of what it may be ends it, and is told then.
                if let Event::Refused { what, times } = event
                    && self.refusals.take(1, now())
                {
                    self.agent.tell(&Message::Refused { times, what: what.to_string() })?;
                }
            }
            match done {
                Ok(()) => {}
                Err(Last::Of(end)) => {
                    self.gone = matches!(end.reason, Reason::NoDevice | Reason::Lost);
                    return Ok(end);
                }
                Err(Last::Worker(error)) => return Err(error),
            }
        }
    }

    /// Disconnects the guest; returns what was transferred until then.
    pub(super) fn disconnect(&mut self) -> Counts {
        if self.session.send(&Packet { id: 0, body: Body::DeviceDisconnect }).is_ok() {
            // If this fails the VMM sees the end of the stream, which says the same.
            let _ = self.write();
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        let usbfilter::Counts { to_device, to_guest, commands, refused } = self.filter.counts();
        Counts { to_device, to_guest, refused, commands }
    }

    /// Lets the device go.
    pub(super) fn close(self) {
        if !self.gone {
            self.device.close();
        }
    }

    /// Waits for an event and processes it.
    fn process_events(&mut self) -> Result<(), Last> {
        while let Some(packet) = self.asked.pop_front() {
            let at_once = matches!(
                packet.body,
                Body::Bulk(_)
                    | Body::Interrupt(_)
                    | Body::StartInterruptReceiving { .. }
                    | Body::StopInterruptReceiving { .. }
                    | Body::CancelDataPacket
            );
            self.device.submit(packet);
            if !at_once {
                break;
            }
        }
        for event in self.device.events() {
            self.on_export_event(event)?;
        }
        self.carry_out()?;
        let (reads, writes) = self.wait()?;
        // Written by the device's transfers.
        let _ = self.waker.0.read();
        while let Some(command) = self.agent.heard()? {
            match command {
                Command::Flush => self.filter.flush(&mut self.out),
                Command::Close => return Err(End::of(Reason::Told, "").into()),
                // One that gets here serves its device: it waits for neither guest nor device longer than a request to the device takes.
                Command::Ask => self.agent.tell(&Message::Serving)?,
                // Nobody asked.
                Command::Done(_) => {}
            }
        }
        if writes {
            self.write()?;
        }
        if reads {
            self.read()?;
        }
        Ok(())
    }

    /// Waits for the VMM, the device or the agent; returns whether the VMM can be read, and written.
    fn wait(&self) -> Result<(bool, bool), End> {
        let waiting = self.session.output().len();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, waiting < WAITING_MAX && self.asked.len() < ASKED_MAX);
        flags.set(PollFlags::POLLOUT, waiting > 0);
        let mut fds = [
            PollFd::new(self.waker.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stream.as_fd(), flags),
            PollFd::new(self.agent.as_fd(), PollFlags::POLLIN),
        ];
        let more = !self.asked.is_empty() || self.agent.is_waiting();
        match poll(&mut fds, if more { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                let why = format!("its worker cannot wait: {error}");
                return Err(End::of(Reason::Stream, why));
            }
        }
        let [_, stream, _] = fds;
        let found = stream.revents().unwrap_or(PollFlags::empty());
        let over = PollFlags::POLLHUP | PollFlags::POLLERR;
        Ok((found.intersects(PollFlags::POLLIN | over), found.contains(PollFlags::POLLOUT)))
    }

    /// Reads what the VMM sent, if anything.
    fn read(&mut self) -> Result<(), End> {
        let room = self.session.room().min(self.buffer.len());
        let space = self.buffer.get_mut(..room).unwrap_or_default();
        match self.stream.read(space) {
            Ok(0) => return Err(End::no_vmm()),
            Ok(count) => {
                self.session.feed(space.get(..count).unwrap_or_default());
            }
            Err(error) if transient(&error) => return Ok(()),
            Err(_) => return Err(End::no_vmm()),
        }
        let broken =
            |error: usbredir::Error| End::of(Reason::Stream, format!("its VMM sent {error}"));
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

    /// Handles an event of the device.
    fn on_export_event(&mut self, event: ExportEvent) -> Result<(), End> {
        match event {
            ExportEvent::Packet(packet) if self.session.agreed().is_none() => {
                self.early.push(packet)
            }
            ExportEvent::Packet(packet) => {
                // Keys that nobody reads are worth nothing; answers there are only as many as questions.
                let is_late = is_unasked(&packet.body) && self.session.output().len() > WAITING_MAX;
                if !is_late {
                    self.filter.from_device(packet, &mut self.out);
                }
            }
            ExportEvent::Descriptors(bytes) => match usbfilter::Pinned::from_sysfs(&bytes) {
                Ok(pinned) => self.filter.read_again(&pinned, &mut self.out),
                Err(error) => return Err(End::of(Reason::Changed, error.to_string())),
            },
            ExportEvent::Gone(why) => return Err(End::of(Reason::NoDevice, why)),
            ExportEvent::Lost(why) => return Err(End::of(Reason::Lost, why)),
        }
        Ok(())
    }

    /// Does what the filter has decided.
    fn carry_out(&mut self) -> Result<(), End> {
        self.asked.extend(self.out.to_device.drain(..));
        for packet in self.out.to_guest.drain(..) {
            // Too long for what the guest's end can: it asked for it.
            if let Err(error) = self.session.send(&packet) {
                let why = format!("its VMM cannot take what it asked for: {error}");
                return Err(End::of(Reason::Stream, why));
            }
        }
        for event in &self.out.events {
            match event {
                Event::Changed(change) => return Err(End::of(Reason::Changed, change.to_string())),
                Event::Violation(violation) => {
                    return Err(End::of(Reason::Broken, violation.to_string()));
                }
                Event::Refused { .. } => {}
            }
        }
        self.write()
    }

    /// Writes what waits for the VMM, as far as it takes it.
    fn write(&mut self) -> Result<(), End> {
        while !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(End::no_vmm()),
                Ok(count) => self.session.sent(count),
                Err(error) if transient(&error) => return Ok(()),
                Err(_) => return Err(End::no_vmm()),
            }
        }
        Ok(())
    }
}

/// Reads the clock that goes on while the PC sleeps.
fn now() -> Duration {
    // Linux has had this clock since 2.6.39, and reading a clock fails only if there is none.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Returns whether this comes from a device by itself: of an interrupt endpoint towards the device it answers what was sent there.
pub(super) fn is_unasked(body: &Body) -> bool {
    matches!(body, Body::Interrupt(interrupt) if interrupt.endpoint & 0x80 != 0)
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
