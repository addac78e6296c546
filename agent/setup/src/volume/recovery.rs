//! The file that the recovery key is written to where nobody sits at a terminal. Whose key it is stands in it, so that none that is still needed is overwritten.
//!
//! ```text
//! djngflrf-tktkbhck-ietcrhcd-ikgntujt-dcnvdbnh-ecgkdnre-nlfgnjun-jlrvkihd
//! # opens the volume UUID=0a1b2c3d-0000-4000-8000-123456789abc of ward-12
//! ```
//!
//! The second line is there before anything is erased, and shows that the first one can be written for root alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{VolumeError, VolumeRequest, refused};
use crate::Pc;
use crate::effects::{Attributes, Effects};

/// How a recovery key of systemd's is written: eight groups of eight letters.
pub(super) const KEY: usize = 71;
/// Largest file that may be one of them, in bytes.
const FILE_MAX: u64 = 4096;
const OF: &str = "# opens the volume UUID=";
/// Rights of anybody but its owner.
pub(super) const OTHERS: u32 = 0o077;

/// What a file holds.
struct RecoveryFile {
    uuid: String,
    has_key: bool,
}

/// Returns the file for the key. One that is there may be the one of a volume that was not finished, `unfinished`, and of no other.
pub(crate) fn file(
    state: &Path,
    wish: &VolumeRequest,
    unfinished: &[String],
) -> Result<Option<PathBuf>, VolumeError> {
    let Some(path) = &wish.recovery_key_file else { return Ok(None) };
    let said = path.display();
    if path.starts_with(state) {
        return Err(refused(format!(
            "{said} would lie on the volume that it opens: name a file elsewhere, and take it off this PC afterwards"
        )));
    }
    match fileopen::read(path, FILE_MAX) {
        Ok(text) => match held(&text) {
            Some(held) if !held.has_key || unfinished.contains(&held.uuid) => {
                Ok(Some(path.clone()))
            }
            Some(held) => Err(refused(format!(
                "{said} holds the recovery key of another volume (UUID={}): keep it where that one's is kept, take it away here, and run this again, or name another file",
                printable::line(&held.uuid)
            ))),
            None => Err(refused(format!(
                "{said} is there, and no recovery key of setup's is in it: name a file that is not there"
            ))),
        },
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && path.parent().is_some_and(Path::is_dir) =>
        {
            Ok(Some(path.clone()))
        }
        Err(error) => Err(refused(format!(
            "the recovery key cannot be written to {said} ({error}): name a file that is not there, in a folder that is"
        ))),
    }
}

fn held(text: &[u8]) -> Option<RecoveryFile> {
    let text = str::from_utf8(text).ok()?;
    let (first, last) = (text.lines().next()?, text.lines().last()?);
    let uuid = last.strip_prefix(OF)?.split(' ').next()?.to_owned();
    Some(RecoveryFile { uuid, has_key: first.len() == KEY && first.split('-').count() == 8 })
}

/// Returns which volume a file's key is of, if it is one of setup's.
pub(crate) fn uuid_in(path: &Path) -> Option<String> {
    held(&fileopen::read(path, FILE_MAX).ok()?).map(|held| held.uuid)
}

/// Tries, before anything is erased, that the key can be written so that root alone reads it.
pub(super) fn reserve(
    pc: &Pc,
    path: &Path,
    uuid: &str,
    effects: &mut dyn Effects,
) -> io::Result<()> {
    let advice = "nothing was erased: name a file for the recovery key where root alone can read it; a stick with FAT is mounted with `-o fmask=177,dmask=077`";
    let failed = |why: String| io::Error::other(format!("{}: {why}; {advice}", path.display()));
    write(pc, path, "", uuid, effects).map_err(|error| failed(error.to_string()))?;
    let made = fs::metadata(path)?;
    match made.mode() & OTHERS == 0 {
        true => Ok(()),
        false => Err(failed(format!("others could read it (mode {:o})", made.mode() & 0o777))),
    }
}

/// Writes the key, with what it opens.
pub(super) fn write(
    pc: &Pc,
    path: &Path,
    key: &str,
    uuid: &str,
    effects: &mut dyn Effects,
) -> io::Result<()> {
    let host = pc.proc_text("sys/kernel/hostname");
    let host = printable::line(host.trim()).to_string();
    let end = if key.is_empty() { "" } else { "\n" };
    let text = Zeroizing::new(format!("{key}{end}{OF}{uuid} of {host}\n"));
    effects.replace(path, text.as_bytes(), Attributes::new(0o600))
}

/// Removes a file that was to get a key and got none.
pub(super) fn release(path: &Path, uuid: &str, effects: &mut dyn Effects) -> io::Result<()> {
    let text = Zeroizing::new(fileopen::read(path, FILE_MAX).unwrap_or_default());
    match held(&text) {
        Some(held) if held.uuid == uuid && !held.has_key => effects.remove(path),
        _ => Ok(()),
    }
}
