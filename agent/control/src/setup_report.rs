//! What `bulkhead setup` did or would do: setup runs in `bulkhead-agent setup`, which speaks with the person itself, and the command line
//! shows how it ended.

use serde::{Deserialize, Serialize};

/// How a run of setup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetupResult {
    /// The changes were made, or taken back.
    Changed,
    /// There was nothing to change.
    Unchanged,
    /// The changes are shown and not made.
    Proposed,
    /// It was not done, and why not is the answer.
    Refused,
    /// It was asked for in a way in which it cannot be done.
    Misused,
}

/// One change to the PC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupChange {
    /// What is changed, in one line.
    pub what: String,
    /// The lines that change, of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// What a run of setup did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupReport {
    /// How the run of setup ended.
    pub result: SetupResult,
    /// The same in words: what was done, or why it was not and what to do.
    pub message: String,
    /// The changes, in the order in which they are made.
    pub changes: Vec<SetupChange>,
    /// What a person has to know or to do besides.
    pub notes: Vec<String>,
}

impl SetupReport {
    /// Makes one that changes nothing.
    #[must_use]
    pub fn of(result: SetupResult, message: impl Into<String>) -> Self {
        Self { result, message: message.into(), changes: Vec::new(), notes: Vec::new() }
    }

    /// Returns the changes and the notes as text for a person.
    #[must_use]
    pub fn described(&self) -> String {
        let mut text = String::new();
        for SetupChange { what, diff } in &self.changes {
            text.push_str(&format!("* {what}\n"));
            text.push_str(diff.as_deref().unwrap_or_default());
        }
        for note in &self.notes {
            text.push_str(&format!("! {note}\n"));
        }
        text
    }
}
