//! Input routing: a pure state machine from the reports of input devices to the events that each domain gets.
//!
//! ```text
//!   reports of devices, commands, time ---> Core ---> events for domains, switches, locks, hotkeys
//! ```
//!
//! The promises, each held by a property test and in every state of small seats (`tests/every_state.rs`):
//! - an event goes to the domain in front when it is made (a pinned device's to its own), and to no other;
//! - every key-down sent to a domain is followed by its key-up no later than the switch away from it;
//! - the keys of a hotkey reach no domain: modifiers that could begin one are withheld until it is clear that
//!   they do not;
//! - a key held across a switch or a lock reaches no domain until it is pressed again;
//! - a pinned device reaches its domain only, and presses no hotkey;
//! - while the screen is locked no input reaches a domain;
//! - while the pointer is in the banner, or a question is open, no domain is told where it is, whatever is held;
//! - a question is answered by nothing that was pressed before its box had been on the screen for [`READ_FOR`];
//! - nothing says yes or chooses but Enter, and only if no key was pressed for [`READ_FOR`] before it.
//!
//! Nothing here comes from a guest but the size of its picture, which decides where on it a pointer is.

mod held;
mod hotkeys;
mod pointer;
mod question;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use seat_link::{Event, Target};

use held::{Device, Hold};
pub use hotkeys::{Action, Hotkeys};
pub use pointer::{Click, Geometry, Motion, POSITION_MAX};
use question::Question;
pub use question::{OPEN_FOR, READ_FOR};

/// A domain by its place among the seat's.
pub type DomainIndex = usize;
/// An input device, for as long as it is plugged in.
pub type DeviceId = u64;
/// Time since the seat began.
pub type Time = Duration;

/// Event types and codes (`linux/input-event-codes.h`).
pub mod codes {
    /// Keys and buttons.
    pub const EV_KEY: u16 = 1;
    /// Distances.
    pub const EV_REL: u16 = 2;
    /// Positions.
    pub const EV_ABS: u16 = 3;
    /// The first pointer button.
    pub const BTN_LEFT: u16 = 0x110;
    /// The last pointer button a domain's pointer has.
    pub const BTN_EXTRA: u16 = 0x114;
    /// A finger or a pen on a surface; the readers of devices make a button of it, or nothing.
    pub const BTN_TOUCH: u16 = 0x14a;
    /// Sideways wheel, wheel, and their fine forms.
    pub const WHEELS: [u16; 4] = [0x06, 0x08, 0x0b, 0x0c];
}

/// One report of an input device: what changed at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Keys and buttons, in order: code, and whether it went down.
    pub keys: Vec<(u16, bool)>,
    /// Where the pointer goes.
    pub motion: Option<Motion>,
    /// Wheel codes ([`codes::WHEELS`]) and how far.
    pub wheel: Vec<(u16, i32)>,
}

/// An input of the state machine.
#[derive(Clone, Debug)]
pub enum Input {
    /// A device was plugged in; pinned to a domain, or not.
    Plugged(DeviceId, Option<DomainIndex>),
    /// A device was unplugged.
    Unplugged(DeviceId),
    /// A device reported.
    Report(DeviceId, Report),
    /// An authorised caller requests a switch to this domain.
    Switch(DomainIndex),
    /// An authorised caller locks the screen.
    Lock,
    /// An authorised caller unlocks the screen.
    Unlock,
    /// A question with yes and no is asked; keys answer it once it can have been read.
    Ask(u64),
    /// A question with so many choices is asked; a digit or the arrow keys mark one, and Enter chooses it.
    Choose(u64, usize),
    /// The question's box is on the screen as a whole, or is not any more.
    Shown(u64, bool),
    /// The question is withdrawn.
    Withdraw(u64),
    Tick,
    /// Another policy came into force: hotkeys, idle lock.
    Settings(Settings),
    /// The screen, the banner or a picture on it has another size.
    Geometry(Geometry),
}

/// An effect that the caller must carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send these events to a domain.
    Send(DomainIndex, Target, Vec<Event>),
    /// Another domain came to the front.
    Switched {
        /// The domain that was in front.
        from: DomainIndex,
        /// The domain that is in front now.
        to: DomainIndex,
    },
    /// The screen was locked.
    Locked {
        /// Whether it was locked because nobody did anything.
        idle: bool,
    },
    /// The screen was unlocked.
    Unlocked,
    /// A hotkey that is not the seat's own business was pressed, with this domain in front.
    Pressed(Action, DomainIndex),
    /// A question was answered yes or no; a question with choices is answered no if none was chosen.
    Answered(u64, bool),
    /// This choice of a question was chosen.
    Chosen(u64, usize),
    /// This choice of a question is marked, and not yet chosen.
    Marked(u64, usize),
    /// The pointer moved, or another domain has it.
    PointerMoved,
}

