//! What drives a device as the worst of guests would: an arbitrary byte stream. Each device has an entry function of its own, in `fuzz.rs`
//! of its folder.
//!
//! The stream chooses where the rings are, writes guest memory, descriptors and ring indices,
//! notifies, touches the configuration space, resets, and plays the host's side too. Nothing may
//! panic, the device must come to rest after every step, and what lies outside its bounds (the
//! tail of a disk image) must be untouched.
#![allow(clippy::expect_used, reason = "a fuzz target stops where the host fails it")]
#![allow(clippy::panic, reason = "and where it has found something")]

use std::sync::Arc;

use fuzzinput::FuzzInput;
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::testing::{EventLoop, NEXT, Recorder, WRITE};
use crate::{Activation, CheckedQueue, Device, GuestMemory, Interrupt};

/// Two regions with a hole between them, 64 KiB each.
const REGION: u64 = 0x1_0000;
const SECOND: u64 = 0x2_0000;

/// Rings of queue n start at n * this: table, available ring, used ring, 256 bytes apart.
const STRIDE: u64 = 0x400;

/// Descriptors of a queue whose addresses the stream leaves alone.
const SIZE: u16 = 16;

/// Turns of the event loop after which a device at rest must rest.
const ROUNDS: usize = 2000;

/// What lies behind what a device may write to.
pub(crate) const TAIL: [u8; 100] = [0x5a; 100];

/// Drives a checked queue by itself.
pub fn fuzz_queue(data: &[u8]) {
    let mut stream = Stream::new(data);
    let memory = memory();
    let recorder = Recorder::default();
    let queue = stream.queue(0);
    let features = stream.u64();
    let mut queue = CheckedQueue::new(queue, &Arc::new(memory.clone()), features, 1 << 16);
    let mut held = Vec::new();
    while let Some(step) = stream.next() {
        let result = match step % 8 {
            0..4 => {
                stream.scribble(&memory, 1);
                Ok(())
            }
            4 | 5 => queue.pop_or_wait().map(|chain| held.extend(chain)),
            6 => held.pop().map_or(Ok(()), |chain| {
                let mut bytes = vec![0; chain.readable_len()];
                chain.reader().read_exact(&mut bytes).expect("all that is readable");
                let bytes = vec![0xa5; chain.writable_len()];
                chain.writer().write_all(&bytes).expect("all that is writable");
                queue.add_used(chain, bytes.len())
            }),
            _ => queue.announce(&recorder, 0),
        };
        if result.is_err() {
            return; // the device would stop here
        }
    }
}

/// Lets the stream do to `device` what a guest can, and to the host's side what `host` does.
pub(crate) fn drive<D: Device>(
    device: D,
    mut stream: Stream<'_>,
    mut host: impl FnMut(&mut Stream<'_>, &mut D),
) {
    let memory = memory();
    let sizes = device.queue_sizes().to_vec();
    let queues = u64::try_from(sizes.len()).unwrap_or(0);
    let offered = device.features();
    let mut event_loop = EventLoop::new(device);
    let mut active = false;
    while let Some(step) = stream.next() {
        let device = event_loop.device();
        match step % 16 {
            0..8 => {
                stream.scribble(&memory, queues);
            }
            8 | 9 => {
                if !active {
                    let activation = Activation {
                        memory: memory.clone(),
                        queues: (0..queues).map(|at| stream.optional_queue(at)).collect(),
                        interrupt: Arc::<Recorder>::default() as Arc<dyn Interrupt>,
                        features: offered & !stream.u64(),
                    };
                    active = device.activate(activation).is_ok();
                }
                for index in 0..sizes.len() {
                    device.queue_notified(index);
                }
            }
            10 => device.queue_notified(stream.byte().into()),
            11 => {
                let offset = stream.offset();
                let len = usize::from(stream.byte() % 9);
                device.config().write(offset, stream.take(len));
                device.config().read(offset, &mut vec![0; len]);
            }
            12 if stream.byte() & 3 == 0 => {
                device.reset();
                device.config().reset();
                active = false;
            }
            _ => host(&mut stream, device),
        }
        assert!(event_loop.settle(ROUNDS), "the device does not come to rest");
    }
}

fn memory() -> GuestMemory {
    let size = usize::try_from(REGION).expect("small");
    let regions = [(GuestAddress(0), size), (GuestAddress(SECOND), size)];
    GuestMemoryMmap::from_ranges(&regions).expect("memory")
}

/// What a driver does, and what it writes to guest memory, as an arbitrary input has it.
pub(crate) struct Stream<'a>(FuzzInput<'a>);

