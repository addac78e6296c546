//! An image arrives: its folder, the room for it, and its members, held against what was signed as they are copied.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use base::durable;
use nix::sys::statvfs::fstatvfs;

use super::error::{COPY_AGAIN, StoreError, file_error};
use crate::bundle::Bundle;
use crate::digest::{Digest, Running, pieces};
use crate::manifest::{Manifest, Member};

pub(super) fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(file_error(path))
}

/// Removes a folder, if it is there.
pub(super) fn clear(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}

/// Makes the folder in which an image arrives. What is there of another one goes.
pub(super) fn prepare(arriving: &Path, manifest: Digest) -> Result<(), StoreError> {
    let (mark, text) = (arriving.join("manifest.sha256"), format!("{manifest}\n"));
    let same = fileopen::read(&mark, 128).is_ok_and(|there| there == text.as_bytes());
    if !same {
        clear(arriving)?;
        make_folder(arriving)?;
        durable::replace(&mark, text.as_bytes(), 0o644).map_err(file_error(&mark))?;
    }
    Ok(())
}

/// Says before minutes of copying that there is no room.
pub(super) fn room(folder: &Path, arriving: &Path, manifest: &Manifest) -> Result<(), StoreError> {
    let there = |member: &Member| {
        fs::metadata(arriving.join(member.part.to_string())).map_or(0, |file| file.len())
    };
    let there = manifest.members.iter().fold(0, |sum: u64, it| sum.saturating_add(there(it)));
    let needed = manifest.total().saturating_sub(there);
    let space = fileopen::directory(folder).and_then(|folder| Ok(fstatvfs(&folder)?));
    let space = space.map_err(file_error(folder))?;
    let free = space.blocks_available().saturating_mul(space.fragment_size());
    if free < needed {
        let path = folder.to_owned();
        return Err(StoreError::NoRoom {
            path,
            free: free >> 20,
            needed: needed.div_ceil(1 << 20),
        });
    }
    Ok(())
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(super) fn copy_members(
    bundle: &Bundle,
    arriving: &Path,
    done: &mut impl FnMut(u64),
) -> Result<(), StoreError> {
    for (begin, member) in bundle.head().members() {
        let path = arriving.join(member.part.to_string());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let failed = file_error(&path);
        let file = fileopen::regular_with(&path, &mut options).map_err(&failed)?;
        let there = file.metadata().map_err(&failed)?.len();
        let kept = if there <= member.size { there } else { 0 };
        let mut right = copy(bundle.file(), begin, member, (&file, kept), done).map_err(&failed)?;
        if !right && there > 0 {
            // What an interrupted try left is not what it read: all of it anew.
            right = copy(bundle.file(), begin, member, (&file, 0), done).map_err(&failed)?;
        }
        if !right {
            return Err(StoreError::Damaged { path, remedy: COPY_AGAIN });
        }
    }
    Ok(())
}

/// Copies what is missing of a member behind what is kept; whether the whole is what was signed.
fn copy(
    from: &File,
    begin: u64,
    member: &Member,
    (to, kept): (&File, u64),
    done: &mut impl FnMut(u64),
) -> io::Result<bool> {
    to.set_len(kept)?;
    let mut running = Running::default();
    pieces(to, 0, kept, &mut *done, |piece| {
        running.update(piece);
        Ok(())
    })?;
    let mut at = kept;
    pieces(from, begin.saturating_add(kept), member.size.saturating_sub(kept), done, |piece| {
        running.update(piece);
        to.write_all_at(piece, at)?;
        at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(())
    })?;
    to.sync_all()?;
    Ok(running.finish() == member.sha256)
}
