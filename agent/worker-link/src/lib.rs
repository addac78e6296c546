//! What the agent and its workers say to each other. Without I/O.
//!
//! A worker is started in a [`Role`]. Those that live on have a channel to the agent: what is said there is in [`clipboard`] and in [`usb`].
//!
//! That of [`Role::Picture`] lives for one picture. It is handed two files in memory: the job's, which nobody can change any more, and the answer's, which
//! has its full length from the beginning and keeps it. Nothing else is said: the worker's end is the end of the answer, which the agent reads only then.
//!
//! | file | offset | bytes | what |
//! | --- | --- | --- | --- |
//! | job | 0 | 8 | [`JOB_MAGIC`] |
//! | | 8 | 4 | what the picture is declared to be: [`Kind`] |
//! | | 12 | 4 | zero |
//! | | 16 | 8 | most bytes of the answer's picture |
//! | | 24 | to the end | the picture as it was copied |
//! | answer | 0 | 8 | [`ANSWER_MAGIC`], written last |
//! | | 8 | 4 | 0, or why not: [`Refused`] |
//! | | 12 | 4 | [`TURNED`] and [`MADE_OPAQUE`] |
//! | | 16 | 4 | of how many pages it is the first; 0 for one |
//! | | 20 | 4 | zero |
//! | | 24 | 8 | bytes of the PNG that follows; 0 if there is none |
//! | | 32 | | the PNG |
//!
//! Numbers are little-endian. Both readers are total: what is not exactly this is no job, and no answer.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod answer;
pub mod clipboard;
mod job;
mod role;
pub mod usb;

use std::time::Duration;

pub use answer::{ANSWER_HEADER, ANSWER_MAGIC, Answer, MADE_OPAQUE, Refused, TURNED};
pub use job::{JOB_HEADER, JOB_MAGIC, Job, Kind};
pub use role::{ENVIRONMENT, Role, USER_FIRST, user_of_domain};

/// User and group of the workers that see no guest. Those of a domain have numbers below ([`user_of_domain`]); domains' VMMs have those from 64000 on (`domains::spec`).
pub const USER: u32 = 63_999;
/// The account that keeps [`USER`] from anybody else; the package makes it.
pub const USER_NAME: &str = "bulkhead-worker";
/// Address space, in bytes: the decoded picture (320 MiB), which the decoder of TIFF holds twice, the picture as it was copied and twice as it will be
/// (three times 32 MiB), and the program.
pub const MEMORY_MAX: u64 = 1 << 30;
/// How long a picture may take to be decoded, by the agent's clock and in the worker's processor time: several times what the largest one takes.
pub const TIME_MAX: Duration = Duration::from_secs(20);

/// Most bytes of a picture, before and after: the largest screenshot as an uncompressed picture (3840 x 2160 pixels of 3 bytes) fits.
pub const CONTENT_MAX: u32 = 32 << 20;
/// The worker's exit status for what is no job of this version's: agent and worker do not belong together.
pub const NO_JOB: u8 = 3;
/// Most pixels of a picture that crosses: an 8K screen and some.
pub const PIXELS_MAX: u64 = 40_000_000;
/// Longest side, in pixels.
pub const SIDE_MAX: u32 = 16_384;

/// Most bytes of a message between the agent and a worker that lives on.
pub const MESSAGE_MAX: usize = 64 << 10;
/// Most descriptors that come with a message of the agent's.
pub const FILES_MAX: usize = 2;

/// What is not a message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no message of this version's: {0}")]
pub struct Malformed(&'static str);

impl Malformed {
    /// Makes one that says what is wrong with it.
    #[must_use]
    pub const fn new(why: &'static str) -> Self {
        Self(why)
    }
}

/// Splits `N` bytes off the front.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(Malformed("it ends early"))?;
    *bytes = rest;
    Ok(*taken)
}

fn number(bytes: &mut &[u8]) -> Result<u32, Malformed> {
    take(bytes).map(u32::from_le_bytes)
}

fn length(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    take(bytes).map(u64::from_le_bytes)
}

/// Reads any bytes as a job and as an answer, for agent/fuzz: what is read is written as it was.
#[cfg(any(test, feature = "fuzzing"))]
pub fn fuzz(input: &[u8]) {
    if let Ok((job, picture)) = Job::read(input) {
        assert_eq!([&job.header()[..], picture].concat(), input, "a job is read as it is written");
    }
    if let Some(header) = input.first_chunk::<ANSWER_HEADER>()
        && let Ok(answer) = Answer::read(header, u64::from(CONTENT_MAX))
    {
        assert_eq!(answer.header(), *header, "an answer is read as it is written");
    }
}

#[cfg(test)]
mod tests;
