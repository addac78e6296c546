//! A security key as a guest's browser first meets it: a HID device of the FIDO usage page that answers CTAPHID_INIT and
//! CTAPHID_PING (FIDO Client to Authenticator Protocol 2.1, section 11.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use usbredir::packet::{
    Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, Interrupt, Speed,
    endpoint_index,
};
use usbredir::{Body, Packet, Status};

use super::Model;

/// Vendor and product: 1209 is for hardware without a company.
const VENDOR: u16 = 0x1209;
/// See [`VENDOR`].
const PRODUCT: u16 = 0x0042;
const INPUT: u8 = 0x81;
const OUTPUT: u8 = 0x01;
const REPORT: usize = 64;

const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 0x09, 0x12, 0x42, 0x00, 0, 1, 1, 2, 0, 1];
/// One interface with an interrupt endpoint each way.
const CONFIGURATION: [u8; 41] = [
    9, 2, 41, 0, 1, 1, 0, 0x80, 50, //
    9, 4, 0, 0, 2, 3, 0, 0, 0, //
    9, 0x21, 0x11, 0x01, 0, 1, 0x22, 34, 0, //
    7, 5, INPUT, 3, 64, 0, 5, //
    7, 5, OUTPUT, 3, 64, 0, 5,
];
/// Usage page f1d0, usage 1; 64 bytes each way.
const REPORT_DESCRIPTOR: [u8; 34] = [
    0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, //
    0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x81, 0x02, //
    0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02, //
    0xc0,
];

/// A keyboard's eight bytes: an application collection of usage Keyboard, as long as the security key's.
const KEYBOARD: [u8; 34] = [
    0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, //
    0x19, 0x00, 0x29, 0x65, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x08, 0x81,
    0x00, //
    0x75, 0x08, 0x95, 0x38, 0x81, 0x01, 0x75, 0x08, 0x75, 0x08, 0xc0,
];

/// See the module.
#[derive(Debug, Default)]
pub struct SecurityKey {
    /// Set once it has given its report descriptor. With another holder of this it is a keyboard from then on.
    keyboard: Arc<AtomicBool>,
    receiving: bool,
    /// What it says, not asked for yet.
    said: Vec<Vec<u8>>,
    sent: u64,
}

impl SecurityKey {
    /// One that is a keyboard once it has given its report descriptor, and says so here.
    #[must_use]
    pub fn impostor(turned: Arc<AtomicBool>) -> Self {
        Self { keyboard: turned, ..Self::default() }
    }

    /// A message of the host's: 64 bytes.
    fn message(&mut self, message: &[u8]) {
        let Some((channel, [command, _, length, data @ ..])) = message.split_at_checked(4) else {
            return;
        };
        let data = data.get(..usize::from(*length)).unwrap_or_default();
        let answer = match command {
            // CTAPHID_INIT: the nonce, a channel, versions, and what it can.
            0x86 => [data, &[1, 2, 3, 4, 2, 1, 0, 0, 0]].concat(),
            // CTAPHID_PING.
            0x81 => data.to_vec(),
            _ => return,
        };
        let mut report =
            [channel, &[*command, 0, u8::try_from(answer.len()).unwrap_or(0)], &answer].concat();
        report.resize(REPORT, 0);
        self.said.push(report);
    }

    fn say(&mut self, answers: &mut Vec<Packet>) {
        if !self.receiving {
            return;
        }
        for data in self.said.drain(..) {
            self.sent += 1;
            let length = u16::try_from(data.len()).unwrap_or(0);
            let (endpoint, status) = (INPUT, Status::Success);
            let body = Body::Interrupt(Interrupt { endpoint, status, length, data });
            answers.push(Packet { id: self.sent, body });
        }
    }

    /// A keyboard's, the second time and later, if somebody wants that.
    fn report(&self) -> Vec<u8> {
        let wanted = Arc::strong_count(&self.keyboard) > 1;
        let again = self.keyboard.swap(true, Ordering::Relaxed);
        if wanted && again { KEYBOARD.to_vec() } else { REPORT_DESCRIPTOR.to_vec() }
    }

    fn control(&self, mut control: Control) -> Control {
        let [index, kind] = control.value.to_le_bytes();
        let text = |text: &str| {
            let mut data = vec![0, 3];
            data.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
            data[0] = u8::try_from(data.len()).unwrap_or(0);
            data
        };
        let data = match (control.request_type, control.request, kind) {
            (0x80, 6, 1) => Some(DEVICE.to_vec()),
            (0x80, 6, 2) => Some(CONFIGURATION.to_vec()),
            (0x80, 6, 3) if index == 0 => Some(vec![4, 3, 9, 4]),
            (0x80, 6, 3) => Some(text(if index == 1 { "Hospital" } else { "Security key" })),
            (0x81, 6, 0x22) => Some(self.report()),
            (0x80..=0x82, 0, _) => Some(vec![0, 0]),
            // SET_IDLE, CLEAR_FEATURE(ENDPOINT_HALT).
            (0x21, 10, _) | (0x02, 1, _) => Some(Vec::new()),
            _ => None,
        };
        control.status = if data.is_some() { Status::Success } else { Status::Stall };
        control.data = data.unwrap_or_default();
        control.data.truncate(control.length.into());
        control.length = u16::try_from(control.data.len()).unwrap_or(0);
        control
    }
}

impl Model for SecurityKey {
    fn hello(&self) -> Vec<Packet> {
        let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
        let kinds = [
            (0, EndpointType::Control),
            (0x80, EndpointType::Control),
            (INPUT, EndpointType::Interrupt),
            (OUTPUT, EndpointType::Interrupt),
        ];
        for (address, kind) in kinds {
            if let Some(place) = endpoints.get_mut(endpoint_index(address)) {
                *place = EndpointInfo { kind, interval: 5, interface: 0, max_packet_size: 64 };
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
        let interface = Interface { number: 0, class: 3, subclass: 0, protocol: 0 };
        let bodies = [
            Body::EndpointInfo(endpoints),
            Body::InterfaceInfo(vec![interface]),
            Body::DeviceConnect(connect),
        ];
        bodies.into_iter().map(|body| Packet { id: 0, body }).collect()
    }

    fn take(&mut self, Packet { id, body }: Packet, answers: &mut Vec<Packet>) {
        let status = Status::Success;
        match body {
            Body::Control(control) => {
                answers.push(Packet { id, body: Body::Control(self.control(control)) });
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
                self.receiving = true;
                answers
                    .push(Packet { id, body: Body::InterruptReceivingStatus { status, endpoint } });
            }
            Body::StopInterruptReceiving { endpoint } => {
                self.receiving = false;
                answers
                    .push(Packet { id, body: Body::InterruptReceivingStatus { status, endpoint } });
            }
            Body::Interrupt(interrupt) => {
                self.message(&interrupt.data);
                let body = Body::Interrupt(Interrupt { status, data: Vec::new(), ..interrupt });
                answers.push(Packet { id, body });
            }
            _ => {}
        }
        self.say(answers);
    }
}
