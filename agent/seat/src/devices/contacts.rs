//! The contacts on a surface (`Documentation/input/multi-touch-protocol.rst`, type B), and of a surface that tells one
//! only; pure.
//!
//! A contact has a slot while it lasts. The kernel says only what changes, also from one contact of a slot to the next, so
//! what a slot last said stays. What was down before the first event, or while events were lost, is not known, and is
//! nothing until it is put down anew.

use super::codes::{
    ABS_MT_POSITION_X, ABS_MT_POSITION_Y, ABS_MT_PRESSURE, ABS_MT_SLOT, ABS_MT_TOOL_TYPE,
    ABS_MT_TOUCH_MAJOR, ABS_MT_TRACKING_ID, ABS_PRESSURE, ABS_X, ABS_Y, MT_TOOL_PALM,
};
use super::facts::EventCapabilities;
use crate::core::codes::BTN_TOUCH;

/// The most contacts; more than a hand and a half. What a device says of further slots is left out.
pub(super) const CONTACTS_MAX: usize = 16;

/// A contact, in the device's units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Contact {
    /// Not given to any other contact of the device.
    pub(super) serial: u64,
    /// From the left, if it was said.
    pub(super) x: Option<i32>,
    /// From the top, if it was said.
    pub(super) y: Option<i32>,
    pub(super) pressure: Option<i32>,
    /// The longer diameter (`ABS_MT_TOUCH_MAJOR`).
    pub(super) major: Option<i32>,
    /// The device itself takes it for a palm.
    pub(super) palm: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    serial: Option<u64>,
    x: Option<i32>,
    y: Option<i32>,
    pressure: Option<i32>,
    major: Option<i32>,
    palm: bool,
}

/// All contacts of a surface.
#[derive(Clone, Debug, Default)]
pub(super) struct Contacts {
    /// It tells several apart.
    multi: bool,
    slots: Vec<Slot>,
    /// The slot that is being told of; none if it is beyond [`CONTACTS_MAX`].
    current: Option<usize>,
    serial: u64,
    /// What `BTN_TOUCH` says, of a device that has it.
    touching: bool,
    /// What a surface that tells one contact says of it, and one that tells several of its eldest.
    single: (Option<i32>, Option<i32>),
}

impl Contacts {
    /// Makes the contacts of a device. Nothing is known to be down; axes are where the device says. `touched`: its `BTN_TOUCH` is down.
    pub(super) fn new(facts: &EventCapabilities, touched: bool) -> Self {
        let multi = facts.has_slots();
        let value = |code| facts.axis(code).map(|axis| axis.value);
        let mut this = Self {
            multi,
            slots: Vec::new(),
            current: Some(0),
            serial: 0,
            touching: touched || !facts.keys.contains(&BTN_TOUCH),
            single: (value(ABS_X), value(ABS_Y)),
        };
        let count = facts.axes.get(&ABS_MT_SLOT).filter(|_| multi);
        let count =
            count.map_or(1, |axis| usize::try_from(axis.most).unwrap_or(0).saturating_add(1));
        this.slots = vec![Slot::default(); count.min(CONTACTS_MAX)];
        if let Some(slot) = facts.axes.get(&ABS_MT_SLOT).filter(|_| multi) {
            this.select(slot.value);
        }
        this
    }

    /// Returns the contacts that are down.
    pub(super) fn down(&self) -> impl Iterator<Item = Contact> {
        let slots = self.slots.iter().filter(|_| self.touching);
        slots.filter_map(|slot| {
            let Slot { x, y, pressure, major, palm, .. } = *slot;
            Some(Contact { serial: slot.serial?, x, y, pressure, major, palm })
        })
    }

    /// Returns whether the device has no slot left: there may be more fingers than it tells of.
    pub(super) fn is_full(&self) -> bool {
        self.slots.iter().all(|slot| slot.serial.is_some())
    }

    /// Returns the last contact that was put down.
    pub(super) fn newest(&self) -> u64 {
        self.serial
    }

    /// Returns where the device's only or eldest contact is.
    pub(super) fn single(&self) -> (Option<i32>, Option<i32>) {
        self.single
    }

    /// Takes a position or the like.
    pub(super) fn axis(&mut self, code: u16, value: i32) {
        match code {
            ABS_X => self.single.0 = Some(value),
            ABS_Y => self.single.1 = Some(value),
            ABS_MT_SLOT => self.select(value),
            _ => {}
        }
        let multi = self.multi;
        let serial = self.serial + 1;
        let Some(slot) = self.current.and_then(|at| self.slots.get_mut(at)) else { return };
        match (multi, code) {
            (true, ABS_MT_TRACKING_ID) => {
                slot.serial = (value >= 0).then_some(serial);
                self.serial = serial;
            }
            (true, ABS_MT_POSITION_X) | (false, ABS_X) => slot.x = Some(value),
            (true, ABS_MT_POSITION_Y) | (false, ABS_Y) => slot.y = Some(value),
            (true, ABS_MT_PRESSURE) | (false, ABS_PRESSURE) => slot.pressure = Some(value),
            (true, ABS_MT_TOUCH_MAJOR) => slot.major = Some(value),
            (true, ABS_MT_TOOL_TYPE) => slot.palm = value == MT_TOOL_PALM,
            _ => {}
        }
    }

    /// Takes `BTN_TOUCH`: whatever is said of slots, nothing is down while it is up.
    pub(super) fn touched(&mut self, down: bool) {
        self.touching = down;
        if self.multi {
            // What is still there when it comes down again is put down anew.
            for slot in self.slots.iter_mut().filter(|slot| !down && slot.serial.is_some()) {
                self.serial += 1;
                slot.serial = Some(self.serial);
            }
        } else if let Some(slot) = self.slots.first_mut() {
            self.serial += 1;
            (slot.x, slot.y) = self.single;
            slot.serial = down.then_some(self.serial);
        }
    }

    fn select(&mut self, slot: i32) {
        self.current = usize::try_from(slot).ok().filter(|slot| *slot < self.slots.len());
    }
}
