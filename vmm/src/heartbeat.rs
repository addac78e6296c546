//! What a thread leaves behind each time it comes round, so that another can tell that it does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The beats of one thread, shared with whoever watches it. One thread's beats are never another's.
#[derive(Clone, Debug, Default)]
pub struct Heartbeat(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    count: AtomicU64,
    resting: AtomicBool,
}

impl Heartbeat {
    /// Counts one more round of the thread.
    pub fn beat(&self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that the thread waits to be told what to do next, until its next [`Self::wake`].
    pub fn rest(&self) {
        self.0.resting.store(true, Ordering::Relaxed);
    }

    /// Says that the thread has something to do again.
    pub fn wake(&self) {
        self.0.resting.store(false, Ordering::Relaxed);
        self.beat();
    }

    /// Returns the heartbeat of a thread that is not there yet.
    pub fn resting() -> Self {
        let heartbeat = Self::default();
        heartbeat.rest();
        heartbeat
    }

    /// Returns how often the thread has come round.
    pub fn count(&self) -> u64 {
        self.0.count.load(Ordering::Relaxed)
    }

    /// Returns whether the thread has nothing to do.
    pub fn is_resting(&self) -> bool {
        self.0.resting.load(Ordering::Relaxed)
    }
}

impl virtio::blk::ThreadWatch for Heartbeat {
    fn at_work(&self) {
        self.wake();
    }

    fn at_rest(&self) {
        self.rest();
    }
}
