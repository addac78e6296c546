//! A USB stick in memory, for tests: Bulk-Only Transport 1.0 and as much SCSI as a system asks of one.
//! It answers by itself what a [`Backend`] is asked; whoever holds the controller passes the answers
//! on ([`Stick::answers`]).
#![allow(clippy::indexing_slicing, clippy::expect_used, reason = "a model for tests")]

use crate::backend::{
    Backend, Moved, Payload, PortId, Request, Setup, Speed, Standard, Status, Transfer, TransferId,
};

/// Bytes of a block.
pub const BLOCK: usize = 512;
/// `bEndpointAddress` of the two bulk endpoints.
const BULK_IN: u8 = 0x81;
const BULK_OUT: u8 = 0x01;
/// Command and status block wrappers.
const CBW_SIZE: usize = 31;
const CBW_SIGNATURE: &[u8] = b"USBC";
const CSW_SIGNATURE: &[u8] = b"USBS";

/// Standard descriptor types (USB 3.2 section 9.4, table 9-6).
mod descriptor {
    pub(super) const DEVICE: u8 = 1;
    pub(super) const CONFIGURATION: u8 = 2;
    pub(super) const STRING: u8 = 3;
    pub(super) const BOS: u8 = 15;
}

/// What the stick is about to do on its bulk endpoints.
#[derive(Debug)]
enum Phase {
    /// Waits for a command.
    Command,
    /// Sends this, then the status.
    DataIn { data: Vec<u8>, at: usize },
    /// Takes so many bytes to write at this offset, then the status.
    DataOut { at: usize, left: usize },
    /// Stalls the data, then the status.
    Refuse,
    /// Sends the status.
    Status,
}

/// A USB stick in memory, which speaks Bulk-Only Transport.
#[derive(Debug)]
pub struct Stick {
    speed: Speed,
    /// Its blocks, one after the other.
    pub medium: Vec<u8>,
    phase: Phase,
    tag: [u8; 4],
    residue: u32,
    failed: bool,
    sense: (u8, u8),
    /// Transfers towards the host that wait for data.
    waiting: Vec<Transfer>,
    answers: Vec<(TransferId, Status, Moved)>,
    /// Transfers that were cancelled.
    pub cancelled: usize,
}

impl Stick {
    /// Makes an empty stick of so many blocks.
    pub fn new(speed: Speed, blocks: usize) -> Self {
        Self {
            speed,
            medium: vec![0; blocks * BLOCK],
            phase: Phase::Command,
            tag: [0; 4],
            residue: 0,
            failed: false,
            sense: (0, 0),
            waiting: Vec::new(),
            answers: Vec::new(),
            cancelled: 0,
        }
    }

    /// Returns how fast it is.
    pub fn speed(&self) -> Speed {
        self.speed
    }

    /// Returns what it has answered since it was last asked.
    pub fn answers(&mut self) -> Vec<(TransferId, Status, Moved)> {
        std::mem::take(&mut self.answers)
    }

    fn control(&self, setup: Setup, asked: Option<u32>) -> (Status, Moved) {
        let Some(asked) = asked else {
            let done = matches!(
                setup.standard(),
                Standard::SetConfiguration(_)
                    | Standard::SetInterface { .. }
                    | Standard::ClearHalt(_)
            );
            // Besides these: Bulk-Only reset, Set Isochronous Delay, Set SEL, U1 and U2.
            let ours = done || setup.request == 0xff || matches!(setup.request, 3 | 0x30 | 0x31);
            let status = if ours { Status::Success } else { Status::Stall };
            return (status, Moved::Out(u32::from(setup.length)));
        };
        let mut data = match (setup.request_type, setup.request) {
            (0x80, 6) => self.descriptor(setup.value),
            (0x80, 0) => vec![0, 0], // GET_STATUS
            (0x80, 8) => vec![1],
            (0xa1, 0xfe) => vec![0], // GET MAX LUN
            _ => Vec::new(),
        };
        if data.is_empty() {
            return (Status::Stall, Moved::In(data));
        }
        data.truncate(asked as usize);
        (Status::Success, Moved::In(data))
    }

    fn descriptor(&self, value: u16) -> Vec<u8> {
        let [index, kind] = value.to_le_bytes();
        let fast = self.speed == Speed::Super;
        match kind {
            descriptor::DEVICE => {
                let (version, packet) = if fast { (3, 9) } else { (2, 64) };
                vec![18, 1, 0, version, 0, 0, 0, packet, 0x34, 0x12, 0x78, 0x56, 0, 1, 1, 2, 3, 1]
            }
            descriptor::CONFIGURATION => self.configuration(),
            descriptor::STRING if index == 0 => vec![4, 3, 9, 4],
            descriptor::STRING => {
                let mut data = vec![0, 3];
                let text =
                    ["Bulkhead", "Stick", "000000000001"][usize::from(index.clamp(1, 3)) - 1];
                data.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                data[0] = data.len() as u8;
                data
            }
            descriptor::BOS if fast => {
                let mut data = vec![5, 15, 22, 0, 2, 7, 16, 2, 0, 0, 0, 0];
                data.extend([10, 16, 3, 0, 0xe, 0, 1, 10, 0xff, 7]);
                data
            }
            _ => Vec::new(),
        }
    }

    fn configuration(&self) -> Vec<u8> {
        let fast = self.speed == Speed::Super;
        let mut data = vec![9, 2, 0, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 8, 6, 0x50, 0];
        let packet: u16 = match self.speed {
            Speed::Super => 1024,
            Speed::High => 512,
            Speed::Full | Speed::Low => 64,
        };
        let [low, high] = packet.to_le_bytes();
        for address in [BULK_IN, BULK_OUT] {
            data.extend([7, 5, address, 2, low, high, 0]);
            if fast {
                data.extend([6, 0x30, 15, 0, 0, 0]);
            }
        }
        data[2] = data.len() as u8;
        data
    }

