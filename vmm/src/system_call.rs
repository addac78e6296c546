//! System calls as the code that makes them declares them, for the filters of the threads that run it.

use libc::c_long;

/// A system call, and what it may be asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) only: Only,
    /// For whoever reads the lists.
    _why: &'static str,
}

/// What an argument, counted from 0, must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Only {
    /// Anything.
    Any,
    /// This value, in all its bits.
    Exactly(u8, u64),
    /// One of these values of an `int`.
    OneOf(u8, &'static [u64]),
    /// Without these bits.
    Without(u8, u64),
    /// Argument 0 this process, argument 2 one of these signals.
    OwnThreads(&'static [u64]),
}

impl Call {
    /// Whatever it is asked.
    pub(crate) const fn any(number: c_long, why: &'static str) -> Self {
        Self { number, only: Only::Any, _why: why }
    }

    /// With `value` as the argument at `index`.
    pub(crate) const fn with(number: c_long, index: u8, value: u64, why: &'static str) -> Self {
        Self { number, only: Only::Exactly(index, value), _why: why }
    }
}

/// Asked for this alone.
pub(crate) const fn limited(number: c_long, only: Only, why: &'static str) -> Call {
    Call { number, only, _why: why }
}
