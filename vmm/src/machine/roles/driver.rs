//! A driver of the machine's virtio devices, as a guest would have one: through configuration space
//! and BARs, at whatever addresses they are.

use std::sync::atomic::{Ordering, fence};

use pci::Bus;
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

/// Where a driver's rings and buffers begin; above what the kernel is loaded to.
const RINGS: u64 = 32 << 20;
/// Room for one queue with its buffers.
const QUEUE_BYTES: u64 = 64 << 10;
const QUEUE_SIZE: u16 = 16;
/// Bytes of one buffer.
pub(in crate::machine) const BUFFER: u32 = 1024;
/// Tries until a request counts as unanswered.
const PATIENCE: usize = 2_000_000;

const WRITABLE: u16 = 2;
const NEXT: u16 = 1;

/// A driver of one virtio function, on the bus as a guest has it.
pub(in crate::machine) struct Driver<'a> {
    bus: &'a Bus,
    memory: &'a GuestMemory,
    /// Offset of its configuration space in the ECAM.
    config: u64,
    bar: u64,
    common: u64,
    device: u64,
    notify: u64,
    multiplier: u64,
    /// Device ID of virtio 1.2 section 5.
    pub(super) kind: u16,
    queues: Vec<Queue>,
}

struct Queue {
    at: u64,
    notify: u64,
    /// How many requests were made available.
    made: u16,
}

/// Returns all functions on the bus, by the offset of their configuration space.
pub(super) fn functions(bus: &Bus) -> Vec<u64> {
    (0..32).map(|device| device << 15).filter(|at| config(bus, *at, 0, 2) != 0xffff).collect()
}

/// Reads `width` bytes of a function's configuration space.
pub(super) fn config(bus: &Bus, function: u64, offset: u64, width: usize) -> u64 {
    let mut data = [0; 8];
    bus.ecam_read(function + offset, &mut data[..width]);
    u64::from_le_bytes(data)
}

/// Returns the address of a 64-bit memory BAR 0.
pub(super) fn bar(bus: &Bus, function: u64) -> u64 {
    (config(bus, function, 0x10, 4) & !0xf) | config(bus, function, 0x14, 4) << 32
}

impl<'a> Driver<'a> {
    /// Finds the driver of the function there, if that is a virtio device.
    pub(super) fn find(bus: &'a Bus, memory: &'a GuestMemory, function: u64) -> Option<Self> {
        let kind = config(bus, function, 2, 2).checked_sub(0x1040)?;
        if config(bus, function, 0, 2) != 0x1af4 {
            return None;
        }
        let mut this = Self {
            bus,
            memory,
            config: function,
            bar: bar(bus, function),
            common: 0,
            device: 0,
            notify: 0,
            multiplier: 0,
            kind: u16::try_from(kind).unwrap(),
            queues: Vec::new(),
        };
        // Memory space and bus mastering on.
        bus.ecam_write(function + 4, &6u16.to_le_bytes());
        let mut at = config(bus, function, 0x34, 1);
        while at != 0 {
            let read = |offset, width| config(bus, function, at + offset, width);
            match (read(0, 1), read(3, 1)) {
                (0x09, 1) => this.common = read(8, 4),
                (0x09, 2) => (this.notify, this.multiplier) = (read(8, 4), read(16, 4)),
                (0x09, 4) => this.device = read(8, 4),
                // MSI-X on, and every vector live.
                (0x11, _) => this.enable_vectors(at),
                _ => {}
            }
            at = read(1, 1);
        }
        Some(this)
    }

    fn enable_vectors(&self, capability: u64) {
        let table = config(self.bus, self.config, capability + 4, 4) & !7;
        let control = config(self.bus, self.config, capability + 2, 2);
        for vector in 0..=control & 0x7ff {
            for (field, value) in [(0, 0xfee0_0000u32), (4, 0), (8, 0x40), (12, 0)] {
                let at = self.bar + table + 16 * vector + field;
                self.bus.mmio_write(at, &value.to_le_bytes());
            }
        }
        let on = u16::try_from(control | 0x8000).unwrap();
        self.bus.ecam_write(self.config + capability + 2, &on.to_le_bytes());
    }

    fn common_read(&self, offset: u64, width: usize) -> u64 {
        let mut data = [0; 8];
        self.bus.mmio_read(self.bar + self.common + offset, &mut data[..width]);
        u64::from_le_bytes(data)
    }

    fn common_write(&self, offset: u64, value: u64, width: usize) {
        let data = value.to_le_bytes();
        self.bus.mmio_write(self.bar + self.common + offset, &data[..width]);
    }

