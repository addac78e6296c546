//! Whether a log is whole, in constant memory; if not, the first place where it is not.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::checkpoint::{self, CHECKPOINT_AFTER, EVERY};
use crate::entry::{Entry, Hash, Link};
use crate::events::{
    AuditEvent, ChainBroken, Checkpoint, ClockStep, LogClosed, LogOpened, OldestDropped,
    StateWentBack,
};
use crate::files;
use crate::flaws::{Flaw, found_then, missing};
use crate::head::Head;
use crate::key::PublicKey;
use crate::read::{Line, Reader, no_file};
use crate::time::{Micros, STEP_MIN, Stamp};

/// How much later than it should a checkpoint may come on a busy PC.
const GRACE: Duration = Duration::from_secs(15);
/// More entries without a signature than the writer ever leaves.
const UNSIGNED_MAX: u64 = 2 * EVERY;

/// What a log has in it that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many entries it has, checkpoints and clock steps included.
    pub entries: u64,
    /// Seq of the first; above 1 if older ones were dropped, which is recorded.
    pub first: u64,
    /// Checkpoints whose signature holds.
    pub checkpoints: u64,
    /// Entries behind the last checkpoint, which no signature covers yet: anybody who may write the files can have made them.
    pub unsigned: u64,
    /// Entries that were behind the last checkpoint when a log was opened anew after it had not been closed.
    pub unsigned_at_start: u64,
    /// Steps of the wall clock, each an entry of its own.
    pub clock_steps: u64,
    /// Entries of format 1, at the beginning.
    pub format_1: u64,
    /// How often the clock of those went back, which format 1 did not record.
    pub format_1_back: u64,
    /// Whether the log was closed: the agent did not run, or had no more to say.
    pub closed: bool,
    /// The number and hash of its last entry.
    pub head: Head,
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
) -> io::Result<Result<Summary, Flaw>> {
    verify_at(dir, key, heads, SystemTime::now())
}

/// Verifies as [`verify`] does, at another time than now: what is not signed is judged by how old it is.
///
/// # Errors
/// See [`verify`].
pub fn verify_at(
    dir: &Path,
    key: Option<&PublicKey>,
    heads: &[Head],
    now: SystemTime,
) -> io::Result<Result<Summary, Flaw>> {
    let of_dir = |seq, what| Ok(Err(Flaw { file: dir.to_owned(), line: 0, seq, what }));
    let beside = Head::read(dir);
    let mut walk = Walk::new(key, heads.iter().copied().chain(beside).collect());
    let files = files::list(dir)?;
    if files.is_empty() {
        return of_dir(1, files::none_of_a_log(dir)?);
    }
    for file in files {
        let at = |line, seq, what: String| Flaw { file: file.path.clone(), line, seq, what };
        if walk.first.is_some() && file.first != walk.seq + 1 {
            let what = if file.first > walk.seq + 1 {
                missing(walk.seq + 1, file.first - 1)
            } else {
                "entries of this number were there already".to_owned()
            };
            return of_dir(walk.seq + 1, what);
        }
        let mut reader = match Reader::open(&file.path) {
            Ok(reader) => reader,
            Err(error) => match no_file(&error) {
                Some(what) => return Ok(Err(at(0, file.first, what.to_string()))),
                None => return Err(error),
            },
        };
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
    Ok(walk.end(beside, Micros::of(now)).map_err(|(seq, what)| Flaw {
        file: dir.to_owned(),
        line: 0,
        seq,
        what,
    }))
}

/// Whether it is recorded that the oldest files were dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum DropEvidence {
    #[default]
    No,
    /// An entry says so; the checkpoint that the agent writes with it is yet to come.
    Claimed,
    /// An entry says so that was not signed with it: whoever took the files away can have written it.
    Unsigned,
    Yes,
}

struct Walk<'a> {
    key: Option<&'a PublicKey>,
    heads: Vec<Head>,
    first: Option<(u64, Hash)>,
    seq: u64,
    hash: Hash,
    /// The last entry's wall clock.
    wall: Micros,
    /// The last entry's highest time; none in format 1.
    highest: Option<Micros>,
    /// Wall clock less highest time since the last step or start.
    offset: Option<i64>,
    /// The last entry but checkpoints was `log-closed`.
    closing: bool,
    /// Where what no checkpoint signs begins, by the wall clock.
    unsigned_from: Option<Micros>,
    summary: Summary,
    /// How much of what is before the first entry an entry says was dropped.
    dropped: DropEvidence,
}

