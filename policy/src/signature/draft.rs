//! A trust store while it is being written.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::trust::{FORMAT, name_and_key, report_twice};
use super::{Officer, PublicKey, Purpose, SIGNERS_MAX, TrustStore};
use crate::diagnostic::{Diagnostic, Diagnostics, Source};
use crate::document;

/// What a trust store is to say. Whether it may is known when [`TrustStore::parse`] has read its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustDraft {
    /// The store's serial, which grows with each change.
    pub serial: u64,
    /// How many must sign what.
    pub thresholds: BTreeMap<Purpose, usize>,
    /// The officers who may sign, in the order of the file.
    pub officers: Vec<Officer>,
}

impl From<&TrustStore> for TrustDraft {
    /// Takes what a store says. One of format 1 says that its officers may sign policies, and its serial is none.
    fn from(store: &TrustStore) -> Self {
        let (serial, thresholds, officers) = store.parts();
        Self {
            serial: serial.unwrap_or(0),
            thresholds: thresholds.clone(),
            officers: officers.to_vec(),
        }
    }
}

impl TrustDraft {
    /// Returns the file's text, in the newest format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Who may sign what on this PC, and how many must. `bulkhead trust` writes it anew, without other comments.\n\
             format = {FORMAT}\nserial = {}\n\n[threshold]\n",
            self.serial
        );
        for (purpose, threshold) in &self.thresholds {
            let _ = writeln!(text, "{purpose} = {threshold}");
        }
        for Officer { name, key, may_sign } in &self.officers {
            let words: Vec<String> = may_sign.iter().map(|it| format!("\"{it}\"")).collect();
            let _ = write!(
                text,
                "\n[[officer]]\nname = {}\nkey = \"{key}\"\nmay_sign = [{}]\n",
                basic_string(name),
                words.join(", ")
            );
        }
        text
    }
}

/// Returns a name as a basic string of TOML; it has no control characters.
fn basic_string(name: &str) -> String {
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Reads the public key that `bulkhead policy keygen` wrote, with the name of its officer. What they may sign is the trust store's to say.
///
/// A file with more than one officer is refused: whoever handed it in would have a vote for each.
///
/// # Errors
/// Everything that is wrong with the text, or it has not exactly one officer.
pub fn public_key(source_name: &str, text: &str) -> Result<(String, PublicKey), Diagnostics> {
    let source = Source::new(source_name, text);
    document::read(&source, |mut form| {
        if !form.has("officer") {
            form.sink().report(Diagnostic::error(
                form.span(),
                "this is not an officer's public key",
                "name the .pub file that `bulkhead policy keygen` made",
            ));
            return None;
        }
        let read = form.each("officer", SIGNERS_MAX, |mut form| {
            let read = name_and_key(&mut form);
            form.close();
            read
        })?;
        let told_apart = read.iter().map(|(name, key)| (name, key)).collect::<Vec<_>>();
        report_twice(&form, &told_apart);
        if let [_, (second, _), ..] = read.as_slice() {
            form.sink().report(Diagnostic::error(
                second.span,
                "a public key file is of one officer, and this is another: who handed it in would sign as several",
                "name the .pub file as `bulkhead policy keygen` made it; add each officer by a file of their own, which you have from themselves",
            ));
        }
        form.close();
        let [(name, key)] = <[_; 1]>::try_from(read).ok()?;
        Some((name.value, key.value))
    })
}
