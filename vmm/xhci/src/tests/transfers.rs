//! Control, bulk and interrupt transfers.

use crate::backend::{Moved, Payload, Request, Speed, Standard, Status};
use crate::spec::{CHUNK_BYTES, Code, trb_bit, trb_type};
use crate::testing::{DATA, Driver};
use vm_memory::{Bytes, GuestAddress};

const IOC: u32 = trb_bit::IOC;
const ISP: u32 = trb_bit::ISP;
const CHAIN: u32 = trb_bit::CHAIN;
const GET_DESCRIPTOR: [u8; 8] = [0x80, 6, 0, 1, 0, 0, 18, 0];

#[test]
fn a_control_transfer_to_the_host_is_one_transfer() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug(Speed::High);
    let status = driver.control(slot, GET_DESCRIPTOR);

    let transfer = driver.last();
    assert_eq!((transfer.port, transfer.endpoint.byte()), (port, 0));
    let Request::Control { setup, payload } = transfer.request else { panic!("not control") };
    assert_eq!((setup.request_type, setup.request, setup.value), (0x80, 6, 0x100));
    assert_eq!(payload, Payload::In(18));
    driver.succeed(&[7; 18]);

    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::Success));
    assert_eq!((events[0].parameter, events[0].slot, events[0].endpoint), (status, slot, 1));
    assert_eq!(driver.bytes(DATA, 19), [[7; 18].as_slice(), &[0]].concat());
}

#[test]
fn a_short_answer_to_a_control_transfer_is_told_and_its_status_stage_too() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    driver.control(slot, GET_DESCRIPTOR);
    driver.succeed(&[7; 8]);
    let events = driver.events();
    assert_eq!(events.len(), 2);
    assert!(events[0].is_transfer(Code::ShortPacket));
    assert_eq!(events[0].length, 10);
    assert!(events[1].is_transfer(Code::Success));
}

#[test]
fn a_control_transfer_to_the_device_carries_its_data() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::Full);
    driver.memory.write_slice(b"abcde", GuestAddress(DATA)).unwrap();
    driver.control(slot, [0x21, 9, 0, 0, 0, 0, 5, 0]);
    assert_eq!(*driver.last().request.payload(), Payload::Out(b"abcde".to_vec()));
    driver.succeed(&[]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

#[test]
fn the_requests_a_stream_treats_specially_are_recognised() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    let mut standard = |setup| {
        driver.control(slot, setup);
        let Request::Control { setup, .. } = driver.last().request else { panic!("not control") };
        driver.succeed(&[1]);
        driver.events();
        setup.standard()
    };
    assert_eq!(standard([0, 9, 2, 0, 0, 0, 0, 0]), Standard::SetConfiguration(2));
    assert_eq!(standard([0x80, 8, 0, 0, 0, 0, 1, 0]), Standard::GetConfiguration);
    let set = Standard::SetInterface { interface: 3, alternate: 1 };
    assert_eq!(standard([1, 11, 1, 0, 3, 0, 0, 0]), set);
    assert_eq!(standard([0x81, 10, 0, 0, 3, 0, 1, 0]), Standard::GetInterface { interface: 3 });
    assert!(matches!(standard([2, 1, 0, 0, 0x81, 0, 0, 0]), Standard::ClearHalt(_)));
    assert_eq!(standard(GET_DESCRIPTOR), Standard::Other);
}

#[test]
fn set_address_never_reaches_a_device() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    driver.control(slot, [0, 5, 9, 0, 0, 0, 0, 0]);
    assert_eq!(driver.controller.backend().transfers, []);
    assert!(driver.events()[0].is_transfer(Code::Stall));
}

#[test]
fn a_control_transfer_waits_for_its_status_stage() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    let setup = u64::from_le_bytes([0, 9, 1, 0, 0, 0, 0, 0]);
    driver.queue(slot, 1, setup, 8, u32::from(trb_type::SETUP) << 10 | trb_bit::IDT);
    driver.ring(slot, 1);
    assert_eq!(driver.controller.in_flight(), 0);
    let status = u32::from(trb_type::STATUS) << 10 | trb_bit::DIRECTION_IN | IOC;
    driver.queue(slot, 1, 0, 0, status);
    driver.ring(slot, 1);
    assert_eq!(driver.controller.in_flight(), 1);
}

#[test]
fn bulk_data_goes_out_of_scattered_buffers_in_order() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.memory.write_slice(b"front", GuestAddress(DATA)).unwrap();
    driver.memory.write_slice(b"back", GuestAddress(DATA + 0x1000)).unwrap();
    driver.normal(slot, 2, DATA, 5, CHAIN);
    driver.normal(slot, 2, DATA + 0x1000, 4, CHAIN);
    let immediate = u64::from_le_bytes(*b"!?......");
    let last = driver.normal(slot, 2, immediate, 2, IOC | trb_bit::IDT);
    driver.ring(slot, 2);
    let transfer = driver.last();
    assert_eq!(transfer.endpoint.byte(), 1);
    assert_eq!(transfer.request, Request::Bulk(Payload::Out(b"frontback!?".to_vec())));
    driver.succeed(&[]);
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::Success));
    assert_eq!((events[0].parameter, events[0].length), (last, 0));
}

