//! The event ring, interrupts, and the registers as a driver first sees them.

use crate::backend::{Moved, Status};
use crate::spec::{Code, base, iman, trb_bit, trb_type, usbcmd, usbsts};
use crate::testing::{DATA, Driver};

const IOC: u32 = trb_bit::IOC;
const IMAN: u64 = base::RUNTIME + 0x20;
const ERDP: u64 = base::RUNTIME + 0x38;

#[test]
fn the_capabilities_say_where_everything_is() {
    let driver = Driver::new();
    assert_eq!(driver.read(0), 0x0100_0040);
    assert_eq!(driver.read(4), 8 << 24 | 1 << 8 | 32);
    assert_eq!(u64::from(driver.read(0x14)), base::DOORBELLS);
    assert_eq!(u64::from(driver.read(0x18)), base::RUNTIME);
    assert_eq!(u64::from(driver.read(0x10) >> 16) * 4, base::EXTENDED);
    // Two supported protocols, the ports of USB 2 first.
    assert_eq!(driver.read(base::EXTENDED), 0x0200_0402);
    assert_eq!(driver.read(base::EXTENDED + 8), 0x0401);
    assert_eq!(driver.read(base::EXTENDED + 16), 0x0300_0002);
    assert_eq!(driver.read(base::EXTENDED + 24), 0x0405);
    let mut byte = [0];
    driver.controller.read(0, &mut byte);
    assert_eq!(byte, [0x40], "the length register is read by the byte, too");
}

#[test]
fn time_passes_while_the_controller_runs() {
    let driver = Driver::new();
    let before = driver.read(base::RUNTIME);
    std::thread::sleep(std::time::Duration::from_millis(2));
    assert!(driver.read(base::RUNTIME).wrapping_sub(before) & 0x3fff >= 16);
}

#[test]
fn an_event_interrupts_once_until_it_was_handled() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.line.take();
    for _ in 0..3 {
        driver.normal(slot, 2, DATA, 8, IOC);
    }
    driver.ring(slot, 2);
    for _ in 0..3 {
        driver.succeed(&[]);
        driver.run();
    }
    assert_eq!(driver.line.take(), 1);
    assert_eq!(driver.events().len(), 3);
    assert_eq!(driver.line.take(), 0, "all were seen");
}

#[test]
fn an_event_that_came_while_the_handler_was_busy_interrupts_when_it_is_done() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.line.take();
    driver.normal(slot, 2, DATA, 8, IOC);
    driver.normal(slot, 2, DATA, 8, IOC);
    driver.ring(slot, 2);
    driver.succeed(&[]);
    driver.run();
    assert_eq!(driver.line.take(), 1);
    assert!(driver.next_event().is_some());
    let seen = driver.event_address();
    // The second comes after the handler last looked.
    driver.succeed(&[]);
    driver.run();
    assert_eq!(driver.line.take(), 0);
    driver.write_wide(ERDP, seen | 8);
    assert_eq!(driver.line.take(), 1);
}

#[test]
fn no_order_of_events_and_handling_loses_an_interrupt() {
    // At every moment: an event is unseen only if the handler is busy or an interrupt is under way.
    for pattern in 0..256_u32 {
        let mut driver = Driver::new();
        let (_, slot) = driver.plug_stick();
        driver.line.take();
        let mut busy = false;
        for _ in 0..8 {
            driver.normal(slot, 2, DATA, 8, IOC);
        }
        driver.ring(slot, 2);
        let (mut posted, mut seen) = (0, 0_usize);
        for step in 0..16 {
            if pattern >> (step % 8) & 1 == 1 && posted < 8 {
                driver.succeed(&[]);
                driver.run();
                posted += 1;
            } else if busy {
                let at = driver.event_address() | 8;
                driver.write_wide(ERDP, at);
                busy = false;
            }
            let interrupted = driver.line.take() > 0;
            assert!(!(interrupted && busy), "interrupted while busy");
            busy |= interrupted;
            // A handler looks when it begins, and then now and again.
            if interrupted || busy && step % 3 == 0 {
                seen += std::iter::from_fn(|| driver.next_event()).count();
            }
            assert!(seen == posted || busy, "an event nobody was told of, pattern {pattern:#x}");
        }
    }
}

