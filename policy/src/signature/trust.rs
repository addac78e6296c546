//! Whom a PC trusts to sign what: `trust.toml`, beside the machine file.
//!
//! ```toml
//! format = 2
//! serial = 1                     # grows with every change
//!
//! [threshold]                    # how many different officers must sign
//! policy = 2
//! trust = 2
//!
//! [[officer]]
//! name = "Kim Min-ji"           # no two look alike: one officer, one key
//! key = "ed25519:..."            # the line of her .pub file
//! may_sign = ["policy", "trust"]
//! ```
//!
//! Format 1 has no serial, one `threshold = 2` for the file, and no `may_sign`: its officers may sign policies, and nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use super::{PublicKey, Purpose, SIGNERS_MAX, Signable, Signatures};
use crate::SERIAL_MAX;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Spanned};
use crate::document::{self, Form, Value};
use crate::legible::look_alike;

/// The formats of trust stores this crate reads. The older one knows policies only.
const FORMAT_OLD: u32 = 1;
/// The format that is written now, with a serial and thresholds by purpose; see [`FORMAT_OLD`].
pub(super) const FORMAT: u32 = 2;
/// Longest name, in bytes.
const NAME_MAX: usize = 128;
/// What a threshold counts.
const COUNTED: &str = "how many officers must sign";

/// Somebody who may sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Officer {
    /// What people call them.
    pub name: String,
    /// The officer's public key.
    pub key: PublicKey,
    /// What they may sign, each once, in the order of [`Purpose::ALL`].
    pub may_sign: Vec<Purpose>,
}

/// Who may sign what, and how many must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustStore {
    /// `None` in format 1.
    serial: Option<u64>,
    /// For each purpose that some officer may sign, how many must: at least one, and at most as many as may.
    thresholds: BTreeMap<Purpose, usize>,
    officers: Vec<Officer>,
}

/// Proof that enough trusted officers signed a text for a purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval<S> {
    signers: Vec<String>,
    purpose: PhantomData<S>,
}

impl<S> Approval<S> {
    /// Returns the officers, in the trust store's order.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        &self.signers
    }
}

