//! What people are told.

use policy::Policy;
use policy::decide::{Reason, Verdict};

use super::limits::HOTKEYS;

/// The outcome of a hotkey, for the person who pressed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it did what it was pressed for.
    pub done: bool,
    /// The policy's verdict, if it was asked.
    pub verdict: Option<&'static str>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// In a clinician's words.
    pub words: String,
}

impl Outcome {
    pub(super) fn no(words: impl Into<String>) -> Self {
        Self { done: false, verdict: None, rule: None, words: words.into() }
    }

    pub(super) fn yes(words: impl Into<String>) -> Self {
        Self { done: true, ..Self::no(words) }
    }

    /// Says what the policy said.
    #[must_use]
    pub(super) fn by(self, (verdict, rule): &(&'static str, Option<String>)) -> Self {
        Self { verdict: Some(verdict), rule: rule.clone(), ..self }
    }
}

/// Returns the name of a domain in its banner.
pub(super) fn label<'a>(policy: &'a Policy, name: &'a str) -> &'a str {
    policy.domain(name).map_or(name, |domain| &domain.label.value)
}

/// Returns why not, and whom to ask.
pub(super) fn denied(policy: &Policy, what: &str, verdict: &Verdict<'_>) -> String {
    let reason = verdict.reason();
    let rule = match (reason, verdict.rule()) {
        (Reason::Found(_) | Reason::Unreadable(_), Some(rule)) => {
            format!(" (rule `{}`)", rule.id.value)
        }
        _ => String::new(),
    };
    format!("Not pasted: {what}.\nThe policy: {reason}{rule}.\nQuestions: {}", policy.issuer())
}

pub(super) const LOG: &str = "Not pasted: the audit log cannot be written.\nCall IT.";

/// What was pasted is not there any more.
pub(super) const TAKEN_BACK: &str =
    "What was pasted is taken back: the audit log cannot be written.\nCall IT.";

/// Why a paste that is permitted is not offered.
pub(super) const TAKES_NOTHING: &str = "the desktop does not take anything";

/// Why a copy fails whose guest's stream was ended.
pub(super) const INTERRUPTED: &str = "was interrupted; copy it there again";

/// Why a copy fails.
pub(super) const SILENT: &str = "does not hand over what it has in its clipboard";

pub(super) fn nothing_copied(label: &str) -> Outcome {
    Outcome::no(format!(
        "Nothing is copied in {label}.\nMark it there, press Ctrl+C, then this key again."
    ))
}

pub(super) fn too_often() -> Outcome {
    Outcome::no(format!("Too often: wait {} seconds.", HOTKEYS.every.as_secs()))
}

pub(super) fn no_agent(label: &str) -> Outcome {
    Outcome::no(format!(
        "{label} cannot copy or paste: no clipboard agent runs there.\nIT: install the package spice-vdagent in it."
    ))
}

/// What is said of a domain whose stream nothing can be started to read.
pub(super) fn reader_missing(label: &str) -> Outcome {
    Outcome::no(format!(
        "{label} cannot copy or paste: what reads its clipboard does not start.\nIT: `bulkhead doctor` says why."
    ))
}

/// What is said of a domain what read whose stream has failed.
pub(super) fn reader_failed(label: &str) -> Outcome {
    Outcome::no(format!(
        "{label} cannot copy or paste: what reads its clipboard has failed and is started anew.\nIT, if it stays so: `journalctl -u bulkhead-agent` says why."
    ))
}
