//! Entropy device (virtio 1.2 section 5.4): one queue of buffers to be filled with random bytes.
//!
//! It has no configuration and no features of its own, and does not limit the rate: the kernel's
//! generator is not used up by being read.
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod spec;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::Arc;

use event_manager::{EventOps, Events};

use crate::queue::{CheckedQueue, Progress, RING_FEATURES};
use crate::{
    ActivateError, Activation, Backlog, Chain, Device, DeviceConfig, FixedConfig, Interrupt,
    QueueError, entropy,
};

/// The most random bytes one request is given, however large its buffers. A driver that lists the
/// same page a thousand times makes a long request of little memory; Linux asks for 64 to 512 bytes.
pub const MAX_REQUEST: usize = 16 << 10;

/// The most requests served before the other devices of the thread have their turn.
const BUDGET: usize = 16;

/// Bytes taken from the kernel at once, on the stack.
const CHUNK: usize = 1 << 10;

/// An entropy device (virtio 1.2 section 5.4), fed by the host's random number generator.
pub struct Rng {
    backlog: Backlog,
    running: Option<Running>,
}

struct Running {
    requests: CheckedQueue,
    interrupt: Arc<dyn Interrupt>,
}

impl Rng {
    /// Fails only when the process has no file descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { backlog: Backlog::new()?, running: None })
    }

    fn serve(&mut self) {
        let Some(running) = &mut self.running else { return };
        let interrupt = &*running.interrupt;
        match running.requests.serve(interrupt, spec::REQUEST_QUEUE, BUDGET, fill) {
            Ok(Progress::Emptied) => {}
            Ok(Progress::Unfinished) => self.backlog.again(),
            Err(error) => {
                driver_error!("virtio-rng", &error);
                interrupt.needs_reset();
                self.running = None;
            }
        }
    }
}

impl Device for Rng {
    fn device_type(&self) -> u32 {
        spec::DEVICE_ID
    }

    fn features(&self) -> u64 {
        RING_FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &spec::QUEUE_SIZES
    }

    fn config(&self) -> Arc<dyn DeviceConfig> {
        Arc::new(FixedConfig::default())
    }

    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError> {
        let Activation { memory, queues, interrupt, features } = activation;
        let requests = queues
            .into_iter()
            .next()
            .flatten()
            .ok_or(ActivateError::QueueMissing(spec::REQUEST_QUEUE))?;
        let requests = CheckedQueue::new(requests, &Arc::new(memory), features, u32::MAX);
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

/// Fills the writable part, up to the cap. A readable part should not be there (virtio 1.2 section
/// 5.4.6.1) and is passed over.
fn fill(chain: &Chain) -> Result<usize, QueueError> {
    let mut buffer = chain.writer();
    let wanted = buffer.left().min(MAX_REQUEST);
    let mut written = 0;
    let mut bytes = [0; CHUNK];
    while written < wanted {
        let chunk = bytes.get_mut(..(wanted - written).min(CHUNK)).unwrap_or_default();
        // A short answer is one the driver has to expect; no error can reach it.
        if entropy::fill(chunk).is_err() || buffer.write_all(chunk).is_err() {
            break;
        }
        written += chunk.len();
    }
    Ok(written)
}
