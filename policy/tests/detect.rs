//! Detectors: disguises that happen on a ward hide nothing, and nothing makes them fail or slow.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::time::Instant;

use policy::detect::{BuiltIn, Content, Detector, Pattern};
use policy::language::MediaType;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

fn finds(built_in: BuiltIn, media_type: MediaType, text: &str) -> bool {
    Detector::BuiltIn(built_in).finds(&Content::of(media_type, text.as_bytes()).unwrap())
}

/// Returns the digit in one of several scripts and styles.
fn dressed(digit: char, style: usize) -> char {
    let zero =
        ['0', '\u{ff10}', '\u{660}', '\u{1d7ce}', '\u{966}'].get(style).copied().unwrap_or('0');
    char::from_u32(u32::from(zero) + u32::from(digit) - u32::from('0')).unwrap()
}

/// Returns the digits of a number, each in some style, with something before each that a reader does not see or reads past.
fn disguised(number: &str, styles: &[usize], before: &[&str]) -> String {
    let digits = number.chars().zip(styles.iter().cycle()).zip(before.iter().cycle());
    digits.map(|((digit, style), before)| format!("{before}{}", dressed(digit, *style))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // Shows: P-2.
    #[test]
    fn a_resident_registration_number_is_found_in_any_disguise(
        (year, month, day) in (0..100u32, 1..13u32, 1..29u32),
        sex in 1..9u32,
        rest in 0..1_000_000u32,
        styles in vec(0..5usize, 13),
        before in vec(select(vec!["", " ", "-", "\u{200b}", "\u{ad}", " - ", "\u{2013}", "\u{3000}", ".", "\u{feff}-"]), 13),
    ) {
        let number = format!("{year:02}{month:02}{day:02}{sex}{rest:06}");
        let text = format!("등록번호 {} 입니다", disguised(&number, &styles, &before));
        prop_assert!(finds(BuiltIn::KoreanRrn, MediaType::TextPlain, &text), "{}", text);
        prop_assert!(finds(BuiltIn::KoreanRrn, MediaType::TextHtml, &format!("<p>{text}</p>")), "{}", text);
    }

    #[test]
    fn a_mobile_number_is_found_in_any_digits(number in "010[2-9][0-9]{7}", styles in vec(0..5usize, 11)) {
        for before in [&[""][..], &[" "], &["-"], &["\u{200b}"]] {
            let text = format!("tel {}.", disguised(&number, &styles, before));
            prop_assert!(finds(BuiltIn::KrPhone, MediaType::TextPlain, &text), "{}", text);
        }
    }

    #[test]
    fn any_content_is_looked_into_to_the_end(bytes in vec(any::<u8>(), 0..300), text in "[<>&#;%0-9a-fx \u{200b}-]{0,200}") {
        let pattern = Detector::Pattern("chart".parse().unwrap(), Pattern::new(r"\bMRN-?\d{8}\b").unwrap());
        for (_, media_type) in MediaType::WORDS {
            for content in [&bytes[..], text.as_bytes()] {
                let Some(content) = Content::of(media_type, content) else { continue };
                _ = pattern.finds(&content);
                for (_, built_in) in BuiltIn::WORDS {
                    _ = Detector::BuiltIn(built_in).finds(&content);
                }
            }
        }
    }
}

#[test]
fn text_made_to_be_slow_is_looked_into_in_time_linear_in_it() {
    let pattern = Detector::Pattern("slow".parse().unwrap(), Pattern::new(r"(\d+ ?)+X").unwrap());
    for slow in ["0 1 0 ", "82 10 1234 ", "&#48", "<&", "4 "] {
        let text = slow.repeat((1 << 17) / slow.len());
        let start = Instant::now();
        let content = Content::of(MediaType::TextHtml, text.as_bytes()).unwrap();
        for (_, built_in) in BuiltIn::WORDS {
            _ = Detector::BuiltIn(built_in).finds(&content);
        }
        _ = pattern.finds(&content);
        // A debug build on a busy machine: what is linear takes about a second, what is not takes minutes.
        assert!(start.elapsed().as_secs() < 30, "{slow:?}: {:?}", start.elapsed());
    }
}
