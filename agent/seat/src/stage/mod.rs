//! The seat's thread: waits for devices, links, the screen, the daemon and time, and has the pure parts decide.

mod screen;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use clock::{Alarm, Moment, SleepWatch};

use printable::Label;
use rustix::process::setpriority_process;
use rustix::thread::gettid;
use seat_link::{Cursor, PACKET_MAX, Rect, Size};

use super::compose::arrow;
use super::core::{Action, Core, DeviceId, DomainIndex, Geometry, Input, Output, Time};
use super::devices::{DeviceEvent, Devices};
use super::display::Display;
use super::domain::{DomainUpdate, SeatDomain};
use super::notices::Notices;
use super::picture::Face;
use super::saved_state::{SavedState, SavedStateFile};
use super::scenes::{Layout, Scenes};
use super::{Backend, Command, Daemon, DomainText, SeatEvent, SeatPolicy, ToMediators};
use base::uevent::Uevents;
use screen::{DrawnNotice, shown};
use wait::ReadySources;

/// The screen guests are given while there is none.
const NO_SCREEN: Size = Size { width: 1280, height: 800 };
/// How often a screen that is missing is looked for.
const SCREEN_AGAIN: Duration = Duration::from_secs(2);
/// How often what is not shown is brought up to date.
const BACKGROUND: Duration = Duration::from_millis(100);
/// How long a flip may take: many frames of the slowest monitor.
const FLIP_MAX: Duration = Duration::from_secs(1);
/// The thread's nice value.
const PRIORITY: i32 = -10;
/// Updates taken of one link before the others have their turn.
const UPDATES: usize = 2;

pub(super) struct Stage {
    backend: Backend,
    names: Vec<String>,
    policy: SeatPolicy,
    daemon: Daemon,
    epoch: Moment,
    sleep: SleepWatch,
    alarm: Alarm,
    core: Core,
    domains: Vec<SeatDomain>,
    texts: Vec<DomainText>,
    banner_notes: Vec<String>,
    devices: Devices,
    /// Devices tied to a domain.
    pins: BTreeMap<DeviceId, DomainIndex>,
    /// What they call themselves, for when they are gone.
    called: BTreeMap<DeviceId, Label>,
    uevents: Option<Uevents>,
    face: Face,
    layout: Layout,
    scenes: Scenes,
    display: Option<Display>,
    problem: Option<String>,
    screen_again: Time,
    background: Time,
    notices: Notices,
    /// What [`Notices`] wants shown, drawn.
    overlay: DrawnNotice,
    /// The question whose box was seen on the screen.
    seen: Option<u64>,
    arrow: Cursor,
    lights: u8,
    lights_due: bool,
    deferred: Vec<SeatEvent>,
    saved_state: SavedStateFile,
    /// The scene whose turn it was to be painted in the background.
    prepared: usize,
    buffer: Box<[u8; PACKET_MAX]>,
}

impl Stage {
    pub(super) fn new(
        backend: Backend,
        names: Vec<String>,
        policy: SeatPolicy,
        daemon: Daemon,
        saved_state: SavedStateFile,
    ) -> io::Result<Self> {
        let layout = Layout::new(NO_SCREEN);
        let geometry = Geometry {
            screen: layout.screen,
            banner: layout.rows,
            pictures: vec![Rect::default(); names.len()],
            clicks: Vec::new(),
        };
        let uevents = match backend {
            Backend::Kms(_) => Some(Uevents::open()?),
            Backend::None => None,
        };
        let mut this = Self {
            core: Core::new(names.len(), policy.settings.clone(), geometry),
            domains: names.iter().map(|_| SeatDomain::default()).collect(),
            texts: vec![DomainText::default(); names.len()],
            banner_notes: Vec::new(),
            devices: Devices::default(),
            pins: BTreeMap::new(),
            called: BTreeMap::new(),
            uevents,
            face: Face::Dots,
            layout,
            scenes: Scenes::new(),
            display: None,
            problem: None,
            screen_again: Time::ZERO,
            background: Time::ZERO,
            notices: Notices::default(),
            overlay: DrawnNotice::default(),
            seen: None,
            arrow: arrow(),
            lights: 0,
            lights_due: false,
            deferred: Vec::new(),
            prepared: 0,
            buffer: Box::new([0; PACKET_MAX]),
            epoch: Moment::now(),
            sleep: SleepWatch::start(),
            alarm: Alarm::new()?,
            backend,
            names,
            policy,
            daemon,
            saved_state,
        };
        this.begin_as_left();
        Ok(this)
    }

