//! Writing: one line an event, on the disk before it is told to have been written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::entry::{self, Entry, Event, Hash, LINE_MAX};
use crate::files::{self, LogFile};
use crate::key::AuditKey;
use crate::read::{Line, Reader};
use crate::verify::Head;

/// What happens when the log has reached its size and nothing in it is old enough to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Appending fails, and with it every flow: no evidence is lost.
    Stop,
    /// The oldest file goes, which is recorded: flows go on.
    DropOldest,
}

/// How much is kept.
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
    /// Two years and a month, 8 GiB; full, flows stop.
    fn default() -> Self {
        Self {
            file_bytes: 16 << 20,
            total_bytes: 8 << 30,
            keep_for: Duration::from_secs(761 * 86_400),
            when_full: WhenFull::Stop,
            checkpoint_every: 256,
        }
    }
}

/// Why nothing was recorded. What the event would have permitted must not happen.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system.
    #[error("cannot write the audit log {}: check that its disk has room and is not read-only", path.display())]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed before.
    #[error("the audit log could not be written before: it is tried again when it is opened anew")]
    Failed,
    /// The log's own limit.
    #[error(
        "the audit log has reached its {0} bytes and nothing in it is old enough to go: raise the limit, move old files to the archive, or let the oldest be dropped"
    )]
    Full(u64),
    /// A line that is too long.
    #[error("an event of kind {0} is longer than {LINE_MAX} bytes")]
    TooLong(&'static str),
}

/// What was found and done when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Bytes of a last line that was not written whole, put aside.
    pub torn: Option<u64>,
    /// What else is wrong with the end of the log. It is kept, and the log goes on in a new file.
    pub broken: Option<String>,
}

/// A log that is open for writing. There is one writer at a time: the agent's lock sees to that.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    key: AuditKey,
    limits: Limits,
    boot: String,
    file: Option<File>,
    /// Bytes of the file that is written to, and of the others.
    bytes: u64,
    others: u64,
    /// The last entry.
    seq: u64,
    hash: Hash,
    since_checkpoint: u64,
    failed: bool,
}

impl Log {
    /// Opens the log in `dir`, which is made if need be, and repairs its end. `boot` says which boot of the PC this is.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn open(
        dir: &Path,
        key: AuditKey,
        limits: Limits,
        boot: &str,
    ) -> Result<(Self, Recovered), LogError> {
        let failed = |source| LogError::Write { path: dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let mut end = End::find(dir).map_err(failed)?;
        let head = Head::read(dir);
        if let Some(head) = head.filter(|head| head.seq > end.seq && end.broken.is_none()) {
            end.broken =
                Some(format!("it ends at entry {}, and there was an entry {}", end.seq, head.seq));
        }
        let mut log = Self {
            dir: dir.to_owned(),
            key,
            limits,
            boot: boot.to_owned(),
            file: None,
            bytes: 0,
            others: end.bytes,
            seq: end.seq,
            hash: end.hash,
            since_checkpoint: 0,
            failed: false,
        };
        let recovered = Recovered { torn: end.torn, broken: end.broken };
        if let Some(bytes) = recovered.torn {
            log.append(&[Event::new("torn-tail-repaired").with("bytes", bytes)])?;
        }
        if let Some(what) = &recovered.broken {
            log.append(&[Event::new("chain-broken").with("what", what.as_str())])?;
        }
        Ok((log, recovered))
    }

    /// Records events, all of them or none that anybody was told of. When this returns they are on the disk.
    ///
    /// # Errors
    /// They are not, and what they would have permitted must not happen.
    pub fn append(&mut self, events: &[Event]) -> Result<RangeInclusive<u64>, LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        let first = self.seq + 1;
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let (mut seq, mut hash) = (self.seq, self.hash);
        let mut text = Vec::new();
        for event in events {
            let (line, own) = entry::line(seq + 1, &time, &self.boot, event, hash);
            if line.len() > LINE_MAX {
                return Err(LogError::TooLong(event.kind));
            }
            text.extend_from_slice(&line);
            (seq, hash) = (seq + 1, own);
        }
        let last = seq;
        let mut since = self.since_checkpoint + last - self.seq;
        if since >= self.limits.checkpoint_every {
            let (line, own) = self.checkpoint(seq + 1, &time, hash);
            text.extend_from_slice(&line);
            (seq, hash, since) = (seq + 1, own, 0);
        }
        self.make_room(text.len())?;
        // Making room records what was dropped, which comes before.
        if first != self.seq + 1 {
            return self.append(events);
        }
        self.write(&text)?;
        (self.seq, self.hash, self.since_checkpoint) = (seq, hash, since);
        if since == 0 {
            self.write_head();
        }
        if self.bytes >= self.limits.file_bytes {
            self.close_file()?;
        }
        Ok(first..=last)
    }

    /// The last entry, to be kept off the PC.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { seq: self.seq, hash: self.hash }
    }

    /// Ends the log with a checkpoint.
    ///
    /// # Errors
    /// It could not be written.
    pub fn close(mut self) -> Result<Head, LogError> {
        self.close_file()?;
        Ok(self.head())
    }

    fn checkpoint(&self, seq: u64, time: &str, prev: Hash) -> (Vec<u8>, Hash) {
        let event = Event::new("checkpoint").with("signature", self.key.sign(seq, prev));
        entry::line(seq, time, &self.boot, &event, prev)
    }

    /// Signs what there is; the next entry goes to a new file.
    fn close_file(&mut self) -> Result<(), LogError> {
        if self.failed {
            return Err(LogError::Failed);
        }
        if self.since_checkpoint > 0 {
            let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
            let (line, hash) = self.checkpoint(self.seq + 1, &time, self.hash);
            self.write(&line)?;
            (self.seq, self.hash, self.since_checkpoint) = (self.seq + 1, hash, 0);
            self.write_head();
        }
        self.file = None;
        self.others += std::mem::take(&mut self.bytes);
        Ok(())
    }

    fn write(&mut self, text: &[u8]) -> Result<(), LogError> {
        let path = files::path(&self.dir, self.seq + 1);
        let mut write = || -> io::Result<File> {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => {
                    let mut options = OpenOptions::new();
                    let file = options.append(true).create_new(true).mode(0o600).open(&path)?;
                    files::sync(&self.dir)?;
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
                self.failed = true;
                Err(LogError::Write { path: self.dir.clone(), source })
            }
        }
    }

    /// A second witness of how far the log went. The chain does not depend on it.
    fn write_head(&self) {
        let _ = self.head().write(&self.dir);
    }

    /// Lets the oldest files go if they may, until `more` bytes fit.
    fn make_room(&mut self, more: usize) -> Result<(), LogError> {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        while self.others.saturating_add(self.bytes).saturating_add(more) > self.limits.total_bytes
        {
            let failed = |source| LogError::Write { path: self.dir.clone(), source };
            let files = files::list(&self.dir).map_err(failed)?;
            // The file that is written to stays.
            let [oldest, _, ..] = files.as_slice() else {
                return Err(LogError::Full(self.limits.total_bytes));
            };
            let metadata = fs::metadata(&oldest.path).map_err(failed)?;
            let age = metadata.modified().ok().and_then(|at| at.elapsed().ok());
            let young = age.unwrap_or_default() < self.limits.keep_for;
            if young && self.limits.when_full == WhenFull::Stop {
                return Err(LogError::Full(self.limits.total_bytes));
            }
            self.drop_file(oldest, metadata.len())?;
        }
        Ok(())
    }

    /// Records that a file goes, then removes it.
    fn drop_file(&mut self, file: &LogFile, bytes: u64) -> Result<(), LogError> {
        let last =
            End::of(file).map_err(|source| LogError::Write { path: file.path.clone(), source })?;
        let gone = Event::new("oldest-dropped")
            .with("first", file.first)
            .with("last", last.seq)
            .with("last_hash", last.hash.to_string());
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let (line, hash) = entry::line(self.seq + 1, &time, &self.boot, &gone, self.hash);
        self.write(&line)?;
        (self.seq, self.hash) = (self.seq + 1, hash);
        self.since_checkpoint += 1;
        fs::remove_file(&file.path)
            .and_then(|()| files::sync(&self.dir))
            .map_err(|source| LogError::Write { path: file.path.clone(), source })?;
        self.others = self.others.saturating_sub(bytes);
        Ok(())
    }
}

