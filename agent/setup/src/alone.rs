//! One setup at a time on a PC.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How often the file is made anew when whoever had it removes it in between.
const TRIES: u32 = 8;

/// The lock that a setup has while it changes this PC: a file of its own in `/run`, where it stays the same one when the state is moved. The file
/// is gone with the lock.
#[derive(Debug)]
pub(crate) struct SetupLock {
    path: PathBuf,
    _lock: Flock<File>,
}

impl SetupLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// `NotFound` if the directory of `path` is not there, `WouldBlock` if another setup has the lock; or the file cannot be made.
    pub(crate) fn take(path: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(false).mode(0o600);
            let file = fileopen::regular_with(path, &mut options)?;
            let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => lock,
                Err((_, Errno::EAGAIN)) => return Err(io::ErrorKind::WouldBlock.into()),
                Err((_, error)) => return Err(error.into()),
            };
            // Whoever had it before has removed what was opened here: it keeps nobody out.
            let locked = lock.metadata()?;
            if fs::metadata(path)
                .is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino()))
            {
                return Ok(Self { path: path.to_owned(), _lock: lock });
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Drop for SetupLock {
    fn drop(&mut self) {
        // Before the lock goes: afterwards it may be another's.
        let _ = fs::remove_file(&self.path);
    }
}