impl<'a> Walk<'a> {
    fn new(key: Option<&'a PublicKey>, heads: Vec<Head>) -> Self {
        let summary = Summary {
            entries: 0,
            first: 1,
            checkpoints: 0,
            unsigned: 0,
            unsigned_at_start: 0,
            clock_steps: 0,
            format_1: 0,
            format_1_back: 0,
            closed: false,
            head: Head { seq: 0, hash: Hash::default() },
        };
        Self {
            key,
            heads,
            first: None,
            seq: 0,
            hash: Hash::default(),
            wall: Micros::default(),
            highest: None,
            offset: None,
            closing: false,
            unsigned_from: None,
            summary,
            dropped: DropEvidence::No,
        }
    }

    fn step(&mut self, line: &[u8], expected: u64) -> Result<(), String> {
        let no_entry = "this is no entry of an audit log";
        let link = Link::parse(line).ok_or(no_entry)?;
        if !link.hash_holds(line) {
            return Err("the entry was changed: its hash is another".to_owned());
        }
        let (Some(prev), Some(hash), Some(wall)) =
            (link.prev(), link.hash(), Micros::parse(link.time))
        else {
            return Err(no_entry.to_owned());
        };
        if link.seq > expected {
            return Err(missing(expected, link.seq - 1));
        }
        if link.seq < expected {
            return Err(format!("entry {} stands in the place of this one", link.seq));
        }
        match self.first {
            None if expected == 1 && prev != Hash::default() => {
                return Err("the first entry refers to one before it".to_owned());
            }
            None => self.first = Some((link.seq, prev)),
            Some(_) if prev != self.hash => {
                return Err("it does not follow the entry before it: one of the two was replaced"
                    .to_owned());
            }
            Some(_) => {}
        }
        self.times(link.kind, wall, link.monotonic_us.map(Micros))?;
        self.kind(link.kind, line, prev)?;
        if self.heads.iter().any(|head| head.seq == link.seq && head.hash != hash) {
            return Err("another entry of this number was here when the head was taken".to_owned());
        }
        (self.seq, self.hash) = (link.seq, hash);
        self.summary.entries += 1;
        Ok(())
    }

    /// Checks that the times can be those of an entry that follows the one before.
    fn times(&mut self, kind: &str, wall: Micros, highest: Option<Micros>) -> Result<(), String> {
        let before = std::mem::replace(&mut self.wall, wall);
        let Some(highest) = highest else {
            if self.highest.is_some() {
                return Err("it is of format 1, and those before it are not".to_owned());
            }
            self.summary.format_1 += 1;
            self.summary.format_1_back += u64::from(wall < before);
            return Ok(());
        };
        let starts = matches!(kind, ClockStep::KIND | LogOpened::KIND);
        if self.highest.is_none() && self.summary.format_1 > 0 && !starts {
            return Err("it is of format 2, and no start of the agent is recorded".to_owned());
        }
        if let Some(last) = self.highest.filter(|last| highest < *last) {
            return Err(format!(
                "its time that never goes back is {highest}, and the entry before has {last}: the times were changed"
            ));
        }
        self.highest = Some(highest);
        let Stamp { wall, highest } = Stamp { wall, highest };
        let offset = wall.minus(highest);
        let tolerance = u64::try_from(STEP_MIN.as_micros()).unwrap_or(u64::MAX);
        let set = match (kind, self.offset) {
            (ClockStep::KIND, _) => {
                self.summary.clock_steps += 1;
                false
            }
            (LogOpened::KIND, _) => before.after(wall) >= STEP_MIN,
            (_, Some(known)) => offset.abs_diff(known) >= tolerance,
            (_, None) => false,
        };
        if set {
            return Err(format!(
                "the wall clock goes from {before} to {wall} here, and no entry says that it was set"
            ));
        }
        if starts || self.offset.is_none() {
            self.offset = Some(offset);
        }
        Ok(())
    }

