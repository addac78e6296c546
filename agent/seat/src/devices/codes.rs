//! Codes of surfaces (`linux/input-event-codes.h`).

pub(super) const SYN_REPORT: u16 = 0;
/// The kernel lost events.
pub(super) const SYN_DROPPED: u16 = 3;

pub(super) const ABS_X: u16 = 0x00;
pub(super) const ABS_Y: u16 = 0x01;
pub(super) const ABS_PRESSURE: u16 = 0x18;
/// The contact that the next `ABS_MT` events are of.
pub(super) const ABS_MT_SLOT: u16 = 0x2f;
pub(super) const ABS_MT_TOUCH_MAJOR: u16 = 0x30;
pub(super) const ABS_MT_POSITION_X: u16 = 0x35;
pub(super) const ABS_MT_POSITION_Y: u16 = 0x36;
pub(super) const ABS_MT_TOOL_TYPE: u16 = 0x37;
/// A contact's number, -1 when it ends.
pub(super) const ABS_MT_TRACKING_ID: u16 = 0x39;
pub(super) const ABS_MT_PRESSURE: u16 = 0x3a;
/// `ABS_MT_TOOL_TYPE` of what the device itself knows for a palm.
pub(super) const MT_TOOL_PALM: i32 = 2;

pub(super) const BTN_RIGHT: u16 = 0x111;
pub(super) const BTN_MIDDLE: u16 = 0x112;
pub(super) const BTN_TOOL_PEN: u16 = 0x140;
pub(super) const BTN_TOOL_FINGER: u16 = 0x145;
pub(super) const BTN_TOOL_QUINTTAP: u16 = 0x148;
pub(super) const BTN_STYLUS: u16 = 0x14b;
pub(super) const BTN_STYLUS2: u16 = 0x14c;
pub(super) const BTN_TOOL_DOUBLETAP: u16 = 0x14d;
pub(super) const BTN_TOOL_TRIPLETAP: u16 = 0x14e;
pub(super) const BTN_TOOL_QUADTAP: u16 = 0x14f;
/// All of the above, the tools and what is done with them.
pub(super) const TOOLS: std::ops::RangeInclusive<u16> = BTN_TOOL_PEN..=BTN_TOOL_QUADTAP;

pub(super) const REL_X: u16 = 0x00;
pub(super) const REL_Y: u16 = 0x01;
pub(super) const REL_HWHEEL: u16 = 0x06;
pub(super) const REL_WHEEL: u16 = 0x08;
pub(super) const REL_WHEEL_HI_RES: u16 = 0x0b;
pub(super) const REL_HWHEEL_HI_RES: u16 = 0x0c;

/// Properties of input devices (`INPUT_PROP_*` of `linux/input-event-codes.h`).
pub(super) mod property {
    pub(crate) const POINTER: u16 = 0;
    pub(crate) const DIRECT: u16 = 1;
    pub(crate) const BUTTONPAD: u16 = 2;
    pub(crate) const ACCELEROMETER: u16 = 6;
}
