//! Lines that go to the disk in one write.

use std::time::Duration;

use super::{Log, LogError};
use crate::checkpoint;
use crate::entry::{Hash, LINE_MAX, line};
use crate::events::{AuditEvent, ClockStep};
use crate::key::AuditKey;
use crate::time::{Clock, Micros, Stamp, Step};

/// Lines, and how the log is once they are on the disk.
pub(crate) struct Batch {
    boot: String,
    pub(crate) clock: Clock,
    pub(crate) stamp: Stamp,
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// Entries that no checkpoint has signed, and the highest time seen at the first of them.
    pub(crate) unsigned: u64,
    pub(crate) unsigned_from: Option<Micros>,
    pub(crate) text: Vec<u8>,
}

impl Batch {
    /// Begins a batch at the end of `log`. A step of the wall clock is its first entry.
    pub(crate) fn new(log: &Log, clock: Clock, stamp: Stamp, step: Option<Step>) -> Self {
        let (seq, hash, unsigned, unsigned_from) = log.position();
        let boot = log.boot().to_owned();
        let mut this =
            Self { boot, clock, stamp, seq, hash, unsigned, unsigned_from, text: Vec::new() };
        if let Some(Step { expected }) = step {
            let seconds = stamp.wall.minus(expected) / 1_000_000;
            this.put(&ClockStep { expected: expected.to_string(), seconds }.into());
        }
        this
    }

    /// Adds an event as one line, chained to the line before.
    ///
    /// # Errors
    /// The line is longer than the log takes.
    pub(crate) fn push(&mut self, event: &AuditEvent) -> Result<(), LogError> {
        let before = self.text.len();
        self.put(event);
        if self.text.len() - before > LINE_MAX {
            return Err(LogError::TooLong(event.kind()));
        }
        Ok(())
    }

    fn put(&mut self, event: &AuditEvent) {
        let (line, hash) = line(self.seq + 1, self.stamp, &self.boot, &event.record(), self.hash);
        self.text.extend_from_slice(&line);
        (self.seq, self.hash) = (self.seq + 1, hash);
        self.unsigned += 1;
        self.unsigned_from.get_or_insert(self.stamp.highest);
    }

    /// Returns how long the oldest of its entries has been without a signature.
    pub(crate) fn unsigned_for(&self) -> Duration {
        self.unsigned_from.map(|from| self.stamp.highest.after(from)).unwrap_or_default()
    }

    /// Adds a checkpoint, which signs the chain up to here.
    pub(crate) fn sign(&mut self, key: &AuditKey) {
        let (line, hash) = checkpoint::signed(key, self.seq + 1, self.stamp, &self.boot, self.hash);
        self.text.extend_from_slice(&line);
        (self.seq, self.hash) = (self.seq + 1, hash);
        (self.unsigned, self.unsigned_from) = (0, None);
    }
}