/// Why a text is not approved, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Refusal {
    /// What it was to be approved for.
    pub purpose: Purpose,
    /// How many officers must sign; `None` if nobody may.
    pub threshold: Option<usize>,
    /// The officers whose signatures hold.
    pub signers: Vec<String>,
    /// The officers whose signatures are for another text, or damaged.
    pub stale: Vec<String>,
    /// The officers whose signatures hold and who may sign other things only.
    pub not_theirs: Vec<String>,
    /// Signatures by keys this PC does not trust.
    pub strangers: u32,
    /// If nobody may sign it, the commands that let two officers, in words.
    pub allowing: Box<str>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let signed = self.purpose.signed();
        let Some(threshold) = self.threshold else {
            let (purpose, commands) = (self.purpose, &self.allowing);
            write!(
                f,
                "the trust store lets nobody sign {signed}: let two officers do so, such as by {commands}, "
            )?;
            let ask = format!("ask for both by `bulkhead trust threshold FILE {purpose}=2`");
            return match purpose {
                Purpose::Trust => write!(f, "and {ask}"),
                _ => write!(
                    f,
                    "{ask}, and have that change signed where somebody may sign for `trust`"
                ),
            };
        };
        let officers = if threshold == 1 { "officer has" } else { "officers have" };
        write!(f, "{threshold} {officers} to sign it, ")?;
        match self.signers.as_slice() {
            [] => write!(f, "and no signature holds")?,
            signers => write!(f, "and only {} did", signers.join(" and "))?,
        }
        if !self.stale.is_empty() {
            let stale = self.stale.join(" and ");
            write!(
                f,
                "; the text was changed after {stale} signed it, or the signature is damaged"
            )?;
        }
        if !self.not_theirs.is_empty() {
            let names = self.not_theirs.join(" and ");
            write!(f, "; {names} signed it and may not sign {signed} by the trust store")?;
        }
        if self.strangers > 0 {
            write!(f, "; {} by keys that are not in the trust store", self.strangers)?;
        }
        write!(f, ": have it signed with `{}`", self.purpose.command())
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
            let format = form.format_among(FORMAT_OLD..=FORMAT, "file")?;
            let is_old = format == FORMAT_OLD;
            let serial = if is_old {
                if form.has("serial") {
                    form.optional("serial", |v| newer::<()>(v, "serial"));
                }
                None
            } else {
                Some(form.required("serial", "1", |v| v.integer("the serial", 1..=SERIAL_MAX)))
            };
            let officers = officers(&mut form, is_old)?;
            let thresholds = if is_old {
                old_threshold(&mut form, officers.len())
            } else {
                thresholds(&mut form, &officers)
            };
            if officers.is_empty() && !form.has("officer") {
                form.sink().report(Diagnostic::error(
                    form.span(),
                    "the trust store has no officer, so that no policy could ever be approved",
                    "add an [[officer]], or remove the file to take policies unsigned",
                ));
            }
            form.close();
            // A serial that has to be there and cannot be read is no store.
            let serial = match serial {
                None => None,
                Some(read) => Some(read?),
            };
            Some(Self { serial, thresholds: thresholds?, officers })
        })
    }

    /// Returns the serial, which grows with every change; `None` in format 1, which has none.
    #[must_use]
    pub fn serial(&self) -> Option<u64> {
        self.serial
    }

    /// Returns how many officers must sign for a purpose; `None` if none may.
    #[must_use]
    pub fn threshold(&self, purpose: Purpose) -> Option<usize> {
        self.thresholds.get(&purpose).copied()
    }

    /// Returns everybody who may sign anything.
    #[must_use]
    pub fn officers(&self) -> &[Officer] {
        &self.officers
    }

    /// Returns those who may sign for a purpose.
    pub fn officers_for(&self, purpose: Purpose) -> impl Iterator<Item = &Officer> {
        self.officers.iter().filter(move |officer| officer.may_sign.contains(&purpose))
    }

    /// Returns whether enough officers who may sign for this purpose did so for `text`. Each counts once, however often they signed.
    ///
    /// # Errors
    /// Too few did.
    pub fn approve<S: Signable>(
        &self,
        text: &str,
        signatures: &Signatures<S>,
    ) -> Result<Approval<S>, Refusal> {
        let message = S::PURPOSE.message(text);
        let (mut signers, mut stale, mut not_theirs) = (Vec::new(), Vec::new(), Vec::new());
        for officer in &self.officers {
            let mut own = signatures.made().filter(|(key, _)| *key == officer.key).peekable();
            if own.peek().is_none() {
                continue;
            }
            let holds = own.any(|(key, signature)| key.verifies(&message, signature));
            let may = officer.may_sign.contains(&S::PURPOSE);
            let to = match (holds, may) {
                (true, true) => &mut signers,
                (true, false) => &mut not_theirs,
                (false, _) => &mut stale,
            };
            to.push(officer.name.clone());
        }
        let threshold = self.threshold(S::PURPOSE);
        if threshold.is_some_and(|threshold| signers.len() >= threshold.max(1)) {
            return Ok(Approval { signers, purpose: PhantomData });
        }
        let trusted = |key: &PublicKey| self.officers.iter().any(|officer| officer.key == *key);
        let strangers = signatures.made().filter(|(key, _)| !trusted(key)).count();
        let strangers = u32::try_from(strangers).unwrap_or(u32::MAX);
        let allowing = match threshold {
            None => self.allowing(S::PURPOSE).into(),
            Some(_) => Box::default(),
        };
        Err(Refusal {
            purpose: S::PURPOSE,
            threshold,
            signers,
            stale,
            not_theirs,
            strangers,
            allowing,
        })
    }

    /// Returns in words the commands that let two officers sign for this purpose, each with all that the officer may sign already: what a command leaves out it takes away.
    pub(super) fn allowing(&self, purpose: Purpose) -> String {
        let named = self.officers.iter().take(2).map(|officer| {
            let may = officer.may_sign.iter().chain([&purpose]);
            let may: Vec<&str> = may.map(|purpose| purpose.word()).collect();
            format!(
                "`bulkhead trust add FILE KEY.pub --may-sign {} --replace` with the .pub file of {}",
                may.join(","),
                officer.name
            )
        });
        named.collect::<Vec<_>>().join(" and ")
    }

    /// Returns its parts, for another store to be made of them.
    pub(super) fn parts(&self) -> (Option<u64>, &BTreeMap<Purpose, usize>, &[Officer]) {
        (self.serial, &self.thresholds, &self.officers)
    }
}

/// Reads who may sign, and what; `None` if there are too many.
fn officers(form: &mut Form<'_>, is_old: bool) -> Option<Vec<Officer>> {
    let read = form.each("officer", SIGNERS_MAX, |mut form| {
        let known = name_and_key(&mut form);
        let may_sign = if !is_old {
            form.required("may_sign", "[\"policy\"]", purposes)
        } else if form.has("may_sign") {
            form.optional("may_sign", |v| newer(v, "may_sign"))
        } else {
            Some(vec![Purpose::Policy])
        };
        form.close();
        let (name, key) = known?;
        Some((name, key, may_sign?))
    })?;
    let told_apart = read.iter().map(|(name, key, _)| (name, key)).collect::<Vec<_>>();
    report_twice(form, &told_apart);
    let officer = |(name, key, may_sign): (Spanned<String>, Spanned<PublicKey>, _)| Officer {
        name: name.value,
        key: key.value,
        may_sign,
    };
    Some(read.into_iter().map(officer).collect())
}

