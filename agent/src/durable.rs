//! Files that must survive a crash: written whole beside the old one, synced, renamed.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

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

/// Replaces the file at `path`, which keeps its old content or has the new one whatever happens.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Opened before anything is written, so that no error comes after the fact.
    let directory = fs::File::open(directory(path))?;
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(fresh)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(fresh, path)?;
    directory.sync_all()
}

/// Makes a file that was not there, with its content on the disk. Where that fails nothing is left behind.
///
/// # Errors
/// `AlreadyExists` if there is one, which stays as it is; or it cannot be written.
pub fn create(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = fs::File::open(directory(path))?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    written.and_then(|()| directory.sync_all()).inspect_err(|_| {
        // What is half a file helps nobody; that it cannot be removed either changes nothing about the error.
        let _ = fs::remove_file(path);
    })
}

/// The directory a file is in: the current one for a bare name, whose `parent` is empty.
pub fn directory(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Reads what [`write()`] wrote; `None` when there is no such file.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(SIZE_MAX).read_to_end(&mut text)?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
