//! Text.

use policy::language::MediaType;
use zeroize::Zeroizing;

use super::{Changes, Unfit};

/// Characters of a preview.
const PREVIEW: usize = 60;

enum Class {
    Plain,
    Control,
    Bidirectional,
    Invisible,
}

/// What a character is to somebody who reads the text. Unicode 15.1: general categories Cc, Cf and Default_Ignorable_Code_Point,
/// sorted by what they are used for.
fn class(c: char) -> Class {
    match c {
        '\n' | '\t' => Class::Plain,
        c if c.is_control() => Class::Control,
        // Interlinear annotation, musical and shorthand format controls, line and paragraph separators.
        '\u{fff9}'..='\u{fffb}' | '\u{1d173}'..='\u{1d17a}' | '\u{1bca0}'..='\u{1bca3}' => {
            Class::Control
        }
        '\u{2028}' | '\u{2029}' => Class::Control,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Class::Bidirectional
        }
        '\u{ad}'
        | '\u{34f}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{115f}'
        | '\u{1160}'
        | '\u{17b4}'
        | '\u{17b5}'
        | '\u{e0000}'..='\u{e0fff}' => Class::Invisible,
        _ => Class::Plain,
    }
}

/// The text with LF at its line ends, and if `strict` without what nobody sees.
pub(super) fn clean(
    media_type: MediaType,
    bytes: &[u8],
    strict: bool,
) -> Result<(Zeroizing<Vec<u8>>, Changes), Unfit> {
    let text = std::str::from_utf8(bytes).map_err(|_| Unfit::NotText)?;
    let mut changes = Changes::default();
    // Only ever shorter, so it is never moved.
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len()));
    let mut push = |c: char| {
        let mut buffer = [0; 4];
        out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
    };
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\r' => {
                changes.line_ends += 1;
                if rest.peek() != Some(&'\n') {
                    push('\n');
                }
            }
            // What separates the names of a list.
            '\0' if media_type == MediaType::FileList => push(c),
            _ if !strict => push(c),
            _ => match class(c) {
                Class::Plain => push(c),
                Class::Control => changes.control += 1,
                Class::Bidirectional => changes.bidirectional += 1,
                Class::Invisible => changes.invisible += 1,
            },
        }
    }
    Ok((out, changes))
}

pub(super) fn with_crlf(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
    let mut out = Zeroizing::new(Vec::with_capacity(bytes.len().saturating_add(lines)));
    for byte in bytes {
        if *byte == b'\n' {
            out.push(b'\r');
        }
        out.push(*byte);
    }
    out
}

pub(super) fn preview(bytes: &[u8]) -> String {
    // Enough for the preview, however many bytes a character has.
    let start = bytes.get(..bytes.len().min(PREVIEW * 16)).unwrap_or_default();
    let text = String::from_utf8_lossy(start);
    let mut preview = String::new();
    let mut count = 0;
    let words = text
        .split(char::is_whitespace)
        .map(|word| word.chars().filter(|c| matches!(class(*c), Class::Plain)))
        .map(String::from_iter)
        .filter(|word: &String| !word.is_empty());
    for word in words {
        let space = if preview.is_empty() { "" } else { " " };
        for c in space.chars().chain(word.chars()) {
            if count == PREVIEW {
                return preview + "…";
            }
            preview.push(c);
            count += 1;
        }
    }
    if start.len() < bytes.len() {
        preview.push('…');
    }
    preview
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strict(text: &str) -> (String, Changes) {
        let (bytes, changes) = clean(MediaType::TextPlain, text.as_bytes(), true).unwrap();
        (String::from_utf8(bytes.to_vec()).unwrap(), changes)
    }

    #[test]
    fn what_nobody_sees_is_removed_and_counted_and_what_people_write_is_kept() {
        let korean = "김철수 님, 체온 36.5℃\n\t맥박 72회/분 – “정상”";
        assert_eq!(strict(korean), (korean.to_owned(), Changes::default()));
        let (text, changes) = strict("a\u{202e}b\u{200b}c\u{1b}[31md\u{feff}\r\ne\rf\u{2028}");
        assert_eq!(text, "abc[31md\ne\nf");
        let expected = Changes {
            line_ends: 2,
            control: 2,
            bidirectional: 1,
            invisible: 2,
            encoded_anew: false,
        };
        assert_eq!(changes, expected);
        assert!(changes.to_string().starts_with("2 line ends changed, 2 control"));
    }

    #[test]
    fn less_trusted_domains_get_the_text_as_it_is_but_for_its_line_ends() {
        let text = "a\u{200d}b\r\nc\0";
        let (bytes, changes) = clean(MediaType::TextPlain, text.as_bytes(), false).unwrap();
        assert_eq!(&**bytes, "a\u{200d}b\nc\0".as_bytes());
        assert_eq!((changes.line_ends, changes.invisible), (1, 0));
    }

    #[test]
    fn bytes_that_are_no_text_do_not_cross() {
        for bytes in [&b"\xff\xfe"[..], b"a\xc3", b"\xed\xa0\x80", b"\xc0\xaf"] {
            assert_eq!(clean(MediaType::TextPlain, bytes, false).unwrap_err(), Unfit::NotText);
        }
    }

    #[test]
    fn a_preview_is_one_short_line_without_tricks() {
        assert_eq!(preview("a  b\n\u{202e}c\0".as_bytes()), "a b c");
        assert_eq!(preview(&[b'x'; 5000]).chars().count(), PREVIEW + 1);
        assert_eq!(preview(b""), "");
        assert!(preview("가".repeat(61).as_bytes()).ends_with('…'));
        assert!(preview(&[b' '; 5000]).ends_with('…'));
    }

    #[test]
    fn lines_end_as_the_guest_has_it() {
        assert_eq!(&**with_crlf(b"a\nb\n"), b"a\r\nb\r\n");
    }
}
