//! One finger on a touchpad, or what is none.

use std::time::Duration;

use super::{JUMP, STILL, TAP, Time};
use crate::devices::contacts::Contact;
use crate::devices::facts::Axis;
use crate::devices::surface::{Point, Surface};

/// A finger that comes in over the edge has left it this soon.
const OVER_THE_EDGE: Duration = Duration::from_millis(200);
/// The pressure of a palm, where pressure is from 0 to 255 as the PS/2 pads' is.
const PALM_PRESSURE: i32 = 130;
/// The diameter of a palm, in millimetres, where the driver knows millimetres.
const PALM_MM: i32 = 28;

/// The limits by which palms are known, in what the device says of a contact.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Palms {
    pressure: Option<i32>,
    major: Option<i32>,
}

impl Palms {
    /// Makes the limits of a finger by the axes of pressure and diameter.
    pub(super) fn new(pressure: Option<Axis>, major: Option<Axis>) -> Self {
        let usual = |axis: &Axis| axis.least == 0 && axis.most == 255 && axis.resolution == 0;
        let told = |axis: &Axis| axis.resolution > 0;
        Self {
            pressure: pressure.filter(usual).map(|_| PALM_PRESSURE),
            major: major.filter(told).map(|axis| axis.resolution.saturating_mul(PALM_MM)),
        }
    }

    /// Returns whether a contact is one.
    pub(super) fn is_palm(&self, contact: &Contact) -> bool {
        let over = |value: Option<i32>, limit: Option<i32>| {
            value.zip(limit).is_some_and(|(value, limit)| value > limit)
        };
        contact.palm || over(contact.pressure, self.pressure) || over(contact.major, self.major)
    }
}

/// What a contact is taken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Finger,
    /// It began at the edge and has not left it yet.
    Edge,
    /// It is in the button rows of a pad since it began: a finger that presses, or a thumb.
    Low,
    /// A palm, for as long as it lasts.
    Palm,
}

#[derive(Clone, Debug)]
pub(super) struct Finger {
    serial: u64,
    since: Time,
    role: Role,
    start: Option<Point>,
    at: Option<Point>,
    /// Its way in this report.
    way: Point,
    /// Where it rests until it has gone further than [`STILL`], and until when at most.
    rests: Option<(Point, Option<Time>)>,
}

impl Finger {
    pub(super) fn new(
        serial: u64,
        at: Option<Point>,
        now: Time,
        palm: bool,
        surface: &Surface,
    ) -> Self {
        let role = match at {
            _ if palm => Role::Palm,
            Some(at) if surface.is_edge(at) => Role::Edge,
            Some(at) if surface.is_button(at) => Role::Low,
            _ => Role::Finger,
        };
        let rests = at.map(|at| (at, Some(now.saturating_add(TAP))));
        Self { serial, since: now, role, start: at, at, way: Point::default(), rests }
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    pub(super) fn at(&self) -> Option<Point> {
        self.at
    }

    pub(super) fn is_palm(&self) -> bool {
        self.role == Role::Palm
    }

    /// Returns whether it moves the pointer or turns the wheel.
    pub(super) fn points(&self) -> bool {
        self.role == Role::Finger
    }

    /// Returns whether it may be tapping: one that stays in the button rows is a thumb at rest.
    pub(super) fn can_tap(&self, now: Time, at_most: Duration) -> bool {
        match self.role {
            Role::Finger => true,
            Role::Low => now.saturating_sub(self.since) <= at_most,
            Role::Edge | Role::Palm => false,
        }
    }

    /// Returns whether it came with this report.
    pub(super) fn is_fresh(&self, now: Time) -> bool {
        self.since == now
    }

    /// Returns whether it was there before.
    pub(super) fn is_before(&self, time: Time) -> bool {
        self.since < time
    }

    /// Returns its way in this report.
    pub(super) fn way(&self) -> Point {
        self.way
    }

    /// Returns how far it is from where it began.
    pub(super) fn gone(&self) -> i64 {
        self.at.zip(self.start).map_or(0, |(at, start)| at.from(start).length())
    }

    /// Holds the finger where it is until it moves on purpose.
    pub(super) fn pin(&mut self) {
        self.rests = self.at.map(|at| (at, None));
    }

    /// Takes the contact for a palm from its beginning; returns whether that is new.
    pub(super) fn mark_as_palm(&mut self) -> bool {
        std::mem::replace(&mut self.role, Role::Palm) != Role::Palm
    }

    /// Follows the finger to its place.
    pub(super) fn follow(&mut self, at: Option<Point>, now: Time, surface: &Surface) {
        let before = std::mem::replace(&mut self.at, at);
        self.way = Point::default();
        let Some(at) = at else { return };
        self.start.get_or_insert(at);
        match self.role {
            Role::Edge if !surface.is_edge(at) => {
                let soon = now.saturating_sub(self.since) <= OVER_THE_EDGE;
                self.role = match soon {
                    true if surface.is_button(at) => Role::Low,
                    true => Role::Finger,
                    false => Role::Palm,
                };
            }
            Role::Low if !surface.is_button(at) => self.role = Role::Finger,
            _ => {}
        }
        if let Some((place, until)) = self.rests {
            let over = until.is_some_and(|until| now >= until);
            if !over && at.from(place).length() <= STILL {
                return;
            }
            // It goes on from here: nothing of the way so far.
            self.rests = None;
            return;
        }
        let way = before.map_or(Point::default(), |before| at.from(before));
        if way.length() <= JUMP {
            self.way = way;
        }
    }
}
