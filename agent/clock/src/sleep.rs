//! Tells whether the PC slept (suspended to memory or disk): `CLOCK_BOOTTIME` goes on meanwhile and `CLOCK_MONOTONIC` stands still, so that
//! the lead of the one over the other grows by each sleep and by nothing else.
//!
//! Two clocks cannot be read at once, so the lead is known within bounds: `CLOCK_MONOTONIC` is read before and after. Only what the bounds
//! prove counts: a thread that waits for a processor between two readings has not slept.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Sleeps that are shorter are not told from the rounding of the two clocks. A kernel that counts a sleep in whole seconds of the real-time clock
/// shows none of one that is over within the second.
const SHORTEST: Duration = Duration::from_millis(1);

/// The two clocks of a kernel, of which one stands still while the PC sleeps.
pub trait Clocks {
    /// Returns the clock that stands still while the PC sleeps.
    fn monotonic(&self) -> Duration;
    /// Returns the clock that goes on.
    fn boot(&self) -> Duration;
}

/// `CLOCK_MONOTONIC` and `CLOCK_BOOTTIME`.
#[derive(Debug, Clone, Copy)]
pub struct KernelClocks;

impl Clocks for KernelClocks {
    fn monotonic(&self) -> Duration {
        // Both have been there since Linux 2.6.39, and reading a clock fails only if there is none.
        clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
    }

    fn boot(&self) -> Duration {
        clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
    }
}

/// A watch that sees whether the PC slept.
#[derive(Debug)]
pub struct SleepWatch<C = KernelClocks> {
    clocks: C,
    /// The most that the lead can have been when it was last read.
    lead_at_most: Duration,
}

impl SleepWatch {
    /// Starts to watch the kernel's clocks.
    #[must_use]
    pub fn start() -> Self {
        Self::of(KernelClocks)
    }

    /// Goes on where another watch in this boot had its last look, of which [`Self::lead`] is left: the first look tells of a sleep since.
    #[must_use]
    pub fn resume(lead: Duration) -> Self {
        Self::go_on_of(KernelClocks, lead)
    }
}

impl<C: Clocks> SleepWatch<C> {
    /// Starts to watch these clocks.
    #[must_use]
    pub fn of(clocks: C) -> Self {
        let (_, lead_at_most) = lead(&clocks);
        Self { clocks, lead_at_most }
    }

    /// Watches these clocks as [`SleepWatch::resume`] says. No PC loses lead: more than there is now is of another boot, and says nothing.
    #[must_use]
    pub fn go_on_of(clocks: C, lead: Duration) -> Self {
        let mut this = Self::of(clocks);
        this.lead_at_most = this.lead_at_most.min(lead);
        this
    }

    /// Returns how long the PC slept since its boot, at most, as of the last look.
    #[must_use]
    pub fn lead(&self) -> Duration {
        self.lead_at_most
    }

    /// Returns how long the PC slept since the last look, if it did. It does not wait.
    pub fn look(&mut self) -> Option<Duration> {
        let (at_least, at_most) = lead(&self.clocks);
        let slept = at_least.saturating_sub(self.lead_at_most);
        if slept < SHORTEST {
            // The tighter of two bounds on what has not changed.
            self.lead_at_most = self.lead_at_most.min(at_most);
            return None;
        }
        self.lead_at_most = at_most;
        Some(slept)
    }
}

