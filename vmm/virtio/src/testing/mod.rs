//! The driver's side of a queue, for tests and fuzzing: it lays out rings in guest memory, offers
//! chains and collects the used ones.
#![allow(clippy::expect_used, reason = "tests stop where the host fails them")]
#![allow(clippy::cast_possible_truncation, reason = "tests choose small numbers")]
#![allow(clippy::print_stderr, reason = "a test says what it could not test")]

pub mod fuse;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use event_manager::{
    EventManager, EventOps, Events, MutEventSubscriber, SubscriberId, SubscriberOps,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::{Activation, Device, GuestMemory, Interrupt};

/// `VIRTQ_DESC_F_*` (virtio 1.2 section 2.7.5).
pub const NEXT: u16 = 1;
/// The flag of a descriptor that the device writes (virtio 1.2 section 2.7.5).
pub const WRITE: u16 = 2;
/// The flag of a descriptor that names a table of them (virtio 1.2 section 2.7.5).
pub const INDIRECT: u16 = 4;

/// Bytes between the rings of one queue and the next.
const QUEUE_STRIDE: u64 = 0x1_0000;

/// Makes `size` bytes of guest memory from address 0.
pub fn memory(size: usize) -> GuestMemory {
    GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]).expect("anonymous memory")
}

/// A buffer of a chain: guest-physical address, length in bytes, and whether the device writes it.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// Guest-physical address.
    pub address: u64,
    /// Length in bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// Makes the descriptor of a buffer the device reads.
pub fn readable(address: u64, len: u32) -> Buffer {
    Buffer { address, len, writable: false }
}

/// Makes the descriptor of a buffer the device writes.
pub fn writable(address: u64, len: u32) -> Buffer {
    Buffer { address, len, writable: true }
}

/// One queue as its driver has it.
#[derive(Debug)]
pub struct DriverQueue {
    memory: GuestMemory,
    size: u16,
    /// Descriptor table, available ring and used ring follow each other from here.
    base: u64,
    next_descriptor: u16,
    avail: u16,
    used_seen: u16,
}

impl DriverQueue {
    /// Makes queue number `index` of `size` descriptors; its rings take 64 KiB from `index` * 64 KiB on.
    pub fn new(memory: &GuestMemory, index: usize, size: u16) -> Self {
        let base = index as u64 * QUEUE_STRIDE;
        Self { memory: memory.clone(), size, base, next_descriptor: 0, avail: 0, used_seen: 0 }
    }

    /// Returns where the descriptor table is.
    pub fn table(&self) -> u64 {
        self.base
    }

    /// Returns where the available ring is.
    pub fn avail_ring(&self) -> u64 {
        self.base + 0x8000
    }

    /// Returns where the used ring is.
    pub fn used_ring(&self) -> u64 {
        self.base + 0xc000
    }

    /// Returns what the transport would hand to the device.
    pub fn queue(&self) -> Queue {
        let mut queue = Queue::new(self.size).expect("a power of two");
        queue.set_desc_table_address(Some(self.table() as u32), None);
        queue.set_avail_ring_address(Some(self.avail_ring() as u32), None);
        queue.set_used_ring_address(Some(self.used_ring() as u32), None);
        queue.set_ready(true);
        queue
    }

    /// Writes a raw descriptor into the table at `table`.
    pub fn write_descriptor(
        &self,
        table: u64,
        index: u16,
        address: u64,
        len: u32,
        flags: u16,
        next: u16,
    ) {
        let mut raw = [0; 16];
        raw[..8].copy_from_slice(&address.to_le_bytes());
        raw[8..12].copy_from_slice(&len.to_le_bytes());
        raw[12..14].copy_from_slice(&flags.to_le_bytes());
        raw[14..].copy_from_slice(&next.to_le_bytes());
        self.memory
            .write_slice(&raw, GuestAddress(table + u64::from(index) * 16))
            .expect("table in memory");
    }

    /// Returns the head the next chain will have.
    pub fn next_head(&self) -> u16 {
        self.next_descriptor
    }

    /// Offers a chain of `buffers`; returns its head.
    pub fn offer(&mut self, buffers: &[Buffer]) -> u16 {
        let head = self.next_descriptor;
        for (position, buffer) in buffers.iter().enumerate() {
            let index = self.next_descriptor;
            self.next_descriptor = (index + 1) % self.size;
            let mut flags = if buffer.writable { WRITE } else { 0 };
            if position + 1 < buffers.len() {
                flags |= NEXT;
            }
            let next = self.next_descriptor;
            self.write_descriptor(self.table(), index, buffer.address, buffer.len, flags, next);
        }
        self.publish(head);
        head
    }

    /// Offers `buffers` through an indirect table written at `table`; returns the head.
    pub fn offer_indirect(&mut self, table: u64, buffers: &[Buffer]) -> u16 {
        for (position, buffer) in buffers.iter().enumerate() {
            let mut flags = if buffer.writable { WRITE } else { 0 };
            if position + 1 < buffers.len() {
                flags |= NEXT;
            }
            let index = position as u16;
            self.write_descriptor(table, index, buffer.address, buffer.len, flags, index + 1);
        }
        let head = self.next_descriptor;
        self.next_descriptor = (head + 1) % self.size;
        let bytes = buffers.len() as u32 * 16;
        self.write_descriptor(self.table(), head, table, bytes, INDIRECT, 0);
        self.publish(head);
        head
    }

