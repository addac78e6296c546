use super::*;
use crate::testing::{DriverQueue, Recorder, memory, readable, writable};

const EVENT_IDX: u64 = 1 << VIRTIO_RING_F_EVENT_IDX;

fn queue(driver: &DriverQueue, memory: &GuestMemory, features: u64) -> CheckedQueue {
    CheckedQueue::new(driver.queue(), &Arc::new(memory.clone()), features, 1 << 20)
}

#[test]
fn chains_come_in_order_and_go_back_with_what_was_written() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    let first = driver.offer(&[readable(0x2_0000, 4), writable(0x3_0000, 8)]);
    let second = driver.offer(&[writable(0x3_0000, 8)]);

    let one = queue.pop().unwrap().unwrap();
    let two = queue.pop().unwrap().unwrap();
    assert!(queue.pop().unwrap().is_none());
    queue.add_used(two, 5).unwrap();
    queue.add_used(one, 100).unwrap();
    assert_eq!(driver.used(), Some((second, 5)));
    assert_eq!(driver.used(), Some((first, 8)), "never more than there was room for");
}

#[test]
fn a_chain_put_back_comes_again() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    let head = driver.offer(&[readable(0x2_0000, 4)]);
    let chain = queue.pop().unwrap().unwrap();
    queue.put_back(chain);
    assert_eq!(queue.pop().unwrap().unwrap().head(), head);
}

#[test]
fn an_available_index_more_than_a_queue_ahead_is_an_error() {
    let memory = memory(0x10_0000);
    let driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    driver.set_avail_index(17);
    assert!(matches!(queue.pop(), Err(QueueError::Ring(_))));
}

#[test]
fn a_driver_that_offers_what_it_has_not_got_back_is_an_error() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 4);
    let mut queue = queue(&driver, &memory, 0);
    let mut held = Vec::new();
    for _ in 0..4 {
        driver.offer(&[readable(0x2_0000, 4)]);
        held.push(queue.pop().unwrap().unwrap());
    }
    driver.offer(&[readable(0x2_0000, 4)]);
    assert!(matches!(queue.pop(), Err(QueueError::TooManyOffered(4))));
}

#[test]
fn without_event_idx_the_driver_switches_interrupts_off_by_its_flag() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    let recorder = Recorder::default();
    for (flags, interrupts) in [(0, 1), (1, 1), (0, 2)] {
        driver.set_avail_flags(flags);
        driver.offer(&[readable(0x2_0000, 4)]);
        let chain = queue.pop().unwrap().unwrap();
        queue.add_used(chain, 0).unwrap();
        queue.announce(&recorder, 0).unwrap();
        assert_eq!(recorder.interrupts(), interrupts);
    }
}

#[test]
fn with_event_idx_the_driver_is_interrupted_when_it_asked_to_be() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, EVENT_IDX);
    let recorder = Recorder::default();
    driver.set_used_event(2);
    for interrupts in [0, 0, 1, 1] {
        driver.offer(&[readable(0x2_0000, 4)]);
        let progress = queue.serve(&recorder, 0, 8, |_| Ok(0)).unwrap();
        assert_eq!(progress, Progress::Emptied);
        assert_eq!(recorder.interrupts(), interrupts);
    }
    assert_eq!(driver.avail_event(), 4, "notify of the fifth");
}

#[test]
fn a_batch_is_one_interrupt_and_ends_with_the_budget() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    let recorder = Recorder::default();
    for _ in 0..10 {
        driver.offer(&[readable(0x2_0000, 4)]);
    }
    let mut served = 0;
    let mut count = |_: &Chain| {
        served += 1;
        Ok(0)
    };
    assert_eq!(queue.serve(&recorder, 0, 8, &mut count).unwrap(), Progress::Unfinished);
    assert_eq!(recorder.interrupts(), 1);
    assert_eq!(queue.serve(&recorder, 0, 8, &mut count).unwrap(), Progress::Emptied);
    assert_eq!((recorder.interrupts(), served), (2, 10));
}

#[test]
fn a_driver_that_keeps_offering_does_not_keep_the_device_for_ever() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let mut queue = queue(&driver, &memory, 0);
    driver.offer(&[readable(0x2_0000, 4)]);
    let mut served = 0;
    let progress = queue.serve(&Recorder::default(), 0, 8, |_| {
        served += 1;
        driver.offer(&[readable(0x2_0000, 4)]);
        Ok(0)
    });
    assert_eq!(progress.unwrap(), Progress::Unfinished);
    assert_eq!(served, 8);
}
