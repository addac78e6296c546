//! Lengths of time: `30s`, `10m`, `8h`.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::document::Value;

/// Reads a length of time in seconds, minutes or hours, inside `range`, in seconds.
pub(crate) fn read(value: Value<'_>, what: &str, range: RangeInclusive<u64>) -> Option<Duration> {
    let text = value.string()?;
    let unit_at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    match seconds {
        Some(seconds) if scale > 0 && range.contains(&seconds) => {
            Some(Duration::from_secs(seconds))
        }
        Some(_) if scale > 0 => value.wrong(
            format!("{what} is out of range"),
            format!("write from {} to {}", written(*range.start()), written(*range.end())),
        ),
        _ => value.wrong(
            format!("\"{}\" is not a length of time", text.escape_debug()),
            "write a number and a unit: \"30s\", \"10m\" or \"8h\"",
        ),
    }
}

/// A length of time as the policy writes it.
#[must_use]
pub fn written(seconds: u64) -> String {
    match seconds {
        0 => "0s".to_owned(),
        hours if hours % 3600 == 0 => format!("{}h", hours / 3600),
        minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
        _ => format!("{seconds}s"),
    }
}
