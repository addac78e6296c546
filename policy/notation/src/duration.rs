//! Lengths of time.
//!
//! One reader finds numbers and units. Who asks says how much of what people write is taken:
//!
//! | function | takes | for |
//! | --- | --- | --- |
//! | [`exact`] | `30s`, `10m`, `8h` | a policy, which every version must read alike |
//! | [`short`] | `30s`, `2m`, also in capitals and with a space, from a second to [`SHORT_MAX`] | an option of the VMM, the machine file |
//! | [`loose`] | also `10 min`, `1h30m`, `2 Hours`, `10분` | a person at a command; the remedy in the message that refuses something |
//! | [`one`] | one number and the letter of its unit, days and weeks too | a time so long ago |

use std::time::Duration;

use crate::Mistake;
use crate::amount::Amount;
use crate::mistake::shown;

/// Longest time that [`short`] takes: a PC that is switched off must get there.
pub const SHORT_MAX: Duration = Duration::from_secs(600);

/// Bytes of the longest text that [`loose`] looks at.
const LONGEST: usize = 40;

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// `s`
    Second,
    /// `m`
    Minute,
    /// `h`
    Hour,
    /// `d`
    Day,
    /// `w`
    Week,
}

impl Unit {
    /// Returns the unit that a small letter stands for.
    fn of_letter(letter: &str) -> Option<Self> {
        Some(match letter {
            "s" => Self::Second,
            "m" => Self::Minute,
            "h" => Self::Hour,
            "d" => Self::Day,
            "w" => Self::Week,
            _ => return None,
        })
    }

    /// Returns the unit that a word stands for among people.
    fn of_word(word: &str) -> Option<Self> {
        let word = word.to_lowercase();
        Some(match word.as_str() {
            "sec" | "secs" | "second" | "seconds" | "초" => Self::Second,
            "min" | "mins" | "minute" | "minutes" | "분" => Self::Minute,
            "hr" | "hrs" | "hour" | "hours" | "시간" => Self::Hour,
            "day" | "days" | "일" => Self::Day,
            // Nothing takes a length of weeks.
            letter => return Self::of_letter(letter).filter(|unit| *unit != Self::Week),
        })
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
        }
    }
}

/// Reads seconds, minutes or hours, written in one way only; returns seconds.
#[must_use]
pub fn exact(text: &str) -> Option<u64> {
    let amount = Amount::only(text).filter(|amount| amount.gap.is_empty())?;
    let unit = Unit::of_letter(amount.unit)
        .filter(|unit| matches!(unit, Unit::Second | Unit::Minute | Unit::Hour))?;
    amount.number?.checked_mul(unit.seconds())
}

/// Reads seconds or minutes, from one second to [`SHORT_MAX`].
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn short(text: &str) -> Result<Duration, Mistake> {
    let amount = Amount::only(text).filter(Amount::is_close);
    let unit = |amount: &Amount<'_>| {
        Unit::of_letter(&amount.unit.to_ascii_lowercase())
            .filter(|unit| matches!(unit, Unit::Second | Unit::Minute))
    };
    let Some((number, unit)) = amount.and_then(|it| Some((it.number, unit(&it)?))) else {
        return Err(Mistake::new(
            format!("`{}` is not a duration", shown(text)),
            "write a whole number and a unit, like 30s or 2m",
        ));
    };
    let time =
        number.and_then(|number| number.checked_mul(unit.seconds())).map(Duration::from_secs);
    time.filter(|time| (Duration::from_secs(1)..=SHORT_MAX).contains(time))
        .ok_or_else(|| Mistake::new(format!("{} is out of range", shown(text)), "write 1s to 10m"))
}

/// Reads a length of time as people write it, of up to days; returns seconds.
#[must_use]
pub fn loose(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() || rest.len() > LONGEST {
        return None;
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let (amount, next) = Amount::first(rest)?;
        let unit = Unit::of_word(amount.unit)?;
        sum = sum.checked_add(amount.number?.checked_mul(unit.seconds())?)?;
        rest = next.trim_start();
    }
    Some(sum)
}

/// Reads one number and the letter of its unit, from seconds to weeks.
#[must_use]
pub fn one(text: &str) -> Option<(u64, Unit)> {
    let amount = Amount::only(text)?;
    Some((amount.number?, Unit::of_letter(amount.unit)?))
}

/// Writes a length of time as a policy has it, in the largest unit that it is a whole number of.
#[must_use]
pub fn written(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        _ => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_duration_is_seconds_or_minutes_up_to_ten() {
        for (text, seconds) in [("1s", 1), ("30s", 30), ("2m", 120), ("10m", 600), ("30 S", 30)] {
            assert_eq!(short(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "s", "1h", "1.5s", "-1s", "30  s", "30s ", " 30s", "30sec", "1m30s"]
        {
            assert!(short(text).unwrap_err().help.contains("30s or 2m"), "{text}");
        }
        for text in ["0s", "11m", "601s", "99999999999999999999m"] {
            assert!(short(text).unwrap_err().help.contains("1s to 10m"), "{text}");
        }
    }

    #[test]
    fn an_exact_duration_is_written_in_one_way_only() {
        for (text, seconds) in [("30s", 30), ("010m", 600), ("8h", 28_800), ("0s", 0)] {
            assert_eq!(exact(text), Some(seconds), "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "30 s",
            "30S",
            "30s ",
            " 30s",
            "1d",
            "1h30m",
            "+1s",
            "1.5h",
            "３s",
            "99999999999999999999s",
        ] {
            assert_eq!(exact(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_understood_with_their_units_written_out() {
        for (written, meant) in [
            ("10 min", Some(600)),
            ("1h30m", Some(5400)),
            ("1 hour 30 minutes", Some(5400)),
            ("10분", Some(600)),
            ("2 Days", Some(172_800)),
            ("300", None),
            ("10 parsecs", None),
            ("1w", None),
            ("min", None),
            ("", None),
        ] {
            assert_eq!(loose(written), meant, "{written}");
        }
    }

    #[test]
    fn one_amount_has_the_letter_of_its_unit() {
        assert_eq!(one("2h"), Some((2, Unit::Hour)));
        assert_eq!(one("3  w"), Some((3, Unit::Week)));
        for text in ["", "h", "2H", "2 hours", "1h30m", "-2h", "2y"] {
            assert_eq!(one(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_taken_within_its_range_or_refused(
            text in any::<String>(), near in "[0-9]{0,4} ?[smhdw]?"
        ) {
            for text in [&text, &near] {
                if let Ok(time) = short(text) {
                    prop_assert!(time <= SHORT_MAX && !time.is_zero());
                }
                // Whoever takes more takes the same for the same.
                if let Some(seconds) = exact(text) {
                    prop_assert_eq!(loose(text), Some(seconds));
                    prop_assert_eq!(exact(&written(seconds)), Some(seconds));
                    if let Ok(time) = short(text) {
                        prop_assert_eq!(time.as_secs(), seconds);
                    }
                }
            }
        }
    }
}
