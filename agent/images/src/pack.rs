//! Bundles of guest images are made, and signed.

use std::path::{Path, PathBuf};

use policy::signature::SecretKey;

use crate::digest::Digest;
use crate::kernel;
use crate::manifest::{ImageName, Manifest, Member, Needs, Part};
use crate::writing;

pub use crate::writing::{PackError, SigningOutcome};

/// A bundle that an officer looks at, and then signs.
pub type Signing = writing::Signing<Manifest>;

/// What a bundle is made of.
#[derive(Debug)]
pub struct Contents {
    /// What `machine.toml` calls the image.
    pub name: ImageName,
    /// Its serial, as in [`Manifest::serial`].
    pub serial: u64,
    /// The floor that it brings, as in [`Manifest::floor`].
    pub floor: u64,
    /// The kernel command line.
    pub cmdline: String,
    /// The root hash in the command line.
    pub verity: Option<Digest>,
    /// In how many seconds its guest says that it is up, as in [`Manifest::health`].
    pub health: Option<u16>,
    /// What it needs of the PC.
    pub needs: Needs,
    /// The files, in the order of the bundle.
    pub files: Vec<(Part, PathBuf)>,
}

/// Makes a bundle at `out`, in the place of one that is there; `done` is told how many bytes at each step. Whatever goes wrong, `out` has
/// its former content.
///
/// # Errors
/// A file cannot be read, is too long or was changed meanwhile; the bundle cannot be written; or what it would say is not right.
pub fn pack(
    contents: &Contents,
    key: Option<&SecretKey>,
    out: &Path,
    done: impl FnMut(u64),
) -> Result<Manifest, PackError> {
    let mut members = Vec::new();
    let mut files = Vec::new();
    for (part, path) in &contents.files {
        let (part, path) = (*part, path.clone());
        let (file, size) = writing::source(&path, part.word(), part.largest())?;
        if part == Part::Kernel {
            let checked = kernel::check(&file, 0, size);
            let checked =
                checked.map_err(|source| PackError::Read { path: path.clone(), source })?;
            checked.map_err(|why| PackError::NotAKernel { path: path.clone(), why })?;
        }
        members.push(Member { part, size, sha256: Digest::of(&[]) });
        files.push((path, file));
    }
    let manifest = Manifest {
        name: contents.name.clone(),
        serial: contents.serial,
        floor: contents.floor,
        cmdline: contents.cmdline.clone(),
        verity: contents.verity,
        health: contents.health,
        needs: contents.needs,
        members,
    };
    writing::write(manifest, &files, key, out, done)
}
