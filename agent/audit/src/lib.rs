//! The audit log: what crossed, what was refused, and who did what to the PC (K-5.4.2, K-5.4.3; how it is used: `docs/security-office/audit-log.md`).
//!
//! ```text
//!  audit-000000000001.jsonl                       audit-000000004097.jsonl
//!  +--------+   +--------+       +------------+   +--------+
//!  | seq 1  |<--| seq 2  |<-...<-| checkpoint |<--| 4097   |<- ...      one JSON object a line
//!  | prev 0 |   | prev   |       | prev, sig  |   | prev   |
//!  | hash   |   | hash   |       | hash       |   | hash   |
//!  +--------+   +--------+       +------------+   +--------+
//!                                      |
//!                                      +--> head: seq and hash of the last checkpoint
//! ```
//!
//! `hash` is the SHA-256 of the line without its `hash` member, byte for byte, and `prev` is the `hash` of the line before: a changed,
//! missing, added or moved line breaks the chain where it stands. A checkpoint's Ed25519 signature says that this PC wrote all
//! that is before it, and the checkpoint itself. There is one where the log is opened (after `log-opened`), where it is closed (after `log-closed`), every
//! 256 entries, and a minute after the first entry that has none. What is after the last one is not signed: [`verify()`] counts it, and takes it for tampering
//! once it is older than a checkpoint should have been. What is cut off leaves a chain that holds: that is what heads are for, beside the log, elsewhere on
//! the PC, and off it.
//!
//! An entry has two times: what the wall clock said, and the highest time seen, which never goes back. A step of the
//! wall clock is an entry of its own (`clock-step`), written and signed as soon as the writer is told of it ([`Log::note_step`]).
//!
//! **Formats.** Logs of format 1 had one time and no checkpoint where they were opened. They are verified by what they have, and a log
//! that began so goes on in format 2; nothing of format 1 is accepted after that.
//!
//! What is recorded is an [`AuditEvent`]: each kind of entry is a type in [`events`].
//!
//! [`Log::append`] returns when the entries are on the disk. An effect that an entry permits happens after that, or not at all: a log
//! that once failed to write fails until it is opened anew.
#![warn(missing_docs)]
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

mod checkpoint;
mod entry;
pub mod events;
mod export;
mod files;
mod flaws;
#[cfg(feature = "fuzzing")]
pub mod fuzz;
mod head;
mod key;
mod lock;
mod log;
mod read;
mod recover;
mod replace;
mod settings;
mod shown;
mod time;
mod verify;

pub use checkpoint::CHECKPOINT_AFTER;
pub use entry::{Entry, LINE_MAX};
pub use events::AuditEvent;
pub use export::{Filter, rfc5424};
pub use flaws::{Flaw, Flaws};
pub use head::{Head, RememberedHead};
pub use key::{AuditKey, KeyError, PUBLIC_FILE, PublicKey};
pub use lock::DirectoryLock;
pub use log::{Log, LogError};
pub use read::{Follower, each};
pub use recover::RecoveryReport;
pub use settings::{Limits, Settings, WhenFull};
pub use shown::shown;
pub use time::ClockReading;
pub use verify::{Summary, verify, verify_at};
