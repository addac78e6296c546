//! Text, made fit to cross: what separates goes on separating, what has no width goes.
//!
//! Every text that crosses is cleaned, whichever way it goes, and detectors, sizes and the audit are about the cleaned text. So
//! the agent, `explain` and `[[expect]]` decide on the same bytes.
//!
//! | in the text | becomes |
//! | --- | --- |
//! | CR LF, CR, line tabulation, form feed, NEL, line and paragraph separators | LF |
//! | a space of any kind, blank letters (Hangul fillers), the Mongolian vowel separator | a space |
//! | the soft hyphen | a hyphen |
//! | any other control character, interlinear annotation marks | a space between two visible characters, else nothing |
//! | bidirectional marks, zero-width characters, variation selectors, tags | nothing |
//! | everything else, tabs too | itself |
//!
//! So no two letters or digits touch afterwards that were apart on the screen: "1", line tabulation, "5" must not become "15".

use std::fmt;

use zeroize::Zeroizing;

/// What was changed, for the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Line ends that were not LF.
    pub line_ends: usize,
    /// Separators that became a line end or a space.
    pub separators: usize,
    /// Soft hyphens that became hyphens.
    pub hyphens: usize,
    /// Control characters that became a space, or nothing.
    pub control: usize,
    /// Characters removed that turn the direction of text around.
    pub bidirectional: usize,
    /// Characters removed that have no width.
    pub invisible: usize,
}

impl Changes {
    /// Returns whether nothing was.
    #[must_use]
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = [
            (self.line_ends, "line ends changed"),
            (self.separators, "separators made plain"),
            (self.hyphens, "soft hyphens made visible"),
            (self.control, "control characters removed"),
            (self.bidirectional, "bidirectional characters removed"),
            (self.invisible, "zero-width characters removed"),
        ];
        let mut between = "";
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{between}{count} {what}")?;
            between = ", ";
        }
        Ok(())
    }
}

/// What text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A person or a program reads it.
    Reading,
    /// It is a list of names, which NUL separates.
    Names,
}

/// A text that is fit to cross.
#[derive(Clone, Debug)]
pub struct Cleaned {
    /// UTF-8, never longer than it was. Wiped when it is dropped.
    pub bytes: Zeroizing<Vec<u8>>,
    /// What was taken out or replaced.
    pub changes: Changes,
}

impl Cleaned {
    /// Returns the bytes as text.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// What becomes of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Kept,
    LineEnd,
    Space,
    Hyphen,
    Control,
    Bidirectional,
    Invisible,
}

/// Classes a character by Unicode 16: general categories Cc, Zs, Zl, Zp, and `Default_Ignorable_Code_Point`, sorted by what they do to the text.
const fn class(c: char) -> Class {
    match c {
        '\n' | '\t' | ' ' => Class::Kept,
        '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => Class::LineEnd,
        // Zs; letters that are blank; what was a space until Unicode 6.3 and is drawn as one.
        '\u{a0}'
        | '\u{1680}'
        | '\u{2000}'..='\u{200a}'
        | '\u{202f}'
        | '\u{205f}'
        | '\u{3000}'
        | '\u{115f}'..='\u{1160}'
        | '\u{3164}'
        | '\u{ffa0}'
        | '\u{180e}' => Class::Space,
        '\u{ad}' => Class::Hyphen,
        // Interlinear annotations stand beside what they annotate, so their marks separate.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{fff9}'..='\u{fffb}' => Class::Control,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Class::Bidirectional
        }
        '\u{34f}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180d}'
        | '\u{180f}'
        | '\u{200b}'..='\u{200d}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{fff0}'..='\u{fff8}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' => Class::Invisible,
        _ => Class::Kept,
    }
}

