//! The audit log: what crossed, what was refused, and who did what to the PC (DESIGN section 9, K-5.4.2, K-5.4.3).
//!
//! ```text
//!  audit-000000000001.jsonl                       audit-000000004097.jsonl
//!  +--------+   +--------+       +------------+   +--------+
//!  | seq 1  |<--| seq 2  |<-...<-| checkpoint |<--| 4097   |<- ...      one JSON object a line
//!  | prev 0 |   | prev   |       | prev, sig  |   | prev   |
//!  | hash   |   | hash   |       | hash       |   | hash   |
//!  +--------+   +--------+       +------------+   +--------+
//!                                      |
//!                                      +--> head: seq and hash of the last checkpoint, to be kept off the PC
//! ```
//!
//! `hash` is the SHA-256 of the line without its `hash` member, byte for byte, and `prev` is the `hash` of the line before: a changed,
//! missing, added or moved line breaks the chain where it stands. A checkpoint's Ed25519 signature says that this PC wrote all
//! that is before it. What is cut off behind the last entry leaves a chain that holds: that is what the head is for.
//!
//! [`Log::append`] returns when the entries are on the disk. An effect that an entry permits happens after that, or not at all: a log
//! that once failed to write fails until it is opened anew.
#![forbid(unsafe_code)]

mod entry;
mod export;
mod files;
mod key;
mod log;
mod read;
mod verify;

pub use entry::{Entry, Event, LINE_MAX};
pub use export::{Filter, rfc5424};
pub use key::{AuditKey, KeyError, PublicKey};
pub use log::{Limits, Log, LogError, Recovered, WhenFull};
pub use read::{Reader, each};
pub use verify::{Break, Head, Summary, verify};