    /// Goes on where the agent before this one ended.
    fn begin_as_left(&mut self) {
        let left = self.saved_state.left().unwrap_or_default();
        let front = left.front.and_then(|name| self.names.iter().position(|known| *known == name));
        if let Some(front) = front.filter(|front| *front != self.core.front()) {
            self.feed(Input::Switch(front), None);
        }
        if left.locked {
            self.feed(Input::Lock, None);
        }
        self.remember();
    }

    /// Writes down how the seat is.
    fn remember(&mut self) {
        let front = self.names.get(self.core.front()).cloned();
        self.saved_state.write(&SavedState { front, locked: self.core.locked() });
    }

    pub(super) fn run(&mut self) {
        // Before guests and the agent's own writing: a switch is a few hundred microseconds of work.
        if let Err(error) = setpriority_process(Some(gettid()), PRIORITY) {
            tracing::info!("the seat's thread has no priority over others: {error}");
        }
        if matches!(self.backend, Backend::Kms(_)) {
            match Face::of_the_host() {
                Ok(face) => self.face = face,
                Err(problem) => tracing::warn!("{problem}"),
            }
            self.look_for_devices();
        }
        while !self.daemon.ends.is_stopped() {
            let ready = self.wait();
            self.round(ready);
        }
    }

    /// Processes the sources that are ready to be read, and what is due.
    fn round(&mut self, ready: ReadySources) {
        if ready.screen {
            self.take_flips();
        }
        let events: Vec<_> = ready.devices.into_iter().map(|id| self.devices.read(id)).collect();
        // After the devices were read, before what they said counts: nobody knows who pressed the key that woke the PC.
        if self.sleep.look().is_some() {
            self.feed(Input::Lock, None);
        }
        // What its time has ended is over before a key counts that came after it: it answers no question, and puts off no lock.
        self.feed(Input::Tick, None);
        for events in events {
            self.on_device_events(events);
        }
        // Nothing but the next key is as urgent as the end of a flip, which is a frame away at most.
        if self.is_flipping() {
            return;
        }
        self.look_for_question();
        self.carry_out_deferred();
        if ready.uevents {
            self.take_uevents();
        }
        self.look_at_screen();
        // Not only when something woke the thread: with a painted pointer that moves there is a flip in every wait, and the daemon would hear
        // no answer.
        self.daemon.ends.take_wakeup();
        self.commands();
        ready.links.into_iter().for_each(|index| self.read_link(index));
        self.feed(Input::Tick, None);
        self.draw();
    }

