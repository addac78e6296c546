//! What a VMM says on its standard error, line by line into the log. A VMM may be taken over by
//! its guest: lines are cut, counted and cleaned of anything but printable text.
//!
//! It comes by a file, not a pipe: a VMM writes to it without ever waiting for this agent, and goes on when there is none. The next agent
//! finds in it what was said meanwhile, and how a VMM ended that is nobody's child. The file is started over whenever it is longer than
//! [`FILE_MAX`]. While no agent runs, a VMM's own limits on its lines hold it small; one that was taken over may make it as long as its
//! largest disk, or fill the file system, and the next agent cuts it before it writes there itself.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use ratelimit::{Rate, RateLimiter};

use super::lifecycle::Time;

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
/// How often a file is looked at that the kernel does not watch.
const UNWATCHED: Time = Time::from_secs(1);
/// Lines logged at once after silence, and in the long run.
const LINES: Rate = Rate { burst: 200, every: Time::from_millis(500) };

/// The reading end of a VMM's standard error and output.
pub struct Capture {
    file: File,
    /// Becomes readable when the file has changed; `None` if the kernel has no more of them.
    changes: Option<Inotify>,
    lines: Lines,
    limiter: RateLimiter,
    last: Option<String>,
    /// The earliest time at which the file is looked at again.
    again: Option<Time>,
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
    pub fn create(path: &Path) -> io::Result<(Self, File)> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let writer = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        Ok((Self::at(path)?, writer))
    }

    /// Opens what a VMM of an earlier agent writes to. The last of what that agent may have read is read again.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut this = Self::at(path)?;
        let from = this.file.metadata()?.len().saturating_sub(TAIL as u64);
        this.file.seek(SeekFrom::Start(from))?;
        this.lines.passing_over = from > 0;
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
        Ok(Self { file, changes, lines: Lines::default(), limiter, last: None, again })
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
        if let Some(changes) = &self.changes {
            // What changed is the one file.
            let _ = changes.read_events();
        }
        self.again = self.changes.is_none().then(|| now + UNWATCHED);
        let mut whole = VecDeque::new();
        let read = self.read(&mut whole);
        let mut output = Output::default();
        if read >= READ_MAX {
            self.again = Some(now + PACE);
            output.skipped = self.skip_to_end();
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

    /// Reads [`READ_MAX`] bytes or a little more at most, and returns how many they were.
    fn read(&mut self, whole: &mut VecDeque<String>) -> usize {
        let mut chunk = [0; 4096];
        let mut read = 0;
        while read < READ_MAX {
            match self.file.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => {
                    read += count;
                    self.lines.push(chunk.get(..count).unwrap_or_default(), whole);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!("a VMM's log cannot be read: {error}");
                    break;
                }
            }
        }
        self.start_over();
        read
    }

    /// Truncates a file that is too long; what is in it and not read is lost. Whoever appends to it goes on at its new end.
    fn start_over(&mut self) {
        let Ok(length) = self.file.metadata().map(|metadata| metadata.len()) else { return };
        let at = self.file.stream_position().unwrap_or_default();
        // Behind the end is one that somebody else started over.
        if at <= length && length <= FILE_MAX {
            return;
        }
        if length > FILE_MAX
            && let Err(error) = self.file.set_len(0)
        {
            tracing::warn!("a VMM's log cannot be started over: {error}");
        }
        let _ = self.file.rewind();
    }

    /// Skips to the end; returns how many bytes are not read.
    fn skip_to_end(&mut self) -> u64 {
        let at = self.file.stream_position().unwrap_or_default();
        let end = self.file.seek(SeekFrom::End(0)).unwrap_or(at);
        let skipped = end.saturating_sub(at);
        self.lines.passing_over |= skipped > 0;
        skipped
    }

    /// Returns the last line that was written, however much was not read.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        let length = self.file.metadata().map_or(0, |metadata| metadata.len());
        let mut tail = Vec::new();
        let from = length.saturating_sub(TAIL as u64);
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

/// Empties a VMM's log that is longer than it may be, which only one that was taken over makes it while no agent reads, and returns how many
/// bytes that were. What its last line would have said is nothing to go by.
///
/// # Errors
/// It is as long as it was.
pub fn cut(path: &Path) -> io::Result<u64> {
    let file = match fileopen::regular_with(path, OpenOptions::new().write(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        // No domain's directory.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(0),
        opened => opened?,
    };
    let length = file.metadata()?.len();
    if length <= FILE_MAX {
        return Ok(0);
    }
    file.set_len(0)?;
    Ok(length)
}

/// Returns printable text; everything that could forge a log line or steer a terminal is escaped.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    printable::line(String::from_utf8_lossy(bytes).trim_end()).up_to(LINE_MAX).to_string()
}

#[cfg(test)]
mod tests;
