//! Whose memory it is: the controller writes where a driver waits for data, and nowhere else, whenever answers come.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use crate::backend::{Moved, Payload, PortId, Status, TransferId};
use crate::spec::{Code, base, crcr, portsc, trb_bit, trb_type, usbcmd};
use crate::testing::{DATA, Driver, OUTPUT, RAM, Seen};

const IN: u8 = 3;
const OUT: u8 = 2;
const ENDPOINTS: [(u8, u32, u32); 3] = [(OUT, 2, 512), (IN, 6, 512), (5, 7, 64)];
/// Bytes of a device context.
const CONTEXT: u64 = 0x400;
const PAGE: usize = 4096;
/// TRBs of one ring that wait at a time.
const WAITING_MAX: usize = 40;

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// A transfer of TRBs of these lengths on one of the endpoints.
    Queue(usize, Vec<u32>),
    /// The answer to one of the transfers under way, and how much of it was moved.
    Answer(usize, Status, f64),
    /// An answer to any transfer there ever was.
    Late(usize, Status, usize),
    /// The driver takes everything back, and the device answers within the time, or the driver gives up on the command.
    TakeBack(usize, Status, f64, bool),
    /// Some of the controller's work.
    Steps(usize),
    /// The device is pulled, its slot given back, and another is plugged in.
    Swap,
    /// The driver resets the controller.
    Reset,
    /// The driver halts the controller and starts it again.
    Halt(Vec<(usize, usize)>),
    /// The driver takes the endpoints away and adds them again.
    Configure,
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        6 => Just(Status::Success),
        1 => Just(Status::Stall),
        1 => Just(Status::Error),
        1 => Just(Status::Babble),
        2 => Just(Status::Stopped),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let length = prop_oneof![0_u32..8, 1_u32..5000, Just(512), Just(4096), Just(65_536)];
    let late = || (any::<usize>(), 0_usize..200_000);
    prop_oneof![
        8 => (0_usize..3, prop::collection::vec(length, 1..8)).prop_map(|(e, l)| Act::Queue(e, l)),
        6 => (any::<usize>(), status(), 0.0..=1.2).prop_map(|(n, s, p)| Act::Answer(n, s, p)),
        3 => (late(), status()).prop_map(|((n, bytes), s)| Act::Late(n, s, bytes)),
        3 => (0_usize..3, status(), 0.0..=1.0, any::<bool>())
            .prop_map(|(e, s, p, gives_up)| Act::TakeBack(e, s, p, gives_up)),
        4 => (0_usize..4).prop_map(Act::Steps),
        1 => Just(Act::Swap),
        1 => Just(Act::Reset),
        1 => prop::collection::vec(late(), 0..3).prop_map(Act::Halt),
        1 => Just(Act::Configure),
    ]
}

/// A transfer the driver waits for: its endpoint, its last TRB, its buffers, and all its TRBs.
struct Waiting {
    endpoint: u8,
    trbs: Vec<u64>,
    buffers: Vec<(u64, u64)>,
}

struct World {
    driver: Driver,
    port: PortId,
    slot: u8,
    waiting: Vec<Waiting>,
    ids: Vec<TransferId>,
    /// Where the next buffer is.
    next: u64,
    before: Vec<u8>,
    /// What a device sent last; each answer is of another byte.
    sent: u8,
}

impl World {
    fn new() -> Self {
        let mut driver = Driver::new();
        let (port, slot) = driver.plug_stick();
        let before = driver.bytes(DATA, RAM - DATA as usize);
        Self {
            driver,
            port,
            slot,
            waiting: Vec::new(),
            ids: Vec::new(),
            next: DATA,
            before,
            sent: 0,
        }
    }

    fn flags(&self, endpoint: u8) -> u32 {
        u32::from(self.slot) << 24 | u32::from(endpoint) << 16
    }

    fn queue(&mut self, endpoint: u8, lengths: &[u32]) {
        let waiting: usize =
            self.waiting.iter().filter(|w| w.endpoint == endpoint).map(|w| w.trbs.len()).sum();
        let state = self.driver.endpoint_context(self.slot, endpoint).0;
        if waiting + lengths.len() > WAITING_MAX || state == 2 || state == 4 {
            return;
        }
        let (mut trbs, mut buffers) = (Vec::new(), Vec::new());
        for (number, &length) in lengths.iter().enumerate() {
            let last = number + 1 == lengths.len();
            if self.next + u64::from(length) + 16 > RAM as u64 {
                self.next = DATA;
            }
            let isp = if endpoint == OUT { 0 } else { trb_bit::ISP };
            let flags = isp | if last { trb_bit::IOC } else { trb_bit::CHAIN };
            trbs.push(self.driver.normal(self.slot, endpoint, self.next, length, flags));
            if endpoint != OUT {
                buffers.push((self.next, self.next + u64::from(length)));
            }
            self.next += u64::from(length) + 7;
        }
        self.waiting.push(Waiting { endpoint, trbs, buffers });
        self.driver.write(base::DOORBELLS + 4 * u64::from(self.slot), endpoint.into());
    }

