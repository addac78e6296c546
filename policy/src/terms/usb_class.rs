//! Classes of USB devices.

use std::fmt;

/// A USB class code (usb.org, Defined Class Codes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsbClass(pub u8);

impl UsbClass {
    /// Microphones, loudspeakers, MIDI.
    pub const AUDIO: Self = Self(0x01);
    /// Keyboards, mice, and other things a hand works.
    pub const HID: Self = Self(0x03);
    /// Sticks, disks, card readers for memory cards.
    pub const MASS_STORAGE: Self = Self(0x08);
    /// Hubs, which no guest ever gets.
    pub const HUB: Self = Self(0x09);
    /// Cameras that send moving pictures.
    pub const VIDEO: Self = Self(0x0e);
    /// Audio and video in one (class 10h).
    pub const AUDIO_VIDEO: Self = Self(0x10);
    /// Whatever its maker made it.
    pub const VENDOR_SPECIFIC: Self = Self(0xff);

    /// Every class that has a name, with it.
    pub const WORDS: [(&'static str, Self); 24] = [
        ("audio", Self::AUDIO),
        ("communications", Self(0x02)),
        ("hid", Self::HID),
        ("physical", Self(0x05)),
        ("image", Self(0x06)),
        ("printer", Self(0x07)),
        ("mass-storage", Self::MASS_STORAGE),
        ("hub", Self::HUB),
        ("cdc-data", Self(0x0a)),
        ("smart-card", Self(0x0b)),
        ("content-security", Self(0x0d)),
        ("video", Self::VIDEO),
        ("personal-healthcare", Self(0x0f)),
        ("audio-video", Self::AUDIO_VIDEO),
        ("billboard", Self(0x11)),
        ("type-c-bridge", Self(0x12)),
        ("bulk-display", Self(0x13)),
        ("mctp", Self(0x14)),
        ("i3c", Self(0x3c)),
        ("diagnostic", Self(0xdc)),
        ("wireless", Self(0xe0)),
        ("miscellaneous", Self(0xef)),
        ("application-specific", Self(0xfe)),
        ("vendor-specific", Self::VENDOR_SPECIFIC),
    ];
}

impl fmt::Display for UsbClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::WORDS.iter().find(|(_, class)| class == self) {
            Some((word, _)) => f.write_str(word),
            None => write!(f, "class {:#04x}", self.0),
        }
    }
}
