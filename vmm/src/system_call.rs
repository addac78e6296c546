//! System calls as the code that makes them declares them, for the filters of the threads that run it.

use libc::c_long;

/// A system call, what it may be asked, and why.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) number: c_long,
    pub(crate) only: Only,
    /// The constant's name in `libc`. With the reason it is read by people and by `docs/design/sandbox.md`.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documentation that the compiler keeps beside the call")
    )]
    pub(crate) name: &'static str,
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "documentation that the compiler keeps beside the call")
    )]
    pub(crate) why: &'static str,
}

/// What the arguments, counted from 0, must be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Only {
    /// Anything.
    Any,
    /// The one is this value, in all its bits.
    Exactly(u8, u64),
    /// The one is among these values of an `int`.
    OneOf(u8, &'static [u64]),
    /// Each of these is without these bits.
    Without(&'static [(u8, u64)]),
    /// Argument 0 is this process, argument 2 one of these signals.
    OwnThreads(&'static [u64]),
}

/// Declares a [`Call`]: the name of its number in `libc`, what it may be asked if not everything, why.
macro_rules! call {
    ($name:ident, $why:literal) => {
        crate::system_call::call!($name, crate::system_call::Only::Any, $why)
    };
    ($name:ident, $only:expr, $why:literal) => {
        crate::system_call::Call {
            number: libc::$name,
            only: $only,
            name: stringify!($name),
            why: $why,
        }
    };
}
pub(crate) use call;
