//! What a Debian package says of itself, by dpkg's own reader.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};
use std::time::Duration;

use base::programs::Program;
use form::document::Mistake;

use crate::manifest::{Architecture, PACKAGE, PackageVersion};

/// How long dpkg's reader may take for the largest package.
const WITHIN: Duration = Duration::from_secs(120);

/// Why a package is not one that a bundle can bring. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// dpkg's reader is not there.
    #[error("`dpkg-deb` cannot be started: packages are read where Debian is")]
    NoReader(#[source] io::Error),
    /// The file is no Debian package; what dpkg's reader says of it.
    #[error(
        "it is not a Debian package ({0}): name the bulkhead_*.deb that `scripts/package` made"
    )]
    NotAPackage(String),
    /// The file is another package than Bulkhead's.
    #[error("it is the package {found}: name the one of `{PACKAGE}`, which ward PCs have")]
    Another {
        /// The name of that package.
        found: String,
    },
    /// What it says of itself cannot be.
    #[error("its control file says what no package does: {}; {}", .0.message, .0.help)]
    Said(Mistake),
}

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The version of the package.
    pub version: PackageVersion,
    /// The kind of PC that it is for.
    pub architecture: Architecture,
}

impl Control {
    /// Reads the control file of a package of Bulkhead's.
    ///
    /// # Errors
    /// It is no package, or another one.
    pub fn of(package: &File) -> Result<Self, PackageError> {
        let field = |name: &str| {
            let value = ask(package, ["--field", "-", name])?;
            Ok::<_, PackageError>(String::from_utf8_lossy(&value).trim().to_owned())
        };
        let found = field("Package")?;
        if found != PACKAGE {
            return Err(PackageError::Another { found: printable::line(&found).to_string() });
        }
        let version = field("Version")?.parse().map_err(PackageError::Said)?;
        let architecture = field("Architecture")?.parse().map_err(PackageError::Said)?;
        Ok(Self { version, architecture })
    }
}

/// Returns the digests of a package's files, as it brings them and dpkg keeps them.
///
/// # Errors
/// It is no package, or brings none.
pub fn digests(package: &File) -> Result<Vec<u8>, PackageError> {
    ask(package, ["--info", "-", "md5sums"])
}

/// Runs dpkg's reader with a package as its standard input; returns what it prints.
fn ask(package: &File, arguments: [&str; 3]) -> Result<Vec<u8>, PackageError> {
    let input = package.try_clone().and_then(|mut input| {
        // Where it stands, it stands for whoever read it before.
        input.seek(SeekFrom::Start(0))?;
        Ok(input)
    });
    let reader = Program::new("dpkg-deb", &arguments).within(WITHIN);
    let ended = reader.reading(input.map_err(PackageError::NoReader)?).run();
    let ended = ended.map_err(PackageError::NoReader)?;
    if ended.status.success() {
        return Ok(ended.output);
    }
    Err(PackageError::NotAPackage(ended.last_line()))
}
