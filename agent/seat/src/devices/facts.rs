//! What an input device says of itself (its evdev capabilities), and which kind of pointer that makes; pure.
//!
//! The kernel says what a surface is for by a property (`linux/input-event-codes.h`): `INPUT_PROP_DIRECT`, one touches
//! what one sees; `INPUT_PROP_POINTER`, one moves a pointer. Older drivers leave it out, and then the tools tell, as they
//! do for udev: `BTN_TOOL_FINGER` is a pad's, for a screen that knows nothing but fingers needs no name for them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use evdev::raw_stream::RawDevice;

use super::InputRoles;
use super::codes::{
    ABS_MT_POSITION_X, ABS_MT_POSITION_Y, ABS_MT_SLOT, ABS_X, ABS_Y, BTN_STYLUS, BTN_TOOL_FINGER,
    BTN_TOOL_PEN, property,
};
use crate::core::codes::{BTN_LEFT, BTN_TOUCH};

/// A device that says it has this axis says it has every axis there is (`ABS_MT_SLOT` - 1, which nothing uses).
const ABS_UNUSED: u16 = 0x2e;

/// An absolute axis (`struct input_absinfo`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Axis {
    /// Where it is now.
    pub(super) value: i32,
    /// The smallest value that the driver announces.
    pub(super) least: i32,
    pub(super) most: i32,
    /// Units a millimetre; 0 if the driver does not know.
    pub(super) resolution: i32,
}

/// What a device can do.
#[derive(Clone, Debug, Default)]
pub(super) struct EventCapabilities {
    /// Codes of `EV_KEY`: keys and buttons.
    pub(super) keys: BTreeSet<u16>,
    /// Codes of `EV_REL`: relative axes.
    pub(super) relative: BTreeSet<u16>,
    /// Codes of `EV_ABS`, with each axis.
    pub(super) axes: BTreeMap<u16, Axis>,
    /// Properties that `EVIOCGPROP` gives.
    pub(super) properties: BTreeSet<u16>,
}

/// Which kind of pointer a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing with a position of its own: keyboards, mice.
    Relative,
    /// Its position is the pointer's, also while nothing is pressed: pens, the absolute mice of remote consoles, touch
    /// screens that pass for such a mouse.
    Position,
    /// A touch screen: one points by touching.
    Screen,
    /// A touchpad: a finger's way on it moves the pointer.
    Pad,
}

impl EventCapabilities {
    /// Asks a device.
    ///
    /// # Errors
    /// It is gone.
    pub(super) fn of(device: &RawDevice) -> io::Result<Self> {
        let axes = device.get_absinfo()?.map(|(code, info)| {
            let axis = Axis {
                value: info.value(),
                least: info.minimum(),
                most: info.maximum(),
                resolution: info.resolution(),
            };
            (code.0, axis)
        });
        let axes = axes.collect();
        let keys = device.supported_keys().into_iter().flat_map(|keys| keys.iter());
        let relative = device.supported_relative_axes().into_iter().flat_map(|axes| axes.iter());
        Ok(Self {
            keys: keys.map(|key| key.0).collect(),
            relative: relative.map(|axis| axis.0).collect(),
            axes,
            properties: device.properties().iter().map(|property| property.0).collect(),
        })
    }

    /// Returns an axis, if it has a length.
    pub(super) fn axis(&self, code: u16) -> Option<Axis> {
        self.axes.get(&code).copied().filter(|axis| axis.least < axis.most)
    }

    /// Returns whether it tells its contacts apart (multi-touch protocol, type B).
    pub(super) fn has_slots(&self) -> bool {
        let has = |code| self.axis(code).is_some();
        has(ABS_MT_POSITION_X)
            && has(ABS_MT_POSITION_Y)
            && self.axes.contains_key(&ABS_MT_SLOT)
            && !self.axes.contains_key(&ABS_UNUSED)
    }

    /// Returns which kind of pointer it is.
    pub(super) fn kind(&self) -> Kind {
        let key = |code: u16| self.keys.contains(&code);
        let any = |mut codes: std::ops::RangeInclusive<u16>| codes.any(key);
        let property = |code: u16| self.properties.contains(&code);
        let position = self.axis(ABS_X).is_some() && self.axis(ABS_Y).is_some();
        let slots = self.has_slots();
        if !(position || slots) || property(property::ACCELEROMETER) {
            return Kind::Relative;
        }
        let touch = key(BTN_TOUCH) || slots;
        let buttons = any(BTN_LEFT..=0x117);
        let joystick = any(0x120..=0x13f);
        // The buttons beside a tablet are a device of their own, which says it has a pen's axes and never moves them.
        let beside = key(0x100) && key(0x101) && !key(BTN_TOOL_PEN);
        if key(BTN_STYLUS) && beside {
            Kind::Relative
        } else if position && (key(BTN_TOOL_PEN) || key(BTN_STYLUS)) {
            Kind::Position
        } else if property(property::DIRECT) && touch {
            Kind::Screen
        } else if touch && (key(BTN_TOOL_FINGER) || property(property::POINTER)) {
            Kind::Pad
        } else if position && buttons && !joystick {
            Kind::Position
        } else if touch && !joystick {
            Kind::Screen
        } else {
            Kind::Relative
        }
    }

