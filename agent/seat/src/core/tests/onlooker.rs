//! Somebody who watches a seat and knows no more of it than what it promises.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;

use proptest::prelude::*;
use seat_link::{Event, Target};

use super::*;

/// The keys that make a chord with Ctrl and Alt.
const CHORD_KEYS: [u16; 6] = [ONE, TWO, C, V, L, B];

/// What one domain can tell of the seat: the events that it was sent.
#[derive(Clone, Default)]
pub(super) struct Onlooker {
    /// What each domain was told to be down.
    pub(super) down: [BTreeSet<u16>; 2],
    /// What is held on each device, and whether it must reach nobody until it is pressed anew.
    held: BTreeMap<(DeviceId, u16), bool>,
    pins: BTreeMap<DeviceId, DomainIndex>,
    plugged: BTreeSet<DeviceId>,
    /// A chord was pressed, and some of its modifiers are still held.
    gesture: bool,
    /// The open question, since when, and since when it has been on the screen.
    question: Option<(u64, Time, Option<Time>)>,
    /// When a key was last pressed on a device that is not pinned.
    last_key: Option<Time>,
}

/// Of a seat: the domain in front, and whether it is locked.
type Shown = (DomainIndex, bool);

fn shown(seat: &Seat) -> Shown {
    (seat.core.front(), seat.core.locked())
}

impl Onlooker {
    /// Makes one who saw a new seat being made.
    pub(super) fn of(seat: &Seat) -> Self {
        let devices = || seat.core.devices.iter();
        let pin = |(id, device): (&DeviceId, &Device)| Some((*id, device.pin?));
        let (plugged, pins) = (devices().map(|(id, _)| *id), devices().filter_map(pin));
        Self { plugged: plugged.collect(), pins: pins.collect(), ..Self::default() }
    }

    /// Returns all that what comes later is judged by, whatever the time.
    pub(super) fn at(&self, now: Time) -> impl Hash + use<> {
        let age = |since: Option<Time>| since.map(|since| (now - since).min(READ_FOR));
        let asked =
            self.question.map(|(id, since, shown)| (id, (now - since).min(OPEN_FOR), age(shown)));
        let Self { down, held, pins, plugged, gesture, .. } = self.clone();
        (down, held, pins, plugged, gesture, asked, age(self.last_key))
    }

    /// Returns how many keys and buttons are held.
    pub(super) fn holds(&self) -> usize {
        self.held.len()
    }

    /// Returns whether this one is.
    pub(super) fn is_held(&self, id: DeviceId, code: u16) -> bool {
        self.held.contains_key(&(id, code))
    }

    /// Returns whether a question is open.
    pub(super) fn is_asked(&self) -> bool {
        self.question.is_some()
    }

    /// Has something happen at the seat.
    pub(super) fn sees(
        &mut self,
        seat: &mut Seat,
        input: &Input,
    ) -> Result<Vec<Output>, TestCaseError> {
        let before = shown(seat);
        let out = seat.feed(input.clone());
        self.judges(seat, input, &out, before)?;
        Ok(out)
    }

    /// Returns whether what came of an input keeps what the seat promises.
    pub(super) fn judges(
        &mut self,
        seat: &Seat,
        input: &Input,
        out: &[Output],
        before: Shown,
    ) -> Result<(), TestCaseError> {
        let after = shown(seat);
        let pressed = self.fresh_key(input);
        let chord = pressed.filter(|(_, code)| self.is_chord(*code));
        self.is_done(chord, out, before, after)?;
        self.is_typed(pressed, out, before)?;
        self.see(input, out, before, after, chord)?;
        self.see_question(seat.now, input, out, before.1)?;
        let counts = |code| !matches!(hotkeys::choice(code), Some(hotkeys::ChoiceKey::Enter));
        if pressed.is_some_and(|(_, code)| counts(code)) {
            self.last_key = Some(seat.now);
        }
        self.has_the_pointer(seat, input, out)?;
        let by_a_person = matches!(input, Input::Report(..) | Input::Switch(_));
        prop_assert!(before.0 == after.0 || by_a_person, "switched by {:?}", input);
        // A device that is pinned, and what a guest can change, switch and lock nothing.
        let pinned = matches!(input, Input::Report(id, _) if self.pins.contains_key(id));
        if pinned || matches!(input, Input::Geometry(_)) {
            prop_assert_eq!(before, after, "switched or locked by a guest or a pinned device");
        }
        Ok(())
    }

