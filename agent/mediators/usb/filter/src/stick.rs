//! A storage device in memory, for tests: Bulk-Only Transport 1.0 with commands that read and commands
//! that write, behind the host end of a usbredir stream. It keeps account of what reached it.
#![allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "a model for tests"
)]

mod quirks;

use std::collections::VecDeque;

use usbredir::packet::{Bulk, Control, DeviceConnect, Interface, Speed};
use usbredir::packet::{ENDPOINTS, EndpointInfo, EndpointType, endpoint_index};
use usbredir::{Body, Packet, Status};

use crate::descriptors::Pinned;
pub use quirks::{MaxLun, Quirks};

/// Bytes of a block.
pub const BLOCK: usize = 512;
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

#[derive(Debug)]
enum Phase {
    Command,
    DataIn(Vec<u8>, usize),
    DataOut {
        at: Option<usize>,
        left: usize,
    },
    Status,
    /// After what was no CBW.
    Invalid,
}

/// A USB stick in memory, which speaks Bulk-Only Transport.
#[derive(Debug)]
pub struct Stick {
    /// Its blocks, one after the other.
    pub medium: Vec<u8>,
    /// Commands that reached it, in order, at most 4096.
    pub commands: Vec<u8>,
    /// Bytes of data phases that reached it.
    pub data_out: usize,
    /// A command reached it that changes something.
    pub harmed: bool,
    /// Control requests that reached it, as type and request.
    pub requests: Vec<(u8, u8)>,
    /// What it answers GET_DESCRIPTOR with.
    pub descriptors: Pinned,
    /// The next TEST UNIT READY fails with this sense key and code.
    pub attention: Option<(u8, u8)>,
    /// INQUIRY's first byte.
    pub kind: u8,
    /// What it does against the specification.
    pub quirks: Quirks,
    phase: Phase,
    /// What still comes before the status: an empty packet, a stall.
    before_status: (bool, bool),
    tag: [u8; 4],
    opcode: u8,
    residue: u32,
    status: u8,
    sense: (u8, u8),
    halted: [bool; 2],
    waiting: VecDeque<(u64, u32)>,
}

