//! Names that the officer gives: to domains and detectors, and to rules.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use crate::document::Mistake;

/// Letters of the longest domain or detector name: what fits a cgroup, a socket directory and a log line.
const NAME_MAX: usize = 32;
/// Letters of the longest rule id: rules are more, and their ids say more.
const RULE_ID_MAX: usize = 64;

/// Defines a string that is known to be well formed because only `FromStr` makes it.
macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// Returns the name as it was written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Mistake;
            fn from_str(text: &str) -> Result<Self, Mistake> {
                $check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_string! {
    /// The name of a domain or a detector: `[a-z][a-z0-9-]{0,31}`.
    Name, check_name
}

checked_string! {
    /// The id of a rule, by which the audit names it: `[A-Za-z0-9][A-Za-z0-9._-]{0,63}`.
    RuleId, check_rule_id
}

fn is_name(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_lowercase());
    let goes_on_well =
        text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    starts_well && goes_on_well && text.len() <= NAME_MAX
}

fn check_name(text: &str) -> Result<(), Mistake> {
    if is_name(text) {
        return Ok(());
    }
    let rule =
        "start with a letter a to z, go on with letters a to z, digits and hyphens; 32 at most";
    let help = match fitting(text) {
        Some(fitting) => format!("write \"{fitting}\": {rule}"),
        None => rule.to_owned(),
    };
    Err(Mistake::new(format!("\"{}\" cannot be a name", text.escape_debug()), help))
}

/// Returns the name nearest to a text: in small letters, with hyphens for what is no letter or digit. `None` if that is none either.
pub(crate) fn fitting(text: &str) -> Option<String> {
    if text.len() > NAME_MAX {
        return None;
    }
    hyphenated(&text.to_ascii_lowercase(), NAME_MAX).filter(|name| is_name(name))
}

/// Returns the words of ASCII letters and digits, joined by hyphens. `None` where letters of other scripts would be lost.
fn hyphenated(text: &str, most: usize) -> Option<String> {
    if text.len() > most || !text.is_ascii() {
        return None;
    }
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    Some(words.collect::<Vec<_>>().join("-"))
}

fn is_rule_id(text: &str) -> bool {
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let goes_on_well =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    starts_well && goes_on_well && text.len() <= RULE_ID_MAX
}

fn check_rule_id(text: &str) -> Result<(), Mistake> {
    if is_rule_id(text) {
        return Ok(());
    }
    let rule = "start with a letter or digit, go on with letters, digits, hyphens, dots and underscores; 64 at most";
    let help = match hyphenated(text, RULE_ID_MAX).filter(|id| is_rule_id(id)) {
        Some(fitting) => format!("write \"{fitting}\": {rule}"),
        None => rule.to_owned(),
    };
    Err(Mistake::new(format!("\"{}\" cannot be a rule's id", text.escape_debug()), help))
}
