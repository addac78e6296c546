//! What a field's value can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is said of a field's value in the documents.
pub(super) trait Form {
    const WORDS: &'static str;
    /// Whether it is in every entry of its kind.
    const ALWAYS: bool = true;
}

macro_rules! forms {
    ($($type:ty: $words:literal;)*) => {
        $(impl Form for $type {
            const WORDS: &'static str = $words;
        })*
    };
}

forms! {
    String: "text";
    bool: "`true` or `false`";
    i32: "number";
    u32: "number";
    u64: "number";
    i64: "number";
    Vec<String>: "list of texts";
    Vec<u8>: "list of numbers";
    BTreeMap<String, u64>: "numbers by name";
    Verdict: "`allow`, `ask`, `deny` or `read-only`";
    Outcome: "`done`, `begun` or `not done`";
}

impl<T: Form> Form for Option<T> {
    const WORDS: &'static str = T::WORDS;
    const ALWAYS: bool = false;
}

/// The policy's verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It may cross.
    Allow,
    /// It may, if a person says yes.
    Ask,
    /// It may not.
    Deny,
    /// It may be read and not written.
    ReadOnly,
}

impl Verdict {
    /// As the log has it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
            Self::ReadOnly => "read-only",
        }
    }
}

/// How a request over the control socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Outcome {
    /// It is done.
    #[serde(rename = "done")]
    Done,
    /// It takes time and was begun.
    #[serde(rename = "begun")]
    Begun,
    /// It was not done.
    #[serde(rename = "not done")]
    NotDone,
}
