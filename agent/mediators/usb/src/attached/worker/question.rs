//! Whether a worker that serves a device still does: it is asked, and answers whatever its guest and its device do.

use std::time::Duration;

use clock::Moment;

/// How often a worker is looked at, and asked if no question is unanswered.
pub(in super::super) const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Looks in a row at which a question is unanswered, after which the worker has failed. It may wait for one request of its device's, which takes five seconds at
/// most, or for the kernel to reset the device, which takes longer only with a device that does not come back from it.
const UNANSWERED_MAX: u32 = 6;
/// Looks in a row at which the kernel holds it besides, which end nothing before: while another device of the same controller is reset, which may take minutes where
/// that one answers nothing, the kernel lets this one wait, and no signal reaches whoever waits there.
const HELD_MAX: u32 = 30;
/// The words for one that has failed say so.
const _: () = assert!(LOOK_EVERY.as_secs() * (UNANSWERED_MAX as u64) == 60);

/// What comes of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing is to be done.
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
    /// Looks at which it was unanswered, and of these at which the kernel held the worker; `None`: none is asked.
    unanswered: Option<(u32, u32)>,
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

    /// Looks, if it is time. A worker that waits for the agent (`owed`) is not to blame for its silence, and one that the kernel holds (`is_held`) not before long.
    pub(super) fn look(&mut self, now: Moment, owed: bool, is_held: impl Fn() -> bool) -> Look {
        if !self.wait(now).is_zero() {
            return Look::Nothing;
        }
        self.next = now + self.every;
        let Some((looks, held)) = &mut self.unanswered else {
            self.unanswered = Some((0, 0));
            return Look::Asks;
        };
        if !owed {
            *looks = looks.saturating_add(1);
            if is_held() {
                *held = held.saturating_add(1);
            }
        }
        let own = looks.saturating_sub(*held);
        if own >= UNANSWERED_MAX || *held >= HELD_MAX { Look::Hangs } else { Look::Nothing }
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
        held: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        let mut now = Moment::now();
        let mut question = Question::new(LOOK_EVERY, now);
        assert_eq!(question.look(now, owed, || false), Look::Nothing, "it has only begun");
        for look in 1..=looks {
            now += every;
            match question.look(now, owed, || held(look)) {
                Look::Hangs => return Some(look),
                asked if answers(look) => assert_eq!(question.answered(), asked == Look::Asks),
                _ => {}
            }
        }
        None
    }

    #[test]
    fn a_worker_that_answers_is_asked_again_and_one_that_does_not_hangs_after_a_minute() {
        assert_eq!(found(LOOK_EVERY, 1000, |_| true, false, |_| false), None);
        // The first look asks.
        assert_eq!(found(LOOK_EVERY, 1000, |_| false, false, |_| false), Some(1 + UNANSWERED_MAX));
        assert_eq!(
            found(LOOK_EVERY, 1000, |look| look < 500, false, |_| false),
            Some(500 + UNANSWERED_MAX)
        );
    }

    #[test]
    fn a_worker_that_the_agent_keeps_waiting_or_that_slept_with_the_pc_does_not_hang() {
        assert_eq!(found(LOOK_EVERY, 1000, |_| false, true, |_| false), None);
        // Nobody looked meanwhile, so that it counts as one.
        let asleep = Duration::from_secs(3600);
        assert_eq!(found(asleep, UNANSWERED_MAX, |_| false, false, |_| false), None);
        // Between two looks nothing counts, however often its thread comes round.
        assert_eq!(
            found(LOOK_EVERY / 100, 100 * UNANSWERED_MAX, |_| false, false, |_| false),
            None
        );
    }

    #[test]
    fn a_worker_that_waits_in_the_kernel_for_another_device_has_five_minutes() {
        let held = |until: u32| move |look: u32| look <= until;
        let found = |until| found(LOOK_EVERY, 1000, |_| false, false, held(until));
        assert_eq!(found(1000), Some(1 + HELD_MAX));
        // Once the kernel lets it go it has its minute.
        assert_eq!(found(20), Some(20 + UNANSWERED_MAX));
    }

    #[test]
    fn an_answer_to_no_question_is_none() {
        let now = Moment::now();
        let mut question = Question::new(LOOK_EVERY, now);
        assert!(!question.answered());
        assert_eq!(question.look(now + LOOK_EVERY, false, || false), Look::Asks);
        assert!(question.answered());
        assert!(!question.answered());
    }
}
