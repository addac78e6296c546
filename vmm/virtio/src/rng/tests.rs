use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::testing::{DriverQueue, activation, memory, readable, writable};

#[test]
fn a_request_is_filled_with_random_bytes_and_used_says_how_many() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let (activation, recorder) = activation(&memory, &[&driver], 0);
    let mut rng = Rng::new().unwrap();
    rng.activate(activation).unwrap();

    let head = driver.offer(&[writable(0x2_0000, 64), writable(0x3_0000, 64)]);
    rng.queue_notified(0);

    assert_eq!(driver.used(), Some((head, 128)));
    assert_eq!(recorder.interrupts(), 1);
    for address in [0x2_0000, 0x3_0000] {
        let mut bytes = [0; 64];
        memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        assert_ne!(bytes, [0; 64]);
    }
}

#[test]
fn overlapping_buffers_do_not_inflate_a_request_beyond_its_cap() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let (activation, _) = activation(&memory, &[&driver], 0);
    let mut rng = Rng::new().unwrap();
    rng.activate(activation).unwrap();

    let head = driver.offer(&[writable(0x2_0000, 0x8_0000); 8]);
    rng.queue_notified(0);

    assert_eq!(driver.used(), Some((head, u32::try_from(MAX_REQUEST).unwrap())));
}

#[test]
fn a_request_without_a_writable_buffer_comes_back_empty() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let (activation, recorder) = activation(&memory, &[&driver], 0);
    let mut rng = Rng::new().unwrap();
    rng.activate(activation).unwrap();

    let head = driver.offer(&[readable(0x2_0000, 64)]);
    rng.queue_notified(0);

    assert_eq!(driver.used(), Some((head, 0)));
    assert!(!recorder.asked_for_reset());
}

#[test]
fn a_buffer_outside_memory_stops_the_device_until_it_is_reset() {
    let memory = memory(0x10_0000);
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let (first, recorder) = activation(&memory, &[&driver], 0);
    let mut rng = Rng::new().unwrap();
    rng.activate(first).unwrap();

    driver.offer(&[writable(u64::MAX - 8, 64)]);
    rng.queue_notified(0);
    assert!(recorder.asked_for_reset());
    assert_eq!(driver.used(), None);

    rng.reset();
    memory.write_slice(&[0; 0x1_0000], GuestAddress(0)).unwrap();
    let mut driver = DriverQueue::new(&memory, 0, 16);
    let (second, recorder) = activation(&memory, &[&driver], 0);
    rng.activate(second).unwrap();
    let head = driver.offer(&[writable(0x2_0000, 64)]);
    rng.queue_notified(0);
    assert_eq!(driver.used(), Some((head, 64)));
    assert!(!recorder.asked_for_reset());
}

#[test]
fn a_missing_queue_is_refused() {
    let memory = memory(0x10_0000);
    let (mut activation, _) = activation(&memory, &[], 0);
    activation.queues.push(None);
    let refused = Rng::new().unwrap().activate(activation);
    assert!(matches!(refused, Err(ActivateError::QueueMissing(0))));
}
