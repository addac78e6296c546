//! Stop Endpoint (4.6.9): what was moved is moved once, and never lost.

use std::time::Instant;

use crate::backend::{Moved, Payload, Status, TransferId};
use crate::spec::{CHUNK_BYTES, Code, STOP_WAIT, base, crcr, trb_bit, trb_type};
use crate::testing::{DATA, Driver, Seen};

const IOC: u32 = trb_bit::IOC;
const IN: u8 = 3;
const OUT: u8 = 2;
const STOPPED: u32 = 3;
const HALTED: u32 = 2;

fn flags(slot: u8, index: u8) -> u32 {
    u32::from(slot) << 24 | u32::from(index) << 16
}

/// Stops an endpoint whose transfer the device ends at once with `status` and `moved`; all events.
fn stop(driver: &mut Driver, slot: u8, index: u8, status: Status, moved: Moved) -> Vec<Seen> {
    let transfer = driver.last().id;
    let seen = driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, index));
    assert_eq!(seen, [], "the answer waits for the device's");
    assert_eq!(driver.controller.backend().stopping, [transfer]);
    driver.controller.backend_mut().stopping.clear();
    driver.answer(status, moved);
    driver.events()
}

fn is_done(seen: &Seen, code: Code) -> bool {
    seen.kind == trb_type::COMMAND_COMPLETION && seen.code == code as u8
}

#[test]
fn a_stopped_endpoint_takes_its_transfer_back_and_can_go_on() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    let at = driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    let first = driver.last();
    let seen = stop(&mut driver, slot, IN, Status::Stopped, Moved::In(Vec::new()));
    assert!(seen[0].is_transfer(Code::Stopped));
    assert_eq!((seen[0].parameter, seen[0].length), (at, 512));
    assert!(is_done(&seen[1], Code::Success) && seen.len() == 2);
    assert_eq!(driver.controller.backend().stopped, [(port, first.endpoint)]);
    assert_eq!(driver.endpoint_context(slot, IN), (STOPPED, at | 1));
    // A late answer is nobody's.
    driver.controller.complete(first.id, Status::Success, Moved::In(vec![1; 512]));
    assert_eq!(driver.events(), []);
    assert_eq!(driver.bytes(DATA, 1), [0]);
    // The doorbell starts it again, as a new transfer.
    driver.ring(slot, IN);
    assert_ne!(driver.last().id, first.id);
    driver.succeed(&[1; 512]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

/// Both directions, stopped after any number of bytes, over TRBs of 1,000 bytes.
#[test]
fn what_went_before_the_stop_goes_once_and_what_came_is_there() {
    for moved in [0u32, 1, 999, 1000, 1001, 2048, 2999] {
        for index in [IN, OUT] {
            let mut driver = Driver::new();
            let (_, slot) = driver.plug_stick();
            for number in 0..3u64 {
                let chain = if number < 2 { trb_bit::CHAIN } else { IOC };
                driver.normal(slot, index, DATA + number * 1000, 1000, chain);
            }
            let pattern: Vec<u8> = (0..3000u32).map(|at| (at % 251) as u8 + 1).collect();
            let (done, left) = pattern.split_at(moved as usize);
            let moves = |count: &[u8]| match index {
                IN => Moved::In(count.to_vec()),
                _ => Moved::Out(count.len() as u32),
            };
            if index == OUT {
                let put: Vec<u32> = pattern
                    .chunks(4)
                    .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
                    .collect();
                driver.put(DATA, &put);
            }
            driver.ring(slot, index);
            let seen = stop(&mut driver, slot, index, Status::Stopped, moves(done));
            assert!(seen[0].is_transfer(Code::Stopped), "{moved}");
            // What the driver makes of it is what was moved (4.6.9: the TRB, and what is left of it).
            let ring = seen[0].parameter - driver.ring_base(slot, index);
            assert_eq!((ring / 16 + 1) as u32 * 1000 - seen[0].length, moved);
            assert!(is_done(&seen[1], Code::Success));

            driver.ring(slot, index);
            let again = driver.last();
            match again.request.payload() {
                Payload::In(asked) => assert_eq!(*asked, 3000 - moved),
                Payload::Out(data) => assert_eq!(data, left, "sent twice, or not at all"),
            }
            driver.answer(Status::Success, moves(left));
            let seen = driver.events();
            assert!(seen[0].is_transfer(Code::Success) && seen.len() == 1);
            assert_eq!(driver.bytes(DATA, 3000), pattern);
        }
    }
}

#[test]
fn a_transfer_that_ends_before_it_can_be_stopped_has_ended() {
    let answers = [
        (Status::Success, vec![1; 512], Code::Success),
        (Status::Success, vec![1; 100], Code::ShortPacket),
        // All of it came, and then it was cancelled.
        (Status::Stopped, vec![1; 512], Code::Success),
    ];
    for (status, data, code) in answers {
        let mut driver = Driver::new();
        let (_, slot) = driver.plug_stick();
        driver.normal(slot, IN, DATA, 512, IOC);
        driver.ring(slot, IN);
        let seen = stop(&mut driver, slot, IN, status, Moved::In(data));
        assert!(seen[0].is_transfer(code), "{seen:?}");
        assert!(is_done(&seen[1], Code::Success) && seen.len() == 2);
        assert_eq!(driver.bytes(DATA, 100), [1; 100]);
    }
}

#[test]
fn what_came_before_the_stop_is_told() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    driver.succeed(&[1; 512]);
    let seen = driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN));
    assert!(seen[0].is_transfer(Code::Success));
    assert!(is_done(&seen[1], Code::Success));
    assert_eq!(driver.bytes(DATA, 1), [1]);
}

