//! A storage device in memory, for tests: [`usbstick`] behind the host end of a usbredir stream. It keeps account of what reached it.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a model for tests"
)]

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};

use usbredir::packet::{Bulk, Control, DeviceConnect, Interface, Speed};
use usbredir::packet::{ENDPOINTS, EndpointInfo, EndpointType, endpoint_index};
use usbredir::{Body, Packet, Status};

use crate::descriptors::Pinned;
pub use usbstick::{BLOCK, MaxLun, Quirks};
use usbstick::{End, Input, Storage};

/// Address of the bulk endpoint towards the host.
pub const INPUT: u8 = 0x81;
/// Address of the bulk endpoint towards the stick.
pub const OUTPUT: u8 = 0x02;

/// The device descriptor: 1d6b is nobody's storage.
pub const DEVICE: [u8; 18] =
    [18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x6b, 0x1d, 0x42, 0x00, 0x03, 0x01, 1, 2, 3, 1];

/// Returns a configuration with Bulk-Only Transport, and UAS as alternate setting 1 if `uas`.
pub fn configuration(uas: bool) -> Vec<u8> {
    let mut raw = vec![9, 2, 0, 0, 1, 1, 0, 0x80, 50];
    raw.extend([9, 4, 0, 0, 2, 8, 6, 0x50, 0]);
    raw.extend([7, 5, INPUT, 2, 0, 2, 0, 7, 5, OUTPUT, 2, 0, 2, 0]);
    if uas {
        raw.extend([9, 4, 0, 1, 4, 8, 6, 0x62, 0]);
        for (pipe, address) in [(1, 0x04), (2, 0x83), (3, INPUT), (4, OUTPUT)] {
            // Endpoint, SuperSpeed companion, pipe usage.
            raw.extend([7, 5, address, 2, 0, 2, 0, 6, 0x30, 0, 0, 0, 0, 4, 0x24, pipe, 0]);
        }
    }
    let total = raw.len() as u16;
    raw[2..4].copy_from_slice(&total.to_le_bytes());
    raw
}

/// Returns what the broker would have read of it.
pub fn pinned(uas: bool) -> Pinned {
    Pinned { device: DEVICE, configurations: vec![configuration(uas)], others: Vec::new() }
}

/// A USB stick in memory, which speaks Bulk-Only Transport.
#[derive(Debug)]
pub struct Stick {
    /// What is behind its two bulk endpoints.
    pub storage: Storage,
    /// Control requests that reached it, as type and request.
    pub requests: Vec<(u8, u8)>,
    /// What it answers GET_DESCRIPTOR with.
    pub descriptors: Pinned,
    waiting: VecDeque<(u64, u32)>,
}

impl Deref for Stick {
    type Target = Storage;

    fn deref(&self) -> &Storage {
        &self.storage
    }
}

impl DerefMut for Stick {
    fn deref_mut(&mut self) -> &mut Storage {
        &mut self.storage
    }
}

impl Stick {
    /// Makes a stick of so many blocks, with a pattern on it.
    pub fn new(blocks: usize) -> Self {
        Self {
            storage: Storage::new(blocks),
            requests: Vec::new(),
            descriptors: pinned(true),
            waiting: VecDeque::new(),
        }
    }

    /// Returns what its host end says when it is plugged in.
    pub fn hello() -> Vec<Packet> {
        let mut endpoints = Box::new([EndpointInfo::default(); ENDPOINTS]);
        let kinds = [
            (0, EndpointType::Control),
            (0x80, EndpointType::Control),
            (INPUT, EndpointType::Bulk),
            (OUTPUT, EndpointType::Bulk),
        ];
        for (address, kind) in kinds {
            endpoints[endpoint_index(address)].kind = kind;
        }
        let [.., v0, v1, p0, p1, d0, d1, _, _, _, _] = DEVICE;
        let connect = DeviceConnect {
            speed: Speed::High,
            class: 0,
            subclass: 0,
            protocol: 0,
            vendor: u16::from_le_bytes([v0, v1]),
            product: u16::from_le_bytes([p0, p1]),
            version: u16::from_le_bytes([d0, d1]),
        };
        let interface = Interface { number: 0, class: 8, subclass: 6, protocol: 0x50 };
        [
            Body::EndpointInfo(endpoints),
            Body::InterfaceInfo(vec![interface]),
            Body::DeviceConnect(connect),
        ]
        .into_iter()
        .map(|body| Packet { id: 0, body })
        .collect()
    }

