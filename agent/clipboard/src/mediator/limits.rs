//! How much and how long.

use super::Time;

/// Most bytes that are held. A guest's content is read into one piece of memory of its own declared size, up to this: the
/// largest screenshot as an uncompressed picture (3840 x 2160 pixels of 3 bytes) fits.
pub const HELD_MAX: u32 = 32 << 20;
/// How long copied content waits for its paste: long enough to switch and find the place, not long enough to be forgotten.
pub const HELD_FOR: Time = Time::from_secs(300);
/// How long pasted content is offered to the guest's programs.
pub const OFFERED_FOR: Time = Time::from_secs(60);
/// How long a guest may be silent while content is asked of it.
pub const PULL_SILENCE: Time = Time::from_secs(5);
/// How long a guest may take to hand its content over.
pub const PULL_MAX: Time = Time::from_secs(30);
/// How long a question waits; then the answer is no.
pub const ASK_FOR: Time = Time::from_secs(20);
/// Chords that count at once in one direction, and how soon one more does. People do not paste faster; what presses keys for
/// them does.
pub const CHORDS: u32 = 20;
/// See [`CHORDS`].
pub const CHORD_EVERY: Time = Time::from_secs(3);
/// Bytes that a guest may send unasked at once; as many again each second. What is more waits in its own queue.
pub const UNASKED: u32 = 256 << 10;
/// The shortest and the longest time a guest whose stream made no sense is left alone.
pub const AGAIN: (Time, Time) = (Time::from_secs(1), Time::from_secs(60));
/// Between two audit entries on one guest's broken streams.
pub const FAULT_EVERY: Time = Time::from_secs(60);

/// So many of something at once, and one more every so often.
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    /// Below none after more was taken than there was.
    left: i64,
    most: i64,
    every: Time,
    at: Time,
}

impl Allowance {
    /// All of it is there.
    #[must_use]
    pub fn new(most: u32, every: Time) -> Self {
        let most = i64::from(most);
        Self { left: most, most, every, at: Time::ZERO }
    }

    fn refill(&mut self, now: Time) {
        let passed = now.saturating_sub(self.at);
        let more = passed.as_nanos() / self.every.as_nanos().max(1);
        if more > 0 {
            let room = u64::try_from(self.most.saturating_sub(self.left)).unwrap_or_default();
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            if u64::from(more) >= room {
                (self.left, self.at) = (self.most, now);
            } else {
                self.left = self.left.saturating_add(i64::from(more));
                self.at = self.at.saturating_add(self.every.saturating_mul(more));
            }
        }
    }

    /// Takes so many, if there is any; what was taken beyond that has to come back first. `false` if there was none.
    pub fn take(&mut self, count: u32, now: Time) -> bool {
        self.refill(now);
        let some = self.left > 0;
        if some {
            self.left = self.left.saturating_sub(i64::from(count));
        }
        some
    }

    /// Whether there is any.
    pub fn any(&mut self, now: Time) -> bool {
        self.refill(now);
        self.left > 0
    }
}