/// Where a log ends.
#[derive(Debug, Default)]
struct End {
    seq: u64,
    hash: Hash,
    /// Bytes of all files.
    bytes: u64,
    torn: Option<u64>,
    broken: Option<String>,
}

impl End {
    /// The end of a directory's log. A torn tail is put aside; an empty file, which a crash can leave, goes.
    fn find(dir: &Path) -> io::Result<Self> {
        let mut torn = None;
        let mut files = files::list(dir)?;
        while let Some(file) = files.last() {
            let (path, mut end) = (&file.path, Self::of(file)?);
            if let Some(bytes) = end.torn {
                put_aside(path, bytes)?;
                torn = Some(torn.unwrap_or(0) + bytes);
            }
            if end.seq == 0 && end.broken.is_none() {
                fs::remove_file(path)?;
                files::sync(dir)?;
                files.pop();
                continue;
            }
            end.torn = torn;
            for file in &files {
                end.bytes += fs::metadata(&file.path)?.len();
            }
            return Ok(end);
        }
        Ok(Self { torn, ..Self::default() })
    }

    /// The end of one file, whose entries are checked among themselves.
    fn of(file: &LogFile) -> io::Result<Self> {
        let path = &file.path;
        let mut reader = Reader::open(path)?;
        let mut end = Self::default();
        let mut number = 0;
        while let Some(line) = reader.line()? {
            number += 1;
            let Line::Whole(line) = line else {
                end.torn = Some(fs::metadata(path)?.len().saturating_sub(reader.whole));
                break;
            };
            let expected = if number == 1 { file.first } else { end.seq + 1 };
            let entry = Entry::parse(&line);
            let follows = entry.as_ref().is_some_and(|entry| {
                let chained = number == 1 || entry.prev() == Some(end.hash);
                entry.seq == expected && chained && entry.hash_holds(&line)
            });
            if !follows && end.broken.is_none() {
                end.broken = Some(format!("{} line {number} does not hold", path.display()));
            }
            // Beyond a break the lines are counted, so that no file gets a name that was used.
            end.seq = expected;
            end.hash = entry.and_then(|entry| entry.hash()).unwrap_or_default();
        }
        Ok(end)
    }
}

/// Moves the last `bytes` of a file into one beside it.
fn put_aside(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = OpenOptions::new().read(true).write(true).open(path)?;
    let whole = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(whole))?;
    let beside = (1..)
        .map(|number: u32| path.with_extension(format!("jsonl.torn-{number}")))
        .find(|beside| !beside.exists());
    if let Some(beside) = beside {
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside)?;
        io::copy(&mut (&mut file).take(bytes), &mut copy)?;
        copy.sync_all()?;
    }
    file.set_len(whole)?;
    file.sync_all()
}
