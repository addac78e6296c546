//! Times of day: `07:00`.

use std::fmt;
use std::str::FromStr;

use crate::document::Mistake;

/// A time of day, to the minute, as the PC's clock shows it in local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay {
    minutes: u16,
}

impl TimeOfDay {
    fn new(hours: u16, minutes: u16) -> Option<Self> {
        (hours < 24 && minutes < 60).then(|| Self { minutes: hours * 60 + minutes })
    }

    /// Returns how many minutes after midnight it is.
    #[must_use]
    pub const fn minutes(self) -> u16 {
        self.minutes
    }
}

impl FromStr for TimeOfDay {
    type Err = Mistake;

    fn from_str(text: &str) -> Result<Self, Mistake> {
        let read = || {
            let (hours, minutes) = text.split_once(':')?;
            Self::new(two_digits(hours)?, two_digits(minutes)?)
        };
        read().ok_or_else(|| {
            Mistake::new(
                format!("\"{}\" is not a time of day", text.escape_debug()),
                match meant(text) {
                    Some(time) => format!("write \"{time}\""),
                    None => "write hours and minutes, from \"00:00\" to \"23:59\"".to_owned(),
                },
            )
        })
    }
}

fn two_digits(text: &str) -> Option<u16> {
    (text.len() == 2).then(|| number(text))?
}

fn number(text: &str) -> Option<u16> {
    let digits = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Returns the time that somebody means who writes it as `7:00`, `7.30`, `7h30`, `0700`, `24:00`, `7 pm` or `오후 7시`.
fn meant(text: &str) -> Option<TimeOfDay> {
    let text = text.trim().to_lowercase();
    let afternoon = text.strip_suffix("pm").or(text.strip_prefix("오후"));
    let morning = text.strip_suffix("am").or(text.strip_prefix("오전"));
    let plain = afternoon.or(morning).unwrap_or(&text).trim();
    let parts = || plain.split_once([':', '.', 'h', '시']);
    let (hours, minutes) = match parts() {
        Some((hours, rest)) => {
            let rest = rest.trim().trim_end_matches('분');
            (number(hours.trim())?, if rest.is_empty() { 0 } else { number(rest)? })
        }
        None if plain.len() == 4 => {
            let (hours, minutes) = plain.split_at_checked(2)?;
            (number(hours)?, number(minutes)?)
        }
        None => (number(plain)?, 0),
    };
    let hours = match (afternoon, morning, hours) {
        (Some(_), _, 1..=11) => hours + 12,
        (None, Some(_), 12) => 0,
        (None, None, 24) if minutes == 0 => 0,
        _ => hours,
    };
    TimeOfDay::new(hours, minutes)
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minutes / 60, self.minutes % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minute_of_a_day_is_read_as_it_is_written_and_nothing_else_is() {
        for minutes in 0..24 * 60 {
            let text = format!("{:02}:{:02}", minutes / 60, minutes % 60);
            let time: TimeOfDay = text.parse().unwrap();
            assert_eq!((time.minutes(), time.to_string()), (minutes, text));
        }
        for wrong in
            ["", ":", "7:00", "07:0", "07:00:00", "24:00", "07:60", "-7:00", "+7:00", "07-00"]
        {
            assert!(wrong.parse::<TimeOfDay>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_time_written_as_people_do_is_understood_in_the_remedy() {
        for (text, time) in [
            ("7:00", "07:00"),
            ("7.30", "07:30"),
            ("7h", "07:00"),
            ("0700", "07:00"),
            ("7", "07:00"),
            ("24:00", "00:00"),
            ("7 pm", "19:00"),
            ("12 am", "00:00"),
            ("12pm", "12:00"),
            ("오후 3시 30분", "15:30"),
            ("오전 7시", "07:00"),
        ] {
            assert_eq!(meant(text).map(|time| time.to_string()).as_deref(), Some(time), "{text}");
        }
        for nothing in ["", "noon", "25:00", "07:61", "99", "1:2:3", "오후"] {
            assert_eq!(meant(nothing), None, "{nothing}");
        }
    }
}