/// The policy's settings of the seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub hotkeys: Hotkeys,
    /// How long nobody may do anything before the screen locks, whatever is in front.
    pub idle_lock: Option<Duration>,
}

/// The seat's state machine: what devices, clock and callers do comes in, what domains and screen get comes out.
#[derive(Clone, Debug)]
pub struct Core {
    settings: Settings,
    geometry: Geometry,
    front: DomainIndex,
    locked: bool,
    devices: BTreeMap<DeviceId, Device>,
    /// The keys that each domain has been sent as down, with the number of devices that hold them.
    down: Vec<BTreeMap<u16, u32>>,
    /// Modifiers withheld, in the order they were pressed.
    withheld: Vec<(DeviceId, u16)>,
    /// A hotkey was pressed and its modifiers are still held: what is pressed with them is part of it.
    gesture: bool,
    question: Option<Question>,
    /// The pointer, in pixels of the screen.
    pointer: (i32, i32),
    /// When the last input was taken.
    now: Time,
    last_input: Time,
}

impl Core {
    /// Makes a seat with the first of `domains` domains in front.
    #[must_use]
    pub fn new(domains: usize, settings: Settings, geometry: Geometry) -> Self {
        let pointer = geometry.middle();
        Self {
            settings,
            geometry,
            front: 0,
            locked: false,
            devices: BTreeMap::new(),
            down: vec![BTreeMap::new(); domains],
            withheld: Vec::new(),
            gesture: false,
            question: None,
            pointer,
            now: Time::ZERO,
            last_input: Time::ZERO,
        }
    }

    /// Returns the domain in front.
    #[must_use]
    pub fn front(&self) -> DomainIndex {
        self.front
    }

    /// Returns whether the screen is locked.
    #[must_use]
    pub fn locked(&self) -> bool {
        self.locked
    }

    /// Returns where the pointer is, in pixels of the screen.
    #[must_use]
    pub fn pointer(&self) -> (i32, i32) {
        self.pointer
    }

    /// Returns whether the pointer is in the agent's hands: in the banner, a question is open, or the screen is locked. A
    /// button that a domain was told of changes nothing in that; it is told when that goes up.
    #[must_use]
    pub fn pointer_is_ours(&self) -> bool {
        self.locked || self.question.is_some() || self.geometry.in_banner(self.pointer)
    }

    /// Returns whether a key is down on a device.
    #[cfg(test)]
    pub(super) fn holds(&self, id: DeviceId, code: u16) -> bool {
        self.devices.get(&id).is_some_and(|device| device.held.contains_key(&code))
    }

