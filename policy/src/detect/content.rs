//! Content as detectors read it.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization as _, is_nfc, is_nfkc};

use super::digits::{Digit, digits, is_separator};
use super::fold::plain;
use crate::terms::MediaType;

/// Content in all the ways in which somebody may read it.
#[derive(Clone, Debug)]
pub struct Content<'c> {
    views: Vec<View<'c>>,
}

/// One way to read it.
#[derive(Clone, Debug)]
struct View<'c> {
    /// The text, in Unicode's form NFC.
    text: Cow<'c, str>,
    /// The text in form NFKC, where that is another: of one width, but with its marks.
    compatible: Option<String>,
    /// The text, folded for comparison.
    folded: String,
    /// The text folded, with nothing between a letter or digit and a digit that a person would read past.
    joined: String,
    digits: Vec<Digit>,
}

impl<'c> Content<'c> {
    /// Reads content of a type. `None` where detectors cannot read it: a picture, or text that is not UTF-8.
    #[must_use]
    pub fn of(media_type: MediaType, bytes: &'c [u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| media_type.is_readable())?;
        let as_it_is = View::new(Cow::Borrowed(text));
        let views = match media_type {
            // What the screen shows: markup may stand inside a number, or between two.
            MediaType::TextHtml => vec![
                as_it_is,
                View::new(Cow::Owned(without_markup(text, ""))),
                View::new(Cow::Owned(without_markup(text, " "))),
            ],
            MediaType::FileList if text.contains('%') => {
                vec![as_it_is, View::new(Cow::Owned(without_percent_codes(text)))]
            }
            _ => vec![as_it_is],
        };
        Some(Self { views })
    }

    /// Returns the text, in every way a pattern should be held against it.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.views.iter().flat_map(|view| {
            let compatible = view.compatible.as_deref();
            [&*view.text, &view.folded, &view.joined].into_iter().chain(compatible)
        })
    }

    /// Returns the digits in the text.
    pub(super) fn digits(&self) -> impl Iterator<Item = &[Digit]> {
        self.views.iter().map(|view| view.digits.as_slice())
    }
}

impl<'c> View<'c> {
    fn new(text: Cow<'c, str>) -> Self {
        let folded = plain(&text);
        let compatible = (!is_nfkc(&text)).then(|| text.nfkc().collect());
        let text = if is_nfc(&text) { text } else { Cow::Owned(text.nfc().collect()) };
        let (joined, digits) = (joined(&folded), digits(&folded));
        Self { text, compatible, folded, joined, digits }
    }
}

fn joined(folded: &str) -> String {
    let mut out = String::with_capacity(folded.len());
    let mut held = String::new();
    for c in folded.chars() {
        if is_separator(c) {
            held.push(c);
            continue;
        }
        let reads_on = c.is_ascii_digit() && out.ends_with(char::is_alphanumeric);
        if !reads_on {
            out.push_str(&held);
        }
        held.clear();
        out.push(c);
    }
    out + &held
}

/// Returns the text without tags, each replaced by `gap`, and with character references replaced by their characters.
fn without_markup(text: &str, gap: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '&']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        rest = if from.starts_with('<') {
            out.push_str(gap);
            from.split_once('>').map_or("", |(_, after)| after)
        } else {
            let (character, after) = reference(from);
            out.extend(character);
            after
        };
    }
    out + rest
}

/// Letters of the longest character reference read: `&#x10ffff;` and the names below.
const REFERENCE_MAX: usize = 12;

/// Returns the character that `text`, starting with an ampersand, refers to, and the text after it.
fn reference(text: &str) -> (Option<char>, &str) {
    let after_ampersand = text.strip_prefix('&').unwrap_or(text);
    let end = after_ampersand.bytes().take(REFERENCE_MAX).position(|b| b == b';');
    let Some((name, after)) =
        end.and_then(|end| Some((after_ampersand.get(..end)?, after_ampersand.get(end + 1..)?)))
    else {
        return (Some('&'), after_ampersand);
    };
    let code = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => number.parse().ok(),
        },
        None => match name {
            "nbsp" | "ensp" | "emsp" | "thinsp" => Some(0x20),
            "shy" | "zwj" | "zwnj" | "NoBreak" => Some(0xad),
            "ndash" | "mdash" | "minus" | "hyphen" | "dash" => Some(0x2d),
            "period" | "middot" => Some(0x2e),
            _ => None,
        },
    };
    match code.and_then(char::from_u32) {
        Some(character) => (Some(character), after),
        None => (Some('&'), after_ampersand),
    }
}

/// Returns the text with `%41` replaced by `A`.
fn without_percent_codes(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code =
            after.get(..2).filter(|_| byte == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match code.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_character_references_give_way_to_what_the_screen_shows() {
        assert_eq!(
            without_markup("<b>9</b>0&#48;&#x31;01&ndash;1&amp;&unknown; &", ""),
            "9000101-1&amp;&unknown; &".replace("9000101", "900101")
        );
        assert_eq!(without_markup("<td>12</td><td>34", " "), " 12  34");
        assert_eq!(without_markup("1 < 2", ""), "1 ");
    }

    #[test]
    fn file_names_are_read_with_and_without_percent_codes() {
        assert_eq!(without_percent_codes("a%39%30%zz%"), "a90%zz%");
    }

    #[test]
    fn separators_before_a_digit_are_read_past_and_others_are_not() {
        assert_eq!(joined("bed 3: MRN - 1234 5678 is here"), "bed3: MRN12345678 is here");
    }

    #[test]
    fn pictures_and_bytes_that_are_no_text_cannot_be_read() {
        assert!(Content::of(MediaType::ImagePng, b"900101-1234567").is_none());
        assert!(Content::of(MediaType::TextPlain, b"\xff\xfe9\0").is_none());
    }
}
