//! How far a log went: written beside the log at each checkpoint, remembered elsewhere on the PC, and printed to be kept off it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::entry::Hash;
use crate::key::PublicKey;
use crate::replace::replace;
use crate::time::Micros;

/// The word that a written head begins with.
const HEAD: &str = "bulkhead-audit-head";
const HEAD_FILE: &str = "head";
const HIGHEST: &str = "highest-time:";
const LOG: &str = "log:";
const BEGINS: &str = "begins:";
/// Longest file read back, in bytes: a path and four short lines.
const FILE_MAX: u64 = 8192;

/// How far a log went: kept off the PC, it shows that the tail was not cut off since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number of the last entry.
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
    /// Reads the head that the writer left in the log's directory at the last checkpoint.
    #[must_use]
    pub fn read(dir: &Path) -> Option<Self> {
        read(&dir.join(HEAD_FILE))?.parse().ok()
    }

    pub(crate) fn write(&self, dir: &Path, mode: u32) -> io::Result<()> {
        replace(&dir.join(HEAD_FILE), &format!("{self}\n"), mode)
    }
}

/// What the agent remembers of a log in a file outside the log's directory, so that it knows at the next start when the directory, or all of the
/// state, is an older one.
///
/// ```text
/// bulkhead-audit-head:4097:9f86d0...
/// highest-time:2026-11-23T15:04:05.000000Z
/// ed25519-audit:3b6a27...
/// log:/var/lib/bulkhead/audit
/// begins:2c26b4...
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RememberedHead {
    /// How far the log went.
    pub head: Head,
    pub(crate) highest: Micros,
    pub(crate) key: Option<PublicKey>,
    pub(crate) log: PathBuf,
    /// The hash of the log's entry 1, by which it is told from others; none where that was dropped before anybody wrote it down.
    pub(crate) begins: Option<Hash>,
}

impl RememberedHead {
    /// Reads a file; `None` if there is none, or something else in it.
    #[must_use]
    pub fn read(path: &Path) -> Option<Self> {
        let text = read(path)?;
        let mut lines = text.lines();
        let head = lines.next()?.parse().ok()?;
        let highest = lines.next().and_then(|line| Micros::parse(line.strip_prefix(HIGHEST)?));
        let key = lines.next().and_then(PublicKey::parse);
        let log = lines.next().and_then(|line| line.strip_prefix(LOG)).unwrap_or_default().into();
        let begins = lines.next().and_then(|line| line.strip_prefix(BEGINS)?.parse().ok());
        Some(Self { head, highest: highest.unwrap_or_default(), key, log, begins })
    }

    /// Returns whether it is of the log in this directory, and not of one that another agent of this PC, or this one before, keeps
    /// elsewhere.
    #[must_use]
    pub fn is_about(&self, dir: &Path) -> bool {
        self.log == dir
    }

    /// Returns whether it is of a log that was signed with this key, as far as it says.
    #[must_use]
    pub fn is_of(&self, key: &PublicKey) -> bool {
        self.key.is_none_or(|remembered| remembered == *key)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        let key = self.key.map(|key| key.text()).unwrap_or_default();
        // Anybody may know how far the log goes, and an auditor without root should.
        let Self { head, highest, log, begins, .. } = self;
        let mut text = format!("{head}\n{HIGHEST}{highest}\n{key}\n{LOG}{}\n", log.display());
        if let Some(begins) = begins {
            text.push_str(&format!("{BEGINS}{begins}\n"));
        }
        replace(path, &text, 0o644)
    }
}

fn read(path: &Path) -> Option<String> {
    String::from_utf8(fileopen::read(path, FILE_MAX).ok()?).ok()
}
