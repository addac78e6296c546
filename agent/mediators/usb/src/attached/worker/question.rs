//! Whether a worker that serves a device still does: it is asked, and answers whatever its guest and its device do.

use std::time::Duration;

use clock::Moment;

/// How often a worker is looked at, and asked if no question is unanswered.
pub(in super::super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks in a row at which a question is unanswered, after which the worker has failed. It may wait for one request of its device's, which takes five seconds at
/// most, or for the kernel to reset the device, which takes longer only with a device that does not come back from it.
const UNANSWERED_MAX: u32 = 6;
/// The words for one that has failed say so.
const _: () = assert!(LOOK_EVERY.as_secs() * (UNANSWERED_MAX as u64) == 60);

/// What comes of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing.
    Nothing,
    /// The worker is to be asked.
    Asks,
    /// It has not answered for so long that it hangs.
    Hangs,
}

/// The question whether a worker still serves its device. Looks are counted, and not seconds: while the PC sleeps no worker answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    every: Duration,
    /// Looks at which it was unanswered; `None`: none is asked.
    unanswered: Option<u32>,
    /// When the next look is.
    next: Moment,
}

impl Question {
    /// Asks nothing before `every` has passed.
    pub(super) fn new(every: Duration, now: Moment) -> Self {
        Self { every, unanswered: None, next: now + every }
    }

    /// Returns how long it is until the next look.
    pub(super) fn wait(&self, now: Moment) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// Looks, if it is time. A worker that waits for the agent (`owed`) is not to blame for its silence.
    pub(super) fn look(&mut self, now: Moment, owed: bool) -> Look {
        if !self.wait(now).is_zero() {
            return Look::Nothing;
        }
        self.next = now + self.every;
        let Some(looks) = &mut self.unanswered else {
            self.unanswered = Some(0);
            return Look::Asks;
        };
        if !owed {
            *looks = looks.saturating_add(1);
        }
        if *looks >= UNANSWERED_MAX { Look::Hangs } else { Look::Nothing }
    }

    /// Takes an answer; returns whether the worker was asked.
    pub(super) fn answered(&mut self) -> bool {
        self.unanswered.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks every `every`, so often, and says at which look it is taken for one that hangs; `answers` at those looks.
    fn found(
        every: Duration,
        looks: u32,
        answers: impl Fn(u32) -> bool,
        owed: bool,
    ) -> Option<u32> {
        let mut now = Moment::now();
        let mut question = Question::new(LOOK_EVERY, now);
        assert_eq!(question.look(now, owed), Look::Nothing, "it has only begun");
        for look in 1..=looks {
            now += every;
            match question.look(now, owed) {
                Look::Hangs => return Some(look),
                asked if answers(look) => assert_eq!(question.answered(), asked == Look::Asks),
                _ => {}
            }
        }
        None
    }

    #[test]
    fn a_worker_that_answers_is_asked_again_and_one_that_does_not_hangs_after_a_minute() {
        assert_eq!(found(LOOK_EVERY, 1000, |_| true, false), None);
        // The first look asks.
        assert_eq!(found(LOOK_EVERY, 1000, |_| false, false), Some(1 + UNANSWERED_MAX));
        assert_eq!(found(LOOK_EVERY, 1000, |look| look < 500, false), Some(500 + UNANSWERED_MAX));
    }

    #[test]
    fn a_worker_that_the_agent_keeps_waiting_or_that_slept_with_the_pc_does_not_hang() {
        assert_eq!(found(LOOK_EVERY, 1000, |_| false, true), None);
        // Nobody looked meanwhile, so that it counts as one.
        let asleep = Duration::from_secs(3600);
        assert_eq!(found(asleep, UNANSWERED_MAX, |_| false, false), None);
        // Between two looks nothing counts, however often its thread comes round.
        assert_eq!(found(LOOK_EVERY / 100, 100 * UNANSWERED_MAX, |_| false, false), None);
    }

    #[test]
    fn an_answer_to_no_question_is_none() {
        let now = Moment::now();
        let mut question = Question::new(LOOK_EVERY, now);
        assert!(!question.answered());
        assert_eq!(question.look(now + LOOK_EVERY, false), Look::Asks);
        assert!(question.answered());
        assert!(!question.answered());
    }
}
