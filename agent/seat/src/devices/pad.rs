//! What fingers on a touchpad mean; pure. Whole reports in, what a mouse would have said out.
//!
//! | fingers | mean |
//! |---|---|
//! | one moves | the pointer moves, further when it is fast |
//! | two move | the wheel turns; what is shown follows the fingers, along one axis for as long as they stay |
//! | one, two, three tap | left, right, middle button |
//! | a press of the pad itself | right in the right half of the bottom rows, and with two fingers; middle with three; else left |
//! | a palm | nothing: where the device says so, a pressure or a size no finger has, at the edges, while somebody types |
//! | a thumb at rest in the bottom rows | nothing |
//!
//! In the report in which a finger comes or goes nothing moves, so that no other finger's place is taken for a way; and
//! what a finger cannot have done between two reports ([`JUMP`]) is none. What is held here, a press, is let go by the
//! seat when the device goes.
//!
//! Left out: tap and drag, edge scrolling, buttons at the top, gestures of more fingers.

mod finger;
#[cfg(test)]
mod tests;

use std::time::Duration;

use super::codes::{
    ABS_MT_POSITION_X, ABS_MT_POSITION_Y, ABS_MT_PRESSURE, ABS_MT_TOUCH_MAJOR, ABS_PRESSURE, ABS_X,
    ABS_Y, BTN_MIDDLE, BTN_RIGHT, REL_HWHEEL, REL_HWHEEL_HI_RES, REL_WHEEL, REL_WHEEL_HI_RES,
    property,
};
use super::contacts::Contact;
use super::facts::EventCapabilities;
use super::surface::{Point, Surface};
use crate::core::codes::BTN_LEFT;
use finger::{Finger, Palms};

/// Ways are in micrometres, times since the PC was switched on.
type Time = Duration;

/// A tap of one finger lasts at most this, and does not move by more than [`STILL`].
const TAP: Duration = Duration::from_millis(180);
/// Of several, which do not come and go at once.
const TAP_OF_SEVERAL: Duration = Duration::from_millis(250);
/// A finger that has not gone this far rests.
const STILL: i64 = 1_300;
/// No finger goes this far between two reports; a pad that says so means another finger.
const JUMP: i64 = 15_000;
/// Two fingers that have gone this far turn the wheel.
const SCROLL_FROM: i64 = 1_000;
/// Fine steps of the wheel a millimetre: a whole one every eight.
const FINE_PER_MM: i64 = 15;
/// Fine steps of a whole one.
const FINE: i64 = 120;
/// Pixels a millimetre of a slow finger and of a fast one, and what is slow and fast in millimetres a second.
const GAIN: (i64, i64) = (10, 40);
const SPEED: (i64, i64) = (30, 300);
/// Between two reports at least and at most, in milliseconds, whatever the clock says.
const BETWEEN: (i64, i64) = (4, 40);
/// What is put down this soon after a key is a palm.
const TYPING: Duration = Duration::from_millis(300);
/// The most pixels one report moves the pointer by, on either axis.
#[cfg(test)]
pub(super) const MOTION_MAX: i64 = JUMP * GAIN.1 / 1000;

/// What a pad's report comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PadReport {
    /// How far the pointer goes, in pixels.
    pub(super) motion: (i32, i32),
    /// Wheel codes and how far.
    pub(super) wheel: Vec<(u16, i32)>,
    /// A button that was pressed and let go.
    pub(super) tapped: Option<u16>,
}

/// A tap that may become one.
#[derive(Clone, Debug)]
struct Tap {
    since: Time,
    /// The fingers that were part of it.
    fingers: usize,
    /// None of them moved, turned out a palm, or pressed.
    still: bool,
}

