//! System calls as the code that makes them declares them, for the filters of the threads that run it.

use std::fmt;

use libc::c_long;

/// A system call, what it may be asked, and why.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The number of the call on x86-64.
    pub number: c_long,
    /// What it may be asked.
    pub only: Only,
    /// The constant's name in `libc`. With the reason it is read by people and by `docs/design/sandbox.md`.
    pub name: &'static str,
    /// What it is made for.
    pub why: &'static str,
}

/// What the arguments, counted from 0, must be.
#[derive(Clone, Copy, Debug)]
pub enum Only {
    /// They may be anything.
    Any,
    /// The one is this value, in all its bits.
    Exactly(u8, u64),
    /// The one is among these values of an `int`.
    OneOf(u8, &'static [u64]),
    /// Each of these is without these bits.
    Without(&'static [(u8, u64)]),
    /// Of each of these, counted as argument, mask and value, the bits of the mask are those of the value.
    Bits(&'static [(u8, u64, u64)]),
    /// Argument 0 is this process, argument 2 one of these signals.
    OwnThreads(&'static [u64]),
    /// Nothing passes: the answer is that this kernel has no such call (`ENOSYS`), for a caller that has another way.
    Absent,
}

impl fmt::Display for Only {
    /// Says it in words, as `docs/design/sandbox.md` does; nothing for [`Self::Any`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // People count from 1.
        let argument = |index: u8| format!("argument {}", index.saturating_add(1));
        let list = |values: &[u64]| {
            values.iter().map(|value| format!("{value:#x}")).collect::<Vec<_>>().join(", ")
        };
        match *self {
            Self::Any => Ok(()),
            Self::Absent => f.write_str("nothing: the answer is `ENOSYS`"),
            Self::Exactly(index, value) => write!(f, "{} is {value}", argument(index)),
            Self::OneOf(index, values) => {
                write!(f, "{} is one of {}", argument(index), list(values))
            }
            Self::Without(bits) => {
                let each = bits
                    .iter()
                    .map(|(index, bits)| format!("{} without {bits:#x}", argument(*index)));
                f.write_str(&each.collect::<Vec<_>>().join(", "))
            }
            Self::Bits(bits) => {
                let each = bits.iter().map(|(index, mask, value)| {
                    format!("{} has {value:#x} of {mask:#x}", argument(*index))
                });
                f.write_str(&each.collect::<Vec<_>>().join(", "))
            }
            Self::OwnThreads(signals) => write!(f, "own threads, signal {}", list(signals)),
        }
    }
}

/// Declares a [`Call`]: the name of its number in `libc`, what it may be asked if not everything, why.
#[macro_export]
macro_rules! call {
    ($name:ident, $why:literal) => {
        $crate::call!($name, $crate::Only::Any, $why)
    };
    ($name:ident, $only:expr, $why:literal) => {
        $crate::Call {
            number: $crate::libc::$name,
            only: $only,
            name: stringify!($name),
            why: $why,
        }
    };
}
