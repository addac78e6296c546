//! The thread of a device: the VMM's stream, the filter, the device.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::TryRecvError;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use clock::Moment;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use ratelimit::{Rate, RateLimiter};
use usbfilter::{Counts, Event, Filter, Out};
use usbhost::{Export, ExportEvent};
use usbredir::{Body, Packet, Role, Session};

use super::{DetachReason, DeviceThreadCommand, DeviceThreadEvent, ThreadWaker};

/// Who this end says it is.
const VERSION: &str = concat!("bulkhead-agent ", env!("CARGO_PKG_VERSION"));
/// Bytes that may wait for a VMM; nothing more is asked of the device on its behalf until it reads.
const WAITING_MAX: usize = 1 << 20;
/// Audit entries of refusals for one device; the rest are counted in the entry at its end.
const REFUSALS: Rate = Rate { burst: 64, every: Duration::from_secs(60) };
/// Packets that may wait for the device; nothing more is read until it has done some. One read may bring [`BATCH`] bytes of them beyond it.
const ASKED_MAX: usize = 128;
/// Bytes read from a VMM at a time.
const BATCH: usize = 64 * 1024;

/// Passes packets between the VMM's stream, the filter and the device.
pub(super) struct RedirPump {
    stream: UnixStream,
    session: Session,
    filter: Filter,
    export: Export,
    out: Out,
    /// What the device says waits until the guest's end has said hello.
    early: Vec<Packet>,
    /// For the device. A control request, or a reset, takes its time, and the broker has to be heard between two.
    asked: VecDeque<Packet>,
    buffer: Vec<u8>,
    commands: mpsc::Receiver<DeviceThreadCommand>,
    waker: Arc<ThreadWaker>,
    /// The device is gone, and needs no reset.
    gone: bool,
    refusals: RateLimiter,
    started: Moment,
}

impl RedirPump {
    /// Makes a pump over a non-blocking socket to the VMM.
    pub(super) fn new(
        stream: UnixStream,
        filter: Filter,
        export: Export,
        commands: mpsc::Receiver<DeviceThreadCommand>,
        waker: Arc<ThreadWaker>,
    ) -> Self {
        let (out, early, buffer) = (Out::default(), Vec::new(), vec![0; BATCH]);
        let (asked, session) = (VecDeque::new(), Session::new(Role::Host, VERSION));
        Self {
            stream,
            session,
            filter,
            export,
            out,
            early,
            asked,
            buffer,
            commands,
            waker,
            gone: false,
            refusals: RateLimiter::new(REFUSALS),
            started: Moment::now(),
        }
    }

