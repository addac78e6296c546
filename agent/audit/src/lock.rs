//! One writer at a time.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// That nobody else uses a directory. It needs no file in it, so that a full or read-only one can be locked too.
#[derive(Debug)]
pub struct DirectoryLock(pub(crate) File);

impl DirectoryLock {
    /// Takes the lock; `None` if another process, or another part of this one, has it.
    ///
    /// # Errors
    /// The directory cannot be opened or locked.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        let file = File::open(dir)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        // Said and not left to closing: a process that is being started has the file open too, until it runs another program.
        let _ = self.0.unlock();
    }
}
