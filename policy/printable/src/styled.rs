//! A whole output with colours of the program's own.

use std::fmt;
use std::ops::Deref;

use crate::page;

/// A colour for a word of the program's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// All is well.
    Green,
    /// Something is worth a look.
    Yellow,
    /// Something has failed.
    Red,
}

impl Ink {
    /// Returns its number among those of ECMA-48's "select graphic rendition".
    fn number(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        }
    }
}

/// A whole output for a terminal, with colours that the program chose. What is added to it is made fit as by [`page`], so
/// that nobody else's colours, or any other escape sequence, get into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StyledPage(String);

impl StyledPage {
    /// Returns what a renderer made of texts that had been made fit before: its colours stay (`ESC [ numbers m`), and
    /// no other escape sequence. It cannot tell the renderer's colours from those that stand in a text.
    #[must_use]
    pub fn rendered(text: &str) -> Self {
        let mut out = String::with_capacity(text.len());
        let mut pieces = text.split('\u{1b}');
        out.push_str(&page(pieces.next().unwrap_or_default()));
        for piece in pieces {
            let end = piece.find(|c: char| !matches!(c, '[' | ';' | '0'..='9'));
            let rest = end.and_then(|end| piece.get(end..)).unwrap_or_default();
            if piece.starts_with('[') && rest.starts_with('m') {
                out.push('\u{1b}');
            } else {
                out.extend('\u{1b}'.escape_unicode());
            }
            out.push_str(&page(piece));
        }
        Self(out)
    }

    /// Adds a text, whoever wrote it.
    pub fn push(&mut self, text: &str) {
        self.0.push_str(&page(text));
    }

    /// Adds a text in a colour.
    pub fn push_in(&mut self, ink: Ink, text: &str) {
        self.0.push_str(&format!("\u{1b}[{}m", ink.number()));
        self.push(text);
        self.0.push_str("\u{1b}[0m");
    }
}

impl Deref for StyledPage {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StyledPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for StyledPage {
    fn from(text: &str) -> Self {
        Self(page(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::is_shown;
    use proptest::prelude::*;

    #[test]
    fn the_programs_colours_stay_and_those_of_a_text_are_shown_as_numbers() {
        let mut out = StyledPage::from("\u{1b}[1ma\n");
        out.push_in(Ink::Red, "\u{1b}[32mFAIL");
        out.push("  b\u{1b}[0m\n");
        assert_eq!(&*out, "\\u{1b}[1ma\n\u{1b}[31m\\u{1b}[32mFAIL\u{1b}[0m  b\\u{1b}[0m\n");
    }

    #[test]
    fn of_a_renderers_escape_sequences_only_colours_stay() {
        let rendered = |text: &str| StyledPage::rendered(text).to_string();
        assert_eq!(rendered("\u{1b}[1;31ma\u{1b}[0m\n"), "\u{1b}[1;31ma\u{1b}[0m\n");
        assert_eq!(rendered("\u{1b}[2J\u{1b}]0;x\u{7}"), "\\u{1b}[2J\\u{1b}]0;x\\u{7}");
    }

    proptest! {
        #[test]
        fn no_text_brings_an_escape_sequence_with_it(text in any::<String>()) {
            let mut out = StyledPage::from(text.as_str());
            out.push(&text);
            prop_assert!(out.chars().all(|c| is_shown(c) || matches!(c, '\n' | '\t')));
            out.push_in(Ink::Green, &text);
            prop_assert_eq!(out.matches('\u{1b}').count(), 2);
            let styled = |c| is_shown(c) || ['\n', '\t', '\u{1b}'].contains(&c);
            prop_assert!(StyledPage::rendered(&text).chars().all(styled));
        }
    }
}
