//! The agent's one clock: `CLOCK_BOOTTIME`, which goes on while the PC sleeps and is set by nobody.
//!
//! A deadline that stood still in suspend would be a promise broken: break-glass for ten minutes would still be open the next morning, a
//! screen that locks after five would not be locked, and what lay in the clipboard would be there. `std::time::Instant` is
//! `CLOCK_MONOTONIC` on Linux, which does stand still, and so does the time that `poll` waits; a test of this crate finds the first
//! wherever it is written in the agent's crates, and [`Alarm`] takes the place of the second where a deadline has to be kept.
//!
//! | type | what |
//! | --- | --- |
//! | [`Moment`] | a time by this clock; deadlines and ages are counted in them |
//! | [`Alarm`] | a timer to poll, which goes off at a moment, and right after a sleep in which it passed |
//! | [`SleepWatch`] | whether the PC slept since the last look, and for how long |
//! | [`Sleeps`] | the same across the agents of one boot: each sleep until it was seen to |
//! | [`WallClockWatch`] | whether somebody set the wall clock since the last look |
//!
//! ```
//! use std::time::Duration;
//! use clock::{Alarm, Moment};
//!
//! let until = Moment::now() + Duration::from_secs(600);
//! assert!(until.saturating_duration_since(Moment::now()) > Duration::from_secs(590));
//!
//! let mut alarm = Alarm::new()?;
//! alarm.set(Some(until))?; // before each wait; the loop polls the alarm with its sockets
//! # Ok::<(), nix::errno::Errno>(())
//! ```
//!
//! Times of day are not here: what goes by the wall clock (renewals, the audit log's dates) reads it itself, and takes it for what somebody may have set.
#![forbid(unsafe_code)]

use std::ops::{Add, AddAssign, Sub};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{
    ClockId as TimerClock, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags,
};
use nix::time::{ClockId, clock_gettime};

mod sleep;
mod sleeps;
mod wall;

pub use sleep::{Clocks, KernelClocks, SleepWatch};
pub use sleeps::Sleeps;
pub use wall::{WallClock, WallClockWatch};

/// A moment since the PC was switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Reads the clock that goes on while the PC sleeps (`CLOCK_BOOTTIME`).
    #[must_use]
    pub fn now() -> Self {
        // Linux has had this clock since 2.6.39, and reading a clock fails only if there is none.
        let since = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        Self(since)
    }

    /// Returns the moment this long after the PC was switched on, as the kernel stamps what happens by this clock.
    #[must_use]
    pub const fn since_start(time: Duration) -> Self {
        Self(time)
    }

    /// Returns how long ago it was.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// Returns how long it is after another moment; zero if it was before.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    fn sub(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(time))
    }
}

/// A timer that wakes a loop which waits for file descriptors: at a [`Moment`], and right after a sleep in which that passed.
#[derive(Debug)]
pub struct Alarm {
    timer: TimerFd,
    /// When it goes off, or did.
    at: Option<Moment>,
}

impl Alarm {
    /// Makes an alarm that is not set.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn new() -> Result<Self, Errno> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { timer: TimerFd::new(TimerClock::CLOCK_BOOTTIME, flags)?, at: None })
    }

    /// Sets it to go off at this moment, or not at all: called before each wait. It may go off sooner; most deadlines only move on, and a
    /// turn too many costs less than a system call in each.
    ///
    /// # Errors
    /// The kernel does not set it.
    pub fn set(&mut self, until: Option<Moment>) -> Result<(), Errno> {
        let rung = self.at.is_some_and(|at| at <= Moment::now());
        match until {
            Some(until) if rung || self.at.is_none_or(|at| until < at) => {
                // 0 would be never.
                let time = TimeSpec::from(until.0.max(Duration::from_nanos(1)));
                self.timer.set(Expiration::OneShot(time), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
                self.at = Some(until);
            }
            None if rung => {
                self.timer.unset()?;
                self.at = None;
            }
            _ => {}
        }
        Ok(())
    }
}

impl AsFd for Alarm {
    /// Returns a descriptor that is readable once it has gone off, until it is set again.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    use super::*;

    fn rings(alarm: &Alarm, within: u16) -> bool {
        poll(&mut [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)], within).unwrap() == 1
    }

    #[test]
    fn an_alarm_goes_off_at_its_moment_and_not_again() {
        let mut alarm = Alarm::new().unwrap();
        assert!(!rings(&alarm, 0));
        let start = Moment::now();
        alarm.set(Some(start + Duration::from_millis(30))).unwrap();
        alarm.set(Some(start + Duration::from_secs(60))).unwrap();
        assert!(
            poll(&mut [PollFd::new(alarm.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).is_ok()
        );
        assert!(start.elapsed() >= Duration::from_millis(30));
        alarm.set(Some(start + Duration::from_secs(60))).unwrap();
        assert!(!rings(&alarm, 0), "the later deadline holds");
        alarm.set(Some(start)).unwrap();
        assert!(rings(&alarm, 1000), "a moment that has passed");
        alarm.set(None).unwrap();
        assert!(!rings(&alarm, 50));
    }

    #[test]
    fn the_clock_is_the_one_that_goes_on_in_suspend() {
        // What the kernel counts from the same beginning with every sleep in it.
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((Moment::now().0.as_secs_f64() - seconds).abs() < 5.0);
        let alarm = Alarm::new().unwrap();
        let info = format!("/proc/self/fdinfo/{}", alarm.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        // Where the kernel says it.
        assert!(!info.contains("clockid:") || info.contains("clockid: 7"), "{info}");
    }
}
