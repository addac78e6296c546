//! Plain letters and digits out of what only looks like them.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::is_combining_mark;

/// Folds a text in plain letters and digits: compatibility forms and scripts' own digits replaced by what they stand for, what has no
/// width and every combining mark left out, and Hangul whole (Unicode's form NFKC, without marks). CR LF is one line end.
pub(super) fn plain(text: &str) -> String {
    let mut last = '\0';
    let line_ends_once = move |c: &char| {
        let second = last == '\r' && *c == '\n';
        last = *c;
        !second
    };
    text.chars()
        .filter(line_ends_once)
        .filter_map(fold)
        .nfkd()
        .filter(|c| !is_combining_mark(*c))
        .nfc()
        .collect()
}

/// Returns what a character counts as, for a detector.
fn fold(c: char) -> Option<char> {
    match c {
        ' '..='~' | '\n' => Some(c),
        _ if is_invisible(c) => None,
        // The full-width forms stand in the order of ASCII.
        '\u{ff01}'..='\u{ff5e}' => char::from_u32(u32::from(c) - 0xfee0),
        _ if is_dash(c) => Some('-'),
        '\u{b}' | '\u{c}' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some('\n'),
        _ if c.is_whitespace() => Some(' '),
        _ if c.is_control() => None,
        _ => Some(digit(c).unwrap_or(c)),
    }
}

/// Returns whether it is a hyphen, a dash, a minus sign, or a Korean or Japanese long vowel that is typed for one.
fn is_dash(c: char) -> bool {
    matches!(
        c,
        '\u{2010}'
            ..='\u{2015}'
                | '\u{2043}'
                | '\u{207b}'
                | '\u{208b}'
                | '\u{2212}'
                | '\u{2500}'
                | '\u{2796}'
                | '\u{301c}'
                | '\u{3030}'
                | '\u{30fc}'
                | '\u{3161}'
                | '\u{fe58}'
                | '\u{fe63}'
                | '\u{ff70}'
    )
}

/// Returns whether it takes no room: zero-width characters, soft hyphens, marks of direction, fillers, variation selectors, tags (Unicode's
/// `Default_Ignorable_Code_Point`).
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Where the decimal digits of every script start; each has ten in a row (Unicode 14, general category `Nd`). Those that
/// are full-width or ASCII are dealt with before.
const ZEROS: [u32; 64] = [
    0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6,
    0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50,
    0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0x104a0,
    0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650, 0x116c0,
    0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50, 0x1d7ce,
    0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Digits with an ornament: first code point, value of the first, how many follow each other.
const ORNAMENTED: [(u32, u32, u32); 15] = [
    (0xb2, 2, 2),    // superscript
    (0xb9, 1, 1),    // superscript
    (0x2070, 0, 1),  // superscript
    (0x2074, 4, 6),  // superscript
    (0x2080, 0, 10), // subscript
    (0x2460, 1, 9),  // circled
    (0x2474, 1, 9),  // in parentheses
    (0x2488, 1, 9),  // with a full stop
    (0x24ea, 0, 1),  // circled
    (0x24f5, 1, 9),  // circled twice
    (0x24ff, 0, 1),  // circled, negative
    (0x2776, 1, 9),  // circled, negative
    (0x2780, 1, 9),  // circled, sans-serif
    (0x278a, 1, 9),  // circled, negative, sans-serif
    (0x1f100, 0, 1), // with a full stop
];

/// Returns the ASCII digit that a digit of another script or style stands for.
fn digit(c: char) -> Option<char> {
    let code = u32::from(c);
    let after = ZEROS.partition_point(|&zero| zero <= code);
    let plain = after.checked_sub(1).and_then(|at| ZEROS.get(at)).map(|zero| code - zero);
    let ornamented = || {
        let (first, value, _) =
            ORNAMENTED.iter().find(|(first, _, count)| (*first..first + count).contains(&code))?;
        Some(value + code - first)
    };
    char::from_digit(plain.filter(|value| *value < 10).or_else(ornamented)?, 10)
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn digits_of_every_script_and_style_count_as_digits() {
        assert_eq!(plain("１２３ ٤٥٦ ７८９ 𝟘𝟙 ²³ ①⑨ ₀ ⓪"), "123 456 789 01 23 19 0 0");
    }

    #[test]
    fn invisible_characters_vanish_and_dashes_are_one_dash() {
        assert_eq!(plain("9\u{200b}0\u{ad}0\u{2060}1—0\u{feff}1ㅡ1\u{336}"), "9001-01-1");
    }

    #[test]
    fn letters_are_read_without_their_marks_whole_or_in_parts() {
        for text in ["환자 홍길동, é", "환자 홍길동, e\u{301}\u{f73}", "ｅ"] {
            assert!(plain(text).ends_with('e'), "{text:?}");
        }
        let apart = "\u{1112}\u{1169}\u{11bc}\u{1100}\u{1175}\u{11af}\u{1103}\u{1169}\u{11bc}";
        assert_eq!(plain(apart), "홍길동");
        assert_eq!(plain("ﾎﾝｷﾞﾙ"), plain("ホンキル"));
    }

    #[test]
    fn every_combining_mark_is_seen_through() {
        let all: String = ('\0'..=char::MAX).collect();
        let marks: Vec<&str> = regex::Regex::new(r"\p{M}")
            .unwrap()
            .find_iter(&all)
            .map(|mark| mark.as_str())
            .collect();
        assert!(marks.len() > 2000);
        for mark in marks {
            assert_eq!(plain(&format!("9{mark}0")), "90", "{}", mark.escape_unicode());
        }
    }

    #[test]
    fn cr_lf_is_one_line_end() {
        assert_eq!(plain("a\r\nb\rc\n\nd\r\r\n"), "a\nb\nc\n\nd\n\n");
    }
}