#[test]
fn an_endpoint_that_halts_while_it_is_stopped_is_halted() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    let seen = stop(&mut driver, slot, IN, Status::Stall, Moved::In(Vec::new()));
    assert!(seen[0].is_transfer(Code::Stall));
    assert!(is_done(&seen[1], Code::ContextState));
    assert_eq!(driver.endpoint_context(slot, IN).0, HALTED);
}

#[test]
fn a_large_transfer_stopped_midway_goes_on_where_it_was() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let chunk = CHUNK_BYTES as usize;
    let mut places = Vec::new();
    for index in 0..5 {
        let last = index == 4;
        let at = DATA + index * 60_000;
        places.push(driver.normal(slot, IN, at, 60_000, if last { IOC } else { trb_bit::CHAIN }));
    }
    driver.ring(slot, IN);
    driver.succeed(&vec![1; chunk]);
    driver.run();
    // 131,072 bytes are two TRBs and 11,072 of the third.
    let seen = stop(&mut driver, slot, IN, Status::Stopped, Moved::In(Vec::new()));
    assert!(seen[0].is_transfer(Code::Stopped));
    assert_eq!((seen[0].parameter, seen[0].length), (places[2], 60_000 - 11_072));
    assert_eq!(driver.endpoint_context(slot, IN), (STOPPED, places[2] | 1));

    driver.ring(slot, IN);
    for value in [2, 3] {
        let Payload::In(asked) = *driver.last().request.payload() else { panic!("not in") };
        driver.succeed(&vec![value; asked as usize]);
        driver.run();
    }
    assert!(driver.events()[0].is_transfer(Code::Success));
    let data = driver.bytes(DATA, 300_000);
    let counts = [1, 2, 3].map(|value| data.iter().filter(|&&byte| byte == value).count());
    assert_eq!(counts, [chunk, chunk, 300_000 - 2 * chunk]);
}