    fn sends(&mut self, bytes: usize) -> Moved {
        self.sent = self.sent.wrapping_add(1);
        Moved::In(vec![self.sent; bytes])
    }

    fn moved(&mut self, id: TransferId, part: f64) -> Moved {
        let transfers = &self.driver.controller.backend().transfers;
        match transfers.iter().find(|t| t.id == id).map(|t| t.request.payload().clone()) {
            Some(Payload::Out(data)) => Moved::Out((data.len() as f64 * part) as u32),
            Some(Payload::In(most)) => self.sends((f64::from(most) * part) as usize),
            None => self.sends(4096),
        }
    }

    fn end(&mut self, id: TransferId, status: Status, part: f64) {
        let moved = self.moved(id, part);
        self.driver.controller.backend_mut().transfers.retain(|transfer| transfer.id != id);
        self.driver.controller.complete(id, status, moved);
    }

    fn late(&mut self, which: usize, status: Status, bytes: usize) {
        let under_way = |id| self.driver.controller.backend().transfers.iter().any(|t| t.id == id);
        let gone: Vec<_> = self.ids.iter().copied().filter(|id| !under_way(*id)).collect();
        if let Some(id) = which.checked_rem(gone.len()).and_then(|at| gone.get(at)) {
            let (id, data) = (*id, self.sends(bytes));
            self.driver.controller.complete(id, status, data);
        }
    }

    /// Runs the driver's handler: what is done is its own again.
    fn handle(&mut self) -> Vec<Seen> {
        let seen = self.driver.events();
        for event in seen.iter().filter(|seen| seen.kind == trb_type::TRANSFER_EVENT) {
            let ends = event.code == Code::Success as u8 || event.code == Code::ShortPacket as u8;
            self.waiting.retain(|w| !(ends && w.trbs.contains(&event.parameter)));
        }
        seen
    }

    /// Takes transfers back by Stop Endpoint or Reset Endpoint, then Set TR Dequeue Pointer behind everything.
    fn take_back(&mut self, endpoint: u8, status: Status, part: f64, gives_up: bool) {
        self.handle();
        self.driver.controller.backend_mut().stopping.clear();
        if self.driver.endpoint_context(self.slot, endpoint).0 == 1 {
            self.driver.command_events(trb_type::STOP_ENDPOINT, self.flags(endpoint));
            let stopping = std::mem::take(&mut self.driver.controller.backend_mut().stopping);
            if gives_up {
                let at = base::OPERATIONAL + 0x18;
                self.driver.write(at, crcr::ABORT);
                self.driver.write(at + 4, 0);
                self.handle();
            }
            for id in stopping {
                self.end(id, status, part);
            }
            self.handle();
        }
        let (flags, slot) = (self.flags(endpoint), self.slot);
        if self.driver.endpoint_context(slot, endpoint).0 == 2 {
            self.driver.command_events(trb_type::RESET_ENDPOINT, flags);
        }
        let to = self.driver.enqueue(slot, endpoint);
        let code = self.driver.endpoint_command(trb_type::SET_TR_DEQUEUE, slot, endpoint, to);
        assert_eq!(code, Code::Success as u8);
        self.waiting.retain(|w| w.endpoint != endpoint);
    }

    fn swap(&mut self) {
        self.driver.controller.detach(self.port);
        self.handle();
        let (code, _) = self.driver.command(trb_type::DISABLE_SLOT, 0, u32::from(self.slot) << 24);
        assert_eq!(code, Code::Success as u8);
        self.gone();
        self.driver.controller.backend_mut().transfers.clear();
        (self.port, self.slot) = self.driver.plug_stick();
    }

    fn reset(&mut self) {
        self.driver.write(base::OPERATIONAL, usbcmd::RESET);
        self.gone();
        self.driver.start();
        self.handle();
        let at = Driver::portsc(self.port);
        self.driver.write(at, portsc::PP | portsc::PR);
        self.driver.write(at, portsc::PP | portsc::CHANGES);
        self.handle();
        let (code, slot) = self.driver.command(trb_type::ENABLE_SLOT, 0, 0);
        assert_eq!(code, Code::Success as u8);
        assert_eq!(self.driver.address(self.port, slot, 0), Code::Success as u8);
        assert_eq!(self.driver.configure(slot, &ENDPOINTS), Code::Success as u8);
        self.slot = slot;
    }