impl<'a> Stream<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self(FuzzInput::new(input))
    }

    fn next(&mut self) -> Option<u8> {
        self.0.byte()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::try_from(self.0.number(2)).unwrap_or(0)
    }

    fn u64(&mut self) -> u64 {
        self.0.number(8)
    }

    pub(crate) fn take(&mut self, len: usize) -> &'a [u8] {
        self.0.take(len)
    }

    /// Returns an offset, mostly a small one.
    fn offset(&mut self) -> usize {
        match self.byte() {
            255 => usize::MAX - usize::from(self.byte()),
            small => small.into(),
        }
    }

    /// Returns an address, mostly in memory and away from the rings, sometimes across an edge, sometimes anywhere.
    fn address(&mut self) -> u64 {
        match self.byte() % 8 {
            0 => self.u64(),
            1 => (REGION - 16).wrapping_add(u64::from(self.byte())),
            2 => SECOND + u64::from(self.u16()),
            _ => 0x4000 + u64::from(self.u16() & 0x7fff),
        }
    }

    /// Writes to guest memory what a driver writes, right or wrong.
    fn scribble(&mut self, memory: &GuestMemory, queues: u64) {
        let base = u64::from(self.byte()) % queues.max(1) * STRIDE;
        let put = |at: u64, bytes: &[u8]| {
            // Outside of memory there is nothing to write to.
            let _ = memory.write_slice(bytes, GuestAddress(at));
        };
        match self.byte() % 8 {
            0 => {
                let (at, len) = (self.address(), usize::from(self.byte()));
                put(at, self.take(len));
            }
            // A request's header, where a chain is likely to point.
            1 => {
                let mut header = [0; 16];
                for byte in [0, 4, 6, 8] {
                    if let Some(place) = header.get_mut(byte) {
                        *place = self.byte() % 16;
                    }
                }
                put(self.near(), &header);
            }
            2 => put(base + 0x102, &self.u16().to_le_bytes()),
            3 => {
                let address = self.address();
                let (index, len, flags) = (self.byte() % 17, self.len(), self.byte() % 8);
                let next = self.byte() % 17;
                put(base + u64::from(index) * 16, &descriptor(address, len, flags, next));
            }
            4 => publish(memory, base, self.byte() % 17),
            // A chain as it should be.
            _ => {
                let first = self.byte() % 8;
                let (last, writable_from) = (first + self.byte() % 5, first + self.byte() % 6);
                for index in first..=last {
                    let next = if index < last { NEXT } else { 0 };
                    let write = if index >= writable_from { WRITE } else { 0 };
                    let flags = (next | write).to_le_bytes()[0];
                    let descriptor = descriptor(self.near(), self.len(), flags, index + 1);
                    put(base + u64::from(index) * 16, &descriptor);
                }
                publish(memory, base, first);
            }
        }
    }

    /// Returns one of a few places that headers and data share.
    fn near(&mut self) -> u64 {
        0x4000 + u64::from(self.byte() % 4) * 256
    }

    /// Returns a length, mostly that of something.
    fn len(&mut self) -> u32 {
        match self.byte() % 8 {
            0 | 1 => 16,
            2 => 1,
            3 => 512,
            4 => 1024,
            5 => 12,
            6 => self.u16().into(),
            _ => u32::MAX.wrapping_add(self.byte().into()),
        }
    }

    fn optional_queue(&mut self, index: u64) -> Option<Queue> {
        let queue = self.queue(index);
        (!self.byte().is_multiple_of(16)).then_some(queue)
    }

    /// Returns the places of a queue, mostly where [`Stream::scribble`] writes, sometimes anywhere, in memory or not.
    fn queue(&mut self, index: u64) -> Queue {
        let mut queue = Queue::new(256).expect("a power of two");
        queue.set_size(SIZE);
        let base = index * STRIDE;
        let (mut table, mut avail, mut used) = (base, base + 0x100, base + 0x200);
        if self.byte().is_multiple_of(16) {
            queue.set_size(1 << (self.byte() % 9));
            table = self.address() & !0xf;
            avail = self.address() & !1;
            used = self.address() & !3;
        }
        let halves = |address: u64| {
            let [low, high] = [address & 0xffff_ffff, address >> 32].map(u32::try_from);
            (low.ok(), high.ok())
        };
        let ((low, high), (alow, ahigh), (ulow, uhigh)) =
            (halves(table), halves(avail), halves(used));
        queue.set_desc_table_address(low, high);
        queue.set_avail_ring_address(alow, ahigh);
        queue.set_used_ring_address(ulow, uhigh);
        queue.set_ready(true);
        queue
    }
}

fn descriptor(address: u64, len: u32, flags: u8, next: u8) -> [u8; 16] {
    let raw = u128::from(address)
        | u128::from(len) << 64
        | u128::from(flags) << 96
        | u128::from(next) << 112;
    raw.to_le_bytes()
}

/// Puts `head` into the available ring of the queue at `base`.
fn publish(memory: &GuestMemory, base: u64, head: u8) {
    let index_at = GuestAddress(base + 0x102);
    let index: u16 = memory.read_obj(index_at).unwrap_or(0);
    let place = GuestAddress(base + 0x104 + u64::from(index % SIZE) * 2);
    // The rings of the last queue may end beyond memory.
    let _ = memory.write_obj(u16::from(head), place);
    let _ = memory.write_obj(index.wrapping_add(1), index_at);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        // Shows: K-3.1.1, K-3.1.3, K-5.5.1, K-5.6.2.
        #[test]
        fn a_queue_survives_any_guest(data in proptest::collection::vec(any::<u8>(), 0..1500)) {
            fuzz_queue(&data);
        }
    }
}
