//! Payment card numbers (ISO/IEC 7812-1): a known issuer's prefix and length, and Luhn's check digit.
//!
//! | prefix | digits | |
//! |---|---|---|
//! | 4 | 13, 16, 19 | Visa |
//! | 51 to 55, 2221 to 2720 | 16 | Mastercard |
//! | 50, 56 to 58, 6 | 16 to 19 | Maestro, Discover, UnionPay |
//! | 34, 37 | 15 | American Express |
//! | 30, 36, 38, 39 | 14 | Diners Club |
//! | 35 | 16 | JCB |
//! | 9 | 16 | Korean domestic cards |

use super::digits::{Digit, Gap, gaps, numbers, value};

pub(super) fn is_in(digits: &[Digit]) -> bool {
    (13..=19).any(|length| {
        numbers(digits, length).any(|number| {
            has_issuer(number)
                && gaps(number).all(|(_, gap)| gap != Gap::Line)
                && passes_luhn(number)
        })
    })
}

fn has_issuer(number: &[Digit]) -> bool {
    let prefix = value(number.get(..4).unwrap_or_default());
    match number.len() {
        13 | 19 if prefix / 1000 == 4 => true,
        14 => matches!(prefix / 100, 30 | 36 | 38 | 39),
        15 => matches!(prefix / 100, 34 | 37),
        16 => matches!(prefix, 2221..=2720 | 3500..=3599 | 4000..=6999 | 9000..=9999),
        17..=19 => matches!(prefix / 100, 50 | 56..=58 | 60..=69),
        _ => false,
    }
}

/// Returns whether the check digit is right (ISO/IEC 7812-1, annex B): every second digit from the right doubled, the digits of all of it added up.
fn passes_luhn(number: &[Digit]) -> bool {
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (u32::from(digit.value), place % 2) {
            (digit, 0) => digit,
            (digit, _) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use crate::detect::{BuiltIn, finds};

    fn found(text: &str) -> bool {
        finds(BuiltIn::CardNumber, text)
    }

    #[test]
    fn card_numbers_of_every_issuer_are_found_however_they_are_spaced() {
        for text in [
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5555555555554444",
            "2223 0031 2200 3222",
            "3782 822463 10005",
            "30569309025904",
            "3530 1113 3330 0000",
            "6200 0000 0000 0005",
            "９４１０－８５２０－００００－０００９",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4111\u{200b}1111\u{200b}1111\u{200b}1111",
        ] {
            assert!(found(text), "{text:?}");
        }
    }

    #[test]
    fn a_number_that_fails_the_check_or_has_no_issuer_is_let_through() {
        for text in [
            "4111 1111 1111 1112",
            "1111 1111 1111 1117",
            "0000 0000 0000 0000",
            "8801234567890",
            "411111111111111",
            "24111111111111111",
        ] {
            assert!(!found(text), "{text:?}");
        }
    }
}
