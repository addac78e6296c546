//! Block device (virtio 1.2 section 5.2) over a raw image or a block device of the host.
//!
//! ```text
//!   queue -> Pool (pool.rs) -> Request::parse (request.rs, no I/O) -> Executor (executor.rs) -> Disk (disk.rs)
//! ```
//!
//! One queue, served by the disk's own I/O thread, and by up to three helpers while requests wait for a disk
//! that takes its time: data goes by one `preadv` or `pwritev2` straight between guest memory and the file,
//! without a copy of ours. One request at a time is never handed over. A flush completes when `fdatasync`
//! returned; a driver that does not negotiate FLUSH, or turns the write cache off, gets every write durable at
//! its completion. A flush that failed stays failed.
//!
//! However much is asked for, it is done in pieces of one system call, and between two a reset is
//! noticed. A disk may hang in one all the same: then the threads that asked it hang, and nobody waits for them
//! but the driver, whose reset is not complete before all of them have let go of its memory.
//!
//! Not offered: geometry, multiple queues, lifetime, secure erase, resizing.

mod config;
mod disk;
mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod pool;
mod request;
pub mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use event_manager::{EventOps, Events};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{ActivateError, Activation, Backlog, Device, DeviceConfig};
use config::Config;
use executor::Executor;
use pool::{Pool, Running};
use spec::feature;

pub use disk::{Disk, DiskError};
pub use pool::{HELPERS, SLOW, ThreadWatch};
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
    pool: Arc<Pool>,
    config: Arc<Config>,
}

impl Blk {
    /// Makes a device that serves its disk on one thread. Fails only when the process has no file descriptor left.
    pub fn new(disk: Disk) -> io::Result<Self> {
        Self::build(disk, |pool| pool)
    }

    /// Makes a device that lets a helper thread for each of `watches` come while requests wait that take `slow`
    /// ([`SLOW`]) or longer. Each is started by the thread that serves the device, and has its system call filter.
    pub fn with_helpers(
        disk: Disk,
        slow: Duration,
        watches: Vec<Box<dyn ThreadWatch>>,
    ) -> io::Result<Self> {
        Self::build(disk, |pool| pool.with_helpers(watches, slow, None))
    }

    fn build(disk: Disk, helped: impl FnOnce(Pool) -> Pool) -> io::Result<Self> {
        let config = Arc::new(Config::new(&disk));
        let backlog = Backlog::new()?;
        let executor = Executor::new(disk, Arc::clone(&config));
        let pool = Arc::new(helped(Pool::new(executor, backlog.clone())));
        Ok(Self { backlog, pool, config })
    }

    fn serve(&self) {
        if self.pool.serve() == Progress::Unfinished {
            self.backlog.again();
        }
    }
}

impl Drop for Blk {
    fn drop(&mut self) {
        // Waits for nobody: a helper may be with a disk that hangs.
        self.pool.end();
    }
}

impl Device for Blk {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        let bounds = self.pool.executor().disk().bounds();
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
        self.pool.start(Running { requests, interrupt });
        Ok(())
    }

    fn reset(&mut self) {
        self.pool.stop();
    }

    fn has_let_go(&self) -> bool {
        self.pool.at_rest()
    }

    fn end(&mut self) {
        self.pool.end();
        self.pool.wait_for_end();
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
