//! Disks that forget: a domain with `persistence = "discard"` writes to copies made at its start.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

use base::layout::{self, Layout};
use config::machine::Disk;

/// A disk that could not be made ready. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The base is not what can be copied.
    #[error("{} is not a regular file, and the domain forgets what it writes: give it an image file, or write `readonly = true`", .0.display())]
    NotAFile(PathBuf),
    /// A disk could not be copied for this start.
    #[error("cannot copy {} for this start: check that it exists and that its copy has room in {}", base.display(), copy.display())]
    Copy {
        /// The image that was to be copied.
        base: PathBuf,
        copy: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Returns the files that a start opens: the disk itself, or where its copy goes.
#[must_use]
pub fn files(domain: &str, disks: &[Disk], discard: bool, layout: &Layout) -> Vec<PathBuf> {
    let copy = |index: usize| layout.discard(domain).join(format!("disk{index}.img"));
    let one = |(index, disk): (usize, &Disk)| {
        if discard && !disk.readonly { copy(index) } else { disk.path.clone() }
    };
    disks.iter().enumerate().map(one).collect()
}

/// Makes the copies anew, on file systems that can by sharing blocks. May take minutes: only in
/// a background job.
pub fn prepare(
    domain: &str,
    disks: &[Disk],
    discard: bool,
    layout: &Layout,
) -> Result<(), DiskError> {
    for (disk, file) in disks.iter().zip(files(domain, disks, discard, layout)) {
        if file == disk.path {
            continue;
        }
        let failed =
            |source| DiskError::Copy { base: disk.path.clone(), copy: file.clone(), source };
        if !fs::metadata(&disk.path).map_err(failed)?.is_file() {
            return Err(DiskError::NotAFile(disk.path.clone()));
        }
        layout::directory(&layout.discard(domain), 0o700)
            .map_err(|e| failed(io::Error::other(e)))?;
        copy_sparse(&disk.path, &file).map_err(failed)?;
    }
    Ok(())
}

/// Forgets what the domain wrote.
pub fn forget(domain: &str, layout: &Layout) {
    match fs::remove_dir_all(layout.discard(domain)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(domain, "cannot remove the copies of its disks: {error}");
        }
        _ => {}
    }
}

/// Copies only what the file holds; its holes stay holes.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    let source = fileopen::regular(from)?;
    let length = source.metadata()?.len();
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let target = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    target.set_len(length)?;
    let end = i64::try_from(length).map_err(io::Error::other)?;
    let mut at = 0;
    while at < end {
        at = match lseek(&source, at, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let hole = lseek(&source, at, Whence::SeekHole)?;
        lseek(&source, at, Whence::SeekSet)?;
        lseek(&target, at, Whence::SeekSet)?;
        // Shares blocks where the file system can, and falls back to copying across two of them.
        let extent = u64::try_from(hole - at).map_err(io::Error::other)?;
        if io::copy(&mut (&source).take(extent), &mut &target)? != extent {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        at = hole;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    fn layout(dir: &Path) -> Layout {
        Layout { images: dir.join("images"), state: dir.join("state"), runtime: dir.join("run") }
    }

    #[test]
    fn a_domain_that_forgets_writes_to_a_copy_and_one_that_keeps_to_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let disks = [
            Disk { path: "/i/root.img".into(), readonly: true },
            Disk { path: "/i/home.img".into(), readonly: false },
        ];
        assert_eq!(
            files("internet", &disks, false, &layout),
            [PathBuf::from("/i/root.img"), "/i/home.img".into()]
        );
        let copy = layout.state.join("discard/internet/disk1.img");
        assert_eq!(files("internet", &disks, true, &layout), [PathBuf::from("/i/root.img"), copy]);
    }

    #[test]
    fn a_copy_has_the_content_and_the_holes_of_its_base_and_replaces_the_last_one() {
        let dir = tempfile::tempdir().unwrap();
        let layout = layout(dir.path());
        let base = dir.path().join("base.img");
        let file = fs::File::create(&base).unwrap();
        file.set_len(64 << 20).unwrap();
        file.write_all_at(b"start", 0).unwrap();
        file.write_all_at(b"middle", 32 << 20).unwrap();
        let disks = [Disk { path: base.clone(), readonly: false }];
        prepare("internet", &disks, true, &layout).unwrap();
        let copy = &files("internet", &disks, true, &layout)[0];
        fs::OpenOptions::new().write(true).open(copy).unwrap().write_all_at(b"virus", 0).unwrap();
        prepare("internet", &disks, true, &layout).unwrap();
        assert!(fs::read(copy).unwrap() == fs::read(&base).unwrap());
        assert!(fs::metadata(copy).unwrap().blocks() * 512 < 8 << 20);
        forget("internet", &layout);
        assert!(!copy.exists());
    }

    #[test]
    fn a_missing_base_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let disks = [Disk { path: dir.path().join("gone.img"), readonly: false }];
        let error = prepare("internet", &disks, true, &layout(dir.path())).unwrap_err();
        assert!(error.to_string().contains("gone.img"), "{error}");
    }
}