#[test]
fn interrupts_wait_until_they_are_enabled() {
    let mut driver = Driver::new();
    driver.write(IMAN, 0);
    driver.line.take();
    driver.command(trb_type::NO_OP_COMMAND, 0, 0);
    assert_eq!(driver.line.take(), 0);
    assert_ne!(driver.read(IMAN) & iman::PENDING, 0);
    driver.write(IMAN, iman::ENABLE);
    assert_eq!(driver.line.take(), 1);
    assert_eq!(driver.read(IMAN) & iman::PENDING, 0, "a message clears it");
}

#[test]
fn without_msix_the_pending_bit_stays_for_polling() {
    let mut driver = Driver::new();
    driver.line.set_off(true);
    driver.command(trb_type::NO_OP_COMMAND, 0, 0);
    assert_ne!(driver.read(IMAN) & iman::PENDING, 0);
    driver.line.set_off(false);
    driver.controller.interrupts_changed();
    assert_eq!(driver.line.take(), 1);
}

#[test]
fn an_event_that_blocks_its_interrupt_comes_without_one() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.line.take();
    driver.normal(slot, 2, DATA, 8, IOC | trb_bit::BEI);
    driver.ring(slot, 2);
    driver.succeed(&[]);
    driver.run();
    assert_eq!(driver.line.take(), 0);
    assert_eq!(driver.events().len(), 1);
    // An error is not to be overlooked.
    driver.normal(slot, 2, DATA, 8, IOC | trb_bit::BEI);
    driver.ring(slot, 2);
    driver.answer(Status::Stall, Moved::Out(0));
    driver.run();
    assert_eq!(driver.line.take(), 1);
}

#[test]
fn a_full_event_ring_says_so_and_loses_nothing() {
    let mut driver = Driver::with_segments(16);
    let (_, slot) = driver.plug_stick();
    for _ in 0..50 {
        driver.queue(slot, 2, 0, 0, u32::from(trb_type::NO_OP) << 10 | IOC);
    }
    driver.ring(slot, 2);
    let mut first = Vec::new();
    while let Some(event) = driver.next_event() {
        first.push(event);
    }
    assert_eq!(first.len(), 31, "all places but one");
    assert_eq!(first.last().map(|event| event.code), Some(Code::EventRingFull as u8));
    let rest = driver.events();
    let all = first.iter().chain(&rest);
    assert_eq!(all.filter(|event| event.is_transfer(Code::Success)).count(), 50);
}

#[test]
fn an_event_ring_that_is_none_stops_the_controller() {
    for (size, table, bit) in [
        (0, 0x3000, usbsts::HCE),
        (9, 0x3000, usbsts::HCE),
        (1, 1 << 40, usbsts::HSE),
        (1, DATA, usbsts::HCE),
    ] {
        let mut driver = Driver::new();
        driver.write(base::OPERATIONAL, 0);
        driver.write(base::RUNTIME + 0x28, size);
        driver.write_wide(base::RUNTIME + 0x30, table);
        driver.write(base::OPERATIONAL, usbcmd::RUN);
        let port = driver.controller.free_port(crate::Speed::Super).unwrap();
        driver.controller.attach(port, crate::Speed::Super).unwrap();
        driver.run();
        let status = driver.read(base::OPERATIONAL + 4);
        assert_eq!(status & (bit | usbsts::HALTED), bit | usbsts::HALTED, "{size} {table:#x}");
    }
}

#[test]
fn a_halted_controller_keeps_what_comes_for_later() {
    let mut driver = Driver::new();
    let (_, slot) = driver.plug_stick();
    driver.normal(slot, 3, DATA, 8, IOC);
    driver.ring(slot, 3);
    driver.write(base::OPERATIONAL, usbcmd::INTE);
    driver.succeed(&[5; 8]);
    driver.run();
    assert_eq!(driver.bytes(DATA, 1), [0], "a halted controller leaves memory alone");
    driver.write(base::OPERATIONAL, usbcmd::RUN | usbcmd::INTE);
    assert!(driver.events()[0].is_transfer(Code::Success));
    assert_eq!(driver.bytes(DATA, 1), [5]);
}
