//! What a VMM says on its standard error, line by line into the log. A VMM may be taken over by
//! its guest: lines are cut, counted and cleaned of anything but printable text.
//!
//! It comes by a file, not a pipe: a VMM writes to it without ever waiting for this agent, and goes on when there is none. The next agent
//! finds in it what was said meanwhile, and how a VMM ended that is nobody's child. The file is started over whenever it is longer than
//! [`FILE_MAX`]. While no agent runs, a VMM's own limits on its lines hold it small; one that was taken over may make it as long as its
//! largest disk, or fill the file system, and the next agent cuts it.
//!
//! The VMM can hold the file's lock for as long as it likes, by writes. What the event loop does with the file does not take that lock on tmpfs, ext4 and btrfs:
//!
//! | call | why nothing waits there |
//! | --- | --- |
//! | `open` | looks the path up, and neither makes nor truncates anything; the look at what it is (`fstat`) comes once, when the file is new or a VMM is taken up |
//! | `inotify_add_watch`, `read` of it | have locks of their own; the kernel joins changes that nobody has read |
//! | `pread` | takes a page at a time, which a writer keeps while it copies into that one page |
//! | `lseek` to its end | reads the length |
//! | `close` | frees nothing: the file has its name until the next start is prepared |
//!
//! `ftruncate` takes it and is made by a thread (`start_over`); so does `unlink`, which is the job's that prepares a start ([`remove`]). XFS takes it to read, too:
//! the runtime directory is not to lie there.

mod start_over;

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use ratelimit::{Rate, RateLimiter};

use super::lifecycle::Time;
pub use start_over::cut;
use start_over::{StartOver, Truncate, Unread, length};

/// Longest line kept, in bytes.
const LINE_MAX: usize = 1024;
/// Bytes read in one round of the event loop, so that one VMM cannot keep it from the others.
const READ_MAX: usize = 64 * 1024;
/// Longest file, in bytes.
const FILE_MAX: u64 = 1 << 20;
/// What of a file that an earlier agent may have read is logged again, and what of its end is searched for the last line, in bytes.
const TAIL: usize = 4096;
/// How long the log of a VMM that wrote more than is read in one round is left alone.
const PACE: Time = Time::from_millis(100);
/// How long the log of one that wrote anything is left alone: each byte of it would wake the event loop.
const SOON: Time = Time::from_millis(10);
/// How often a file is looked at that the kernel does not watch, and how often one is tried to be started over that could not be.
const UNWATCHED: Time = Time::from_secs(1);
/// Lines logged at once after silence, and in the long run.
const LINES: Rate = Rate { burst: 200, every: Time::from_millis(500) };

/// The reading end of a VMM's standard error and output.
pub struct Capture {
    file: File,
    /// How far it was read.
    at: u64,
    /// Becomes readable when the file has changed; `None` if the kernel has no more of them.
    changes: Option<Inotify>,
    lines: Lines,
    limiter: RateLimiter,
    last: Option<String>,
    /// The earliest time at which the file is looked at again.
    again: Option<Time>,
    /// The file is being emptied. What is in it is not read meanwhile.
    starting_over: Option<StartOver>,
    /// Whether it was said that the VMM holds the file.
    said_held_up: bool,
    /// The earliest time at which it is tried to be started over.
    start_over_next: Time,
    truncate: Truncate,
}

/// What was read in one round.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Complete lines that were read and may be logged.
    pub lines: Vec<String>,
    /// Lines left out since the last one logged.
    pub dropped: u64,
    /// Bytes that were passed over, as there were too many.
    pub skipped: u64,
}

impl Capture {
    /// Makes the reading end of a new file at `path`, and the end for a VMM to write to.
    ///
    /// # Errors
    /// There is one (see [`remove`]), or it cannot be made.
    pub fn create(path: &Path) -> io::Result<(Self, File)> {
        let writer = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok((Self::at(path)?, writer))
    }

    /// Has the file emptied by another function.
    #[cfg(test)]
    pub(super) fn emptied_by(mut self, truncate: Truncate) -> Self {
        self.truncate = truncate;
        self
    }