/// Reads the name and the key of an officer.
pub(super) fn name_and_key(form: &mut Form<'_>) -> Option<(Spanned<String>, Spanned<PublicKey>)> {
    let name = form.required("name", "\"Kim Min-ji\"", name);
    let key = form.required("key", "\"ed25519:...\"", |v| Some(v.spanned(v.parsed()?)));
    Some((name?, key?))
}

/// Reports every officer who would count as two.
pub(super) fn report_twice(form: &Form<'_>, officers: &[(&Spanned<String>, &Spanned<PublicKey>)]) {
    for (index, later) in officers.iter().enumerate() {
        let mut before = officers.iter().take(index);
        if let Some(found) = before.find_map(|other| counted_twice(*other, *later)) {
            form.sink().report(found);
        }
    }
}

/// Reads the one threshold of format 1.
fn old_threshold(form: &mut Form<'_>, officers: usize) -> Option<BTreeMap<Purpose, usize>> {
    let threshold = form.required("threshold", "1", |v| match v.is_table() {
        true => newer(v, "[threshold]"),
        false => at_most(v, officers),
    });
    Some(BTreeMap::from([(Purpose::Policy, threshold?)]))
}

/// Reads the thresholds of format 2: one for each purpose that somebody may sign, and for no other.
fn thresholds(form: &mut Form<'_>, officers: &[Officer]) -> Option<BTreeMap<Purpose, usize>> {
    // Who is not read because of a mistake may be who is missing here.
    let all_read = !form.sink().has_mistakes();
    if all_read
        && !officers.is_empty()
        && !officers.iter().any(|it| it.may_sign.contains(&Purpose::Policy))
    {
        form.sink().report(Diagnostic::error(
            form.span(),
            "no officer may sign a policy, so that no policy could ever be approved",
            "write \"policy\" into the `may_sign` of those who may",
        ));
    }
    form.required_or(
        "threshold",
        || "write [threshold] on a line of its own, and below it how many must sign what, such as `policy = 1`".to_owned(),
        |value| {
            let mut form = value.form("[threshold]")?;
            let mut thresholds = BTreeMap::new();
            for purpose in Purpose::ALL {
                let may =
                    officers.iter().filter(|officer| officer.may_sign.contains(&purpose)).count();
                let word = purpose.word();
                let read = |v: Value<'_>| match may {
                    0 if all_read => v.wrong(
                        format!("no officer may sign {}, so nothing would be approved by this", purpose.signed()),
                        format!("write \"{word}\" into the `may_sign` of those who may, or remove this line"),
                    ),
                    0 => at_most(v, SIGNERS_MAX),
                    may if all_read => at_most(v, may),
                    _ => at_most(v, SIGNERS_MAX),
                };
                let threshold = match may {
                    0 => form.optional(word, read),
                    _ => form.required_or(
                        word,
                        || {
                            let most = if may == 1 { String::new() } else { format!("; at most {may}") };
                            format!("officers may sign {}: say how many must, such as `{word} = {may}`{most}", purpose.signed())
                        },
                        read,
                    ),
                };
                thresholds.extend(threshold.map(|threshold| (purpose, threshold)));
            }
            form.close();
            Some(thresholds)
        },
    )
}

/// Reads a threshold, for which there are so many officers.
fn at_most(value: Value<'_>, officers: usize) -> Option<usize> {
    let most = u32::try_from(officers.max(1)).unwrap_or(u32::MAX);
    value.integer(COUNTED, 1..=most).and_then(|read| usize::try_from(read).ok())
}

/// Reads what an officer may sign.
fn purposes(value: Value<'_>) -> Option<Vec<Purpose>> {
    let words = Purpose::ALL.map(|purpose| (purpose.word(), purpose));
    let read = value.list_of(SIGNERS_MAX, |item| {
        Some(item.spanned(item.choice("something that an officer may sign", &words)?))
    })?;
    if read.is_empty() {
        return value.wrong(
            "this officer may sign nothing",
            "write what they may sign, such as [\"policy\"], or remove the officer",
        );
    }
    value.sink().all_different(
        read.iter().map(|it| (it.value, it.span)),
        |purpose, span, first| {
            let message = format!("\"{purpose}\" is here already");
            Diagnostic::error(span, message, "remove one of the two").and(first, "the other one")
        },
    );
    Some(Purpose::ALL.into_iter().filter(|it| read.iter().any(|read| read.value == *it)).collect())
}

/// Reports a key of format 2 in a file of format 1.
fn newer<T>(value: Value<'_>, key: &str) -> Option<T> {
    value.wrong(
        format!("format {FORMAT_OLD} has no `{key}`: its officers may sign policies only"),
        format!("write `format = {FORMAT}`, with a serial, [threshold], and `may_sign` for each officer; `bulkhead trust add` writes that for you"),
    )
}

/// Returns what is wrong with an officer who would count as two: whose key, or whose name, is another entry's.
fn counted_twice(
    (before, before_key): (&Spanned<String>, &Spanned<PublicKey>),
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
