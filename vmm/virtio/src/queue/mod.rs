//! A split virtqueue that hands out nothing but checked chains.
//!
//! Wraps [`virtio_queue::Queue`] for the available side, and keeps the used side itself: chains
//! that belong together (a frame in several buffers) have to appear in the used ring at once.
//! Everything that can be wrong in a ring is an error here, and an error means one thing to a
//! device: tell the driver through [`Interrupt::needs_reset`] and touch the queue no more.

#[cfg(test)]
mod tests;

use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC, VRING_AVAIL_F_NO_INTERRUPT,
};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::chain::{Chain, ChainError, Limits, Storage, walk};
use crate::{GuestMemory, Interrupt};

/// What every queue here can do, as feature bits for a device to offer: notification suppression
/// by event index, and indirect descriptors (virtio 1.2 section 6).
pub const RING_FEATURES: u64 =
    1 << VIRTIO_RING_F_EVENT_IDX as u64 | 1 << VIRTIO_RING_F_INDIRECT_DESC as u64;

/// Layout of the used ring in bytes: flags, index, entries of head and length (section 2.7.8).
const USED_INDEX: u64 = 2;
const USED_ENTRIES: u64 = 4;
const USED_ENTRY_BYTES: u64 = 8;

/// How many emptied chain allocations a queue keeps: as many as a device holds chains at once.
const SPARE_STORAGE: usize = 4;

/// Why a queue is of no use any more. The guest is to blame for each of these.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The rings are not in guest memory, or the available index is more than a queue ahead.
    #[error("the ring is broken: {0}")]
    Ring(String),
    /// The driver offers more chains than the queue has descriptors.
    #[error("more than {0} chains offered and not yet used")]
    TooManyOffered(u16),
    /// A descriptor chain is malformed.
    #[error("malformed descriptor chain")]
    Chain(#[from] ChainError),
    /// A chain does not have what every request to this device must have.
    #[error("malformed request: {0}")]
    Request(&'static str),
    /// Nobody is to blame: a reset cut a request short ([`Interrupt::stopping`]).
    #[error("a reset came before the request was done")]
    Stopped,
}

impl From<virtio_queue::Error> for QueueError {
    fn from(error: virtio_queue::Error) -> Self {
        Self::Ring(error.to_string())
    }
}

/// Whether a queue was emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// No chain was left; the driver will notify when it offers one.
    Emptied,
    /// The budget was used up, chains may be left and no notification will come for them: come
    /// back after the other devices of the thread had their turn (see [`Backlog`](crate::Backlog)).
    Unfinished,
}

/// One queue of an activated device.
#[derive(Debug)]
pub struct CheckedQueue {
    queue: Queue,
    memory: Arc<GuestMemory>,
    limits: Limits,
    /// Chains handed out and not given back.
    outstanding: u16,
    /// The used index as published.
    used: Wrapping<u16>,
    /// The used index when the driver was last asked whether it wants to know.
    announced: Wrapping<u16>,
    spare: Vec<Storage>,
}

impl CheckedQueue {
    /// Takes the queue as the transport made it. `features` are the negotiated ones, `max_bytes`
    /// the most a single chain may carry.
    pub fn new(mut queue: Queue, memory: &Arc<GuestMemory>, features: u64, max_bytes: u32) -> Self {
        queue.set_event_idx(has(features, VIRTIO_RING_F_EVENT_IDX));
        let used = Wrapping(queue.next_used());
        Self {
            queue,
            memory: Arc::clone(memory),
            limits: Limits {
                bytes: max_bytes,
                indirect: has(features, VIRTIO_RING_F_INDIRECT_DESC),
            },
            outstanding: 0,
            used,
            announced: used,
            spare: Vec::new(),
        }
    }

    /// Takes the next chain the driver offers, if there is one.
    pub fn pop(&mut self) -> Result<Option<Chain>, QueueError> {
        let mut offered = self.queue.iter(&*self.memory)?;
        let Some(head) = offered.next().map(|chain| chain.head_index()) else {
            return Ok(None);
        };
        if self.outstanding >= self.queue.size() {
            return Err(QueueError::TooManyOffered(self.queue.size()));
        }
        let chain = walk(
            &self.memory,
            GuestAddress(self.queue.desc_table()),
            self.queue.size(),
            head,
            self.limits,
            self.spare.pop().unwrap_or_default(),
        )?;
        self.outstanding += 1;
        Ok(Some(chain))
    }

    /// Takes the next chain; if there is none, the driver is asked to notify of the next one. Never
    /// waits itself, and does not insist where a driver's available index comes and goes.
    pub fn pop_or_wait(&mut self) -> Result<Option<Chain>, QueueError> {
        if let Some(chain) = self.pop()? {
            return Ok(Some(chain));
        }
        if self.enable_notification()? { self.pop() } else { Ok(None) }
    }

    /// Undoes the last [`CheckedQueue::pop`]: the chain will come again.
    pub fn put_back(&mut self, chain: Chain) {
        self.queue.go_to_previous_position();
        self.recycle(chain);
    }

