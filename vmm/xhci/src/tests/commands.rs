//! Slots, contexts and the command ring.

use crate::backend::{Moved, Payload, PortId, Speed, Status};
use crate::spec::{Code, base, crcr, slot_state, trb_bit, trb_type, usbcmd, usbsts};
use crate::testing::{COMMANDS, DATA, Driver, INPUT, OUTPUT};

const IOC: u32 = trb_bit::IOC;

fn slot_context_state(driver: &Driver, slot: u8) -> u32 {
    driver.get(OUTPUT + u64::from(slot) * 0x400 + 12) >> 27
}

#[test]
fn a_no_op_command_is_answered() {
    let mut driver = Driver::new();
    assert_eq!(driver.command(trb_type::NO_OP_COMMAND, 0, 0), (Code::Success as u8, 0));
}

#[test]
fn the_command_ring_goes_round_and_round() {
    let mut driver = Driver::new();
    for _ in 0..1000 {
        assert_eq!(driver.command(trb_type::NO_OP_COMMAND, 0, 0).0, Code::Success as u8);
    }
}

#[test]
fn slots_run_out_and_come_back() {
    let mut driver = Driver::new();
    for slot in 1..=16 {
        assert_eq!(driver.command(trb_type::ENABLE_SLOT, 0, 0), (Code::Success as u8, slot));
    }
    assert_eq!(driver.command(trb_type::ENABLE_SLOT, 0, 0).0, Code::NoSlots as u8);
    assert_eq!(driver.command(trb_type::DISABLE_SLOT, 0, 5 << 24).0, Code::Success as u8);
    assert_eq!(driver.command(trb_type::DISABLE_SLOT, 0, 5 << 24).0, Code::SlotNotEnabled as u8);
    assert_eq!(driver.command(trb_type::ENABLE_SLOT, 0, 0), (Code::Success as u8, 5));
}

#[test]
fn a_device_is_addressed_in_one_step_or_in_two() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    assert_eq!(slot_context_state(&driver, slot), slot_state::ADDRESSED);
    assert_eq!(driver.endpoint_context(slot, 1).0, 1);

    let port = driver.controller.free_port(Speed::Super).unwrap();
    driver.controller.attach(port, Speed::Super).unwrap();
    driver.events();
    let (_, slot) = driver.command(trb_type::ENABLE_SLOT, 0, 0);
    assert_eq!(driver.address(port, slot, trb_bit::BSR), Code::Success as u8);
    assert_eq!(slot_context_state(&driver, slot), slot_state::DEFAULT);
    assert_eq!(driver.address(port, slot, 0), Code::Success as u8);
    assert_eq!(slot_context_state(&driver, slot), slot_state::ADDRESSED);
    assert_eq!(driver.address(port, slot, 0), Code::ContextState as u8);
}

#[test]
fn a_device_belongs_to_one_slot_at_a_time() {
    let mut driver = Driver::new();
    let (port, first) = driver.plug(Speed::High);
    let (_, second) = driver.command(trb_type::ENABLE_SLOT, 0, 0);
    assert_eq!(driver.address(port, second, 0), Code::Parameter as u8);
    driver.command(trb_type::DISABLE_SLOT, 0, u32::from(first) << 24);
    assert_eq!(driver.address(port, second, 0), Code::Success as u8);
}

#[test]
fn what_is_not_there_cannot_be_addressed() {
    let mut driver = Driver::new();
    let (_, slot) = driver.command(trb_type::ENABLE_SLOT, 0, 0);
    assert_eq!(driver.address(PortId(1), slot, 0), Code::TransactionError as u8);
    assert_eq!(driver.address(PortId(77), slot, 0), Code::Parameter as u8);
    assert_eq!(driver.address(PortId(1), slot + 1, 0), Code::SlotNotEnabled as u8);
    let outside = driver.command(trb_type::ADDRESS_DEVICE, u64::MAX - 64, u32::from(slot) << 24);
    assert_eq!(outside.0, Code::Parameter as u8);
}

#[test]
fn endpoints_come_and_go_with_the_configuration() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    assert_eq!(slot_context_state(&driver, slot), slot_state::CONFIGURED);
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    assert_eq!(driver.controller.in_flight(), 1);

    let deconfigure = u32::from(slot) << 24 | trb_bit::DECONFIGURE;
    let (code, _) = driver.command(trb_type::CONFIGURE_ENDPOINT, 0, deconfigure);
    assert_eq!(code, Code::Success as u8);
    assert_eq!(driver.controller.in_flight(), 0);
    assert_eq!(driver.controller.backend().cancelled.len(), 1);
    assert_eq!(slot_context_state(&driver, slot), slot_state::ADDRESSED);
    assert_eq!(driver.endpoint_context(slot, 3).0, 0);
    let code = driver.endpoint_command(trb_type::STOP_ENDPOINT, slot, 3, 0);
    assert_eq!(code, Code::EndpointNotEnabled as u8);
}

#[test]
fn isochronous_endpoints_are_refused_and_change_nothing() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let code = driver.configure(slot, &[(4, 2, 512), (9, 5, 192)]);
    assert_eq!(code, Code::Bandwidth as u8);
    assert_eq!(driver.endpoint_context(slot, 4).0, 0);
    assert_eq!(driver.endpoint_context(slot, 3).0, 1, "what was there still is");
}

