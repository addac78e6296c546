//! The thread: who comes, who goes, who gets what.
//!
//! ```text
//!  kernel: devices ---.                                            .--> threads of places, VMMs' sockets
//!  daemon: rules, -----+--> Event --> Lifecycle of the device --> Effect
//!    by hand, permits  |                                           '--> daemon: audit, texts
//!  threads of places -'
//! ```
//! What becomes of a device is decided by its [`Lifecycle`](crate::lifecycle), one for each place where something is plugged in. The broker
//! tells it what happens and carries out what it wants ([`drive`]); what the policy says of a device is found out in [`verdict`] alone. It
//! waits for no device: what may take its time is done by the thread of a [`place`].

mod device;
mod drive;
mod look;
mod pace;
mod place;
mod terms;
mod text;
mod verdict;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use audit::events::UsbRefused;
use clock::{Alarm, Moment};
use monitor::mediator_thread::Ends;
use monitor::{Permit, Stop};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;
use usbhost::{BusId, UsbAuthorization, UsbDevices};

use super::attached::{self, DeviceThreadEvent, DomainSocket};
use super::budget::Budget;
use super::lifecycle::{AGAIN, CUT_OFF_AFTER, Event, Findings, HOSTS, Numbers, Reading, State};
use super::{Command, Domain, Setup, UsbEvent};
use base::uevent::Uevents;
use control::reports::UsbReport;
use device::Device;
use look::Troubles;
use pace::Pace;
use place::{DeviceReading, Place, Report, ThreadReport};
use printable::explain;
use usbdescriptors::Share;

use crate::grant::UsbGrant;
use usbsysfs::Identity;

pub use text::not_attached;

/// How often the devices are looked at without a word of the kernel's.
const LOOK: Duration = Duration::from_secs(5);
/// How often what a filter refused again and again is told.
const FLUSH: Duration = Duration::from_secs(60);
/// How long the end waits for devices to be let go: every worker is killed long before that, and the kernel has waited once for a device that answers nothing (5 s).
/// What is left is a worker that the kernel does not let go, and a device on whose reset it waits longer.
const LETTING_GO: Duration = Duration::from_secs(8);
const _: () = assert!(
    LETTING_GO.as_millis() > CUT_OFF_AFTER.as_millis() + attached::WORKER_ENDS_WITHIN.as_millis()
);
/// Places with a thread: more devices than anybody plugs into a ward PC.
const PLACES_MAX: usize = 128;

pub(super) struct Broker {
    sysfs: UsbDevices,
    domains: Vec<(String, Vec<DomainSocket>)>,
    policy: Arc<Policy>,
    break_glass: bool,
    devices: BTreeMap<BusId, Device>,
    places: BTreeMap<BusId, Place>,
    uevents: Option<Uevents>,
    reports: (mpsc::Sender<ThreadReport>, mpsc::Receiver<ThreadReport>),
    pace: Pace,
    numbers: Numbers,
    look_at: Moment,
    troubles: Troubles,
    flush_at: Moment,
    alarm: Alarm,
    last_reported: Vec<UsbReport>,
    authorization: UsbAuthorization,
    // Last: when these are dropped, the daemon takes every device for released.
    ends: Ends<Command, UsbEvent>,
}

impl Broker {
    pub(super) fn new(setup: Setup, ends: Ends<Command, UsbEvent>) -> io::Result<Self> {
        let Setup { sysfs, switches, domains, policy } = setup;
        // Those that get devices.
        let served = domains.iter().filter(|domain| domain.workers.is_ok()).count();
        let open = |Domain { name, sockets, workers }| {
            let budget = Budget::of(served, sockets.len());
            let open = |one| DomainSocket::open(one, &name, budget.bytes, workers.clone());
            let sockets = sockets.into_iter().take(budget.devices);
            let sockets: io::Result<Vec<DomainSocket>> = sockets.map(open).collect();
            Ok((name, sockets?))
        };
        let domains: Vec<(String, Vec<DomainSocket>)> =
            domains.into_iter().map(open).collect::<io::Result<_>>()?;
        // Taken last: whatever else there is not has changed nothing.
        let alarm = Alarm::new()?;
        let authorization = UsbAuthorization::acquire(sysfs.clone(), switches)
            .map_err(|error| io::Error::other(explain(&error)))?;
        let uevents = Uevents::open()
            .inspect_err(|error| tracing::warn!("the kernel does not tell of devices: {error}"))
            .ok();
        let now = Moment::now();
        Ok(Self {
            sysfs,
            domains,
            policy,
            break_glass: false,
            devices: BTreeMap::new(),
            places: BTreeMap::new(),
            uevents,
            reports: mpsc::channel(),
            pace: Pace::new(),
            numbers: Numbers::default(),
            look_at: now,
            troubles: Troubles::default(),
            flush_at: now + FLUSH,
            alarm,
            last_reported: Vec::new(),
            authorization,
            ends,
        })
    }

