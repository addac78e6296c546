//! Keys and signatures, and how they are written.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::document::Mistake;

/// How a key's text begins.
const ALGORITHM: &str = "ed25519:";
const SECRET: &str = "ed25519-secret:";

/// An officer's public key, written `ed25519:` and 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// Returns whether `signature` is this key's over `message`. Strict: no weak key, no second form of one signature.
    pub(super) fn verifies(&self, message: &[u8], signature: &SignatureBytes) -> bool {
        self.0.verify_strict(message, &Signature::from_bytes(&signature.0)).is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let mistake = || {
            Mistake::new(
                "this is not an officer's public key",
                "copy the line from the .pub file that `bulkhead policy keygen` made",
            )
        };
        let digits = text.strip_prefix(ALGORITHM).ok_or_else(mistake)?;
        let bytes = from_hex::<32>(digits).ok_or_else(mistake)?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|_| mistake())?;
        if key.is_weak() {
            return Err(Mistake::new(
                "this key would accept signatures that nobody made",
                "make a new one with `bulkhead policy keygen`",
            ));
        }
        Ok(Self(key))
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM}{}", Hex(self.0.as_bytes()))
    }
}

/// An officer's secret key. Its bytes are wiped when it goes, and it prints as nothing.
#[derive(Clone)]
pub struct SecretKey(SigningKey);

impl SecretKey {
    /// Makes the key that 32 random bytes stand for. They have to come from the operating system (K-2.3.1).
    #[must_use]
    pub fn from_random(bytes: &Zeroizing<[u8; 32]>) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// Reads what [`SecretKey::text`] wrote.
    ///
    /// # Errors
    /// It is something else. The message does not quote it.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let digits = text.trim().strip_prefix(SECRET);
        let bytes = digits.and_then(from_hex::<32>).map(Zeroizing::new);
        bytes.as_ref().map(Self::from_random).ok_or_else(|| {
            Mistake::new(
                "this is not an officer's secret key",
                "name the file that `bulkhead policy keygen` made, not the .pub file beside it",
            )
        })
    }

    /// Returns the text of the key's file, which its officer alone may read.
    #[must_use]
    pub fn text(&self) -> Zeroizing<String> {
        let bytes = Zeroizing::new(self.0.to_bytes());
        // Written once, into memory of its size: a text that grows leaves copies of the key behind.
        let length = SECRET.len() + 2 * bytes.len() + 1;
        let mut text = Zeroizing::new(String::with_capacity(length));
        text.push_str(SECRET);
        for digit in bytes.iter().flat_map(|byte| [byte >> 4, byte & 0x0f]) {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text.push('\n');
        text
    }

    /// Returns the other half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    pub(super) fn signing(&self) -> &SigningKey {
        &self.0
    }

    pub(super) fn from_signing(key: SigningKey) -> Self {
        Self(key)
    }

    pub(super) fn sign(&self, message: &[u8]) -> SignatureBytes {
        SignatureBytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey of {}", self.public())
    }
}

/// 64 bytes that claim to be a signature, written as 128 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignatureBytes([u8; 64]);

impl FromStr for SignatureBytes {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        from_hex(text).map(Self).ok_or_else(|| {
            Mistake::new(
                "this is not a signature",
                "have the policy signed anew; nobody edits this file",
            )
        })
    }
}

impl fmt::Display for SignatureBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Hex(&self.0))
    }
}

struct Hex<'b>(&'b [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}