#[test]
fn endpoints_that_make_no_sense_are_refused() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::High);
    // Wrong direction, no packet size, far too large a packet, a control endpoint that is not 0, none.
    for endpoint in [(3, 2, 512), (2, 2, 0), (2, 2, 4096), (2, 4, 64), (2, 0, 64)] {
        assert_eq!(driver.configure(slot, &[endpoint]), Code::Parameter as u8, "{endpoint:?}");
    }
    assert_eq!(slot_context_state(&driver, slot), slot_state::ADDRESSED);
}

#[test]
fn an_evaluated_context_changes_the_packet_size() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug(Speed::Full);
    driver.put(INPUT, &[0, 2]);
    driver.put(INPUT + 64, &[0, 4 << 3 | 8 << 16, 0, 0, 0]);
    let (code, _) = driver.command(trb_type::EVALUATE_CONTEXT, INPUT, u32::from(slot) << 24);
    assert_eq!(code, Code::Success as u8);
    let context = OUTPUT + u64::from(slot) * 0x400 + 32;
    assert_eq!(driver.get(context + 4) >> 16, 8);
    assert_eq!(driver.endpoint_context(slot, 1).0, 1);
}

#[test]
fn a_transfer_tried_again_goes_on_behind_what_was_moved() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 1024, IOC);
    driver.ring(slot, 3);
    driver.answer(Status::Error, Moved::In(vec![1; 512]));
    assert!(driver.events()[0].is_transfer(Code::TransactionError));
    let preserve = u32::from(slot) << 24 | 3 << 16 | trb_bit::PRESERVE;
    assert_eq!(driver.command(trb_type::RESET_ENDPOINT, 0, preserve).0, Code::Success as u8);
    driver.ring(slot, 3);
    assert_eq!(*driver.last().request.payload(), Payload::In(512));
    driver.succeed(&[2; 512]);
    assert!(driver.events()[0].is_transfer(Code::Success));
    assert_eq!(driver.bytes(DATA + 511, 2), [1, 2]);
}

#[test]
fn endpoint_commands_want_the_right_state() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    let mut command = |kind| driver.endpoint_command(kind, slot, 2, 0x5000);
    let wrong = Code::ContextState as u8;
    assert_eq!(command(trb_type::RESET_ENDPOINT), wrong);
    assert_eq!(command(trb_type::SET_TR_DEQUEUE), wrong);
    assert_eq!(command(trb_type::STOP_ENDPOINT), Code::Success as u8);
    assert_eq!(command(trb_type::STOP_ENDPOINT), wrong);
    assert_eq!(command(trb_type::SET_TR_DEQUEUE), Code::Success as u8);
}

#[test]
fn a_device_reset_takes_all_endpoints_but_the_default_one() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    driver.normal(slot, 2, DATA, 512, IOC);
    driver.ring(slot, 2);
    let code = driver.command(trb_type::RESET_DEVICE, 0, u32::from(slot) << 24).0;
    assert_eq!(code, Code::Success as u8);
    assert_eq!(driver.controller.in_flight(), 0);
    assert_eq!(slot_context_state(&driver, slot), slot_state::DEFAULT);
    assert_eq!(driver.endpoint_context(slot, 2).0, 0);
    assert_eq!(driver.address(port, slot, 0), Code::Success as u8);
    let again = driver.command(trb_type::RESET_DEVICE, 0, u32::from(slot) << 24).0;
    assert_eq!(again, Code::Success as u8);
}

#[test]
fn unknown_commands_are_refused() {
    let mut driver = Driver::new();
    for kind in [0, 18, 19, 20, 21, 22, 24, 48, 63] {
        assert_eq!(driver.command(kind, 0, 0).0, Code::TrbError as u8);
    }
}

#[test]
fn a_stopped_command_ring_says_so_and_starts_where_it_is_told() {
    let mut driver = Driver::new();
    driver.command(trb_type::NO_OP_COMMAND, 0, 0);
    let register = base::OPERATIONAL + 0x18;
    assert_ne!(driver.read(register) & crcr::RUNNING, 0);
    driver.write_wide(register, u64::from(crcr::STOP));
    assert_eq!(driver.read(register) & crcr::RUNNING, 0);
    let events = driver.events();
    assert_eq!(events[0].code, Code::CommandRingStopped as u8);
    assert_eq!(events[0].parameter, COMMANDS + 16);
    // Elsewhere, with a cycle bit of zero.
    driver.put(DATA, &[0, 0, 0, u32::from(trb_type::NO_OP_COMMAND) << 10]);
    driver.put(DATA + 16, &[0, 0, 0, 1]);
    driver.write_wide(register, DATA);
    driver.write(base::DOORBELLS, 0);
    let events = driver.events();
    assert_eq!((events[0].parameter, events[0].code), (DATA, Code::Success as u8));
}

#[test]
fn a_command_ring_outside_memory_stops_the_controller_until_it_is_reset() {
    let mut driver = Driver::new();
    driver.write(base::OPERATIONAL, 0);
    driver.write_wide(base::OPERATIONAL + 0x18, 1 << 40 | 1);
    driver.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
    driver.write(base::DOORBELLS, 0);
    driver.run();
    let status = driver.read(base::OPERATIONAL + 4);
    assert_eq!(status & (usbsts::HSE | usbsts::HALTED), usbsts::HSE | usbsts::HALTED);
    driver.write(base::OPERATIONAL, usbcmd::RUN);
    assert_ne!(driver.read(base::OPERATIONAL + 4) & usbsts::HALTED, 0, "not before a reset");
    driver.write(base::OPERATIONAL, usbcmd::RESET);
    driver.start();
    assert_eq!(driver.command(trb_type::NO_OP_COMMAND, 0, 0).0, Code::Success as u8);
}