    /// Opens what a VMM of an earlier agent writes to. The last of what that agent may have read is read again.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut this = Self::at(path)?;
        this.at = length(&this.file)?.saturating_sub(TAIL as u64);
        this.lines.passing_over = this.at > 0;
        Ok(this)
    }

    fn at(path: &Path) -> io::Result<Self> {
        let file = fileopen::regular_with(path, OpenOptions::new().read(true).write(true))?;
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .and_then(|changes| changes.add_watch(path, AddWatchFlags::IN_MODIFY).map(|_| changes));
        let changes = changes
            .inspect_err(|error| {
                tracing::warn!("a VMM's log is looked at only every second: {error}")
            })
            .ok();
        let again = changes.is_none().then_some(Time::ZERO);
        let limiter = RateLimiter::new(LINES);
        Ok(Self {
            file,
            at: 0,
            changes,
            lines: Lines::default(),
            limiter,
            last: None,
            again,
            starting_over: None,
            said_held_up: false,
            start_over_next: Time::ZERO,
            truncate: |file| file.set_len(0),
        })
    }

    /// Returns what to wait for.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.changes.as_ref().filter(|_| self.again.is_none()).map(AsFd::as_fd)
    }

    /// Returns when [`Self::poll`] is next needed even though nothing came.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.again
    }

    /// Reads what the VMM wrote, as far as one round may read.
    pub fn poll(&mut self, now: Time) -> Output {
        if self.again.is_some_and(|again| now < again) {
            return Output::default();
        }
        self.look(now)
    }

    /// Reads what a VMM wrote that has ended, however short ago that was last done: nothing more comes.
    pub fn poll_rest(&mut self, now: Time) -> Output {
        self.look(now)
    }

    /// Returns whether the file is being emptied, which is then soon done: what the VMM said last may be known only after that.
    #[must_use]
    pub fn is_starting_over(&self) -> bool {
        self.starting_over.as_ref().is_some_and(|under_way| !under_way.is_held_up())
    }

    /// Returns whether the VMM keeps the file from being emptied, once each time that it does.
    pub fn is_newly_held_up(&mut self) -> bool {
        let held_up = self.starting_over.as_ref().is_some_and(StartOver::is_held_up);
        held_up && !std::mem::replace(&mut self.said_held_up, true)
    }

    fn look(&mut self, now: Time) -> Output {
        if let Some(changes) = &self.changes {
            // What changed is the one file.
            let _ = changes.read_events();
        }
        let (mut output, mut whole) = (Output::default(), VecDeque::new());
        let mut read = 0;
        if let Some(under_way) = &mut self.starting_over {
            let Some(result) = under_way.look() else {
                self.again = Some(now + if under_way.is_held_up() { PACE } else { SOON });
                return output;
            };
            (self.starting_over, self.said_held_up) = (None, false);
            match result {
                Ok(Some(Unread { bytes, skipped })) => {
                    (self.at, read) = (0, bytes.len());
                    self.lines.push(&bytes, &mut whole);
                    self.lines.passing_over |= skipped > 0;
                    output.skipped = skipped;
                }
                Ok(None) => {}
                Err(error) => {
                    self.start_over_next = now + UNWATCHED;
                    tracing::warn!("a VMM's log cannot be started over: {error}");
                }
            }
        }
        read += self.read(&mut whole, READ_MAX.saturating_sub(read));
        self.again = self.changes.is_none().then(|| now + UNWATCHED);
        if read > 0 {
            self.again = Some(now + SOON);
        }
        if read >= READ_MAX {
            self.again = Some(now + PACE);
            output.skipped += self.skip_to_end();
        }
        if self.begin_to_start_over(now) {
            self.again = Some(now + SOON);
        }
        for line in whole {
            self.last = Some(line.clone());
            if let Some(left_out) = self.limiter.admit(now) {
                output.dropped += left_out;
                output.lines.push(line);
            }
        }
        output
    }

    /// Reads this many bytes or a little more at most, and returns how many they were.
    fn read(&mut self, whole: &mut VecDeque<String>, most: usize) -> usize {
        if self.at > self.length() {
            // Somebody else started it over.
            self.at = 0;
        }
        let mut chunk = [0; 4096];
        let mut read = 0;
        while read < most {
            match self.file.read_at(&mut chunk, self.at) {
                Ok(0) => break,
                Ok(count) => {
                    read += count;
                    self.at = self.at.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
                    self.lines.push(chunk.get(..count).unwrap_or_default(), whole);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("a VMM's log cannot be read: {error}");
                    break;
                }
            }
        }
        read
    }

    /// Has a file that is too long emptied, and returns whether that is under way. Whoever appends to it goes on at its new end.
    fn begin_to_start_over(&mut self, now: Time) -> bool {
        if self.length() <= FILE_MAX || now < self.start_over_next {
            return false;
        }
        match StartOver::begin(&self.file, self.at, self.truncate) {
            Ok(under_way) => self.starting_over = Some(under_way),
            Err(error) => {
                self.start_over_next = now + UNWATCHED;
                tracing::warn!("nobody can start a VMM's log over: {error}");
            }
        }
        self.starting_over.is_some()
    }

    /// Skips to the end; returns how many bytes are not read.
    fn skip_to_end(&mut self) -> u64 {
        let end = self.length().max(self.at);
        let skipped = end - self.at;
        self.at = end;
        self.lines.passing_over |= skipped > 0;
        skipped
    }

    /// Returns how long the file is; one that does not say has nothing unread.
    fn length(&self) -> u64 {
        length(&self.file).unwrap_or(self.at)
    }

    /// Returns the last line that was written, however much was not read.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        let mut tail = Vec::new();
        let from = self.length().saturating_sub(TAIL as u64);
        let mut chunk = [0; TAIL];
        if let Ok(count) = self.file.read_at(&mut chunk, from) {
            tail.extend_from_slice(chunk.get(..count).unwrap_or_default());
        }
        let said = tail.split(|byte| *byte == b'\n').map(clean_cut).rfind(|line| !line.is_empty());
        said.or_else(|| self.last.clone())
    }

    /// Returns the last line, unless it is one of the log's that say only what went on: why a VMM failed, as it said itself.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.last_words().filter(|line| !is_progress(line))
    }
}

