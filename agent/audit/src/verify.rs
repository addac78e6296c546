//! Whether a log is whole, in constant memory; if not, the first place where it is not.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::Value;

use crate::entry::{Entry, Hash};
use crate::files;
use crate::key::PublicKey;
use crate::read::{Line, Reader};

/// How a head is written.
const HEAD: &str = "bulkhead-audit-head";
const HEAD_FILE: &str = "head";

/// How far a log went: kept off the PC, it shows that the tail was not cut off since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last entry.
    pub seq: u64,
    pub(crate) hash: Hash,
}

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEAD}:{}:{}", self.seq, self.hash)
    }
}

impl FromStr for Head {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<&str> = text.trim().split(':').collect();
        let head = match parts.as_slice() {
            [HEAD, seq, hash] => seq.parse().ok().zip(hash.parse().ok()),
            _ => None,
        };
        let (seq, hash) =
            head.ok_or("this is no head of an audit log; copy the whole line that `bulkhead audit verify` printed")?;
        Ok(Self { seq, hash })
    }
}

impl Head {
    /// The head that the writer left at the last checkpoint.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        fs::read_to_string(dir.join(HEAD_FILE)).ok()?.parse().ok()
    }

    pub(crate) fn write(&self, dir: &Path) -> io::Result<()> {
        let fresh = dir.join("head.new");
        fs::write(&fresh, format!("{self}\n"))?;
        fs::rename(fresh, dir.join(HEAD_FILE))
    }
}

/// A log that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Entries in it.
    pub entries: u64,
    /// Seq of the first; above 1 if older ones were dropped, which is recorded.
    pub first: u64,
    /// Checkpoints whose signature holds.
    pub checkpoints: u64,
    /// Entries behind the last checkpoint, which no signature covers yet.
    pub unsigned: u64,
    /// How far it goes.
    pub head: Head,
}

/// The first place where a log does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// Which file; the directory if a whole file is missing.
    pub file: PathBuf,
    /// Which line of it, from 1; 0 if it is not about a line.
    pub line: u64,
    /// Which entry it is, or would have to be.
    pub seq: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ", entry {}: {}", self.seq, self.what)
    }
}

struct Walk<'a> {
    key: Option<&'a PublicKey>,
    heads: Vec<Head>,
    first: Option<(u64, Hash)>,
    seq: u64,
    hash: Hash,
    entries: u64,
    checkpoints: u64,
    unsigned: u64,
    /// That what is before the first entry was dropped, and is recorded.
    dropped: bool,
}

/// Looks at every byte of a log. With `key`, checkpoints' signatures too; `heads` are those that were kept off the PC, the writer's
/// own is looked at by itself.
///
/// # Errors
/// A file cannot be read. That the log does not hold is no error of this kind.
pub fn verify(
    dir: &Path,
    key: Option<&PublicKey>,
    heads: &[Head],
) -> io::Result<Result<Summary, Break>> {
    let mut walk = Walk {
        key,
        heads: heads.iter().copied().chain(Head::read(dir)).collect(),
        first: None,
        seq: 0,
        hash: Hash::default(),
        entries: 0,
        checkpoints: 0,
        unsigned: 0,
        dropped: false,
    };
    for file in files::list(dir)? {
        let at = |line, seq, what: String| Break { file: file.path.clone(), line, seq, what };
        if walk.first.is_some() && file.first != walk.seq + 1 {
            let what = if file.first > walk.seq + 1 {
                format!("entries {} to {} are missing", walk.seq + 1, file.first - 1)
            } else {
                "entries of this number were there already".to_owned()
            };
            return Ok(Err(Break { file: dir.to_owned(), line: 0, seq: walk.seq + 1, what }));
        }
        let mut reader = Reader::open(&file.path)?;
        let mut number = 0;
        while let Some(line) = reader.line()? {
            number += 1;
            let expected = if walk.first.is_some() { walk.seq + 1 } else { file.first };
            let Line::Whole(line) = line else {
                return Ok(Err(at(number, expected, "the line is cut off".to_owned())));
            };
            if let Err(what) = walk.step(&line, expected) {
                return Ok(Err(at(number, expected, what)));
            }
        }
        if number == 0 {
            return Ok(Err(at(0, file.first, "the file is empty".to_owned())));
        }
    }
    Ok(walk.end(dir))
}

impl Walk<'_> {
    fn step(&mut self, line: &[u8], expected: u64) -> Result<(), String> {
        let entry = Entry::parse(line).ok_or("this is no entry of an audit log")?;
        if !entry.hash_holds(line) {
            return Err("the entry was changed: its hash is another".to_owned());
        }
        let (Some(prev), Some(hash)) = (entry.prev(), entry.hash()) else {
            return Err("this is no entry of an audit log".to_owned());
        };
        if entry.seq > expected {
            return Err(format!("entries {expected} to {} are missing", entry.seq - 1));
        }
        if entry.seq < expected {
            return Err(format!("entry {} stands in the place of this one", entry.seq));
        }
        match self.first {
            None if expected == 1 && prev != Hash::default() => {
                return Err("the first entry refers to one before it".to_owned());
            }
            None => self.first = Some((entry.seq, prev)),
            Some(_) if prev != self.hash => {
                return Err("it does not follow the entry before it: one of the two was replaced"
                    .to_owned());
            }
            Some(_) => {}
        }
        self.unsigned += 1;
        match entry.kind.as_str() {
            "checkpoint" => {
                let signature = entry.detail.get("signature").and_then(Value::as_str);
                let signature = signature.unwrap_or_default();
                if self.key.is_some_and(|key| !key.verifies(entry.seq, prev, signature)) {
                    return Err("the checkpoint's signature is not this PC's".to_owned());
                }
                self.checkpoints += 1;
                self.unsigned = 0;
            }
            // What was wrong then may not show any more: a tail that was cut off, and written over since.
            "chain-broken" => {
                let what = entry.detail.get("what").and_then(Value::as_str).unwrap_or("unknown");
                return Err(format!("the log was found broken when it was opened here: {what}"));
            }
            "oldest-dropped" => {
                let (first, before) = self.first.unwrap_or_default();
                let last = entry.detail.get("last").and_then(Value::as_u64);
                let hash = entry.detail.get("last_hash").and_then(Value::as_str);
                self.dropped |= last == first.checked_sub(1) && hash == Some(&before.to_string());
            }
            _ => {}
        }
        if self.heads.iter().any(|head| head.seq == entry.seq && head.hash != hash) {
            return Err("another entry of this number was here when the head was taken".to_owned());
        }
        (self.seq, self.hash) = (entry.seq, hash);
        self.entries += 1;
        Ok(())
    }

    fn end(self, dir: &Path) -> Result<Summary, Break> {
        let at = |seq, what| Break { file: dir.to_owned(), line: 0, seq, what };
        let (first, _) = self.first.unwrap_or((1, Hash::default()));
        if first > 1 && !self.dropped {
            let what = format!(
                "entries 1 to {} are missing, and no entry says that they were dropped",
                first - 1
            );
            return Err(at(1, what));
        }
        if let Some(head) = self.heads.iter().find(|head| head.seq > self.seq) {
            let what = format!("the end is missing: the log went on to entry {}", head.seq);
            return Err(at(self.seq + 1, what));
        }
        Ok(Summary {
            entries: self.entries,
            first,
            checkpoints: self.checkpoints,
            unsigned: self.unsigned,
            head: Head { seq: self.seq, hash: self.hash },
        })
    }
}
