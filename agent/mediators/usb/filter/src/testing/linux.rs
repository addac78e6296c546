//! A driver that does with a stick what `usb-storage` of Linux does (drivers/usb/storage/transport.c, `usb_stor_Bulk_transport` and
//! `usb_stor_invoke_transport`): what it forgives, what it takes for an error, and that it resets the port then and tries again.

use usbredir::{Body, Packet, Status};

use super::{Bench, Data, bulk, cbw};
use crate::stick::{INPUT, OUTPUT};

/// How often a command is tried, a port reset between.
pub const TRIES: u32 = 3;
const CSW_BYTES: u32 = 13;
const SIGNATURE: [u8; 4] = *b"USBS";

/// What it knows of the stick.
#[derive(Debug, Default)]
pub struct Driver {
    ignores_tags: bool,
    /// Port resets so far.
    pub resets: u32,
    tag: u32,
    signature: Option<[u8; 4]>,
    ignores_residues: bool,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Well, with these data, of which so many bytes do not count.
    Good(Vec<u8>, u32),
    /// With CHECK CONDITION: sense key and code.
    Failed(u8, u8),
    /// The stick sent more than it was asked for.
    Long,
    /// Not at all, however often it was tried.
    Error,
}

/// How a transfer ended.
enum Moved {
    Whole(Vec<u8>),
    Short(Vec<u8>),
    Long(Vec<u8>),
    Stalled,
    Error,
}

impl Driver {
    /// Makes the driver for a stick. With `ignores_tags` the stick is in its table of those whose tags are wrong (`US_FL_BULK_IGNORE_TAG`).
    pub fn new(ignores_tags: bool) -> Self {
        Self { ignores_tags, ..Self::default() }
    }

    /// Does a command, in up to [`TRIES`] tries.
    pub fn command(&mut self, bench: &mut Bench, cdb: &[u8], data: Data<'_>) -> Ended {
        for _ in 0..TRIES {
            match self.invoke(bench, cdb, data) {
                Ended::Error => self.reset(bench),
                ended => return ended,
            }
        }
        Ended::Error
    }

    /// Returns how many logical units it believes there are, less one.
    pub fn max_lun(&self, bench: &mut Bench) -> u8 {
        match bench.control((0xa1, 0xfe), 0, 0, 1) {
            Some((Status::Success, data)) => match data.as_slice() {
                [highest, ..] if *highest < 16 => *highest,
                _ => 0,
            },
            _ => 0,
        }
    }

    fn reset(&mut self, bench: &mut Bench) {
        self.resets += 1;
        bench.guest(Packet { id: 0, body: Body::Reset });
        bench.ask(Body::SetConfiguration(1));
        bench.inbox.clear();
    }

    fn invoke(&mut self, bench: &mut Bench, cdb: &[u8], data: Data<'_>) -> Ended {
        let ended = self.transport(bench, cdb, data);
        if ended != Ended::Failed(0, 0) {
            return ended;
        }
        match self.transport(bench, &[0x03, 0, 0, 0, 18, 0], Data::In(18)) {
            Ended::Good(sense, _) => match sense.as_slice() {
                [_, _, key, _, _, _, _, _, _, _, _, _, code, ..] => Ended::Failed(*key, *code),
                _ => Ended::Failed(0, 0),
            },
            ended => ended,
        }
    }

