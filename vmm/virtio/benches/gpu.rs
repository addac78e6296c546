//! A full-screen update of 1920x1080 through the GPU device, from pages that lie anywhere in guest memory, beside a bare
//! copy of the same bytes; in turn. `cargo bench -p bulkhead-virtio --features fuzzing --bench gpu`
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a measuring program"
)]

use std::fs::File;
use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use seat_link::{CursorChange, Rect, Size};
use virtio::Device;
use virtio::gpu::{Frame, Gpu, Viewer};
use virtio::testing::{DriverQueue, EventLoop, activation, memory, readable, writable};
use vm_memory::{Bytes, GuestAddress};

const SIZE: Size = Size { width: 1920, height: 1080 };
const ROUNDS: usize = 60;
const COMMAND: u64 = 0x4_0000;
const RESPONSE: u64 = 0xc_0000;
const PIXELS: u64 = 0x10_0000;

struct Nobody;

impl Viewer for Nobody {
    fn picture(&mut self, _: Option<Size>) {}
    fn damage(&mut self, rect: Rect) {
        assert_eq!(rect, Rect::all(SIZE));
    }
    fn cursor(&mut self, _: CursorChange) {}
}

fn main() {
    let bytes = SIZE.frame_bytes();
    let memory = memory(64 << 20);
    let file = File::from(memfd_create("frame", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(bytes as u64).unwrap();
    let (gpu, handle) = Gpu::new(Box::new(Nobody)).unwrap();
    handle.show_on(Frame::map(file, SIZE).unwrap());
    let mut driver = DriverQueue::new(&memory, 0, 64);
    let cursor = DriverQueue::new(&memory, 1, 16);
    let (activation, recorder) = activation(&memory, &[&driver, &cursor], 0);
    let mut events = EventLoop::new(gpu);
    events.settle(10);
    events.device().activate(activation).unwrap();
    let memory = &memory;
    let mut command = |kind: u32, fields: &[u32]| {
        let header = [kind, 0, 0, 0, 0, 0];
        let raw: Vec<u8> = header.iter().chain(fields).flat_map(|f| f.to_le_bytes()).collect();
        memory.write_slice(&raw, GuestAddress(COMMAND)).unwrap();
        driver.offer(&[readable(COMMAND, raw.len() as u32), writable(RESPONSE, 64)]);
        events.device().queue_notified(0);
        driver.used().unwrap();
        let answer: u32 = memory.read_obj(GuestAddress(RESPONSE)).unwrap();
        assert_eq!(answer, 0x1100, "{kind:#x}");
    };
    command(0x101, &[1, 2, SIZE.width, SIZE.height]);
    let pages = bytes.div_ceil(4096) as u32;
    let mut attach = vec![1, pages];
    for page in 0..pages {
        // No page follows the one before it.
        let place = PIXELS as u32 + (page * 7919 % pages) * 4096;
        attach.extend([place, 0, 4096, 0]);
    }
    command(0x106, &attach);
    command(0x103, &[0, 0, SIZE.width, SIZE.height, 0, 1]);

    // Pages that nobody wrote to are all the same one, and lie in the processor's cache.
    let from: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
    memory.write_slice(&from, GuestAddress(PIXELS)).unwrap();
    let mut to = vec![0u8; bytes];
    let (mut copies, mut flushes) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let began = Instant::now();
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
        copies.push(began.elapsed());
        let began = Instant::now();
        command(0x105, &[0, 0, SIZE.width, SIZE.height, 0, 0, 1, 0]);
        command(0x104, &[0, 0, SIZE.width, SIZE.height, 1, 0]);
        flushes.push(began.elapsed());
    }
    assert!(!recorder.asked_for_reset());
    let (copy, flush) = (median(copies), median(flushes));
    let ratio = flush.as_secs_f64() / copy.as_secs_f64();
    println!("| full-screen update, 1920x1080 | {:.2} ms |", flush.as_secs_f64() * 1e3);
    println!("| bare copy of its {bytes} bytes | {:.2} ms |", copy.as_secs_f64() * 1e3);
    println!("| ratio of the medians of {ROUNDS} | {ratio:.2} |");
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
