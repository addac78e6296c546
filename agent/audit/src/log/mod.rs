//! Writing: one line an event, on the disk before it is told to have been written.

mod batch;
mod room;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use printable::explain;

use crate::checkpoint::CHECKPOINT_AFTER;
use crate::entry::{Hash, LINE_MAX};
use crate::events::{
    AuditEvent, ChainBroken, LogClosed, LogOpened, StateWentBack, TornTailRepaired,
};
use crate::files;
use crate::head::{Head, RememberedHead};
use crate::key::{AuditKey, PUBLIC_FILE};
use crate::lock::WriterLock;
use crate::recover::{LogEnd, RecoveryReport, first_hash};
use crate::replace::replace;
use crate::settings::{Limits, Settings};
use crate::time::{Clock, Micros, Stamp, Step};
use batch::Batch;

/// The format written: entries with two times, and checkpoints at the beginning and the end of each run.
const FORMAT: u64 = 2;

/// Why nothing was recorded. What the event would have permitted must not happen.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system did not take the entry.
    #[error("cannot write the audit log {}: check that its disk has room and is not read-only", path.display())]
    Write {
        /// The file that failed.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It failed before, for this reason.
    #[error("{0}; it is tried again when the log is opened anew")]
    Failed(String),
    /// Another writer has it open: two would fork the chain for good.
    #[error("another bulkhead-agent writes the audit log {}: stop it first, or give this one a --state of its own", .0.display())]
    InUse(PathBuf),
    /// The log has reached its own limit, in bytes.
    #[error(
        "the audit log has reached its {0} bytes and nothing in it is old enough to go: raise the limit, move old files to the archive, or let the oldest be dropped"
    )]
    Full(u64),
    /// A line that is too long.
    #[error("an event of kind {0} is longer than {LINE_MAX} bytes")]
    TooLong(&'static str),
}

/// A log that is open for writing. There is one writer at a time: it holds a lock beside the directory.
#[derive(Debug)]
pub struct Log {
    settings: Settings,
    key: AuditKey,
    /// Held for as long as the log is open; nothing reads it.
    _lock: WriterLock,
    file: Option<File>,
    /// Bytes of the file that is written to, and of the others.
    bytes: u64,
    others: u64,
    /// The number of the last entry; 0 in an empty log.
    seq: u64,
    hash: Hash,
    /// The hash of entry 1, if it is known.
    begins: Option<Hash>,
    clock: Clock,
    /// Entries since the last checkpoint, and the highest time seen at the first of them.
    unsigned: u64,
    unsigned_from: Option<Micros>,
    failed: Option<String>,
    forgotten: Option<String>,
}

