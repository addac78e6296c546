//! Sizes, times and numbers on the command line, by the readers that tell what is meant in a policy and in a machine file.

use std::time::Duration;

use notation::{Mistake, meant, whole};

/// Reads `300000`, `300,000`. A size with a unit is refused with its bytes: whether a megabyte is 1000 or 1024 kilobytes decides at a
/// limit.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    if let Some(bytes) = meant::whole(text) {
        return Ok(bytes);
    }
    Err(match meant::size(text) {
        Some(bytes) => format!("sizes are in bytes: write {bytes}"),
        None => "write a whole number of bytes, such as 300000".to_owned(),
    })
}

/// Reads `90s`, `10m`, `10 min`, `1h30m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match (notation::duration::loose(text), meant::whole(text)) {
        (Some(seconds), _) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        // Of seconds or of minutes?
        (None, Some(number)) if number > 0 => {
            Err(format!("write {number}s for so many seconds, or {number}m for so many minutes"))
        }
        _ => Err("write it as 90s, 10m or 1h".to_owned()),
    }
}

/// Reads the number of an open file descriptor.
pub(super) fn descriptor(text: &str) -> Result<u32, Mistake> {
    whole(text, 0..=i32::MAX.unsigned_abs(), 3)
}

/// Reads a number of seconds, of which there is something every so many.
pub(super) fn every(text: &str) -> Result<u16, Mistake> {
    whole(text, 1..=3600, 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them_or_refused_with_the_right_form() {
        let texts = [
            ("10m", 600),
            ("90s", 90),
            ("10 min", 600),
            ("1h30m", 5400),
            ("10분", 600),
            ("2 Hours", 7200),
        ];
        for (text, seconds) in texts {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "m", "-1m", "1.5h", "0s", "0", "9999999999999999999h", "soon"] {
            assert!(duration(wrong).unwrap_err().contains("90s, 10m or 1h"), "{wrong}");
        }
        assert!(duration("10").unwrap_err().contains("10s for so many seconds, or 10m"));
    }

    #[test]
    fn sizes_are_bytes_and_those_with_a_unit_are_refused_with_their_bytes() {
        for (text, size) in [("0", 0), ("5000000", 5_000_000), ("5,000,000", 5_000_000)] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for (text, right) in
            [("5 MB", "write 5000000"), ("5MiB", "write 5242880"), ("1.5 kB", "write 1500")]
        {
            assert!(bytes(text).unwrap_err().ends_with(right), "{text}");
        }
        for wrong in ["", "-1", "five", "99999999999999999999999", "1.5"] {
            assert!(bytes(wrong).unwrap_err().contains("a whole number of bytes"), "{wrong}");
        }
    }
}