    /// Resets the device and sets it up with all that it offers (virtio 1.2 section 3.1.1).
    pub(super) fn start(&mut self) {
        self.stop();
        for status in [1, 3] {
            self.common_write(0x14, status, 1);
        }
        for half in [0, 1] {
            self.common_write(0x00, half, 4);
            self.common_write(0x08, half, 4);
            self.common_write(0x0c, self.common_read(0x04, 4), 4);
        }
        self.common_write(0x14, 11, 1);
        assert_eq!(self.common_read(0x14, 1), 11, "device {}: features accepted", self.kind);
        self.common_write(0x10, 0, 2);
        self.queues.clear();
        for index in 0..self.common_read(0x12, 2) {
            self.common_write(0x16, index, 2);
            self.common_write(0x18, QUEUE_SIZE.into(), 2);
            self.common_write(0x1a, 0, 2);
            let at = RINGS + index * QUEUE_BYTES;
            self.memory.write_slice(&[0; 0x3000], GuestAddress(at)).unwrap();
            for (offset, ring) in [(0x20, at), (0x28, at + 0x1000), (0x30, at + 0x2000)] {
                self.common_write(offset, ring & 0xffff_ffff, 4);
                self.common_write(offset + 4, ring >> 32, 4);
            }
            self.common_write(0x1c, 1, 2);
            let notify = self.notify + self.common_read(0x1e, 2) * self.multiplier;
            self.queues.push(Queue { at, notify, made: 0 });
        }
        self.common_write(0x14, 15, 1);
        assert_eq!(self.common_read(0x14, 1), 15, "device {}: starts", self.kind);
        // Its own configuration, read and written.
        for offset in 0..64 {
            let at = self.bar + self.device + offset;
            let mut byte = [0];
            self.bus.mmio_read(at, &mut byte);
            self.bus.mmio_write(at, &byte);
        }
    }

    /// Resets the device and waits until it says so.
    pub(super) fn stop(&mut self) {
        self.common_write(0x14, 0, 1);
        let mut tries = 0;
        while self.common_read(0x14, 1) != 0 {
            tries += 1;
            assert!(tries < PATIENCE, "device {}: is reset", self.kind);
            std::thread::yield_now();
        }
    }

    /// Makes a request of buffers the device reads and buffers it writes.
    pub(in crate::machine) fn request(&mut self, queue: usize, reads: &[&[u8]], writes: &[u32]) {
        let Some(Queue { at, notify, made }) = self.queues.get_mut(queue) else { return };
        let (at, notify) = (*at, *notify);
        let memory = self.memory;
        let total = reads.len() + writes.len();
        let lengths = reads.iter().map(|data| data.len() as u32).chain(writes.iter().copied());
        for (index, length) in lengths.enumerate() {
            let buffer = at + 0x4000 + index as u64 * u64::from(BUFFER);
            if let Some(data) = reads.get(index) {
                memory.write_slice(data, GuestAddress(buffer)).unwrap();
            }
            let writable = if index < reads.len() { 0 } else { WRITABLE };
            let next = if index + 1 < total { NEXT } else { 0 };
            let mut descriptor = [0; 16];
            descriptor[..8].copy_from_slice(&buffer.to_le_bytes());
            descriptor[8..12].copy_from_slice(&length.to_le_bytes());
            descriptor[12..14].copy_from_slice(&(writable | next).to_le_bytes());
            descriptor[14..16].copy_from_slice(&(index as u16 + 1).to_le_bytes());
            memory.write_slice(&descriptor, GuestAddress(at + 16 * index as u64)).unwrap();
        }
        let slot = u64::from(*made % QUEUE_SIZE);
        memory.write_obj(0u16, GuestAddress(at + 0x1004 + 2 * slot)).unwrap();
        *made = made.wrapping_add(1);
        fence(Ordering::SeqCst);
        memory.write_obj(*made, GuestAddress(at + 0x1002)).unwrap();
        fence(Ordering::SeqCst);
        self.bus.mmio_write(self.bar + notify, &(queue as u16).to_le_bytes());
    }

    /// Waits until the device has answered all requests of a queue.
    pub(super) fn answered(&self, queue: usize) {
        let Some(Queue { at, made, .. }) = self.queues.get(queue) else { return };
        for _ in 0..PATIENCE {
            fence(Ordering::SeqCst);
            if self.memory.read_obj::<u16>(GuestAddress(at + 0x2002)).unwrap() == *made {
                return;
            }
            std::thread::yield_now();
        }
        panic!(
            "device {} answers on queue {queue}; status {:#x}",
            self.kind,
            self.common_read(0x14, 1)
        );
    }

    /// Makes a request and waits for its answer.
    pub(in crate::machine) fn ask(&mut self, queue: usize, reads: &[&[u8]], writes: &[u32]) {
        self.request(queue, reads, writes);
        self.answered(queue);
    }

    /// Offers a descriptor chain that leads outside of memory: what the device has to say of it is logged.
    pub(super) fn break_rules(&mut self) {
        for index in 0..self.queues.len() {
            let Some(queue) = self.queues.get(index) else { return };
            let bad = [0xff; 16];
            self.memory.write_slice(&bad, GuestAddress(queue.at)).unwrap();
            self.memory.write_obj(0x8000u16, GuestAddress(queue.at + 0x1002)).unwrap();
            let (at, data) = (self.bar + queue.notify, (index as u16).to_le_bytes());
            self.bus.mmio_write(at, &data);
        }
        for _ in 0..1000 {
            std::thread::yield_now();
        }
    }
}
