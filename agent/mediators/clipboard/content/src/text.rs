//! Text. How it is cleaned is the policy's, as its promises are about cleaned text: `policy::cleaning`.

use policy::cleaning::{Purpose, clean};
use zeroize::Zeroizing;

/// Characters of a preview.
const PREVIEW: usize = 60;

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
    let cleaned = clean(&String::from_utf8_lossy(start), Purpose::Reading);
    let mut preview = String::new();
    let mut count = 0;
    for word in cleaned.text().split_whitespace() {
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

    #[test]
    fn a_preview_is_one_short_line_without_tricks() {
        assert_eq!(preview("a  b\n\u{202e}c\0".as_bytes()), "a b c");
        assert_eq!(preview("1\u{b}5 mg".as_bytes()), "1 5 mg", "as it would be pasted");
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
