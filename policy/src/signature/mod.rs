//! Who stands behind a policy: detached Ed25519 signatures (RFC 8032), and the officers a PC trusts.
//!
//! ```text
//!   policy.toml ----------------+                      trust.toml: who may sign,
//!                               v                      and how many must
//!   officer's key --> sign --> policy.toml.sig ---+        |
//!                                                 v        v
//!                              text, signatures, TrustStore::approve --> Approval | Refusal
//! ```
//!
//! What is signed is a purpose, then the policy's text byte for byte: a signature made for something else is none for a
//! policy (K-2.2.2). An [`Approval`] can be had from [`TrustStore::approve`] alone.

mod encrypted;
mod key;
mod trust;

use std::fmt::Write as _;

use crate::diagnostic::{Diagnostics, Source};
use crate::document;

pub use encrypted::PASSPHRASE_MIN;
pub use key::{PublicKey, SecretKey, SignatureBytes};
pub use trust::{Approval, Officer, Refusal, TrustStore};

/// What every signed message begins with.
const PURPOSE: &[u8] = b"Bulkhead separation policy, signature format 1\0";
/// The format of signature files and trust stores this crate reads.
const FORMAT: u32 = 1;
/// Signatures of one policy, and officers of one PC.
const SIGNERS_MAX: usize = 64;

fn message(text: &str) -> Vec<u8> {
    [PURPOSE, text.as_bytes()].concat()
}

/// The signatures of one policy: what is in `policy.toml.sig`. Nothing is known of them until a [`TrustStore`] has looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signatures(Vec<(PublicKey, SignatureBytes)>);

impl Signatures {
    /// Reads a signature file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let source = Source::new(source_name, text);
        document::read(&source, |mut form| {
            form.format(FORMAT, "file")?;
            let found = form.each("signature", SIGNERS_MAX, |mut form| {
                let key = form.required("key", "\"ed25519:...\"", document::Value::parsed);
                let signature = form.required("signature", "\"...\"", document::Value::parsed);
                form.close();
                Some((key?, signature?))
            })?;
            form.close();
            Some(Self(found))
        })
    }

    /// Returns the file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = "# Made by `bulkhead policy sign`. Do not edit.\n".to_owned();
        let _ = writeln!(text, "format = {FORMAT}");
        for (key, signature) in &self.0 {
            let _ = writeln!(text, "\n[[signature]]\nkey = \"{key}\"\nsignature = \"{signature}\"");
        }
        text
    }

    /// Signs `text`; an earlier signature by the same key is replaced. The rest stay, whatever text they are for.
    pub fn sign(&mut self, text: &str, key: &SecretKey) {
        let public = key.public();
        self.0.retain(|(other, _)| *other != public);
        self.0.push((public, key.sign(&message(text))));
    }

    /// The same without those that do not fit `text`: what was signed before the policy was changed.
    #[must_use]
    pub fn fitting(mut self, text: &str) -> Self {
        self.0.retain(|(key, signature)| key.verifies(&message(text), signature));
        self
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
