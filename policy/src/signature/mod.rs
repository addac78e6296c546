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
//! What is signed is a purpose, then the text byte for byte: a signature made for something else is none for a policy (K-2.2.2).
//! [`Signatures`] and [`Approval`] have a type for what they are for, so that an approval of something else is none by its type:
//!
//! ```compile_fail,E0308
//! use policy::signature::{Approval, ImageManifest, PolicyText};
//!
//! fn put_in_force(_: Approval<PolicyText>) {}
//!
//! fn by_an_approval_of_an_image(approval: Approval<ImageManifest>) {
//!     put_in_force(approval);
//! }
//! ```
//!
//! An [`Approval`] can be had from [`TrustStore::approve`] alone. How one trust store follows another says [`TrustStore::succeed`].

mod difference;
mod draft;
mod encrypted;
mod key;
mod purpose;
mod succession;
mod trust;
mod weakness;

use std::fmt::Write as _;
use std::marker::PhantomData;

use crate::diagnostic::{Diagnostics, Source};
use crate::document::{self, Value};

pub use difference::TrustDifference;
pub use draft::{TrustDraft, public_key};
pub use encrypted::PASSPHRASE_MIN;
pub use key::{PublicKey, SecretKey, SignatureBytes};
pub use purpose::{ImageManifest, PolicyText, ProgramManifest, Purpose, Signable, TrustText};
pub use succession::NoSuccessor;
pub use trust::{Approval, Officer, Refusal, TrustStore};
pub use weakness::Weakness;

/// The format of the signature files this crate reads.
const FORMAT: u32 = 1;
/// Signatures of one text, and officers of one PC.
const SIGNERS_MAX: usize = 64;

/// The signatures of one text: what is in `policy.toml.sig` or `trust.toml.sig`. Nothing is known of them until a [`TrustStore`] has looked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signatures<S> {
    made: Vec<(PublicKey, SignatureBytes)>,
    purpose: PhantomData<S>,
}

impl<S> Default for Signatures<S> {
    fn default() -> Self {
        Self { made: Vec::new(), purpose: PhantomData }
    }
}

impl<S: Signable> Signatures<S> {
    /// Reads a signature file. One without `purpose` is a policy's, as all were once.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let source = Source::new(source_name, text);
        document::read(&source, |mut form| {
            form.format(FORMAT, "file")?;
            if S::PURPOSE == Purpose::Policy {
                form.optional("purpose", Self::fits);
            } else {
                form.required("purpose", &format!("\"{}\"", S::PURPOSE), Self::fits);
            }
            let made = form.each("signature", SIGNERS_MAX, |mut form| {
                let key = form.required("key", "\"ed25519:...\"", Value::parsed);
                let signature = form.required("signature", "\"...\"", Value::parsed);
                form.close();
                Some((key?, signature?))
            })?;
            form.close();
            Some(Self { made, purpose: PhantomData })
        })
    }

    /// Reads what the signatures of a file are for.
    fn fits(value: Value<'_>) -> Option<()> {
        let found =
            value.choice("a purpose of signatures", &Purpose::ALL.map(|it| (it.word(), it)))?;
        if found == S::PURPOSE {
            return Some(());
        }
        let (found, wanted) = (found.signed(), S::PURPOSE.signed());
        value.wrong(
            format!("these are signatures of {found}, and {wanted} is to be signed"),
            format!("put the signatures of {wanted} in their place: one purpose never counts for another"),
        )
    }

    /// Returns the file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let made_by = S::PURPOSE.command();
        let mut text = format!("# Made by `{made_by}`. Do not edit.\nformat = {FORMAT}\n");
        // Versions that know no other purpose read the signatures of policies too.
        if S::PURPOSE != Purpose::Policy {
            let _ = writeln!(text, "purpose = \"{}\"", S::PURPOSE);
        }
        for (key, signature) in &self.made {
            let _ = writeln!(text, "\n[[signature]]\nkey = \"{key}\"\nsignature = \"{signature}\"");
        }
        text
    }

    /// Signs `text`; an earlier signature by the same key is replaced. The rest stay, whatever text they are for.
    pub fn sign(&mut self, text: &str, key: &SecretKey) {
        let public = key.public();
        self.made.retain(|(other, _)| *other != public);
        self.made.push((public, key.sign(&S::PURPOSE.message(text))));
    }

    /// Returns the same without those that do not fit `text`: what was signed before the text was changed.
    #[must_use]
    pub fn fitting(mut self, text: &str) -> Self {
        let message = S::PURPOSE.message(text);
        self.made.retain(|(key, signature)| key.verifies(&message, signature));
        self
    }

    /// Returns the keys whose signatures do not fit `text`: they are damaged, or were made of another text.
    #[must_use]
    pub fn misfits(&self, text: &str) -> Vec<PublicKey> {
        let message = S::PURPOSE.message(text);
        let misfits = self.made.iter().filter(|(key, made)| !key.verifies(&message, made));
        misfits.map(|(key, _)| *key).collect()
    }

    /// Returns how many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.made.len()
    }

    /// Returns each with the key that is said to have made it.
    fn made(&self) -> impl Iterator<Item = &(PublicKey, SignatureBytes)> {
        self.made.iter()
    }
}
