//! Why something is not done with the store.

use std::io;
use std::path::{Path, PathBuf};

use policy::signature::Refusal;

use crate::manifest::{ImageName, Version};
use crate::record::NotSo;

/// Why something is not done with the store. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The record does not allow it.
    #[error("image {name}: {why}")]
    NotSo {
        /// The image.
        name: ImageName,
        /// Why.
        why: NotSo,
    },
    /// No image of this name was ever installed.
    #[error("there is no image {0}: install one with `bulkhead images install FILE`")]
    Unknown(ImageName),
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
        /// The image.
        name: ImageName,
        /// What it needs.
        needed: Version,
    },
    /// There is not enough room.
    #[error("{} has room for {free} MiB, and {needed} MiB are to come: remove an image with `bulkhead images remove`, or give it a larger disk; nothing was installed", path.display())]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// MiB that are free.
        free: u64,
        /// MiB that are missing of the image.
        needed: u64,
    },
    /// A file is not what was signed.
    #[error("{} is not what was signed: {remedy}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// What was installed is not signed by enough officers any more.
    #[error("image {name} {serial}: {why}")]
    Refused {
        /// The image.
        name: ImageName,
        /// Its serial.
        serial: u64,
        /// Why.
        why: Box<Refusal>,
    },
    /// A VMM has its disk open.
    #[error("image {name} {serial} is used by a domain that runs: start that anew first")]
    InUse {
        /// The image.
        name: ImageName,
        /// Its serial.
        serial: u64,
    },
    /// Another command is at it.
    #[error("another command installs or removes image {0}: wait for that")]
    Busy(ImageName),
    /// The record is not one.
    #[error("{} cannot be used: put back what a backup has of it; without one move {} away and install the images again", path.display(), path.parent().unwrap_or(path).display())]
    Record {
        /// The record.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}{}", path.display(), if source.kind() == io::ErrorKind::PermissionDenied { ": run this as root" } else { "" })]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What to do where a bundle is not.
pub(super) const COPY_AGAIN: &str = "the bundle is damaged, copy it again; nothing was installed";
/// What to do where an installed image is not what was signed.
pub(super) const INSTALL_AGAIN: &str = "activate another image, remove this one with `bulkhead images remove`, and install its bundle again";

/// Makes an error of this file of what the system says.
pub(super) fn file_error(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { path: path.clone(), source }
}
