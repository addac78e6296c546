//! The driver's side of the controller, and a backend that records, for tests and fuzzing.
#![allow(clippy::expect_used, reason = "tests stop where the host fails them")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::backend::{
    Backend, EndpointAddress, Interrupt, Moved, Payload, PortId, Speed, Status, Transfer,
    TransferId,
};
use crate::controller::{Controller, Ports, Progress};
use crate::memory::GuestMemory;
use crate::spec::{Code, base, iman, portsc, trb_bit, trb_type, usbcmd};

/// Bytes of guest memory.
pub const RAM: usize = 4 << 20;
/// Where the driver puts things.
pub const DCBAA: u64 = 0x1000;
/// Where the command ring is.
pub const COMMANDS: u64 = 0x2000;
/// Where the event ring segment table is.
pub const SEGMENT_TABLE: u64 = 0x3000;
/// Two segments, a page apart.
pub const EVENTS: u64 = 0x4000;
/// Where input contexts are.
pub const INPUT: u64 = 0x6000;
/// Where output device contexts are, one a slot.
pub const OUTPUT: u64 = 0x1_0000;
/// Where transfer rings are.
pub const RINGS: u64 = 0x4_0000;
/// The rest is free for data.
pub const DATA: u64 = 0x20_0000;
/// TRBs of each ring, the Link TRB included.
pub const RING_TRBS: u64 = 64;
/// Steps in which the controller has to come to rest.
const STEPS_MAX: usize = 1 << 16;

/// Records what a controller asks for.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Submitted and neither completed nor cancelled.
    pub transfers: Vec<Transfer>,
    /// To be ended soon.
    pub stopping: Vec<TransferId>,
    /// Transfers that the controller took back.
    pub cancelled: Vec<TransferId>,
    /// Ports that were reset.
    pub resets: Vec<PortId>,
    /// Endpoints that were stopped.
    pub stopped: Vec<(PortId, EndpointAddress)>,
}

impl Backend for Recorder {
    fn submit(&mut self, transfer: Transfer) {
        self.transfers.push(transfer);
    }

    fn stop(&mut self, id: TransferId) {
        self.stopping.push(id);
    }

    fn cancel(&mut self, id: TransferId) {
        self.transfers.retain(|transfer| transfer.id != id);
        self.cancelled.push(id);
    }

    fn reset_port(&mut self, port: PortId) {
        self.resets.push(port);
    }

    fn endpoint_stopped(&mut self, port: PortId, endpoint: EndpointAddress) {
        self.stopped.push((port, endpoint));
    }
}

/// An interrupt line that counts how often it was raised.
#[derive(Clone, Debug, Default)]
pub struct Line {
    count: Arc<AtomicUsize>,
    /// There is no MSI-X.
    off: Arc<AtomicBool>,
}

impl Line {
    /// Returns how many there were since it was last asked.
    pub fn take(&self) -> usize {
        self.count.swap(0, Ordering::Relaxed)
    }

    /// Switches MSI-X on or off.
    pub fn set_off(&self, off: bool) {
        self.off.store(off, Ordering::Relaxed);
    }
}

impl Interrupt for Line {
    fn raise(&self) -> bool {
        let off = self.off.load(Ordering::Relaxed);
        if !off {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
        !off
    }
}

/// An event as the driver reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The TRB type (6.4.6).
    pub kind: u8,
    /// The completion code (6.4.5).
    pub code: u8,
    /// Dwords 0 and 1.
    pub parameter: u64,
    /// Bytes not moved, or with `data` bytes moved.
    pub length: u32,
    /// The slot that it is about.
    pub slot: u8,
    /// The device context index of the endpoint (4.5.1).
    pub endpoint: u8,
    /// Whether it carries the driver's own value (Event Data).
    pub data: bool,
}

impl Seen {
    /// Returns whether this is a transfer event of such a code.
    pub fn is_transfer(&self, code: Code) -> bool {
        self.kind == trb_type::TRANSFER_EVENT && self.code == code as u8
    }
}