/// A wheel that is being turned.
#[derive(Clone, Copy, Debug, Default)]
struct Scroll {
    gone: Point,
    /// Whether it goes sideways, once that is clear.
    sideways: Option<bool>,
    /// What is left of a fine step, in thousandths.
    rest: i64,
    /// Fine steps of a whole one so far.
    fine: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Pad {
    surface: Surface,
    palms: Palms,
    /// It is pressed as a whole.
    button: bool,
    fingers: Vec<Finger>,
    tap: Option<Tap>,
    scroll: Scroll,
    /// What is left of a pixel, in thousandths.
    rest: Point,
    /// Fingers that the device counts and says nothing else of.
    hidden: usize,
    /// The pad or one of its buttons is pressed.
    pressed: bool,
    last: Time,
}

impl Pad {
    /// Makes a pad with nothing on it.
    pub(super) fn new(facts: &EventCapabilities) -> Self {
        let (x, y, pressure) = if facts.has_slots() {
            (ABS_MT_POSITION_X, ABS_MT_POSITION_Y, ABS_MT_PRESSURE)
        } else {
            (ABS_X, ABS_Y, ABS_PRESSURE)
        };
        let button = facts.properties.contains(&property::BUTTONPAD);
        Self {
            surface: Surface::new(facts, x, y, button),
            palms: Palms::new(facts.axis(pressure), facts.axis(ABS_MT_TOUCH_MAJOR)),
            button,
            fingers: Vec::new(),
            tap: None,
            scroll: Scroll::default(),
            rest: Point::default(),
            hidden: 0,
            pressed: false,
            last: Time::ZERO,
        }
    }

