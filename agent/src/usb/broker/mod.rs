//! The thread: who comes, who goes, who gets what.
//!
//! ```text
//!  plugged in --> read (no driver has it) --> the seat's? --> host
//!                                         --> policy --- deny ----> Blocked (switched off)
//!                                                    '-- allow --> Recording --on the disk--> Waiting for the VMM --> Attached
//!  VMM gone: Waiting      pulled out: forgotten      taken away by hand: Off      other rules, or changed: judged anew
//! ```

mod device;
mod judge;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use audit::Event;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;
use policy::Policy;
use usbfilter::{Filter, Rules};
use usbhost::{Authority, BusId, Sysfs};

use super::attached::{Attached, Door, End, Stream, Word};
use super::{Command, Happening, Setup, UsbReport, Way};
use crate::seat::uevent::Uevents;
use crate::supervisor::devices::explain;
use device::{Device, Grant, State, shown};

/// How often a domain that does not take its device is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often the devices are looked at without a word of the kernel's.
const LOOK: Duration = Duration::from_secs(5);
/// How often what a filter refused again and again is told.
const FLUSH: Duration = Duration::from_secs(60);
/// Times a device is judged anew because it changed; then it stays off until it is plugged in again.
const CHANGES_MAX: u32 = 3;
/// After this nobody remembers that the device at a place was lost in a reset.
const REST: Duration = Duration::from_secs(60);

/// What the thread of a device tells: where it is plugged in, how often it was attached by then.
type Told = (BusId, u64, Word);

/// A device that was lost in a reset.
struct Lost {
    /// How often another came in its place.
    times: u32,
    when: Instant,
    /// Its descriptors, until something comes in its place.
    was: Option<Vec<u8>>,
}

impl Lost {
    /// A device comes in its place. The same one again was only pulled out in the middle of a reset.
    fn comes(&mut self, descriptors: &[u8]) -> u32 {
        if let Some(was) = self.was.take() {
            self.times = if was == descriptors { 0 } else { self.times + 1 };
        }
        self.times
    }
}

pub(super) struct Broker {
    sysfs: Sysfs,
    authority: Authority,
    domains: Vec<(String, Vec<Door>)>,
    policy: Arc<Policy>,
    break_glass: bool,
    devices: BTreeMap<BusId, Device>,
    uevents: Option<Uevents>,
    inbox: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    outbox: mpsc::Sender<Happening>,
    awake: Arc<EventFd>,
    words: (mpsc::Sender<Told>, mpsc::Receiver<Told>),
    /// Devices that were lost in a reset of late, by place.
    lost: BTreeMap<BusId, Lost>,
    last_id: u64,
    look_at: Instant,
    flush_at: Instant,
    told: Vec<UsbReport>,
    ending: bool,
}

impl Broker {
    pub(super) fn new(
        setup: Setup,
        inbox: mpsc::Receiver<Command>,
        wake: Arc<EventFd>,
        outbox: mpsc::Sender<Happening>,
        awake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let Setup { sysfs, switches, domains, policy } = setup;
        let open = |(name, ways): (String, Vec<Way>)| {
            let doors: io::Result<Vec<Door>> = ways.into_iter().map(Door::open).collect();
            Ok((name, doors?))
        };
        let domains: Vec<(String, Vec<Door>)> =
            domains.into_iter().map(open).collect::<io::Result<_>>()?;
        let authority = Authority::take(sysfs.clone(), switches)
            .map_err(|error| io::Error::other(explain(&error)))?;
        let uevents = Uevents::open()
            .inspect_err(|error| tracing::warn!("the kernel does not tell of devices: {error}"))
            .ok();
        let now = Instant::now();
        Ok(Self {
            sysfs,
            authority,
            domains,
            policy,
            break_glass: false,
            devices: BTreeMap::new(),
            uevents,
            inbox,
            wake,
            outbox,
            awake,
            words: mpsc::channel(),
            lost: BTreeMap::new(),
            last_id: 0,
            look_at: now,
            flush_at: now + FLUSH,
            told: Vec::new(),
            ending: false,
        })
    }

