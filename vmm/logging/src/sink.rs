//! Whole lines to an [`Outlet`], or none.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crate::Outlet;

/// Longest line, in bytes; the rest of a longer one is cut off.
const LINE_MAX: usize = 4096;
/// How often a panicking thread asks for the lock, which another holds for one write at most.
const PANIC_TRIES: usize = 1000;

/// Shared by all threads of a process. A line that cannot be written at once is dropped.
#[derive(Debug)]
pub struct LineSink {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    outlet: Outlet,
    /// The end of a line whose beginning was written; goes before anything else.
    unfinished: Vec<u8>,
    /// Lines dropped since the last one that was written.
    dropped: u64,
}

impl LineSink {
    /// Writes lines to `outlet`.
    #[must_use]
    pub fn new(outlet: Outlet) -> Self {
        let state = State { outlet, unfinished: Vec::new(), dropped: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Writes one line, with its newline, or drops it. Never waits for the reader.
    pub fn write(&self, line: &[u8]) {
        self.lock().line(line);
    }

    /// Returns how many lines were dropped that no written line has told of yet.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Writes text of any length, waiting for the reader for `limit` altogether.
    pub(crate) fn write_patiently(&self, text: &[u8], limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.lock();
        let mut rest = std::mem::take(&mut state.unfinished);
        rest.extend(state.notice().into_bytes());
        rest.extend(text);
        let mut rest = rest.as_slice();
        while !rest.is_empty() {
            match state.outlet.write(rest) {
                Ok(0) => return,
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    // A signal ends the wait early; the time left is looked at again above.
                    let _ = state.outlet.wait(left);
                }
                Err(_) => return,
            }
        }
        state.dropped = 0;
    }

    /// Writes as [`LineSink::write`] does, for a thread that may hold the lock itself.
    pub(crate) fn write_in_panic(&self, line: &[u8]) {
        for _ in 0..PANIC_TRIES {
            match self.state.try_lock() {
                Ok(mut state) => return state.line(line),
                Err(TryLockError::Poisoned(state)) => return state.into_inner().line(line),
                Err(TryLockError::WouldBlock) => std::thread::yield_now(),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn line(&mut self, line: &[u8]) {
        let written = self.write(&self.unfinished);
        self.unfinished.drain(..written.min(self.unfinished.len()));
        if self.unfinished.is_empty() {
            let mut text = self.notice().into_bytes();
            text.extend(line.get(..LINE_MAX - 1).unwrap_or(line));
            if text.last() != Some(&b'\n') {
                text.push(b'\n');
            }
            let written = self.write(&text);
            if written > 0 {
                self.unfinished.extend(text.get(written..).unwrap_or_default());
                self.dropped = 0;
                return;
            }
        }
        self.dropped = self.dropped.saturating_add(1);
    }

    fn notice(&self) -> String {
        match self.dropped {
            0 => String::new(),
            count => {
                let [_, missing] = crate::marks();
                format!("{missing}{count} log lines were dropped: nobody read them in time\n")
            }
        }
    }

    /// Writes what goes in at once, and returns how many bytes did.
    fn write(&self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match self.outlet.write(rest) {
                Ok(count @ 1..) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(0) | Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::UnixStream;

    #[test]
    fn no_line_ever_blocks_and_the_next_that_is_read_says_how_many_were_dropped() {
        let (reader, writer) = UnixStream::pair().unwrap();
        let sink = LineSink::new(Outlet::new(&writer).unwrap());
        for number in 0..100_000 {
            sink.write(format!("line {number}\n").as_bytes());
        }
        let dropped = sink.dropped();
        assert!(dropped > 50_000, "{dropped}");
        let mut lines = BufReader::new(reader).lines();
        for number in 0..100_000 - dropped {
            assert_eq!(lines.next().unwrap().unwrap(), format!("line {number}"));
        }
        sink.write(b"after\n");
        let notice = format!("{dropped} log lines were dropped: nobody read them in time");
        assert_eq!(lines.next().unwrap().unwrap(), notice);
        assert_eq!(lines.next().unwrap().unwrap(), "after");
        assert_eq!(sink.dropped(), 0);
    }

    #[test]
    fn lines_are_whole_whatever_their_reader_does() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LineSink::new(Outlet::new(&writer).unwrap());
        let line = [&[b'x'; 2 * LINE_MAX][..], b"\n"].concat();
        let mut read = Vec::new();
        let mut chunk = [0; 1777];
        for _ in 0..1000 {
            sink.write(&line);
            let count = reader.read(&mut chunk).unwrap();
            read.extend(&chunk[..count]);
        }
        drop((sink, writer));
        reader.read_to_end(&mut read).unwrap();
        let lines: Vec<_> = read.split(|byte| *byte == b'\n').collect();
        // The last may be cut off by the end of its writer.
        for line in &lines[..lines.len() - 1] {
            let notice = line.ends_with(b"nobody read them in time");
            assert!(notice || line.len() == LINE_MAX - 1, "{}", String::from_utf8_lossy(line));
        }
    }

    #[test]
    fn a_line_to_nobody_is_harmless() {
        let (reader, writer) = UnixStream::pair().unwrap();
        drop(reader);
        let sink = LineSink::new(Outlet::new(&writer).unwrap());
        sink.write(b"hello\n");
        sink.write_patiently(b"goodbye\n", Duration::from_secs(60));
        assert_eq!(sink.dropped(), 1);
    }

    #[test]
    fn the_last_words_wait_for_a_slow_reader_but_not_for_ever() {
        let (mut reader, writer) = io::pipe().unwrap();
        let sink = LineSink::new(Outlet::new(&writer).unwrap());
        let text = vec![b'x'; 200_000];
        let started = Instant::now();
        sink.write_patiently(&text, Duration::from_millis(50));
        assert!(started.elapsed() < Duration::from_secs(10));
        let slow = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            read.len()
        });
        sink.write_patiently(&text, Duration::from_secs(60));
        drop((sink, writer));
        assert!(slow.join().unwrap() > 200_000);
    }
}
