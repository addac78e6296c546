//! What a field's value can be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What is said of a field's value in the documents.
pub(super) trait Form {
    const WORDS: &'static str;
    /// Whether it is in every entry of its kind.
    const ALWAYS: bool = true;
    /// Returns a value, for the logs that the catalogue is held against.
    #[cfg(test)]
    fn example() -> serde_json::Value;
}

macro_rules! forms {
    ($($type:ty: $words:literal, $example:tt;)*) => {
        $(impl Form for $type {
            const WORDS: &'static str = $words;
            #[cfg(test)]
            fn example() -> serde_json::Value {
                serde_json::json!($example)
            }
        })*
    };
}

forms! {
    String: "text", "text";
    bool: "`true` or `false`", true;
    i32: "number", 7;
    u32: "number", 7;
    u64: "number", 7;
    i64: "number", 7;
    Vec<String>: "list of texts", ["one", "two"];
    Vec<u8>: "list of numbers", [1, 2];
    BTreeMap<String, u64>: "numbers by name", {"one": 1, "two": 2};
    Verdict: "`allow`, `ask`, `deny` or `read-only`", "allow";
    Outcome: "`done`, `begun` or `not done`", "done";
}

impl<T: Form> Form for Option<T> {
    const WORDS: &'static str = T::WORDS;
    const ALWAYS: bool = false;
    #[cfg(test)]
    fn example() -> serde_json::Value {
        T::example()
    }
}

/// What the policy decided, as entries have it.
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
    /// Returns the word for it in the log.
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
    /// The request was carried out.
    #[serde(rename = "done")]
    Done,
    /// It takes time and was begun.
    #[serde(rename = "begun")]
    Begun,
    /// It was not done.
    #[serde(rename = "not done")]
    NotDone,
}
