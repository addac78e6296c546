//! Whether a person can read a text, and tells it from another at a glance: for what stands on a banner, in a list to choose from, or in
//! the audit log.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;
use unicode_security::skeleton;

/// Returns whether there is something to read: a letter or a digit, and no mark before there is anything to put it on.
///
/// Blanks are of many kinds to Unicode, and not all of them are spaces: U+2800 is a Braille cell without a dot, U+3164 a Hangul letter
/// without a shape.
#[must_use]
pub fn is_legible(text: &str) -> bool {
    let is_letter =
        |c: char| c.is_alphanumeric() && !is_combining_mark(c) && printable::is_shown(c);
    !text.starts_with(is_combining_mark) && text.chars().any(is_letter)
}

/// How a text is drawn, and how it would be drawn in small letters: the same in whichever of Unicode's forms and in whichever width it
/// is written, with one skeleton for letters of different scripts that are drawn alike (UTS 39, section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appearance([String; 2]);

impl Appearance {
    /// Returns how this text is drawn.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let plain: String = text.nfkc().collect();
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        Self([skeleton(&plain).collect(), skeleton(&plain.to_lowercase()).collect()])
    }

    /// Returns whether somebody who glances at one takes it for the other.
    #[must_use]
    pub fn are_like(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).any(|(one, other)| one == other)
    }
}

/// Returns whether somebody who glances at one text takes it for the other.
#[must_use]
pub fn look_alike(one: &str, other: &str) -> bool {
    Appearance::of(one).are_like(&Appearance::of(other))
}

#[cfg(test)]
mod tests {
    use super::{is_legible, look_alike};

    #[test]
    fn labels_that_look_alike_are_alike_and_others_are_not() {
        for (one, other) in [
            ("진료망", "\u{110c}\u{1175}\u{11ab}\u{1105}\u{116d}\u{1106}\u{1161}\u{11bc}"),
            ("CLINICAL", "ＣＬＩＮＩＣＡＬ"),
            ("CLINICAL", "С\u{4c0}INICAL"), // Cyrillic
            ("CLINICAL", "Clinical"),
            ("LAB 1", "LAB l"),
            ("LAB  1", "LAB 1"),
            ("INTERNET", "lNTERNET"),
            ("OP 0", "OP O"),
        ] {
            assert!(look_alike(one, other) && look_alike(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("CLINICAL", "INTERNET"),
            ("진료망", "인터넷"),
            ("LAB 1", "LAB 2"),
            ("진료망", "진료방"),
        ] {
            assert!(!look_alike(one, other), "{one} {other}");
        }
    }

    #[test]
    fn what_nobody_can_read_is_not_legible_whichever_blank_it_is_made_of() {
        for blank in [
            "",
            " ",
            "\u{a0}",
            "\u{3000}",
            "\u{2800}\u{2800}",
            "\u{3164}",
            "\u{115f}\u{1160}",
            "\u{ffa0}",
            "\u{200b}",
            "\u{301}",
            "\u{93e}",
            "\u{301}a",
            "\u{ad}",
            "- - -",
            "…",
        ] {
            assert!(!is_legible(blank), "{}", blank.escape_unicode());
        }
        for text in [
            "의식 없는 환자",
            "\u{110c}\u{1175}",
            "system down",
            "7",
            "é",
            "e\u{301}",
            "不明",
            "غير",
        ] {
            assert!(is_legible(text), "{text}");
        }
    }
}
