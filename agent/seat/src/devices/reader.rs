//! A device's events, put together to reports that say what a keyboard or a mouse would; pure.
//!
//! A device that points by fingers says positions and touches. Which of them are a button and a way is decided here, by
//! the kind of the device: whoever takes the reports knows keys, buttons, a way or a place, and wheels.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use clock::Moment;
use evdev::InputEvent;

use super::codes::{
    ABS_MT_POSITION_X, ABS_MT_POSITION_Y, ABS_X, ABS_Y, BTN_MIDDLE, BTN_RIGHT, BTN_STYLUS,
    BTN_STYLUS2, BTN_TOOL_DOUBLETAP, BTN_TOOL_FINGER, BTN_TOOL_QUADTAP, BTN_TOOL_QUINTTAP,
    BTN_TOOL_TRIPLETAP, REL_X, REL_Y, SYN_DROPPED, SYN_REPORT, TOOLS,
};
use super::contacts::{Contact, Contacts};
use super::facts::{EventCapabilities, Kind};
use super::pad::Pad;
use super::{DeviceEvent, DeviceId};
use crate::core::codes::{self, BTN_EXTRA, BTN_LEFT, BTN_TOUCH};
use crate::core::{Motion, POSITION_MAX, Report};

/// The most keys in one report.
const KEYS_MAX: usize = 64;

/// The tools by which a pad says how many fingers are on it, even where it says nothing else of some.
const COUNTS: [(u16, usize); 5] = [
    (BTN_TOOL_FINGER, 1),
    (BTN_TOOL_DOUBLETAP, 2),
    (BTN_TOOL_TRIPLETAP, 3),
    (BTN_TOOL_QUADTAP, 4),
    (BTN_TOOL_QUINTTAP, 5),
];

/// The reader that puts one device's events together.
pub(super) struct Reader {
    facts: EventCapabilities,
    kind: Kind,
    contacts: Contacts,
    pad: Option<Pad>,
    /// Tools that are there, of [`COUNTS`].
    tools: [bool; COUNTS.len()],
    /// The contact that points, on a touch screen.
    pointing: Option<u64>,
    /// The last contact that was there.
    newest: u64,
    presses: Presses,
    /// The report so far.
    report: Report,
    by: (i32, i32),
    placed: bool,
    /// What the device last said of its place was a place and not a way, so that its place is the pointer's.
    is_placed: bool,
    /// It says something of a surface, and not only that a key repeats or that time passed.
    heard: bool,
    /// Buttons of a pad, which are told apart by where the fingers are when the report is whole.
    buttons: Vec<(u16, bool)>,
    /// The kernel lost events; the rest of this report is of no use.
    dropped: bool,
}

/// Buttons that are down, and what they were told as: several of a device may be told as one.
#[derive(Default)]
struct Presses(Vec<(u16, u16)>);

impl Presses {
    /// Takes it that `source` goes down and is told as `button`, or goes up; returns what is new of a button that is told.
    fn change(&mut self, source: u16, down: Option<u16>) -> Option<(u16, bool)> {
        let told = |all: &Self, button| all.0.iter().any(|(_, other)| *other == button);
        let known = self.0.iter().position(|(other, _)| *other == source);
        match (known, down) {
            (None, Some(button)) if self.0.len() < KEYS_MAX => {
                let new = !told(self, button);
                self.0.push((source, button));
                new.then_some((button, true))
            }
            (Some(at), None) => {
                let (_, button) = self.0.swap_remove(at);
                (!told(self, button)).then_some((button, false))
            }
            _ => None,
        }
    }
}

impl Reader {
    /// Makes a reader of a device of which nothing is known to be down; `touched`: its `BTN_TOUCH` is.
    pub(super) fn new(facts: EventCapabilities, touched: bool) -> Self {
        let kind = facts.kind();
        Self {
            kind,
            contacts: Contacts::new(&facts, touched),
            pad: (kind == Kind::Pad).then(|| Pad::new(&facts)),
            tools: [false; COUNTS.len()],
            pointing: None,
            newest: 0,
            presses: Presses::default(),
            report: Report::default(),
            by: (0, 0),
            placed: false,
            is_placed: !facts.relative.contains(&REL_X),
            heard: false,
            buttons: Vec::new(),
            dropped: false,
            facts,
        }
    }

    /// Returns whether what was lost leaves it in doubt which contact the next events are of: the rest of what the kernel
    /// holds is to be left out, and a new reader made.
    pub(super) fn is_lost(&self) -> bool {
        self.dropped && matches!(self.kind, Kind::Screen | Kind::Pad)
    }