    fn kind(&mut self, kind: &str, line: &[u8], prev: Hash) -> Result<(), String> {
        let starts = matches!(kind, ClockStep::KIND | LogOpened::KIND);
        if self.summary.closed && !starts {
            return Err("the log was closed before it, and no start of the agent is recorded: it was added from outside".to_owned());
        }
        if kind != Checkpoint::KIND {
            self.unsigned_from.get_or_insert(self.wall);
            self.summary.unsigned += 1;
            self.summary.closed = false;
            self.closing = kind == LogClosed::KIND;
        }
        let entry = || Entry::parse(line).ok_or("this is no entry of an audit log");
        match kind {
            Checkpoint::KIND => {
                if !checkpoint::holds(&entry()?, prev, line, self.key) {
                    return Err("the checkpoint's signature is not this PC's".to_owned());
                }
                self.summary.checkpoints += 1;
                self.summary.unsigned = 0;
                self.summary.closed = self.closing;
                self.unsigned_from = None;
                if self.dropped == DropEvidence::Claimed {
                    self.dropped = DropEvidence::Yes;
                }
            }
            LogOpened::KIND => {
                // What the agent finds unsigned when it starts is not its own word only because it is signed from then on.
                if self.dropped == DropEvidence::Claimed {
                    self.dropped = DropEvidence::Unsigned;
                }
                if let Some(AuditEvent::LogOpened(opened)) = AuditEvent::read(&entry()?) {
                    let all = &mut self.summary.unsigned_at_start;
                    *all = all.saturating_add(opened.unsigned.unwrap_or(0));
                }
            }
            ChainBroken::KIND | StateWentBack::KIND => {
                return found_then(&entry()?).map_or(Ok(()), Err);
            }
            OldestDropped::KIND => {
                let said = match AuditEvent::read(&entry()?) {
                    Some(AuditEvent::OldestDropped(dropped)) => Some(dropped),
                    _ => None,
                };
                let (first, before) = self.first.unwrap_or_default();
                if self.dropped != DropEvidence::Yes
                    && said.is_some_and(|said| {
                        Some(said.last) == first.checked_sub(1)
                            && said.last_hash == before.to_string()
                    })
                {
                    // In format 1 it was signed some time later.
                    let format_1 = self.highest.is_none();
                    self.dropped = if format_1 { DropEvidence::Yes } else { DropEvidence::Claimed };
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn end(mut self, beside: Option<Head>, now: Micros) -> Result<Summary, (u64, String)> {
        let (first, _) = self.first.unwrap_or((1, Hash::default()));
        if first > 1 && self.dropped != DropEvidence::Yes {
            let why = match self.dropped {
                DropEvidence::No => "no entry says that they were dropped",
                _ => "the entry that says that they were dropped was not signed with it",
            };
            let what = format!("{}, and {why}", missing(1, first - 1));
            return Err((1, what));
        }
        if let Some(head) = self.heads.iter().find(|head| head.seq > self.seq) {
            let what = format!("the end is missing: the log went on to entry {}", head.seq);
            return Err((self.seq + 1, what));
        }
        if self.summary.checkpoints == 0 {
            let what =
                "no entry is signed: the checkpoints were taken out, or the log is not this PC's"
                    .to_owned();
            return Err((self.seq, what));
        }
        self.unsigned_tail(now)?;
        if beside.is_none() && self.highest.is_some() {
            let what = format!(
                "the file `head` beside the log is gone: what came after entry {} may have been cut off; if this is a copy, copy the whole folder, `head` included",
                self.seq
            );
            return Err((self.seq, what));
        }
        self.summary.first = first;
        self.summary.head = Head { seq: self.seq, hash: self.hash };
        Ok(self.summary)
    }

    /// Checks that what is behind the last checkpoint may still be without one.
    fn unsigned_tail(&self, now: Micros) -> Result<(), (u64, String)> {
        let Some(from) = self.unsigned_from else { return Ok(()) };
        let count = self.summary.unsigned;
        let first = (self.seq + 1).saturating_sub(count);
        let most = CHECKPOINT_AFTER + GRACE;
        let late = now.after(from) > most || self.wall.after(from) > most || count > UNSIGNED_MAX;
        let early = from.after(now) > most;
        if !late && !early {
            return Ok(());
        }
        let which = if count == 1 {
            format!("entry {first} is not signed")
        } else {
            format!("entries {first} to {} are not signed", self.seq)
        };
        let why = if early {
            format!("dated {from}, which is later than the clock of this PC")
        } else {
            format!("older ({from}) than a checkpoint should have been")
        };
        Err((
            first,
            format!(
                "{which} and {why}: whoever can write the files can have changed them or cut off more"
            ),
        ))
    }
}
