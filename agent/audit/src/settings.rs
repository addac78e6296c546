//! Which log is opened, and how much of it is kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint;
use crate::time::ClockReading;

/// What happens when the log has reached its size and nothing in it is old enough to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Appending fails, and with it every flow: no evidence is lost.
    Stop,
    /// The oldest file goes, which is recorded: flows go on.
    DropOldest,
}

/// The bounds of an audit log: how much is kept and for how long, what happens when it is full, and how often it is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file, about.
    pub file_bytes: u64,
    /// Bytes of the whole log.
    pub total_bytes: u64,
    /// How long an entry is kept even though room is short.
    pub keep_for: Duration,
    /// Which of the two wins.
    pub when_full: WhenFull,
    /// Entries from one checkpoint to the next.
    pub checkpoint_every: u64,
}

impl Default for Limits {
    /// Returns two years and a month, 8 GiB; full, flows stop.
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            total_bytes: 8 << 30,
            keep_for: Duration::from_secs(761 * 86_400),
            when_full: WhenFull::Stop,
            checkpoint_every: checkpoint::EVERY,
        }
    }
}

/// Which log is opened, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its directory, which is made if need be.
    pub dir: PathBuf,
    /// How much is kept.
    pub limits: Limits,
    /// Which boot of the PC this is.
    pub boot: String,
    /// Files outside the directory in which how far the log went is remembered.
    pub remembered_in: Vec<PathBuf>,
    /// A group of the host that may read the log.
    pub readers: Option<u32>,
    /// Reads the wall clock and the time since start, at one moment.
    pub clock: fn() -> ClockReading,
}

impl Settings {
    /// Makes the settings of a log that is remembered nowhere else and that root alone may read.
    #[must_use]
    pub fn new(dir: &Path, limits: Limits, boot: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            limits,
            boot: boot.to_owned(),
            remembered_in: Vec::new(),
            readers: None,
            clock: ClockReading::now,
        }
    }

    /// Returns the rights of a file or directory of the log: these, or less where nobody but root may read it.
    pub(crate) fn mode(&self, bits: u32) -> u32 {
        if self.readers.is_some() { bits } else { bits & 0o700 }
    }
}
