//! What the tests' own HID devices have in common: a full-speed device of one configuration whose first interface is HID, with an interrupt
//! endpoint for its reports (USB 2.0, chapter 9; Device Class Definition for HID 1.11).

use usbredir::packet::{
    Control, DeviceConnect, ENDPOINTS, EndpointInfo, EndpointType, Interface, Interrupt, Speed,
    endpoint_index,
};
use usbredir::{Body, Packet, Status};

/// Vendor: for hardware without a company.
const VENDOR: u16 = 0x1209;
/// Where reports come from.
pub(super) const REPORTS: u8 = 0x81;

/// What a device is.
pub(super) struct Facts {
    pub(super) product: u16,
    pub(super) name: &'static str,
    /// Interfaces and endpoints, as they follow the configuration's own descriptor.
    pub(super) descriptors: Vec<u8>,
    pub(super) interfaces: Vec<Interface>,
    /// Address, kind, interface, packet size, of those beside the control endpoint.
    pub(super) endpoints: Vec<(u8, EndpointType, u8, u16)>,
    /// Milliseconds between two reports.
    pub(super) interval: u8,
}

impl Facts {
    fn device(&self) -> Vec<u8> {
        let ids = [VENDOR, self.product, 0x0100].map(u16::to_le_bytes).concat();
        [&[18, 1, 0, 2, 0, 0, 0, 64], &ids[..], &[1, 2, 0, 1]].concat()
    }

    fn configuration(&self) -> Vec<u8> {
        let total = u8::try_from(9 + self.descriptors.len()).unwrap_or(0);
        let interfaces = u8::try_from(self.interfaces.len()).unwrap_or(0);
        [&[9, 2, total, 0, interfaces, 1, 0, 0x80, 50], &self.descriptors[..]].concat()
    }

    /// Returns what it says when it is plugged in.
    pub(super) fn hello(&self) -> Vec<Packet> {
        let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
        let control = [0, 0x80].map(|address| (address, EndpointType::Control, 0, 64));
        for (address, kind, interface, max_packet_size) in
            control.into_iter().chain(self.endpoints.iter().copied())
        {
            if let Some(place) = endpoints.get_mut(endpoint_index(address)) {
                *place = EndpointInfo { kind, interval: self.interval, interface, max_packet_size };
            }
        }
        let connect = DeviceConnect {
            speed: Speed::Full,
            class: 0,
            subclass: 0,
            protocol: 0,
            vendor: VENDOR,
            product: self.product,
            version: 0x0100,
        };
        let bodies = [
            Body::EndpointInfo(endpoints),
            Body::InterfaceInfo(self.interfaces.clone()),
            Body::DeviceConnect(connect),
        ];
        bodies.into_iter().map(|body| Packet { id: 0, body }).collect()
    }

    /// Returns the answer to a control request; `report` is the report descriptor of its first interface.
    pub(super) fn control(
        &self,
        mut control: Control,
        report: impl FnOnce() -> Vec<u8>,
    ) -> Control {
        let [index, kind] = control.value.to_le_bytes();
        let text = |text: &str| {
            let words: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            [&[u8::try_from(words.len() + 2).unwrap_or(0), 3], &words[..]].concat()
        };
        let data = match (control.request_type, control.request, kind) {
            (0x80, 6, 1) => Some(self.device()),
            (0x80, 6, 2) => Some(self.configuration()),
            (0x80, 6, 3) if index == 0 => Some(vec![4, 3, 9, 4]),
            (0x80, 6, 3) => Some(text(if index == 1 { "Hospital" } else { self.name })),
            (0x81, 6, 0x22) if control.index == 0 => Some(report()),
            (0x80..=0x82, 0, _) => Some(vec![0, 0]),
            // SET_IDLE, SET_REPORT, CLEAR_FEATURE(ENDPOINT_HALT).
            (0x21, 10 | 9, _) | (0x02, 1, _) => Some(Vec::new()),
            _ => None,
        };
        control.status = if data.is_some() { Status::Success } else { Status::Stall };
        control.data = data.unwrap_or_default();
        control.data.truncate(control.length.into());
        control.length = u16::try_from(control.data.len()).unwrap_or(0);
        control
    }
}

/// Its reports: whether the host takes them, and how many there were.
#[derive(Debug, Default)]
pub(super) struct Reports {
    pub(super) wanted: bool,
    sent: u64,
}

impl Reports {
    /// Sends the host a report.
    pub(super) fn say(&mut self, data: Vec<u8>, answers: &mut Vec<Packet>) {
        self.sent += 1;
        let length = u16::try_from(data.len()).unwrap_or(0);
        let (endpoint, status) = (REPORTS, Status::Success);
        let body = Body::Interrupt(Interrupt { endpoint, status, length, data });
        answers.push(Packet { id: self.sent, body });
    }

    /// Answers what every device is asked beside its control endpoint; what else it is asked it does not answer.
    pub(super) fn take(&mut self, Packet { id, body }: Packet, answers: &mut Vec<Packet>) {
        let status = Status::Success;
        let body = match body {
            Body::SetConfiguration(configuration) => {
                Body::ConfigurationStatus { status, configuration }
            }
            Body::GetConfiguration => Body::ConfigurationStatus { status, configuration: 1 },
            Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
                Body::AltSettingStatus { status, interface, alternate: 0 }
            }
            Body::StartInterruptReceiving { endpoint } => {
                self.wanted = true;
                Body::InterruptReceivingStatus { status, endpoint }
            }
            Body::StopInterruptReceiving { endpoint } => {
                self.wanted = false;
                Body::InterruptReceivingStatus { status, endpoint }
            }
            _ => return,
        };
        answers.push(Packet { id, body });
    }
}
