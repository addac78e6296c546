//! What a bundle says of the package in it: the text that officers sign.
//!
//! ```toml
//! format = 1
//! purpose = "program"
//! name = "bulkhead"              # the package; no other is taken
//! serial = 202611290900          # grows with every bundle
//! floor = 1                      # no older one comes onto a PC from now on
//! version = "0.3.0"              # as in the package's control file
//! architecture = "amd64"         # as there
//!
//! [package]
//! size = 5242880
//! sha256 = "..."
//! ```

use std::fmt::{self, Write as _};
use std::fs::File;
use std::str::FromStr;

use form::diagnostic::{Diagnostics, Source};
use form::document::{self, Form, Mistake, Value};
use images::container::{self, BundleError, Described};
use images::digest::Digest;
use images::preamble::Preamble;
use policy::signature::{ProgramManifest, Purpose};
use serde::{Deserialize, Serialize};

/// The only format of these manifests there is.
const FORMAT: u32 = 1;
/// What a manifest begins with.
const BUNDLE: Preamble = Preamble {
    purpose: Purpose::Program,
    what: "a program of Bulkhead's",
    right_one: "take the bundle that `bulkhead program pack` made",
    no_use: "this package itself could not be installed",
};
/// The package that a bundle brings, by its name at Debian.
pub const PACKAGE: &str = "bulkhead";
/// Largest package, in bytes: forty times today's. All of it is in memory when it is installed.
pub const PACKAGE_MAX: u64 = 256 << 20;
/// Longest version, in bytes.
const VERSION_MAX: usize = 64;
/// Longest name of an architecture, in bytes.
const ARCHITECTURE_MAX: usize = 32;

/// A package's version (deb-version(7)). Which of two is older, dpkg says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageVersion(String);

impl PackageVersion {
    /// Returns the version as Debian writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PackageVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PackageVersion {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b".+~:-".contains(&byte);
        let begins = text.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
        if begins && text.len() <= VERSION_MAX && text.bytes().all(inner) {
            return Ok(Self(text.to_owned()));
        }
        Err(Mistake::new(
            format!("\"{}\" is not a package's version", text.escape_debug()),
            "write what `dpkg-deb --field` says of the package, such as 0.3.0",
        ))
    }
}

impl TryFrom<String> for PackageVersion {
    type Error = Mistake;

    fn try_from(text: String) -> Result<Self, Mistake> {
        text.parse()
    }
}

impl From<PackageVersion> for String {
    fn from(version: PackageVersion) -> Self {
        version.0
    }
}

/// What kind of PC a package is for, as Debian calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Architecture(String);

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Architecture {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if (1..=ARCHITECTURE_MAX).contains(&text.len()) && text.bytes().all(legal) {
            return Ok(Self(text.to_owned()));
        }
        Err(Mistake::new(
            format!("\"{}\" is not an architecture", text.escape_debug()),
            "write what `dpkg-deb --field` says of the package, such as amd64",
        ))
    }
}

/// The one member of such a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package;

impl fmt::Display for Package {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("package")
    }
}

/// The package in a bundle, by size and digest.
pub type Member = container::Member<Package>;
/// A bundle that brings a package; it is open.
pub type Bundle = container::Bundle<Manifest>;
/// What such a bundle says of itself: nobody has vouched for it.
pub type Head = container::Head<Manifest>;
/// One that enough officers signed.
pub type ApprovedBundle = container::ApprovedBundle<Manifest>;

/// What a bundle says of its package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The number of the bundle, which grows with each.
    pub serial: u64,
    /// The lowest serial that may come onto a PC from then on; at most its own.
    pub floor: u64,
    /// The package's version.
    pub version: PackageVersion,
    /// The kind of PC that it is for.
    pub architecture: Architecture,
    /// The package's file: its size and hash.
    pub package: Member,
}

impl Described for Manifest {
    type Signed = ProgramManifest;
    type Part = Package;

    fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        document::read(&Source::new(source_name, text), read)
    }

    fn text(&self) -> String {
        let Self { serial, floor, version, architecture, package } = self;
        let mut text = BUNDLE.text(FORMAT, PACKAGE, *serial, *floor);
        // Strings take everything.
        let _ = write!(
            text,
            "version = \"{version}\"\narchitecture = \"{architecture}\"\n\n[package]\nsize = {}\nsha256 = \"{}\"\n",
            package.size, package.sha256
        );
        text
    }

    fn serial(&self) -> u64 {
        self.serial
    }

    fn members(&self) -> &[Member] {
        std::slice::from_ref(&self.package)
    }

    fn members_mut(&mut self) -> &mut [Member] {
        std::slice::from_mut(&mut self.package)
    }

    /// Checks nothing: what the package is, [`crate::package`] asks dpkg, once officers have signed for it.
    fn check(_: Package, _: &File, _: u64, _: u64) -> Result<(), BundleError> {
        Ok(())
    }
}

