//! A USB stick behind the controller: [`usbstick`], with the descriptors of each speed. It answers by itself what a [`Backend`] is asked;
//! whoever holds the controller passes the answers on ([`Stick::answers`]).

use usbstick::{End, Input, Storage};

use crate::backend::{
    Backend, Moved, Payload, PortId, Request, Setup, Speed, Standard, Status, Transfer, TransferId,
};

/// `bEndpointAddress` of the two bulk endpoints.
const BULK_IN: u8 = 0x81;
const BULK_OUT: u8 = 0x01;

/// Standard descriptor types (USB 3.2 section 9.4, table 9-6).
mod descriptor {
    pub(super) const DEVICE: u8 = 1;
    pub(super) const CONFIGURATION: u8 = 2;
    pub(super) const STRING: u8 = 3;
    pub(super) const BOS: u8 = 15;
}

/// A USB stick that is a backend.
#[derive(Debug)]
pub(super) struct Stick {
    speed: Speed,
    pub(super) storage: Storage,
    /// Transfers towards the host that wait for data.
    waiting: Vec<Transfer>,
    answers: Vec<(TransferId, Status, Moved)>,
}

impl Stick {
    /// Makes a stick of so many blocks.
    pub(super) fn new(speed: Speed, blocks: usize) -> Self {
        Self { speed, storage: Storage::new(blocks), waiting: Vec::new(), answers: Vec::new() }
    }

    /// Returns how fast it is.
    pub(super) fn speed(&self) -> Speed {
        self.speed
    }

    /// Returns what it has answered since it was last asked.
    pub(super) fn answers(&mut self) -> Vec<(TransferId, Status, Moved)> {
        std::mem::take(&mut self.answers)
    }

    fn control(&mut self, setup: Setup, asked: Option<u32>) -> (Status, Moved) {
        let Some(asked) = asked else {
            match setup.standard() {
                Standard::SetConfiguration(_) | Standard::SetInterface { .. } => {
                    self.storage.reset()
                }
                Standard::ClearHalt(_) => {
                    let [endpoint, _] = setup.index.to_le_bytes();
                    self.storage.clear_halt(endpoint);
                }
                _ if (setup.request_type, setup.request) == (0x21, 0xff) => {
                    self.storage.bulk_only_reset();
                }
                // Set Isochronous Delay, Set SEL, U1 and U2.
                _ if matches!(setup.request, 3 | 0x30 | 0x31) => {}
                _ => return (Status::Stall, Moved::Out(u32::from(setup.length))),
            }
            return (Status::Success, Moved::Out(u32::from(setup.length)));
        };
        let mut data = match (setup.request_type, setup.request) {
            (0x80, 6) => self.descriptor(setup.value),
            (0x80, 0) => vec![0, 0], // GET_STATUS
            (0x80, 8) => vec![1],
            (0xa1, 0xfe) => self.storage.max_lun().unwrap_or_default(),
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

    /// Answers what waits for data, as far as there is some.
    fn pump(&mut self) {
        while let Some(transfer) = self.waiting.first() {
            let Payload::In(asked) = *transfer.request.payload() else { break };
            let Some(Input { end, data }) = self.storage.input(asked as usize) else { break };
            let status = if end == End::Success { Status::Success } else { Status::Stall };
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
                let (status, moved) = self.control(*setup, asked);
                self.answers.push((transfer.id, status, moved));
            }
            (Request::Bulk(Payload::Out(data)), BULK_OUT) => {
                let status =
                    if self.storage.output(data) { Status::Success } else { Status::Stall };
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
        self.waiting.retain(|transfer| transfer.id != id);
    }

    fn reset_port(&mut self, _: PortId) {
        self.storage.reset();
        self.waiting.clear();
    }
}
