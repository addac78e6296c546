//! The officer's own patterns: regular expressions that take time linear in the text, whatever the pattern.

use regex::{Regex, RegexBuilder};

use crate::document::Mistake;

/// Memory a compiled pattern may take, in bytes: enough for any number format, and `\w{1000}{1000}` is refused.
const COMPILED_MAX: usize = 1 << 20;

/// Characters of the longest pattern. Its parts are taken apart before anybody knows how large it will be, and a
/// two-letter `\w` becomes some 6 KiB.
const PATTERN_MAX: usize = 1000;

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
        if text.len() > PATTERN_MAX {
            return Err(Mistake::new(
                format!("this regular expression is longer than {PATTERN_MAX} bytes"),
                "write several [[detector]]",
            ));
        }
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

impl Pattern {
    /// Whether it is found in a text.
    pub(super) fn is_in(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;
    use crate::detect::{Content, Detector};
    use crate::language::MediaType;

    fn found(pattern: &str, media_type: MediaType, text: &str) -> bool {
        let detector =
            Detector::Pattern("chart-number".parse().unwrap(), Pattern::new(pattern).unwrap());
        detector.finds(&Content::of(media_type, text.as_bytes()).unwrap())
    }

    #[test]
    fn a_chart_number_is_found_however_it_is_written() {
        for text in [
            "see MRN-12345678 please",
            "MRN12345678",
            "MRN 1234 5678",
            "MRN - 1234-5678.",
            "ＭＲＮ１２３４５６７８",
            "M\u{200b}R\u{200b}N12345678",
        ] {
            assert!(found(r"\bMRN-?\d{8}\b", MediaType::TextPlain, text), "{text:?}");
        }
        assert!(found(r"\bMRN-?\d{8}\b", MediaType::TextHtml, "<b>MRN</b>&#45;1234<i>5678</i>"));
        assert!(found(
            r"\bMRN-?\d{8}\b",
            MediaType::FileList,
            "copy\nfile:///home/a/MRN%2D12345678.txt"
        ));
        assert!(!found(r"\bMRN-?\d{8}\b", MediaType::TextPlain, "MRN-1234567"));
    }

    #[test]
    fn a_pattern_that_would_find_itself_everywhere_is_refused() {
        for pattern in [r"\d*", "", "a|", "(x)?"] {
            Pattern::new(pattern).unwrap_err();
        }
    }

    #[test]
    fn a_pattern_that_would_take_too_much_memory_is_refused() {
        let mistake = Pattern::new(r"(\w{100}){100}{100}").unwrap_err();
        assert!(mistake.message.contains("too large"), "{mistake}");
    }

    #[test]
    fn a_pattern_that_makes_other_engines_take_for_ever_takes_linear_time() {
        let text = "a".repeat(100_000);
        assert!(!found("(a+)+b", MediaType::TextPlain, &text));
    }
}
