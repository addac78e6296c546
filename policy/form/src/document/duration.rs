//! Lengths of time: `30s`, `10m`, `8h`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Value, notation};

/// Reads a length of time in seconds, minutes or hours, inside `range`, in seconds.
#[must_use]
pub fn read(value: Value<'_>, what: &str, range: RangeInclusive<u64>) -> Option<Duration> {
    let plain = value.plain();
    let any = || format!("from \"{}\" to \"{}\"", written(*range.start()), written(*range.end()));
    if let Some(seconds) = value.text().and_then(in_seconds) {
        return match range.contains(&seconds) {
            true => Some(Duration::from_secs(seconds)),
            false => value.wrong(format!("{what} is out of range"), format!("write {}", any())),
        };
    }
    let fits = |seconds: &u64| range.contains(seconds);
    let meant = in_seconds(plain).or_else(|| notation::seconds(plain)).filter(fits);
    let help = match (meant, notation::whole(plain)) {
        (Some(seconds), _) => format!("write \"{}\"", written(seconds)),
        // A number alone may be of seconds or of minutes.
        (None, Some(number)) => {
            let seconds = Some(number).filter(fits);
            let minutes = number.checked_mul(60).filter(fits);
            let one = |number: Option<u64>, unit: &str| {
                Some(format!("\"{}\" for {plain} {unit}", written(number?)))
            };
            match (one(seconds, "seconds"), one(minutes, "minutes")) {
                (Some(seconds), Some(minutes)) => format!("write {seconds}, or {minutes}"),
                (Some(only), None) | (None, Some(only)) => format!("write {only}"),
                (None, None) => format!("write a number and s, m or h, {}", any()),
            }
        }
        (None, None) => format!("write a number and s, m or h, {}", any()),
    };
    match value.text() {
        Some(text) => {
            value.wrong(format!("\"{}\" is not a length of time", text.escape_debug()), help)
        }
        None => value.not_a("a length of time, in quotes", help),
    }
}

/// Returns it as the policy writes it: `30s`, `10m`, `8h`.
fn in_seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    if digits { number.parse::<u64>().ok()?.checked_mul(scale) } else { None }
}

/// Writes a length of time as the policy writes it.
#[must_use]
pub fn written(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        _ => format!("{seconds}s"),
    }
}
