//! How numbers, sizes, lengths of time and network addresses are written: one reader of each for the policy, the machine file and the
//! command lines of `bulkhead` and `bulkhead-vmm`, so that none of them takes a text for something else than another does.
//!
//! | what | written | means | read by |
//! | --- | --- | --- | --- |
//! | whole number | `2` | what the option counts, in the range that it has | [`whole()`] |
//! | size of memory | `512M`, `512MB`, `512MiB`, `4G`, `4GB`, `4GiB`, also in small letters and with a space before the unit | powers of 1024 | [`memory()`] |
//! | length of time | `30s`, `10m`, `8h` | seconds, minutes, hours | [`duration`] |
//! | address of a network card | `52:54:00:12:34:56` | six bytes | [`Mac`] |
//!
//! People write more than that: what is [`meant`] by it names the right form in the message that refuses it. What is wrong with a text, and what to
//! write instead, is a [`Mistake`], whoever finds it.
//! ```
//! assert_eq!(notation::memory("512M"), Ok(512 << 20));
//! let refused = notation::memory("512").unwrap_err();
//! assert_eq!(refused.to_string(), "`512` is not a size of memory; write a whole number and a unit, like 512M or 4G");
//! ```
#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod amount;
pub mod duration;
mod mac;
pub mod meant;
mod memory;
mod mistake;
mod whole;

pub use mac::{Mac, MacError};
pub use memory::{MEMORY_MAX, MEMORY_MIN, memory};
pub use mistake::{Mistake, Span};
pub use whole::whole;
