//! The two times of an entry: what the PC's wall clock said, and a time that never goes back.
//!
//! A ward PC has no network and no time server: its clock drifts, is set by hand, and comes up in the past when its battery is empty. What the wall
//! clock says is written down as it is. Beside it stands the *highest time seen*, which advances with `CLOCK_BOOTTIME` while the log is open
//! and takes up at the next start where it was, or at the wall clock if that is ahead. The difference of the two changes only when somebody sets the wall
//! clock: such a step is an entry of its own.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// A step of the wall clock is written down from this size on. Slewing moves both clocks alike and is no step.
pub(crate) const STEP_MIN: Duration = Duration::from_secs(1);

/// How often the clocks are read again if reading them was interrupted, and what counts as interrupted.
const READ_TRIES: usize = 4;
const READ_WITHIN: Duration = Duration::from_millis(20);

/// The clocks of a PC at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    /// The time of day, as the host's wall clock has it.
    pub wall: SystemTime,
    /// Time since the PC was started, time asleep included.
    pub uptime: Duration,
}

impl ClockReading {
    /// Reads the PC's clocks.
    #[must_use]
    pub fn now() -> Self {
        let mut reading = Self { wall: SystemTime::now(), uptime: uptime() };
        for _ in 0..READ_TRIES {
            let before = uptime();
            reading = Self { wall: SystemTime::now(), uptime: before };
            if uptime().saturating_sub(before) < READ_WITHIN {
                break;
            }
        }
        reading
    }
}

fn uptime() -> Duration {
    // Linux has this clock since 2.6.39. Without it a step of the wall clock would go unnoticed, and nothing else.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// Microseconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Micros(pub(crate) u64);

impl Micros {
    pub(crate) fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    /// Reads what [`Micros`]' `Display` wrote: `2026-11-23T15:04:05.000000Z`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let [
            y0,
            y1,
            y2,
            y3,
            b'-',
            mo0,
            mo1,
            b'-',
            d0,
            d1,
            b'T',
            h0,
            h1,
            b':',
            mi0,
            mi1,
            b':',
            s0,
            s1,
            b'.',
            fraction @ ..,
            b'Z',
        ] = text.as_bytes()
        else {
            return None;
        };
        let number = |digits: &[u8]| {
            digits.iter().try_fold(0_u64, |sum, digit| {
                digit.is_ascii_digit().then(|| sum * 10 + u64::from(digit - b'0'))
            })
        };
        let (year, month) = (number(&[*y0, *y1, *y2, *y3])?, number(&[*mo0, *mo1])?);
        let (day, hour) = (number(&[*d0, *d1])?, number(&[*h0, *h1])?);
        let (minute, second) = (number(&[*mi0, *mi1])?, number(&[*s0, *s1])?);
        let micros = if fraction.len() == 6 { number(fraction)? } else { return None };
        let fits = year >= 1970
            && (1..=12).contains(&month)
            && (1..=31).contains(&day)
            && hour < 24
            && minute < 60
            && second < 61;
        let seconds = ((days(year, month, day)? * 24 + hour) * 60 + minute) * 60 + second;
        fits.then_some(Self(seconds * 1_000_000 + micros))
    }

    pub(crate) fn after(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Returns `self - other`, in microseconds.
    pub(crate) fn minus(self, other: Self) -> i64 {
        i64::try_from(i128::from(self.0) - i128::from(other.0)).unwrap_or(i64::MAX)
    }

    pub(crate) fn system(self) -> SystemTime {
        UNIX_EPOCH.checked_add(Duration::from_micros(self.0)).unwrap_or(UNIX_EPOCH)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The last moment that RFC 3339 can write; a later one would be an error of formatting.
        const LAST: u64 = 253_402_300_799_999_999;
        humantime::format_rfc3339_micros(Self(self.0.min(LAST)).system()).fmt(f)
    }
}

/// Returns the days from 1970-01-01 in the Gregorian calendar. Years begin in March here, so that the leap day is their last.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    (year * 365 + leaps + (153 * month + 2) / 5 + day).checked_sub(719_469)
}