    /// Returns what it is good for.
    pub(super) fn abilities(&self) -> InputRoles {
        /// What a power button or a lid has: the host's business.
        const NOT_TYPED: [u16; 4] = [116, 142, 143, 205];
        let keyboard =
            (1..=248).any(|code| self.keys.contains(&code) && !NOT_TYPED.contains(&code));
        let mouse = self.relative.contains(&0) && self.keys.contains(&BTN_LEFT);
        InputRoles { keyboard, pointer: mouse || self.kind() != Kind::Relative }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Touchpads as udev recorded them on real PCs (canonical/checkbox, `udevadm_data`): name, `EV`, `KEY`, `ABS`, `REL`
    /// and `PROP` in the kernel's hexadecimal.
    const TOUCHPADS: &str = include_str!("../../tests/touchpads.tsv");

    /// Reads the bits of a kernel's bitmap: words of 64 bits in hexadecimal, the highest first.
    fn bits(words: &str) -> BTreeSet<u16> {
        let mut bits = BTreeSet::new();
        for (word, at) in words.split_whitespace().rev().zip((0u16..).step_by(64)) {
            let word = u64::from_str_radix(word, 16).unwrap();
            bits.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| at + bit));
        }
        bits
    }

    pub(in crate::devices) fn facts(
        key: &str,
        abs: &str,
        rel: &str,
        prop: &str,
    ) -> EventCapabilities {
        let axis = Axis { value: 0, least: 0, most: 4000, resolution: 40 };
        EventCapabilities {
            keys: bits(key),
            relative: bits(rel),
            axes: bits(abs).into_iter().map(|code| (code, axis)).collect(),
            properties: bits(prop),
        }
    }

    #[test]
    fn a_touchpad_is_no_touch_screen_whoever_made_it() {
        let mut seen = 0;
        for line in TOUCHPADS.lines().skip(1) {
            let [name, _, key, abs, rel, prop] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}");
            };
            let facts = facts(key, abs, rel, prop);
            assert_eq!(facts.kind(), Kind::Pad, "{name}");
            assert!(facts.abilities().pointer && !facts.abilities().keyboard, "{name}");
            seen += 1;
        }
        assert_eq!(seen, 12);
    }

    #[test]
    fn what_is_touched_where_one_looks_is_a_touch_screen() {
        let screens = [
            ("hid-multitouch, ten fingers", "400 0 0 0 0 0", "673800000000003", "2"),
            ("hid-multitouch, positions of contacts only", "400 0 0 0 0 0", "260800000000000", "2"),
            ("one finger, no property (usbtouchscreen)", "400 0 0 0 0 0", "3", "0"),
        ];
        for (name, key, abs, prop) in screens {
            let facts = facts(key, abs, "0", prop);
            assert_eq!(facts.kind(), Kind::Screen, "{name}");
            assert!(facts.abilities().pointer, "{name}");
        }
    }

    #[test]
    fn pens_and_the_absolute_mice_of_remote_consoles_hover() {
        let hovering = [
            ("QEMU USB Tablet", "1f0000 0 0 0 0", "3", "100", "0"),
            ("a pen on a screen", "1c03 0 0 0 0 0", "1000003", "0", "2"),
            ("a touch screen that says it is a mouse", "10000 0 0 0 0", "3", "0", "2"),
            ("a pen on a tablet", "1c03 0 0 0 0 0", "1000003", "0", "1"),
        ];
        for (name, key, abs, rel, prop) in hovering {
            assert_eq!(facts(key, abs, rel, prop).kind(), Kind::Position, "{name}");
        }
    }

    #[test]
    fn what_only_has_axes_points_at_nothing() {
        let others = [
            ("a mouse", "1f0000 0 0 0 0", "0", "103", "0", true),
            ("a gamepad", "7cdb000000000000 0 0 0 0", "3003f", "0", "0", false),
            ("the buttons beside a tablet", "800 f 0 0 0 0", "10000000003", "0", "0", false),
            ("an accelerometer", "0", "7", "0", "40", false),
            ("a keyboard with a volume knob", "fffffffffffffffe", "100000000", "0", "0", false),
        ];
        for (name, key, abs, rel, prop, pointer) in others {
            let facts = facts(key, abs, rel, prop);
            assert_eq!(
                (facts.kind(), facts.abilities().pointer),
                (Kind::Relative, pointer),
                "{name}"
            );
        }
        let mut pad = facts("e520 10000 0 0 0 0", "260800000000003", "0", "5");
        for axis in pad.axes.values_mut() {
            (axis.least, axis.most) = (5, 5);
        }
        assert_eq!(pad.kind(), Kind::Relative, "axes without length");
    }
}
