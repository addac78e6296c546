//! The officer's own patterns: regular expressions that take time linear in the text, whatever the pattern.

use regex::{Regex, RegexBuilder};

use crate::document::Mistake;

/// Memory a compiled pattern may take, in bytes: enough for any number format, and `\w{1000}{1000}` is refused.
const COMPILED_MAX: usize = 1 << 20;

/// A compiled regular expression. Cheap to clone.
///
/// The engine is a finite automaton (crate `regex`): no look-around, no back-references, and so no text that makes it slow.
#[derive(Clone, Debug, Default)]
pub struct Pattern(Option<Regex>);

impl Pattern {
    /// Compiles it.
    ///
    /// # Errors
    /// When it is not a regular expression, is too large, or matches the empty text and so everything.
    pub fn new(text: &str) -> Result<Self, Mistake> {
        let compiled =
            RegexBuilder::new(text).size_limit(COMPILED_MAX).dfa_size_limit(COMPILED_MAX).build();
        let regex = compiled.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => {
                Mistake::new("this regular expression is too large", "repeat fewer things fewer times")
            }
            other => Mistake::new(
                format!("this is not a regular expression: {}", last_line(&other.to_string())),
                "see https://docs.rs/regex for the syntax; look-around and back-references do not exist",
            ),
        })?;
        if regex.is_match("") {
            return Err(Mistake::new(
                "this regular expression finds itself in every text, even an empty one",
                "demand at least one character: write `+` for `*`, or leave out the last `?` or `|`",
            ));
        }
        Ok(Self(Some(regex)))
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", Regex::as_str)
    }
}

/// The engine's messages draw the pattern first and say what is wrong last.
fn last_line(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default().trim();
    last.strip_prefix("error: ").unwrap_or(last).to_owned()
}
