//! A VMM's log that has grown too long is emptied on a thread of its own, which nobody waits for.
//!
//! `ftruncate` takes the file's lock, and a `write` holds it from its first byte to its last. A VMM that was taken over may have many threads in writes of gigabytes,
//! behind all of which the truncation waits where no signal reaches it. So the event loop looks whether it is done, and if it is not for long, the VMM is killed: a
//! killed writer leaves at its next page.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;

use super::{FILE_MAX, READ_MAX};

/// Looks, [`SOON`](super::SOON) apart at least, after which whoever has the file is held responsible: a second. Counted rather than timed, as in a PC that
/// slept nothing was truncated meanwhile.
const LOOKS_MAX: u32 = 100;
/// Bytes of the thread's stack: it reads into memory of the heap and makes three system calls.
const STACK: usize = 128 << 10;

/// Empties a file; another function in tests.
pub(super) type Truncate = fn(&File) -> io::Result<()>;

/// What was in a file and not read when it was emptied.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) bytes: Vec<u8>,
    /// How many more there were.
    pub(super) skipped: u64,
}

/// A file that is being emptied.
pub(super) struct StartOver {
    done: mpsc::Receiver<io::Result<Option<Unread>>>,
    looks: u32,
}

impl StartOver {
    /// Starts a thread that empties a file which was read up to `at`.
    ///
    /// # Errors
    /// The process has no thread or file descriptor left.
    pub(super) fn begin(file: &File, at: u64, truncate: Truncate) -> io::Result<Self> {
        let file = file.try_clone()?;
        let (tell, done) = mpsc::channel();
        let thread = thread::Builder::new().name("vmm-log".to_owned()).stack_size(STACK);
        thread.spawn(move || {
            // Nobody listens any more once the VMM has ended.
            let _ = tell.send(empty(&file, at, truncate));
        })?;
        Ok(Self { done, looks: 0 })
    }

    /// Returns what came of it, once it has come to its end; `Ok(None)` if the file was short enough.
    pub(super) fn look(&mut self) -> Option<io::Result<Option<Unread>>> {
        self.looks = self.looks.saturating_add(1);
        match self.done.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the agent failed at it: report it with the log")))
            }
        }
    }

    /// Returns whether it has taken so long that somebody holds the file.
    pub(super) fn is_held_up(&self) -> bool {
        self.looks >= LOOKS_MAX
    }
}

/// Empties a VMM's log that is longer than it may be, which only one that was taken over makes it while no agent reads, and returns how many
/// bytes that were. What its last line would have said is nothing to go by.
///
/// Waits for whoever writes to it.
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
    let length = length(&file)?;
    if length <= FILE_MAX {
        return Ok(0);
    }
    file.set_len(0)?;
    Ok(length)
}

/// Returns how long a file is. By its end and not by `fstat`: that takes the file's lock on the tmpfs of some kernels (6.12-rc6 and stable ones of November 2024).
pub(super) fn length(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// Empties a file that is longer than it may be.
fn empty(file: &File, at: u64, truncate: Truncate) -> io::Result<Option<Unread>> {
    let end = length(file)?;
    if end <= FILE_MAX {
        // Somebody else was faster, and what is in it now was said since.
        return Ok(None);
    }
    let mut bytes =
        vec![0; usize::try_from(end.saturating_sub(at)).map_or(READ_MAX, |all| all.min(READ_MAX))];
    let mut read = 0;
    while let Some(rest) = bytes.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX))) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(read);
    let reached = at.saturating_add(u64::try_from(read).unwrap_or(u64::MAX));
    let skipped = length(file)?.saturating_sub(reached);
    truncate(file)?;
    Ok(Some(Unread { bytes, skipped }))
}