    /// Carries out what had to wait until the switch was on the screen.
    fn carry_out_deferred(&mut self) {
        if std::mem::take(&mut self.lights_due) {
            self.set_lights(false);
        }
        for event in std::mem::take(&mut self.deferred) {
            self.daemon.send(event);
        }
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    fn take_uevents(&mut self) {
        let changes = self.uevents.as_ref().map(Uevents::take).unwrap_or_default();
        if changes.input {
            self.look_for_devices();
        }
        if changes.screen {
            self.screen_again = Time::ZERO;
            if self.display.as_ref().is_some_and(|display| !display.is_current()) {
                tracing::info!("the monitor changed");
                self.lose_display();
            }
        }
    }

    fn commands(&mut self) {
        while let Some(command) = self.daemon.ends.next() {
            match command {
                Command::Policy(policy) => self.take_policy(*policy),
                Command::Attach(domain, socket) => {
                    let size = self.layout.guest();
                    let attached = self.domains.get_mut(domain).map(|d| d.attach(socket, size));
                    if let Some(Err(error)) = attached {
                        self.lose(domain, &error.to_string());
                    }
                    self.picture_changed(domain);
                }
                Command::Detach(domain) => {
                    if let Some(domain) = self.domains.get_mut(domain) {
                        domain.detach();
                    }
                    self.picture_changed(domain);
                }
                Command::DomainText(domain, text) => {
                    if let Some(place) = self.texts.get_mut(domain) {
                        *place = text;
                    }
                }
                Command::BannerNotes(notes) => self.banner_notes = notes,
                Command::Switch(domain) => self.feed(Input::Switch(domain), Some(Moment::now())),
                Command::Lock => self.feed(Input::Lock, None),
                Command::Unlock => self.feed(Input::Unlock, None),
                Command::Notice(cause, text) => {
                    // What is not shown is in the log, and with the devices.
                    self.notices.notice(self.epoch.elapsed(), cause, text);
                }
                Command::Ask(id, text) => self.ask(id, text, Vec::new(), Input::Ask(id)),
                Command::Choose(id, text, choices) => {
                    let input = Input::Choose(id, choices.len());
                    self.ask(id, text, choices, input);
                }
                Command::Reword(id, text) => self.notices.reword(id, text),
                Command::Withdraw(id) => self.withdraw(id),
            }
        }
    }

    /// Shows a question. One that is shown already is shown anew, and has to be read anew before an answer counts.
    fn ask(&mut self, id: u64, text: String, choices: Vec<String>, input: Input) {
        self.withdraw(id);
        self.notices.ask(self.epoch.elapsed(), id, text, choices);
        self.feed(input, None);
    }

    fn withdraw(&mut self, id: u64) {
        self.feed(Input::Withdraw(id), None);
        self.notices.end_question(self.epoch.elapsed(), id);
        self.seen.take_if(|seen| *seen == id);
    }

    fn take_policy(&mut self, policy: SeatPolicy) {
        self.policy = policy;
        self.scenes.forget();
        if let Some(display) = &mut self.display {
            display.damage_all();
        }
        self.feed(Input::Settings(self.policy.settings.clone()), None);
        let devices: Vec<_> =
            self.devices.descriptions().map(|(id, found)| (id, found.clone())).collect();
        for (id, description) in devices {
            let pin = self.pin_of(&description);
            self.set_pin(id, pin);
            self.feed(Input::Plugged(id, pin), None);
        }
        self.report_devices();
    }

    fn pin_of(&self, description: &super::devices::Description) -> Option<DomainIndex> {
        let name = description.pinned_to(&self.policy.policy)?;
        self.names.iter().position(|known| known == name)
    }

    fn set_pin(&mut self, id: DeviceId, pin: Option<DomainIndex>) {
        match pin {
            Some(domain) => self.pins.insert(id, domain),
            None => self.pins.remove(&id),
        };
    }

    fn look_for_devices(&mut self) {
        let found = self.devices.look();
        self.on_device_events(found);
    }

    fn on_device_events(&mut self, events: Vec<DeviceEvent>) {
        for one in events {
            match one {
                DeviceEvent::Plugged(id, description) => {
                    let pin = self.pin_of(&description);
                    self.set_pin(id, pin);
                    self.feed(Input::Plugged(id, pin), None);
                    self.called.insert(id, description.name.clone());
                    self.daemon.send(SeatEvent::Plugged(description.name, pin));
                    self.report_devices();
                    self.set_lights(true);
                }
                DeviceEvent::Unplugged(id) => {
                    self.set_pin(id, None);
                    self.feed(Input::Unplugged(id), None);
                    let name = self.called.remove(&id).unwrap_or_default();
                    self.daemon.send(SeatEvent::Unplugged(name));
                    self.report_devices();
                }
                DeviceEvent::Dropped(id) => {
                    // A device can bring this about as often as it likes: it is nothing for the log.
                    let pin = self.pins.get(&id).copied();
                    self.feed(Input::Unplugged(id), None);
                    self.feed(Input::Plugged(id, pin), None);
                }
                DeviceEvent::Report(id, report, time) => {
                    self.feed(Input::Report(id, report), Some(time));
                }
            }
        }
    }

    /// Gives the core an input and carries out its outputs. `time` is when a person acted.
    fn feed(&mut self, input: Input, time: Option<Moment>) {
        for output in self.core.feed(self.epoch.elapsed(), input) {
            match output {
                Output::Send(domain, target, events) => {
                    self.daemon.used.note(domain);
                    if let Some(domain) = self.domains.get_mut(domain) {
                        domain.input(target, events);
                    }
                }
                Output::Switched { from, to } => {
                    if let (Some(display), Some(time)) = (&mut self.display, time) {
                        display.asked_at(time);
                    }
                    // What is shown is written down before it is shown; everything else can wait for the frame.
                    self.remember();
                    self.present(to);
                    self.lights_due = true;
                    let front = self.names.get(to).cloned().unwrap_or_default();
                    self.daemon.report(|report| {
                        report.front = front;
                        report.switches += 1;
                    });
                    self.deferred.push(SeatEvent::Switched { from, to });
                }
                Output::Locked { idle } => {
                    // Before anybody knows of it: a seat that was seen to be locked stays so whatever becomes of this agent.
                    self.remember();
                    self.daemon.notify_mediators(ToMediators::Locked);
                    self.present(self.names.len());
                    self.daemon.report(|report| report.locked = true);
                    self.deferred.push(SeatEvent::Locked { idle });
                }
                Output::Unlocked => {
                    self.remember();
                    self.daemon.report(|report| report.locked = false);
                    self.daemon.send(SeatEvent::Unlocked);
                }
                // The lock hotkey on a locked screen.
                Output::Pressed(Action::Lock, _) => self.feed(Input::Unlock, None),
                Output::Pressed(Action::Copy, front) => {
                    self.daemon.notify_mediators(ToMediators::Copy(front));
                }
                Output::Pressed(Action::Paste, front) => {
                    self.daemon.notify_mediators(ToMediators::Paste(front));
                }
                Output::Pressed(Action::BreakGlass, _) => self.daemon.send(SeatEvent::BreakGlass),
                // The core switches by itself.
                Output::Pressed(Action::Switch(_), _) | Output::PointerMoved => {}
                Output::Answered(id, yes) => {
                    self.notices.end_question(self.epoch.elapsed(), id);
                    self.daemon.send(SeatEvent::Answered(id, yes));
                }
                Output::Chosen(id, chosen) => {
                    self.notices.end_question(self.epoch.elapsed(), id);
                    self.daemon.send(SeatEvent::Chosen(id, chosen));
                }
                Output::Marked(id, marked) => self.notices.mark(id, marked),
            }
        }
    }

    fn set_lights(&mut self, anew: bool) {
        let front = self.domains.get(self.core.front());
        let wanted = front.map(SeatDomain::lights).unwrap_or_default();
        if anew || wanted != self.lights {
            self.lights = wanted;
            let Self { devices, pins, .. } = self;
            devices.set_lights(wanted, |id| pins.contains_key(&id));
        }
    }

    fn report_devices(&self) {
        let count = |able: fn(&super::devices::InputRoles) -> bool| {
            self.devices.descriptions().filter(|(_, found)| able(&found.abilities)).count()
        };
        let (keyboards, pointers) = (count(|a| a.keyboard), count(|a| a.pointer));
        let pinned = self.devices.descriptions().filter_map(|(id, found)| {
            let domain = self.names.get(*self.pins.get(&id)?)?;
            Some((found.name.clone(), domain.clone()))
        });
        let pinned: Vec<_> = pinned.collect();
        self.daemon.report(|report| {
            (report.keyboards, report.pointers, report.pinned) = (keyboards, pointers, pinned);
        });
    }

    fn read_link(&mut self, index: DomainIndex) {
        for _ in 0..UPDATES {
            let Some(domain) = self.domains.get_mut(index) else { return };
            match domain.take(&mut self.buffer) {
                Ok(update) if update == DomainUpdate::default() => return,
                Ok(update) => self.show(index, update),
                Err(error) => return self.lose(index, &error.to_string()),
            }
        }
    }

    /// Gives a link up.
    fn lose(&mut self, index: DomainIndex, problem: &str) {
        if let Some(domain) = self.domains.get_mut(index) {
            domain.detach();
        }
        let name = self.names.get(index).cloned().unwrap_or_default();
        tracing::warn!(
            domain = name,
            "{problem}; it has no screen and no input until it is restarted"
        );
        self.picture_changed(index);
        self.daemon.send(SeatEvent::LinkLost(index, problem.to_owned()));
    }

    fn show(&mut self, index: DomainIndex, update: DomainUpdate) {
        if update.picture {
            self.picture_changed(index);
        }
        if let Some((frame, picture)) = self.domains.get(index).and_then(SeatDomain::picture) {
            let place = self.layout.place(shown(picture, frame.size()));
            let damage = update.damage.within(Size { width: place.width, height: place.height });
            let rect = Rect { x: place.x + damage.x, y: place.y + damage.y, ..damage };
            if let Some(display) = self.display.as_mut().filter(|_| !damage.is_empty()) {
                display.damage(index, rect);
            }
        }
        if update.lights && index == self.core.front() {
            self.set_lights(false);
        }
    }

    /// Takes the whole picture of a domain for changed, or gone.
    fn picture_changed(&mut self, index: DomainIndex) {
        let whole = Rect::all(self.layout.screen);
        if let Some(display) = &mut self.display {
            display.damage(index, whole);
        }
        self.update_geometry();
    }
}
