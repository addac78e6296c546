//! What a HID report descriptor (HID 1.11, section 6.2.2) makes of a device: whether it can type or point.
//!
//! | file | |
//! | --- | --- |
//! | [`parser`] | items, collections and the usages of each field, as Linux's `hid-core` reads them |
//! | [`input`] | which usages become keys, buttons and axes, as Linux's `hid-input` maps them |
//!
//! The measure is the kernel and not the specification: what Linux makes an input device of, on the host or in a guest, is what can type.
//! Where kernels differ the more liberal reading counts, for a keyboard that was overlooked is worse than one too many. So do collections
//! by which Windows chooses its drivers: an application collection Keyboard types, whatever is in it.
//!
//! Left out: the meaning of reports, feature reports (they are no input), and what a driver for one vendor's device makes of fields
//! of that vendor's own.
//! ```
//! // The report descriptor of a mouse with one button and two axes.
//! let mouse = [
//!     0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, 0x09, 0x01, 0xa1, 0x00, // Mouse, Pointer
//!     0x05, 0x09, 0x19, 0x01, 0x29, 0x01, 0x15, 0x00, 0x25, 0x01, 0x95, 0x01, 0x75, 0x01, 0x81, 0x02, // a button
//!     0x95, 0x01, 0x75, 0x07, 0x81, 0x03, // padding
//!     0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x02, 0x81, 0x06, // X and Y
//!     0xc0, 0xc0,
//! ];
//! let uses = hidreport::Uses::of(&mouse);
//! assert!(uses.points && !uses.types && uses.whole);
//! ```
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod input;
mod parser;

#[cfg(test)]
mod tests;

/// Longest report descriptor that is read, in bytes. Linux reads no longer ones, or, since 6.14, up to 16384: of a longer one not
/// everything is known.
pub const DESCRIPTOR_MAX: usize = 4096;

/// What a device with a report descriptor can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// It has keys that type or move the text cursor.
    pub types: bool,
    /// It moves or clicks a pointer: a mouse, a touch screen, a touchpad, a pen.
    pub points: bool,
    /// Linux makes an input device of it: beside what types or points, media keys, a gamepad.
    pub input: bool,
    /// The descriptor was read to its end, and makes sense. Otherwise it may do more than what was found: another reader may
    /// forgive what this one did not.
    pub whole: bool,
}

impl Uses {
    /// Reads a report descriptor. Total: at most [`DESCRIPTOR_MAX`] bytes are read, and no main item has more usages than Linux takes.
    #[must_use]
    pub fn of(report: &[u8]) -> Self {
        let mut found = input::InputKinds::default();
        let read = report.get(..DESCRIPTOR_MAX).unwrap_or(report);
        let sensible = parser::read(read, &mut found).is_ok();
        // A device that is asked for so much and gives it may have more.
        let whole = sensible && !report.is_empty() && report.len() < DESCRIPTOR_MAX;
        let input = found.input || found.types || found.points;
        Self { types: found.types, points: found.points, input, whole }
    }

    /// Returns whether it is what a person works with at the seat.
    #[must_use]
    pub fn types_or_points(self) -> bool {
        self.types || self.points
    }
}