impl Stick {
    /// Makes a stick of so many blocks, with a pattern on it.
    pub fn new(blocks: usize) -> Self {
        let byte = |at: usize| (at / BLOCK * 7 + at % 251) as u8;
        Self {
            medium: (0..blocks * BLOCK).map(byte).collect(),
            commands: Vec::new(),
            data_out: 0,
            harmed: false,
            requests: Vec::new(),
            descriptors: pinned(true),
            attention: None,
            kind: 0,
            quirks: Quirks::default(),
            phase: Phase::Command,
            before_status: (false, false),
            tag: [0; 4],
            opcode: 0,
            residue: 0,
            status: 0,
            sense: (0, 0),
            halted: [false; 2],
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
                self.phase = Phase::Command;
                self.halted = [false; 2];
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
                (self.phase, self.halted) = (Phase::Command, [false; 2]);
                let status = Status::Success;
                let body = Body::ConfigurationStatus { status, configuration };
                answers.push(Packet { id, body });
            }
            Body::GetConfiguration => {
                let body = Body::ConfigurationStatus { status: Status::Success, configuration: 1 };
                answers.push(Packet { id, body });
            }
            Body::SetAltSetting { interface, .. } | Body::GetAltSetting { interface } => {
                (self.phase, self.halted) = (Phase::Command, [false; 2]);
                let status = Status::Success;
                let body = Body::AltSettingStatus { status, interface, alternate: 0 };
                answers.push(Packet { id, body });
            }
            Body::Control(control) => answers.push(self.control(id, control)),
            Body::Bulk(bulk) if bulk.endpoint == OUTPUT => {
                let status = self.output(&bulk.data);
                let length = if status == Status::Success { bulk.length } else { 0 };
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
            (0xa1, 0xfe) => match &self.quirks.max_lun {
                MaxLun::Bytes(bytes) => Some(bytes.clone()),
                MaxLun::Stall => None,
            },
            (0x21, 0xff) => {
                self.phase = Phase::Command;
                Some(Vec::new())
            }
            (0x02, 1) => {
                let which = usize::from(control.index & 0x80 == 0);
                // After what was no CBW, the halts stay until a reset (BOT 6.6.1).
                if !matches!(self.phase, Phase::Invalid) && control.index & 0x7f != 0 {
                    self.halted[which] = false;
                }
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

    fn output(&mut self, data: &[u8]) -> Status {
        if self.halted[1] {
            return Status::Stall;
        }
        match &mut self.phase {
            Phase::Command if data.len() == 31 && data.starts_with(b"USBC") => {
                self.command(data);
                Status::Success
            }
            Phase::DataOut { at, left } if data.len() <= *left => {
                self.data_out += data.len();
                if let Some(at) = at {
                    self.medium[*at..*at + data.len()].copy_from_slice(data);
                    *at += data.len();
                }
                *left -= data.len();
                if *left == 0 {
                    self.phase = Phase::Status;
                }
                Status::Success
            }
            _ => {
                self.phase = Phase::Invalid;
                self.halted = [true; 2];
                Status::Stall
            }
        }
    }

    fn serve(&mut self, answers: &mut Vec<Packet>) {
        while let Some(&(id, length)) = self.waiting.front() {
            let length = length as usize;
            if self.halted[0] {
                self.waiting.pop_front();
                answers.push(input(id, Status::Stall, Vec::new()));
                continue;
            }
            match &mut self.phase {
                Phase::DataIn(_, _) if self.quirks.babbles.contains(&self.opcode) => {
                    let Phase::DataIn(data, at) = std::mem::replace(&mut self.phase, Phase::Status)
                    else {
                        break;
                    };
                    let mut now = data.get(at..).unwrap_or_default().to_vec();
                    now.resize(length, 0);
                    answers.push(input(id, Status::Babble, now));
                }
                Phase::DataIn(data, at) => {
                    let end = data.len().min(*at + length);
                    let now = data[*at..end].to_vec();
                    *at = end;
                    let ends = end == data.len();
                    // More was announced: what is missing is a stall (BOT 6.7.2).
                    let short = ends && self.residue > 0;
                    if ends {
                        self.phase = Phase::Status;
                        self.halted[0] = short && now.len() == length;
                    }
                    answers.push(input(id, Status::Success, now));
                }
                Phase::Status if std::mem::take(&mut self.before_status.0) => {
                    answers.push(input(id, Status::Success, Vec::new()));
                }
                Phase::Status if std::mem::take(&mut self.before_status.1) => {
                    self.halted[0] = true;
                    continue;
                }
                Phase::Status => {
                    let mut csw = self.quirks.signature.unwrap_or(*b"USBS").to_vec();
                    csw.extend(self.quirks.tag.unwrap_or(self.tag));
                    csw.extend(self.quirks.residue.unwrap_or(self.residue).to_le_bytes());
                    csw.push(self.status);
                    self.phase = Phase::Command;
                    let status = if length < 13 { Status::Babble } else { Status::Success };
                    csw.truncate(length);
                    answers.push(input(id, status, csw));
                }
                _ => break,
            }
            self.waiting.pop_front();
        }
    }

    fn command(&mut self, cbw: &[u8]) {
        self.tag.copy_from_slice(&cbw[4..8]);
        let length = u32::from_le_bytes([cbw[8], cbw[9], cbw[10], cbw[11]]) as usize;
        let from_device = cbw[12] & 0x80 != 0;
        let cdb: [u8; 16] = std::array::from_fn(|at| cbw[15 + at]);
        self.opcode = cdb[0];
        self.before_status = (self.quirks.empty_packet, self.quirks.stalls_status);
        if self.commands.len() < 4096 {
            self.commands.push(cdb[0]);
        }
        if let Some(sense) = self.attention.take_if(|_| cdb[0] == 0) {
            return self.fail(sense, length, from_device);
        }
        let (address, blocks) = extent(&cdb);
        let inside = address
            .checked_add(blocks)
            .is_some_and(|end| end.saturating_mul(BLOCK) <= self.medium.len());
        let (from, bytes) = (address.wrapping_mul(BLOCK), blocks.wrapping_mul(BLOCK));
        let last = (self.medium.len() / BLOCK - 1) as u32;
        let answer = match cdb[0] {
            0x00 | 0x1b | 0x1e | 0x2f | 0x35 | 0x8f | 0x91 | 0xaf => Vec::new(),
            0x03 => {
                let (key, code) = std::mem::take(&mut self.sense);
                let mut sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code];
                sense.resize(18, 0);
                sense.truncate(cdb[4].into());
                sense
            }
            0x12 => {
                let mut inquiry = vec![self.kind, 0x80, 5, 2, 31, 0, 0, 0];
                inquiry.extend(b"BULKHEADReference stick 1.00");
                inquiry.truncate(u16::from_be_bytes([cdb[3], cdb[4]]).into());
                inquiry
            }
            0x1a => truncated(vec![3, 0, 0, 0], cdb[4].into()),
            0x5a => truncated(vec![0, 6, 0, 0, 0, 0, 0, 0], cdb[8].into()),
            0x23 => truncated(vec![0, 0, 0, 8, 0, 0, 0, 8, 2, 0, 2, 0], cdb[8].into()),
            0x25 => [last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat(),
            0x9e => {
                let mut capacity = u64::from(last).to_be_bytes().to_vec();
                capacity.extend((BLOCK as u32).to_be_bytes());
                capacity.resize(32, 0);
                truncated(capacity, cdb[13].into())
            }
            0xa0 => truncated(vec![0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], cdb[9].into()),
            0x08 | 0x28 | 0xa8 | 0x88 if inside => self.medium[from..from + bytes].to_vec(),
            0x08 | 0x28 | 0xa8 | 0x88 => return self.fail((5, 0x21), length, from_device),
            // A drive without a disc.
            0x43 | 0x46 | 0x4a | 0x51 | 0x52 | 0xad | 0xbd if self.kind == 5 => {
                return self.fail((2, 0x3a), length, from_device);
            }
            // Writes.
            0x0a | 0x2a | 0xaa | 0x8a | 0x2e if inside && !from_device => {
                self.harmed = true;
                self.residue = 0;
                self.status = 0;
                self.phase = Phase::DataOut { at: Some(from), left: length.min(bytes) };
                if length == 0 {
                    self.phase = Phase::Status;
                }
                return;
            }
            // Anything else changes the stick.
            _ => {
                self.harmed = true;
                if let Some(first) = self.medium.first_mut() {
                    *first ^= 0xff;
                }
                return self.fail((5, 0x20), length, from_device);
            }
        };
        (self.status, self.sense) = (0, if cdb[0] == 0x03 { (0, 0) } else { self.sense });
        if length > 0 && !from_device || answer.len() > length {
            // Cases 2, 3, 7 and 8: the host meant something else.
            (self.status, self.residue) = (2, length as u32);
            self.phase = if length == 0 { Phase::Status } else { Phase::Invalid };
            self.halted = [length > 0; 2];
            return;
        }
        self.residue = (length - answer.len()) as u32;
        if self.quirks.skips.contains(&cdb[0]) {
            (self.residue, self.phase) = (length as u32, Phase::Status);
            return;
        }
        self.phase = if length == 0 { Phase::Status } else { Phase::DataIn(answer, 0) };
    }

    fn fail(&mut self, sense: (u8, u8), length: usize, from_device: bool) {
        (self.sense, self.status, self.residue) = (sense, 1, length as u32);
        self.phase = Phase::Status;
        if length > 0 && from_device {
            self.halted[0] = true;
        } else if length > 0 {
            self.phase = Phase::DataOut { at: None, left: length };
        }
    }
}

fn truncated(mut data: Vec<u8>, most: usize) -> Vec<u8> {
    data.truncate(most);
    data
}

fn input(id: u64, status: Status, data: Vec<u8>) -> Packet {
    let length = data.len() as u32;
    Packet { id, body: Body::Bulk(Bulk { endpoint: INPUT, status, length, stream: 0, data }) }
}

/// Returns the logical block address and number of blocks of a read or write.
fn extent(cdb: &[u8; 16]) -> (usize, usize) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
    match cdb[0] >> 5 {
        0 => {
            let blocks = if cdb[4] == 0 { 256 } else { usize::from(cdb[4]) };
            (number(&cdb[1..4]) & 0x1f_ffff, blocks)
        }
        1 | 2 => (number(&cdb[2..6]), number(&cdb[7..9])),
        5 => (number(&cdb[2..6]), number(&cdb[6..10])),
        _ => (number(&cdb[2..10]), number(&cdb[10..14])),
    }
}
