//! Text from elsewhere, made fit to be shown: the one place through which names that devices give themselves, what a guest
//! or a VMM says, and what stands in a file go to a terminal, into a log or onto the screen.
//!
//! | who shows | with | what stays |
//! | --- | --- | --- |
//! | a name in a list or a sentence | [`Label`], made where the name comes in | one short line |
//! | a line of a log, a quotation in a message | [`line()`] | one line |
//! | a whole output on a terminal, as the last thing before it is written | [`page`] | lines and tabs |
//! | the same with colours of the program's own | [`StyledPage`] | lines and tabs, and those colours |
//! | JSON on a terminal | [`json`] | the same values |
//! | a piece of a file, of which columns are counted | [`same_length`] | every byte's place |
//!
//! What is not [`is_shown`] appears as its number, `\u{1b}`, so that it can be seen and does nothing. It could otherwise
//! steer a terminal, begin a line that nobody wrote, or turn the reading order round.
//! ```
//! // A device that calls itself so would move the cursor and begin a line of its own.
//! let name = printable::Label::new("Card reader\x1b[2J\nadmitted");
//! assert_eq!(name.as_str(), "Card reader\\u{1b}[2J\\u{a}admitted");
//! ```
#![forbid(unsafe_code)]

mod causes;
mod styled;

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use causes::explain;
pub use styled::{Ink, StyledPage};

/// Longest line, in characters: what is cut off is said by an ellipsis.
pub const LINE_MAX: usize = 500;
/// Longest name, in characters. No device's name is as long as an input device's may be.
pub const LABEL_MAX: usize = 80;

/// Returns whether a character can be seen, or is a space: not a control character (C0, C1), none without width, none that turns
/// the reading order round, none that separates lines, none of those a font need not draw (Unicode's
/// `Default_Ignorable_Code_Point`), nor for private use.
#[must_use]
pub fn is_shown(c: char) -> bool {
    let hidden = matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}' | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}');
    !c.is_control() && !hidden
}

/// Returns a text as one line of at most [`LINE_MAX`] characters. Costs nothing until it is written.
#[must_use]
pub fn line(text: &str) -> Line<'_> {
    Line { text, most: LINE_MAX }
}

/// A text that [`line()`] shows on one line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    text: &'a str,
    most: usize,
}

impl<'a> Line<'a> {
    /// Cuts the line at so many characters instead.
    #[must_use]
    pub fn up_to(self, most: usize) -> Line<'a> {
        Line { most, ..self }
    }
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = self.most;
        for c in self.text.chars() {
            let Some(less) = left.checked_sub(1) else { return f.write_char('…') };
            left = less;
            if is_shown(c) { f.write_char(c)? } else { write!(f, "{}", c.escape_unicode())? }
        }
        Ok(())
    }
}

/// A name that somebody else gave: one short line, whatever it was. There is no other way to make one.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(Box<str>);

impl Label {
    /// Makes the name, fit to be shown.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(line(text.trim()).up_to(LABEL_MAX).to_string().into())
    }

    /// Returns the text as it is shown.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Label {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl Deref for Label {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&String::deserialize(deserializer)?))
    }
}

/// Returns `1 entry`, `2 entries`.
#[must_use]
pub fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Makes a whole output fit to be shown: its lines and tabs stay.
#[must_use]
pub fn page(text: &str) -> Cow<'_, str> {
    clean(text, |c, out| {
        if matches!(c, '\n' | '\t') {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    })
}

/// Returns JSON that says the same in characters that are shown.
#[must_use]
pub fn json(text: &str) -> Cow<'_, str> {
    clean(text, |c, out| {
        // Outside of strings JSON has no others; inside, these are written out already.
        if matches!(c, '\n' | '\t' | '\r') {
            return out.push(c);
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{unit:04x}");
        }
    })
}

/// Returns the same text with a question mark for each byte of what is not shown: places in it stay what they are.
#[must_use]
pub fn same_length(text: &str) -> Cow<'_, str> {
    clean(text, |c, out| match c {
        '\n' | '\t' | '\r' => out.push(c),
        c => out.extend(std::iter::repeat_n('?', c.len_utf8())),
    })
}

fn clean(text: &str, hidden: impl Fn(char, &mut String)) -> Cow<'_, str> {
    let plain = |c: char| is_shown(c) || matches!(c, '\n' | '\t');
    if text.chars().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_shown(c) { out.push(c) } else { hidden(c, &mut out) }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An escape sequence, its one-character form, a forged line, reading order turned round, a tag.
    const EVIL: &str = "a\u{1b}[31mb\u{9b}2Jc\r\nnote: all is well\u{202e}d\u{e0041}\u{2028}e";

    #[test]
    fn a_line_is_one_line_and_shows_what_it_hides() {
        assert_eq!(
            line(EVIL).to_string(),
            "a\\u{1b}[31mb\\u{9b}2Jc\\u{d}\\u{a}note: all is well\\u{202e}d\\u{e0041}\\u{2028}e"
        );
        assert_eq!(line("병동 3 — scanner").to_string(), "병동 3 — scanner");
        assert_eq!(line("abcdef").up_to(3).to_string(), "abc…");
        assert_eq!(line("abc").up_to(3).to_string(), "abc");
    }

    #[test]
    fn a_label_is_short_and_stays_one_when_it_comes_back_from_json() {
        let label = Label::new(&EVIL.repeat(100));
        assert!(label.chars().all(is_shown));
        assert!(label.chars().count() <= LABEL_MAX * 10 + 1);
        let json = serde_json::to_string(&label).unwrap();
        assert_eq!(serde_json::from_str::<Label>(&json).unwrap().as_str().get(..9), label.get(..9));
        let raw: Label = serde_json::from_str("\"x\\u001b[2J\"").unwrap();
        assert_eq!(raw.as_str(), "x\\u{1b}[2J");
        assert_eq!(format!("{:>4}|", Label::new("ab")), "  ab|");
    }

    #[test]
    fn a_page_keeps_its_lines_and_no_colours() {
        assert_eq!(page("a\tb\nc"), "a\tb\nc");
        assert_eq!(page("\u{1b}[1ma\r"), "\\u{1b}[1ma\\u{d}");
    }

    proptest! {
        #[test]
        fn nothing_gets_through_that_is_not_shown(text in any::<String>()) {
            prop_assert!(line(&text).to_string().chars().all(is_shown));
            prop_assert!(Label::new(&text).chars().all(is_shown));
            prop_assert!(page(&text).chars().all(|c| is_shown(c) || matches!(c, '\n' | '\t')));
            prop_assert_eq!(same_length(&text).len(), text.len());
        }

        #[test]
        fn json_says_the_same_in_characters_that_are_shown(text in any::<String>()) {
            let written = serde_json::to_string_pretty(&[&text]).unwrap();
            let shown = json(&written);
            prop_assert!(shown.chars().all(|c| is_shown(c) || c == '\n'));
            prop_assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), vec![text]);
        }
    }
}
