//! What keeps an officer's secret key to the process that uses it, and to its owner.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};

/// Proof that this process leaves no core dump, and that no other process of its user may look into its memory. Whatever reads a secret asks for
/// it; once it is so, it stays so until the process ends.
#[derive(Debug)]
pub struct NoDump(());

impl NoDump {
    /// Makes it so.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub fn ensure() -> io::Result<Self> {
        // A dump that is handed to a program (`|` in core_pattern) asks for the second, one that is written for the first.
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
        prctl::set_dumpable(false)?;
        Ok(Self(()))
    }
}

/// The permissions of a secret's file: who may use it besides its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access(u32);

impl Access {
    /// Reads who may use the open `file`.
    pub fn of(file: &File) -> io::Result<Self> {
        let there = file.metadata()?;
        // A pipe between two programs is nobody else's, whatever its mode says.
        let mode = if there.file_type().is_fifo() { 0 } else { there.permissions().mode() };
        Ok(Self(mode & 0o777))
    }

    /// Returns the file's mode, if others than its owner may do something with it.
    #[must_use]
    pub fn shared(self) -> Option<u32> {
        (self.0 & 0o077 != 0).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::getrlimit;

    use super::*;

    #[test]
    fn a_process_that_holds_a_secret_leaves_no_dump_and_lets_nobody_look_into_it() {
        let _kept = NoDump::ensure().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_CORE).unwrap(), (0, 0));
        assert!(!prctl::get_dumpable().unwrap());
    }
}