    /// Serves the device until the thread is told to close, or returns why it cannot go on.
    pub(super) fn run(&mut self, tell: &dyn Fn(DeviceThreadEvent)) -> Option<DetachReason> {
        loop {
            let done = self.process_events();
            for event in self.out.events.drain(..) {
                // A guest may do what is refused faster than anybody writes it down.
                if self.refusals.take(1, self.started.elapsed()) {
                    tell(DeviceThreadEvent::Refused(event));
                }
            }
            match done {
                Ok(true) => {}
                Ok(false) => return None,
                Err(end) => {
                    self.gone = matches!(end, DetachReason::NoDevice(_) | DetachReason::Lost(_));
                    return Some(end);
                }
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
        self.filter.counts()
    }

    /// Gives the device back to the kernel and closes the stream.
    pub(super) fn close(self) {
        if !self.gone {
            self.export.close();
        }
    }

    /// Waits for an event and processes it; returns false when the thread is told to close.
    fn process_events(&mut self) -> Result<bool, DetachReason> {
        while let Some(packet) = self.asked.pop_front() {
            let at_once = matches!(
                packet.body,
                Body::Bulk(_)
                    | Body::Interrupt(_)
                    | Body::StartInterruptReceiving { .. }
                    | Body::StopInterruptReceiving { .. }
                    | Body::CancelDataPacket
            );
            self.export.submit(packet);
            if !at_once {
                break;
            }
        }
        for event in self.export.events() {
            self.on_export_event(event)?;
        }
        self.carry_out()?;
        let (reads, writes) = self.wait()?;
        // Written by the device's transfers, or by the broker.
        let _ = self.waker.0.read();
        loop {
            match self.commands.try_recv() {
                Ok(DeviceThreadCommand::Flush) => self.filter.flush(&mut self.out),
                Err(TryRecvError::Empty) => break,
                // A broker that is no more has let everything go.
                Ok(DeviceThreadCommand::Close) | Err(TryRecvError::Disconnected) => {
                    return Ok(false);
                }
            }
        }
        if writes {
            self.write()?;
        }
        if reads {
            self.read()?;
        }
        Ok(true)
    }

    /// Waits for the VMM, the device or the broker; returns whether the VMM can be read, and written.
    fn wait(&self) -> Result<(bool, bool), DetachReason> {
        let waiting = self.session.output().len();
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::POLLIN, waiting < WAITING_MAX && self.asked.len() < ASKED_MAX);
        flags.set(PollFlags::POLLOUT, waiting > 0);
        let mut fds = [
            PollFd::new(self.waker.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stream.as_fd(), flags),
        ];
        let more = !self.asked.is_empty();
        match poll(&mut fds, if more { PollTimeout::ZERO } else { PollTimeout::NONE }) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                return Err(DetachReason::Stream(format!("its thread cannot wait: {error}")));
            }
        }
        let [_, stream] = fds;
        let found = stream.revents().unwrap_or(PollFlags::empty());
        let over = PollFlags::POLLHUP | PollFlags::POLLERR;
        Ok((found.intersects(PollFlags::POLLIN | over), found.contains(PollFlags::POLLOUT)))
    }

    /// Reads what the VMM sent, if anything.
    fn read(&mut self) -> Result<(), DetachReason> {
        let room = self.session.room().min(self.buffer.len());
        let space = self.buffer.get_mut(..room).unwrap_or_default();
        match self.stream.read(space) {
            Ok(0) => return Err(DetachReason::NoVmm),
            Ok(count) => {
                self.session.feed(space.get(..count).unwrap_or_default());
            }
            Err(error) if transient(&error) => return Ok(()),
            Err(_) => return Err(DetachReason::NoVmm),
        }
        let broken = |error: usbredir::Error| DetachReason::Stream(format!("its VMM sent {error}"));
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
    fn on_export_event(&mut self, event: ExportEvent) -> Result<(), DetachReason> {
        match event {
            ExportEvent::Packet(packet) if self.session.agreed().is_none() => {
                self.early.push(packet)
            }
            ExportEvent::Packet(packet) => {
                // Keys that nobody reads are worth nothing; answers there are only as many as questions.
                let late = matches!(packet.body, Body::Interrupt(_))
                    && self.session.output().len() > WAITING_MAX;
                if !late {
                    self.filter.from_device(packet, &mut self.out);
                }
            }
            ExportEvent::Descriptors(bytes) => match usbfilter::Pinned::from_sysfs(&bytes) {
                Ok(pinned) => self.filter.read_again(&pinned, &mut self.out),
                Err(error) => return Err(DetachReason::Changed(error.to_string())),
            },
            ExportEvent::Gone(why) => return Err(DetachReason::NoDevice(why)),
            ExportEvent::Lost(why) => return Err(DetachReason::Lost(why)),
        }
        Ok(())
    }

    /// Does what the filter has decided.
    fn carry_out(&mut self) -> Result<(), DetachReason> {
        self.asked.extend(self.out.to_device.drain(..));
        for packet in self.out.to_guest.drain(..) {
            // Too long for what the guest's end can: it asked for it.
            if let Err(error) = self.session.send(&packet) {
                return Err(DetachReason::Stream(format!(
                    "its VMM cannot take what it asked for: {error}"
                )));
            }
        }
        for event in &self.out.events {
            match event {
                Event::Changed(change) => return Err(DetachReason::Changed(change.to_string())),
                Event::Violation(violation) => {
                    return Err(DetachReason::Broken(violation.to_string()));
                }
                Event::Refused { .. } => {}
            }
        }
        self.write()
    }

    /// Writes what waits for the VMM, as far as it takes it.
    fn write(&mut self) -> Result<(), DetachReason> {
        while !self.session.output().is_empty() {
            match self.stream.write(self.session.output()) {
                Ok(0) => return Err(DetachReason::NoVmm),
                Ok(count) => self.session.sent(count),
                Err(error) if transient(&error) => return Ok(()),
                Err(_) => return Err(DetachReason::NoVmm),
            }
        }
        Ok(())
    }
}

fn transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
