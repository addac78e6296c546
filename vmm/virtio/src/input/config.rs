//! The configuration space: what the driver asks of the device by `select` and `subsel` (virtio 1.2 section 5.8.4).

use std::sync::{Mutex, MutexGuard, PoisonError};

use seat_link::Event;

use super::spec::{self, config};
use crate::DeviceConfig;

/// What the device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A keyboard with every key and three lights.
    Keyboard,
    /// A pointer that says where it is, with five buttons and wheels.
    Pointer,
}

/// The configuration space, and what the driver selected in it.
#[derive(Debug)]
pub(super) struct Config {
    kind: Kind,
    /// The registers `select` and `subsel` (virtio 1.2 section 5.8.4).
    selected: Mutex<(u8, u8)>,
}

impl Config {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, selected: Mutex::default() }
    }

    fn selected(&self) -> MutexGuard<'_, (u8, u8)> {
        self.selected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the device can report this.
    pub(super) fn has(&self, event: &Event) -> bool {
        *event == Event::SYN || self.reports(event.kind, event.code)
    }

    fn answer(&self, selected: (u8, u8)) -> Vec<u8> {
        match selected {
            (config::ID_NAME, 0) => match self.kind {
                Kind::Keyboard => b"Bulkhead keyboard".to_vec(),
                Kind::Pointer => b"Bulkhead pointer".to_vec(),
            },
            (config::ID_SERIAL, 0) => b"seat0".to_vec(),
            (config::ID_DEVIDS, 0) => {
                let product = match self.kind {
                    Kind::Keyboard => 1,
                    Kind::Pointer => 2,
                };
                [spec::BUS_VIRTUAL, 0, product, 1].iter().flat_map(|id| id.to_le_bytes()).collect()
            }
            (config::EV_BITS, kind) => self.bitmap(kind.into()),
            (config::ABS_INFO, axis) if self.reports(spec::EV_ABS, axis.into()) => {
                // Minimum, maximum, fuzz, flat, resolution.
                let info = [0, spec::AXIS_MAX, 0, 0, 0];
                info.iter().flat_map(|field| field.to_le_bytes()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns whether the device reports this code under this event type.
    fn reports(&self, kind: u16, code: u16) -> bool {
        match (self.kind, kind) {
            (Kind::Keyboard, spec::EV_KEY) => spec::KEYS.contains(&code),
            (Kind::Keyboard, spec::EV_LED) => spec::LEDS.contains(&code),
            // One bit, so that the driver sees the type.
            (Kind::Keyboard, spec::EV_REP) => code == 0,
            (Kind::Pointer, spec::EV_KEY) => spec::BUTTONS.contains(&code),
            (Kind::Pointer, spec::EV_REL) => spec::WHEELS.contains(&code),
            (Kind::Pointer, spec::EV_ABS) => spec::AXES.contains(&code),
            _ => false,
        }
    }

    /// Returns the codes reported under an event type as bits; none if there is none.
    fn bitmap(&self, kind: u16) -> Vec<u8> {
        let mut bits = Vec::new();
        for code in (0..=spec::CODE_MAX).filter(|code| self.reports(kind, *code)) {
            bits.resize(usize::from(code / 8) + 1, 0u8);
            if let Some(byte) = bits.last_mut() {
                *byte |= 1 << (code % 8);
            }
        }
        bits
    }
}

impl DeviceConfig for Config {
    fn read(&self, offset: usize, data: &mut [u8]) {
        let (select, subsel) = *self.selected();
        let answer = self.answer((select, subsel));
        for (at, byte) in data.iter_mut().enumerate() {
            *byte = match offset.checked_add(at) {
                Some(config::SELECT) => select,
                Some(config::SUBSEL) => subsel,
                Some(config::SIZE) => u8::try_from(answer.len()).unwrap_or(0),
                Some(at) => {
                    let at = at.checked_sub(config::DATA);
                    at.and_then(|at| answer.get(at)).copied().unwrap_or(0)
                }
                None => 0,
            };
        }
    }

    fn write(&self, offset: usize, data: &[u8]) {
        let mut selected = self.selected();
        for (at, byte) in data.iter().enumerate() {
            match offset.checked_add(at) {
                Some(config::SELECT) => selected.0 = *byte,
                Some(config::SUBSEL) => selected.1 = *byte,
                _ => {}
            }
        }
    }

    fn reset(&self) {
        *self.selected() = (0, 0);
    }
}