    /// Gives a chain back to the driver. The first `written` of its writable bytes were written.
    pub fn add_used(&mut self, chain: Chain, written: usize) -> Result<(), QueueError> {
        self.add_used_together([(chain, written)])
    }

    /// Gives chains back to the driver, which sees them all at once or none.
    pub fn add_used_together(
        &mut self,
        chains: impl IntoIterator<Item = (Chain, usize)>,
    ) -> Result<(), QueueError> {
        for (chain, written) in chains {
            let written = written.min(chain.writable_len());
            // The limit of a chain's bytes is a u32, so this never saturates.
            let written = u32::try_from(written).unwrap_or(u32::MAX);
            let entry = u64::from(chain.head()) | u64::from(written) << 32;
            let place = u64::from(self.used.0.checked_rem(self.queue.size()).unwrap_or(0));
            let place = self.used_ring(USED_ENTRIES + USED_ENTRY_BYTES * place)?;
            self.memory.write_obj(entry.to_le(), place).map_err(ring_error)?;
            self.used += 1;
            self.recycle(chain);
        }
        let index = self.used_ring(USED_INDEX)?;
        self.memory.store(self.used.0.to_le(), index, Ordering::Release).map_err(ring_error)
    }

    /// Tells the driver about the used chains since the last call, if it wants to know.
    pub fn announce(&mut self, interrupt: &dyn Interrupt, index: usize) -> Result<(), QueueError> {
        let before = std::mem::replace(&mut self.announced, self.used);
        if before != self.used && self.wants_interrupt(before)? {
            interrupt.used(index);
        }
        Ok(())
    }

    /// Asks the driver to notify of new chains. True: there are some already, for which no
    /// notification may come.
    fn enable_notification(&mut self) -> Result<bool, QueueError> {
        Ok(self.queue.enable_notification(&*self.memory)?)
    }

    /// Tells the driver that its notifications are not needed for now.
    pub(crate) fn disable_notification(&mut self) -> Result<(), QueueError> {
        Ok(self.queue.disable_notification(&*self.memory)?)
    }

    /// Serves up to `budget` chains: `serve` returns how many bytes it wrote. The driver is told
    /// when the queue is empty or the budget used up, once for all of them. When a reset waits, what
    /// is left is left: neither served nor given back.
    pub fn serve(
        &mut self,
        interrupt: &dyn Interrupt,
        index: usize,
        budget: usize,
        mut serve: impl FnMut(&Chain) -> Result<usize, QueueError>,
    ) -> Result<Progress, QueueError> {
        self.disable_notification()?;
        for _ in 0..budget {
            if interrupt.stopping() {
                return Ok(Progress::Emptied);
            }
            let Some(chain) = self.pop_or_wait()? else {
                self.announce(interrupt, index)?;
                return Ok(Progress::Emptied);
            };
            let written = match serve(&chain) {
                Err(QueueError::Stopped) => return Ok(Progress::Emptied),
                served => served?,
            };
            self.add_used(chain, written)?;
        }
        self.announce(interrupt, index)?;
        Ok(Progress::Unfinished)
    }

    /// Returns whether the driver wants an interrupt for the used entries from index `before` on
    /// (virtio 1.2 sections 2.7.7 and 2.7.10).
    fn wants_interrupt(&self, before: Wrapping<u16>) -> Result<bool, QueueError> {
        fence(Ordering::SeqCst); // the used index before what the driver says
        if !self.queue.event_idx_enabled() {
            let flags = u32::from(self.avail_field(0)?);
            return Ok(flags & VRING_AVAIL_F_NO_INTERRUPT == 0);
        }
        // Wants one when `used_event` was passed: before <= used_event < used, in the ring's
        // arithmetic.
        let event = Wrapping(self.avail_field(4 + 2 * u64::from(self.queue.size()))?);
        Ok(event - before < self.used - before)
    }

    fn avail_field(&self, offset: u64) -> Result<u16, QueueError> {
        let address = self.queue.avail_ring().checked_add(offset).ok_or_else(overflow)?;
        let value = self.memory.load(GuestAddress(address), Ordering::Relaxed);
        value.map(u16::from_le).map_err(ring_error)
    }

    fn used_ring(&self, offset: u64) -> Result<GuestAddress, QueueError> {
        self.queue.used_ring().checked_add(offset).map(GuestAddress).ok_or_else(overflow)
    }

    fn recycle(&mut self, chain: Chain) {
        self.outstanding = self.outstanding.saturating_sub(1);
        if self.spare.len() < SPARE_STORAGE {
            self.spare.push(chain.into_storage());
        }
    }
}

fn ring_error(error: vm_memory::GuestMemoryError) -> QueueError {
    QueueError::Ring(error.to_string())
}

fn overflow() -> QueueError {
    QueueError::Ring("it does not end within the address space".into())
}

/// Returns whether feature bit number `bit` is in `features`.
pub(crate) fn has(features: u64, bit: u32) -> bool {
    features.checked_shr(bit).is_some_and(|rest| rest & 1 == 1)
}
