//! Locks between commands and the agent: files that nobody reads.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// How long is waited between tries.
const STEP: Duration = Duration::from_millis(50);
/// Tries where the other side only writes a small file: five seconds.
pub(crate) const PATIENCE: u32 = 100;

/// Takes the lock of this file, in so many tries.
///
/// # Errors
/// `WouldBlock` if somebody else has it; or the file cannot be made.
pub(crate) fn take(path: &Path, tries: u32) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    hold(fileopen::regular_with(path, &mut options)?, tries)
}

/// Takes the lock of a file that is open, in so many tries.
///
/// # Errors
/// `WouldBlock` if somebody else has it.
pub(crate) fn hold(mut file: File, tries: u32) -> io::Result<Flock<File>> {
    for left in (0..tries.max(1)).rev() {
        file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EAGAIN)) => file,
            Err((_, error)) => return Err(error.into()),
        };
        if left > 0 {
            thread::sleep(STEP);
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}
