//! Versions of Bulkhead: which of them read what the policy says.
//!
//! `format` changes when an older Bulkhead would *misread* a policy. A key that is new and may be left out changes no
//! format: an older PC refuses a policy that has it, says so, and goes on with the last one it took. So that nobody is
//! surprised by that on the ward, each such key names the version that brought it where it is read
//! ([`Form::optional_since`](crate::document::Form::optional_since)), and `bulkhead policy check --for-version` tells.

use std::fmt;
use std::str::FromStr;

use crate::diagnostic::{Diagnostic, Span};

/// A version of Bulkhead, as `bulkhead --version` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

/// A text that is no [`Version`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is not a version of Bulkhead; write what `bulkhead --version` prints on the PC, as 0.1.0", .0.escape_debug())]
pub struct NoVersion(String);

impl Version {
    /// Makes the version `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Returns the version of this program.
    ///
    /// # Errors
    /// The package was given a version that is none.
    pub fn this() -> Result<Self, NoVersion> {
        env!("CARGO_PKG_VERSION").parse()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = NoVersion;

    fn from_str(text: &str) -> Result<Self, NoVersion> {
        let number = |part: Option<&str>| {
            let part = part.filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
            part.and_then(|part| part.parse::<u32>().ok())
        };
        let mut parts = text.split('.');
        let (major, minor, patch) =
            (number(parts.next()), number(parts.next()), number(parts.next()));
        match (major, minor, patch, parts.next()) {
            (Some(major), Some(minor), Some(patch), None) => Ok(Self { major, minor, patch }),
            _ => Err(NoVersion(text.to_owned())),
        }
    }
}

/// Something in a policy that not every version reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newer {
    /// Where it stands in the text.
    pub span: Span,
    /// What it is, as "the key `reasons` of \[break_glass\]".
    pub what: String,
    /// The first version that reads it.
    pub since: Version,
}

impl Newer {
    /// Returns why a PC of this version refuses the policy; `None` if it reads it.
    pub fn refused_by(&self, version: Version) -> Option<Diagnostic> {
        (version < self.since).then(|| {
            Diagnostic::error(
                self.span,
                format!("Bulkhead {version} does not know {}", self.what),
                format!(
                    "a PC of that version refuses this policy and goes on with the last one it took: update it to {} or \
                     newer first, or leave this out",
                    self.since
                ),
            )
        })
    }
}