    /// Returns the one key that is pressed by that, anew and on a device that is not pinned.
    fn fresh_key(&self, input: &Input) -> Option<(DeviceId, u16)> {
        let Input::Report(id, report) = input else { return None };
        let shared = self.plugged.contains(id) && !self.pins.contains_key(id);
        match report.keys[..] {
            [(code, true)] if code < LEFT && shared && !self.is_held(*id, code) => {
                Some((*id, code))
            }
            _ => None,
        }
    }

    /// Returns the modifiers held on devices that are not pinned.
    fn modifiers(&self) -> Modifiers {
        let mut modifiers = Modifiers::default();
        for (_, code) in self.held.keys().filter(|(id, _)| !self.pins.contains_key(id)) {
            hotkeys::add_modifier(&mut modifiers, *code);
        }
        modifiers
    }

    fn is_chord(&self, code: u16) -> bool {
        let chord = Modifiers { ctrl: true, alt: true, ..Modifiers::default() };
        CHORD_KEYS.contains(&code) && self.modifiers() == chord
    }

    /// Checks that a chord does what it is for, whatever was pressed before it.
    fn is_done(
        &self,
        chord: Option<(DeviceId, u16)>,
        out: &[Output],
        before: Shown,
        after: Shown,
    ) -> Result<(), TestCaseError> {
        let (front, locked) = before;
        let pressed = |action| out.contains(&Output::Pressed(action, front));
        let done = match chord.map(|(_, code)| code) {
            None => true,
            Some(L) if locked => pressed(Action::Lock),
            Some(_) if locked => before == after && out.is_empty(),
            Some(L) => after.1,
            Some(ONE) => after == (0, false),
            Some(TWO) => after == (1, false),
            Some(C) => pressed(Action::Copy),
            Some(V) => pressed(Action::Paste),
            Some(_) => pressed(Action::BreakGlass),
        };
        prop_assert!(done, "a chord did not do what it is for: {:?}", out);
        Ok(())
    }

    /// Checks that a key that is typed by itself reaches the domain in front.
    fn is_typed(
        &self,
        pressed: Option<(DeviceId, u16)>,
        out: &[Output],
        (front, locked): Shown,
    ) -> Result<(), TestCaseError> {
        let Some((_, code)) = pressed else { return Ok(()) };
        let plain = !hotkeys::is_modifier(code) && self.modifiers() == Modifiers::default();
        if plain && !locked && self.question.is_none() && !self.down[front].contains(&code) {
            prop_assert!(out.contains(&told(front, code, 1)), "a key typed by itself is lost");
        }
        Ok(())
    }

    /// Checks that, while the pointer is in the banner or a question is open, no domain is told where it is.
    fn has_the_pointer(
        &self,
        seat: &Seat,
        input: &Input,
        out: &[Output],
    ) -> Result<(), TestCaseError> {
        let shared = !matches!(input, Input::Report(id, _) if self.pins.contains_key(id));
        let ours = seat.core.pointer().1 < i32::try_from(BANNER).unwrap();
        if shared && (ours || self.question.is_some()) {
            let moves = out.iter().any(|output| match output {
                Output::Send(_, Target::Pointer, events) => events.iter().any(|event| {
                    *event != Event::SYN && (event.kind != codes::EV_KEY || event.value != 0)
                }),
                _ => false,
            });
            prop_assert!(!moves, "a guest has the pointer in the agent's rows: {:?}", out);
        }
        Ok(())
    }