impl Log {
    /// Opens the log in `dir` as [`Settings::new`] has it.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(
        dir: &Path,
        key: AuditKey,
        limits: Limits,
        boot: &str,
    ) -> Result<(Self, RecoveryReport), LogError> {
        Self::open_with(Settings::new(dir, limits, boot), key)
    }

    /// Opens a log, repairs its end, and signs that it was opened.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open_with(
        settings: Settings,
        key: AuditKey,
    ) -> Result<(Self, RecoveryReport), LogError> {
        let dir = &settings.dir;
        let failed = |source| LogError::Write { path: dir.clone(), source };
        let mode = settings.mode(0o750);
        fs::DirBuilder::new().recursive(true).mode(mode).create(dir).map_err(failed)?;
        let lock =
            WriterLock::take(dir).map_err(failed)?.ok_or_else(|| LogError::InUse(dir.clone()))?;
        if settings.readers.is_some() {
            let share = |directory: File| {
                fchown(&directory, None, settings.readers)?;
                directory.set_permissions(Permissions::from_mode(mode))
            };
            fileopen::directory(dir).and_then(share).map_err(failed)?;
        }
        let public = format!("{}\n", key.public().text());
        replace(&dir.join(PUBLIC_FILE), &public, 0o644).map_err(failed)?;
        let mut remembered: Vec<RememberedHead> =
            settings.remembered_in.iter().filter_map(|path| RememberedHead::read(path)).collect();
        remembered.retain(|one| one.is_about(dir));
        let mut end = LogEnd::find(dir).map_err(failed)?;
        end.compare(dir, &remembered, &key.public()).map_err(failed)?;
        let known = || remembered.iter().find_map(|one| one.begins);
        let begins = first_hash(dir).or_else(known);
        let now = (settings.clock)();
        let (clock, stamp, step) = Clock::start(end.highest, end.wall, now);
        let mut log = Self {
            key,
            _lock: lock,
            file: None,
            bytes: 0,
            others: end.bytes,
            seq: end.seq,
            hash: end.hash,
            begins,
            clock,
            unsigned: 0,
            unsigned_from: None,
            failed: None,
            forgotten: None,
            settings,
        };
        // From here on a log without a head is one whose head was taken away.
        if Head::read(&log.settings.dir).is_none() {
            log.write_head()
                .map_err(|source| LogError::Write { path: log.settings.dir.clone(), source })?;
        }
        log.note_opening(&end.found, Batch::new(&log, clock, stamp, step))?;
        Ok((log, end.found))
    }

    /// Records all that was found, in one piece and signed.
    fn note_opening(&mut self, found: &RecoveryReport, mut batch: Batch) -> Result<(), LogError> {
        let unsigned = Some(found.unsigned).filter(|unsigned| *unsigned > 0);
        batch.push(&LogOpened { format: FORMAT, unsigned }.into())?;
        if let Some(bytes) = found.torn {
            batch.push(&TornTailRepaired { bytes }.into())?;
        }
        if let Some(what) = &found.broken {
            batch.push(&ChainBroken { what: what.clone() }.into())?;
        }
        if let Some(what) = &found.went_back {
            batch.push(&StateWentBack { what: what.clone() }.into())?;
        }
        batch.sign(&self.key);
        // Somebody who opens a full log again and again adds nothing to it.
        self.to_drop(batch.text.len())?;
        self.commit(batch)
    }

    /// Records events, all of them or none that anybody was told of. When this returns they are on the disk.
    ///
    /// # Errors
    /// They are not, and what they would have permitted must not happen.
    pub fn append(&mut self, events: &[AuditEvent]) -> Result<RangeInclusive<u64>, LogError> {
        self.check()?;
        let mut batch = self.batch();
        let first = batch.seq + 1;
        for event in events {
            batch.push(event)?;
        }
        let last = batch.seq;
        if batch.unsigned >= self.settings.limits.checkpoint_every
            || batch.unsigned_for() >= CHECKPOINT_AFTER
        {
            batch.sign(&self.key);
        }
        let before = self.seq;
        self.make_room(batch.text.len())?;
        // Making room records what was dropped, which comes before.
        if self.seq != before {
            return self.append(events);
        }
        self.commit(batch)?;
        if self.bytes >= self.settings.limits.file_bytes {
            // These are on the disk, whether or not the checkpoint after them is: the next are refused for that.
            let _ = self.close_file();
        }
        Ok(first..=last)
    }

    /// Returns the head of the log, which is its last entry, to be kept off the PC.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Returns the highest time seen: by it, and not by a wall clock that may have been set back, age is judged.
    #[must_use]
    pub fn highest_time(&self) -> SystemTime {
        self.clock.highest((self.settings.clock)()).system()
    }

    /// Returns in what time [`Log::sign_if_due`] has something to do; `None` while everything is signed.
    #[must_use]
    pub fn checkpoint_in(&self) -> Option<Duration> {
        let from = self.unsigned_from.filter(|_| self.failed.is_none())?;
        let unsigned_for = self.clock.passed((self.settings.clock)()).after(from);
        Some(CHECKPOINT_AFTER.saturating_sub(unsigned_for))
    }

    /// Signs what has been without a signature for [`CHECKPOINT_AFTER`].
    ///
    /// # Errors
    /// It could not be written.
    pub fn sign_if_due(&mut self) -> Result<(), LogError> {
        if self.checkpoint_in() != Some(Duration::ZERO) {
            return Ok(());
        }
        self.check()?;
        let mut batch = self.batch();
        batch.sign(&self.key);
        self.commit(batch)
    }

    /// Writes down and signs at once that the wall clock was set, if it was: until then what is not signed would be dated by a clock that is no more.
    ///
    /// # Errors
    /// It could not be written.
    pub fn note_step(&mut self) -> Result<bool, LogError> {
        if self.failed.is_some() {
            return Ok(false);
        }
        let mut batch = self.batch();
        if batch.text.is_empty() {
            return Ok(false);
        }
        batch.sign(&self.key);
        self.commit(batch)?;
        Ok(true)
    }

    /// Returns why it could not be remembered outside the log's directory how far the log goes.
    #[must_use]
    pub fn forgotten(&self) -> Option<&str> {
        self.forgotten.as_deref()
    }

    /// Ends the log: an entry says so, and a checkpoint signs it.
    ///
    /// # Errors
    /// It could not be written.
    pub fn close(mut self) -> Result<Head, LogError> {
        self.check()?;
        let mut batch = self.batch();
        batch.push(&LogClosed {}.into())?;
        batch.sign(&self.key);
        self.commit(batch)?;
        Ok(self.head())
    }

    fn check(&self) -> Result<(), LogError> {
        self.failed.as_ref().map_or(Ok(()), |why| Err(LogError::Failed(why.clone())))
    }

    fn read_clock(&self) -> (Clock, (Stamp, Option<Step>)) {
        let mut clock = self.clock;
        let stamped = clock.stamp((self.settings.clock)());
        (clock, stamped)
    }

    fn batch(&self) -> Batch {
        let (clock, (stamp, step)) = self.read_clock();
        Batch::new(self, clock, stamp, step)
    }

    /// Signs what there is; the next entry goes to a new file.
    fn close_file(&mut self) -> Result<(), LogError> {
        if self.unsigned > 0 {
            let mut batch = self.batch();
            batch.sign(&self.key);
            self.commit(batch)?;
        }
        self.file = None;
        self.others += std::mem::take(&mut self.bytes);
        Ok(())
    }

    fn commit(&mut self, batch: Batch) -> Result<(), LogError> {
        self.write(&batch.text)?;
        (self.seq, self.hash, self.clock) = (batch.seq, batch.hash, batch.clock);
        (self.unsigned, self.unsigned_from) = (batch.unsigned, batch.unsigned_from);
        if self.unsigned == 0 {
            self.remember(batch.stamp.highest);
        }
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> Result<(), LogError> {
        let path = files::path(&self.settings.dir, self.seq + 1);
        let (mode, readers) = (self.settings.mode(0o640), self.settings.readers);
        let mut write = || -> io::Result<File> {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => {
                    let mut options = OpenOptions::new();
                    let file = options.append(true).create_new(true).mode(mode).open(&path)?;
                    if readers.is_some() {
                        fchown(&file, None, readers)?;
                        file.set_permissions(Permissions::from_mode(mode))?;
                    }
                    files::sync(&self.settings.dir)?;
                    file
                }
            };
            file.write_all(text)?;
            file.sync_data()?;
            Ok(file)
        };
        match write() {
            Ok(file) => {
                self.file = Some(file);
                self.bytes += u64::try_from(text.len()).unwrap_or(0);
                Ok(())
            }
            Err(source) => {
                let error = LogError::Write { path: self.settings.dir.clone(), source };
                self.failed = Some(explain(&error));
                Err(error)
            }
        }
    }

    /// Writes further witnesses of how far the log went. The chain does not depend on them.
    fn remember(&mut self, highest: Micros) {
        let beside = self.write_head().map_err(|error| format!("the log's head: {error}"));
        self.begins = self.begins.or_else(|| first_hash(&self.settings.dir));
        let this = RememberedHead {
            head: self.head(),
            highest,
            key: Some(self.key.public()),
            log: self.settings.dir.clone(),
            begins: self.begins,
        };
        let elsewhere =
            self.settings.remembered_in.iter().map(|path| {
                this.write(path).map_err(|error| format!("{}: {error}", path.display()))
            });
        self.forgotten = std::iter::once(beside).chain(elsewhere).find_map(Result::err);
    }

    fn write_head(&self) -> io::Result<()> {
        // Beside entries whose readers were chosen, it tells no more than they do.
        self.head().write(&self.settings.dir, 0o644)
    }

    /// Returns what a batch goes on from: the last entry's number and hash, how many entries no checkpoint signs, and the highest time seen at
    /// the first of them.
    pub(crate) fn position(&self) -> (u64, Hash, u64, Option<Micros>) {
        (self.seq, self.hash, self.unsigned, self.unsigned_from)
    }

    pub(crate) fn boot(&self) -> &str {
        &self.settings.boot
    }
}
