//! SHA-256 digests, and what is hashed while it is read.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use form::document::Mistake;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Bytes that are read, hashed and written at once: few system calls, and little memory.
pub(crate) const PIECE: usize = 1 << 20;

/// A SHA-256 digest, written as 64 hex digits in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Hashes bytes that are in memory.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Returns the 32 bytes of the hash.
    #[must_use]
    pub const fn bytes(&self) -> [u8; 32] {
        self.0
    }

    /// Hashes `length` bytes of a file from `offset` on; `hashed` is told how many at each step.
    ///
    /// # Errors
    /// The file cannot be read, or ends before (`UnexpectedEof`).
    pub fn of_file(
        file: &File,
        offset: u64,
        length: u64,
        hashed: impl FnMut(u64),
    ) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        pieces(file, offset, length, hashed, |piece| {
            hasher.update(piece);
            Ok(())
        })?;
        Ok(hasher.finish())
    }
}

/// A digest that is being made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hasher(Sha256);

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Gives `length` bytes of a file to `take`, piece by piece; `done` is told how many after each.
pub(crate) fn pieces(
    file: &File,
    offset: u64,
    length: u64,
    mut done: impl FnMut(u64),
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let wanted = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let place = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(place, offset.saturating_add(at))?;
        take(place)?;
        let read = u64::try_from(wanted).unwrap_or(u64::MAX);
        at = at.saturating_add(read);
        done(read);
    }
    Ok(())
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let wrong = || {
            Mistake::new(
                "this is not a SHA-256 digest",
                "write 64 hex digits in lower case, as `sha256sum` does",
            )
        };
        let legal = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 64 || !text.as_bytes().iter().all(legal) {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Mistake;

    fn try_from(text: String) -> Result<Self, Mistake> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        let mut text = Self::with_capacity(64);
        // A string takes everything.
        let _ = write!(text, "{digest}");
        text
    }
}