    /// Takes a packet of the guest's end; what it leads to is added to `answers`.
    pub fn take(&mut self, packet: Packet, answers: &mut Vec<Packet>) {
        let Packet { id, body } = packet;
        match body {
            Body::Reset => {
                self.storage.reset();
                for (id, _) in self.waiting.drain(..) {
                    answers.push(input(id, Status::Cancelled, Vec::new()));
                }
            }
            Body::CancelDataPacket => {
                if let Some(at) = self.waiting.iter().position(|(waiting, _)| *waiting == id) {
                    self.waiting.remove(at);
                    answers.push(input(id, Status::Cancelled, Vec::new()));
                }
            }
            Body::SetConfiguration(configuration) => {
                self.storage.reset();
                let status = Status::Success;
                let body = Body::ConfigurationStatus { status, configuration };
                answers.push(Packet { id, body });
            }
            Body::GetConfiguration => {
                let body = Body::ConfigurationStatus { status: Status::Success, configuration: 1 };
                answers.push(Packet { id, body });
            }
            Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
                self.storage.reset();
                let status = Status::Success;
                let body = Body::AltSettingStatus { status, interface, alternate: 0 };
                answers.push(Packet { id, body });
            }
            Body::Control(control) => answers.push(self.control(id, control)),
            Body::Bulk(bulk) if bulk.endpoint == OUTPUT => {
                let (status, length) = if self.storage.output(&bulk.data) {
                    (Status::Success, bulk.length)
                } else {
                    (Status::Stall, 0)
                };
                let body = Body::Bulk(Bulk { status, length, data: Vec::new(), ..bulk });
                answers.push(Packet { id, body });
            }
            Body::Bulk(bulk) if bulk.endpoint == INPUT => {
                self.waiting.push_back((id, bulk.length));
            }
            Body::Bulk(_) => panic!("an endpoint that is not there"),
            _ => {}
        }
        self.serve(answers);
    }

    fn control(&mut self, id: u64, mut control: Control) -> Packet {
        self.requests.push((control.request_type, control.request));
        let [index, kind] = control.value.to_le_bytes();
        let data = match (control.request_type, control.request) {
            (0x80, 6) if kind == 1 => Some(self.descriptors.device.to_vec()),
            (0x80, 6) if kind == 2 => {
                self.descriptors.configurations.get(usize::from(index)).cloned()
            }
            (0x80..=0x82, 0) => Some(vec![0, 0]),
            (0xa1, 0xfe) => self.storage.max_lun(),
            (0x21, 0xff) => {
                self.storage.bulk_only_reset();
                Some(Vec::new())
            }
            (0x02, 1) => {
                let [endpoint, _] = control.index.to_le_bytes();
                self.storage.clear_halt(endpoint);
                Some(Vec::new())
            }
            _ => None,
        };
        control.status = if data.is_some() { Status::Success } else { Status::Stall };
        control.data = data.unwrap_or_default();
        control.data.truncate(control.length.into());
        control.length = control.data.len() as u16;
        Packet { id, body: Body::Control(control) }
    }

    fn serve(&mut self, answers: &mut Vec<Packet>) {
        while let Some(&(id, length)) = self.waiting.front() {
            let Some(Input { end, data }) = self.storage.input(length as usize) else { break };
            let status = match end {
                End::Success => Status::Success,
                End::Stall => Status::Stall,
                End::Babble => Status::Babble,
            };
            answers.push(input(id, status, data));
            self.waiting.pop_front();
        }
    }
}

fn input(id: u64, status: Status, data: Vec<u8>) -> Packet {
    let length = data.len() as u32;
    Packet { id, body: Body::Bulk(Bulk { endpoint: INPUT, status, length, stream: 0, data }) }
}
