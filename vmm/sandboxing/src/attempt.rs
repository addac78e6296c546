//! System calls by their number, for the tests of filters.
#![expect(unsafe_code, reason = "no crate at hand wraps calls that nobody here has a use for")]

use std::io;

/// Makes the system call of this number with nothing in its arguments: no memory, no process, descriptor 0. Under a filter that forbids it this is
/// the end of the process. Call it in a process that exists for this, with a call that a filter is to forbid.
///
/// # Errors
/// The kernel refuses the call.
pub fn attempt(number: libc::c_long) -> io::Result<()> {
    // SAFETY: it names no memory; what else it does, the process that exists for this bears.
    match unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Asks no descriptor for this request of `ioctl`, with nothing as its argument. Under a filter that forbids the request this is the end of the process.
///
/// # Errors
/// There is no such descriptor.
pub fn attempt_ioctl(request: libc::c_ulong) -> io::Result<()> {
    // SAFETY: it names no memory and no descriptor, so that no request is looked at.
    match unsafe { libc::syscall(libc::SYS_ioctl, -1, request, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
