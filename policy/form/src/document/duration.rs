//! Lengths of time: `30s`, `10m`, `8h`.

use std::ops::RangeInclusive;
use std::time::Duration;

use notation::duration::{exact, loose, written};
use notation::meant;

use super::Value;

/// Reads a length of time in seconds, minutes or hours, inside `range`, in seconds.
#[must_use]
pub fn read(value: Value<'_>, what: &str, range: RangeInclusive<u64>) -> Option<Duration> {
    let plain = value.plain();
    let within =
        || format!("from \"{}\" to \"{}\"", written(*range.start()), written(*range.end()));
    if let Some(seconds) = value.text().and_then(exact) {
        return match range.contains(&seconds) {
            true => Some(Duration::from_secs(seconds)),
            false => value.wrong(format!("{what} is out of range"), format!("write {}", within())),
        };
    }
    let fits = |seconds: &u64| range.contains(seconds);
    let written_so = exact(plain).or_else(|| loose(plain)).filter(fits);
    let help = match (written_so, meant::whole(plain)) {
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
                (None, None) => format!("write a number and s, m or h, {}", within()),
            }
        }
        (None, None) => format!("write a number and s, m or h, {}", within()),
    };
    match value.text() {
        Some(text) => {
            value.wrong(format!("\"{}\" is not a length of time", text.escape_debug()), help)
        }
        None => value.not_a("a length of time, in quotes", help),
    }
}
