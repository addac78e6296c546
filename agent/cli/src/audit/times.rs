//! Times as an auditor writes and reads them: the PC's local time, unless a time says otherwise.
//!
//! | written | means |
//! | --- | --- |
//! | `2026-11`, `2026-11-23`, `2026-11-23T15`, `2026-11-23 15:04`, `15:04:05` | that month, day, hour, minute or second, of today where no day is named |
//! | `2026-11-23T15:04Z`, `...+09:00` | the same in UTC, or that far from it |
//! | `today`, `yesterday`, `now` | that day; this moment |
//! | `90s`, `30m`, `2h`, `3d`, `1w`, also with `ago` behind | so long ago |
//!
//! What is longer than a moment begins with its beginning (`--since`) and ends with its end (`--until`).

use std::time::SystemTime;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp, ToSpan, Zoned};
use notation::duration::{self, Unit};

/// What a time stands for in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

/// Reads `--since`.
pub(super) fn since(text: &str) -> Result<SystemTime, String> {
    read(text, &Zoned::now(), Edge::Begin)
}

/// Reads `--until`: the first moment that is not meant any more.
pub(super) fn until(text: &str) -> Result<SystemTime, String> {
    read(text, &Zoned::now(), Edge::End)
}

/// Returns a time as `2026-11-23 15:04:05.123 +09:00`, in local time.
pub(super) fn shown(time: SystemTime) -> Option<String> {
    let zoned = Timestamp::try_from(time).ok()?.to_zoned(TimeZone::system());
    Some(zoned.strftime("%Y-%m-%d %H:%M:%S%.3f %:z").to_string())
}

fn read(text: &str, now: &Zoned, edge: Edge) -> Result<SystemTime, String> {
    // A time of the calendar that does not exist there, or beyond all calendars.
    parse(text.trim(), now, edge).ok_or_else(|| {
        format!(
            "`{text}` is not a point in time; write it as 2026-11, 2026-11-23, 2026-11-23T15:04, 15:04, today, yesterday, or 30m, 2h, 3d for so long ago; with Z behind a time it is UTC"
        )
    })
}

fn parse(text: &str, now: &Zoned, edge: Edge) -> Option<SystemTime> {
    if text == "now" {
        return Some(now.timestamp().into());
    }
    if let Some(ago) = ago(text) {
        return Some(now.checked_sub(ago).ok()?.timestamp().into());
    }
    let (begin, length, zone) = stretch(text, now)?;
    let moment = match edge {
        Edge::Begin => begin,
        Edge::End => begin.checked_add(length).ok()?,
    };
    Some(moment.to_zoned(zone).ok()?.timestamp().into())
}

/// Reads `2h`, `2 h ago`.
fn ago(text: &str) -> Option<Span> {
    let text = text.strip_suffix("ago").map_or(text, str::trim_end);
    let (number, unit) = duration::one(text)?;
    let (span, number) = (Span::new(), i64::try_from(number).ok()?);
    match unit {
        Unit::Second => span.try_seconds(number),
        Unit::Minute => span.try_minutes(number),
        Unit::Hour => span.try_hours(number),
        Unit::Day => span.try_days(number),
        Unit::Week => span.try_weeks(number),
    }
    .ok()
}

/// Returns where a time of the calendar begins, how long it is, and in which zone it is written.
fn stretch(text: &str, now: &Zoned) -> Option<(DateTime, Span, TimeZone)> {
    let here = now.time_zone().clone();
    match text {
        "today" => return Some((now.date().to_datetime(Time::midnight()), 1.day(), here)),
        "yesterday" => {
            let day = now.date().yesterday().ok()?;
            return Some((day.to_datetime(Time::midnight()), 1.day(), here));
        }
        _ => {}
    }
    let Some((day, time)) = text.split_once(['T', ' ']) else {
        if text.contains(':') {
            let (time, length) = of_day(text)?;
            return Some((now.date().to_datetime(time), length, here));
        }
        let (day, length) = of_calendar(text)?;
        return Some((day.to_datetime(Time::midnight()), length, here));
    };
    let (day, _) = of_calendar(day).filter(|(_, length)| length.get_days() == 1)?;
    let (time, zone) = match time.find(['Z', '+', '-']) {
        None => (time, here),
        Some(at) => {
            let (time, zone) = time.split_at_checked(at)?;
            (time.trim_end(), TimeZone::fixed(offset(zone)?))
        }
    };
    let (time, length) = of_day(time)?;
    Some((day.to_datetime(time), length, zone))
}

/// Reads `2026`, `2026-11`, `2026-11-23`.
fn of_calendar(text: &str) -> Option<(Date, Span)> {
    let mut parts = text.split('-');
    let year = i16::try_from(digits(parts.next()?, 4)?).ok()?;
    let part =
        |part: Option<&str>| part.map(|part| digits(part, 2)).map_or(Some(None), |n| n.map(Some));
    let (month, day) = (part(parts.next())?, part(parts.next())?);
    if parts.next().is_some() {
        return None;
    }
    let length = match (month, day) {
        (None, _) => 1.year(),
        (_, None) => 1.month(),
        _ => 1.day(),
    };
    let number = |part: Option<u32>| i8::try_from(part.unwrap_or(1)).ok();
    Some((Date::new(year, number(month)?, number(day)?).ok()?, length))
}

