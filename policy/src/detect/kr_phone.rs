//! Korean telephone numbers (Ministry of Science and ICT, telecommunications numbering plan).
//!
//! | prefix | digits in all | |
//! |---|---|---|
//! | 010 | 11 | mobile |
//! | 011, 016 to 019 | 10, 11 | mobile, older |
//! | 02 | 9, 10 | Seoul |
//! | 031 to 033, 041 to 044, 051 to 055, 061 to 064 | 10, 11 | provinces |
//! | 070 | 11 | Internet telephony |
//! | 050x | 11, 12 | personal and virtual numbers |
//!
//! From abroad `+82` stands for the first 0. Companies' numbers without a prefix (15xx) and toll-free 080 belong to nobody in
//! particular and are let through.
//!
//! Dates and times are made of the same digits, so gaps count: they stand where people put them (after the prefix and before
//! the last four), or after every digit.

use super::digits::{Digit, Gap, gaps, numbers};

/// Of the longest number: 82, the 0 that some people leave in parentheses, and eleven more.
const LONGEST: usize = 14;
const SHORTEST: usize = 9;
/// Digits after the last gap.
const LAST: usize = 4;

pub(super) fn is_in(digits: &[Digit]) -> bool {
    (SHORTEST..=LONGEST).any(|length| numbers(digits, length).any(is_number))
}

fn is_number(number: &[Digit]) -> bool {
    let mut values = [0; LONGEST];
    for (slot, digit) in values.iter_mut().zip(number) {
        *slot = digit.value;
    }
    let (abroad, national) = match values.get(..number.len()).unwrap_or_default() {
        [8, 2, 0, rest @ ..] => (3, rest),
        [8, 2, rest @ ..] => (2, rest),
        [0, rest @ ..] => (1, rest),
        _ => return false,
    };
    prefix(national).is_some_and(|prefix| is_laid_out(number, abroad, abroad + prefix))
}

/// Returns how many digits the prefix has, its 0 left out; `None` if this is no telephone number.
fn prefix(national: &[u8]) -> Option<usize> {
    let exchange = |prefix: usize| national.get(prefix).is_some_and(|digit| *digit >= 2);
    match (national, national.len()) {
        ([1, 0, ..], 10) | ([1, 1 | 6..=9, ..], 9 | 10) => Some(2),
        ([2, ..], 8 | 9) if exchange(1) => Some(1),
        ([3, 1..=3, ..] | [4, 1..=4, ..] | [5, 1..=5, ..] | [6, 1..=4, ..], 9 | 10)
            if exchange(2) =>
        {
            Some(2)
        }
        ([7, 0, ..], 10) if exchange(2) => Some(2),
        ([5, 0, _, ..], 10 | 11) if exchange(3) => Some(3),
        _ => None,
    }
}

fn is_laid_out(number: &[Digit], abroad: usize, prefix: usize) -> bool {
    let customary = |place: usize| {
        place == prefix
            || place + LAST == number.len()
            || (abroad > 1 && (2..=abroad).contains(&place))
    };
    let every_digit = gaps(number).all(|(_, gap)| gap == Gap::Spaced);
    every_digit
        || gaps(number)
            .all(|(place, gap)| gap == Gap::Joined || (gap == Gap::Spaced && customary(place)))
}

#[cfg(test)]
mod tests {
    use crate::detect::{BuiltIn, finds};

    fn found(text: &str) -> bool {
        finds(BuiltIn::KrPhone, text)
    }

    #[test]
    fn telephone_numbers_are_found_as_people_write_them() {
        for text in [
            "010-1234-5678",
            "01012345678",
            "010 1234 5678",
            "010.1234.5678",
            "０１０－１２３４－５６７８",
            "0 1 0 1 2 3 4 5 6 7 8",
            "010\u{200b}1234\u{200b}5678",
            "011-234-5678",
            "02-345-6789",
            "02-3456-7890",
            "(02) 3456-7890",
            "031-345-6789",
            "064-345-6789",
            "070-4567-8901",
            "0507-2345-5678",
            "+82-10-1234-5678",
            "+82 (0)10-1234-5678",
            "+82 2 3456 7890",
            "전화 010-1234-5678로",
        ] {
            assert!(found(text), "{text:?}");
        }
    }

    #[test]
    fn dates_measurements_and_longer_numbers_are_let_through() {
        for text in [
            "2026-03-15 10:30",
            "03-15-2024 10",
            "02 12 2024 1",
            "120/80 98 36.5",
            "010-1234-567",
            "9010123456789",
            "012-3456-7890",
            "1588-1234",
            "080-123-4567",
            "010\n1234\n5678",
        ] {
            assert!(!found(text), "{text:?}");
        }
    }
}
