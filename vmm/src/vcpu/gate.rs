//! The gate at which vCPU threads wait while the machine is paused or being reset.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::boot::Entry;

/// What a vCPU does when the gate opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Start from the reset state at this entry, instead of going on.
    pub restart: Option<Entry>,
}

#[derive(Debug)]
struct Inner {
    /// Threads that have not ended.
    alive: usize,
    /// Threads that have arrived here since the last opening.
    waiting: usize,
    /// Counts openings; every thread passes each one, even if the gate closed again before it woke,
    /// so that no order is missed.
    opening: u64,
    order: Order,
    ended: bool,
}

/// Shared by the main loop and all vCPU threads.
#[derive(Debug)]
pub struct Gate {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Whether the run loop may go on; it looks after each exit.
    open: AtomicBool,
}

impl Gate {
    /// Closed, for this many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                alive: threads,
                waiting: 0,
                opening: 0,
                order: Order { restart: None },
                ended: false,
            }),
            changed: Condvar::new(),
            open: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// vCPU side: waits for the next opening; `None` when the machine ends.
    pub fn wait(&self) -> Option<Order> {
        let mut inner = self.lock();
        let seen = inner.opening;
        inner.waiting += 1;
        self.changed.notify_all();
        while !inner.ended && inner.opening == seen {
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        (!inner.ended).then_some(inner.order)
    }

    /// vCPU side: whether to enter the guest once more.
    pub fn may_run(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// vCPU side: this thread ends.
    pub fn gone(&self) {
        self.lock().alive -= 1;
        self.changed.notify_all();
    }

    /// Lets all vCPUs run.
    pub fn open(&self, restart: Option<Entry>) {
        let mut inner = self.lock();
        inner.order = Order { restart };
        inner.opening += 1;
        inner.waiting = 0;
        self.open.store(!inner.ended, Ordering::Release);
        self.changed.notify_all();
    }

    /// Closes the gate and waits until every vCPU is at it. `kick` is called again and again until
    /// they are: a thread may look at [`Gate::may_run`] just before the gate closes and enter the
    /// guest just after a kick.
    pub fn close(&self, kick: impl Fn()) {
        let mut inner = self.lock();
        self.open.store(false, Ordering::Release);
        while inner.waiting < inner.alive {
            drop(inner);
            kick();
            inner = self.lock();
            if inner.waiting < inner.alive {
                let (next, _) = self
                    .changed
                    .wait_timeout(inner, KICK_INTERVAL)
                    .unwrap_or_else(PoisonError::into_inner);
                inner = next;
            }
        }
    }

    /// Ends all vCPU threads that are at the gate.
    pub fn end(&self) {
        let mut inner = self.lock();
        inner.ended = true;
        self.open.store(false, Ordering::Release);
        self.changed.notify_all();
    }
}

const KICK_INTERVAL: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    #[test]
    fn threads_run_only_while_the_gate_is_open_and_all_of_them_end() {
        let gate = Arc::new(Gate::new(3));
        let steps = Arc::new(AtomicU64::new(0));
        let restarts = Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (gate, steps, restarts) =
                    (Arc::clone(&gate), Arc::clone(&steps), Arc::clone(&restarts));
                std::thread::spawn(move || {
                    while let Some(order) = gate.wait() {
                        restarts.fetch_add(order.restart.is_some().into(), Ordering::SeqCst);
                        while gate.may_run() {
                            steps.fetch_add(1, Ordering::SeqCst);
                            std::thread::yield_now();
                        }
                    }
                    gate.gone();
                })
            })
            .collect();
        gate.close(|| {});
        assert_eq!(steps.load(Ordering::SeqCst), 0, "closed from the start");
        for round in 1..=20 {
            gate.open(Some(Entry::Pvh { rip: 0 }));
            gate.close(|| {});
            let stopped_at = steps.load(Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            assert_eq!(steps.load(Ordering::SeqCst), stopped_at, "nobody runs while it is closed");
            assert_eq!(restarts.load(Ordering::SeqCst), 3 * round);
        }
        gate.end();
        for thread in threads {
            thread.join().unwrap();
        }
    }
}
