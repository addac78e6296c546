//! Plugging, pulling and resetting.

use crate::backend::{Moved, Speed, Status};
use crate::controller::AttachError;
use crate::spec::{Code, base, portsc, trb_bit, trb_type, usbcmd};
use crate::testing::{DATA, Driver};

const IOC: u32 = trb_bit::IOC;

#[test]
fn plugging_and_pulling_is_told() {
    let mut driver = Driver::new();
    for speed in [Speed::Low, Speed::Super] {
        let port = driver.controller.free_port(speed).unwrap();
        driver.controller.attach(port, speed).unwrap();
        let events = driver.events();
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].kind, trb_type::PORT_STATUS_CHANGE);
        assert_eq!(events[0].parameter, u64::from(port.number()) << 24);
        driver.controller.detach(port);
        assert_eq!(driver.events().len(), 1);
        assert_eq!(driver.read(Driver::portsc(port)) & portsc::CCS, 0);
    }
}

#[test]
fn a_device_goes_only_where_it_fits() {
    let mut driver = Driver::new();
    let slow = driver.controller.free_port(Speed::Full).unwrap();
    assert_eq!(slow.number(), 1);
    assert_eq!(driver.controller.free_port(Speed::Super).unwrap().number(), 5);
    let wrong = driver.controller.attach(slow, Speed::Super);
    assert_eq!(wrong, Err(AttachError::Speed(1)));
    driver.controller.attach(slow, Speed::Full).unwrap();
    assert_eq!(driver.controller.attach(slow, Speed::Full), Err(AttachError::Occupied(1)));
    assert_eq!(driver.controller.free_port(Speed::Full).unwrap().number(), 2);
}

#[test]
fn a_port_reset_reaches_the_device() {
    let mut driver = Driver::new();
    let (port, _) = driver.plug(Speed::High);
    assert_eq!(driver.controller.backend().resets, [port]);
}

#[test]
fn a_device_pulled_in_mid_transfer_fails_it() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    let id = driver.last().id;
    driver.controller.detach(port);
    let events = driver.events();
    assert!(events.iter().any(|event| event.is_transfer(Code::TransactionError)));
    assert_eq!(driver.controller.in_flight(), 0);
    assert_eq!(driver.endpoint_context(slot, 3).0, 2);
    // Whatever the stream still says of it.
    driver.controller.complete(id, Status::Success, Moved::In(vec![1; 512]));
    assert_eq!(driver.events(), []);
    // A driver that did not notice gets the same answer, not silence.
    driver.control(slot, [0x80, 6, 0, 1, 0, 0, 18, 0]);
    assert!(driver.events()[0].is_transfer(Code::TransactionError));
    assert_eq!(driver.command(trb_type::DISABLE_SLOT, 0, u32::from(slot) << 24).0, 1);
}

#[test]
fn the_slot_of_a_pulled_device_cannot_talk_to_the_next_one() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    driver.controller.detach(port);
    driver.controller.attach(port, Speed::High).unwrap();
    driver.write(Driver::portsc(port), portsc::PP | portsc::PR);
    driver.events();
    driver.controller.backend_mut().transfers.clear();
    driver.normal(slot, 2, DATA, 512, IOC);
    driver.ring(slot, 2);
    assert_eq!(driver.controller.backend().transfers, []);
    assert!(driver.events()[0].is_transfer(Code::TransactionError));
}

#[test]
fn a_hundred_devices_come_and_go_and_leave_nothing() {
    let mut driver = Driver::new();
    for round in 0..100 {
        let (port, slot) = driver.plug_stick();
        assert_eq!((port.number(), slot), (1, 1), "round {round}");
        for index in [2, 3, 5] {
            driver.normal(slot, index, DATA, 512, IOC);
            driver.ring(slot, index);
        }
        assert_eq!(driver.controller.in_flight(), 3);
        driver.controller.detach(port);
        driver.controller.backend_mut().transfers.clear();
        driver.events();
        assert_eq!(driver.command(trb_type::DISABLE_SLOT, 0, u32::from(slot) << 24).0, 1);
        assert_eq!(driver.controller.in_flight(), 0);
        assert!(driver.controller.slots.iter().all(Option::is_none));
        assert!(driver.controller.events.is_empty());
    }
    assert_eq!(driver.controller.backend().cancelled, []);
}

#[test]
fn a_controller_reset_takes_everything_back_and_finds_the_device_again() {
    let mut driver = Driver::new();
    let (port, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    let id = driver.last().id;
    driver.write(base::OPERATIONAL, usbcmd::RESET);
    assert_eq!(driver.read(base::OPERATIONAL), 0);
    assert_eq!(driver.controller.backend().cancelled, [id]);
    assert_eq!(driver.controller.in_flight(), 0);
    let status = driver.read(Driver::portsc(port));
    assert_eq!(status & (portsc::CCS | portsc::CSC | portsc::PED), portsc::CCS | portsc::CSC);

    driver.start();
    let events = driver.events();
    assert_eq!(events[0].kind, trb_type::PORT_STATUS_CHANGE);
    driver.write(Driver::portsc(port), portsc::PP | portsc::PR);
    driver.events();
    let (_, slot) = driver.command(trb_type::ENABLE_SLOT, 0, 0);
    assert_eq!(driver.address(port, slot, 0), Code::Success as u8);
    assert_eq!(driver.configure(slot, &[(3, 6, 512)]), Code::Success as u8);
    driver.normal(slot, 3, DATA, 512, IOC);
    driver.ring(slot, 3);
    driver.succeed(&[2; 512]);
    assert!(driver.events()[0].is_transfer(Code::Success));
}

#[test]
fn a_device_plugged_in_while_the_controller_is_halted_is_found_when_it_runs() {
    let mut driver = Driver::new();
    driver.write(base::OPERATIONAL, 0);
    let port = driver.controller.free_port(Speed::Super).unwrap();
    driver.controller.attach(port, Speed::Super).unwrap();
    assert_eq!(driver.events(), []);
    driver.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
    assert_eq!(driver.events()[0].kind, trb_type::PORT_STATUS_CHANGE);
}
