//! What the gate is made of. `gate_model` has the model checker's stand-ins for the same.

pub(super) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(test)]
pub(super) use std::thread;

/// Runs a test of the gate with real threads, a few times over.
#[cfg(test)]
pub(super) fn model(_preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
    for _ in 0..20 {
        test();
    }
}
