//! The thread: who comes, who goes, who gets what.
//!
//! ```text
//!  plugged in --> Reading (no driver has it) --> the seat's? --> host
//!                    '--> policy --- deny ----> Blocked (switched off)
//!                               '-- allow --> Recording --on the disk--> Waiting --VMM there--> Joining --on the disk--> Attached
//!  VMM gone: Waiting      pulled out: forgotten      taken away by hand: Off      other rules, or changed: judged anew
//! ```
//! Of a device with a keyboard and something besides the keyboard is the host's first of all, and stays it; all of the above is about the rest.
//!
//! It waits for no device: what may take its time is done by the thread of a [`place`]. A device that is to leave its domain is told
//! to, and cut off from it if it has not left in time: see [`parting`].

mod device;
mod joining;
mod judge;
mod pace;
mod parting;
mod place;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use audit::events::{UsbFailed, UsbRefused};
use clock::{Alarm, Moment};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use policy::Policy;
use usbfilter::Rules;
use usbhost::{Authority, BusId, Sysfs};

use super::attached::{Door, Word};
use super::{Command, Happening, Setup, Way};
use base::mailbox::Ends;
use base::uevent::Uevents;
use control::reports::UsbReport;
use device::{Device, State};
use pace::Pace;
use parting::{Lost, Parting};
use place::{Means, Note, Place, Task, Told};
use printable::explain;

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

/// How long the end waits for devices to be let go.
const LETTING_GO: Duration = Duration::from_secs(5);
/// Places with a thread: more devices than anybody plugs into a ward PC.
const PLACES_MAX: usize = 128;

/// Why a device is blocked whose thread failed.
const FAULT: &str =
    "the agent failed at it, which is a fault of Bulkhead's: report it; plug the device in again";

pub(super) struct Broker {
    sysfs: Sysfs,
    domains: Vec<(String, Vec<Door>)>,
    policy: Arc<Policy>,
    break_glass: bool,
    devices: BTreeMap<BusId, Device>,
    places: BTreeMap<BusId, Place>,
    parting: Vec<Parting>,
    uevents: Option<Uevents>,
    notes: (mpsc::Sender<Note>, mpsc::Receiver<Note>),
    /// Devices that were lost in a reset of late, by place.
    lost: BTreeMap<BusId, Lost>,
    pace: Pace,
    last_id: u64,
    last_task: u64,
    look_at: Moment,
    flush_at: Moment,
    alarm: Alarm,
    told: Vec<UsbReport>,
    ending: bool,
    authority: Authority,
    // Last: when these go, the daemon takes everything for let go.
    ends: Ends<Command, Happening>,
}

