//! A bundle is made of a package.

use std::path::{Path, PathBuf};

use images::digest::Digest;
use images::writing::{self, PackError};
use policy::signature::SecretKey;

use crate::manifest::{Manifest, Member, PACKAGE_MAX, Package};
use crate::package::{Control, PackageError};

pub use images::writing::SigningOutcome;

/// A bundle that an officer looks at, and then signs.
pub type Signing = writing::Signing<Manifest>;

/// Why no bundle was made.
#[derive(Debug, thiserror::Error)]
pub enum NotPacked {
    /// The package is none that a bundle brings.
    #[error("{}", path.display())]
    Package {
        /// The path of the package.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: PackageError,
    },
    /// The bundle cannot be made.
    #[error(transparent)]
    Bundle(#[from] PackError),
}

/// Makes a bundle at `out` of a package, in the place of one that nobody has signed; version and architecture are the package's own.
///
/// # Errors
/// It is no package of Bulkhead's, or the bundle cannot be written.
pub fn pack(
    package: &Path,
    (serial, floor): (u64, u64),
    key: Option<&SecretKey>,
    out: &Path,
    done: impl FnMut(u64),
) -> Result<Manifest, NotPacked> {
    let (file, size) = writing::source(package, "package", PACKAGE_MAX)?;
    let wrong = |source| NotPacked::Package { path: package.to_owned(), source };
    let Control { version, architecture } = Control::of(&file).map_err(wrong)?;
    let member = Member { part: Package, size, sha256: Digest::of(&[]) };
    let manifest = Manifest { serial, floor, version, architecture, package: member };
    Ok(writing::write(manifest, &[(package.to_owned(), file)], key, out, done)?)
}