/// Reads `15`, `15:04`, `15:04:05`, `15:04:05.123`.
fn of_day(text: &str) -> Option<(Time, Span)> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let mut parts = [0_i8; 3];
    let mut count = 0;
    for part in whole.split(':') {
        *parts.get_mut(count)? = i8::try_from(digits(part, 2)?).ok()?;
        count += 1;
    }
    let [hour, minute, second] = parts;
    let length = match (count, fraction) {
        (1, None) => 1.hour(),
        (2, None) => 1.minute(),
        (3, None) => 1.second(),
        (3, Some(_)) => 1.microsecond(),
        _ => return None,
    };
    let micros = match fraction {
        None => 0,
        Some(text) if text.len() <= 6 => {
            let figure = digits(text, text.len())?;
            figure.checked_mul(10_u32.pow(u32::try_from(6 - text.len()).ok()?))?
        }
        Some(_) => return None,
    };
    let nanos = i32::try_from(micros).ok()?.checked_mul(1000)?;
    Some((Time::new(hour, minute, second, nanos).ok()?, length))
}

/// Reads `Z`, `+09:00`, `-0330`, `+9`.
fn offset(text: &str) -> Option<Offset> {
    if text == "Z" {
        return Some(Offset::UTC);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let figures = rest.replace(':', "");
    let (hours, minutes) = match figures.len() {
        1 | 2 => (digits(&figures, figures.len())?, 0),
        4 => (digits(figures.get(..2)?, 2)?, digits(figures.get(2..)?, 2)?),
        _ => return None,
    };
    // No place of the Earth is further off.
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from((hours * 60 + minutes) * 60).ok()?;
    Offset::from_seconds(sign * seconds).ok()
}

/// Reads a number of exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let all = text.len() == count && count > 0 && text.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        // Korea has no summer time; a site may be elsewhere.
        "2026-11-23T15:04:05.5+09:00[Asia/Seoul]".parse().unwrap()
    }

    fn utc(text: &str, edge: Edge) -> Result<String, String> {
        let time = read(text, &now(), edge)?;
        Ok(Timestamp::try_from(time).unwrap().to_string())
    }

    #[test]
    fn times_are_local_and_mean_their_whole_stretch() {
        for (text, begin, end) in [
            ("2026", "2025-12-31T15:00:00Z", "2026-12-31T15:00:00Z"),
            ("2026-11", "2026-10-31T15:00:00Z", "2026-11-30T15:00:00Z"),
            ("2026-11-01", "2026-10-31T15:00:00Z", "2026-11-01T15:00:00Z"),
            ("2026-11-01T09", "2026-11-01T00:00:00Z", "2026-11-01T01:00:00Z"),
            ("2026-11-01 09:30", "2026-11-01T00:30:00Z", "2026-11-01T00:31:00Z"),
            ("2026-11-01T09:30:07", "2026-11-01T00:30:07Z", "2026-11-01T00:30:08Z"),
            ("09:30", "2026-11-23T00:30:00Z", "2026-11-23T00:31:00Z"),
            ("2026-11-01T09:30Z", "2026-11-01T09:30:00Z", "2026-11-01T09:31:00Z"),
            ("2026-11-01T09:30-03:30", "2026-11-01T13:00:00Z", "2026-11-01T13:01:00Z"),
            ("today", "2026-11-22T15:00:00Z", "2026-11-23T15:00:00Z"),
            ("yesterday", "2026-11-21T15:00:00Z", "2026-11-22T15:00:00Z"),
            ("2h", "2026-11-23T04:04:05.5Z", "2026-11-23T04:04:05.5Z"),
            ("2 h ago", "2026-11-23T04:04:05.5Z", "2026-11-23T04:04:05.5Z"),
            ("3d", "2026-11-20T06:04:05.5Z", "2026-11-20T06:04:05.5Z"),
            ("now", "2026-11-23T06:04:05.5Z", "2026-11-23T06:04:05.5Z"),
        ] {
            assert_eq!(utc(text, Edge::Begin).as_deref(), Ok(begin), "{text}");
            assert_eq!(utc(text, Edge::End).as_deref(), Ok(end), "{text}");
        }
        // As an entry has it.
        let entry = "2026-11-01T09:30:07.123456Z";
        assert_eq!(utc(entry, Edge::Begin).as_deref(), Ok(entry));
    }

    #[test]
    fn a_day_is_as_long_as_it_is_where_clocks_are_changed() {
        let berlin: Zoned = "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let at = |edge| Timestamp::try_from(read("today", &berlin, edge).unwrap()).unwrap();
        assert_eq!((at(Edge::End) - at(Edge::Begin)).get_seconds(), 23 * 3600);
    }

    #[test]
    fn what_is_no_time_is_refused_with_what_is_one() {
        for wrong in [
            "",
            "yesterdya",
            "2026-13",
            "2026-02-30",
            "26-11-01",
            "2026-11-01T25",
            "2026-11T10",
            "-2h",
            "2y",
            "h",
            "1.5h",
            "2026-11-01T09:60",
            "2026-11-01T09:30+25:00",
            "99999999999999999h",
            "2026-11-01T",
            "T09",
            "내일",
            "2026-11-01T09:30:07.1234567",
        ] {
            let said = utc(wrong, Edge::Begin).unwrap_err();
            assert!(
                said.contains("is not a point in time") && said.contains("yesterday"),
                "{said}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,24}", figures in "[0-9TZ:+. -]{0,24}") {
            for text in [text, figures] {
                let _ = read(&text, &now(), Edge::Begin);
                let _ = read(&text, &now(), Edge::End);
            }
        }
    }
}
