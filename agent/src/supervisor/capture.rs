//! What a VMM says on its standard error, line by line into the log. A VMM may be taken over by
//! its guest: lines are cut, counted and cleaned of anything but printable text.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::domain::Time;

/// Longest line kept, in bytes.
const LINE_MAX: usize = 1024;
/// Bytes read in one turn of the event loop, so that one VMM cannot keep it from the others.
const TURN_MAX: usize = 64 * 1024;
/// Lines logged at once after silence.
const BURST: u32 = 200;
/// Lines logged a second in the long run.
const LINES_PER_SECOND: u32 = 20;

/// The reading end of a VMM's standard error and output.
pub struct Capture {
    pipe: io::PipeReader,
    lines: Lines,
    meter: Meter,
    last: Option<String>,
}

/// What one turn brought.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// Lines to log.
    pub lines: Vec<String>,
    /// Lines left out since the last one logged.
    pub dropped: u64,
    /// Nothing more will come.
    pub ended: bool,
}

impl Capture {
    /// Captures what comes out of `pipe`, without ever waiting for it.
    pub fn new(pipe: io::PipeReader) -> io::Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(pipe.as_fd(), FcntlArg::F_GETFL)?);
        fcntl(pipe.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self { pipe, lines: Lines::default(), meter: Meter::default(), last: None })
    }

    /// Reads what is there.
    pub fn turn(&mut self, now: Time) -> Turn {
        let mut chunk = [0; 4096];
        let mut whole = VecDeque::new();
        let mut ended = false;
        let mut read = 0;
        while read < TURN_MAX {
            match self.pipe.read(&mut chunk) {
                Ok(0) => {
                    ended = true;
                    whole.extend(self.lines.finish());
                    break;
                }
                Ok(count) => {
                    read += count;
                    self.lines.push(chunk.get(..count).unwrap_or_default(), &mut whole);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = error.kind() != io::ErrorKind::WouldBlock;
                    break;
                }
            }
        }
        let mut lines = Vec::new();
        let mut dropped = 0;
        for line in whole {
            self.last = Some(line.clone());
            if self.meter.admit(now) {
                dropped += self.meter.take_dropped();
                lines.push(line);
            }
        }
        Turn { lines, dropped, ended }
    }

    /// The last line it said.
    #[must_use]
    pub fn last_line(&self) -> Option<&str> {
        self.last.as_deref()
    }
}

impl AsFd for Capture {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }
}

/// Bytes into lines of at most [`LINE_MAX`] bytes; the rest of a longer line is left out.
#[derive(Default)]
struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], out: &mut VecDeque<String>) {
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
        (!line.is_empty()).then_some(line)
    }
}

/// Printable text; everything that could forge a log line or steer a terminal is escaped.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    printable::line(String::from_utf8_lossy(bytes).trim_end()).up_to(LINE_MAX).to_string()
}

/// A token bucket over lines.
struct Meter {
    tokens: u32,
    refilled: Time,
    dropped: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self { tokens: BURST, refilled: Time::ZERO, dropped: 0 }
    }
}

impl Meter {
    fn admit(&mut self, now: Time) -> bool {
        let seconds = now.saturating_sub(self.refilled).as_secs();
        if seconds > 0 {
            let earned =
                u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(LINES_PER_SECOND);
            self.tokens = self.tokens.saturating_add(earned).min(BURST);
            self.refilled = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => {
                self.dropped = self.dropped.saturating_add(1);
                false
            }
        }
    }

    fn take_dropped(&mut self) -> u64 {
        std::mem::take(&mut self.dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn capture() -> (Capture, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Capture::new(reader).unwrap(), writer)
    }

    #[test]
    fn lines_are_logged_whole_and_the_last_is_remembered_without_its_newline() {
        let (mut capture, mut pipe) = capture();
        pipe.write_all(b"one\ntw").unwrap();
        assert_eq!(capture.turn(Time::ZERO).lines, ["one"]);
        pipe.write_all(b"o").unwrap();
        drop(pipe);
        let turn = capture.turn(Time::ZERO);
        assert_eq!((turn.lines.as_slice(), turn.ended), (["two".to_owned()].as_slice(), true));
        assert_eq!(capture.last_line(), Some("two"));
    }

    #[test]
    fn a_silent_vmm_does_not_hold_the_agent_up() {
        let (mut capture, _pipe) = capture();
        assert_eq!(capture.turn(Time::ZERO), Turn { lines: vec![], dropped: 0, ended: false });
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut lines = Lines::default();
        let mut out = VecDeque::new();
        lines.push(&vec![b'x'; 10 * LINE_MAX], &mut out);
        lines.push(b"\nnext\n", &mut out);
        assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 4]);
    }

    #[test]
    fn a_flood_is_dropped_and_counted_and_later_lines_get_through_again() {
        let (mut capture, mut pipe) = capture();
        for _ in 0..500 {
            pipe.write_all(b"flood\n").unwrap();
        }
        assert_eq!(capture.turn(Time::ZERO).lines.len(), BURST as usize);
        pipe.write_all(b"after\n").unwrap();
        let turn = capture.turn(Duration::from_secs(1));
        assert_eq!((turn.lines, turn.dropped), (vec!["after".to_owned()], 300));
    }

    #[test]
    fn escape_sequences_and_bidirectional_characters_do_not_reach_the_log() {
        assert_eq!(clean(b"\x1b[31mred\r"), "\\u{1b}[31mred");
        assert_eq!(clean("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(clean("임상 ward".as_bytes()), "임상 ward");
        assert_eq!(clean(&[0xff, b'x']), "\u{fffd}x");
    }
}
