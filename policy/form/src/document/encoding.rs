//! Bytes of a file as a text: UTF-8, or what is wrong with them.

use std::fmt;

/// Why the bytes of a file are not a text that can be read, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText {
    likely: Likely,
    /// The first byte that is not UTF-8, and where: from the start of the file from 0, then line and column from 1.
    byte: u8,
    at: usize,
    line: usize,
    column: usize,
}

/// What the file seems to be instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likely {
    Utf16,
    Korean,
    Latin,
    /// Not a text in any encoding.
    Binary,
    Unknown,
}

/// Reads the bytes of a file as text.
///
/// # Errors
/// They are not UTF-8.
pub fn text(bytes: &[u8]) -> Result<&str, NotText> {
    let wrong = |at: usize| {
        let before = bytes.get(..at).unwrap_or_default();
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        let in_line = before.get(start..).unwrap_or_default();
        NotText {
            likely: likely(bytes),
            byte: bytes.get(at).copied().unwrap_or(0),
            at,
            line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
            // Bytes that go on with a character are not counted.
            column: in_line.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1,
        }
    };
    match std::str::from_utf8(bytes) {
        Err(error) => Err(wrong(error.valid_up_to())),
        // English in UTF-16 without a mark is UTF-8 to the letter, with a NUL beside each.
        Ok(_) if is_utf16(bytes) => {
            Err(wrong(bytes.iter().position(|byte| *byte == 0).unwrap_or(0)))
        }
        Ok(text) => Ok(text),
    }
}

fn likely(bytes: &[u8]) -> Likely {
    if is_utf16(bytes) {
        Likely::Utf16
    } else if bytes.contains(&0) {
        Likely::Binary
    } else if is_korean(bytes) {
        Likely::Korean
    } else if bytes.iter().all(|byte| byte.is_ascii() || *byte >= 0x80) && is_latin(bytes) {
        Likely::Latin
    } else {
        Likely::Unknown
    }
}

/// Returns whether the bytes look like UTF-16: a byte order mark, or a NUL in every second place of most characters.
fn is_utf16(bytes: &[u8]) -> bool {
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return true;
    }
    let (mut even, mut odd) = (0_usize, 0_usize);
    for pair in bytes.chunks_exact(2) {
        even += usize::from(pair.first() == Some(&0));
        odd += usize::from(pair.get(1) == Some(&0));
    }
    let units = bytes.len() / 2;
    units > 0 && ((even * 2 > units && odd == 0) || (odd * 2 > units && even == 0))
}

/// Returns whether all that is not ASCII is of CP949's two-byte characters, and most of it Hangul as EUC-KR has it.
fn is_korean(bytes: &[u8]) -> bool {
    let (mut hangul, mut others) = (0_usize, 0_usize);
    let mut rest = bytes;
    while let Some((&lead, after)) = rest.split_first() {
        if lead.is_ascii() {
            rest = after;
            continue;
        }
        let Some((&trail, after)) = after.split_first() else { return false };
        let second = trail.is_ascii_alphabetic() || (0x81..=0xfe).contains(&trail);
        match lead {
            0xb0..=0xc8 if (0xa1..=0xfe).contains(&trail) => hangul += 1,
            0x81..=0xfe if second => others += 1,
            _ => return false,
        }
        rest = after;
    }
    hangul > others
}

/// Returns whether nothing is in it that Windows-1252 leaves undefined.
fn is_latin(bytes: &[u8]) -> bool {
    !bytes.iter().any(|byte| matches!(byte, 0x81 | 0x8d | 0x8f | 0x90 | 0x9d))
}

impl fmt::Display for NotText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { likely, byte, at, line, column } = self;
        let (is, remedy) = match likely {
            Likely::Utf16 => ("it is UTF-16", SAVE),
            Likely::Korean => ("it looks like Korean in CP949 (EUC-KR)", SAVE),
            Likely::Latin => ("it looks like Latin-1 (Windows-1252)", SAVE),
            Likely::Unknown => ("it is in some other encoding", SAVE),
            Likely::Binary => ("it is no text", "is this the right file?"),
        };
        write!(
            f,
            "it is not UTF-8: the first wrong byte is 0x{byte:02x} at line {line}, column {column} (byte {} of the file); {is}: {remedy}",
            at + 1
        )
    }
}

const SAVE: &str = "save it as UTF-8 (in Notepad: Save as, Encoding UTF-8)";

impl std::error::Error for NotText {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn why(bytes: &[u8]) -> String {
        text(bytes).unwrap_err().to_string()
    }

    #[test]
    fn a_file_in_another_encoding_is_named_with_its_first_wrong_byte() {
        let utf16 = |bom: bool, text: &str, bytes: fn(u16) -> [u8; 2]| {
            let mark = if bom { Some(0xfeff) } else { None };
            mark.into_iter().chain(text.encode_utf16()).flat_map(bytes).collect::<Vec<u8>>()
        };
        for bytes in [
            utf16(true, "issuer = \"정보보호\"", u16::to_le_bytes),
            utf16(true, "issuer = \"IT\"", u16::to_be_bytes),
            utf16(false, "issuer = \"IT\"", u16::to_le_bytes),
            utf16(false, "issuer = \"정보 IT\"", u16::to_be_bytes),
        ] {
            assert!(why(&bytes).contains("it is UTF-16: save it as UTF-8"), "{}", why(&bytes));
        }
        // "serial = 1\nissuer = \"정보\"" in EUC-KR.
        let korean = why(b"serial = 1\nissuer = \"\xc1\xa4\xba\xb8\"\n");
        assert!(korean.contains("0xc1 at line 2, column 11 (byte 22 of the file)"), "{korean}");
        assert!(korean.contains("CP949 (EUC-KR): save it as UTF-8 (in Notepad: "), "{korean}");
        for latin in [&b"S\xe9curit\xe9"[..], b"Gr\xfc\xdfe", b"caf\xe9", b"\x80 5"] {
            assert!(why(latin).contains("Latin-1"), "{}", why(latin));
        }
        assert!(why(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").contains("it is no text"));
        assert!(why(b"\x81\x20").contains("some other encoding"));
    }

    #[test]
    fn the_place_of_a_wrong_byte_is_counted_in_characters() {
        let found = why("진료 \u{feff}".bytes().chain([0xff]).collect::<Vec<_>>().as_slice());
        assert!(found.contains("0xff at line 1, column 5"), "{found}");
    }

    #[test]
    fn utf_8_is_a_text_whatever_its_script() {
        for good in ["", "a", "진료망", "\u{feff}format = 1", "é", "a\0b\0c d e f"] {
            assert_eq!(text(good.as_bytes()), Ok(good));
        }
    }
}
