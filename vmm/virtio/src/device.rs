//! The one trait every virtio device implements.
//!
//! ```text
//!            activate            queue_notified, host_event (I/O thread)
//!   reset  ------------> running ------------------------------------+
//!     ^                    |   ^                                     |
//!     +------- reset ------+   +-------------------------------------+
//! ```
//!
//! What a vCPU reads and writes while the device works, its configuration space, is a value of its
//! own ([`DeviceConfig`]): no vCPU ever waits for a device.

use std::sync::Arc;

use event_manager::{EventOps, Events};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

/// Guest memory as every device sees it; cloning shares the mapping.
pub type GuestMemory = GuestMemoryMmap<()>;

/// How a running device tells its driver something. Implemented by the transport.
pub trait Interrupt: Send + Sync {
    /// Called when the used ring of queue `index` has something new (virtio 1.2 section 2.7.10).
    /// The caller has asked the queue whether the driver wants to know.
    fn used(&self, index: usize);

    /// Called when the configuration space changed (virtio 1.2 section 2.5); bumps the generation.
    fn config_changed(&self);

    /// Called when the device met something it cannot go on from (a broken ring); sets
    /// `DEVICE_NEEDS_RESET` (virtio 1.2 section 2.1.2) and stops the device until the driver resets.
    fn needs_reset(&self);

    /// Returns whether a reset waits for this device to let go of the guest's memory. To be looked at
    /// between any two pieces of work that together take longer than a few milliseconds;
    /// [`CheckedQueue::serve`] looks between any two chains.
    ///
    /// [`CheckedQueue::serve`]: crate::CheckedQueue::serve
    fn stopping(&self) -> bool;
}

/// The device-specific configuration space (virtio 1.2 section 2.5). vCPU threads use it while the
/// device is at work on another thread: nothing here waits for that, or for anything else.
pub trait DeviceConfig: Send + Sync {
    /// Reads at `offset`; bytes beyond the end read as zero.
    fn read(&self, offset: usize, data: &mut [u8]);

    /// Writes at `offset`; dropped where it is read-only or out of range.
    fn write(&self, offset: usize, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Forgets what a driver chose. Called when a reset is complete.
    fn reset(&self) {}
}

/// A configuration space that never changes.
#[derive(Clone, Debug, Default)]
pub struct FixedConfig(pub Vec<u8>);

impl DeviceConfig for FixedConfig {
    fn read(&self, offset: usize, data: &mut [u8]) {
        read_bytes(&self.0, offset, data);
    }
}

/// Reads `space` at `offset`, and zeroes beyond its end.
pub(crate) fn read_bytes(space: &[u8], offset: usize, data: &mut [u8]) {
    data.fill(0);
    for (to, from) in data.iter_mut().zip(space.get(offset..).unwrap_or_default()) {
        *to = *from;
    }
}

/// What a device is given when its driver sets `DRIVER_OK`.
pub struct Activation {
    /// The guest's memory.
    pub memory: GuestMemory,
    /// One entry a queue, in order; `None` where the driver did not enable it. Addresses and sizes
    /// are guest-chosen; the transport has called `Queue::is_valid`.
    pub queues: Vec<Option<Queue>>,
    /// Signals the driver that a queue or the configuration has changed.
    pub interrupt: Arc<dyn Interrupt>,
    /// The features both sides agreed to.
    pub features: u64,
}

/// Why a device would not start.
#[derive(Debug, thiserror::Error)]
pub enum ActivateError {
    /// A queue without which the device cannot work was left out by the driver.
    #[error("the driver did not enable queue {0}")]
    QueueMissing(usize),
    /// A host resource failed.
    #[error("a host resource failed")]
    Host(#[source] std::io::Error),
}

/// One virtio device, without its transport.
///
/// `activate` and `reset` come from whichever thread finds the device idle, a vCPU's or the I/O thread
/// that serves this device; the rest from that I/O thread alone. The transport's lock keeps them apart,
/// and only the I/O thread ever waits for it. Guest-chosen arguments may be anything, and so may
/// everything in guest memory.
pub trait Device: Send {
    /// Returns the virtio device ID (virtio 1.2 section 5).
    fn device_type(&self) -> u32;

    /// Returns the device feature bits offered. The transport adds `VIRTIO_F_VERSION_1`; a device
    /// that can suppress notifications offers `VIRTIO_RING_F_EVENT_IDX` itself.
    fn features(&self) -> u64;

    /// Returns the maximum size of each queue, in descriptors; each a power of two.
    fn queue_sizes(&self) -> &[u16];

    /// Returns the configuration space; always the same one.
    fn config(&self) -> Arc<dyn DeviceConfig>;

    /// Activates the device, as the driver is ready. Called once between resets. Must not block.
    fn activate(&mut self, activation: Activation) -> Result<(), ActivateError>;

    /// Drops the queues and forgets everything negotiated, as the driver wrote zero to the status
    /// register, or the machine resets; host resources stay open. Idempotent; must not block.
    fn reset(&mut self);

    /// Returns whether nothing of the device uses guest memory any more. Asked right after [`Device::reset`], which is not
    /// complete before. A device with threads of its own says no while they are at work, and brings a
    /// [`Device::host_event`] about when they are done: it is then reset and asked again. Must not block.
    fn has_let_go(&self) -> bool {
        true
    }

    /// Ends threads of the device's own, and waits for what they are at. Called once, by the I/O thread, as it ends.
    fn end(&mut self) {}

    /// Called when the driver notified queue `index`, and once for each queue right after activation.
    fn queue_notified(&mut self, index: usize);

    /// Adds, or takes away, the host file descriptors this device waits for. Called on the I/O
    /// thread when the event loop starts, after each activation and after each reset. A device
    /// without any needs no more than the default.
    fn register(&mut self, ops: &mut EventOps) {
        let _ = ops;
    }

    /// Called when a file descriptor that [`Device::register`] added is ready. `events.data()` is
    /// the token the device chose; tokens below [`FIRST_DEVICE_TOKEN`] belong to the transport.
    fn host_event(&mut self, events: Events, ops: &mut EventOps) {
        let _ = (events, ops);
    }
}

/// The first event token a device may use for its own file descriptors.
pub const FIRST_DEVICE_TOKEN: u32 = 0x1_0000;
