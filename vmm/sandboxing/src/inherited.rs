//! File descriptors that the process was started with.
#![expect(unsafe_code, reason = "no crate at hand wraps close_range")]

use std::io;
use std::os::fd::RawFd;

/// The first descriptor that is no standard stream.
const FIRST: u32 = 3;

/// Closes every descriptor this process was started with, besides standard streams and `keep`. A program that
/// starts another and leaves a file open hands it over unseen otherwise, and no layer of the sandbox closes what is
/// open. Call it before anything in this process has opened a file.
///
/// # Errors
/// The kernel is older than 5.9.
pub fn close_others(keep: Option<RawFd>) -> io::Result<()> {
    let keep = keep.and_then(|number| u32::try_from(number).ok()).filter(|kept| *kept >= FIRST);
    let ranges = match keep {
        None => [Some((FIRST, u32::MAX)), None],
        Some(kept) => [
            kept.checked_sub(1).map(|last| (FIRST, last)),
            kept.checked_add(1).map(|first| (first, u32::MAX)),
        ],
    };
    for (first, last) in ranges.into_iter().flatten().filter(|(first, last)| first <= last) {
        // SAFETY: takes numbers, and closes descriptors that nobody in this process owns yet.
        if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
