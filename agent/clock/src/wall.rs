//! Tells a loop that waits for file descriptors that somebody set the PC's wall clock.
//!
//! ```text
//!            clock set: the kernel cancels the timer
//!  watching ----------------------------------------> Set, armed anew once ---> watching
//!     |  '--- it went off by itself (no clock of a PC is so late): as before, and not armed anew
//!     '------ the kernel does not go on ------------> Off, said once; no file descriptor any more
//! ```

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// When the timer would go off, in seconds since 1970: in the year 2242. It is there to be cancelled (timerfd_create(2),
/// `TFD_TIMER_CANCEL_ON_SET`). Linux lets nobody set a clock later than 2232 (`TIME_SETTOD_SEC_MAX`), and counts until 2262 (`KTIME_SEC_MAX`).
const NEVER: i64 = 1 << 33;

/// What the watch has seen since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum WallClock {
    /// Nobody set the clock, so far as the watch knows.
    AsBefore,
    /// Somebody set the clock since the last look.
    Set,
    /// The kernel does not watch, or not any more. Said once; from then on the answer is [`Self::AsBefore`].
    Off(Errno),
}

/// A timer that the kernel cancels when the wall clock is set.
trait CancelledWhenSet: Sized {
    /// Arms it for this time, in seconds since 1970, unless it is cancelled before. `ECANCELED`: it is armed, and the clock was set
    /// since it was read last.
    fn arm(&self, at: i64) -> Result<(), Errno>;
    /// Takes what happened: it went off, or `ECANCELED`, or `EAGAIN` for nothing. Does not wait.
    fn take(&self) -> Result<(), Errno>;
}

impl CancelledWhenSet for TimerFd {
    fn arm(&self, at: i64) -> Result<(), Errno> {
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.set(Expiration::OneShot(TimeSpec::seconds(at)), flags)
    }

    fn take(&self) -> Result<(), Errno> {
        // Not `TimerFd::wait`, which takes a cancellation for the timer going off.
        nix::unistd::read(self, &mut [0; 8]).map(drop)
    }
}

/// A watch that sees whether the wall clock is set.
#[derive(Debug)]
pub struct WallClockWatch(Watch<TimerFd>);

impl WallClockWatch {
    /// Starts to watch. What hinders it is what the first [`Self::look`] returns.
    #[must_use]
    pub fn start() -> Self {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Self(Watch::start(TimerFd::new(ClockId::CLOCK_REALTIME, flags)))
    }

    /// Returns what happened since the last look. It does not wait.
    pub fn look(&mut self) -> WallClock {
        self.0.look()
    }

    /// Returns a descriptor that is readable when there is something to [`Self::look`] at; none once the watch is off.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.0 {
            Watch::On(timer) => Some(timer.as_fd()),
            Watch::Failed(_) | Watch::Off => None,
        }
    }
}

#[derive(Debug)]
enum Watch<T> {
    On(T),
    /// It is off, and nobody was told so far.
    Failed(Errno),
    Off,
}

impl<T: CancelledWhenSet> Watch<T> {
    fn start(timer: Result<T, Errno>) -> Self {
        match timer.and_then(|timer| arm(&timer).map(|()| timer)) {
            Ok(timer) => Self::On(timer),
            Err(error) => Self::Failed(error),
        }
    }

    fn look(&mut self) -> WallClock {
        let happened = match self {
            Self::On(timer) => match timer.take() {
                // It went off, and does so once: armed anew it would at once go off again. Cancelled it can be all the same.
                Ok(()) | Err(Errno::EAGAIN | Errno::EINTR) => Ok(WallClock::AsBefore),
                Err(Errno::ECANCELED) => arm(timer).map(|()| WallClock::Set),
                Err(error) => Err(error),
            },
            Self::Failed(error) => Err(*error),
            Self::Off => Ok(WallClock::AsBefore),
        };
        happened.unwrap_or_else(|error| {
            *self = Self::Off;
            WallClock::Off(error)
        })
    }
}