/// The time that an entry gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// The time of day, by the wall clock.
    pub(crate) wall: Micros,
    /// The highest time seen.
    pub(crate) highest: Micros,
}

/// A step of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// What it would have said without.
    pub(crate) expected: Micros,
}

/// Makes stamps, and notices steps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The highest time seen, at `uptime`.
    highest: Micros,
    uptime: Duration,
    /// Wall clock less highest time, as last written down.
    offset: i64,
}

impl Clock {
    /// Starts a clock that goes on from `highest`, the highest time seen before, and `wall`, the last wall clock that was recorded; returns
    /// a step too if the wall clock says less than that.
    pub(crate) fn start(
        highest: Micros,
        wall: Micros,
        now: ClockReading,
    ) -> (Self, Stamp, Option<Step>) {
        let own = Micros::of(now.wall);
        let highest = highest.max(own);
        let this = Self { highest, uptime: now.uptime, offset: own.minus(highest) };
        let step = (wall.after(own) >= STEP_MIN).then_some(Step { expected: wall });
        (this, Stamp { wall: own, highest }, step)
    }

    pub(crate) fn stamp(&mut self, now: ClockReading) -> (Stamp, Option<Step>) {
        let wall = Micros::of(now.wall);
        let mut highest = self.passed(now);
        let step = wall.minus(highest).abs_diff(self.offset)
            >= u64::try_from(STEP_MIN.as_micros()).unwrap_or(u64::MAX);
        let expected = Micros(highest.0.saturating_add_signed(self.offset));
        if step {
            highest = highest.max(wall);
            self.offset = wall.minus(highest);
        }
        (self.highest, self.uptime) = (highest, now.uptime.max(self.uptime));
        (Stamp { wall, highest }, step.then_some(Step { expected }))
    }

    /// Returns the last stamp's highest time, and what has passed since.
    pub(crate) fn passed(&self, now: ClockReading) -> Micros {
        self.highest.plus(now.uptime.saturating_sub(self.uptime))
    }

    /// Returns the highest time seen up to now.
    pub(crate) fn highest(&self, now: ClockReading) -> Micros {
        self.passed(now).max(Micros::of(now.wall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_time_that_was_written_is_read_back(micros in 0..253_402_300_799_999_999_u64) {
            prop_assert_eq!(Micros::parse(&Micros(micros).to_string()), Some(Micros(micros)));
        }

        #[test]
        fn no_text_is_a_time_that_the_calendar_does_not_have(text in "\\PC{0,32}") {
            let _ = Micros::parse(&text);
        }

        #[test]
        fn the_highest_time_never_goes_back_whatever_the_wall_clock_does(
            steps in prop::collection::vec((0..200_000_u64, 0..10_000_u64), 1..50),
        ) {
            let at = |wall, uptime| ClockReading {
                wall: UNIX_EPOCH + Duration::from_secs(wall),
                uptime: Duration::from_secs(uptime),
            };
            let (mut clock, first, _) = Clock::start(Micros(5), Micros(5), at(100, 0));
            let (mut last, mut uptime) = (first.highest, 0);
            for (wall, passed) in steps {
                uptime += passed;
                let (stamp, _) = clock.stamp(at(wall, uptime));
                prop_assert!(stamp.highest >= last.plus(Duration::from_secs(passed)));
                last = stamp.highest;
            }
        }
    }

    #[test]
    fn small_steps_add_up_to_one_that_is_written_down() {
        let at = |wall_ms, uptime| ClockReading {
            wall: UNIX_EPOCH + Duration::from_millis(wall_ms),
            uptime: Duration::from_secs(uptime),
        };
        let (mut clock, ..) = Clock::start(Micros(0), Micros(0), at(50_000, 0));
        assert_eq!(clock.stamp(at(50_600, 1)).1, None);
        assert_eq!(clock.stamp(at(51_200, 2)).1, None);
        let (_, step) = clock.stamp(at(51_800, 3));
        assert_eq!(step, Some(Step { expected: Micros(53_000_000) }));
        assert_eq!(clock.stamp(at(52_800, 4)).1, None);
    }
}