    pub(super) fn run(mut self) {
        while !self.ends.is_stopped() {
            let now = Moment::now();
            if now >= self.look_at {
                self.look_at = now + LOOK;
                self.look();
            }
            if now >= self.flush_at {
                self.flush_at = now + FLUSH;
                self.flush();
            }
            self.tick(now);
            self.report();
            if let Err(error) = self.wait(None) {
                tracing::error!("the USB broker cannot wait for anything and ends: {error}");
                break;
            }
            self.ends.take_wakeup();
            self.take_commands();
            self.take_reports();
            if self.uevents.as_ref().is_some_and(|uevents| uevents.take().usb) {
                self.look_at = Moment::now();
            }
        }
        self.detach_all();
    }

    /// Takes every device from its domain. The host's drivers are given what is left only if that was asked for: whoever cannot go on, or leaves
    /// guests running, gives them nothing.
    fn detach_all(mut self) {
        let all: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in all {
            self.drive(&id, Event::AgentEnds);
        }
        let until = Moment::now() + LETTING_GO;
        while self.places.values().any(|place| place.busy > 0) && Moment::now() < until {
            self.tick(Moment::now());
            if self.wait(Some(until)).is_err() {
                break;
            }
            self.ends.take_wakeup();
            self.take_commands();
            self.take_reports();
        }
        // What was permitted meanwhile and attached to nobody is written down.
        self.take_commands();
        // Whatever has not left by now, its domain has it no more.
        self.tick(Moment::now() + CUT_OFF_AFTER);
        if self.ends.stopped() == Some(Stop::GiveBack) {
            self.authorization.restore();
        }
    }

    fn take_commands(&mut self) {
        while let Some(command) = self.ends.next() {
            self.command(command);
        }
    }