    /// Gives the slot and all its transfers back to the driver: its context is somebody else's from now on.
    fn gone(&mut self) {
        self.waiting.clear();
        let at = OUTPUT + u64::from(self.slot) * CONTEXT;
        self.driver.memory.write_slice(&[0x77; CONTEXT as usize], GuestAddress(at)).unwrap();
        // The mark is looked at before the slot's number can come again.
        for id in self.ids.clone() {
            let data = self.sends(4096);
            self.driver.controller.complete(id, Status::Success, data);
        }
        let context = self.driver.bytes(at, CONTEXT as usize);
        assert!(context.iter().all(|byte| *byte == 0x77), "a context that was given back");
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Queue(endpoint, lengths) => self.queue(ENDPOINTS[endpoint].0, &lengths),
            Act::Answer(which, status, part) => {
                let transfers = &self.driver.controller.backend().transfers;
                let at = which.checked_rem(transfers.len());
                if let Some(id) = at.and_then(|at| transfers.get(at)).map(|t| t.id) {
                    self.end(id, status, part);
                }
            }
            Act::Late(which, status, bytes) => self.late(which, status, bytes),
            Act::TakeBack(endpoint, status, part, gives_up) => {
                self.take_back(ENDPOINTS[endpoint].0, status, part, gives_up);
            }
            Act::Steps(count) => {
                for _ in 0..count {
                    let _ = self.driver.controller.step();
                }
            }
            Act::Swap => self.swap(),
            Act::Reset => self.reset(),
            Act::Halt(late) => {
                self.driver.write(base::OPERATIONAL, usbcmd::INTE);
                for (which, bytes) in late {
                    self.late(which, Status::Success, bytes);
                }
                let _ = self.driver.controller.step();
                self.driver.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
            }
            Act::Configure => {
                self.handle();
                let code = self.driver.configure(self.slot, &ENDPOINTS);
                assert_eq!(code, Code::Success as u8);
                self.waiting.clear();
            }
        }
        let transfers = &self.driver.controller.backend().transfers;
        self.ids.extend(transfers.iter().map(|transfer| transfer.id));
        self.ids.dedup();
    }

    /// Returns where data was written that nobody waited for before or after.
    fn written(&mut self, owned: &[(u64, u64)]) -> Option<u64> {
        let now = self.driver.bytes(DATA, RAM - DATA as usize);
        let mine = |at| owned.iter().any(|(start, end)| (*start..*end).contains(&at));
        let pages = (DATA..).step_by(PAGE).zip(self.before.chunks(PAGE).zip(now.chunks(PAGE)));
        let changed = pages.filter(|(_, (old, new))| old != new);
        let bytes = changed.flat_map(|(at, (old, new))| (at..).zip(old.iter().zip(new)));
        let wrong =
            bytes.filter(|(_, (old, new))| old != new).map(|(at, _)| at).find(|at| !mine(*at));
        self.before = now;
        wrong
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn memory_a_driver_does_not_wait_for_data_in_is_never_written(acts in prop::collection::vec(act(), 1..60)) {
        let mut world = World::new();
        for act in acts {
            let name = format!("{act:?}");
            // What is under way when the act begins may come in it; what it queues, too.
            let mut owned: Vec<_> = world.waiting.iter().flat_map(|w| w.buffers.clone()).collect();
            world.act(act);
            owned.extend(world.waiting.iter().flat_map(|w| w.buffers.clone()));
            prop_assert_eq!(world.written(&owned), None, "{}", name);
            world.handle();
            prop_assert_eq!(world.written(&owned), None, "{}, handled", name);
        }
    }
}

/// A driver that gives up on Disable Slot frees the slot's memory all the same.
#[test]
fn a_device_that_goes_makes_nothing_of_a_ring_whose_doorbell_nobody_rang() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    let ring = driver.ring_base(slot, IN);
    let context = OUTPUT + u64::from(slot) * CONTEXT;
    // Disable Slot is on the ring, and the driver loses patience before it is carried out.
    let at = base::OPERATIONAL + 0x18;
    driver.write(base::DOORBELLS, 0);
    driver.write(at, crcr::ABORT);
    driver.write(at + 4, 0);
    driver.events();
    // Whatever is there now.
    driver.memory.write_slice(&[0xff; 16], GuestAddress(ring)).unwrap();
    driver.memory.write_slice(&[0x77; CONTEXT as usize], GuestAddress(context)).unwrap();
    driver.controller.detach(port);
    let seen = driver.events();
    assert!(seen.iter().all(|seen| seen.kind == trb_type::PORT_STATUS_CHANGE), "{seen:?}");
    assert_eq!(driver.bytes(context, CONTEXT as usize), [0x77; CONTEXT as usize]);
}