#[test]
fn a_transfer_larger_than_a_chunk_goes_in_several_of_whole_packets() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    // 320 KiB in buffers of 60 KiB and a rest.
    let total: u32 = 320 << 10;
    let mut left = total;
    let mut at = DATA;
    while left > 0 {
        let now = left.min(60 << 10);
        left -= now;
        driver.normal(slot, 3, at, now, ISP | if left > 0 { CHAIN } else { IOC });
        at += u64::from(now);
    }
    driver.ring(slot, 3);
    let mut got = 0;
    while let Some(transfer) = driver.controller.backend().transfers.first() {
        let Payload::In(asked) = *transfer.request.payload() else { panic!("not in") };
        assert!(asked <= CHUNK_BYTES && asked % 512 == 0);
        let data: Vec<u8> = (got..got + asked).map(|at| (at / 512) as u8).collect();
        got += asked;
        driver.succeed(&data);
        driver.run();
    }
    assert_eq!(got, total);
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::Success));
    let expected: Vec<u8> = (0..total).map(|at| (at / 512) as u8).collect();
    assert_eq!(driver.bytes(DATA, total as usize), expected);
}

#[test]
fn a_short_packet_ends_a_transfer_where_it_came() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 1024, ISP | CHAIN);
    let second = driver.normal(slot, 3, DATA + 1024, 1024, ISP | CHAIN);
    driver.normal(slot, 3, DATA + 2048, 1024, ISP | IOC);
    let next = driver.normal(slot, 3, DATA + 4096, 512, IOC);
    driver.ring(slot, 3);
    driver.succeed(&[3; 1100]);
    let events = driver.events();
    assert_eq!(events.len(), 1, "one event for a short packet: {events:?}");
    assert!(events[0].is_transfer(Code::ShortPacket));
    assert_eq!((events[0].parameter, events[0].length), (second, 1024 - 76));
    // The next transfer follows by itself.
    assert_eq!(*driver.last().request.payload(), Payload::In(512));
    driver.succeed(&[4; 512]);
    assert_eq!(driver.events()[0].parameter, next);
    assert_eq!(driver.bytes(DATA + 1100, 1), [0]);
}

#[test]
fn a_short_packet_in_a_large_transfer_passes_over_the_rest() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let large = 0x1_0000;
    for index in 0..4 {
        driver.normal(slot, 3, DATA + index * large, large as u32, ISP | CHAIN);
    }
    let last = driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    // The first chunk whole, the second short.
    driver.succeed(&vec![1; CHUNK_BYTES as usize]);
    driver.run();
    driver.succeed(&[2; 512]);
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert_ne!(events[0].parameter, last);
    assert!(events[0].is_transfer(Code::ShortPacket));
    assert_eq!(driver.controller.in_flight(), 0);
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    assert_eq!(driver.controller.in_flight(), 1, "the ring goes on behind the transfer");
}

#[test]
fn a_short_packet_without_isp_is_told_at_the_end_of_the_transfer() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 1024, CHAIN);
    let last = driver.normal(slot, 3, DATA + 1024, 1024, IOC);
    driver.ring(slot, 3);
    driver.succeed(&[3; 13]);
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::ShortPacket));
    assert_eq!((events[0].parameter, events[0].length), (last, 1024));
}

#[test]
fn event_data_says_how_much_was_moved_in_all() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let event_data = u32::from(trb_type::EVENT_DATA) << 10 | IOC;
    for moved in [1500, 2048] {
        driver.normal(slot, 3, DATA, 1024, CHAIN);
        driver.normal(slot, 3, DATA + 1024, 1024, CHAIN);
        driver.queue(slot, 3, 0xfeed_beef_cafe, 0, event_data);
        driver.ring(slot, 3);
        driver.succeed(&vec![1; moved]);
        let events = driver.events();
        assert_eq!(events.len(), 1);
        assert!(events[0].data);
        assert_eq!(events[0].parameter, 0xfeed_beef_cafe);
        assert_eq!(events[0].length as usize, moved);
        let code = if moved < 2048 { Code::ShortPacket } else { Code::Success };
        assert_eq!(events[0].code, code as u8);
    }
}

#[test]
fn a_no_op_moves_nothing_and_is_told() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let at = driver.queue(slot, 2, 0, 0, u32::from(trb_type::NO_OP) << 10 | IOC);
    driver.ring(slot, 2);
    assert_eq!(driver.controller.in_flight(), 0);
    let events = driver.events();
    assert!(events[0].is_transfer(Code::Success));
    assert_eq!(events[0].parameter, at);
}