/// Cleans text, as it crosses; see the module.
#[must_use]
pub fn clean(text: &str, purpose: Purpose) -> Cleaned {
    let mut changes = Changes::default();
    // Whole at once: nothing gets longer, and a buffer that grows leaves copies behind that nobody wipes.
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut last = None;
    // A control character was passed, and nothing was written since.
    let mut parted = false;
    let mut write = |c: char, parted: &mut bool| {
        let visible = |c: char| !c.is_whitespace() && c != '\0';
        if std::mem::take(parted) && last.is_some_and(visible) && visible(c) {
            bytes.push(b' ');
        }
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        last = Some(c);
    };
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match class(c) {
            Class::LineEnd => {
                let carriage = c == '\r';
                *(if carriage { &mut changes.line_ends } else { &mut changes.separators }) += 1;
                if !carriage || rest.peek() != Some(&'\n') {
                    write('\n', &mut parted);
                }
            }
            Class::Space => {
                changes.separators += 1;
                write(' ', &mut parted);
            }
            Class::Hyphen => {
                changes.hyphens += 1;
                write('-', &mut parted);
            }
            Class::Control if c == '\0' && purpose == Purpose::Names => write(c, &mut parted),
            Class::Control => {
                changes.control += 1;
                parted = true;
            }
            Class::Bidirectional => changes.bidirectional += 1,
            Class::Invisible => changes.invisible += 1,
            Class::Kept => write(c, &mut parted),
        }
    }
    Cleaned { bytes, changes }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    fn cleaned(text: &str) -> String {
        clean(text, Purpose::Reading).text().to_owned()
    }

    /// Returns the characters of a class, after Unicode's own tables as the crate `regex` has them.
    fn property(class: &str) -> impl Fn(char) -> bool + use<> {
        let all: String = all().collect();
        let found: HashSet<char> = Regex::new(&format!("[{class}]"))
            .unwrap()
            .find_iter(&all)
            .filter_map(|found| found.as_str().chars().next())
            .collect();
        move |c| found.contains(&c)
    }

    /// Characters without width: format characters and marks that are drawn as nothing, and places kept for such. Neither
    /// spaces nor the soft hyphen, nor blank letters.
    fn without_width() -> impl Fn(char) -> bool + use<> {
        let ignorable = property(r"\p{Default_Ignorable_Code_Point}&&[\p{Cf}\p{Mn}\p{Cn}]");
        move |c| ignorable(c) && !matches!(c, '\u{ad}' | '\u{180e}')
    }

    fn all() -> impl Iterator<Item = char> {
        '\0'..=char::MAX
    }

    /// Returns everything that separates, or that nobody sees, after Unicode's tables or ours.
    fn special() -> Vec<char> {
        let separates = property(r"\p{Z}\p{Cc}\p{Cf}\p{Default_Ignorable_Code_Point}");
        all().filter(|c| class(*c) != Class::Kept || separates(*c)).collect()
    }

    #[test]
    fn every_other_character_of_unicode_is_kept_beside_every_other() {
        let special: HashSet<char> = special().into_iter().collect();
        let text: String = all().filter(|c| !special.contains(c)).flat_map(|c| [c, '1']).collect();
        assert!(text.chars().count() > 2_000_000);
        let Cleaned { bytes, changes } = clean(&text, Purpose::Reading);
        assert!(**bytes == *text.as_bytes() && changes.none());
    }

    // Shows: P-2.
    #[test]
    fn no_character_of_unicode_that_parts_two_numbers_or_words_disappears_between_them() {
        let without_width = without_width();
        for c in special() {
            for (before, after) in [("1", "5"), ("mg", "ml"), ("가", "나"), ("5", "mg")] {
                let text = cleaned(&format!("{before}{c}{after}"));
                let touch = text == format!("{before}{after}");
                assert_eq!(touch, without_width(c), "U+{:04X} {text:?}", u32::from(c));
            }
        }
    }

    #[test]
    fn every_separator_of_unicode_becomes_a_line_end_a_space_or_a_hyphen() {
        let space = property(r"\p{Zs}");
        let line = property(r"\p{Zl}\p{Zp}\u{b}\u{c}\u{85}\r\n");
        let control = property(r"\p{Cc}");
        for c in special() {
            let text = cleaned(&format!("1{c}5"));
            let wanted = match c {
                '\t' => "1\t5",
                '\u{ad}' => "1-5",
                _ if line(c) => "1\n5",
                _ if space(c) || control(c) => "1 5",
                _ => continue,
            };
            assert_eq!(text, wanted, "U+{:04X}", u32::from(c));
        }
    }

    #[test]
    fn nothing_is_left_that_nobody_sees() {
        let hidden = property(r"\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\p{Cc}&&[^\n\t]");
        for c in special() {
            for text in
                [format!("1{c}5"), format!("{c}"), format!(" {c}\n")].map(|text| cleaned(&text))
            {
                assert!(!text.chars().any(&hidden), "U+{:04X} {text:?}", u32::from(c));
            }
        }
    }

    #[test]
    fn what_people_write_is_kept() {
        let korean = "김철수 님, 체온 36.5℃\n\t맥박 72회/분 – “정상” café 2½ 🩺";
        let Cleaned { bytes, changes } = clean(korean, Purpose::Reading);
        assert_eq!((&**bytes, changes), (korean.as_bytes(), Changes::default()));
    }

    #[test]
    fn every_change_is_counted() {
        let text = "a\u{202e}b\u{200b}c\u{1b}[31md\u{feff}\r\ne\rf\u{2028}5\u{ad}10\u{3000}mg\u{7}";
        let Cleaned { bytes, changes } = clean(text, Purpose::Reading);
        assert_eq!(std::str::from_utf8(&bytes), Ok("abc [31md\ne\nf\n5-10 mg"));
        let expected = Changes {
            line_ends: 2,
            separators: 2,
            hyphens: 1,
            control: 2,
            bidirectional: 1,
            invisible: 2,
        };
        assert_eq!(changes, expected);
        assert!(changes.to_string().starts_with("2 line ends changed, 2 separators"));
        assert!(Changes::default().none() && !changes.none());
    }

    #[test]
    fn names_in_a_list_stay_apart() {
        assert_eq!(&**clean("copy\0a\u{7}b\0c", Purpose::Names).bytes, b"copy\0a b\0c");
        assert_eq!(cleaned("copy\0a"), "copy a");
    }

    type Property = Box<dyn Fn(char) -> bool + Send + Sync>;
    static WITHOUT_WIDTH: std::sync::OnceLock<Property> = std::sync::OnceLock::new();

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        #[test]
        fn no_two_letters_or_digits_touch_that_were_apart(
            text in "([0-9a-z가-힣]|\\PC|[\\p{Cc}\\p{Cf}\\p{Zs}\\p{Zl}\\p{Zp}\u{3164}\u{ad}\r\n]){0,40}"
        ) {
            let seen: String = text.chars().filter(|c| !WITHOUT_WIDTH.get_or_init(|| Box::new(without_width()))(*c)).collect();
            let got = cleaned(&text);
            // Pairs that touch afterwards, in order, are pairs that touched before, in the same order.
            let pairs = |text: &str| -> Vec<(char, char)> {
                let chars: Vec<char> = text.chars().collect();
                chars.windows(2).map(|pair| (pair[0], pair[1])).filter(|(a, b)| a.is_alphanumeric() && b.is_alphanumeric()).collect()
            };
            let blank = |c: &char| matches!(c, '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}');
            let mut before = pairs(&seen).into_iter().filter(|(a, b)| !blank(a) && !blank(b));
            for pair in pairs(&got) {
                prop_assert_eq!(before.next(), Some(pair), "{:?} {:?}", text, got);
            }
            prop_assert!(got.len() <= text.len());
            prop_assert_eq!(cleaned(&got), got, "cleaning twice is cleaning once");
        }
    }
}
