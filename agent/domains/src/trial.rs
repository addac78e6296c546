//! Whether the guest of an image that has newly come into force comes up: a pure state machine, to which bytes and times are given.
//!
//! ```text
//!  start --> Waiting --"up\n"--> CameUp
//!               |
//!               '---its time is over---> TooLate
//! ```
//! What the guest writes on its port is hostile: the first line counts, and only if it is `up`; a guest that writes anything else has not come
//! up. A VMM that fails and is started again, and an agent that takes the guest up from another, do not make the time longer than it is from
//! their own start.

use std::time::Duration;

use crate::lifecycle::Time;

/// What a guest writes to the port once it has come up.
const UP: &[u8] = b"up\n";

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The guest said so in time.
    CameUp,
    /// The guest said nothing in time, or something else.
    TooLate,
}

/// The wait for one guest of a new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    until: Time,
    /// How much of [`UP`] it has written; `None` once it wrote something else.
    matched: Option<usize>,
}

impl Trial {
    /// Begins to wait for the guest, for so long.
    #[must_use]
    pub fn begin(now: Time, time: Duration) -> Self {
        Self { until: now.saturating_add(time), matched: Some(0) }
    }

    /// Returns when it has to be looked at though the guest wrote nothing.
    #[must_use]
    pub fn deadline(&self) -> Time {
        self.until
    }

    /// Returns whether what the guest writes can still count.
    #[must_use]
    pub fn listens(&self) -> bool {
        self.matched.is_some()
    }

    /// Forgets what the guest wrote: its VMM was started again, and the other end of the port is another one.
    pub fn connected(&mut self) {
        self.matched = Some(0);
    }

    /// Takes what the guest wrote by now; in time or not, and said or not.
    pub fn take(&mut self, now: Time, bytes: &[u8]) -> Option<Verdict> {
        for byte in bytes {
            let Some(matched) = self.matched else { break };
            if matched == UP.len() {
                break;
            }
            self.matched = (UP.get(matched) == Some(byte)).then_some(matched + 1);
        }
        match self.matched {
            Some(matched) if matched == UP.len() && now < self.until => Some(Verdict::CameUp),
            _ if now >= self.until => Some(Verdict::TooLate),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_guest_that_says_up_in_time_came_up_and_every_other_did_not() {
        let begin = || Trial::begin(SECOND, 10 * SECOND);
        for (said, verdict) in [
            (b"up\n".as_slice(), Some(Verdict::CameUp)),
            (b"up\nand more", Some(Verdict::CameUp)),
            (b"up", None),
            (b"\nup\n", None),
            (b"UP\n", None),
            (b"upup\n", None),
            (b"", None),
        ] {
            let mut trial = begin();
            assert_eq!(trial.take(2 * SECOND, said), verdict, "{said:?}");
            let mut trial = begin();
            assert_eq!(trial.take(11 * SECOND, said), Some(Verdict::TooLate), "{said:?}");
        }
        let mut trial = begin();
        assert_eq!(trial.take(2 * SECOND, b"u"), None);
        trial.connected();
        assert_eq!(trial.take(3 * SECOND, b"p\n"), None, "half of it was another VMM's");
        trial.connected();
        assert_eq!(trial.take(3 * SECOND, b"u"), None);
        assert_eq!(trial.take(4 * SECOND, b"p\n"), Some(Verdict::CameUp));
    }

    proptest! {
        #[test]
        fn however_it_is_cut_only_a_first_line_of_up_in_time_is_up(
            pieces in prop::collection::vec((0_u64..30, prop::collection::vec(prop::sample::select(b"up\nx".to_vec()), 0..4)), 0..8)
        ) {
            let mut trial = Trial::begin(Time::ZERO, 20 * SECOND);
            let (mut all, mut now) = (Vec::new(), 0);
            for (later, piece) in pieces {
                now += later;
                all.extend_from_slice(&piece);
                let expected = match (now >= 20, all.starts_with(b"up\n")) {
                    (true, _) => Some(Verdict::TooLate),
                    (false, true) => Some(Verdict::CameUp),
                    (false, false) => None,
                };
                let verdict = trial.take(SECOND * u32::try_from(now).unwrap(), &piece);
                prop_assert_eq!(verdict, expected);
                if verdict.is_some() { break; }
            }
        }
    }
}
