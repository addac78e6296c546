//! What is plain to see while a log is read, without a key: that it does not hold. [`crate::verify()`] looks at more.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::entry::{Entry, Hash};
use crate::events::{AuditEvent, ChainBroken, OldestDropped, StateWentBack};
use crate::head::Head;

/// Places that are named; the rest are counted.
const NAMED_MAX: usize = 10;

/// A place where a log does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Which file; the directory if a whole file is missing.
    pub file: PathBuf,
    /// Which line of it, from 1; 0 if it is not about a line.
    pub line: u64,
    /// Which entry it is, or would have to be.
    pub seq: u64,
    /// What is wrong, in words.
    pub what: String,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ", entry {}: {}", self.seq, self.what)
    }
}

pub(crate) fn missing(first: u64, last: u64) -> String {
    if first == last {
        format!("entry {first} is missing")
    } else {
        format!("entries {first} to {last} are missing")
    }
}

/// Returns what the agent found wrong when it opened the log, which an entry says. It may not show any more: a tail that was cut off, and
/// written over since.
pub(crate) fn found_then(entry: &Entry) -> Option<String> {
    let what = || match AuditEvent::read(entry) {
        Some(
            AuditEvent::ChainBroken(ChainBroken { what })
            | AuditEvent::StateWentBack(StateWentBack { what }),
        ) => what,
        _ => "unknown".to_owned(),
    };
    match entry.kind.as_str() {
        ChainBroken::KIND => {
            Some(format!("the log was found broken when it was opened here: {}", what()))
        }
        StateWentBack::KIND => Some(format!(
            "when the log was opened here, the agent remembered a later one: {}",
            what()
        )),
        _ => None,
    }
}

/// Places where a log does not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// The first of them, in the order of the log.
    pub named: Vec<Flaw>,
    /// How many more there are.
    pub more: u64,
}

/// Holds each line against what came before it.
#[derive(Debug)]
pub(crate) struct Watch {
    dir: PathBuf,
    /// The writer's own, as it was before anything was read.
    head: Option<Head>,
    /// Where the log begins: above 1, an entry has to say why.
    began: u64,
    /// The last entry that was dropped for room, as far as the log says.
    dropped: u64,
    /// What the next entry's number has to be, and the hash of the one before it, if that is known.
    next: u64,
    hash: Option<Hash>,
    highest: u64,
    format_2: bool,
    found: Flaws,
}

impl Watch {
    /// Begins to watch a log whose first file begins with this entry.
    pub(crate) fn new(dir: &Path, head: Option<Head>, first: u64) -> Self {
        Self {
            dir: dir.to_owned(),
            head,
            began: first,
            dropped: 0,
            next: first,
            hash: None,
            highest: 0,
            format_2: false,
            found: Flaws::default(),
        }
    }

    /// Goes on with the next file, which begins with this entry. `oldest`: it is the first one now, so that what was before it went
    /// meanwhile.
    pub(crate) fn next_file(&mut self, first: u64, oldest: bool) {
        if first == self.next {
            return;
        }
        if oldest && first > self.next {
            self.began = first;
        } else if first > self.next {
            self.of_log(self.next, missing(self.next, first - 1));
        } else {
            self.of_log(first, "entries of this number were there already".to_owned());
        }
        (self.next, self.hash) = (first, None);
    }

    /// Examines a line that can be read.
    pub(crate) fn entry(&mut self, file: &Path, number: u64, line: &[u8], entry: &Entry) {
        if let Some(what) = self.wrong_with(line, entry) {
            self.of_line(file, number, &what);
        }
        if let Some(AuditEvent::OldestDropped(OldestDropped { last, .. })) = AuditEvent::read(entry)
        {
            self.dropped = self.dropped.max(last);
        }
        self.format_2 |= entry.monotonic_us.is_some();
        self.highest = self.highest.max(entry.seq);
        (self.next, self.hash) = (entry.seq.saturating_add(1), entry.hash());
    }

    fn wrong_with(&self, line: &[u8], entry: &Entry) -> Option<String> {
        let expected = self.next;
        if !entry.hash_holds(line) {
            return Some("the entry was changed: its hash is another".to_owned());
        }
        if entry.seq > expected {
            return Some(missing(expected, entry.seq - 1));
        }
        if entry.seq < expected {
            return Some(format!("entry {} stands in the place of this one", entry.seq));
        }
        if expected == 1 && entry.prev() != Some(Hash::default()) {
            return Some("the first entry refers to one before it".to_owned());
        }
        if self.hash.is_some() && entry.prev() != self.hash {
            let what = "it does not follow the entry before it: one of the two was replaced";
            return Some(what.to_owned());
        }
        if self.head.is_some_and(|head| head.seq == entry.seq && entry.hash() != Some(head.hash)) {
            let what = "another entry of this number was here when the head was taken";
            return Some(what.to_owned());
        }
        found_then(entry)
    }

    /// Notes a flaw of a line, or with number 0 of a file.
    pub(crate) fn of_line(&mut self, file: &Path, line: u64, what: &str) {
        let (file, seq) = (file.to_owned(), self.next);
        self.note(Flaw { file, line, seq, what: what.to_owned() });
    }

    fn of_log(&mut self, seq: u64, what: String) {
        self.note(Flaw { file: self.dir.clone(), line: 0, seq, what });
    }

    fn note(&mut self, place: Flaw) {
        if self.found.named.len() < NAMED_MAX {
            self.found.named.push(place);
        } else {
            self.found.more = self.found.more.saturating_add(1);
        }
    }

    /// Returns whether what was dropped before its first entry is recorded.
    pub(crate) fn begins_well(&self) -> bool {
        self.dropped >= self.began.saturating_sub(1)
    }

    /// Examines the end, once the log was read as far as it goes.
    pub(crate) fn end(&mut self) {
        if !self.begins_well() {
            let what = missing(1, self.began.saturating_sub(1));
            self.of_log(1, format!("{what}, and no entry says that they were dropped"));
        }
        let after = self.highest.saturating_add(1);
        match self.head {
            Some(head) if head.seq > self.highest => {
                let what = format!("the end is missing: the log went on to entry {}", head.seq);
                self.of_log(after, what);
            }
            None if self.format_2 => {
                let what = "the file `head` beside the log is gone: what came after may have been cut off; if this is a copy, copy the whole folder, `head` included";
                self.of_log(after, what.to_owned());
            }
            _ => {}
        }
    }

    pub(crate) fn take(&mut self) -> Option<Flaws> {
        let found = std::mem::take(&mut self.found);
        (!found.named.is_empty()).then_some(found)
    }
}