    fn transport(&mut self, bench: &mut Bench, cdb: &[u8], data: Data<'_>) -> Ended {
        self.tag = self.tag.wrapping_add(1);
        let (length, from_device) = match data {
            Data::None => (0, false),
            Data::In(length) => (length, true),
            Data::Out(data) => (data.len() as u32, false),
        };
        let wrapper = cbw(self.tag, length, from_device, 0, cdb);
        if !matches!(send(bench, &wrapper), Moved::Whole(_)) {
            return Ended::Error;
        }
        let (mut came, mut missing, mut long, mut status) = (Vec::new(), 0, false, None);
        match data {
            Data::None => {}
            Data::In(length) => {
                match receive(bench, length) {
                    Moved::Whole(data) => came = data,
                    Moved::Long(data) => (came, long) = (data, true),
                    Moved::Short(data) if data.len() == 13 && data.starts_with(&SIGNATURE) => {
                        status = Some(data);
                    }
                    Moved::Short(data) => came = data,
                    Moved::Stalled => {}
                    Moved::Error => return Ended::Error,
                }
                missing = length - came.len() as u32;
            }
            Data::Out(data) => match send(bench, data) {
                Moved::Error => return Ended::Error,
                Moved::Stalled => missing = length,
                _ => {}
            },
        }
        let Some(csw) = status.or_else(|| self.status(bench)) else { return Ended::Error };
        let Ok(csw) = <[u8; 13]>::try_from(csw) else { return Ended::Error };
        let [s0, s1, s2, s3, t0, t1, t2, t3, r0, r1, r2, r3, status] = csw;
        let tag = u32::from_le_bytes([t0, t1, t2, t3]);
        if tag != self.tag && !self.ignores_tags || status > 2 {
            return Ended::Error;
        }
        if *self.signature.get_or_insert([s0, s1, s2, s3]) != [s0, s1, s2, s3] {
            return Ended::Error;
        }
        let residue = u32::from_le_bytes([r0, r1, r2, r3]);
        if residue > 0 && !self.ignores_residues {
            let known = matches!((cdb.first(), length), (Some(0x12), 36) | (Some(0x25), 8));
            if status == 0 && missing == 0 && known {
                self.ignores_residues = true;
            } else {
                missing = missing.max(residue.min(length));
            }
        }
        match status {
            0 if long => Ended::Long,
            0 => Ended::Good(came, missing),
            1 => Ended::Failed(0, 0),
            _ => Ended::Error,
        }
    }

    /// Reads the status: once more after an empty one, and after a stall.
    fn status(&self, bench: &mut Bench) -> Option<Vec<u8>> {
        let mut moved = receive(bench, CSW_BYTES);
        if matches!(&moved, Moved::Short(data) if data.is_empty()) {
            moved = receive(bench, CSW_BYTES);
        }
        if matches!(moved, Moved::Stalled) {
            moved = receive(bench, CSW_BYTES);
        }
        match moved {
            Moved::Whole(csw) => Some(csw),
            _ => None,
        }
    }
}

fn send(bench: &mut Bench, data: &[u8]) -> Moved {
    match bench.write(data) {
        Some(Status::Success) => Moved::Whole(Vec::new()),
        Some(Status::Stall) => stalled(bench, OUTPUT),
        _ => Moved::Error,
    }
}

fn receive(bench: &mut Bench, length: u32) -> Moved {
    let id = bench.id();
    bench.guest(Packet { id, body: bulk(INPUT, length, Vec::new()) });
    let Some(at) = bench.inbox.iter().position(|packet| packet.id == id) else {
        // Nothing comes: its time is up.
        bench.guest(Packet { id, body: Body::CancelDataPacket });
        bench.inbox.clear();
        return Moved::Error;
    };
    match bench.inbox.remove(at).body {
        Body::Bulk(bulk) => match bulk.status {
            Status::Success if bulk.data.len() == length as usize => Moved::Whole(bulk.data),
            Status::Success => Moved::Short(bulk.data),
            Status::Babble => Moved::Long(bulk.data),
            Status::Stall => stalled(bench, INPUT),
            _ => Moved::Error,
        },
        _ => Moved::Error,
    }
}

/// Takes a halt away; that failing is an error.
fn stalled(bench: &mut Bench, endpoint: u8) -> Moved {
    match bench.clear_halt(endpoint) {
        Some(Status::Success) => Moved::Stalled,
        _ => Moved::Error,
    }
}
