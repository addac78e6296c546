//! The gate once more, over the model checker's threads and locks: here its tests visit every order
//! in which threads can act. The gate itself stays what it is in the VMM, for the tests of the rest.

mod primitives {
    pub(super) use loom::sync::{Condvar, Mutex, MutexGuard, atomic};
    pub(super) use loom::thread;

    /// Models every order of events with at most this many preemptions.
    pub(super) fn model(preemptions: usize, test: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.check(test);
    }
}

#[path = "gate.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    clippy::duplicate_mod,
    reason = "only its tests are of interest here"
)]
mod gate;
