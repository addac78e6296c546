//! A guest, the filter and a device in one, for tests and fuzzing.
#![allow(clippy::cast_possible_truncation, reason = "a model for tests")]

pub mod linux;

use usbredir::packet::{Bulk, Control};
use usbredir::{Body, Packet, Status};

use crate::stick::{INPUT, OUTPUT, Quirks, Stick, pinned};
use crate::{Event, Filter, Out, Rules};

/// A stick behind a filter, and what came of it.
#[derive(Debug)]
pub struct Bench {
    pub filter: Filter,
    pub stick: Stick,
    /// Every event so far.
    pub events: Vec<Event>,
    /// What the guest has not looked at.
    pub inbox: Vec<Packet>,
    /// Packets that were passed to the device so far.
    pub passed: usize,
    /// Looks at each of them.
    pub watch: Option<fn(&Packet)>,
    next: u64,
}

impl Bench {
    /// Makes a stick with UAS, plugged in.
    ///
    /// # Panics
    /// When the filter does not take it.
    pub fn new(rules: Rules) -> Self {
        Self::with(rules, Quirks::default())
    }

    /// Puts a stick behind a filter that does something against the specification.
    ///
    /// # Panics
    /// When the filter does not take it.
    pub fn with(rules: Rules, quirks: Quirks) -> Self {
        #[expect(clippy::expect_used, reason = "a model for tests")]
        let filter = Filter::new(rules, pinned(true)).expect("a stick");
        let mut stick = Stick::new(64);
        stick.quirks = quirks;
        let mut bench = Self {
            filter,
            stick,
            events: Vec::new(),
            inbox: Vec::new(),
            passed: 0,
            watch: None,
            next: 1 << 32,
        };
        for packet in Stick::hello() {
            bench.device(packet);
        }
        bench.inbox.clear();
        bench
    }

    /// Has the device's end say something unasked.
    pub fn device(&mut self, packet: Packet) {
        let mut out = Out::default();
        self.filter.from_device(packet, &mut out);
        self.run(out);
    }

    /// Has the guest send a packet, and all that follows happen.
    pub fn guest(&mut self, packet: Packet) {
        let mut out = Out::default();
        self.filter.from_guest(packet, &mut out);
        self.run(out);
    }

    fn run(&mut self, mut out: Out) {
        loop {
            self.inbox.append(&mut out.to_guest);
            self.events.append(&mut out.events);
            if out.to_device.is_empty() {
                return;
            }
            let mut answers = Vec::new();
            for packet in out.to_device.drain(..) {
                self.passed += 1;
                if let Some(watch) = self.watch {
                    watch(&packet);
                }
                self.stick.take(packet, &mut answers);
            }
            for answer in answers {
                self.filter.from_device(answer, &mut out);
            }
        }
    }

    /// Returns an ID that was not used.
    pub fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Sends, and takes the answer if there is one.
    pub fn ask(&mut self, body: Body) -> Option<Body> {
        let id = self.id();
        self.guest(Packet { id, body });
        let at = self.inbox.iter().position(|packet| packet.id == id)?;
        Some(self.inbox.remove(at).body)
    }

    /// Writes data to the OUT endpoint; returns how that ended.
    pub fn write(&mut self, data: &[u8]) -> Option<Status> {
        match self.ask(bulk(OUTPUT, data.len() as u32, data.to_vec()))? {
            Body::Bulk(bulk) => Some(bulk.status),
            _ => None,
        }
    }

    /// Reads data from the IN endpoint; returns how that ended.
    pub fn read(&mut self, length: u32) -> Option<(Status, Vec<u8>)> {
        match self.ask(bulk(INPUT, length, Vec::new()))? {
            Body::Bulk(bulk) => Some((bulk.status, bulk.data)),
            _ => None,
        }
    }

    /// Sends a control request; returns how it ended, and what came.
    pub fn control(
        &mut self,
        (request_type, request): (u8, u8),
        value: u16,
        index: u16,
        length: u16,
    ) -> Option<(Status, Vec<u8>)> {
        match self.ask(control(request_type, request, value, index, length))? {
            Body::Control(control) => Some((control.status, control.data)),
            _ => None,
        }
    }

    /// Takes the halt of an endpoint away.
    pub fn clear_halt(&mut self, endpoint: u8) -> Option<Status> {
        self.control((0x02, 1), 0, endpoint.into(), 0).map(|(status, _)| status)
    }

    /// Does a reset recovery (BOT 5.3.4).
    pub fn recover(&mut self) {
        self.control((0x21, 0xff), 0, 0, 0);
        self.clear_halt(INPUT);
        self.clear_halt(OUTPUT);
    }

