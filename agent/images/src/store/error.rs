//! Why something is not done with the store.

use std::io;
use std::path::PathBuf;

use policy::signature::Refusal;

use crate::manifest::{ImageName, Version};
use crate::record::Rejection;

/// Why something is not done with the store. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record does not allow it.
    #[error("image {name}: {why}")]
    Rejected {
        /// The image that it is about.
        name: ImageName,
        /// Why the record does not allow it.
        why: Rejection,
    },
    /// No image of this name was ever installed.
    #[error("there is no image {0}: install one with `bulkhead images install FILE`")]
    Unknown(ImageName),
    /// Where the image would lie somebody has laid down something else.
    #[error("{} is there, and was not installed: move it away, or delete it, and install again; nothing was installed", .0.display())]
    InTheWay(PathBuf),
    /// None of this name is in force.
    #[error(
        "image {0} is installed, and none of it is activated: run `bulkhead images activate {0}`"
    )]
    NotActivated(ImageName),
    /// The image is for a newer Bulkhead.
    #[error(
        "image {name} needs Bulkhead {needed} or newer, and this is {}: update Bulkhead first",
        Version::own()
    )]
    NeedsNewer {
        /// The image that is too new for this Bulkhead.
        name: ImageName,
        /// The oldest version of Bulkhead that it runs on.
        needed: Version,
    },
    /// There is not enough room.
    #[error("{} has room for {free} MiB, and {needed} MiB are to come, with 1024 that stay free: remove an image with `bulkhead images remove`, or give it a larger disk; nothing was installed", path.display())]
    NoRoom {
        /// The directory that is to hold the image.
        path: PathBuf,
        /// MiB that are free.
        free: u64,
        /// MiB that are missing of the image, and that are to stay free.
        needed: u64,
    },
    /// There is room, and no file can be made.
    #[error("{} has {free} MiB free and takes no more files (`df -i` shows it): delete some, or give it a larger disk; nothing was installed", path.display())]
    NoFiles {
        /// The directory that is to hold the image.
        path: PathBuf,
        /// MiB that are free.
        free: u64,
    },
    /// A file is not what was signed.
    #[error("{} is not what was signed: {remedy}", path.display())]
    Damaged {
        /// The file that differs from what was signed.
        path: PathBuf,
        /// What a person is to do about it.
        remedy: &'static str,
    },
    /// What was installed is not signed by enough officers any more.
    #[error("image {name} {serial}: {why}")]
    Refused {
        /// The image whose signatures do not suffice.
        name: ImageName,
        /// The serial of that image.
        serial: u64,
        /// Why its signatures do not suffice.
        why: Box<Refusal>,
    },
    /// The domain cannot run it.
    #[error("{0}")]
    Unfit(String),
    /// A VMM has its disk open.
    #[error("image {name} {serial} is used by a domain that runs: start that anew first")]
    InUse {
        /// The image whose disk is open.
        name: ImageName,
        /// The serial of that image.
        serial: u64,
    },
    /// Another command is at it.
    #[error("another command installs or removes image {0}: wait for that")]
    Busy(ImageName),
    /// The record is not one.
    #[error("{} cannot be used: put back what a backup has of it; without one move {} away and install the images again", path.display(), path.parent().unwrap_or(path).display())]
    Record {
        /// The record's file, in the image's directory.
        path: PathBuf,
    },
    /// What is to be done cannot be noted for the audit log.
    #[error("it cannot be noted for the audit log, so it is not done{}", if source.kind() == io::ErrorKind::PermissionDenied { ": run this as root" } else { "" })]
    NotNoted {
        /// Why the note cannot be written.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { ": run this as root" } else { "" })]
    File {
        /// The file or directory that was tried.
        path: PathBuf,
        /// Why it cannot be read or written.
        #[source]
        source: io::Error,
    },
}

impl StoreError {
    /// Returns whether the disk is full, or the quota.
    pub(super) fn is_full(&self) -> bool {
        let (Self::File { source, .. } | Self::NotNoted { source }) = self else { return false };
        is_full(source)
    }
}

/// Returns whether an error says that a disk is full, or a quota.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
