//! Permits without a disk and mediators' threads without a monitor, for tests and fuzz targets. `agent/tests/sources.rs` sees to it that nothing else has this.

use policy::decide::Decision;

use crate::{MediatorThread, Owed, Permit, Stop};

/// Makes a permit, as if this entry were on the disk.
pub const fn permit<G>(grant: G, entry: u64) -> Permit<G> {
    Permit::new(grant, entry)
}

/// Returns what a verdict of this decision owes that has nothing left to be looked into.
#[must_use]
pub const fn owed(decision: Decision) -> Owed {
    Owed {
        decision: Some(decision),
        answer: matches!(decision, Decision::Ask),
        read_only: matches!(decision, Decision::ReadOnly),
        ..Owed::nothing()
    }
}

impl<C, E> MediatorThread<C, E> {
    /// Stops the thread. What it said last can be had afterwards.
    pub fn stop(&mut self, stop: Stop) {
        self.handle.stop(stop);
    }

    /// Waits for the end of a thread that ends by itself.
    pub fn join(&mut self) {
        self.handle.join();
    }

    /// Returns what the thread has said since the last time.
    pub fn events(&self) -> Vec<E> {
        self.handle.events()
    }
}