/// Returns the lead of the clock that goes on: at least, and at most.
fn lead(clocks: &impl Clocks) -> (Duration, Duration) {
    let before = clocks.monotonic();
    let boot = clocks.boot();
    let after = clocks.monotonic();
    (boot.saturating_sub(after), boot.saturating_sub(before))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Clocks of a PC that a test has run and sleep. Each reading takes some time.
    #[derive(Default)]
    struct Pc {
        ran: Cell<Duration>,
        slept: Cell<Duration>,
        reading_takes: Cell<Duration>,
        /// It sleeps so long before the reading of this number from now.
        sleeps_in_reading: Cell<Option<(u32, Duration)>>,
    }

    impl Pc {
        fn runs(&self, time: Duration) {
            self.ran.set(self.ran.get() + time);
        }

        fn sleeps(&self, time: Duration) {
            self.slept.set(self.slept.get() + time);
        }

        fn read(&self) {
            self.runs(self.reading_takes.get());
            match self.sleeps_in_reading.take() {
                Some((0, time)) => self.sleeps(time),
                Some((left, time)) => self.sleeps_in_reading.set(Some((left - 1, time))),
                None => {}
            }
        }
    }

    impl Clocks for &Pc {
        fn monotonic(&self) -> Duration {
            self.read();
            self.ran.get()
        }

        fn boot(&self) -> Duration {
            self.read();
            self.ran.get() + self.slept.get()
        }
    }

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_sleep_is_told_once_with_its_length_and_those_before_the_watch_are_not() {
        let pc = Pc::default();
        pc.sleeps(HOUR);
        let mut watch = SleepWatch::of(&pc);
        pc.runs(HOUR);
        assert_eq!(watch.look(), None);
        pc.sleeps(Duration::from_secs(7));
        assert_eq!(watch.look(), Some(Duration::from_secs(7)));
        assert_eq!(watch.look(), None, "it is told once");
        pc.sleeps(HOUR);
        pc.runs(HOUR);
        pc.sleeps(HOUR);
        assert_eq!(watch.look(), Some(2 * HOUR), "two sleeps between two looks are one");
    }

    #[test]
    fn a_thread_that_waits_for_a_processor_between_two_readings_has_not_slept() {
        let pc = Pc::default();
        let mut watch = SleepWatch::of(&pc);
        for takes in [0, 5, 60, 0, 60] {
            pc.reading_takes.set(Duration::from_secs(takes));
            pc.runs(HOUR);
            assert_eq!(watch.look(), None, "{takes} s between two readings");
        }
        // The wide bounds of one look do not hide what the next one sees.
        pc.reading_takes.set(Duration::ZERO);
        pc.sleeps(Duration::from_secs(2));
        assert_eq!(watch.look(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_sleep_in_the_middle_of_a_look_is_told_by_that_look_or_the_next_and_once() {
        for reading in 0..3 {
            let pc = Pc::default();
            let mut watch = SleepWatch::of(&pc);
            pc.sleeps_in_reading.set(Some((reading, HOUR)));
            let told: Vec<Duration> = (0..4).filter_map(|_| watch.look()).collect();
            assert_eq!(told, [HOUR], "before reading {reading}");
        }
    }

    #[test]
    fn a_watch_that_goes_on_tells_of_a_sleep_while_nobody_watched_once_and_of_none_of_another_boot()
    {
        let pc = Pc::default();
        pc.sleeps(HOUR);
        let left = SleepWatch::of(&pc).lead();
        pc.runs(HOUR);
        assert_eq!(SleepWatch::go_on_of(&pc, left).look(), None);
        pc.sleeps(Duration::from_secs(3));
        let mut next = SleepWatch::go_on_of(&pc, left);
        assert_eq!(next.look(), Some(Duration::from_secs(3)));
        assert_eq!(next.look(), None, "it is told once");
        assert_eq!(SleepWatch::go_on_of(&pc, next.lead()).look(), None);
        let other_boot = Pc::default();
        let mut watch = SleepWatch::go_on_of(&other_boot, left);
        assert_eq!(watch.look(), None);
        other_boot.sleeps(Duration::from_secs(3));
        assert_eq!(watch.look(), Some(Duration::from_secs(3)));
    }

    #[test]
    fn the_kernels_clocks_tell_of_no_sleep_of_a_pc_that_runs() {
        let mut watch = SleepWatch::start();
        for _ in 0..10_000 {
            assert_eq!(watch.look(), None);
        }
    }
}
