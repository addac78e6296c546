//! Random bytes from the kernel.
#![allow(unsafe_code, reason = "one system call")]

use std::io;

/// Fills `data` from the kernel's generator, which is ready long before any guest starts.
pub(crate) fn fill(data: &mut [u8]) -> io::Result<()> {
    let mut rest = data;
    while !rest.is_empty() {
        // SAFETY: the pointer and length are those of `rest`, which is borrowed mutably.
        let done = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(done) {
            Ok(done) => rest = rest.get_mut(done..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}