    fn send(&self, event: UsbEvent) {
        self.ends.send(event);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Rules(policy, break_glass) => {
                self.policy = policy;
                self.break_glass = break_glass;
                self.judge_all();
            }
            Command::Attach(id, domain, request) => {
                self.drive(&id, Event::AttachByHand { domain, request });
            }
            Command::Detach(id, request) => self.drive(&id, Event::DetachByHand { request }),
            Command::Admitted(request, permit) => {
                self.answer(request, Event::Admitted { request, permit });
            }
            Command::Permitted(request, permit) => {
                self.answer(request, Event::Permitted { request, permit });
            }
            Command::Refused(request, denial) => {
                self.answer(request, Event::Refused { request, denial });
            }
            Command::RecordLost => {
                let all: Vec<BusId> = self.devices.keys().cloned().collect();
                for id in all {
                    self.drive(&id, Event::RecordLost);
                }
            }
        }
    }

    /// Passes on the daemon's answer to a request. What it was asked for may have ended meanwhile.
    fn answer(&mut self, request: u64, event: Event<Permit<UsbGrant>>) {
        let asked = self.devices.values().find(|device| device.lifecycle.has_asked(request));
        if let Some(id) = asked.map(|device| device.id.clone()) {
            self.drive(&id, event);
        }
    }

    /// Tells the devices that wait for this moment that it has come.
    fn tick(&mut self, now: Moment) {
        self.tick_all(now, |device| {
            device.lifecycle.deadline().is_some_and(|deadline| now >= deadline)
        });
    }

    fn tick_all(&mut self, now: Moment, which: impl Fn(&Device) -> bool) {
        let due = self.devices.values().filter(|device| which(device));
        let due: Vec<BusId> = due.map(|device| device.id.clone()).collect();
        for id in due {
            self.drive_at(now, &id, Event::Tick);
        }
    }

    /// Takes the reports of the threads.
    fn take_reports(&mut self) {
        while let Ok((id, number, report)) = self.reports.1.try_recv() {
            self.take_report(&id, number, report);
        }
    }

    fn take_report(&mut self, id: &BusId, task: u64, report: Report) {
        if !matches!(report, Report::Serving(_))
            && let Some(place) = self.places.get_mut(id)
        {
            place.done(task);
        }
        let event = match report {
            Report::Read(found) => match self.reading(id, task, found) {
                Some(reading) => Event::Read { task, reading },
                None => return,
            },
            Report::Serving(DeviceThreadEvent::Begun) => Event::Begun { task },
            Report::Serving(DeviceThreadEvent::Refused { what, times }) => {
                return self.refused(id, task, what, times);
            }
            Report::Serving(DeviceThreadEvent::Detached(reason, counts)) => {
                Event::Left { task, reason, counts }
            }
            Report::Served(served) => Event::Served { task, served },
            Report::Failed => Event::ThreadFailed { task },
            Report::Done => return,
        };
        self.drive(id, event);
    }

    /// Keeps what a device turned out to be, if anybody still waits for that.
    fn reading(
        &mut self,
        id: &BusId,
        task: u64,
        found: Result<DeviceReading, String>,
    ) -> Option<Result<Reading, String>> {
        let device = self.devices.get_mut(id)?;
        if !device.lifecycle.is_read_by(task) {
            return None;
        }
        Some(match found {
            Ok(DeviceReading::HostNeeds) => {
                tracing::warn!("{id}: {HOSTS}; it is left alone");
                Ok(Reading::HostNeeds)
            }
            Ok(DeviceReading::Device(identity)) => {
                let findings = Findings::of(&identity);
                let address = Some(identity.vetted.found().address);
                device.identity = Some(*identity);
                let same = device.plugged.as_ref().is_some_and(|known| known.address == address);
                Ok(if same { Reading::Device(findings) } else { Reading::Another(findings) })
            }
            Err(why) => Err(why),
        })
    }

    /// Writes down what the filter of a device that is served has refused.
    fn refused(&mut self, id: &BusId, task: u64, what: String, times: u64) {
        let Some(device) = self.devices.get(id) else { return };
        let Some(grant) = device.lifecycle.served_by(task) else { return };
        // A worker that was taken over has another come after it, and a device that is comes again.
        if !self.pace.take_refusal(id) {
            return;
        }
        let event = UsbRefused {
            domain: grant.domain.clone(),
            bus_id: id.as_str().to_owned(),
            times,
            what,
        };
        self.send(UsbEvent::Note(event.into()));
    }

    fn flush(&self) {
        for device in self.devices.values() {
            if let State::Attached { task, .. } = device.lifecycle.state()
                && let Some(attachment) = device.attachments.get(task)
            {
                attachment.flush();
            }
        }
    }

    /// Sends the daemon the list of devices, if it has changed.
    fn report(&mut self) {
        let reports: Vec<UsbReport> = self.devices.values().filter_map(Device::report).collect();
        if reports != self.last_reported {
            self.last_reported.clone_from(&reports);
            self.send(UsbEvent::Devices(reports));
        }
    }

    /// Waits until there is something to do, at most until `most`.
    fn wait(&mut self, most: Option<Moment>) -> Result<(), Errno> {
        let waiting = self.devices.values().filter_map(|device| device.lifecycle.deadline());
        let first = self.look_at.min(self.flush_at);
        let until = waiting.chain(most).fold(first, Moment::min);
        self.alarm.set(Some(until))?;
        let mut polled = vec![
            PollFd::new(self.ends.fd(), PollFlags::POLLIN),
            PollFd::new(self.alarm.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(uevents) = &self.uevents {
            polled.push(PollFd::new(uevents.fd(), PollFlags::POLLIN));
        }
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Findings {
    /// Takes what the life-cycle of a device depends on, of all that it says of itself.
    fn of(identity: &Identity) -> Self {
        let some = |interfaces: std::collections::BTreeSet<u8>| {
            (!interfaces.is_empty()).then_some(Share::Interfaces(interfaces))
        };
        Self {
            is_the_seats: identity.is_the_seats(),
            types_or_points: identity.types_or_points(),
            seats_part: some(identity.seats_part()),
            input: some(identity.input_interfaces()),
            unread: identity.unread.clone(),
            descriptors: identity.vetted.found().descriptors.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
