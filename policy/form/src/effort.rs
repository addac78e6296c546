//! Steps of work, counted for tests: what reading or comparing takes is held against the length of its text, without a clock.
//!
//! Only builds with debug assertions count; in any other [`spend`] is nothing.

/// Takes so many steps.
#[inline]
pub fn spend(steps: usize) {
    #[cfg(debug_assertions)]
    counted::STEPS.set(counted::STEPS.get().saturating_add(steps));
    let _ = steps;
}

/// Counts the steps that something takes in this thread.
#[cfg(debug_assertions)]
pub fn spent_by(work: impl FnOnce()) -> usize {
    counted::STEPS.set(0);
    work();
    counted::STEPS.get()
}

#[cfg(debug_assertions)]
mod counted {
    use std::cell::Cell;

    thread_local! {
        pub(super) static STEPS: Cell<usize> = const { Cell::new(0) };
    }
}
