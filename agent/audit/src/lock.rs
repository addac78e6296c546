//! One writer at a time.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// The lock on a directory, which nobody else uses while it is held. It needs no file in it, so that a full or read-only one can be locked
/// too.
#[derive(Debug)]
pub struct DirectoryLock(File);

impl DirectoryLock {
    /// Takes the lock; `None` if another process, or another part of this one, has it.
    ///
    /// # Errors
    /// The directory cannot be opened or locked.
    pub fn take(dir: &Path) -> io::Result<Option<Self>> {
        Ok(locked(fileopen::directory(dir)?)?.map(Self))
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// The lock on a log, which nobody else writes while it is held: a file beside its directory, which nobody but its owner may open. Whoever
/// may read the directory could lock that, and keep the writer out.
#[derive(Debug)]
pub(crate) struct WriterLock(File);

impl WriterLock {
    /// Takes the lock; `None` if another process, or another part of this one, has it.
    pub(crate) fn take(dir: &Path) -> io::Result<Option<Self>> {
        let mut path = dir.as_os_str().to_owned();
        path.push(".lock");
        let mut options = File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = fileopen::regular_with(Path::new(&path), &mut options)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(locked(file)?.map(Self))
    }
}

impl Drop for WriterLock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

fn locked(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

fn unlock(file: &File) {
    // Said and not left to closing: a process that is being started has the file open too, until it runs another program.
    let _ = file.unlock();
}
