//! Korean resident registration numbers: `YYMMDD-SNNNNNN`, and those of registered foreigners, which have the same form.
//!
//! | digits | meaning | checked |
//! |---|---|---|
//! | `YYMMDD` | date of birth | is a date of the century that `S` names, leap years included |
//! | `S` | 1, 2: born 19YY; 3, 4: born 20YY; 5, 6 and 7, 8: the same for foreigners | 1 to 8 |
//! | `NNNNNN` | until October 2020 place, order and a check digit; random since | no |
//!
//! The check digit is not looked at: numbers issued since October 2020 (Resident Registration Act, enforcement rule, article 2)
//! have none, so whoever demands it misses every child born since. 9 and 0 meant the 1800s.
//!
//! A line break is taken for part of the number only between its halves: columns of laboratory values would otherwise
//! be read as numbers.

use super::digits::{Digit, Gap, gaps, numbers, value};

const LENGTH: usize = 13;
/// Digits before the hyphen.
const BIRTH: usize = 6;

pub(super) fn is_in(digits: &[Digit]) -> bool {
    numbers(digits, LENGTH).any(|number| is_laid_out(number) && is_valid(number))
}

fn is_laid_out(number: &[Digit]) -> bool {
    gaps(number).all(|(place, gap)| gap != Gap::Line || place == BIRTH)
}

fn is_valid(number: &[Digit]) -> bool {
    let Some(([birth @ .., m1, m2, d1, d2], [sex, ..])) = number.split_at_checked(BIRTH) else {
        return false;
    };
    let century = match sex.value {
        1 | 2 | 5 | 6 => 1900,
        3 | 4 | 7 | 8 => 2000,
        _ => return false,
    };
    let (year, month, day) = (century + value(birth), value(&[*m1, *m2]), value(&[*d1, *d2]));
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

#[cfg(test)]
mod tests {
    use crate::detect::{BuiltIn, finds};

    fn found(text: &str) -> bool {
        finds(BuiltIn::KoreanRrn, text)
    }

    #[test]
    fn a_resident_registration_number_is_found_however_it_is_spaced() {
        for text in [
            "900101-1234567",
            "9001011234567",
            "주민번호:900101-1234567입니다",
            "900101 - 1234567",
            "90 01 01 1 234567",
            "9 0 0 1 0 1 1 2 3 4 5 6 7",
            "90.01.01-1234567",
            "９００１０１－１２３４５６７",
            "900101\u{2013}1234567",
            "900101ㅡ1234567",
            "9\u{200b}00101\u{200b}-1\u{2060}234567",
            "900101\n1234567",
            "No.3 900101-1234567 4F",
        ] {
            assert!(found(text), "{text:?}");
        }
    }

    #[test]
    fn numbers_issued_since_october_2020_are_found_though_their_check_digit_is_random() {
        for last in 0..=9 {
            assert!(found(&format!("210505-312345{last}")));
        }
    }

    #[test]
    fn foreigners_numbers_are_found() {
        assert!(found("850615-5234567"));
        assert!(found("050615-8234567"));
    }

    #[test]
    fn what_is_no_date_or_no_gender_digit_is_let_through() {
        for text in [
            "901301-1234567", // thirteenth month
            "900230-1234567", // thirtieth of February
            "900100-1234567",
            "900101-9234567", // born in the 1800s
            "900101-0234567",
            "000229-1234567", // 1900 was no leap year
            "900101-123456",
            "900101-12345678",
            "1900101-1234567",
            "900101, 1234567",
            "900101-1******",
            "ICD 900101 dose 1234567",
        ] {
            assert!(!found(text), "{text:?}");
        }
        assert!(found("000229-3234567"), "2000 was a leap year");
    }

    #[test]
    fn a_column_of_laboratory_values_is_no_number() {
        assert!(!found("90\n01\n01\n12\n34\n56\n7"));
    }
}
