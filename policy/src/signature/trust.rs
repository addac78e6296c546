//! Whom a PC trusts to sign its policy: `trust.toml`, beside the machine file.
//!
//! ```toml
//! format = 1
//! threshold = 2                  # how many different officers must have signed
//!
//! [[officer]]
//! name = "Kim Min-ji"           # no two look alike: one officer, one key
//! key = "ed25519:..."            # the line of her .pub file
//! ```

use std::fmt;

use super::{FORMAT, PublicKey, SIGNERS_MAX, Signatures, message};
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spanned};
use crate::document::{self, Value};
use crate::legible::look_alike;

/// Longest name, in bytes.
const NAME_MAX: usize = 128;

/// Somebody who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Officer {
    /// What people call them.
    pub name: String,
    /// Their key.
    pub key: PublicKey,
}

/// Who may sign, and how many must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStore {
    threshold: usize,
    officers: Vec<Officer>,
}

/// Proof that enough trusted officers signed a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    signers: Vec<String>,
}

impl Approval {
    /// Returns the officers, in the trust store's order.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

/// Why a text is not approved, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// How many officers must sign.
    pub threshold: usize,
    /// The officers whose signatures hold.
    pub signers: Vec<String>,
    /// The officers whose signatures are for another text.
    pub stale: Vec<String>,
    /// Signatures by keys this PC does not trust.
    pub strangers: usize,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let officers = if self.threshold == 1 { "officer has" } else { "officers have" };
        write!(f, "{} {officers} to sign it, ", self.threshold)?;
        match self.signers.as_slice() {
            [] => write!(f, "and no signature holds")?,
            signers => write!(f, "and only {} did", signers.join(" and "))?,
        }
        if !self.stale.is_empty() {
            let stale = self.stale.join(" and ");
            write!(f, "; the text was changed after {stale} signed it")?;
        }
        if self.strangers > 0 {
            write!(f, "; {} by keys that are not in the trust store", self.strangers)?;
        }
        write!(f, ": have it signed with `bulkhead policy sign`")
    }
}

impl TrustStore {
    /// Reads a trust store.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics> {
        let source = Source::new(source_name, text);
        document::read(&source, |mut form| {
            if form.has("domain") && !form.has("officer") {
                form.sink().report(Diagnostic::error(
                    form.span(),
                    "this is a policy or a machine file, not a trust store",
                    "name the trust store, which lists the officers: trust.toml",
                ));
                return None;
            }
            form.format(FORMAT, "file")?;
            let officers = form.each("officer", SIGNERS_MAX, |mut form| {
                let name = form.required("name", "\"Kim Min-ji\"", name);
                let key = form.required("key", "\"ed25519:...\"", |v| Some(v.spanned(v.parsed()?)));
                form.close();
                Some((name?, key?))
            })?;
            for (index, (name, key)) in officers.iter().enumerate() {
                if let Some(found) =
                    officers.iter().take(index).find_map(|other| counted_twice(other, (name, key)))
                {
                    form.sink().report(found);
                }
            }
            let most = officers.len().max(1);
            let threshold = form.required("threshold", "1", |v| {
                v.integer(
                    "how many officers must sign",
                    1..=u32::try_from(most).unwrap_or(u32::MAX),
                )
            });
            if officers.is_empty() && !form.has("officer") {
                form.sink().report(Diagnostic::error(
                    form.span(),
                    "the trust store has no officer, so that no policy could ever be approved",
                    "add an [[officer]], or remove the file to take policies unsigned",
                ));
            }
            form.close();
            let officer = |(name, key): (Spanned<String>, Spanned<PublicKey>)| Officer {
                name: name.value,
                key: key.value,
            };
            let officers = officers.into_iter().map(officer).collect();
            Some(Self { threshold: usize::try_from(threshold?).unwrap_or(usize::MAX), officers })
        })
    }

    /// Returns how many officers must sign.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.threshold
    }

    /// Returns who may sign.
    #[must_use]
    pub fn officers(&self) -> &[Officer] {
        &self.officers
    }

    /// Whether enough officers signed `text`. Each counts once, however often they signed.
    ///
    /// # Errors
    /// Too few did.
    pub fn approve(&self, text: &str, signatures: &Signatures) -> Result<Approval, Refusal> {
        let message = message(text);
        let (mut signers, mut stale) = (Vec::new(), Vec::new());
        for officer in &self.officers {
            let mut own = signatures.0.iter().filter(|(key, _)| *key == officer.key).peekable();
            if own.peek().is_none() {
                continue;
            }
            let holds = own.any(|(key, signature)| key.verifies(&message, signature));
            if holds { &mut signers } else { &mut stale }.push(officer.name.clone());
        }
        if signers.len() >= self.threshold {
            return Ok(Approval { signers });
        }
        let trusted = |key: &PublicKey| self.officers.iter().any(|officer| officer.key == *key);
        let strangers = signatures.0.iter().filter(|(key, _)| !trusted(key)).count();
        Err(Refusal { threshold: self.threshold, signers, stale, strangers })
    }
}

/// Returns what is wrong with an officer who would count as two: whose key, or whose name, is another entry's.
fn counted_twice(
    (before, before_key): &(Spanned<String>, Spanned<PublicKey>),
    (name, key): (&Spanned<String>, &Spanned<PublicKey>),
) -> Option<Diagnostic> {
    if before_key.value == key.value {
        let message = "this key is here already: one officer would count as two";
        let help = "remove one of the two, or use the other officer's own key";
        return Some(
            Diagnostic::error(key.span, message, help).and(before_key.span, "the other one"),
        );
    }
    look_alike(&before.value, &name.value).then(|| {
        let message = match before.value == name.value {
            true => format!("\"{}\" is here already: one officer would count as two", name.value),
            false => format!(
                "\"{}\" and \"{}\" look alike: one officer would count as two",
                before.value, name.value
            ),
        };
        let help = "an officer who changes to a new key has it in the place of the old one, once the policy in force is signed with it too \
                    (\"A new key for an officer\" in the policy handbook); if they are two people, write each name such that they are told apart";
        Diagnostic::error(name.span, message, help).and(before.span, "the other one")
    })
}

fn name(value: Value<'_>) -> Option<Spanned<String>> {
    let name = value.string()?;
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(printable::is_shown) {
        return value.wrong(
            "this is not a name",
            format!("write the officer's name: 1 to {NAME_MAX} bytes, no control characters"),
        );
    }
    Some(value.spanned(name.to_owned()))
}