fn read(mut form: Form<'_>) -> Option<Manifest> {
    form.format(FORMAT, "manifest")?;
    BUNDLE.purpose(&mut form)?;
    let name = form.required("name", "\"bulkhead\"", |value| {
        value.choice("a package of Bulkhead's for ward PCs", &[(PACKAGE, ())])
    });
    let (serial, floor) = BUNDLE.serial_and_floor(&mut form);
    let version = form.required("version", "\"0.3.0\"", Value::parsed);
    let architecture = form.required("architecture", "\"amd64\"", Value::parsed);
    let package = form.required("package", "{ size = 1, sha256 = \"...\" }", |value| {
        let mut form = value.form("[package]")?;
        let size = form.required("size", "5242880", |value| {
            value.integer("the size in bytes", 1..=PACKAGE_MAX)
        });
        let sha256: Option<Digest> = form.required("sha256", "\"...\"", Value::parsed);
        form.close();
        Some(Member { part: Package, size: size?, sha256: sha256? })
    });
    form.close();
    name?;
    Some(Manifest {
        serial: serial?,
        floor: floor?,
        version: version?,
        architecture: architecture?,
        package: package?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            serial: 7,
            floor: 5,
            version: "0.3.0~rc1+1-2".parse().unwrap(),
            architecture: "amd64".parse().unwrap(),
            package: Member { part: Package, size: 9, sha256: Digest::of(b"package") },
        }
    }

    #[test]
    fn a_manifest_is_read_back_as_it_was_written() {
        let text = manifest().text();
        assert_eq!(Manifest::parse("the manifest", &text).unwrap(), manifest());
    }

    #[test]
    fn a_manifest_with_anything_wrong_in_it_is_refused_with_what_to_write() {
        for (from, to, says) in [
            ("\"program\"", "\"image\"", "a guest image, and not a program"),
            ("\"program\"", "\"policy\"", "a policy, and not a program"),
            ("\"bulkhead\"", "\"bulkhead-tools\"", "a package of Bulkhead's for ward PCs"),
            ("floor = 5", "floor = 8", "above the serial 7"),
            ("serial = 7", "serial = 0", "the serial"),
            ("0.3.0~rc1+1-2", "../0.3", "not a package's version"),
            ("0.3.0~rc1+1-2", "0 --force", "not a package's version"),
            ("amd64", "AMD 64", "not an architecture"),
            ("size = 9", "size = 268435457", "the size in bytes"),
            ("size = 9", "size = 0", "the size in bytes"),
            ("floor = 5", "floor = 5\nmore = 1", "more"),
            ("format = 1", "format = 2", "for a newer Bulkhead"),
        ] {
            let text = manifest().text();
            assert!(text.contains(from), "{from}");
            let refused = Manifest::parse("the manifest", &text.replacen(from, to, 1)).unwrap_err();
            assert!(refused.to_string().contains(says), "{to}: {refused}");
        }
    }

    #[test]
    fn a_guest_images_manifest_is_told_which_command_is_for_it_and_nothing_else() {
        let text = "format = 1\npurpose = \"image\"\nname = \"clinical\"\nserial = 1\nfloor = 1\ncmdline = \"quiet\"\n";
        let refused = Manifest::parse("the manifest", text).unwrap_err();
        let says = "this bundle is a guest image, and not a program of Bulkhead's; use `bulkhead images install`";
        assert!(refused.to_string().contains(says), "{refused}");
        assert_eq!(refused.iter().count(), 1, "{refused}");
    }

    #[test]
    fn a_manifest_that_says_no_purpose_is_told_so_and_what_else_is_wrong() {
        let text = manifest().text().replace("purpose = \"program\"\n", "").replace("amd64", "AMD");
        let refused = Manifest::parse("the manifest", &text).unwrap_err().to_string();
        assert!(refused.contains("has no `purpose`"), "{refused}");
        assert!(refused.contains("not an architecture"), "{refused}");
    }
}
