//! Which usages become keys, buttons and axes, as `hid-input` maps them (Linux `drivers/hid/hid-input.c`,
//! `hidinput_configure_usage`; `linux/input-event-codes.h`; HID Usage Tables 1.5).

/// A collection's type (HID 1.11, section 6.2.2.6).
pub(crate) const PHYSICAL: u8 = 0;
pub(crate) const APPLICATION: u8 = 1;
/// Usages of the page Generic Desktop, with the page in the upper half.
const POINTER: u32 = 0x1_0001;
const MOUSE: u32 = 0x1_0002;
const JOYSTICK: u32 = 0x1_0004;
const GAMEPAD: u32 = 0x1_0005;
const KEYBOARD: u32 = 0x1_0006;
const KEYPAD: u32 = 0x1_0007;
const X: u32 = 0x1_0030;
const Y: u32 = 0x1_0031;
const SYSTEM_CONTROL: u32 = 0x1_0080;
/// Usages of the page Consumer, with the page in the upper half.
const CONSUMER_CONTROL: u32 = 0xc_0001;
const PROGRAMMABLE_BUTTONS: u32 = 0xc_0003;
/// Digitizers: Digitizer, Pen, Light Pen, Touch Screen, Touch Pad, White Board.
const DIGITIZERS: std::ops::RangeInclusive<u32> = 0xd_0001..=0xd_0006;

/// Collections of which Linux makes an input device (`IS_INPUT_APPLICATION`): of Generic Desktop those up to Multi-axis Controller, radio
/// and system controls; digitizers; Consumer Control.
const INPUT: [std::ops::RangeInclusive<u32>; 5] = [
    0x1_0000..=0x1_0008,
    0x1_000c..=0x1_000c,
    SYSTEM_CONTROL..=SYSTEM_CONTROL,
    DIGITIZERS,
    CONSUMER_CONTROL..=CONSUMER_CONTROL,
];

/// Usage pages (HID Usage Tables 1.5, section 3).
mod page {
    pub(super) const GENERIC_DESKTOP: u32 = 0x01;
    pub(super) const KEYBOARD: u32 = 0x07;
    pub(super) const BUTTON: u32 = 0x09;
    pub(super) const CONSUMER: u32 = 0x0c;
    pub(super) const DIGITIZERS: u32 = 0x0d;
}

/// Flags of a main item (HID 1.11, section 6.2.2.5).
const CONSTANT: u32 = 1;
const RELATIVE: u32 = 4;
/// A collection that is a named array.
const NAMED_ARRAY: u8 = 4;

/// Codes of Linux's buttons.
const BTN_MISC: u32 = 0x100;
const BTN_MOUSE: u32 = 0x110;
const BTN_JOYSTICK: u32 = 0x120;
const BTN_GAMEPAD: u32 = 0x130;
const BTN_TRIGGER_HAPPY: u32 = 0x2c0;
const KEY_MACRO1: u32 = 0x290;
/// Left to task, and tools and touches: by them programs know a pointer.
const POINTING: [std::ops::RangeInclusive<u32>; 2] = [BTN_MOUSE..=0x117, 0x140..=0x14f];

/// Consumer usages that become keys of the main block: the arrows, Escape, plus and minus of the keypad (Menu Up to Menu Value Decrease),
/// Enter, Insert, Delete.
const CONSUMER_KEYS: [std::ops::RangeInclusive<u32>; 3] = [0x42..=0x48, 0x84..=0x84, 0x269..=0x26a];

/// A collection that is open: its type, and the usage that names it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Collection {
    pub(crate) kind: u8,
    pub(crate) usage: u32,
}

/// What was found of keys and pointers.
#[derive(Debug, Default)]
pub(crate) struct InputKinds {
    pub(crate) types: bool,
    pub(crate) points: bool,
    pub(crate) input: bool,
}

/// Where a usage is.
pub(crate) struct Field {
    /// The innermost application and physical collections; 0 where there is none.
    pub(crate) application: u32,
    pub(crate) physical: u32,
    /// The collection in which the first usage was named.
    pub(crate) inside: Option<Collection>,
    pub(crate) flags: u32,
}

impl InputKinds {
    /// Takes a collection. By those outside Windows chooses drivers; by application collections so does Linux.
    pub(crate) fn collection(&mut self, collection: Collection, outermost: bool) {
        if matches!(collection.kind, APPLICATION | PHYSICAL) {
            self.input |= INPUT.iter().any(|usages| usages.contains(&collection.usage));
        }
        if outermost || collection.kind == APPLICATION {
            let usage = collection.usage;
            self.types |= matches!(usage, KEYBOARD | KEYPAD);
            self.points |= matches!(usage, POINTER | MOUSE) || DIGITIZERS.contains(&usage);
        }
    }

    /// Takes a usage of an input report.
    pub(crate) fn usage(&mut self, usage: u32, field: &Field) {
        if field.flags & CONSTANT != 0 {
            return;
        }
        let id = usage & 0xffff;
        match usage >> 16 {
            // The first are no keys but errors.
            page::KEYBOARD => self.types |= id > 3,
            page::CONSUMER => self.types |= CONSUMER_KEYS.iter().any(|keys| keys.contains(&id)),
            // Arrows of system menus, of which Linux looks at the low byte alone.
            page::GENERIC_DESKTOP if matches!(id & 0xff, 0x8a..=0x8d) => self.types = true,
            page::GENERIC_DESKTOP => {
                let moves = matches!(usage, X | Y) && field.flags & RELATIVE != 0;
                self.points |= moves && field.application != SYSTEM_CONTROL;
            }
            page::BUTTON => {
                let code = button(id, field);
                self.points |= POINTING.iter().any(|codes| codes.contains(&code));
            }
            // Tip pressure, in range, touch, invert, the switches of a tip, barrel and eraser.
            page::DIGITIZERS => {
                self.points |= matches!(id & 0xff, 0x30 | 0x32 | 0x33 | 0x3c | 0x42..=0x46 | 0x5a);
            }
            _ => {}
        }
    }
}

/// Returns Linux's code of a button, which depends on where it is.
fn button(id: u32, field: &Field) -> u32 {
    let number = id.wrapping_sub(1) & 0xffff;
    let programmable = Collection { kind: NAMED_ARRAY, usage: PROGRAMMABLE_BUTTONS };
    let after = |first: u32, count: u32| match number {
        number if number < count => first + number,
        number => BTN_TRIGGER_HAPPY + (number - count),
    };
    match (field.application, field.physical) {
        (MOUSE | POINTER, _) => BTN_MOUSE + number,
        (JOYSTICK, _) => after(BTN_JOYSTICK, 16),
        (GAMEPAD, _) => after(BTN_GAMEPAD, 16),
        (CONSUMER_CONTROL, _) if field.inside == Some(programmable) => after(KEY_MACRO1, 30),
        (_, MOUSE | POINTER) => BTN_MOUSE + number,
        (_, JOYSTICK) => BTN_JOYSTICK + number,
        (_, GAMEPAD) => BTN_GAMEPAD + number,
        _ => BTN_MISC + number,
    }
}
