//! The specification that whoever starts the VMM leaves open for it (`--spec-fd`).

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use vmm_control::{SpecError, VmSpec};

/// Reads the specification from a descriptor this process was started with, to its end.
///
/// # Errors
/// The descriptor is not open, or what it holds is no specification.
pub fn read(number: RawFd) -> Result<VmSpec, SpecError> {
    VmSpec::read(File::from(own(number).map_err(SpecError::Read)?))
}

/// Duplicates a descriptor of our own for the same open file.
fn own(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_DUPFD_CLOEXEC takes a number and reads no memory; one that is not open is an error.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn a_specification_is_read_from_a_pipe_and_what_is_none_is_said() {
        let read_from = |text: &[u8]| {
            let (ours, mut theirs) = io::pipe().unwrap();
            theirs.write_all(text).unwrap();
            drop(theirs);
            read(ours.as_raw_fd())
        };
        let text = br#"{"kernel":"/k","cmdline":"","memory":"1G","cpus":2,"stop_timeout":"5s"}"#;
        assert_eq!(read_from(text).unwrap().cpus, 2);
        assert!(read_from(b"{}").unwrap_err().to_string().contains("kernel"));
        assert!(matches!(read(i32::MAX), Err(SpecError::Read(_))));
    }
}