    /// Questions: each is answered once, by nobody too early, and by time in the end.
    fn see_question(
        &mut self,
        now: Time,
        input: &Input,
        out: &[Output],
        locked: bool,
    ) -> Result<(), TestCaseError> {
        let answers = out.iter().filter_map(|output| match output {
            Output::Answered(id, yes) => Some((*id, *yes)),
            Output::Chosen(id, _) => Some((*id, true)),
            _ => None,
        });
        let answers: Vec<(u64, bool)> = answers.collect();
        if let Input::Ask(id) | Input::Choose(id, _) = input {
            let before = self.question.map(|(before, ..)| (before, false));
            let at_once = locked.then_some((*id, false));
            let expected: Vec<(u64, bool)> = before.into_iter().chain(at_once).collect();
            prop_assert_eq!(answers, expected);
            self.question = (!locked).then_some((*id, now, None));
            return Ok(());
        }
        for (id, yes) in answers {
            let Some((asked, _, shown)) = self.question.take() else {
                return Err(TestCaseError::fail("an answer to nothing"));
            };
            prop_assert_eq!(id, asked);
            let read = shown.is_some_and(|shown| now - shown >= READ_FOR);
            prop_assert!(!yes || read, "yes to what nobody can have read");
            let quiet = self.last_key.is_none_or(|last| now - last >= READ_FOR);
            let enter = matches!(input, Input::Report(_, report) if report.keys == [(ENTER, true)]);
            prop_assert!(!yes || (quiet && enter), "yes by what a scanner may have typed");
        }
        match input {
            Input::Withdraw(id) => {
                self.question.take_if(|question| question.0 == *id);
            }
            Input::Shown(id, shown) => {
                if let Some(question) = self.question.as_mut().filter(|asked| asked.0 == *id) {
                    question.2 = shown.then(|| question.2.unwrap_or(now));
                }
            }
            Input::Tick => {
                let open = self.question.is_none_or(|question| now - question.1 < OPEN_FOR);
                prop_assert!(open, "a question stays open for ever");
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes note of what is plugged in and pressed.
    fn see_devices(&mut self, input: &Input, locked: bool) {
        match input {
            Input::Plugged(id, pin) => {
                let pin = pin.filter(|domain| *domain < 2);
                if !self.plugged.insert(*id) && self.pins.get(id).copied() != pin {
                    self.held.retain(|(device, _), _| device != id);
                }
                match pin {
                    Some(domain) => self.pins.insert(*id, domain),
                    None => self.pins.remove(id),
                };
            }
            Input::Unplugged(id) => {
                self.held.retain(|(device, _), _| device != id);
                self.pins.remove(id);
                self.plugged.remove(id);
            }
            Input::Report(id, report) if self.plugged.contains(id) => {
                let shared = !self.pins.contains_key(id);
                let ours = locked || shared && (self.gesture || self.question.is_some());
                for (code, _) in report.keys.iter().filter(|(_, down)| *down) {
                    self.held.entry((*id, *code)).or_insert(ours);
                }
            }
            _ => {}
        }
    }

    fn see(
        &mut self,
        input: &Input,
        out: &[Output],
        before: Shown,
        after: Shown,
        chord: Option<(DeviceId, u16)>,
    ) -> Result<(), TestCaseError> {
        let together = self.released_together(input, before.0);
        self.see_devices(input, before.1);
        if let Some(key) = chord {
            // Its keys are nobody's until each is pressed anew.
            for ((id, code), stale) in &mut self.held {
                let is_modifier = hotkeys::is_modifier(*code) && !self.pins.contains_key(id);
                *stale |= is_modifier || (*id, *code) == key;
            }
            self.gesture = true;
        }
        let device = match input {
            Input::Report(id, _) => Some(*id),
            _ => None,
        };
        let pin = device.and_then(|id| self.pins.get(&id).copied());
        for output in out {
            self.see_output(output, after)?;
            let Output::Send(domain, _, events) = output else { continue };
            prop_assert!(!(before.1 && after.1), "locked, and something was told");
            for event in events.iter().filter(|event| **event != Event::SYN) {
                let (is_key, code) = (event.kind == codes::EV_KEY, event.code);
                if is_key && event.value == 0 {
                    let known = self.down[*domain].remove(&code);
                    prop_assert!(known, "an up without a down");
                    continue;
                }
                // Everything but letting go.
                prop_assert!(!before.1 && !after.1, "locked, and something was told");
                prop_assert!(device.is_some(), "something was told though nobody did anything");
                match pin {
                    Some(own) => prop_assert_eq!(*domain, own, "a pinned device reached another"),
                    None => {
                        prop_assert_eq!(*domain, before.0, "another domain was reached");
                        prop_assert_eq!(before.0, after.0, "told in the middle of a switch");
                    }
                }
                if is_key {
                    let fresh = self.held.iter().any(|((id, held), stale)| {
                        *held == code && !stale && self.pins.get(id).copied() == pin
                    });
                    prop_assert!(fresh, "{} was told and nobody pressed it anew", code);
                    prop_assert!(!together.contains(&code), "part of a chord not finished is told");
                    self.down[*domain].insert(code);
                }
            }
        }
        if let Input::Report(id, report) = input {
            for (code, _) in report.keys.iter().filter(|(_, down)| !down) {
                self.held.remove(&(*id, *code));
            }
        }
        let asks = matches!(input, Input::Ask(_) | Input::Choose(..));
        for ((id, _), stale) in &mut self.held {
            let shared = !self.pins.contains_key(id);
            *stale |= before != after && (after.1 || shared) || asks && shared;
        }
        self.gesture &= self.modifiers() != Modifiers::default();
        for (domain, down) in self.down.iter().enumerate() {
            for code in down {
                prop_assert!(!after.1, "locked, and {code} is down in {domain}");
                let holder = self.held.iter().any(|((id, held), stale)| {
                    let may = self.pins.get(id).map_or(domain == after.0, |own| *own == domain);
                    held == code && !stale && may
                });
                prop_assert!(holder, "{code} stays down in {domain} and nobody holds it");
            }
        }
        Ok(())
    }

    /// Checks an output: where the screen changes hands, everything is up already.
    fn see_output(&self, output: &Output, after: Shown) -> Result<(), TestCaseError> {
        let pinned = |code: &u16, domain: DomainIndex| {
            let mut holders = self.held.keys().filter(|(_, held)| held == code);
            holders.any(|(id, _)| self.pins.get(id) == Some(&domain))
        };
        match output {
            Output::Switched { from, to } => {
                prop_assert_eq!(*to, after.0);
                let left = self.down[*from].iter().find(|code| !pinned(code, *from));
                prop_assert_eq!(left, None, "a key is down in the domain that was switched from");
            }
            Output::Locked { .. } => {
                let down = self.down.iter().flatten().next();
                prop_assert_eq!(down, None, "a key is down as the screen is locked");
            }
            _ => {}
        }
        Ok(())
    }

    /// Modifiers that nobody was told of and that come up at once: a chord that was not finished.
    fn released_together(&self, input: &Input, front: DomainIndex) -> Vec<u16> {
        let Input::Report(id, report) = input else { return Vec::new() };
        let ups = report.keys.iter().filter(|(_, down)| !down).map(|(code, _)| *code);
        let untold = |code: &u16| {
            let waits = self.held.get(&(*id, *code)) == Some(&false);
            waits && hotkeys::is_modifier(*code) && !self.down[front].contains(code)
        };
        let together: Vec<u16> = ups.filter(untold).collect();
        let shared = !self.pins.contains_key(id);
        if shared && together.len() > 1 { together } else { Vec::new() }
    }
}
