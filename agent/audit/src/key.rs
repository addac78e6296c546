//! The key that signs checkpoints: made at the first start, for this purpose alone (K-2.2.2), never logged.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::entry::{Hash, from_hex};
use crate::replace::replace;

/// What every signed message begins with.
const PURPOSE: &[u8] = b"Bulkhead audit checkpoint, format 2\0";
/// The same in logs of format 1, which are still verified and not written any more.
const PURPOSE_1: &[u8] = b"Bulkhead audit checkpoint, format 1\0";
/// The public half in the log's own directory, for whoever has no more than that.
pub const PUBLIC_FILE: &str = "audit.pub";
const SECRET: &str = "ed25519-audit-secret:";
const PUBLIC: &str = "ed25519-audit:";
/// Longest key file, in bytes.
const FILE_MAX: u64 = 1024;
/// Bytes set aside to read one: more than the longest has, so that reading never makes more room.
const ROOM: usize = 2048;

/// Returns what is signed: a checkpoint's line as it would be without its signature, by its hash.
fn message(unsigned: Hash) -> Vec<u8> {
    [PURPOSE, &unsigned.0].concat()
}

fn message_1(seq: u64, prev: Hash) -> Vec<u8> {
    [PURPOSE_1, &seq.to_be_bytes(), &prev.0].concat()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns a secret key as its file has it. The text is written once, into memory of its size, so that no copy of the key stays in memory
/// that a growing text has left.
fn secret_text(bytes: &[u8; 32]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(SECRET.len() + 2 * bytes.len() + 1));
    text.push_str(SECRET);
    for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]) {
        text.extend(char::from_digit(digit.into(), 16));
    }
    text.push('\n');
    text
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key's file cannot be read or made.
    #[error("cannot use the audit key {}: check the rights of its directory", path.display())]
    File {
        /// The key's file, which could not be used.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else than a key.
    #[error("{} is not an audit key: put it aside, and a new one is made at the next start", .0.display())]
    NotAKey(PathBuf),
}

/// The secret half of the PC's Ed25519 key, which signs checkpoints.
pub struct AuditKey(SigningKey);

impl AuditKey {
    /// Opens the key in a file; makes one if there is none, readable by its owner alone, its public half beside it as `.pub`.
    ///
    /// # Errors
    /// It can be neither read nor made.
    pub fn open(path: &Path) -> Result<Self, KeyError> {
        let failed = |source| KeyError::File { path: path.to_owned(), source };
        let key = match fileopen::regular(path) {
            Ok(file) => {
                // With room for all of it from the start: what grows leaves copies of the key behind.
                let mut text = Zeroizing::new(Vec::with_capacity(ROOM));
                file.take(FILE_MAX).read_to_end(&mut text).map_err(failed)?;
                let digits =
                    std::str::from_utf8(&text).ok().and_then(|t| t.trim().strip_prefix(SECRET));
                let bytes = digits.and_then(from_hex::<32>).map(Zeroizing::new);
                let bytes = bytes.ok_or_else(|| KeyError::NotAKey(path.to_owned()))?;
                Self(SigningKey::from_bytes(&bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut bytes = Zeroizing::new([0; 32]);
                getrandom::fill(bytes.as_mut_slice()).map_err(|e| failed(io::Error::other(e)))?;
                let key = Self(SigningKey::from_bytes(&bytes));
                let text = secret_text(&bytes);
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(path)
                    .map_err(failed)?;
                file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
                key
            }
            Err(error) => return Err(failed(error)),
        };
        let public = format!("{}\n", key.public().text());
        replace(&path.with_extension("pub"), &public, 0o644).map_err(failed)?;
        Ok(key)
    }

    /// Returns the public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(crate) fn sign(&self, unsigned: Hash) -> String {
        hex(&self.0.sign(&message(unsigned)).to_bytes())
    }
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AuditKey of {}", self.public().text())
    }
}

/// The public half, which verifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Reads what [`PublicKey::text`] wrote; `None` if it is something else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = from_hex::<32>(text.trim().strip_prefix(PUBLIC)?)?;
        VerifyingKey::from_bytes(&bytes).ok().map(Self)
    }

    /// Returns its text, as the `.pub` file has it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{PUBLIC}{}", hex(self.0.as_bytes()))
    }

    pub(crate) fn verifies(&self, unsigned: Hash, signature: &str) -> bool {
        self.signed(&message(unsigned), signature)
    }

    /// Returns whether a signature of format 1 is this key's.
    pub(crate) fn verifies_1(&self, seq: u64, prev: Hash, signature: &str) -> bool {
        self.signed(&message_1(seq, prev), signature)
    }

    fn signed(&self, message: &[u8], signature: &str) -> bool {
        from_hex::<64>(signature).is_some_and(|bytes| {
            self.0.verify_strict(message, &Signature::from_bytes(&bytes)).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_secret_key_is_written_once_into_memory_of_its_size() {
        let text = secret_text(&[0xa5; 32]);
        assert_eq!(*text, format!("{SECRET}{}\n", "a5".repeat(32)));
        assert_eq!(text.capacity(), text.len(), "a text that grew leaves copies of the key behind");
    }

    #[test]
    fn a_key_that_was_made_is_the_key_that_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.key");
        let made = AuditKey::open(&path).unwrap().public();
        assert_eq!(AuditKey::open(&path).unwrap().public(), made);
        fs::write(&path, b"\xff").unwrap();
        assert!(matches!(AuditKey::open(&path), Err(KeyError::NotAKey(_))));
    }
}