    /// Takes events as they come; `typed` is when somebody last typed, on whichever device, and `now` asks the kernel
    /// how the device is.
    ///
    /// # Errors
    /// `now`'s: the device is gone.
    pub(super) fn add_all(
        &mut self,
        id: DeviceId,
        events: impl IntoIterator<Item = InputEvent>,
        typed: Option<Moment>,
        out: &mut Vec<DeviceEvent>,
        now: impl Fn() -> io::Result<EventCapabilities>,
    ) -> io::Result<()> {
        for event in events {
            let lost = event.event_type().0 == 0 && event.code() == SYN_DROPPED;
            self.add(id, event, typed, out);
            // The kernel keeps what is newest of what it has to drop: what follows changes only a part of the place.
            if lost && self.kind == Kind::Position {
                *self = Self { dropped: true, ..Self::new(now()?, false) };
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        id: DeviceId,
        event: InputEvent,
        typed: Option<Moment>,
        out: &mut Vec<DeviceEvent>,
    ) {
        match (event.event_type().0, event.code(), event.value()) {
            (0, SYN_DROPPED, _) => self.drop_all(id, out),
            (0, SYN_REPORT, _) if self.dropped => {
                // Contacts stay in doubt; keys and ways do not.
                self.dropped = self.is_lost();
                self.clear();
            }
            (0, SYN_REPORT, _) => {
                let time = stamped(event);
                for report in self.finish(time, typed) {
                    if report != Report::default() {
                        out.push(DeviceEvent::Report(id, report, time));
                    }
                }
                self.clear();
            }
            _ if self.dropped => {}
            (codes::EV_KEY, code, value @ 0..=1) => {
                self.key(code, value == 1);
                // A report that says more is none, and some of it may have been a key that goes up.
                if self.report.keys.len() > KEYS_MAX || self.buttons.len() > KEYS_MAX {
                    self.drop_all(id, out);
                }
            }
            (codes::EV_REL, REL_X, value) => self.by.0 = self.by.0.saturating_add(value),
            (codes::EV_REL, REL_Y, value) => self.by.1 = self.by.1.saturating_add(value),
            (codes::EV_REL, code, value)
                if codes::WHEELS.contains(&code)
                    && self.report.wheel.len() < codes::WHEELS.len() =>
            {
                self.report.wheel.push((code, value));
            }
            (codes::EV_ABS, code, value) => {
                self.placed |= matches!(code, ABS_X | ABS_Y);
                self.heard = true;
                self.contacts.axis(code, value);
            }
            _ => {}
        }
    }

    /// Releases everything, as it is not known what is down.
    fn drop_all(&mut self, id: DeviceId, out: &mut Vec<DeviceEvent>) {
        out.push(DeviceEvent::Dropped(id));
        let facts = std::mem::take(&mut self.facts);
        *self = Self { dropped: true, ..Self::new(facts, false) };
    }

    fn key(&mut self, code: u16, down: bool) {
        self.heard = true;
        if let Some((present, _)) =
            self.tools.iter_mut().zip(COUNTS).find(|(_, (tool, _))| *tool == code)
        {
            *present = down;
        }
        match (self.kind, code) {
            (Kind::Screen | Kind::Pad, BTN_TOUCH) => self.contacts.touched(down),
            (Kind::Position, BTN_TOUCH) => self.button(code, down.then_some(BTN_LEFT)),
            (Kind::Position, BTN_STYLUS) => self.button(code, down.then_some(BTN_RIGHT)),
            (Kind::Position, BTN_STYLUS2) => self.button(code, down.then_some(BTN_MIDDLE)),
            // The finger is its left button.
            (Kind::Screen, BTN_LEFT) => {}
            (_, code) if TOOLS.contains(&code) => {}
            (Kind::Pad, BTN_LEFT..=BTN_EXTRA) => self.buttons.push((code, down)),
            (Kind::Position | Kind::Screen, BTN_LEFT..=BTN_EXTRA) => {
                self.button(code, down.then_some(code))
            }
            _ => self.report.keys.push((code, down)),
        }
    }

    fn button(&mut self, source: u16, down: Option<u16>) {
        self.report.keys.extend(self.presses.change(source, down));
    }

    /// Ends a report that is whole; returns what it says, in order.
    fn finish(&mut self, time: Moment, typed: Option<Moment>) -> Vec<Report> {
        if self.by != (0, 0) {
            self.report.motion = Some(Motion::By(self.by.0, self.by.1));
            self.is_placed = false;
        }
        self.is_placed |= self.placed;
        let before = match self.kind {
            Kind::Relative => None,
            Kind::Position => {
                // The kernel does not say again where the device already was, but the pointer may have been elsewhere.
                let pressed =
                    |&(code, down): &(u16, bool)| down && (BTN_LEFT..=BTN_EXTRA).contains(&code);
                let pressed = self.report.keys.iter().any(pressed);
                if self.placed || (pressed && self.is_placed) {
                    self.report.motion = self.place(None);
                }
                None
            }
            Kind::Screen => self.touch(),
            Kind::Pad if !self.heard => None,
            Kind::Pad => {
                self.fingers(time, typed);
                None
            }
        };
        before.into_iter().chain([std::mem::take(&mut self.report)]).collect()
    }

    /// Reads a touch screen: the first finger points, and no other does anything. What has to be told by itself before.
    fn touch(&mut self) -> Option<Report> {
        let down: Vec<Contact> = self.contacts.down().filter(|contact| !contact.palm).collect();
        let find = |serial: u64| down.iter().find(|contact| contact.serial == serial).copied();
        let mut before = None;
        if self.pointing.is_some_and(|serial| find(serial).is_none()) {
            // Let go where it was, not where the next one is.
            self.pointing = None;
            let keys = self.presses.change(BTN_TOUCH, None).into_iter().collect();
            before = Some(Report { keys, ..Report::default() });
        }
        let newest = std::mem::replace(&mut self.newest, self.contacts.newest());
        if self.pointing.is_none() {
            let fresh = down.iter().filter(|contact| contact.serial > newest);
            self.pointing = fresh.map(|contact| contact.serial).min();
            if self.pointing.is_some() {
                self.button(BTN_TOUCH, Some(BTN_LEFT));
            }
        }
        if let Some(contact) = self.pointing.and_then(find) {
            self.report.motion = self.place(Some(contact));
        }
        before
    }

    /// Reads a pad: its fingers do what a mouse does.
    fn fingers(&mut self, time: Moment, typed: Option<Moment>) {
        let counted = self.tools.iter().zip(COUNTS).filter(|(present, _)| **present);
        let counted = counted.map(|(_, (_, fingers))| fingers).max().unwrap_or(0);
        // A count over what is told of is believed of a device that has no slot left: some never take theirs back.
        let counted = if self.contacts.is_full() { counted } else { 0 };
        let Some(pad) = &mut self.pad else { return };
        let since_start =
            |moment: Moment| moment.saturating_duration_since(Moment::since_start(Duration::ZERO));
        let (time, typed) = (since_start(time), typed.map(since_start));
        let said = pad.report(self.contacts.down(), counted, time, typed);
        if said.motion != (0, 0) {
            self.report.motion = Some(Motion::By(said.motion.0, said.motion.1));
        }
        self.report.wheel.extend(said.wheel);
        self.report
            .keys
            .extend(said.tapped.into_iter().flat_map(|code| [(code, true), (code, false)]));
        for (code, down) in std::mem::take(&mut self.buttons) {
            let button = down.then(|| pad.press(code));
            self.report.keys.extend(self.presses.change(code, button));
            if self.presses.0.is_empty() {
                pad.release();
            }
        }
    }

    /// Returns where a contact is, or the device's only place.
    fn place(&self, contact: Option<Contact>) -> Option<Motion> {
        let (x, y) = self.contacts.single();
        let part = |code: u16, at: Option<i32>| {
            self.facts.axis(code).zip(at).map(|(axis, at)| part(at, (axis.least, axis.most)))
        };
        let along = |own: (u16, Option<i32>), single: (u16, Option<i32>)| {
            part(own.0, own.1).or_else(|| part(single.0, single.1))
        };
        // What a slot has not said yet, the device's eldest contact says.
        let own = contact.filter(|_| self.facts.has_slots());
        Some(Motion::To(
            along((ABS_MT_POSITION_X, own.and_then(|own| own.x)), (ABS_X, x))?,
            along((ABS_MT_POSITION_Y, own.and_then(|own| own.y)), (ABS_Y, y))?,
        ))
    }

    fn clear(&mut self) {
        self.report = Report::default();
        self.buttons.clear();
        (self.by, self.placed, self.heard) = ((0, 0), false, false);
    }
}

/// Returns when the kernel says an event was. Its stamps are moments of the clock the device was opened with, though `evdev` takes
/// them for times of day.
fn stamped(event: InputEvent) -> Moment {
    Moment::since_start(event.timestamp().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Returns a position on an axis, from 0 to [`POSITION_MAX`].
fn part(at: i32, (least, most): (i32, i32)) -> u32 {
    let (at, least, most) = (i64::from(at), i64::from(least), i64::from(most));
    let scaled = (at.clamp(least, most) - least) * i64::from(POSITION_MAX) / (most - least).max(1);
    u32::try_from(scaled).unwrap_or(0)
}
