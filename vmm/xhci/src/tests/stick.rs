//! A whole stick behind the controller, and data cut into TRBs in every way.

mod backend;

use backend::Stick;
use proptest::prelude::*;
use usbstick::BLOCK;
use vm_memory::{Bytes, GuestAddress};

use crate::backend::{Moved, Payload, Speed, Status};
use crate::controller::{Controller, Progress};
use crate::spec::{CHUNK_BYTES, Code, trb_bit};
use crate::testing::{DATA, Driver, RAM};

const IOC: u32 = trb_bit::IOC;
const ISP: u32 = trb_bit::ISP;
const CHAIN: u32 = trb_bit::CHAIN;

/// Lengths of TRBs that make one transfer; more than a chunk now and then.
fn cuts() -> impl Strategy<Value = Vec<u32>> {
    let length = prop_oneof![0_u32..8, 1_u32..5000, Just(512), Just(4096), Just(65_536)];
    prop::collection::vec(length, 1..40)
}

/// Queues a transfer of TRBs of these lengths, each buffer a page from the last; returns where each
/// TRB and each buffer is.
fn queue(driver: &mut Driver, slot: u8, index: u8, cuts: &[u32]) -> Vec<(u64, u64)> {
    let mut at = DATA;
    let mut places = Vec::new();
    for (number, &length) in cuts.iter().enumerate() {
        let last = number + 1 == cuts.len();
        let isp = if index & 1 == 1 { ISP } else { 0 };
        let trb = driver.normal(slot, index, at, length, isp | if last { IOC } else { CHAIN });
        places.push((trb, at));
        at += u64::from(length) + 7;
    }
    assert!(at < RAM as u64 * 2);
    driver.ring(slot, index);
    places
}

proptest! {
    #[test]
    fn however_a_driver_cuts_its_buffers_a_device_gets_the_same_bytes(cuts in cuts()) {
        let mut driver = Driver::new();
        let (_, slot) = driver.plug_stick();
        prop_assume!(cuts.iter().sum::<u32>() < 1 << 20);
        let mut expected = Vec::new();
        let mut at = DATA;
        for (number, &length) in cuts.iter().enumerate() {
            let bytes = vec![number as u8 + 1; length as usize];
            driver.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
            at += u64::from(length) + 7;
            expected.extend(bytes);
        }
        queue(&mut driver, slot, 2, &cuts);
        let mut got = Vec::new();
        while let Some(transfer) = driver.controller.backend().transfers.first() {
            let Payload::Out(data) = transfer.request.payload() else { panic!("not out") };
            prop_assert!(data.len() <= CHUNK_BYTES as usize);
            got.extend(data.clone());
            driver.succeed(&[]);
            driver.run();
            if driver.controller.in_flight() > 0 {
                prop_assert_eq!(got.len() % 512, 0, "only the last may be a short packet");
            }
        }
        prop_assert_eq!(got, expected);
        let events = driver.events();
        prop_assert_eq!(events.len(), 1);
        prop_assert!(events[0].is_transfer(Code::Success));
    }

    /// The driver's arithmetic is that of Linux: what lies before the TRB an event names, and what of
    /// it was moved.
    #[test]
    fn however_a_driver_cuts_its_buffers_it_can_tell_how_much_came(cuts in cuts(), part in 0.0..=1.0) {
        let total: u32 = cuts.iter().sum();
        prop_assume!(total > 0 && total < 1 << 20);
        let sent = (f64::from(total) * part) as u32;
        let mut driver = Driver::new();
        let (_, slot) = driver.plug_stick();
        let places = queue(&mut driver, slot, 3, &cuts);
        let data: Vec<u8> = (0..sent).map(|at| (at % 251) as u8 + 1).collect();
        let mut left = data.as_slice();
        while let Some(transfer) = driver.controller.backend().transfers.first() {
            let Payload::In(asked) = *transfer.request.payload() else { panic!("not in") };
            let (now, later) = left.split_at(left.len().min(asked as usize));
            left = later;
            driver.succeed(now);
            driver.run();
        }
        let events = driver.events();
        prop_assert_eq!(events.len(), 1, "{:?}", events);
        let code = if sent == total { Code::Success } else { Code::ShortPacket };
        prop_assert!(events[0].is_transfer(code));
        let named = places.iter().position(|(trb, _)| *trb == events[0].parameter).unwrap();
        let before: u32 = cuts[..named].iter().sum();
        prop_assert_eq!(before + cuts[named] - events[0].length, sent);
        let mut got = Vec::new();
        for (&(_, at), &length) in places.iter().zip(&cuts) {
            got.extend(driver.bytes(at, length as usize));
        }
        got.truncate(sent as usize);
        prop_assert_eq!(got, data);
    }
}