/// A place on a ring the driver fills.
#[derive(Clone, Copy, Debug)]
struct Producer {
    base: u64,
    index: u64,
    cycle: bool,
}

/// A driver with its controller and its memory.
pub struct Driver {
    /// The controller that is driven.
    pub controller: Controller<Recorder>,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// The interrupts that the controller raised.
    pub line: Line,
    commands: Producer,
    rings: std::collections::BTreeMap<(u8, u8), Producer>,
    /// Next event: how many were read, and their cycle bit.
    events: (u64, bool),
    /// TRBs of each of the two event ring segments.
    segment_trbs: u64,
}

impl Driver {
    /// Makes a controller of four and four ports, started.
    pub fn new() -> Self {
        Self::with_segments(64)
    }

    /// Makes the same, with an event ring of two segments of `trbs` TRBs.
    pub fn with_segments(trbs: u64) -> Self {
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).expect("anonymous memory");
        let line = Line::default();
        let (copy, boxed) = (memory.clone(), Box::new(line.clone()));
        let controller = Controller::new(Ports::default(), copy, Recorder::default(), boxed);
        let commands = Producer { base: COMMANDS, index: 0, cycle: true };
        let mut driver = Self {
            controller,
            memory,
            line,
            commands,
            rings: Default::default(),
            events: (0, true),
            segment_trbs: trbs,
        };
        driver.start();
        driver
    }

    /// Sets the rings up and the controller going; also after a reset.
    pub fn start(&mut self) {
        self.rings.clear();
        self.events = (0, true);
        self.commands = self.new_ring(COMMANDS);
        for segment in 0..2 {
            let at = EVENTS + segment * 0x1000;
            self.memory.write_slice(&[0; 0x1000], GuestAddress(at)).expect("in memory");
            let entry = SEGMENT_TABLE + segment * 16;
            self.put(entry, &[at as u32, 0, self.segment_trbs as u32, 0]);
        }
        self.write(base::OPERATIONAL + 0x38, 16); // CONFIG
        self.write_wide(base::OPERATIONAL + 0x30, DCBAA);
        self.write_wide(base::OPERATIONAL + 0x18, COMMANDS | 1);
        self.write(base::RUNTIME + 0x28, 2); // ERSTSZ
        self.write_wide(base::RUNTIME + 0x30, SEGMENT_TABLE);
        self.write_wide(base::RUNTIME + 0x38, EVENTS);
        self.write(base::RUNTIME + 0x20, iman::ENABLE);
        self.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
    }

    /// Writes four bytes at this offset of BAR 0.
    pub fn write(&mut self, at: u64, value: u32) {
        self.controller.write(at, &value.to_le_bytes());
    }

    /// Writes two registers in one access.
    pub fn write_wide(&mut self, at: u64, value: u64) {
        self.controller.write(at, &value.to_le_bytes());
    }

    /// Reads four bytes at this offset of BAR 0.
    pub fn read(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.controller.read(at, &mut data);
        u32::from_le_bytes(data)
    }

    /// Returns the offset of a port's PORTSC.
    pub fn portsc(port: PortId) -> u64 {
        base::PORTS + 16 * (u64::from(port.number()) - 1)
    }

    /// Writes dwords to memory.
    pub fn put(&self, at: u64, words: &[u32]) {
        for (word, at) in words.iter().zip((at..).step_by(4)) {
            self.memory.write_slice(&word.to_le_bytes(), GuestAddress(at)).expect("in memory");
        }
    }

    /// Reads a dword from memory.
    pub fn get(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.memory.read_slice(&mut data, GuestAddress(at)).expect("in memory");
        u32::from_le_bytes(data)
    }

    /// Reads bytes from memory.
    pub fn bytes(&self, at: u64, length: usize) -> Vec<u8> {
        let mut data = vec![0; length];
        self.memory.read_slice(&mut data, GuestAddress(at)).expect("in memory");
        data
    }

    /// Lets the controller work until it rests.
    pub fn run(&mut self) {
        let rests = (0..STEPS_MAX).any(|_| self.controller.step() == Progress::Idle);
        assert!(rests, "the controller does not come to rest");
    }

    /// Takes the new events, taken off the ring; and what the handler does at its end.
    pub fn events(&mut self) -> Vec<Seen> {
        self.run();
        let mut seen = Vec::new();
        loop {
            seen.extend(std::iter::from_fn(|| self.next_event()));
            let at = self.event_address();
            self.write_wide(base::RUNTIME + 0x38, at | 8);
            self.run();
            if self.get(at + 12) & trb_bit::CYCLE != u32::from(self.events.1) {
                return seen;
            }
        }
    }

    /// Takes the next event, without a word to the controller.
    pub fn next_event(&mut self) -> Option<Seen> {
        let at = self.event_address();
        let control = self.get(at + 12);
        if (control & trb_bit::CYCLE != 0) != self.events.1 {
            return None;
        }
        self.events.0 += 1;
        if self.events.0 == 2 * self.segment_trbs {
            self.events = (0, !self.events.1);
        }
        let status = self.get(at + 8);
        Some(Seen {
            kind: (control >> 10 & 0x3f) as u8,
            code: (status >> 24) as u8,
            parameter: u64::from(self.get(at + 4)) << 32 | u64::from(self.get(at)),
            length: status & 0xff_ffff,
            slot: (control >> 24) as u8,
            endpoint: (control >> 16 & 0x1f) as u8,
            data: control & trb_bit::EVENT_DATA != 0,
        })
    }

    /// Returns where the next event will be.
    pub fn event_address(&self) -> u64 {
        let (segment, trb) = (self.events.0 / self.segment_trbs, self.events.0 % self.segment_trbs);
        EVENTS + segment * 0x1000 + trb * 16
    }

    /// Issues a command and returns its code and slot.
    pub fn command(&mut self, kind: u8, parameter: u64, flags: u32) -> (u8, u8) {
        let at = self.issue(kind, parameter, flags);
        let events = self.events();
        let mine = |seen: &&Seen| seen.kind == trb_type::COMMAND_COMPLETION && seen.parameter == at;
        let event = events.iter().find(mine).expect("a command completion");
        (event.code, event.slot)
    }

    /// Issues a command and returns all events that follow.
    pub fn command_events(&mut self, kind: u8, flags: u32) -> Vec<Seen> {
        self.issue(kind, 0, flags);
        self.events()
    }

    fn issue(&mut self, kind: u8, parameter: u64, flags: u32) -> u64 {
        let control = u32::from(kind) << 10 | flags;
        let words = [parameter as u32, (parameter >> 32) as u32, 0, control];
        let at = Self::produce(&self.memory, &mut self.commands, words);
        self.write(base::DOORBELLS, 0);
        at
    }

    /// Gives a command to a slot and an endpoint that succeeds or not.
    pub fn endpoint_command(&mut self, kind: u8, slot: u8, index: u8, parameter: u64) -> u8 {
        self.command(kind, parameter, u32::from(slot) << 24 | u32::from(index) << 16).0
    }

    /// Plugs a device in, resets its port, and gives it a slot and an address.
    pub fn plug(&mut self, speed: Speed) -> (PortId, u8) {
        let port = self.controller.free_port(speed).expect("a free port");
        self.controller.attach(port, speed).expect("a free port");
        self.events();
        let at = Self::portsc(port);
        self.write(at, portsc::PP | portsc::PR);
        self.write(at, portsc::PP | portsc::CHANGES);
        self.events();
        let (code, slot) = self.command(trb_type::ENABLE_SLOT, 0, 0);
        assert_eq!(code, Code::Success as u8);
        assert_eq!(self.address(port, slot, 0), Code::Success as u8);
        (port, slot)
    }

    /// Issues Address Device, with further flags, and returns its code.
    pub fn address(&mut self, port: PortId, slot: u8, flags: u32) -> u8 {
        let output = OUTPUT + u64::from(slot) * 0x400;
        self.put(DCBAA + 8 * u64::from(slot), &[output as u32, 0]);
        self.put(INPUT, &[0, 3, 0, 0, 0, 0, 0, 0]);
        self.put(INPUT + 32, &[1 << 27 | 3 << 20, u32::from(port.number()) << 16, 0, 0]);
        let ring = self.transfer_ring(slot, 1);
        self.put(INPUT + 64, &[0, 3 << 1 | 4 << 3 | 64 << 16, ring as u32 | 1, 0, 8]);
        self.command(trb_type::ADDRESS_DEVICE, INPUT, u32::from(slot) << 24 | flags).0
    }

    /// Configures endpoints: device context index, type (6.2.3), packet size.
    pub fn configure(&mut self, slot: u8, endpoints: &[(u8, u32, u32)]) -> u8 {
        let add = endpoints.iter().fold(1, |add, (index, ..)| add | 1 << index);
        self.put(INPUT, &[0, add, 0, 0, 0, 0, 0, 0]);
        let last = endpoints.iter().map(|(index, ..)| *index).max().unwrap_or(1);
        self.put(INPUT + 32, &[u32::from(last) << 27, 0, 0, 0]);
        for &(index, kind, packet) in endpoints {
            let ring = self.transfer_ring(slot, index);
            let at = INPUT + 32 + 32 * u64::from(index);
            self.put(at, &[3 << 16, 3 << 1 | kind << 3 | packet << 16, ring as u32 | 1, 0, 0]);
        }
        self.command(trb_type::CONFIGURE_ENDPOINT, INPUT, u32::from(slot) << 24).0
    }

    /// Plugs in a device with bulk endpoints 1 out (index 2) and 1 in (index 3) and interrupt 2 in (index 5).
    pub fn plug_stick(&mut self) -> (PortId, u8) {
        let (port, slot) = self.plug(Speed::High);
        let code = self.configure(slot, &[(2, 2, 512), (3, 6, 512), (5, 7, 64)]);
        assert_eq!(code, Code::Success as u8);
        (port, slot)
    }

    /// Puts a TRB on a transfer ring; returns its address.
    pub fn queue(&mut self, slot: u8, index: u8, parameter: u64, length: u32, control: u32) -> u64 {
        let ring = self.rings.get_mut(&(slot, index)).expect("a ring");
        let words = [parameter as u32, (parameter >> 32) as u32, length, control];
        Self::produce(&self.memory, ring, words)
    }

    /// Puts a Normal TRB onto an endpoint's ring; returns its address.
    pub fn normal(&mut self, slot: u8, index: u8, at: u64, length: u32, flags: u32) -> u64 {
        self.queue(slot, index, at, length, u32::from(trb_type::NORMAL) << 10 | flags)
    }

    /// Queues a control transfer with its data at [`DATA`], its doorbell rung; returns the Status
    /// Stage TRB's address.
    pub fn control(&mut self, slot: u8, setup: [u8; 8]) -> u64 {
        let at = self.queue_control(slot, setup);
        self.ring(slot, 1);
        at
    }

    /// Queues the same without the doorbell.
    pub fn queue_control(&mut self, slot: u8, setup: [u8; 8]) -> u64 {
        let [request_type, .., l0, l1] = setup;
        let length = u32::from(u16::from_le_bytes([l0, l1]));
        let to_host = if request_type & 0x80 != 0 { trb_bit::DIRECTION_IN } else { 0 };
        let kind = |kind: u8| u32::from(kind) << 10;
        let setup_control = kind(trb_type::SETUP) | trb_bit::IDT | 3 << 16;
        self.queue(slot, 1, u64::from_le_bytes(setup), 8, setup_control);
        if length > 0 {
            self.queue(slot, 1, DATA, length, kind(trb_type::DATA) | to_host | trb_bit::ISP);
        }
        let back = to_host ^ trb_bit::DIRECTION_IN;
        self.queue(slot, 1, 0, 0, kind(trb_type::STATUS) | back | trb_bit::IOC)
    }

    /// Rings a doorbell and lets the controller work.
    pub fn ring(&mut self, slot: u8, index: u8) {
        self.write(base::DOORBELLS + 4 * u64::from(slot), index.into());
        self.run();
    }

    /// Returns the transfer the backend got last.
    pub fn last(&self) -> Transfer {
        self.controller.backend().transfers.last().expect("a transfer").clone()
    }

    /// Ends the transfer that the backend got first.
    pub fn answer(&mut self, status: Status, moved: Moved) {
        let transfer = self.controller.backend_mut().transfers.remove(0);
        self.controller.complete(transfer.id, status, moved);
    }

    /// Ends it well: everything out, or these bytes in.
    pub fn succeed(&mut self, data: &[u8]) {
        let moved =
            match self.controller.backend().transfers.first().expect("one").request.payload() {
                Payload::Out(data) => Moved::Out(data.len() as u32),
                Payload::In(_) => Moved::In(data.to_vec()),
            };
        self.answer(Status::Success, moved);
    }

    /// Returns whether there is such a ring.
    pub fn has_ring(&self, slot: u8, index: u8) -> bool {
        self.rings.contains_key(&(slot, index))
    }

    /// Returns where the next TRB of a ring goes, with its cycle bit as in a dequeue pointer.
    pub fn enqueue(&self, slot: u8, index: u8) -> u64 {
        let ring = self.rings.get(&(slot, index)).expect("a ring");
        (ring.base + ring.index * 16) | u64::from(ring.cycle)
    }

    /// Returns where a ring begins.
    pub fn ring_base(&self, slot: u8, index: u8) -> u64 {
        self.rings.get(&(slot, index)).expect("a ring").base
    }

    /// Returns state and dequeue pointer in an endpoint's context.
    pub fn endpoint_context(&self, slot: u8, index: u8) -> (u32, u64) {
        let at = OUTPUT + u64::from(slot) * 0x400 + 32 * u64::from(index);
        (self.get(at) & 7, u64::from(self.get(at + 12)) << 32 | u64::from(self.get(at + 8)))
    }

    fn transfer_ring(&mut self, slot: u8, index: u8) -> u64 {
        let base = RINGS + (u64::from(slot) * 32 + u64::from(index)) * RING_TRBS * 16;
        let ring = self.new_ring(base);
        self.rings.insert((slot, index), ring);
        base
    }

    fn new_ring(&self, base: u64) -> Producer {
        let bytes = [0; RING_TRBS as usize * 16];
        self.memory.write_slice(&bytes, GuestAddress(base)).expect("in memory");
        Producer { base, index: 0, cycle: true }
    }

    fn produce(memory: &GuestMemory, ring: &mut Producer, words: [u32; 4]) -> u64 {
        let write = |at: u64, words: [u32; 4], cycle: bool| {
            let [a, b, c, control] = words;
            for (word, at) in [a, b, c, control | u32::from(cycle)].iter().zip((at..).step_by(4)) {
                memory.write_slice(&word.to_le_bytes(), GuestAddress(at)).expect("in memory");
            }
        };
        let [.., control] = words;
        let at = ring.base + ring.index * 16;
        write(at, words, ring.cycle);
        ring.index += 1;
        if ring.index == RING_TRBS - 1 {
            let link = u32::from(trb_type::LINK) << 10 | trb_bit::TOGGLE | control & trb_bit::CHAIN;
            write(ring.base + ring.index * 16, [ring.base as u32, 0, 0, link], ring.cycle);
            (ring.index, ring.cycle) = (0, !ring.cycle);
        }
        at
    }
}

impl Default for Driver {
    fn default() -> Self {
        Self::new()
    }
}
