//! The serial log: a file that a thread of its own writes, from a pipe that the vCPU prints to. A disk
//! that does not answer holds up that thread, and nobody else.

use std::fs::{File, OpenOptions};
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use super::Output;
use sandboxing::{Call, Only, call};

/// A guest can print for ever; its log is started over at this many bytes.
pub const LOG_MAX: u64 = 16 << 20;

/// Written where a log starts over.
const STARTED_OVER: &[u8] = b"[log reached its size limit and starts over here]\n";

/// Bytes taken from the pipe at a time: what a pipe holds.
const CHUNK: usize = 64 << 10;

/// A guest prints byte by byte. What came is written at once, but if that was less than this, more is
/// let gather for a moment, so that a byte costs one system call and not five.
const GATHERED: usize = 4096;
const GATHER: Duration = Duration::from_millis(5);

/// Most reads for what is left in the pipe at the end. It gives whole pages, mostly.
const LAST_READS: usize = 64;

/// System calls of [`LogWriter`], besides those of its event loop.
pub(crate) const LOG_SYSTEM_CALLS: &[Call] = &[
    call!(SYS_pwrite64, "a serial log"),
    call!(SYS_clock_nanosleep, "letting output gather"),
    call!(SYS_nanosleep, "letting output gather"),
    call!(SYS_ftruncate, Only::Exactly(1, 0), "a serial log that starts over"),
];

/// A log that starts over when it is full.
struct LogFile {
    file: File,
    /// Where the next byte goes.
    length: u64,
}

impl LogFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        if self.length.saturating_add(data.len() as u64) > LOG_MAX {
            self.file.set_len(0)?;
            self.length = 0;
            self.put(STARTED_OVER)?;
        }
        self.put(data)
    }

    fn put(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, self.length)?;
        self.length = self.length.saturating_add(data.len() as u64);
        Ok(())
    }
}

/// The writer of the log, in an event loop. Dropped, it writes what is left in the pipe.
pub struct LogWriter {
    from: PipeReader,
    chunk: Vec<u8>,
    log: LogFile,
}

/// Opens a log that is appended to the file at `path`, which is created readable to its owner alone.
///
/// # Errors
/// It cannot be opened, or the process has no file descriptor left.
pub fn log(path: &Path) -> io::Result<(Output, LogWriter)> {
    let file =
        OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    let (from, to) = io::pipe()?;
    fcntl(from.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    let writer = LogWriter { from, chunk: vec![0; CHUNK], log: LogFile { file, length } };
    Ok((Output::pipe(to)?, writer))
}

impl LogWriter {
    /// Writes some of what was printed, and returns how many bytes; 0 when nothing more will be.
    fn write_some(&mut self) -> io::Result<usize> {
        let count = self.from.read(&mut self.chunk)?;
        // What the disk does not take is lost, as on a wire.
        let _ = self.log.append(self.chunk.get(..count).unwrap_or_default());
        Ok(count)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        for _ in 0..LAST_READS {
            if !matches!(self.write_some(), Ok(1..)) {
                return;
            }
        }
    }
}

impl MutEventSubscriber for LogWriter {
    fn init(&mut self, ops: &mut EventOps) {
        let events = Events::new_raw(self.from.as_raw_fd(), EventSet::IN);
        if let Err(error) = ops.add(events) {
            tracing::error!(%error, "the serial log is not written");
        }
    }

    fn process(&mut self, events: Events, ops: &mut EventOps) {
        match self.write_some() {
            Ok(0) => {
                let _ = ops.remove(Events::empty_raw(events.fd()));
            }
            Ok(..GATHERED) => std::thread::sleep(GATHER),
            Ok(_) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_log_never_grows_past_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut output, mut writer) = log(&path).unwrap();
        let block = [b'x'; CHUNK / 2];
        for _ in 0..40 * (1 << 20) / block.len() {
            output.write_all(&block).unwrap();
            while writer.write_some().is_ok() {}
            assert!(std::fs::metadata(&path).unwrap().len() <= LOG_MAX);
        }
        drop((output, writer));
        let before = std::fs::metadata(&path).unwrap().len();
        log(&path).unwrap().0.write_all(b"more").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), before + 4, "reopening appends");
    }

    #[test]
    fn a_log_that_is_full_is_started_over_by_the_next_vmm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        File::create(&path).unwrap().set_len(LOG_MAX).unwrap();
        log(&path).unwrap().0.write_all(b"more").unwrap();
        let log = std::fs::read(&path).unwrap();
        assert_eq!(log, [STARTED_OVER, b"more"].concat());
    }

    #[test]
    fn a_log_that_nobody_writes_holds_its_guest_up_once_and_says_what_it_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut output, mut writer) = log(&path).unwrap();
        for _ in 0..3 * CHUNK {
            output.write_all(b"x").unwrap();
        }
        while writer.write_some().is_ok() {}
        output.write_all(b"again").unwrap();
        drop(writer);
        let log = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let printed = log.trim_start_matches('x');
        assert!(
            printed.contains("bytes were lost here") && printed.ends_with("again"),
            "{printed}"
        );
    }
}
