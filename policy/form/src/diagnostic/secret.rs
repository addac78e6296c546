//! Secret keys that somebody pasted where they do not belong: nothing that quotes such a text shows them.

use std::borrow::Cow;

use super::{Diagnostic, Span};
use crate::effort;

/// What stands before an officer's secret key, and around one in PEM.
const OWN: &str = "ed25519-secret";
const PEM: [&str; 2] = ["-----begin ", "private key-----"];

/// What stands before a key in PEM that a passphrase guards.
const GUARDED: &str = "-----begin encrypted private key-----";

/// Bytes of the longest word between the two halves of [`PEM`].
const KIND_MAX: usize = 32;

/// Characters of the shortest key, or piece of one: a regular expression that looks for keys is none.
const KEY_MIN: usize = 16;

/// Returns `text` with an asterisk for each letter and digit of a secret key, so that every place in it stays where it was.
#[must_use]
pub fn without_secrets(text: &str) -> Cow<'_, str> {
    hidden(text, &secrets(text))
}

/// Returns the same where the keys are known.
pub(super) fn hidden<'t>(text: &'t str, secrets: &[Span]) -> Cow<'t, str> {
    if secrets.is_empty() {
        return Cow::Borrowed(text);
    }
    let mut left = secrets.iter().copied().peekable();
    let shown = text.char_indices().map(|(at, letter)| {
        while left.next_if(|secret| secret.end <= at).is_some() {}
        let inside = left.peek().is_some_and(|secret| secret.start <= at);
        if inside && letter.is_ascii_alphanumeric() { '*' } else { letter }
    });
    Cow::Owned(shown.collect())
}

/// Returns where secret keys stand, in order; none overlaps another.
pub(super) fn secrets(text: &str) -> Vec<Span> {
    let lower = text.to_ascii_lowercase();
    let mut found = own(&lower);
    found.extend(pem(&lower));
    found.sort_unstable();
    let mut apart: Vec<Span> = Vec::with_capacity(found.len());
    for secret in found {
        match apart.last_mut() {
            Some(before) if secret.start < before.end => before.end = before.end.max(secret.end),
            _ => apart.push(secret),
        }
    }
    apart
}

/// Returns whatever stands between a name and its value.
fn is_between(letter: char) -> bool {
    matches!(letter, ':' | '=' | ' ' | '\t' | '"' | '\'' | '`')
}

/// Returns the pieces from each key of ours to the end of its line, or of its quotation.
fn own(lower: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut from = 0;
    while let Some((_, rest)) = lower.get(from..).and_then(|rest| rest.split_once(OWN)) {
        let key = rest.trim_start_matches(is_between);
        let start = lower.len() - key.len();
        let length = key.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(key.len());
        from = lower.len() - rest.len();
        // Looked for behind a key alone: a line may name many and hold none.
        if length >= KEY_MIN {
            let end = start + key.find(['\n', '"', '\'']).unwrap_or(key.len());
            effort::spend(end - start);
            found.push(Span { start, end });
            from = end;
        }
    }
    found
}

/// Returns the inside of each key in PEM, whether or not its end is there.
fn pem(lower: &str) -> Vec<Span> {
    let is_inside = |c: char| c.is_ascii_alphanumeric() || c.is_whitespace() || "+/=\\".contains(c);
    let [begin, end] = PEM;
    let mut found = Vec::new();
    let mut from = 0;
    while let Some((_, rest)) = lower.get(from..).and_then(|rest| rest.split_once(begin)) {
        from = lower.len() - rest.len();
        let kind: usize = rest.chars().take(KIND_MAX + end.len()).map(char::len_utf8).sum();
        let Some(at) = rest.get(..kind).and_then(|kind| kind.find(end)) else { continue };
        let start = from + at + end.len();
        let inside = lower.get(start..).unwrap_or_default();
        let length = inside.find(|c: char| !is_inside(c)).unwrap_or(inside.len());
        let inside = inside.get(..length).unwrap_or_default();
        if inside.chars().filter(char::is_ascii_alphanumeric).count() >= KEY_MIN {
            found.push(Span { start, end: start + length });
            from = start + length;
        }
    }
    found
}

/// The secret key of a text that has to be told of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Secret {
    span: Span,
    /// Whether nobody can use it without its passphrase.
    guarded: bool,
}

impl Secret {
    /// Returns the first of a text's keys that no passphrase guards, or else the first.
    pub(super) fn gravest(text: &str, secrets: &[Span]) -> Option<Self> {
        let of = |span: &Span| Self { span: *span, guarded: is_guarded(text, *span) };
        let unguarded = secrets.iter().map(of).find(|secret| !secret.guarded);
        unguarded.or_else(|| secrets.first().map(of))
    }

    /// Returns what is said of a file with this key in it, of which nothing else is read.
    pub(super) fn complaint(self) -> Diagnostic {
        if self.guarded {
            return Diagnostic::error(
                self.span,
                "this is a secret key under a passphrase, as an officer's key file holds; nothing of it is shown",
                "name the file that was meant, or take the key out: a PC is given the line in the .pub file. Have the key replaced \
                 only if others could read this file, or may know the passphrase",
            );
        }
        Diagnostic::error(
            self.span,
            "this is a secret key, and whoever has read this file can use it",
            "take it out; of an officer's key, a PC is given the line in the .pub file. Have this key replaced: make a new one with \
             `bulkhead policy keygen`, and take the old one out of every trust.toml",
        )
    }
}

/// Returns whether the key that stands there is encrypted.
fn is_guarded(text: &str, span: Span) -> bool {
    let from = span.start.saturating_sub(GUARDED.len());
    text.get(from..span.start).is_some_and(|before| before.eq_ignore_ascii_case(GUARDED))
}