    /// Does a whole command as a driver does it: CBW, data, CSW, and halts taken away on the way.
    /// Returns the data that came, and the CSW's status and residue.
    pub fn command(&mut self, cdb: &[u8], data: Data<'_>) -> Option<(Vec<u8>, u8, u32)> {
        let tag = self.id() as u32;
        let (length, from_device) = match data {
            Data::None => (0, false),
            Data::In(length) => (length, true),
            Data::Out(data) => (data.len() as u32, false),
        };
        if self.write(&cbw(tag, length, from_device, 0, cdb))? != Status::Success {
            return None;
        }
        let mut came = Vec::new();
        match data {
            Data::None => {}
            Data::In(length) => {
                let (status, data) = self.read(length)?;
                came = data;
                if status == Status::Stall {
                    self.clear_halt(INPUT)?;
                }
            }
            Data::Out(data) => {
                for piece in data.chunks(8192) {
                    if self.write(piece)? == Status::Stall {
                        self.clear_halt(OUTPUT)?;
                        break;
                    }
                }
            }
        }
        let (mut status, mut csw) = self.read(13)?;
        if status == Status::Stall {
            // Once more (BOT 5.3.3).
            self.clear_halt(INPUT)?;
            (status, csw) = self.read(13)?;
        }
        let csw = <[u8; 13]>::try_from(csw).ok().filter(|_| status == Status::Success)?;
        let [_, _, _, _, t0, t1, t2, t3, r0, r1, r2, r3, result] = csw;
        if u32::from_le_bytes([t0, t1, t2, t3]) != tag {
            return None;
        }
        Some((came, result, u32::from_le_bytes([r0, r1, r2, r3])))
    }

    /// Returns the sense key, code and qualifier of the last failure.
    pub fn sense(&mut self) -> Option<(u8, u8, u8)> {
        let (data, status, _) = self.command(&[0x03, 0, 0, 0, 18, 0], Data::In(18))?;
        match data.as_slice() {
            [0x70, _, key, _, _, _, _, _, _, _, _, _, code, qualifier, ..] if status == 0 => {
                Some((*key, *code, *qualifier))
            }
            _ => None,
        }
    }

    /// Reads some blocks by READ (10).
    pub fn read_blocks(&mut self, address: u32, blocks: u16) -> Option<Vec<u8>> {
        let [a, b, c, d] = address.to_be_bytes();
        let [high, low] = blocks.to_be_bytes();
        let cdb = [0x28, 0, a, b, c, d, 0, high, low, 0];
        let (data, status, residue) = self.command(&cdb, Data::In(u32::from(blocks) * 512))?;
        (status == 0 && residue == 0).then_some(data)
    }
}

/// Reads `blocks` of 64 KiB through a filter of a stick, each with its CBW and CSW, from a device that
/// costs nothing: what a benchmark of the filter alone measures. The same bytes go round, so that
/// they are neither made nor copied here. Returns the bytes that came, or `None` if one did not.
pub fn read_through(filter: &mut Filter, blocks: u32) -> Option<u64> {
    const BYTES: u32 = 64 << 10;
    let mut out = Out::default();
    let mut data = vec![0x5a; BYTES as usize];
    let mut came = 0;
    for block in 0..blocks {
        let id = u64::from(block) * 3;
        let [_, _, high, low] = block.to_be_bytes();
        let cdb = [0x28, 0, 0, high, low, 0, 0, 0, 128, 0];
        let mut csw = b"USBS".to_vec();
        csw.extend(block.to_le_bytes());
        csw.resize(13, 0);
        let steps = [
            (OUTPUT, 31, cbw(block, BYTES, true, 0, &cdb), Vec::new()),
            (INPUT, BYTES, Vec::new(), data),
            (INPUT, 13, Vec::new(), csw),
        ];
        data = Vec::new();
        for (id, (endpoint, length, request, answer)) in (id..).zip(steps) {
            filter.from_guest(Packet { id, body: bulk(endpoint, length, request) }, &mut out);
            out.to_device.pop()?;
            filter.from_device(Packet { id, body: bulk(endpoint, length, answer) }, &mut out);
            if let Body::Bulk(bulk) = out.to_guest.pop()?.body
                && bulk.data.len() > 13
            {
                came += bulk.data.len() as u64;
                data = bulk.data;
            }
        }
    }
    Some(came)
}

/// The data of a command.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// The command has no data stage.
    None,
    /// So many bytes from the device.
    In(u32),
    /// These to the device.
    Out(&'a [u8]),
}

/// Returns the bytes of a CBW.
pub fn cbw(tag: u32, length: u32, from_device: bool, lun: u8, cdb: &[u8]) -> Vec<u8> {
    let mut bytes = b"USBC".to_vec();
    bytes.extend(tag.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend([u8::from(from_device) << 7, lun, cdb.len() as u8]);
    bytes.extend(cdb);
    bytes.resize(31, 0);
    bytes
}

/// Returns a bulk transfer that has not been answered.
pub fn bulk(endpoint: u8, length: u32, data: Vec<u8>) -> Body {
    Body::Bulk(Bulk { endpoint, status: Status::Success, length, stream: 0, data })
}

/// Returns a control request; data for the device are zeroes.
pub fn control(request_type: u8, request: u8, value: u16, index: u16, length: u16) -> Body {
    let from_device = request_type & 0x80 != 0;
    Body::Control(Control {
        endpoint: request_type & 0x80,
        request,
        request_type,
        status: Status::Success,
        value,
        index,
        length,
        data: if from_device { Vec::new() } else { vec![0; length.into()] },
    })
}