    pub(super) fn run(&mut self) {
        while !self.ending {
            let now = Instant::now();
            if now >= self.look_at {
                self.look_at = now + LOOK;
                self.look();
            }
            if now >= self.flush_at {
                self.flush_at = now + FLUSH;
                self.flush();
            }
            self.try_waiting(now);
            self.report();
            if let Err(error) = self.wait() {
                tracing::error!("the USB broker cannot wait for anything and ends: {error}");
                break;
            }
            let _ = self.wake.read();
            while let Ok(command) = self.inbox.try_recv() {
                self.command(command);
            }
            while let Ok((id, generation, word)) = self.words.1.try_recv() {
                self.told(&id, generation, word);
            }
            if self.uevents.as_ref().is_some_and(|uevents| uevents.take().usb) {
                self.look_at = Instant::now();
            }
        }
        let attached: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in attached {
            self.take_away(&id, "the agent ends");
        }
        self.authority.put_back();
    }

    fn tell(&self, happening: Happening) {
        // The receiver lives as long as the agent; a full eventfd is awake already.
        let _ = self.outbox.send(happening);
        let _ = self.awake.write(1);
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Rules(policy, break_glass) => {
                self.policy = policy;
                self.break_glass = break_glass;
                self.judge_all();
            }
            Command::Attach(id, domain) => {
                self.take_away(&id, "it is attached by hand");
                if let Some(device) = self.devices.get_mut(&id) {
                    device.by_hand = Some(domain);
                    device.changes = 0;
                    self.arrived(&id);
                }
            }
            Command::Detach(id) => {
                self.take_away(&id, "it was taken away by hand");
                self.switch_off(&id, State::Off);
            }
            Command::Recorded(event, done) => self.recorded(event, done),
            Command::Stop => self.ending = true,
        }
    }

    /// Looks who came and who went.
    fn look(&mut self) {
        if let Err(error) = self.authority.take_new() {
            tracing::error!("{}", explain(&error));
        }
        let found = self.sysfs.list().unwrap_or_default();
        self.lost.retain(|_, lost| lost.when.elapsed() < REST);
        let there = |id: &BusId, address: u8| {
            found.iter().any(|found| found.bus_id == *id && found.address == address)
        };
        let gone: Vec<BusId> = self
            .devices
            .iter()
            .filter(|(id, device)| !there(id, device.found.address))
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.end(&id, End::NoDevice("it was pulled out".to_owned()));
            self.devices.remove(&id);
        }
        for found in found {
            if self.devices.contains_key(&found.bus_id) {
                continue;
            }
            let id = found.bus_id.clone();
            let state = State::Off;
            let (by_hand, identity) = (None, None);
            let changes = self.lost.get_mut(&id).map_or(0, |lost| lost.comes(&found.descriptors));
            let device = Device { found, identity, state, by_hand, changes, generation: 0 };
            self.devices.insert(id.clone(), device);
            if changes < CHANGES_MAX {
                self.arrived(&id);
            } else {
                self.restless(&id);
            }
        }
    }

    /// A device is another one after each reset: it would come and go for ever.
    fn restless(&mut self, id: &BusId) {
        let why = "it is another device after each reset; leave it unplugged for a minute";
        let event = Event::new("usb-failed").with("bus_id", id.as_str()).with("why", why);
        self.tell(Happening::Note(event));
        self.tell(Happening::Notice(format!("USB device is not connected:\n{why}.")));
        self.switch_off(id, State::Blocked(why.to_owned()));
    }

    /// Connects devices whose domain takes them now.
    fn try_waiting(&mut self, now: Instant) {
        let due: Vec<BusId> = self
            .devices
            .iter()
            .filter(|(_, device)| matches!(&device.state, State::Waiting(_, at) if now >= *at))
            .map(|(id, _)| id.clone())
            .collect();
        for id in due {
            if let Err(why) = self.attach(&id) {
                self.tell(Happening::Note(
                    Event::new("usb-failed").with("bus_id", id.as_str()).with("why", why.as_str()),
                ));
                self.tell(Happening::Notice(format!("USB device is not connected:\n{why}.")));
                self.switch_off(&id, State::Blocked(why));
            }
        }
    }

    /// `Ok` if it is attached, or its domain does not take it yet.
    fn attach(&mut self, id: &BusId) -> Result<(), String> {
        let Some(device) = self.devices.get(id) else { return Ok(()) };
        let State::Waiting(grant, _) = &device.state else { return Ok(()) };
        let grant = grant.clone();
        let identity = device.identity.clone().ok_or("it was not read")?;
        // A filter that cannot be made is found out before the guest sees anything.
        let filter =
            Filter::new(grant.rules, identity.pinned).map_err(|error| error.to_string())?;
        let taken: Vec<PathBuf> = self
            .devices
            .values()
            .filter_map(|device| match &device.state {
                State::Attached(attached, _) => Some(attached.path.clone()),
                _ => None,
            })
            .collect();
        let sockets = self.domains.iter().find(|(name, _)| *name == grant.domain);
        let mut free =
            sockets.into_iter().flat_map(|(_, all)| all).filter(|door| !taken.contains(&door.path));
        let connected = free.find_map(|door| Some((door.path.clone(), door.enter().ok()?)));
        let Some((path, stream)) = connected else {
            if let Some(device) = self.devices.get_mut(id) {
                device.state = State::Waiting(grant, Instant::now() + AGAIN);
            }
            return Ok(());
        };
        let found = self.sysfs.find(id).ok_or("it is gone")?;
        let generation = self.devices.get(id).map_or(0, |device| device.generation) + 1;
        let (words, wake, place) = (self.words.0.clone(), Arc::clone(&self.wake), id.clone());
        let tell = move |word| {
            // A broker that ended hears nothing any more.
            let _ = words.send((place.clone(), generation, word));
            let _ = wake.write(1);
        };
        let stream = Stream::new(stream, filter);
        let attached = Attached::start(&path, stream, self.sysfs.clone(), found, tell);
        let attached = attached.map_err(|error| explain(&error))?;
        let Some(device) = self.devices.get_mut(id) else { return Ok(()) };
        let without = if grant.rules == Rules::ReadOnly { ", without writing" } else { "" };
        let words = format!("{} connected to {}{without}", shown(&device.found), grant.label);
        device.generation = generation;
        let event = Event::new("usb-attached").of(&grant.domain).with("bus_id", id.as_str());
        device.state = State::Attached(Box::new(attached), grant);
        self.tell(Happening::Note(event));
        self.tell(Happening::Notice(words));
        Ok(())
    }

    fn told(&mut self, id: &BusId, generation: u64, word: Word) {
        let Some(device) = self.devices.get(id) else { return };
        let State::Attached(_, grant) = &device.state else { return };
        let domain = grant.domain.clone();
        match word {
            _ if device.generation != generation => {}
            Word::Refused(event) => self.refused(id, &domain, &event),
            Word::Ended(end) => self.end(id, end),
        }
    }

    fn refused(&mut self, id: &BusId, domain: &str, event: &usbfilter::Event) {
        let usbfilter::Event::Refused { what, times } = event else { return };
        let event = Event::new("usb-refused")
            .of(domain)
            .with("bus_id", id.as_str())
            .with("what", format!("{what:?}"))
            .with("times", *times);
        self.tell(Happening::Note(event));
    }

    fn flush(&self) {
        for device in self.devices.values() {
            if let State::Attached(attached, _) = &device.state {
                attached.flush();
            }
        }
    }

    /// A device is out of its domain.
    fn end(&mut self, id: &BusId, end: End) {
        let Some(device) = self.devices.get_mut(id) else { return };
        let State::Attached(..) = &device.state else { return };
        let why = match &end {
            End::NoVmm => "its domain stopped",
            End::NoDevice(why) | End::Lost(why) | End::Changed(why) | End::Broken(why) => why,
        };
        let why = why.to_owned();
        let grant = self.detach(id, &why);
        let (Some(device), Some(grant)) = (self.devices.get_mut(id), grant) else { return };
        match end {
            End::NoVmm => device.state = State::Waiting(grant, Instant::now() + AGAIN),
            End::NoDevice(why) | End::Lost(why) => {
                let words = format!("{} disconnected from {}", shown(&device.found), grant.label);
                self.tell(Happening::Notice(words));
                self.switch_off(id, State::Blocked(why));
            }
            End::Changed(_) if device.changes < CHANGES_MAX => {
                device.changes += 1;
                self.arrived(id);
            }
            End::Changed(why) | End::Broken(why) => {
                let words =
                    format!("{} is blocked:\nit breaks the rules of USB.", shown(&device.found));
                self.tell(Happening::Notice(words));
                self.switch_off(id, State::Blocked(why));
            }
        }
    }

    /// Ends what is attached, and writes down what went to and fro.
    fn detach(&mut self, id: &BusId, why: &str) -> Option<Grant> {
        let device = self.devices.get_mut(id)?;
        let State::Attached(attached, grant) = std::mem::replace(&mut device.state, State::Off)
        else {
            return None;
        };
        let descriptors = device.found.descriptors.clone();
        let mut event = Event::new("usb-detached")
            .of(&grant.domain)
            .with("bus_id", id.as_str())
            .with("why", why);
        if let Ok((counts, end)) = attached.close() {
            // The kernel may have told that it went before its thread did.
            if matches!(end, Some(End::Lost(_))) {
                let times = self.lost.get(id).map_or(0, |lost| lost.times);
                let (when, was) = (Instant::now(), Some(descriptors));
                self.lost.insert(id.clone(), Lost { times, when, was });
            }
            let shown = |(code, times): (&u8, &u64)| (format!("{code:02x}"), *times);
            let commands: BTreeMap<String, u64> = counts.commands.iter().map(shown).collect();
            event = event
                .with("bytes_to_device", counts.to_device)
                .with("bytes_to_guest", counts.to_guest)
                .with("commands", serde_json::json!(commands))
                .with("refused", counts.refused);
        } else {
            tracing::error!("{id}: its thread panicked, and what it counted is lost");
        }
        self.tell(Happening::Note(event));
        Some(grant)
    }

    /// Ends whatever a device has, for now.
    fn take_away(&mut self, id: &BusId, why: &str) {
        if let Some(grant) = self.detach(id, why)
            && let Some(device) = self.devices.get(id)
        {
            let words = format!("{} disconnected from {}", shown(&device.found), grant.label);
            self.tell(Happening::Notice(words));
        }
    }

    fn switch_off(&mut self, id: &BusId, state: State) {
        if let Some(device) = self.devices.get_mut(id)
            && !matches!(device.state, State::Host(_))
        {
            device.state = state;
            device.found.authorised = false;
            // One that was pulled out is off.
            let _ = self.authority.switch_off(id);
        }
    }

    /// Tells the daemon how things are, if they are different.
    fn report(&mut self) {
        let reports: Vec<UsbReport> = self.devices.values().map(Device::report).collect();
        if reports != self.told {
            self.told.clone_from(&reports);
            self.tell(Happening::Devices(reports));
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) -> Result<(), nix::Error> {
        let mut polled = vec![PollFd::new(self.wake.as_fd(), PollFlags::POLLIN)];
        if let Some(uevents) = &self.uevents {
            polled.push(PollFd::new(uevents.fd(), PollFlags::POLLIN));
        }
        let waiting = self.devices.values().filter_map(|device| match &device.state {
            State::Waiting(_, at) => Some(*at),
            _ => None,
        });
        let until = waiting.fold(self.look_at.min(self.flush_at), Instant::min);
        let left = until.saturating_duration_since(Instant::now());
        let millis = left.as_millis().saturating_add(1);
        let timeout = PollTimeout::from(u16::try_from(millis).unwrap_or(u16::MAX));
        match poll(&mut polled, timeout) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_another_after_each_reset_is_told_from_one_that_is_pulled_out_in_a_reset() {
        let mut times = 0;
        for (was, comes, expected) in
            [(1, 2, 1), (2, 1, 2), (1, 1, 0), (1, 2, 1), (2, 3, 2), (3, 2, 3)]
        {
            let mut lost = Lost { times, when: Instant::now(), was: Some(vec![was]) };
            times = lost.comes(&[comes]);
            assert_eq!(times, expected);
            assert_eq!(lost.comes(&[9]), expected, "what is plugged in later was not lost");
        }
        assert!(times >= CHANGES_MAX);
    }
}
