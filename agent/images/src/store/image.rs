//! An installed image: its files, and whether they are what was signed.

use std::fs::{self, OpenOptions};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::error::{INSTALL_AGAIN, StoreError, file_error};
use crate::digest::Digest;
use crate::manifest::{Manifest, Member, Part};

/// An image of the store, of which nothing was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its manifest.
    pub manifest: Manifest,
    pub(super) folder: PathBuf,
}

impl Image {
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
    /// else of those that the guest does not check itself: disks are left out where the command line has a root hash for them, but for
    /// their size.
    ///
    /// # Errors
    /// One is not, or cannot be read.
    pub fn check(&self, all: bool, mut done: impl FnMut(u64)) -> Result<(), StoreError> {
        for member in &self.manifest.members {
            let path = self.path(member.part);
            let failed = |source| StoreError::File { path: path.clone(), source };
            let file = fileopen::regular(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let by_guest = matches!(member.part, Part::Disk(_)) && self.manifest.verity.is_some();
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

    /// Whether a VMM has one of its disks open: each locks it as long as it runs.
    pub(super) fn is_in_use(&self) -> bool {
        self.disks().any(|disk| {
            let mut options = OpenOptions::new();
            let opened = fileopen::regular_with(&disk, options.read(true).write(true));
            let lock = libc::flock {
                l_type: i16::try_from(libc::F_WRLCK).unwrap_or_default(),
                l_whence: i16::try_from(libc::SEEK_SET).unwrap_or_default(),
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            opened.is_ok_and(|file| {
                matches!(
                    fcntl(&file, FcntlArg::F_OFD_SETLK(&lock)),
                    Err(Errno::EAGAIN | Errno::EACCES)
                )
            })
        })
    }
}
