//! Why a package was not installed: what passes by itself, or once somebody has made room, is tried again; what lasts is not. Pure.

use std::error::Error;
use std::io;

use printable::explain;

/// Why a package was not installed, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotInstalled {
    /// The reason passes by itself or once there is room: a full disk, no memory, a program that was killed.
    Passing(String),
    /// The reason stays: the package is not installed by trying again.
    Lasting(String),
}

/// What dpkg and its helpers say, in English, of what passes: errno(3), and dpkg's words on a helper that was killed.
const PASSING: [&str; 5] = [
    "No space left on device",
    "Disk quota exceeded",
    "Cannot allocate memory",
    "Resource temporarily unavailable",
    "killed by signal",
];

/// Returns whether what a program of dpkg's said is of something that passes.
#[must_use]
pub(crate) fn is_said(said: &[u8]) -> bool {
    let said = String::from_utf8_lossy(said);
    PASSING.iter().any(|passing| said.contains(passing))
}

/// Returns whether an error of the system's is of something that passes.
#[must_use]
pub(crate) fn is_of_kind(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{OutOfMemory, QuotaExceeded, StorageFull, TimedOut, WouldBlock};
    matches!(kind, OutOfMemory | QuotaExceeded | StorageFull | TimedOut | WouldBlock)
}

/// Returns why nothing was installed by an error with all its causes.
pub(crate) fn of(error: &(dyn Error + 'static)) -> NotInstalled {
    let why = explain(error);
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| is_of_kind(error.kind())) {
            return NotInstalled::Passing(why);
        }
        cause = error.source();
    }
    NotInstalled::Lasting(why)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::store::StoreError;

    #[test]
    fn a_full_disk_lacking_memory_and_a_killed_helper_pass_and_nothing_else_does() {
        for said in [
            "dpkg-deb (subprocess): decompressing archive: write error (No space left on device)",
            "dpkg-deb: error: tar subprocess was killed by signal (Killed)",
            "dpkg: unrecoverable fatal error, aborting: fork failed: Cannot allocate memory",
        ] {
            assert!(is_said(said.as_bytes()), "{said}");
        }
        for said in ["", "dpkg: error processing package bulkhead (--install): exit status 1"] {
            assert!(!is_said(said.as_bytes()), "{said}");
        }
        let file = |number| StoreError::File {
            path: PathBuf::from("/x"),
            source: io::Error::from_raw_os_error(number),
        };
        let enospc = of(&file(28));
        assert!(matches!(&enospc, NotInstalled::Passing(why) if why.contains("/x")), "{enospc:?}");
        assert!(matches!(of(&file(12)), NotInstalled::Passing(_)));
        assert!(matches!(of(&file(5)), NotInstalled::Lasting(_)));
        assert!(matches!(of(&StoreError::Another(1)), NotInstalled::Lasting(_)));
    }
}
