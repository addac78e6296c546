//! What a VMM says on its standard error, line by line into the log. A VMM may be taken over by
//! its guest: lines are cut, counted and cleaned of anything but printable text.
//!
//! It comes by a socket, not a pipe: a VMM writes to it without ever waiting for this agent, and
//! without changing flags that others share.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use ratelimit::{Rate, RateLimiter};

use super::domain::Time;

/// Longest line kept, in bytes.
const LINE_MAX: usize = 1024;
/// Bytes read in one turn of the event loop, so that one VMM cannot keep it from the others.
const TURN_MAX: usize = 64 * 1024;
/// Lines logged at once after silence, and in the long run.
const LINES: Rate = Rate { burst: 200, every: Time::from_millis(500) };

/// The reading end of a VMM's standard error and output.
pub struct Capture {
    stream: UnixStream,
    lines: Lines,
    limiter: RateLimiter,
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
    /// The reading end, which never waits, and the end for a VMM to write to.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (stream, writer) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        // Nothing is said to it this way.
        stream.shutdown(Shutdown::Write)?;
        let limiter = RateLimiter::new(LINES);
        Ok((Self { stream, lines: Lines::default(), limiter, last: None }, writer.into()))
    }

    /// Reads what is there.
    pub fn turn(&mut self, now: Time) -> Turn {
        let mut chunk = [0; 4096];
        let mut whole = VecDeque::new();
        let mut ended = false;
        let mut read = 0;
        while read < TURN_MAX {
            match self.stream.read(&mut chunk) {
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
            if let Some(left_out) = self.limiter.admit(now) {
                dropped += left_out;
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
        self.stream.as_fd()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    fn capture() -> (Capture, UnixStream) {
        let (capture, writer) = Capture::pair().unwrap();
        (capture, writer.into())
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
        pipe.write_all("flood\n".repeat(500).as_bytes()).unwrap();
        assert_eq!(capture.turn(Time::ZERO).lines.len(), LINES.burst as usize);
        pipe.write_all(b"after\n").unwrap();
        let turn = capture.turn(Duration::from_secs(1));
        assert_eq!((turn.lines, turn.dropped), (vec!["after".to_owned()], 300));
    }

    #[test]
    fn a_vmm_that_says_more_than_is_read_is_not_held_up_by_it() {
        let (_capture, vmm) = capture();
        let log = logging::LineSink::new(logging::Outlet::new(&vmm).unwrap());
        for _ in 0..20_000 {
            log.write(b"flood\n");
        }
        assert!(log.dropped() > 0);
    }

    #[test]
    fn escape_sequences_and_bidirectional_characters_do_not_reach_the_log() {
        assert_eq!(clean(b"\x1b[31mred\r"), "\\u{1b}[31mred");
        assert_eq!(clean("a\u{202e}b".as_bytes()), "a\\u{202e}b");
        assert_eq!(clean("임상 ward".as_bytes()), "임상 ward");
        assert_eq!(clean(&[0xff, b'x']), "\u{fffd}x");
    }
}