impl Broker {
    pub(super) fn new(setup: Setup, ends: Ends<Command, Happening>) -> io::Result<Self> {
        let Setup { sysfs, switches, domains, policy } = setup;
        let open = |(name, ways): (String, Vec<Way>)| {
            let doors: io::Result<Vec<Door>> =
                ways.into_iter().map(|way| Door::open(way, &name)).collect();
            Ok((name, doors?))
        };
        let domains: Vec<(String, Vec<Door>)> =
            domains.into_iter().map(open).collect::<io::Result<_>>()?;
        let authority = Authority::take(sysfs.clone(), switches)
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
            parting: Vec::new(),
            uevents,
            notes: mpsc::channel(),
            lost: BTreeMap::new(),
            pace: Pace::new(),
            last_id: 0,
            last_task: 0,
            look_at: now,
            flush_at: now + FLUSH,
            alarm: Alarm::new()?,
            told: Vec::new(),
            ending: false,
            authority,
            ends,
        })
    }

    pub(super) fn run(&mut self) {
        while !self.ending {
            let now = Moment::now();
            if now >= self.look_at {
                self.look_at = now + LOOK;
                self.look();
            }
            if now >= self.flush_at {
                self.flush_at = now + FLUSH;
                self.flush();
            }
            self.try_waiting(now);
            self.cut(now);
            self.report();
            if let Err(error) = self.wait(None) {
                tracing::error!("the USB broker cannot wait for anything and ends: {error}");
                break;
            }
            self.ends.woken();
            while let Some(command) = self.ends.next() {
                self.command(command);
            }
            self.take_notes();
            if self.uevents.as_ref().is_some_and(|uevents| uevents.take().usb) {
                self.look_at = Moment::now();
            }
        }
        self.let_all_go();
    }

    fn let_all_go(&mut self) {
        let all: Vec<BusId> = self.devices.keys().cloned().collect();
        for id in all {
            self.take_away(&id, "the agent ends");
        }
        let until = Moment::now() + LETTING_GO;
        while self.places.values().any(|place| place.busy > 0) && Moment::now() < until {
            self.cut(Moment::now());
            if self.wait(Some(until)).is_err() {
                break;
            }
            self.ends.woken();
            self.take_notes();
        }
        self.authority.put_back();
    }

    fn tell(&self, happening: Happening) {
        self.ends.tell(happening);
    }

    /// What the device at a place is called on the screen.
    fn shown(&self, id: &BusId) -> String {
        let device = self.devices.get(id);
        device.map_or_else(|| format!("USB device (port {id})"), Device::shown)
    }

    /// Says something of the device at a place.
    fn notice(&self, id: &BusId, words: String) {
        self.tell(Happening::Notice(pace::socket(id).to_owned(), words));
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Rules(policy, break_glass) => {
                self.policy = policy;
                self.break_glass = break_glass;
                self.judge_all();
            }
            Command::Attach(id, domain, request) => {
                self.come_to_nothing(&id, "it is attached by hand once more");
                self.take_away(&id, "it is attached by hand");
                if let Some(device) = self.devices.get_mut(&id) {
                    (device.by_hand, device.request) = (Some(domain), request);
                    (device.changes, device.offers) = (Some(0), 0);
                    self.again(&id);
                }
            }
            Command::Detach(id, request) => self.detach(&id, request),
            Command::Recorded(event, done) => self.recorded(event, done),
            Command::Stop => self.ending = true,
        }
    }

    /// Has the thread of a place do something; the number of that, or why there is no thread.
    fn task(&mut self, id: &BusId, task: Task) -> Result<u64, String> {
        if !self.places.contains_key(id) {
            if self.places.len() >= PLACES_MAX {
                return Err("too many USB devices are plugged in".to_owned());
            }
            let (sysfs, grants) = (self.sysfs.clone(), self.authority.grants());
            let means =
                Means { sysfs, grants, notes: self.notes.0.clone(), wake: self.ends.waker() };
            let place = Place::open(id.clone(), means)
                .map_err(|error| format!("there is no thread for it: {error}"))?;
            self.places.insert(id.clone(), place);
        }
        self.last_task += 1;
        if let Some(place) = self.places.get_mut(id) {
            place.give(self.last_task, task);
        }
        Ok(self.last_task)
    }

    /// Looks who came and who went.
    fn look(&mut self) {
        if let Err(error) = self.authority.take_new() {
            tracing::error!("{}", explain(&error));
        }
        let plugged = self.sysfs.plugged().unwrap_or_default();
        self.lost.retain(|_, lost| lost.when.elapsed() < REST);
        let gone: Vec<BusId> = self
            .devices
            .iter()
            .filter(|(_, device)| {
                let known = &device.plugged;
                !plugged.iter().any(|one| {
                    // One that is being reset may still be the one that was there.
                    one.bus_id == known.bus_id
                        && (one.address.is_none() || one.address == known.address)
                })
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in gone {
            self.come_to_nothing(&id, "it was pulled out");
            self.take_away(&id, "it was pulled out");
            self.devices.remove(&id);
        }
        for plugged in plugged {
            if self.devices.contains_key(&plugged.bus_id) {
                continue;
            }
            if plugged.address.is_none() {
                // Which one it is shows when its reset is over.
                self.look_at = self.look_at.min(Moment::now() + AGAIN);
                continue;
            }
            let id = plugged.bus_id.clone();
            let device = Device::new(plugged);
            self.devices.insert(id.clone(), device);
            self.comes(&id);
        }
        self.give_back_keyboards();
        let devices = &self.devices;
        self.places.retain(|id, place| place.busy > 0 || devices.contains_key(id));
    }

    /// A device is there. One behind a socket where they come and go all the time has to wait until it is looked at.
    fn comes(&mut self, id: &BusId) {
        let wait = self.pace.wait(id);
        if wait.is_zero() {
            self.pace.count(id);
            return self.arrived(id);
        }
        if let Some(device) = self.devices.get_mut(id) {
            device.state = State::Later(Moment::now() + wait);
        }
    }

    /// A device is another one after each reset: it would come and go for ever.
    fn restless(&mut self, id: &BusId) {
        let why = "it is another device after each reset; leave it unplugged for a minute";
        self.failed(id, why.to_owned());
    }

    /// A device does not reach its domain.
    fn failed(&mut self, id: &BusId, why: String) {
        let request = self.request_of(id);
        let event = UsbFailed { bus_id: id.as_str().to_owned(), request, why: why.clone() };
        self.tell(Happening::Note(event.into()));
        self.notice(id, format!("{} is not connected:\n{why}.", self.shown(id)));
        self.switch_off(id, State::Blocked(why));
    }

    /// The request to attach a device, which ends now.
    fn request_of(&mut self, id: &BusId) -> Option<u64> {
        self.devices.get_mut(id)?.request.take()
    }

    /// If somebody asked for the device, that ends here, and not with its being attached.
    fn come_to_nothing(&mut self, id: &BusId, why: &str) {
        let Some(request) = self.request_of(id) else { return };
        let (bus_id, why) = (id.as_str().to_owned(), why.to_owned());
        self.tell(Happening::Note(UsbFailed { bus_id, request: Some(request), why }.into()));
    }

    /// What the threads tell.
    fn take_notes(&mut self) {
        while let Ok((id, number, told)) = self.notes.1.try_recv() {
            if !matches!(told, Told::Word(_))
                && let Some(place) = self.places.get_mut(&id)
            {
                place.busy = place.busy.saturating_sub(1);
            }
            self.take_note(&id, number, told);
        }
    }

    fn take_note(&mut self, id: &BusId, number: u64, told: Told) {
        let state = self.devices.get(id).map(|device| &device.state);
        let reads =
            matches!(state, Some(State::Reading(task) | State::Leaving(task)) if *task == number);
        let serves = match state {
            Some(State::Attached(task, _, grant)) if *task == number => Some(grant.clone()),
            _ => None,
        };
        match (told, serves) {
            (Told::Read(reading), _) if reads => self.read(id, reading),
            (Told::Failed, _) if reads => self.read(id, Err(FAULT.to_owned())),
            (Told::Word(Word::Begun), Some(grant)) => {
                let Some(device) = self.devices.get_mut(id) else { return };
                device.begun = true;
                let without = match grant.rules {
                    Rules::ReadOnly => ", without writing",
                    Rules::Allow if grant.share.is_whole() => "",
                    Rules::Allow => ",\nwithout its keyboard or mouse",
                };
                let connected = format!("{} connected to {}{without}", device.shown(), grant.label);
                let words: Vec<String> =
                    [connected].into_iter().chain(device.limits(&grant)).collect();
                self.notice(id, words.join("\n"));
            }
            (Told::Word(Word::Refused(event)), Some(grant)) => {
                self.refused(id, &grant.domain, &event);
            }
            (Told::Word(Word::Parted(end, counts)), Some(_)) => self.end(id, end, &counts),
            (Told::Served(Err(why)), Some(_)) => {
                self.leave(id, &why);
                self.failed(id, why);
            }
            (Told::Failed, Some(_)) => {
                self.leave(id, FAULT);
                self.failed(id, FAULT.to_owned());
            }
            (Told::Word(Word::Parted(end, counts)), None) => {
                self.parted(number, end.as_ref(), Some(&counts));
            }
            (Told::Served(_) | Told::Failed, None) => self.parted(number, None, None),
            _ => {}
        }
    }

    fn refused(&mut self, id: &BusId, domain: &str, event: &usbfilter::Event) {
        let usbfilter::Event::Refused { what, times } = event else { return };
        let event = UsbRefused {
            domain: domain.to_owned(),
            bus_id: id.as_str().to_owned(),
            times: *times,
            what: what.to_string(),
        };
        self.tell(Happening::Note(event.into()));
    }

    fn flush(&self) {
        for device in self.devices.values() {
            if let State::Attached(_, attached, _) = &device.state {
                attached.flush();
            }
        }
    }

    /// Ends whatever a device has, for now.
    fn take_away(&mut self, id: &BusId, why: &str) {
        if let Some((_, grant)) = self.leave(id, why)
            && let Some(device) = self.devices.get(id)
        {
            let words = device.disconnected(&grant, why);
            self.notice(id, words);
        }
    }

    /// Nobody has it any more. Its keyboard stays the seat's, if it has one and something besides.
    fn switch_off(&mut self, id: &BusId, state: State) {
        if let Some(device) = self.devices.get_mut(id)
            && !matches!(device.state, State::Host(_))
        {
            device.state = state;
            let task = device.kept().map_or(Task::SwitchOff, Task::GiveToHost);
            // One for which there is no thread was never switched on.
            let _ = self.task(id, task);
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

    /// Waits until there is something to do, at most until then.
    fn wait(&mut self, most: Option<Moment>) -> Result<(), Errno> {
        let waiting = self.devices.values().filter_map(|device| match &device.state {
            State::Waiting(_, at) | State::Later(at) => Some(*at),
            _ => None,
        });
        let parting = self.parting.iter().filter(|one| one.attached.is_some()).map(|one| one.until);
        let first = self.look_at.min(self.flush_at);
        let until = waiting.chain(parting).chain(most).fold(first, Moment::min);
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

#[cfg(test)]
mod tests;
