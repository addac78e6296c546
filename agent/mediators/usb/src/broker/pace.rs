//! How often devices may come and be attached: what makes it happen again and again, a device or a VMM, is slowed down.
//!
//! Counted by the PC's own sockets. A hub could make up as many places behind one as it likes.

use std::collections::BTreeMap;
use std::time::Duration;

use clock::Moment;
use ratelimit::{Rate, RateLimiter};
use usbhost::BusId;

use crate::attached::REFUSALS;

/// At once as many as a full dock brings; then as fast as a person plugs.
const RATE: Rate = Rate { burst: 32, every: Duration::from_secs(2) };

/// What has come behind each of the PC's sockets of late.
pub(super) struct Pace {
    began: Moment,
    sockets: BTreeMap<String, RateLimiter>,
    /// Audit entries of what was refused behind each of them, whatever device and whichever worker it was; the rest are counted in the entry of the end.
    refusals: BTreeMap<String, RateLimiter>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self { began: Moment::now(), sockets: BTreeMap::new(), refusals: BTreeMap::new() }
    }

    /// Returns how long nothing more may be done for what is plugged in here; zero if something may.
    pub(super) fn wait(&mut self, id: &BusId) -> Duration {
        let now = self.began.elapsed();
        self.limiter(id).wait(now)
    }

    /// Counts that something is done for it.
    pub(super) fn count(&mut self, id: &BusId) {
        let now = self.began.elapsed();
        self.limiter(id).take(1, now);
    }

    /// Returns whether there may be another entry of what was refused to a guest here, and counts it.
    pub(super) fn take_refusal(&mut self, id: &BusId) -> bool {
        let now = self.began.elapsed();
        let new = || RateLimiter::new(REFUSALS);
        self.refusals.entry(socket(id).to_owned()).or_insert_with(new).take(1, now)
    }

    // A PC has as many sockets as it has, so that this is bounded.
    fn limiter(&mut self, id: &BusId) -> &mut RateLimiter {
        self.sockets.entry(socket(id).to_owned()).or_insert_with(|| RateLimiter::new(RATE))
    }
}

/// Returns the PC's own socket that a device is behind: `1-4` of `1-4.2.1`.
pub(super) fn socket(id: &BusId) -> &str {
    id.as_str().split('.').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_comes_and_goes_waits_and_so_does_what_its_hub_makes_up_but_no_other_socket() {
        let mut pace = Pace::new();
        let id = |text: &str| text.parse::<BusId>().unwrap();
        for number in 1..=RATE.burst {
            let id = id(&format!("1-4.{number}"));
            assert!(pace.wait(&id).is_zero());
            pace.count(&id);
        }
        let wait = pace.wait(&id("1-4.99"));
        assert!(!wait.is_zero() && wait <= RATE.every);
        assert!(pace.wait(&id("1-5")).is_zero() && pace.wait(&id("2-4")).is_zero());
    }
}