    /// Puts `head` into the available ring.
    pub fn publish(&mut self, head: u16) {
        let place = self.avail_ring() + 4 + u64::from(self.avail % self.size) * 2;
        self.memory.write_obj(head.to_le(), GuestAddress(place)).expect("ring in memory");
        self.avail = self.avail.wrapping_add(1);
        self.set_avail_index(self.avail);
    }

    /// Sets the available index, right or wrong.
    pub fn set_avail_index(&self, index: u16) {
        let place = GuestAddress(self.avail_ring() + 2);
        self.memory.write_obj(index.to_le(), place).expect("ring in memory");
    }

    /// Sets the flags of the available ring.
    pub fn set_avail_flags(&self, flags: u16) {
        let place = GuestAddress(self.avail_ring());
        self.memory.write_obj(flags.to_le(), place).expect("ring in memory");
    }

    /// Sets the used index after which the driver wants an interrupt (`used_event`).
    pub fn set_used_event(&self, index: u16) {
        let place = GuestAddress(self.avail_ring() + 4 + u64::from(self.size) * 2);
        self.memory.write_obj(index.to_le(), place).expect("ring in memory");
    }

    /// Returns the available index at which the device wants a notification (`avail_event`).
    pub fn avail_event(&self) -> u16 {
        let place = GuestAddress(self.used_ring() + 4 + u64::from(self.size) * 8);
        u16::from_le(self.memory.read_obj(place).expect("ring in memory"))
    }

    /// Takes the next used chain, as head and length, if there is a new one.
    pub fn used(&mut self) -> Option<(u16, u32)> {
        let index: u16 =
            self.memory.read_obj(GuestAddress(self.used_ring() + 2)).expect("ring in memory");
        if u16::from_le(index) == self.used_seen {
            return None;
        }
        let place = self.used_ring() + 4 + u64::from(self.used_seen % self.size) * 8;
        let raw: u64 = self.memory.read_obj(GuestAddress(place)).expect("ring in memory");
        self.used_seen = self.used_seen.wrapping_add(1);
        let raw = u64::from_le(raw);
        Some((raw as u16, (raw >> 32) as u32))
    }
}

/// The counts of what a device tells its driver.
#[derive(Debug, Default)]
pub struct Recorder {
    used: AtomicUsize,
    config: AtomicUsize,
    reset: AtomicBool,
    looks: AtomicUsize,
    /// After so many looks at it, less one, a reset waits; 0 for never.
    stop_at: AtomicUsize,
}

impl Recorder {
    /// Returns how often the device interrupted for a used ring.
    pub fn interrupts(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Returns how often the device said its configuration changed.
    pub fn config_changes(&self) -> usize {
        self.config.load(Ordering::Relaxed)
    }

    /// Makes a reset wait for the device from the `looks`th look at it on (counted from 1).
    pub fn stop_at_look(&self, looks: usize) {
        self.looks.store(0, Ordering::Relaxed);
        self.stop_at.store(looks, Ordering::Relaxed);
    }

    /// Returns how often the device looked whether a reset waits.
    pub fn looks(&self) -> usize {
        self.looks.load(Ordering::Relaxed)
    }

    /// Returns whether the device asked to be reset.
    pub fn asked_for_reset(&self) -> bool {
        self.reset.load(Ordering::Relaxed)
    }
}

impl Interrupt for Recorder {
    fn used(&self, _index: usize) {
        self.used.fetch_add(1, Ordering::Relaxed);
    }

    fn config_changed(&self) {
        self.config.fetch_add(1, Ordering::Relaxed);
    }

    fn needs_reset(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }

    fn stopping(&self) -> bool {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let stop_at = self.stop_at.load(Ordering::Relaxed);
        stop_at != 0 && looks >= stop_at
    }
}

/// Makes what a device is activated with, and the recorder of what it says.
pub fn activation(
    memory: &GuestMemory,
    queues: &[&DriverQueue],
    features: u64,
) -> (Activation, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let interrupt: Arc<dyn Interrupt> = Arc::<Recorder>::clone(&recorder);
    let queues = queues.iter().map(|queue| Some(queue.queue())).collect();
    (Activation { memory: memory.clone(), queues, interrupt, features }, recorder)
}

/// The I/O thread's event loop around one device, turned by hand.
pub struct EventLoop<D: Device> {
    manager: EventManager<Subscriber<D>>,
    id: SubscriberId,
}

struct Subscriber<D>(D);

impl<D: Device> MutEventSubscriber for Subscriber<D> {
    fn process(&mut self, events: Events, ops: &mut EventOps) {
        self.0.host_event(events, ops);
    }

    fn init(&mut self, ops: &mut EventOps) {
        self.0.register(ops);
    }
}

impl<D: Device> EventLoop<D> {
    /// Registers the device with an event loop of its own.
    pub fn new(device: D) -> Self {
        let mut manager = EventManager::new().expect("an epoll descriptor");
        let id = manager.add_subscriber(Subscriber(device));
        Self { manager, id }
    }

    /// Returns the device under test.
    pub fn device(&mut self) -> &mut D {
        &mut self.manager.subscriber_mut(self.id).expect("never removed").0
    }

    /// Handles what is ready until nothing is, or `rounds` are over; says whether it came to rest.
    pub fn settle(&mut self, rounds: usize) -> bool {
        (0..rounds).any(|_| self.manager.run_with_timeout(0).expect("epoll works") == 0)
    }
}
