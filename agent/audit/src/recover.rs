//! What is found when a log is opened: where it ends, what of it is torn or broken, and whether it is an older one than the agent remembers.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::entry::{Entry, Hash};
use crate::events::Checkpoint;
use crate::files::{self, LogFile};
use crate::head::{Head, RememberedHead};
use crate::key::PublicKey;
use crate::read::{Line, Reader};
use crate::time::Micros;

/// What was found and done when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of a last line that was not written whole, put aside.
    pub torn: Option<u64>,
    /// What else is wrong with the end of the log. It is kept, and the log goes on in a new file.
    pub broken: Option<String>,
    /// How the log, or all of the state, is an older one than the agent remembers.
    pub went_back: Option<String>,
    /// Entries at the end that no checkpoint had signed.
    pub unsigned: u64,
}

/// The last entry of a log, and what was found before it.
#[derive(Debug, Default)]
pub(crate) struct LogEnd {
    pub(crate) seq: u64,
    pub(crate) hash: Hash,
    /// Bytes of all files.
    pub(crate) bytes: u64,
    /// The last entry's times.
    pub(crate) wall: Micros,
    pub(crate) highest: Micros,
    pub(crate) found: RecoveryReport,
}

impl LogEnd {
    /// Finds the end of a directory's log. A torn tail is put aside; an empty file, which a crash can leave, goes.
    pub(crate) fn find(dir: &Path) -> io::Result<Self> {
        let mut torn = None;
        let mut files = files::list(dir)?;
        while let Some(file) = files.last() {
            let (path, mut end) = (&file.path, Self::of(file)?);
            if let Some(bytes) = end.found.torn {
                put_aside(path, bytes)?;
                torn = Some(torn.unwrap_or(0) + bytes);
            }
            if end.seq == 0 && end.found.broken.is_none() {
                fs::remove_file(path)?;
                files::sync(dir)?;
                files.pop();
                continue;
            }
            end.found.torn = torn;
            for file in &files {
                end.bytes += fs::metadata(&file.path)?.len();
            }
            return Ok(end);
        }
        Ok(Self { found: RecoveryReport { torn, ..RecoveryReport::default() }, ..Self::default() })
    }

    /// Reads one file to its end, whose entries are checked among themselves.
    pub(crate) fn of(file: &LogFile) -> io::Result<Self> {
        let path = &file.path;
        let mut reader = Reader::open(path)?;
        let mut end = Self::default();
        let mut number = 0;
        while let Some(line) = reader.line()? {
            number += 1;
            let Line::Whole(line) = line else {
                end.found.torn = Some(fs::metadata(path)?.len().saturating_sub(reader.whole));
                break;
            };
            let expected = if number == 1 { file.first } else { end.seq + 1 };
            let entry = Entry::parse(&line);
            let follows = entry.as_ref().is_some_and(|entry| {
                let chained = number == 1 || entry.prev() == Some(end.hash);
                entry.seq == expected && chained && entry.hash_holds(&line)
            });
            if !follows && end.found.broken.is_none() {
                end.found.broken = Some(format!("{} line {number} does not hold", path.display()));
            }
            // Beyond a break the lines are counted, so that no file gets a name that was used.
            end.seq = expected;
            end.found.unsigned += 1;
            if let Some(entry) = &entry {
                end.wall = Micros::parse(&entry.time).unwrap_or(end.wall);
                end.highest = end.highest.max(Micros(entry.monotonic_us.unwrap_or(end.wall.0)));
                if follows && entry.kind == Checkpoint::KIND {
                    end.found.unsigned = 0;
                }
            }
            end.hash = entry.and_then(|entry| entry.hash()).unwrap_or_default();
        }
        Ok(end)
    }

    /// Looks for what was there once: the head beside the log, and what is remembered elsewhere.
    pub(crate) fn compare(
        &mut self,
        dir: &Path,
        remembered: &[RememberedHead],
        key: &PublicKey,
    ) -> io::Result<()> {
        if self.found.broken.is_none()
            && let Some(head) = Head::read(dir)
        {
            self.found.broken = self.lacks(dir, &head)?;
        }
        let Some(last) = remembered.iter().max_by_key(|one| one.head.seq) else { return Ok(()) };
        let mut what = Vec::from_iter(self.lacks(dir, &last.head)?);
        if !last.is_of(key) {
            what.push("the audit key is another one".to_owned());
        }
        if !what.is_empty() {
            self.found.went_back = Some(what.join(", and "));
        }
        self.highest = remembered.iter().fold(self.highest, |most, one| most.max(one.highest));
        Ok(())
    }

    /// Returns how the log is not the one that had this head.
    fn lacks(&self, dir: &Path, head: &Head) -> io::Result<Option<String>> {
        if head.seq > self.seq {
            let (now, then) = (self.seq, head.seq);
            return Ok(Some(if now == 0 {
                format!("it is empty, and there was an entry {then}")
            } else {
                format!("it ends at entry {now}, and there was an entry {then}")
            }));
        }
        let found = hash_at(dir, head.seq)?;
        Ok(found
            .filter(|hash| *hash != head.hash)
            .map(|_| format!("entry {} is another one than was there", head.seq)))
    }
}

impl RememberedHead {
    /// Returns whether it speaks of the log in a directory beside it: of one of the same name always, so that who exchanges a log, or that
    /// of a copied state directory, gains nothing; of one of another name, such as an archive, if that begins with the same entry.
    #[must_use]
    pub fn is_of_neighbour(&self, dir: &Path) -> bool {
        self.is_about(dir)
            || self.log.file_name() == dir.file_name()
            || self.begins.is_some_and(|begins| first_hash(dir) == Some(begins))
    }
}

/// Returns the hash that a log's entry 1 claims, by which the log is told from others.
pub(crate) fn first_hash(dir: &Path) -> Option<Hash> {
    hash_at(dir, 1).ok().flatten()
}

/// Returns the hash that an entry claims; `None` if it is not there, because it was dropped for room or cannot be read.
fn hash_at(dir: &Path, seq: u64) -> io::Result<Option<Hash>> {
    let files = files::list(dir)?;
    let Some(file) = files.iter().rev().find(|file| file.first <= seq) else { return Ok(None) };
    let mut reader = Reader::open(&file.path)?;
    let mut number = file.first;
    while let Some(Line::Whole(line)) = reader.line()? {
        if number == seq {
            return Ok(Entry::parse(&line).and_then(|entry| entry.hash()));
        }
        number += 1;
    }
    Ok(None)
}

/// Moves the last `bytes` of a file into one beside it.
fn put_aside(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = fileopen::regular_with(path, OpenOptions::new().read(true).write(true))?;
    let whole = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(whole))?;
    let beside = (1..)
        .map(|number: u32| path.with_extension(format!("jsonl.torn-{number}")))
        .find(|beside| !beside.exists());
    if let Some(beside) = beside {
        let mut copy = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        let copied =
            io::copy(&mut (&mut file).take(bytes), &mut copy).and_then(|_| copy.sync_all());
        if let Err(error) = copied {
            // A full disk: it is tried again, and each try would leave a file.
            let _ = fs::remove_file(&beside);
            return Err(error);
        }
    }
    file.set_len(whole)?;
    file.sync_all()
}