/// Arms the timer, though the clock be set this very moment: the timer is armed then, and the setting is one that is told of, or that was
/// before.
fn arm(timer: &impl CancelledWhenSet) -> Result<(), Errno> {
    match timer.arm(NEVER) {
        Err(Errno::ECANCELED) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::collections::VecDeque;
    use std::os::fd::AsRawFd;

    use nix::poll::{PollFd, PollFlags, poll};

    use super::*;

    /// Answers as a kernel whose clock shows this time; what is due to be answered otherwise comes first.
    #[derive(Default)]
    struct Kernel {
        time: Cell<i64>,
        went_off: Cell<bool>,
        cancelled: Cell<bool>,
        armed: Cell<usize>,
        arms_with: RefCell<VecDeque<Result<(), Errno>>>,
        takes_with: RefCell<VecDeque<Result<(), Errno>>>,
    }

    impl Kernel {
        fn at(time: i64) -> Self {
            let this = Self::default();
            this.time.set(time);
            this
        }

        fn set_clock(&self, time: i64) {
            self.time.set(time);
            self.cancelled.set(true);
        }
    }

    impl CancelledWhenSet for &Kernel {
        fn arm(&self, at: i64) -> Result<(), Errno> {
            self.armed.set(self.armed.get() + 1);
            self.went_off.set(at <= self.time.get());
            self.arms_with.borrow_mut().pop_front().unwrap_or(Ok(()))
        }

        fn take(&self) -> Result<(), Errno> {
            if let Some(answer) = self.takes_with.borrow_mut().pop_front() {
                return answer;
            }
            match (self.cancelled.take(), self.went_off.take()) {
                (true, _) => Err(Errno::ECANCELED),
                (_, true) => Ok(()),
                _ => Err(Errno::EAGAIN),
            }
        }
    }

    fn looks(watch: &mut Watch<&Kernel>) -> [WallClock; 4] {
        std::array::from_fn(|_| watch.look())
    }

    const QUIET: [WallClock; 4] = [WallClock::AsBefore; 4];
    const ONCE: [WallClock; 4] =
        [WallClock::Set, WallClock::AsBefore, WallClock::AsBefore, WallClock::AsBefore];
    /// The end of the times that Linux lets a clock be set to: 30 years before those it can count.
    const LATEST: i64 = i64::MAX / 1_000_000_000 - 30 * 365 * 24 * 60 * 60;

    #[test]
    fn a_clock_as_late_as_linux_lets_it_be_wakes_nobody_who_was_not_told_that_it_was_set() {
        for time in [0, i64::from(i32::MAX) - 1, i64::from(i32::MAX), 1 << 32, LATEST] {
            let kernel = Kernel::at(time);
            let mut watch = Watch::start(Ok(&kernel));
            assert!(!kernel.went_off.get(), "{time}: wakes the loop at once");
            assert_eq!(looks(&mut watch), QUIET, "{time}");
            kernel.set_clock(time);
            assert_eq!(looks(&mut watch), ONCE, "{time}");
            assert!(!kernel.went_off.get(), "{time}: wakes the loop for ever");
        }
    }

    #[test]
    fn a_timer_that_goes_off_is_no_clock_that_was_set_and_is_not_armed_anew() {
        let kernel = Kernel::at(i64::MAX);
        let mut watch = Watch::start(Ok(&kernel));
        assert!(kernel.went_off.get());
        assert_eq!(looks(&mut watch), QUIET);
        assert_eq!(kernel.armed.get(), 1);
        kernel.set_clock(i64::MAX);
        assert_eq!(looks(&mut watch), ONCE, "it can be cancelled all the same");
        assert_eq!(kernel.armed.get(), 2, "armed once for each time the clock is set");
    }

    #[test]
    fn a_clock_that_is_set_while_the_timer_is_armed_ends_nothing() {
        let kernel = Kernel::at(0);
        kernel.arms_with.borrow_mut().push_back(Err(Errno::ECANCELED));
        let mut watch = Watch::start(Ok(&kernel));
        assert_eq!(looks(&mut watch), QUIET);
        kernel.arms_with.borrow_mut().push_back(Err(Errno::ECANCELED));
        kernel.set_clock(1);
        assert_eq!(looks(&mut watch), ONCE);
        kernel.set_clock(2);
        assert_eq!(looks(&mut watch), ONCE, "it watches on");
    }

    #[test]
    fn what_the_kernel_refuses_is_said_once_and_ends_nothing() {
        let off = [
            WallClock::Off(Errno::ENOMEM),
            WallClock::AsBefore,
            WallClock::AsBefore,
            WallClock::AsBefore,
        ];
        assert_eq!(looks(&mut Watch::start(Err(Errno::ENOMEM))), off, "no timer");
        let kernel = Kernel::at(0);
        kernel.arms_with.borrow_mut().push_back(Err(Errno::ENOMEM));
        assert_eq!(looks(&mut Watch::start(Ok(&kernel))), off, "not armed");
        let mut watch = Watch::start(Ok(&kernel));
        kernel.set_clock(1);
        kernel.arms_with.borrow_mut().push_back(Err(Errno::ENOMEM));
        assert_eq!(looks(&mut watch), off, "not armed anew");
        let mut watch = Watch::start(Ok(&kernel));
        kernel.takes_with.borrow_mut().push_back(Err(Errno::ENOMEM));
        assert_eq!(looks(&mut watch), off, "not read");
        assert!(WallClockWatch(Watch::Off).fd().is_none(), "nobody waits for it");
    }

    #[test]
    fn the_kernels_own_timer_is_taken_and_is_quiet() {
        let mut watch = WallClockWatch::start();
        assert_eq!(watch.look(), WallClock::AsBefore);
        let fd = watch.fd().unwrap();
        assert_eq!(poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], 20u16).unwrap(), 0);
        let info = format!("/proc/self/fdinfo/{}", fd.as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        // Where the kernel says it: absolute, and cancelled when the clock is set.
        assert!(!info.contains("settime flags:") || info.contains("settime flags: 03"), "{info}");
    }
}