    fn out(&mut self, data: &[u8]) -> Status {
        match &mut self.phase {
            Phase::Command => {
                if data.len() != CBW_SIZE || &data[..4] != CBW_SIGNATURE {
                    return Status::Stall;
                }
                self.tag.copy_from_slice(&data[4..8]);
                self.command(data);
                Status::Success
            }
            Phase::DataOut { at, left } => {
                let now = data.len().min(*left);
                if let Some(medium) = self.medium.get_mut(*at..*at + now) {
                    medium.copy_from_slice(&data[..now]);
                }
                (*at, *left) = (*at + now, *left - now);
                if *left == 0 {
                    self.phase = Phase::Status;
                }
                Status::Success
            }
            Phase::Refuse => {
                self.phase = Phase::Status;
                Status::Stall
            }
            _ => Status::Stall,
        }
    }

    fn command(&mut self, cbw: &[u8]) {
        let length = u32::from_le_bytes(cbw[8..12].try_into().expect("four bytes"));
        let command = &cbw[15..31];
        let block = u32::from_be_bytes(command[2..6].try_into().expect("four bytes")) as usize;
        let blocks = usize::from(u16::from_be_bytes([command[7], command[8]]));
        let (at, bytes) = (block * BLOCK, blocks * BLOCK);
        let there = at + bytes <= self.medium.len();
        let last = (self.medium.len() / BLOCK) as u32 - 1;
        self.failed = false;
        self.residue = 0;
        let data = match command[0] {
            0x00 | 0x1b | 0x1e | 0x35 => Some(Vec::new()),
            0x03 => {
                let mut sense = vec![0x70, 0, self.sense.0, 0, 0, 0, 0, 10, 0, 0, 0, 0];
                sense.extend([self.sense.1, 0, 0, 0, 0, 0]);
                Some(sense)
            }
            0x12 if command[1] == 0 => {
                let mut inquiry = vec![0, 0x80, 5, 2, 31, 0, 0, 0];
                inquiry.extend(b"BulkheadStick           1.00");
                Some(inquiry)
            }
            0x1a => Some(vec![3, 0, 0, 0]),
            0x25 => Some([last.to_be_bytes(), (BLOCK as u32).to_be_bytes()].concat()),
            0x28 if there => Some(self.medium[at..at + bytes].to_vec()),
            0x2a if there && length as usize == bytes => {
                self.phase = Phase::DataOut { at, left: bytes };
                return;
            }
            _ => None,
        };
        match data {
            Some(mut data) => {
                data.truncate(length as usize);
                self.residue = length - data.len() as u32;
                self.phase =
                    if length == 0 { Phase::Status } else { Phase::DataIn { data, at: 0 } };
            }
            None => {
                (self.failed, self.residue, self.sense) = (true, length, (5, 0x20));
                self.phase = if length == 0 { Phase::Status } else { Phase::Refuse };
            }
        }
    }

    /// Answers what waits for data, as far as there is some.
    fn pump(&mut self) {
        while let Some(transfer) = self.waiting.first() {
            let Payload::In(asked) = *transfer.request.payload() else { break };
            let asked = asked as usize;
            let (status, data) = match &mut self.phase {
                Phase::Command | Phase::DataOut { .. } => return,
                Phase::Refuse => {
                    self.phase = Phase::Status;
                    (Status::Stall, Vec::new())
                }
                Phase::DataIn { data, at } => {
                    let now = data[*at..].iter().take(asked).copied().collect::<Vec<_>>();
                    *at += now.len();
                    if *at == data.len() {
                        self.phase = Phase::Status;
                    }
                    (Status::Success, now)
                }
                Phase::Status => {
                    self.phase = Phase::Command;
                    let residue = self.residue.to_le_bytes();
                    let failed = [u8::from(self.failed)];
                    (Status::Success, [CSW_SIGNATURE, &self.tag, &residue, &failed].concat())
                }
            };
            let id = self.waiting.remove(0).id;
            self.answers.push((id, status, Moved::In(data)));
        }
    }
}

impl Backend for Stick {
    fn submit(&mut self, transfer: Transfer) {
        match (&transfer.request, transfer.endpoint.byte()) {
            (Request::Control { setup, payload }, _) => {
                let asked = match payload {
                    Payload::In(asked) => Some(*asked),
                    Payload::Out(_) => None,
                };
                if setup.request == 0xff {
                    self.phase = Phase::Command;
                }
                let (status, moved) = self.control(*setup, asked);
                self.answers.push((transfer.id, status, moved));
            }
            (Request::Bulk(Payload::Out(data)), BULK_OUT) => {
                let status = self.out(data);
                let moved = Moved::Out(data.len() as u32);
                self.answers.push((transfer.id, status, moved));
            }
            (Request::Bulk(Payload::In(_)), BULK_IN) => self.waiting.push(transfer),
            _ => self.answers.push((transfer.id, Status::Stall, Moved::Out(0))),
        }
        self.pump();
    }

    fn stop(&mut self, id: TransferId) {
        if self.waiting.iter().any(|transfer| transfer.id == id) {
            self.waiting.retain(|transfer| transfer.id != id);
            self.answers.push((id, Status::Stopped, Moved::In(Vec::new())));
        }
    }

    fn cancel(&mut self, id: TransferId) {
        self.cancelled += 1;
        self.waiting.retain(|transfer| transfer.id != id);
    }

    fn reset_port(&mut self, _: PortId) {
        self.phase = Phase::Command;
        self.waiting.clear();
    }
}