#[test]
fn a_transfer_of_no_bytes_reaches_the_device() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 2, DATA, 0, IOC);
    driver.ring(slot, 2);
    assert_eq!(driver.last().request, Request::Bulk(Payload::Out(Vec::new())));
    driver.succeed(&[]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

#[test]
fn an_interrupt_endpoint_says_how_often_it_is_asked() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 5, DATA, 8, IOC | ISP);
    driver.ring(slot, 5);
    let payload = Payload::In(8);
    let transfer = driver.last();
    assert_eq!(transfer.endpoint.byte(), 0x82);
    assert_eq!(transfer.request, Request::Interrupt { payload, interval: 1000, packet: 64 });
}

#[test]
fn a_stalled_endpoint_halts_until_it_is_reset_and_moved_on() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let first = driver.normal(slot, 3, DATA, 512, IOC);
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    driver.answer(Status::Stall, Moved::In(Vec::new()));
    let events = driver.events();
    assert_eq!(events.len(), 1);
    assert!(events[0].is_transfer(Code::Stall));
    assert_eq!((events[0].parameter, events[0].length), (first, 512));
    assert_eq!(driver.endpoint_context(slot, 3), (2, first | 1));
    // Nothing behind the stall was tried, and a doorbell changes nothing.
    driver.ring(slot, 3);
    assert_eq!(driver.controller.in_flight(), 0);

    let reset = driver.endpoint_command(trb_type::RESET_ENDPOINT, slot, 3, 0);
    assert_eq!(reset, Code::Success as u8);
    assert_eq!(driver.endpoint_context(slot, 3).0, 3);
    let next = (first + 16) | 1;
    let moved = driver.endpoint_command(trb_type::SET_TR_DEQUEUE, slot, 3, next);
    assert_eq!(moved, Code::Success as u8);
    assert_eq!(driver.endpoint_context(slot, 3), (3, next));
    driver.ring(slot, 3);
    driver.succeed(&[9; 512]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

#[test]
fn a_device_that_sends_too_much_halts_its_endpoint_and_overruns_nothing() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    driver.succeed(&[0xee; 600]);
    assert!(driver.events()[0].is_transfer(Code::Babble));
    assert_eq!(driver.bytes(DATA + 511, 2), [0xee, 0]);
}

#[test]
fn a_meaningless_trb_stops_its_endpoint_only() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.queue(slot, 3, 0, 0, 63 << 10);
    driver.ring(slot, 3);
    assert!(driver.events()[0].is_transfer(Code::TrbError));
    assert_eq!(driver.endpoint_context(slot, 3).0, 4);
    let next = driver.enqueue(slot, 3);
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.endpoint_command(trb_type::SET_TR_DEQUEUE, slot, 3, next);
    driver.ring(slot, 3);
    assert_eq!(driver.controller.in_flight(), 1);
}

#[test]
fn a_buffer_outside_memory_is_never_read_or_written() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    for (index, at) in [(2, u64::MAX - 100), (3, crate::testing::RAM as u64 - 100)] {
        driver.normal(slot, index, at, 512, IOC);
        driver.ring(slot, index);
        assert_eq!(driver.controller.in_flight(), 0);
        assert!(driver.events()[0].is_transfer(Code::TrbError));
    }
}

#[test]
fn a_ring_of_nothing_but_links_ends() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let at = driver.enqueue(slot, 3) & !1;
    let link = u32::from(trb_type::LINK) << 10 | 1;
    driver.put(at, &[at as u32, 0, 0, link]);
    driver.ring(slot, 3);
    assert!(driver.events()[0].is_transfer(Code::TrbError));
}

#[test]
fn a_transfer_without_an_end_is_refused() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    // A No Op chained to itself by a Link that does not toggle.
    let at = driver.enqueue(slot, 3) & !1;
    driver.put(at, &[0, 0, 0, u32::from(trb_type::NO_OP) << 10 | CHAIN | 1]);
    driver.put(at + 16, &[at as u32, 0, 0, u32::from(trb_type::LINK) << 10 | CHAIN | 1]);
    driver.ring(slot, 3);
    assert!(driver.events()[0].is_transfer(Code::TrbError));
    // The same behind a short packet.
    let (_, slot) = driver.plug_stick();
    let at = driver.enqueue(slot, 3) & !1;
    driver.put(at, &[DATA as u32, 0, 512, u32::from(trb_type::NORMAL) << 10 | CHAIN | 1]);
    let large = u32::from(trb_type::NORMAL) << 10 | CHAIN | 1;
    driver.put(at + 16, &[DATA as u32, 0, 0x1_0000, large]);
    driver.put(at + 32, &[DATA as u32, 0, 0x1_0000, large]);
    driver.put(at + 48, &[at as u32 + 16, 0, 0, u32::from(trb_type::LINK) << 10 | CHAIN | 1]);
    driver.ring(slot, 3);
    driver.succeed(&[0; 3]);
    assert!(driver.events().iter().any(|event| event.is_transfer(Code::TrbError)));
}

#[test]
fn crumbs_of_buffers_are_put_together_to_packets() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    for _ in 0..55 {
        driver.normal(slot, 3, DATA, 7, CHAIN);
    }
    driver.normal(slot, 3, DATA, 512 - 55 * 7, IOC);
    driver.ring(slot, 3);
    assert_eq!(*driver.last().request.payload(), Payload::In(512));
}
