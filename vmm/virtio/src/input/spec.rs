//! Constants of the input device (virtio 1.2 section 5.8) and of Linux's input events.

/// Device ID (section 5.8.1).
pub(super) const DEVICE_ID: u32 = 18;
/// Queues (section 5.8.2): events to the driver, status (lights) from it.
pub(super) const EVENT_QUEUE: usize = 0;
/// The queue on which the driver says what LEDs show (virtio 1.2 section 5.8.2).
pub(super) const STATUS_QUEUE: usize = 1;
/// Descriptors of the event queue and of the status queue.
pub(super) const QUEUE_SIZES: [u16; 2] = [64, 64];
/// `struct virtio_input_event`: type, code, value.
pub(super) const EVENT_BYTES: usize = 8;

/// `struct virtio_input_config` (section 5.8.4): select, subsel, size, reserved, then up to 128 bytes.
pub(super) mod config {
    pub(crate) const SELECT: usize = 0;
    pub(crate) const SUBSEL: usize = 1;
    pub(crate) const SIZE: usize = 2;
    pub(crate) const DATA: usize = 8;

    pub(crate) const ID_NAME: u8 = 0x01;
    pub(crate) const ID_SERIAL: u8 = 0x02;
    pub(crate) const ID_DEVIDS: u8 = 0x03;
    pub(crate) const EV_BITS: u8 = 0x11;
    pub(crate) const ABS_INFO: u8 = 0x12;
}

/// Event types (`linux/input-event-codes.h`).
pub(super) const EV_KEY: u16 = 0x01;
pub(super) const EV_REL: u16 = 0x02;
pub(super) const EV_ABS: u16 = 0x03;
pub(super) const EV_LED: u16 = 0x11;
/// See [`EV_KEY`]: the driver repeats held keys.
pub(super) const EV_REP: u16 = 0x14;

/// Keys a keyboard has: `KEY_ESC` to `KEY_MICMUTE`.
pub(super) const KEYS: std::ops::RangeInclusive<u16> = 1..=248;
/// `BTN_LEFT` to `BTN_EXTRA`.
pub(super) const BUTTONS: std::ops::RangeInclusive<u16> = 0x110..=0x114;
/// `REL_HWHEEL`, `REL_WHEEL` and their high-resolution forms.
pub(super) const WHEELS: [u16; 4] = [0x06, 0x08, 0x0b, 0x0c];
/// `ABS_X`, `ABS_Y`.
pub(super) const AXES: [u16; 2] = [0, 1];
/// The last position on either axis.
pub(super) const AXIS_MAX: u32 = 32767;
/// `LED_NUML`, `LED_CAPSL`, `LED_SCROLLL`.
pub(super) const LEDS: [u16; 3] = [0, 1, 2];
/// `BUS_VIRTUAL`.
pub(super) const BUS_VIRTUAL: u16 = 0x06;
/// The highest code of any type (`KEY_MAX`).
pub(super) const CODE_MAX: u16 = 0x2ff;
