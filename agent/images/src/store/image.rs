//! An installed image.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use policy::signature::{ImageManifest, Signatures};

use super::{INSTALL_AGAIN, StoreError, file_error};
use crate::digest::Digest;
use crate::manifest::{Manifest, Member, Part};

/// Longest text of signatures in the store, in bytes: as long as a bundle has room for.
const SIGNATURES_MAX: u64 = 16 << 10;

/// An image of the store, of which nothing was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// What the image says of itself, as it was installed.
    pub manifest: Manifest,
    /// The manifest's text, as it was signed.
    pub(super) text: String,
    pub(super) folder: PathBuf,
}

impl Image {
    /// Returns the digest of its manifest, by which it is told from any other.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    fn path(&self, part: Part) -> PathBuf {
        self.folder.join(part.to_string())
    }

    /// Returns the kernel's file.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.path(Part::Kernel)
    }

    /// Returns the initrd's, if it has one.
    #[must_use]
    pub fn initrd(&self) -> Option<PathBuf> {
        let is_initrd = |member: &&Member| member.part == Part::Initrd;
        self.manifest.members.iter().find(is_initrd).map(|member| self.path(member.part))
    }

    /// Returns the disks' files, in the order in which the guest sees them.
    pub fn disks(&self) -> impl Iterator<Item = PathBuf> {
        let is_disk = |member: &&Member| matches!(member.part, Part::Disk(_));
        self.manifest.members.iter().filter(is_disk).map(|member| self.path(member.part))
    }

    /// Reads the files and checks that they are what the manifest says; `done` is told how many bytes at each step. Of `all` members, or
    /// else of those that the guest does not check itself: of the first disk only the size counts, if the command line has a root hash for it.
    ///
    /// # Errors
    /// One is not, or cannot be read.
    pub fn check(&self, all: bool, mut done: impl FnMut(u64)) -> Result<(), StoreError> {
        for member in &self.manifest.members {
            let path = self.path(member.part);
            let failed = |source| StoreError::File { path: path.clone(), source };
            let file = fileopen::regular(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let by_guest = self.manifest.is_checked_by_guest(member.part);
            let right = length == member.size
                && (by_guest && !all
                    || Digest::of_file(&file, 0, length, &mut done).map_err(failed)?
                        == member.sha256);
            if !right {
                return Err(StoreError::Damaged { path, remedy: INSTALL_AGAIN });
            }
        }
        Ok(())
    }

    /// Checks that the files are there, with the sizes of the manifest, without reading them.
    ///
    /// # Errors
    /// One is not.
    pub fn check_sizes(&self) -> Result<(), StoreError> {
        for member in &self.manifest.members {
            let path = self.path(member.part);
            let length = fs::metadata(&path).map_err(file_error(&path))?.len();
            if length != member.size {
                return Err(StoreError::Damaged { path, remedy: INSTALL_AGAIN });
            }
        }
        Ok(())
    }

    /// Returns its signatures, which nobody has looked at.
    pub(super) fn signatures(&self) -> Result<Signatures<ImageManifest>, StoreError> {
        let path = self.folder.join("manifest.toml.sig");
        let bytes = fileopen::read(&path, SIGNATURES_MAX).map_err(file_error(&path))?;
        let damaged = || StoreError::Damaged { path: path.clone(), remedy: INSTALL_AGAIN };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        Signatures::parse(&path.display().to_string(), text).map_err(|_| damaged())
    }

    /// Returns whether a VMM has one of its disks open: each locks it as long as it runs. It takes no lock, which could be in the way of one that
    /// starts.
    pub(super) fn is_in_use(&self) -> bool {
        self.disks().any(|disk| is_locked(&disk))
    }
}

fn is_locked(disk: &Path) -> bool {
    let mut lock = libc::flock {
        l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
        l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let opened = fileopen::regular_with(disk, OpenOptions::new().read(true));
    opened.is_ok_and(|file| {
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok()
            && i32::from(lock.l_type) != libc::F_UNLCK
    })
}
