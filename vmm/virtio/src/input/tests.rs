use std::sync::atomic::{AtomicU8, Ordering};

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::GuestMemory;
use crate::testing::{DriverQueue, EventLoop, Recorder, activation, memory, readable, writable};

const KEY_A: u16 = 30;

fn key(code: u16, value: i32) -> Event {
    Event { kind: spec::EV_KEY, code, value }
}

struct Bench {
    memory: GuestMemory,
    events: DriverQueue,
    status: DriverQueue,
    device: EventLoop<Input>,
    handle: Handle,
    lit: Arc<AtomicU8>,
    recorder: Arc<Recorder>,
    next: u64,
}

impl Bench {
    fn new(kind: Kind) -> Self {
        let memory = memory(0x10_0000);
        let lit = Arc::new(AtomicU8::new(0));
        let lights = Arc::clone(&lit);
        let listener = Box::new(move |said| {
            if let InputStatus::Lights(leds) = said {
                lights.store(leds, Ordering::Relaxed);
            }
        });
        let (mut input, handle) = Input::new(kind, listener).unwrap();
        let events = DriverQueue::new(&memory, 0, 64);
        let status = DriverQueue::new(&memory, 1, 64);
        let (activation, recorder) = activation(&memory, &[&events, &status], 0);
        input.activate(activation).unwrap();
        let device = EventLoop::new(input);
        Self { memory, events, status, device, handle, lit, recorder, next: 0x4_0000 }
    }

    fn room(&mut self, count: usize) {
        for _ in 0..count {
            self.events.offer(&[writable(self.next, 8)]);
            self.next = 0x4_0000 + (self.next + 8) % 0x800;
        }
        self.device.device().queue_notified(0);
    }

    /// Returns what the driver was told since the last call. Its buffers are in the order of the ring.
    fn told(&mut self) -> Vec<Event> {
        assert!(self.device.settle(100));
        let mut told = Vec::new();
        while let Some((head, len)) = self.events.used() {
            assert_eq!(len, 8);
            let place = self.events.table() + u64::from(head) * 16;
            let address: u64 = self.memory.read_obj(GuestAddress(place)).unwrap();
            let mut raw = [0; 8];
            self.memory.read_slice(&mut raw, GuestAddress(address)).unwrap();
            told.push(Event {
                kind: u16::from_le_bytes([raw[0], raw[1]]),
                code: u16::from_le_bytes([raw[2], raw[3]]),
                value: i32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]),
            });
        }
        told
    }

    fn config(&mut self, select: u8, subsel: u8) -> Vec<u8> {
        let device = self.device.device();
        device.config().write(0, &[select, subsel]);
        let mut raw = [0; 136];
        device.config().read(0, &mut raw);
        assert_eq!(&raw[..2], [select, subsel]);
        raw[8..8 + usize::from(raw[2])].to_vec()
    }
}

#[test]
fn events_reach_the_driver_in_their_order() {
    let mut bench = Bench::new(Kind::Keyboard);
    bench.room(8);
    let typed = [key(KEY_A, 1), Event::SYN, key(KEY_A, 0), Event::SYN];
    bench.handle.send(&typed);
    assert_eq!(bench.told(), typed);
    assert_eq!(bench.recorder.interrupts(), 1);
}

#[test]
fn events_wait_for_a_driver_that_has_no_room_and_nothing_is_reported_that_the_device_lacks() {
    let mut bench = Bench::new(Kind::Pointer);
    let moved = Event { kind: spec::EV_ABS, code: 0, value: 7 };
    bench.handle.send(&[key(KEY_A, 1), moved, Event::SYN]);
    assert_eq!(bench.told(), []);
    bench.room(3);
    assert_eq!(bench.told(), [moved, Event::SYN]);
}

#[test]
fn a_driver_that_takes_nothing_costs_a_bounded_memory_and_no_key_stays_down() {
    let mut bench = Bench::new(Kind::Keyboard);
    bench.room(2);
    bench.handle.send(&[key(KEY_A, 1), Event::SYN]);
    assert_eq!(bench.told(), [key(KEY_A, 1), Event::SYN]);
    for _ in 0..2 * HELD_MAX {
        bench.handle.send(&[key(31, 1), Event::SYN, key(31, 0), Event::SYN]);
        bench.device.settle(10);
    }
    bench.room(4);
    let told = bench.told();
    assert_eq!(&told[..2], [key(KEY_A, 0), Event::SYN]);
}

#[test]
fn release_all_lets_go_of_what_the_driver_was_told_to_be_down_and_forgets_the_rest() {
    let mut bench = Bench::new(Kind::Keyboard);
    bench.room(2);
    bench.handle.send(&[key(KEY_A, 1), Event::SYN, key(48, 1), Event::SYN]);
    assert_eq!(bench.told().len(), 2);
    bench.handle.release_all();
    bench.device.settle(10);
    bench.room(8);
    assert_eq!(bench.told(), [key(KEY_A, 0), Event::SYN]);
}

#[test]
fn the_guests_lights_are_told_and_go_out_at_a_reset() {
    let mut bench = Bench::new(Kind::Keyboard);
    let caps_on = [0x11, 0, 1, 0, 1, 0, 0, 0];
    bench.memory.write_slice(&caps_on, GuestAddress(0x5_0000)).unwrap();
    bench.status.offer(&[readable(0x5_0000, 8)]);
    bench.device.device().queue_notified(1);
    assert_eq!(bench.lit.load(Ordering::Relaxed), 0b10);
    assert!(bench.status.used().is_some());
    bench.device.device().reset();
    assert_eq!(bench.lit.load(Ordering::Relaxed), 0);
}

#[test]
fn the_configuration_is_what_linux_asks_for() {
    let mut bench = Bench::new(Kind::Keyboard);
    assert_eq!(bench.config(config_ids::ID_NAME, 0), b"Bulkhead keyboard");
    let keys = bench.config(config_ids::EV_BITS, 1);
    let hangul = 122usize;
    assert!(keys[hangul / 8] & 1 << (hangul % 8) != 0, "no Korean/English key");
    assert_eq!(bench.config(config_ids::EV_BITS, 0x11), [0b111]);
    assert_eq!(bench.config(config_ids::EV_BITS, 3), []);
    let mut bench = Bench::new(Kind::Pointer);
    let axis = bench.config(config_ids::ABS_INFO, 1);
    assert_eq!(axis[4..8], 32767u32.to_le_bytes());
    assert_eq!(bench.config(config_ids::ABS_INFO, 2), []);
}

use spec::config as config_ids;

#[test]
fn a_buffer_too_small_for_an_event_stops_the_device() {
    let mut bench = Bench::new(Kind::Keyboard);
    bench.events.offer(&[writable(0x4_0000, 4)]);
    bench.handle.send(&[key(KEY_A, 1)]);
    bench.device.settle(10);
    assert!(bench.recorder.asked_for_reset());
}

proptest! {
    #[test]
    fn any_configuration_access_is_answered(
        select in any::<u8>(), subsel in any::<u8>(), offset in any::<usize>(), len in 0usize..300
    ) {
        let input = Input::new(Kind::Keyboard, Box::new(|_| ())).unwrap().0;
        input.config().write(0, &[select, subsel]);
        input.config().write(offset, &vec![0xff; len]);
        input.config().read(offset, &mut vec![0; len]);
        input.config().read(0, &mut vec![0; len]);
    }
}
