//! The CMOS real-time clock (Motorola MC146818), read-only.
//!
//! Linux reads it once at boot; a machine without one makes it poll ports 0x70 and 0x71 some
//! 40,000 times before it gives up. There is no alarm, no periodic interrupt and no settable time:
//! a guest's time comes from kvm-clock and the network, and writes are dropped.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::port_io::PortDevice;

/// Register numbers and bits (MC146818A data sheet, tables 2 and 3).
mod spec {
    pub(super) const SECONDS: u8 = 0x00;
    pub(super) const MINUTES: u8 = 0x02;
    pub(super) const HOURS: u8 = 0x04;
    pub(super) const DAY_OF_WEEK: u8 = 0x06;
    pub(super) const DAY: u8 = 0x07;
    pub(super) const MONTH: u8 = 0x08;
    pub(super) const YEAR: u8 = 0x09;
    pub(super) const STATUS_A: u8 = 0x0a;
    pub(super) const STATUS_B: u8 = 0x0b;
    pub(super) const STATUS_D: u8 = 0x0d;
    pub(super) const CENTURY: u8 = 0x32;
    /// Divider set for a 32768 Hz crystal; update-in-progress is never set.
    pub(super) const A_DIVIDER: u8 = 0x20;
    /// 24-hour mode, BCD.
    pub(super) const B_24H: u8 = 0x02;
    /// RAM and time valid.
    pub(super) const D_VALID: u8 = 0x80;
    /// Register bits of the index port; the top bit masks NMIs.
    pub(super) const INDEX_MASK: u8 = 0x7f;
}

/// A clock that shows the host's UTC time.
pub struct Rtc {
    state: State,
    now: fn() -> u64,
}

/// What a guest can change.
#[derive(Default)]
struct State {
    index: u8,
}

impl Default for Rtc {
    fn default() -> Self {
        Self {
            state: State::default(),
            now: || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs()),
        }
    }
}

impl Rtc {
    /// Makes a clock that shows what `now` says, in seconds since 1970.
    #[cfg(test)]
    pub(crate) fn showing(now: fn() -> u64) -> Self {
        Self { now, ..Self::default() }
    }

    /// How many ports it answers on: index and data.
    pub const PORTS: u16 = 2;

    fn register(&self) -> u8 {
        let time = Civil::from_unix((self.now)());
        match self.state.index {
            spec::SECONDS => bcd(time.second),
            spec::MINUTES => bcd(time.minute),
            spec::HOURS => bcd(time.hour),
            spec::DAY_OF_WEEK => bcd(time.weekday),
            spec::DAY => bcd(time.day),
            spec::MONTH => bcd(time.month),
            spec::YEAR => bcd(time.year % 100),
            spec::CENTURY => bcd(time.year / 100),
            spec::STATUS_A => spec::A_DIVIDER,
            spec::STATUS_B => spec::B_24H,
            spec::STATUS_D => spec::D_VALID,
            _ => 0,
        }
    }
}

impl PortDevice for Rtc {
    fn read(&mut self, offset: u16, data: &mut [u8]) {
        if let (1, [byte]) = (offset, data) {
            *byte = self.register();
        }
    }

    fn write(&mut self, offset: u16, data: &[u8]) {
        if let (0, [index]) = (offset, data) {
            self.state.index = index & spec::INDEX_MASK;
        }
    }

    fn reset(&mut self) {
        self.state = State::default();
    }
}

fn bcd(value: u64) -> u8 {
    u8::try_from(((value / 10 % 10) << 4) | (value % 10)).unwrap_or(0)
}

/// A moment in the proleptic Gregorian calendar, UTC.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// Sunday is 1.
    weekday: u64,
}

impl Civil {
    /// Makes the date from seconds since 1970-01-01T00:00:00Z. Years are counted from March so that
    /// the leap day is the last of a year, in eras of 400 years (146,097 days).
    fn from_unix(seconds: u64) -> Self {
        let days = seconds / 86_400;
        let from_march_0000 = days + 719_468;
        let era = from_march_0000 / 146_097;
        let day_of_era = from_march_0000 % 146_097;
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * month_from_march + 2) / 5 + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            weekday: (days + 4) % 7 + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments_come_out_right() {
        let leap = Civil::from_unix(1_709_210_096); // 2024-02-29T12:34:56Z, a Thursday
        assert_eq!((leap.year, leap.month, leap.day), (2024, 2, 29));
        assert_eq!((leap.hour, leap.minute, leap.second, leap.weekday), (12, 34, 56, 5));
        let last = Civil::from_unix(4_102_444_799); // 2099-12-31T23:59:59Z
        assert_eq!((last.year, last.month, last.day, last.second), (2099, 12, 31, 59));
        assert_eq!(Civil::from_unix(0).year, 1970);
    }

    #[test]
    fn a_guest_reads_the_time_in_bcd() {
        let mut rtc = Rtc::showing(|| 1_709_210_096);
        let mut read = |index: u8| {
            let mut byte = [0xff];
            rtc.write(0, &[index | 0x80]);
            rtc.read(1, &mut byte);
            byte[0]
        };
        assert_eq!([read(9), read(8), read(7)], [0x24, 0x02, 0x29]);
        assert_eq!([read(4), read(2), read(0), read(0x32)], [0x12, 0x34, 0x56, 0x20]);
        assert_eq!(read(0x0a) & 0x80, 0, "no update is ever in progress");
        assert_eq!(read(0x7f), 0);
    }

    #[test]
    fn wide_accesses_mean_nothing() {
        let mut rtc = Rtc::default();
        rtc.write(0, &[0, 0]);
        let mut data = [0xff; 4];
        rtc.read(0, &mut data);
        assert_eq!(data, [0xff; 4]);
    }
}
