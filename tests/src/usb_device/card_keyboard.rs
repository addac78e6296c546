//! A keyboard with a smart-card reader in it: a boot keyboard that presses the key A each time its lights are set, and a CCID
//! interface that nobody asks anything (Device Class Definition for HID 1.11, appendix B.1; CCID 1.1, section 5.1).

use usbredir::packet::{
    Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, Interrupt, Speed,
    endpoint_index,
};
use usbredir::{Body, Packet, Status};

use super::Model;

/// Vendor and product: 1209 is for hardware without a company.
const VENDOR: u16 = 0x1209;
/// See [`VENDOR`].
const PRODUCT: u16 = 0x0043;
/// The keyboard's endpoint.
const KEYS: u8 = 0x81;
/// The reader's endpoints.
const READER_IN: u8 = 0x82;
/// See [`READER_IN`].
const READER_OUT: u8 = 0x02;

const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 0x09, 0x12, 0x43, 0x00, 0, 1, 1, 2, 0, 1];
const KEYBOARD: [u8; 25] = [
    9, 4, 0, 0, 1, 3, 1, 1, 0, //
    9, 0x21, 0x11, 0x01, 0, 1, 0x22, 63, 0, //
    7, 5, KEYS, 3, 8, 0, 10,
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

/// See the module.
#[derive(Debug, Default)]
pub struct CardKeyboard {
    receiving: bool,
    sent: u64,
}

impl CardKeyboard {
    fn press(&mut self, answers: &mut Vec<Packet>) {
        for data in [PRESS, [0; 8]] {
            self.sent += 1;
            let (endpoint, status, length) = (KEYS, Status::Success, 8);
            let body = Body::Interrupt(Interrupt { endpoint, status, length, data: data.to_vec() });
            answers.push(Packet { id: self.sent, body });
        }
    }
}

fn configuration() -> Vec<u8> {
    let total = u8::try_from(9 + KEYBOARD.len() + READER.len()).unwrap_or(0);
    [&[9, 2, total, 0, 2, 1, 0, 0x80, 50], &KEYBOARD[..], &READER].concat()
}

fn control(mut control: Control) -> Control {
    let [index, kind] = control.value.to_le_bytes();
    let text = |text: &str| {
        let words: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        [&[u8::try_from(words.len() + 2).unwrap_or(0), 3], &words[..]].concat()
    };
    let data = match (control.request_type, control.request, kind) {
        (0x80, 6, 1) => Some(DEVICE.to_vec()),
        (0x80, 6, 2) => Some(configuration()),
        (0x80, 6, 3) if index == 0 => Some(vec![4, 3, 9, 4]),
        (0x80, 6, 3) => Some(text(if index == 1 { "Hospital" } else { "Card keyboard" })),
        (0x81, 6, 0x22) if control.index == 0 => Some(REPORT_DESCRIPTOR.to_vec()),
        (0x80..=0x82, 0, _) => Some(vec![0, 0]),
        // SET_IDLE, SET_REPORT of the lights, CLEAR_FEATURE(ENDPOINT_HALT).
        (0x21, 10 | 9, _) | (0x02, 1, _) => Some(Vec::new()),
        _ => None,
    };
    control.status = if data.is_some() { Status::Success } else { Status::Stall };
    control.data = data.unwrap_or_default();
    control.data.truncate(control.length.into());
    control.length = u16::try_from(control.data.len()).unwrap_or(0);
    control
}

impl Model for CardKeyboard {
    fn hello(&self) -> Vec<Packet> {
        let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
        for (address, kind, interface, max_packet_size) in [
            (0, EndpointType::Control, 0, 64),
            (0x80, EndpointType::Control, 0, 64),
            (KEYS, EndpointType::Interrupt, 0, 8),
            (READER_IN, EndpointType::Bulk, 1, 64),
            (READER_OUT, EndpointType::Bulk, 1, 64),
        ] {
            if let Some(place) = endpoints.get_mut(endpoint_index(address)) {
                *place = EndpointInfo { kind, interval: 10, interface, max_packet_size };
            }
        }
        let connect = DeviceConnect {
            speed: Speed::Full,
            class: 0,
            subclass: 0,
            protocol: 0,
            vendor: VENDOR,
            product: PRODUCT,
            version: 0x0100,
        };
        let interfaces = vec![
            Interface { number: 0, class: 3, subclass: 1, protocol: 1 },
            Interface { number: 1, class: 11, subclass: 0, protocol: 0 },
        ];
        let bodies = [
            Body::EndpointInfo(endpoints),
            Body::InterfaceInfo(interfaces),
            Body::DeviceConnect(connect),
        ];
        bodies.into_iter().map(|body| Packet { id: 0, body }).collect()
    }

    fn take(&mut self, Packet { id, body }: Packet, answers: &mut Vec<Packet>) {
        let status = Status::Success;
        match body {
            Body::Control(asked) => {
                // SET_REPORT.
                let lights = (asked.request_type, asked.request) == (0x21, 9);
                answers.push(Packet { id, body: Body::Control(control(asked)) });
                if lights && self.receiving {
                    self.press(answers);
                }
            }
            Body::SetConfiguration(configuration) => {
                answers
                    .push(Packet { id, body: Body::ConfigurationStatus { status, configuration } });
            }
            Body::GetConfiguration => {
                let body = Body::ConfigurationStatus { status, configuration: 1 };
                answers.push(Packet { id, body });
            }
            Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
                let body = Body::AltSettingStatus { status, interface, alternate: 0 };
                answers.push(Packet { id, body });
            }
            Body::StartInterruptReceiving { endpoint } => {
                answers
                    .push(Packet { id, body: Body::InterruptReceivingStatus { status, endpoint } });
                self.receiving = true;
            }
            Body::StopInterruptReceiving { endpoint } => {
                self.receiving = false;
                answers
                    .push(Packet { id, body: Body::InterruptReceivingStatus { status, endpoint } });
            }
            // What it is asked as a reader it never answers.
            _ => {}
        }
    }
}