/// Returns whether a line is one of `tracing`'s that is no warning: a time stamp, and a level.
fn is_progress(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let stamped = words.next().is_some_and(|stamp| {
        stamp.starts_with(|first: char| first.is_ascii_digit()) && stamp.ends_with('Z')
    });
    stamped && matches!(words.next(), Some("INFO" | "DEBUG" | "TRACE"))
}

fn clean_cut(line: &[u8]) -> String {
    clean(line.get(..LINE_MAX).unwrap_or(line))
}

/// Puts bytes together to lines of at most [`LINE_MAX`] bytes; the rest of a longer line is left out.
#[derive(Default)]
pub(crate) struct Lines {
    partial: Vec<u8>,
    /// Whether the next line has lost its beginning, so that it is left out.
    passing_over: bool,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut VecDeque<String>) {
        for byte in bytes {
            match byte {
                b'\n' => out.extend(self.finish()),
                byte if self.partial.len() < LINE_MAX => self.partial.push(*byte),
                _ => {}
            }
        }
    }

    fn finish(&mut self) -> Option<String> {
        let line = clean(&self.partial);
        self.partial.clear();
        let whole = !std::mem::take(&mut self.passing_over);
        (whole && !line.is_empty()).then_some(line)
    }
}

/// Removes the log of a VMM that has ended. Frees what is in it, and waits for whoever writes to it: only in a background job.
///
/// # Errors
/// It is still there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns printable text; everything that could forge a log line or steer a terminal is escaped.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    printable::line(String::from_utf8_lossy(bytes).trim_end()).up_to(LINE_MAX).to_string()
}

#[cfg(test)]
mod tests;
