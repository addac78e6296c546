//! Files that must survive a crash: written whole beside the old one, synced, renamed.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest file read back, in bytes: a policy, as JSON writes it.
const SIZE_MAX: u64 = 16 << 20;

/// Replaces `path` by `value`. When this returns, the new content is on the disk.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    text.push(b'\n');
    replace(path, &text, 0o600)
}

/// Replaces the file at `path`, which keeps its old content or has the new one whatever happens. What an earlier try left beside it goes,
/// and where this one fails it leaves nothing.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Opened before anything is written, so that no error comes after the fact.
    let directory = fileopen::directory(directory(path))?;
    let fresh = &fresh(path);
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // A file of its own: nobody else has it open, or chose who may read it.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(fresh)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.and_then(|()| fs::rename(fresh, path)).inspect_err(|_| {
        // That it cannot be removed either changes nothing about the error.
        let _ = fs::remove_file(fresh);
    })?;
    directory.sync_all()
}

/// Removes the file at `path`, if it is there. When this returns, it is gone from the disk.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => fileopen::directory(directory(path))?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Returns where the new content of a file is written before it takes its place.
pub fn fresh(path: &Path) -> PathBuf {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    fresh.into()
}

/// Makes a file that was not there, with its content on the disk. Where that fails nothing is left behind.
///
/// # Errors
/// `AlreadyExists` if there is one, which stays as it is; or it cannot be written.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = fileopen::directory(directory(path))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.and_then(|()| directory.sync_all()).inspect_err(|_| {
        // What is half a file helps nobody; that it cannot be removed either changes nothing about the error.
        let _ = fs::remove_file(path);
    })
}

/// Returns the directory a file is in: the current one for a bare name, whose `parent` is empty.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads what [`write()`] wrote; `None` when there is no such file.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let text = match fileopen::read(path, SIZE_MAX) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_replacement_is_read_by_whom_it_is_for_whatever_lay_there_and_leaves_nothing_when_it_fails()
    {
        let dir = tempfile::tempdir().unwrap();
        let (key, elsewhere) = (dir.path().join("key"), dir.path().join("elsewhere"));
        fs::write(&key, "old").unwrap();
        // Left there by somebody who would like to read what comes next.
        fs::write(&elsewhere, "theirs").unwrap();
        std::os::unix::fs::symlink(&elsewhere, fresh(&key)).unwrap();
        replace(&key, b"secret", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&elsewhere).unwrap(), "theirs");
        fs::write(fresh(&key), "open to all").unwrap();
        fs::set_permissions(fresh(&key), fs::Permissions::from_mode(0o644)).unwrap();
        replace(&key, b"secret", 0o600).unwrap();
        let mode = fs::symlink_metadata(&key).unwrap().permissions().mode();
        assert_eq!((mode & 0o777, fs::read(&key).unwrap()), (0o600, b"secret".to_vec()));
        assert!(!fresh(&key).exists());

        let folder = dir.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("in it"), "").unwrap();
        assert!(replace(&folder, b"secret", 0o600).is_err());
        assert!(!fresh(&folder).exists() && folder.join("in it").exists());
    }
}