    /// Takes a whole report: what is down, how many fingers the device counts, when, and when somebody last typed.
    pub(super) fn report(
        &mut self,
        down: impl Iterator<Item = Contact>,
        counted: usize,
        now: Time,
        typed: Option<Time>,
    ) -> PadReport {
        let mut changed = self.follow(down, now, typed);
        let hidden = counted.saturating_sub(self.fingers.len());
        changed |= std::mem::replace(&mut self.hidden, hidden) != hidden;
        let tapped = self.tap(changed, now);
        let between = i64::try_from(now.saturating_sub(self.last).as_millis()).unwrap_or(i64::MAX);
        self.last = now;
        let mut said = PadReport { tapped, ..PadReport::default() };
        if changed {
            self.scroll = Scroll::default();
            return said;
        }
        let ways: Vec<Point> =
            self.fingers.iter().filter(|f| f.points()).map(Finger::way).collect();
        match (ways.as_slice(), self.hidden) {
            ([way], 0) => said.motion = self.moved(*way, between),
            // One presses, the other drags.
            ([_, ..], _) if self.pressed => {
                let way = ways.iter().copied().max_by_key(|way| way.length());
                said.motion = self.moved(way.unwrap_or_default(), between);
            }
            ([way], 1) => said.wheel = self.turned(*way),
            ([one, other], 0) => {
                let way = Point { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
                said.wheel = self.turned(way);
            }
            _ => {}
        }
        said
    }

    /// Handles a button of the pad that goes down, after the report it came with; returns which one is meant.
    pub(super) fn press(&mut self, code: u16) -> u16 {
        self.pressed = true;
        if let Some(tap) = &mut self.tap {
            tap.still = false;
        }
        // Pressing moves the finger that does it.
        self.fingers.iter_mut().for_each(Finger::pin);
        if !self.button || code != BTN_LEFT {
            return code;
        }
        let present = || self.fingers.iter().filter(|finger| !finger.is_palm());
        let low = || present().filter_map(Finger::at).filter(|at| self.surface.is_button(*at));
        match low().count() {
            0 => button_of(present().filter(|finger| finger.points()).count() + self.hidden),
            1 if !low().any(|at| self.surface.is_right(at)) => BTN_LEFT,
            _ => BTN_RIGHT,
        }
    }

    /// Handles that no button of the pad is down any more.
    pub(super) fn release(&mut self) {
        self.pressed = false;
    }

    /// Brings the fingers up to date, and returns whether one came, went, or was found to be a palm.
    fn follow(
        &mut self,
        down: impl Iterator<Item = Contact>,
        now: Time,
        typed: Option<Time>,
    ) -> bool {
        let contacts: Vec<Contact> = down.collect();
        let before = self.fingers.len();
        self.fingers.retain(|f| contacts.iter().any(|contact| contact.serial == f.serial()));
        let mut changed = self.fingers.len() != before;
        let typing = typed
            // A clock that was set back says nothing of when that was.
            .is_some_and(|typed| now.checked_sub(typed).is_some_and(|since| since < TYPING));
        for contact in contacts {
            let at = contact.x.zip(contact.y).map(|(x, y)| self.surface.point(x, y));
            let palm = self.palms.is_palm(&contact);
            match self.fingers.iter_mut().find(|finger| finger.serial() == contact.serial) {
                Some(finger) => {
                    finger.follow(at, now, &self.surface);
                    if palm && !self.pressed {
                        changed |= finger.mark_as_palm();
                    }
                }
                None => {
                    changed = true;
                    let palm = palm || typing;
                    self.fingers.push(Finger::new(contact.serial, at, now, palm, &self.surface));
                }
            }
        }
        changed
    }

    /// Begins, watches and ends a tap.
    fn tap(&mut self, changed: bool, now: Time) -> Option<u16> {
        let able = || self.fingers.iter().filter(|finger| finger.can_tap(now, TAP_OF_SEVERAL));
        let count = able().count();
        if self.tap.is_none() && changed && count > 0 && able().all(|f| f.is_fresh(now)) {
            self.tap = Some(Tap { since: now, fingers: 0, still: !self.pressed });
        }
        let moved = able().any(|finger| finger.gone() > STILL);
        let hidden = if count > 0 { self.hidden } else { 0 };
        let tap = self.tap.as_mut()?;
        tap.fingers = tap.fingers.max(count + hidden);
        tap.still &= !moved;
        if count > 0 {
            return None;
        }
        let tap = self.tap.take()?;
        let at_most = if tap.fingers > 1 { TAP_OF_SEVERAL } else { TAP };
        // What turned out a palm, or stayed, taps nothing.
        let gone = self.fingers.iter().all(|finger| finger.is_before(tap.since));
        let short = now.saturating_sub(tap.since) <= at_most;
        (tap.still && gone && short).then(|| button_of(tap.fingers))
    }

    /// Returns the way of the one finger, in pixels.
    fn moved(&mut self, way: Point, between: i64) -> (i32, i32) {
        let speed = way.length() / between.clamp(BETWEEN.0, BETWEEN.1);
        let share = speed.clamp(SPEED.0, SPEED.1) - SPEED.0;
        let gain = GAIN.0 + (GAIN.1 - GAIN.0) * share / (SPEED.1 - SPEED.0);
        let along = |way: i64, rest: &mut i64| {
            let all = way * gain + *rest;
            *rest = all % 1000;
            i32::try_from(all / 1000).unwrap_or(0)
        };
        let Point { x, y } = &mut self.rest;
        (along(way.x, x), along(way.y, y))
    }

    /// Returns the way of two fingers, in steps of a wheel. What is shown goes where they go: up is down on a wheel.
    fn turned(&mut self, way: Point) -> Vec<(u16, i32)> {
        let scroll = &mut self.scroll;
        scroll.gone = Point { x: scroll.gone.x + way.x, y: scroll.gone.y + way.y };
        if scroll.sideways.is_none() && scroll.gone.length() < SCROLL_FROM {
            return Vec::new();
        }
        let sideways = *scroll.sideways.get_or_insert(scroll.gone.x.abs() > scroll.gone.y.abs());
        let (way, whole_code, fine_code) = if sideways {
            (-way.x, REL_HWHEEL, REL_HWHEEL_HI_RES)
        } else {
            (way.y, REL_WHEEL, REL_WHEEL_HI_RES)
        };
        let all = way * FINE_PER_MM + scroll.rest;
        let (steps, rest) = (all / 1000, all % 1000);
        scroll.rest = rest;
        scroll.fine += steps;
        let whole = scroll.fine / FINE;
        scroll.fine %= FINE;
        let step = |code, value: i64| (code, i32::try_from(value).unwrap_or(0));
        let turned = [step(fine_code, steps), step(whole_code, whole)];
        turned.into_iter().filter(|(_, value)| *value != 0).collect()
    }
}

/// Returns the button that so many fingers mean.
fn button_of(fingers: usize) -> u16 {
    match fingers {
        0 | 1 => BTN_LEFT,
        2 => BTN_RIGHT,
        _ => BTN_MIDDLE,
    }
}
