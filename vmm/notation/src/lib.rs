//! How sizes, lengths of time and network addresses are written, on the command line of `bulkhead-vmm` and in the agent's machine file: one
//! reader for both, so that what one takes the other takes.
//!
//! | what | written | means |
//! | --- | --- | --- |
//! | size | `512M`, `512MB`, `512MiB`, `4G`, `4GB`, `4GiB`, also in small letters and with a space before the unit | powers of 1024 |
//! | length of time | `30s`, `2m` | seconds, minutes |
//! | whole number | `2` | what the option counts, in the range that it has |
//!
//! [`Mac`] is the address of a network card.
//! ```
//! assert_eq!(notation::memory("512M"), Ok(512 << 20));
//! let refused = notation::memory("512").unwrap_err();
//! assert_eq!(refused.to_string(), "`512` is not a size of memory; write a whole number and a unit, like 512M or 4G");
//! ```
#![forbid(unsafe_code)]

mod mac;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use mac::{Mac, MacError};

/// Smallest memory of a guest, in bytes: below this no distribution kernel unpacks itself.
pub const MEMORY_MIN: u64 = 64 << 20;
/// Largest memory of a guest, in bytes.
pub const MEMORY_MAX: u64 = 512 << 30;
/// Longest time that can be written: a PC that is switched off must get there.
pub const DURATION_MAX: Duration = Duration::from_secs(600);

/// What is wrong with a value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {help}")]
pub struct Mistake {
    /// What is wrong: lowercase, no full stop.
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl Mistake {
    fn new(message: String, help: impl Into<String>) -> Self {
        Self { message, help: help.into() }
    }
}

/// Reads a guest's memory, in bytes: a whole number of MiB from [`MEMORY_MIN`] to [`MEMORY_MAX`].
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn memory(text: &str) -> Result<u64, Mistake> {
    let units = [("m", 1 << 20), ("mb", 1 << 20), ("mib", 1 << 20)];
    let units = units.into_iter().chain([("g", 1 << 30), ("gb", 1 << 30), ("gib", 1 << 30)]);
    let Some((count, unit)) = number(text, units) else {
        return Err(Mistake::new(
            format!("`{}` is not a size of memory", shown(text)),
            "write a whole number and a unit, like 512M or 4G",
        ));
    };
    match count.and_then(|count| count.checked_mul(unit)) {
        Some(bytes) if bytes < MEMORY_MIN => Err(Mistake::new(
            format!("{} is too little memory for a guest", shown(text)),
            "give it at least 64M",
        )),
        Some(bytes) if bytes <= MEMORY_MAX => Ok(bytes),
        _ => Err(Mistake::new(
            format!("{} is more memory than a guest can have", shown(text)),
            "give it at most 512G",
        )),
    }
}

/// Reads a length of time from one second to [`DURATION_MAX`].
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn duration(text: &str) -> Result<Duration, Mistake> {
    let Some((count, unit)) = number(text, [("s", 1), ("m", 60)]) else {
        return Err(Mistake::new(
            format!("`{}` is not a duration", shown(text)),
            "write a whole number and a unit, like 30s or 2m",
        ));
    };
    match count.and_then(|count| count.checked_mul(unit)).map(Duration::from_secs) {
        Some(time) if (Duration::from_secs(1)..=DURATION_MAX).contains(&time) => Ok(time),
        _ => Err(Mistake::new(format!("{} is out of range", shown(text)), "write 1s to 10m")),
    }
}

/// Reads a whole number inside `range`, in decimal digits. `example` is one that people write.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn whole<N>(text: &str, range: RangeInclusive<N>, example: N) -> Result<N, Mistake>
where
    N: Copy + PartialOrd + fmt::Display + TryFrom<u64>,
{
    let write =
        || format!("write one from {} to {}, such as {example}", range.start(), range.end());
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Mistake::new(format!("`{}` is not a whole number", shown(text)), write()));
    }
    let number = text.parse::<u64>().ok().and_then(|number| N::try_from(number).ok());
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| Mistake::new(format!("{} is out of range", shown(text)), write()))
}

/// Reads a whole number and its unit. `None` if the text has another form; the number is `None` if it is too large.
fn number<'a>(
    text: &str,
    units: impl IntoIterator<Item = (&'a str, u64)>,
) -> Option<(Option<u64>, u64)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).filter(|(number, _)| !number.is_empty())?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit);
    let (_, unit) = units.into_iter().find(|(known, _)| unit.eq_ignore_ascii_case(known))?;
    Some((number.parse().ok(), unit))
}

/// Returns enough of a text to be recognised.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn memory_is_taken_as_people_write_it() {
        for text in ["4G", "4GB", "4GiB", "4g", "4gb", "4 GB", "4096M", "4096MB", "4096 MiB"] {
            assert_eq!(memory(text), Ok(4 << 30), "{text}");
        }
        for text in ["", "G", "12", "1.5G", "-4G", "+4G", "4T", "4GBB", "4iG", "4  G", " 4G", "4G "]
        {
            assert!(memory(text).unwrap_err().help.contains("512M or 4G"), "{text}");
        }
        assert!(memory("63M").unwrap_err().help.contains("at least 64M"));
        for text in ["513G", "99999999999999999999G", "18446744073709551615G"] {
            assert!(memory(text).unwrap_err().help.contains("at most 512G"), "{text}");
        }
    }

    #[test]
    fn a_duration_is_seconds_or_minutes_up_to_ten() {
        for (text, seconds) in [("1s", 1), ("30s", 30), ("2m", 120), ("10m", 600), ("30 S", 30)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "30", "s", "1h", "1.5s", "-1s"] {
            assert!(duration(text).unwrap_err().help.contains("30s or 2m"), "{text}");
        }
        for text in ["0s", "11m", "601s", "99999999999999999999m"] {
            assert!(duration(text).unwrap_err().help.contains("1s to 10m"), "{text}");
        }
    }

    #[test]
    fn a_whole_number_is_in_its_range_or_refused_with_the_range_and_one_of_it() {
        assert_eq!(whole("16", 1..=16_u8, 2), Ok(16));
        assert_eq!(whole("007", 1..=16_u8, 2), Ok(7));
        for wrong in
            ["", "x", "-1", "+2", "2.0", " 2", "２", "0", "17", "256", "99999999999999999999999"]
        {
            let mistake = whole(wrong, 1..=16_u8, 2).unwrap_err();
            assert_eq!(mistake.help, "write one from 1 to 16, such as 2", "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_taken_within_its_range_or_refused(text in any::<String>()) {
            if let Ok(bytes) = memory(&text) {
                prop_assert!((MEMORY_MIN..=MEMORY_MAX).contains(&bytes) && bytes % (1 << 20) == 0);
            }
            if let Ok(time) = duration(&text) {
                prop_assert!(time <= DURATION_MAX && !time.is_zero());
            }
        }
    }
}
