//! How often something may happen that a guest, a device or a peer can cause: log lines, audit
//! entries, resets, hotkeys, unasked bytes. One token bucket for all of them, without a clock:
//! time is given to every call, since any fixed moment.
//!
//! ```
//! use std::time::Duration;
//! use ratelimit::{Rate, RateLimiter};
//!
//! let mut resets = RateLimiter::new(Rate { burst: 2, every: Duration::from_secs(10) });
//! let start = Duration::ZERO;
//! assert_eq!(resets.admit(start), Some(0));
//! assert_eq!(resets.admit(start), Some(0));
//! assert_eq!(resets.admit(start), None, "the burst is used up");
//! let later = Duration::from_secs(10);
//! assert_eq!(resets.admit(later), Some(1), "one token came back; one event was refused meanwhile");
//! ```
#![forbid(unsafe_code)]

use std::time::Duration;

/// A burst at once, and one more after each interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Tokens of a full bucket.
    pub burst: u32,
    /// How long one token takes to come back.
    pub every: Duration,
}

/// A token bucket that counts what it refuses.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    rate: Rate,
    /// Below zero after more was taken than there was. Never more than the burst.
    tokens: i64,
    /// Up to when tokens have been given back.
    refilled: Duration,
    refused: u64,
}

impl RateLimiter {
    /// Makes a full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        // Lossless; `From` is not const.
        Self { rate, tokens: rate.burst as i64, refilled: Duration::ZERO, refused: 0 }
    }

    /// Admits one event, and returns how many were refused since the last one that was admitted;
    /// `None` refuses this one.
    pub fn admit(&mut self, now: Duration) -> Option<u64> {
        if self.take(1, now) {
            return Some(std::mem::take(&mut self.refused));
        }
        self.refused = self.refused.saturating_add(1);
        None
    }

    /// Takes `count` tokens if there is at least one; the bucket may go below zero and has to
    /// recover first. `false` if there is none.
    pub fn take(&mut self, count: u32, now: Duration) -> bool {
        let available = self.is_available(now);
        if available {
            self.tokens = self.tokens.saturating_sub(i64::from(count));
        }
        available
    }

    /// Returns whether there is a token.
    pub fn is_available(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.tokens > 0
    }

    /// Returns how long until there is a token: zero if there is one.
    pub fn wait(&mut self, now: Duration) -> Duration {
        if self.is_available(now) {
            return Duration::ZERO;
        }
        let missing = u32::try_from(1 - self.tokens).unwrap_or(u32::MAX);
        self.refilled.saturating_add(self.rate.every.saturating_mul(missing)).saturating_sub(now)
    }

    fn refill(&mut self, now: Duration) {
        let burst = i64::from(self.rate.burst);
        let room = burst.saturating_sub(self.tokens);
        if room <= 0 {
            // A full bucket gains nothing by waiting.
            self.refilled = self.refilled.max(now);
            return;
        }
        let passed = now.saturating_sub(self.refilled);
        let earned = passed.as_nanos() / self.rate.every.as_nanos().max(1);
        if earned == 0 {
            return;
        }
        match u32::try_from(earned) {
            Ok(earned) if i64::from(earned) < room => {
                self.tokens = self.tokens.saturating_add(earned.into());
                // The rest of an interval counts for the next token.
                self.refilled =
                    self.refilled.saturating_add(self.rate.every.saturating_mul(earned));
            }
            _ => (self.tokens, self.refilled) = (burst, now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_through_and_what_was_refused_is_counted_by_the_next_that_does() {
        let mut limiter = RateLimiter::new(Rate { burst: 3, every: SECOND });
        let admitted: Vec<_> = (0..10).map(|_| limiter.admit(Duration::ZERO)).collect();
        assert_eq!(admitted.iter().flatten().count(), 3);
        assert_eq!(limiter.wait(Duration::from_millis(400)), Duration::from_millis(600));
        assert_eq!(limiter.admit(Duration::from_millis(999)), None);
        assert_eq!(limiter.admit(SECOND), Some(8));
        assert_eq!(limiter.admit(2 * SECOND), Some(0));
    }

    #[test]
    fn a_whole_interval_lies_between_two_whenever_the_first_comes() {
        let mut limiter = RateLimiter::new(Rate { burst: 1, every: 10 * SECOND });
        assert_eq!(limiter.admit(17 * SECOND), Some(0));
        assert_eq!(limiter.admit(26 * SECOND), None);
        assert_eq!(limiter.admit(27 * SECOND), Some(1));
    }

    #[test]
    fn what_was_taken_beyond_the_bucket_has_to_come_back_first() {
        let mut limiter = RateLimiter::new(Rate { burst: 2, every: SECOND });
        assert!(limiter.take(5, Duration::ZERO));
        assert_eq!(limiter.wait(Duration::ZERO), 4 * SECOND);
        assert!(!limiter.is_available(3 * SECOND));
        assert!(limiter.is_available(4 * SECOND));
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_the_rate_allow_whenever_it_is_asked(
            burst in 1u32..50,
            every in 1u64..2_000,
            steps in prop::collection::vec(0u64..3_000, 1..400),
        ) {
            let mut limiter = RateLimiter::new(Rate { burst, every: Duration::from_millis(every) });
            let (mut now, mut admitted) = (0, 0u64);
            for step in steps {
                now += step;
                let free = limiter.wait(Duration::from_millis(now)).is_zero();
                let through = limiter.admit(Duration::from_millis(now)).is_some();
                prop_assert_eq!(free, through);
                admitted += u64::from(through);
                prop_assert!(admitted <= u64::from(burst) + now / every);
            }
            prop_assert!(admitted > 0);
        }

        #[test]
        fn any_rate_and_any_time_is_harmless(burst: u32, every: u64, times: Vec<u64>, count: u32) {
            let every = Duration::from_nanos(every);
            let mut limiter = RateLimiter::new(Rate { burst, every });
            for time in times {
                let now = Duration::from_secs(time);
                limiter.take(count, now);
                limiter.admit(now);
                limiter.wait(now);
            }
        }
    }
}