#[test]
fn a_stopped_control_transfer_starts_over() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(crate::Speed::High);
    let before = driver.enqueue(slot, 1);
    driver.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0]);
    let seen = stop(&mut driver, slot, 1, Status::Stopped, Moved::In(Vec::new()));
    assert!(seen[0].is_transfer(Code::Stopped));
    assert_eq!(driver.endpoint_context(slot, 1), (STOPPED, before));
    driver.ring(slot, 1);
    driver.succeed(&[1; 18]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

#[test]
fn while_a_device_is_waited_for_other_endpoints_go_on_and_other_commands_wait() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN)), []);
    assert_eq!(driver.command_events(trb_type::NO_OP_COMMAND, 0), []);
    driver.normal(slot, OUT, DATA, 512, IOC);
    driver.ring(slot, OUT);
    let id = driver.last().id;
    driver.controller.complete(id, Status::Success, Moved::Out(512));
    let seen = driver.events();
    assert!(seen[0].is_transfer(Code::Success) && seen.len() == 1);
    driver.answer(Status::Stopped, Moved::In(Vec::new()));
    let seen = driver.events();
    assert!(seen[0].is_transfer(Code::Stopped));
    assert!(is_done(&seen[1], Code::Success) && is_done(&seen[2], Code::Success));
}

#[test]
fn a_device_that_does_not_answer_is_waited_for_no_longer_than_agreed_and_its_transfer_has_failed() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, OUT, DATA, 512, IOC);
    driver.ring(slot, OUT);
    let transfer = driver.last().id;
    let start = Instant::now();
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, OUT)), []);
    let deadline = driver.controller.deadline().expect("the worker is to come back");
    assert!(deadline <= Instant::now() + STOP_WAIT);
    while Instant::now() < deadline {
        assert_eq!(driver.events(), []);
        std::thread::sleep(STOP_WAIT / 50);
    }
    let seen = driver.events();
    assert!(start.elapsed() >= STOP_WAIT);
    assert!(seen[0].is_transfer(Code::TransactionError));
    assert!(is_done(&seen[1], Code::ContextState));
    assert_eq!(driver.endpoint_context(slot, OUT).0, HALTED, "nobody knows what it has");
    assert_eq!(driver.controller.backend().cancelled, [transfer]);
    assert_eq!(driver.controller.deadline(), None);
}

#[test]
fn a_device_that_goes_while_it_is_waited_for_is_not_waited_for() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN)), []);
    driver.controller.detach(port);
    let seen = driver.events();
    assert!(seen.iter().any(|seen| is_done(seen, Code::ContextState)), "{seen:?}");
}

#[test]
fn a_stopped_command_ring_waits_for_no_device() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN)), []);
    driver.write_wide(base::OPERATIONAL + 0x18, u64::from(crcr::ABORT));
    let seen = driver.events();
    assert!(seen[0].is_transfer(Code::TransactionError));
    assert!(is_done(&seen[1], Code::ContextState));
    assert!(is_done(&seen[2], Code::CommandRingStopped));
}

#[test]
fn a_reset_forgets_a_stop_that_waits() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    let transfer = driver.last().id;
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN)), []);
    driver.controller.reset();
    assert_eq!(driver.controller.deadline(), None);
    assert_eq!(driver.controller.backend().cancelled, [transfer]);
    driver.controller.complete(transfer, Status::Stopped, Moved::In(vec![1; 512]));
    driver.controller.complete(TransferId::from_number(0), Status::Stopped, Moved::Out(1));
    driver.start();
    assert_eq!(driver.command(trb_type::NO_OP_COMMAND, 0, 0).0, Code::Success as u8);
}

#[test]
fn a_guest_that_keeps_its_command_waiting_itself_wakes_nobody() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, IN, DATA, 512, IOC);
    driver.ring(slot, IN);
    assert_eq!(driver.command_events(trb_type::STOP_ENDPOINT, flags(slot, IN)), []);
    assert!(driver.controller.deadline().is_some());
    driver.write(base::OPERATIONAL, 0);
    assert_eq!(driver.controller.deadline(), None, "it is halted");
    driver.write(base::OPERATIONAL, crate::spec::usbcmd::RUN);
    assert!(driver.controller.deadline().is_some());
}