#[test]
fn an_error_says_how_far_it_came() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let places = queue(&mut driver, slot, 3, &[1024, 1024, 1024]);
    driver.answer(Status::Error, Moved::In(vec![1; 1536]));
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::TransactionError));
    assert_eq!((events[0].parameter, events[0].length), (places[1].0, 512));
}

/// A stick driven through the test driver's rings: what the recorder gets, the stick answers.
struct Bot {
    driver: Driver,
    stick: Stick,
    slot: u8,
}

impl Bot {
    fn new() -> Self {
        let mut driver = Driver::new();
        let (_, slot) = driver.plug_stick();
        let mut stick = Stick::new(Speed::High, 1024);
        stick.storage.medium.fill(0);
        Self { driver, stick, slot }
    }

    fn pump(&mut self) {
        use crate::backend::Backend;
        loop {
            let transfers = std::mem::take(&mut self.driver.controller.backend_mut().transfers);
            transfers.into_iter().for_each(|transfer| self.stick.submit(transfer));
            let answers = self.stick.answers();
            if answers.is_empty() {
                return;
            }
            for (id, status, moved) in answers {
                self.driver.controller.complete(id, status, moved);
            }
            self.driver.run();
        }
    }

    /// Sends a command with its data at [`DATA`]; returns the status byte of its CSW.
    fn command(&mut self, command: [u8; 10], length: u32, to_host: bool) -> u8 {
        let (driver, slot) = (&mut self.driver, self.slot);
        let (cbw, csw) = (DATA - 64, DATA - 128);
        let mut bytes = b"USBCtag!".to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([if to_host { 0x80 } else { 0 }, 0, 10]);
        bytes.extend(command);
        bytes.resize(31, 0);
        driver.memory.write_slice(&bytes, GuestAddress(cbw)).unwrap();
        driver.normal(slot, 2, cbw, 31, IOC);
        driver.ring(slot, 2);
        if length > 0 {
            let index = if to_host { 3 } else { 2 };
            driver.normal(slot, index, DATA, length, IOC | ISP);
            driver.ring(slot, index);
        }
        driver.normal(slot, 3, csw, 13, IOC);
        driver.ring(slot, 3);
        self.pump();
        assert_eq!(self.driver.controller.in_flight(), 0);
        self.driver.events();
        assert_eq!(self.driver.bytes(csw, 8), b"USBStag!");
        self.driver.bytes(csw + 12, 1)[0]
    }
}

#[test]
fn a_stick_is_read_and_written() {
    let mut bot = Bot::new();
    assert_eq!(bot.command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], 8, true), 0);
    assert_eq!(bot.driver.bytes(DATA, 8), [0, 0, 3, 0xff, 0, 0, 2, 0]);

    bot.driver.memory.write_slice(&[0xab; 2 * BLOCK], GuestAddress(DATA)).unwrap();
    assert_eq!(bot.command([0x2a, 0, 0, 0, 0, 5, 0, 0, 2, 0], 2 * BLOCK as u32, false), 0);
    assert_eq!(
        bot.stick.storage.medium[4 * BLOCK..8 * BLOCK].iter().filter(|&&b| b == 0xab).count(),
        1024
    );
    bot.driver.memory.write_slice(&[0; 3 * BLOCK], GuestAddress(DATA)).unwrap();
    assert_eq!(bot.command([0x28, 0, 0, 0, 0, 4, 0, 0, 3, 0], 3 * BLOCK as u32, true), 0);
    let read = bot.driver.bytes(DATA, 3 * BLOCK);
    assert_eq!(read, [[0; BLOCK], [0xab; BLOCK], [0xab; BLOCK]].concat());
}

#[test]
fn a_controller_holds_any_backend() {
    // The stick itself, not through the recorder: the way a machine has it.
    let memory = crate::GuestMemory::from_ranges(&[(GuestAddress(0), 4096)]).unwrap();
    let stick = Stick::new(Speed::Super, 16);
    let line = Box::new(crate::testing::Line::default());
    let mut controller = Controller::new(Default::default(), memory, stick, line);
    let port = controller.free_port(controller.backend().speed()).unwrap();
    controller.attach(port, Speed::Super).unwrap();
    assert_eq!(controller.step(), Progress::Idle, "halted");
}
