//! Block device (virtio 1.2 section 5.2) over a raw image or a block device of the host.
//!
//! ```text
//!   chain -> Request::parse (request.rs, no I/O) -> Executor (executor.rs) -> Disk (disk.rs)
//! ```
//!
//! One queue, served synchronously on the disk's own I/O thread: data goes by one `preadv` or
//! `pwritev2` straight between guest memory and the file, without a copy of ours. The driver is
//! interrupted once for a batch. A flush completes when `fdatasync` returned; a driver that does
//! not negotiate FLUSH, or turns the write cache off, gets every write durable at its completion. A
//! flush that failed stays failed.
//!
//! However much is asked for, it is done in pieces of one system call, and between two a reset is
//! noticed. A disk may hang in one all the same: then this device's thread hangs, and nobody waits for it
//! but the driver, whose reset is not complete before the thread has let go of its memory.
//!
//! Not offered: geometry, multiple queues, lifetime, secure erase, resizing.

mod config;
mod disk;
mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod request;
pub mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use event_manager::{EventOps, Events};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{ActivateError, Activation, Backlog, Device, DeviceConfig, Interrupt};
use config::Config;
use executor::Executor;
use spec::feature;

pub use disk::{Disk, DiskError};
pub use request::{Bounds, MAX_RANGE_SECTORS, MAX_RANGES, Range, Request};

/// Descriptors in the queue.
const QUEUE_SIZE: u16 = 256;

/// Data buffers in one request: what the queue has, less header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;

/// Bytes in one data buffer. With [`SEG_MAX`] it bounds the work a single request can ask for.
const SIZE_MAX: u32 = 128 << 10;

/// Bytes in one chain: the data, and a buffer's worth for header, status and ranges.
const MAX_CHAIN_BYTES: u32 = (SEG_MAX + 1) * SIZE_MAX;

/// The most requests served before configuration accesses and resets get their turn.
const BUDGET: usize = 64;

/// A block device (virtio 1.2 section 5.2), of one disk.
pub struct Blk {
    backlog: Backlog,
    executor: Executor,
    config: Arc<Config>,
    running: Option<Running>,
}

struct Running {
    requests: CheckedQueue,
    interrupt: Arc<dyn Interrupt>,
}

impl Blk {
    /// Fails only when the process has no file descriptor left.
    pub fn new(disk: Disk) -> io::Result<Self> {
        let config = Arc::new(Config::new(&disk));
        Ok(Self {
            backlog: Backlog::new()?,
            executor: Executor::new(disk, Arc::clone(&config)),
            config,
            running: None,
        })
    }

    fn serve(&mut self) {
        let Some(Running { requests, interrupt }) = &mut self.running else { return };
        let executor = &mut self.executor;
        let interrupt = &**interrupt;
        let progress = requests.serve(interrupt, spec::REQUEST_QUEUE, BUDGET, |chain| {
            executor.execute(chain, interrupt)
        });
        match progress {
            Ok(Progress::Emptied) => {}
            Ok(Progress::Unfinished) => self.backlog.again(),
            Err(error) => {
                driver_error!("virtio-blk", &error);
                interrupt.needs_reset();
                self.running = None;
            }
        }
    }
}

impl Device for Blk {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        let bounds = self.executor.disk().bounds();
        let mut features = RING_FEATURES
            | feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::TOPOLOGY
            | feature::FLUSH;
        features |= if bounds.read_only { feature::RO } else { feature::CONFIG_WCE };
        if bounds.discard {
            features |= feature::DISCARD | feature::WRITE_ZEROES;
        }
        features
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE]
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        Arc::clone(&self.config) as Arc<dyn DeviceConfig>
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let requests = queues
            .into_iter()
            .next()
            .flatten()
            .ok_or(ActivateError::QueueMissing(spec::REQUEST_QUEUE))?;
        let requests = CheckedQueue::new(requests, &Arc::new(memory), features, MAX_CHAIN_BYTES);
        // Section 5.2.5.2: without FLUSH the driver cannot make writes durable, so they all are.
        self.config.set(features & feature::FLUSH != 0, features & feature::CONFIG_WCE != 0);
        self.running = Some(Running { requests, interrupt });
        Ok(())
    }

    fn reset(&mut self) {
        self.running = None;
    }

    fn queue_notified(&mut self, _index: usize) {
        self.serve();
    }

    fn register(&mut self, ops: &mut EventOps) {
        self.backlog.register(ops);
    }

    fn host_event(&mut self, events: Events, _ops: &mut EventOps) {
        if events.data() == Backlog::TOKEN {
            self.backlog.take();
            self.serve();
        }
    }
}