    /// Returns when a [`Input::Tick`] changes something.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        [self.idle_deadline(), self.question_deadline()].into_iter().flatten().min()
    }

    /// Returns when the screen locks if nobody does anything.
    fn idle_deadline(&self) -> Option<Time> {
        let idle = self.settings.idle_lock.filter(|_| !self.locked)?;
        Some(self.last_input.saturating_add(idle))
    }

    /// Takes what happened at `now`.
    pub fn feed(&mut self, now: Time, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.now = self.now.max(now);
        match input {
            Input::Plugged(id, pin) => self.plugged(id, pin, &mut out),
            Input::Unplugged(id) => self.unplugged(id, &mut out),
            Input::Report(id, report) => {
                self.last_input = now;
                self.report(id, &report, &mut out);
            }
            Input::Switch(to) => self.switch(to, &mut out),
            Input::Lock => self.lock(false, &mut out),
            Input::Unlock => self.unlock(now, &mut out),
            Input::Ask(id) => self.ask(id, None, &mut out),
            Input::Choose(id, choices) => self.ask(id, Some(choices), &mut out),
            Input::Shown(id, shown) => self.question_shown(id, shown),
            Input::Withdraw(id) => self.withdraw(id),
            Input::Tick => {
                self.question_times_out(&mut out);
                if self.idle_deadline().is_some_and(|deadline| now >= deadline) {
                    self.lock(true, &mut out);
                }
            }
            Input::Settings(settings) => self.settings = settings,
            Input::Geometry(geometry) => {
                self.geometry = geometry;
                self.pointer = self.geometry.on_screen(self.pointer);
                out.push(Output::PointerMoved);
            }
        }
        self.gesture &= self.modifier_held();
        out
    }

    fn plugged(&mut self, id: DeviceId, pin: Option<DomainIndex>, out: &mut Vec<Output>) {
        let pin = pin.filter(|domain| *domain < self.down.len());
        if self.devices.get(&id).is_some_and(|device| device.pin == pin) {
            return;
        }
        self.unplugged(id, out);
        let position = self.geometry.middle();
        self.devices.insert(id, Device { pin, held: BTreeMap::new(), position });
    }

    fn unplugged(&mut self, id: DeviceId, out: &mut Vec<Output>) {
        self.withheld.retain(|(device, _)| *device != id);
        let Some(device) = self.devices.remove(&id) else { return };
        for (code, hold) in device.held {
            if let Hold::Told(domain) = hold {
                self.up(domain, code, out);
            }
        }
    }

    fn report(&mut self, id: DeviceId, report: &Report, out: &mut Vec<Output>) {
        if let Some(motion) = report.motion {
            self.moved(id, motion, out);
        }
        self.discard_withheld_released_together(id, report);
        for &(code, down) in &report.keys {
            if down {
                self.pressed(id, code, out);
            } else {
                self.released(id, code, out);
            }
        }
        if !report.wheel.is_empty() {
            self.turned(id, &report.wheel, out);
        }
    }

    fn pressed(&mut self, id: DeviceId, code: u16, out: &mut Vec<Output>) {
        let Some(device) = self.devices.get(&id) else { return };
        if device.held.contains_key(&code) {
            return; // it repeats; guests do that themselves
        }
        let hold = match device.pin {
            Some(_) if self.locked => Hold::Nobody,
            Some(domain) => self.down(domain, code, out),
            None if is_button(code) => self.button(code, out),
            None => {
                let hold = self.key(code, out);
                self.question_key(code);
                hold
            }
        };
        if let Some(device) = self.devices.get_mut(&id) {
            device.held.insert(code, hold);
        }
        if hold == Hold::Withheld {
            self.withheld.push((id, code));
        }
    }

    /// Handles a key of a device that is not pinned.
    fn key(&mut self, code: u16, out: &mut Vec<Output>) -> Hold {
        let mut modifiers = self.modifiers();
        if hotkeys::add_modifier(&mut modifiers, code) {
            if self.locked || self.gesture || self.question.is_some() {
                return Hold::Nobody;
            }
            if self.settings.hotkeys.may_begin(modifiers) {
                return Hold::Withheld;
            }
            self.send_withheld(out);
            return self.down(self.front, code, out);
        }
        if let Some(action) = self.settings.hotkeys.find(modifiers, code) {
            self.gesture = true;
            self.release_modifiers(out);
            self.act(action, out);
            return Hold::Nobody;
        }
        if self.locked || self.gesture {
            return Hold::Nobody;
        }
        if self.question.is_some() {
            self.answer(code, out);
            return Hold::Nobody;
        }
        self.send_withheld(out);
        self.down(self.front, code, out)
    }

    fn act(&mut self, action: Action, out: &mut Vec<Output>) {
        match action {
            Action::Switch(to) => self.switch(to, out),
            Action::Lock if self.locked => out.push(Output::Pressed(Action::Lock, self.front)),
            Action::Lock => self.lock(false, out),
            _ if self.locked => {}
            other => out.push(Output::Pressed(other, self.front)),
        }
    }

    fn released(&mut self, id: DeviceId, code: u16, out: &mut Vec<Output>) {
        let Some(device) = self.devices.get_mut(&id) else { return };
        match device.held.get(&code).copied() {
            Some(Hold::Withheld) => {
                // Pressed and let go by itself: the domain is told of both now.
                self.send_withheld(out);
                self.released(id, code, out);
            }
            Some(Hold::Told(domain)) => {
                device.held.remove(&code);
                self.up(domain, code, out);
            }
            Some(Hold::Nobody) => {
                device.held.remove(&code);
            }
            None => {}
        }
        self.gesture &= self.modifier_held();
    }

    fn switch(&mut self, to: DomainIndex, out: &mut Vec<Output>) {
        if self.locked || to >= self.down.len() || to == self.front {
            return;
        }
        self.end_question(out);
        self.release_keys(|hold| hold.is_shared(), out);
        let from = std::mem::replace(&mut self.front, to);
        out.push(Output::Switched { from, to });
    }

    fn lock(&mut self, idle: bool, out: &mut Vec<Output>) {
        if self.locked {
            return;
        }
        self.end_question(out);
        self.release_keys(|_| true, out);
        self.locked = true;
        out.push(Output::Locked { idle });
    }

    fn unlock(&mut self, now: Time, out: &mut Vec<Output>) {
        if self.locked {
            self.locked = false;
            self.last_input = now;
            out.push(Output::Unlocked);
        }
    }
}

fn is_button(code: u16) -> bool {
    (codes::BTN_LEFT..=codes::BTN_EXTRA).contains(&code)
}
