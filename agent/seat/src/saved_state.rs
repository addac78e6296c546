//! How the seat was left, for the agent that follows one that died or was replaced: a screen that was locked is locked, and whoever was
//! typing into one desktop is not typing into another.
//!
//! It is written on the seat's own thread before a lock or a switch is told to anybody: into a file of the runtime directory, which is
//! memory and waits for no disk. It need not outlive a restart of the PC.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Longest file that is read, in bytes.
const SIZE_MAX: u64 = 4096;

/// The state of the seat that outlives the agent's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedState {
    /// The domain in front, by its name; none for the first.
    pub front: Option<String>,
    /// Whether the screen is locked.
    pub locked: bool,
}

/// The file in which the state of the seat is kept.
#[derive(Debug)]
pub struct SavedStateFile {
    path: PathBuf,
    /// Whether it was logged that the file cannot be written.
    warned: bool,
}

impl SavedStateFile {
    /// Makes one that is kept at this path.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), warned: false }
    }

    /// Returns how the seat was left; `None` if nobody wrote that down. What cannot be read may have said that the screen is locked.
    #[must_use]
    pub fn left(&self) -> Option<SavedState> {
        let read = fileopen::read(&self.path, SIZE_MAX)
            .and_then(|text| serde_json::from_slice(&text).map_err(io::Error::other));
        match read {
            Ok(left) => Some(left),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path.display();
                tracing::error!(
                    "the screen is locked, as {path} does not say how it was left: {error}"
                );
                Some(SavedState { front: None, locked: true })
            }
        }
    }

    /// Writes down how the seat is. Where that fails the file goes, and with it what it says that is not so any more: a seat of which
    /// nothing is written down is locked by an agent that finds guests.
    pub(super) fn write(&mut self, left: &SavedState) {
        if let Err(error) = self.replace(left) {
            let _ = fs::remove_file(&self.path);
            if !std::mem::replace(&mut self.warned, true) {
                tracing::error!(
                    "an agent that follows this one will not know whether the screen was locked: {} cannot be written: {error}",
                    self.path.display()
                );
            }
        }
    }

    fn replace(&self, left: &SavedState) -> io::Result<()> {
        let fresh = self.path.with_extension("new");
        match fs::remove_file(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        serde_json::to_writer(&mut file, left).map_err(io::Error::other)?;
        fs::rename(&fresh, &self.path)
    }
}

/// Forgets how the seat was left: it was left in order, with its guests.
pub fn forget(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!("{} cannot be removed: {error}", path.display());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_as_it_was_left_and_locked_where_nobody_can_say_how_that_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seat.json");
        let mut file = SavedStateFile::at(&path);
        assert_eq!(file.left(), None);
        for locked in [true, false] {
            let left = SavedState { front: Some("internet".to_owned()), locked };
            file.write(&left);
            assert_eq!(SavedStateFile::at(&path).left(), Some(left));
        }
        for garbled in ["", "{\"locked\":", "{\"locked\":\"no\"}"] {
            fs::write(&path, garbled).unwrap();
            assert!(file.left().unwrap().locked, "{garbled}");
        }
        fs::write(&path, vec![b' '; 5000]).unwrap();
        assert!(file.left().unwrap().locked);
        forget(&path);
        assert_eq!(file.left(), None);
        forget(&path);
    }

    #[test]
    fn what_could_not_be_replaced_does_not_say_what_was_so_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seat.json");
        let mut file = SavedStateFile::at(&path);
        file.write(&SavedState { front: None, locked: false });
        fs::create_dir(path.with_extension("new")).unwrap();
        file.write(&SavedState { front: None, locked: true });
        assert!(!path.exists());
    }
}
