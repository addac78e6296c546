//! What a person did, as the guest's input devices will report it.

use crate::wire::{Fields, Malformed, Put};

/// Which of the guest's devices reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The domain's virtual keyboard.
    Keyboard,
    /// The absolute pointer with buttons and wheel.
    Pointer,
}

/// One event, as Linux has it (`linux/input.h`, `struct input_event` without its time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's type, an `EV_*` of `linux/input-event-codes.h`.
    pub kind: u16,
    /// `KEY_*`, `BTN_*`, `REL_*`, `ABS_*` or `SYN_*`.
    pub code: u16,
    /// 1 down, 0 up; a distance; a position.
    pub value: i32,
}

impl Event {
    /// The most events in one message.
    pub const MAX: usize = 64;

    /// The end of a report (`EV_SYN`, `SYN_REPORT`).
    pub const SYN: Self = Self { kind: 0, code: 0, value: 0 };

    pub(crate) fn put(self, packet: &mut Vec<u8>) {
        packet.put_u16(self.kind);
        packet.put_u16(self.code);
        packet.put_u32(self.value.cast_unsigned());
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        Ok(Self { kind: fields.u16()?, code: fields.u16()?, value: fields.u32()?.cast_signed() })
    }
}
