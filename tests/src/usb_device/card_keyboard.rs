//! A keyboard with a smart-card reader in it: a boot keyboard that presses the key A each time its lights are set, and a CCID
//! interface that nobody asks anything (Device Class Definition for HID 1.11, appendix B.1; CCID 1.1, section 5.1).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use usbredir::packet::{EndpointType, Interface};
use usbredir::{Body, Packet};

use super::Model;
use super::hid::{Facts, REPORTS, Reports};

/// The reader's bulk endpoint towards the host.
const READER_IN: u8 = 0x82;
/// The reader's bulk endpoint towards the device.
const READER_OUT: u8 = 0x02;

const KEYBOARD: [u8; 25] = [
    9, 4, 0, 0, 1, 3, 1, 1, 0, //
    9, 0x21, 0x11, 0x01, 0, 1, 0x22, 63, 0, //
    7, 5, REPORTS, 3, 8, 0, 10,
];
const READER: [u8; 23] = [
    9, 4, 1, 0, 2, 11, 0, 0, 0, //
    7, 5, READER_IN, 2, 64, 0, 0, //
    7, 5, READER_OUT, 2, 64, 0, 0,
];
/// Appendix B.1's: modifiers, five lights, six keys.
const REPORT_DESCRIPTOR: [u8; 63] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01,
    0x75, 0x01, 0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75, 0x01,
    0x05, 0x08, 0x19, 0x01, 0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06,
    0x75, 0x08, 0x15, 0x00, 0x25, 0x65, 0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81, 0x00, 0xc0,
];
/// The key A, and no key.
const PRESS: [u8; 8] = [0, 0, 4, 0, 0, 0, 0, 0];

/// A card reader with a keyboard in it, as QEMU's peer.
#[derive(Debug, Default)]
pub struct CardKeyboard {
    reports: Reports,
    settings: Arc<AtomicUsize>,
}

impl CardKeyboard {
    /// Returns how often its reader was put into its first setting so far.
    #[must_use]
    pub fn settings(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.settings)
    }
}

fn facts() -> Facts {
    Facts {
        product: 0x0043,
        name: "Card keyboard",
        descriptors: [&KEYBOARD[..], &READER].concat(),
        interfaces: vec![
            Interface { number: 0, class: 3, subclass: 1, protocol: 1 },
            Interface { number: 1, class: 11, subclass: 0, protocol: 0 },
        ],
        endpoints: vec![
            (REPORTS, EndpointType::Interrupt, 0, 8),
            (READER_IN, EndpointType::Bulk, 1, 64),
            (READER_OUT, EndpointType::Bulk, 1, 64),
        ],
        interval: 10,
    }
}

impl Model for CardKeyboard {
    fn hello(&self) -> Vec<Packet> {
        facts().hello()
    }

    fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        let Packet { id, body: Body::Control(asked) } = packet else {
            if let Body::SetAltSetting { interface: 1, alternate: 0 } = packet.body {
                self.settings.fetch_add(1, Ordering::Relaxed);
            }
            // What it is asked as a reader it never answers.
            return self.reports.take(packet, answers);
        };
        // SET_REPORT.
        let lights = (asked.request_type, asked.request) == (0x21, 9);
        let answer = facts().control(asked, || REPORT_DESCRIPTOR.to_vec());
        answers.push(Packet { id, body: Body::Control(answer) });
        if lights && self.reports.wanted {
            for data in [PRESS, [0; 8]] {
                self.reports.say(data.to_vec(), answers);
            }
        }
    }
}
