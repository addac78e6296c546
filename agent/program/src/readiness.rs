//! Whether an agent that was restarted works, from what systemd says of its service from time to time. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

/// Longest until it works: its unit has ten minutes to be ready (`TimeoutStartSec=`), and a minute more for what is around that.
pub(crate) const WITHIN: Duration = Duration::from_secs(660);
/// How long it has to stay up once it is ready, before it is asked.
pub(crate) const STAYS: Duration = Duration::from_secs(10);
/// How often systemd may start it: one that ends so often is no slow one.
pub(crate) const STARTS_MAX: usize = 3;
/// How long what worked before has to work again, once it answers.
pub(crate) const AGAIN: Duration = Duration::from_secs(120);
/// How long one that has ended is waited for.
pub(crate) const GONE: Duration = Duration::from_secs(15);

/// What systemd says of the agent's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// `ActiveState` of the unit, as `systemctl show` prints it.
    pub(crate) state: String,
    /// The process that it last started.
    pub(crate) pid: u32,
}

/// What is known of the restarted agent by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing is known yet.
    Wait,
    /// It is up and has stayed so: it is to be asked whether it answers.
    Ask,
    /// It does what is wanted of it.
    Works,
    /// The agent does not work, for this reason.
    Fails(String),
}

/// What was seen since the restart.
#[derive(Debug)]
pub(crate) struct Readiness {
    /// The process before the restart.
    old: u32,
    started: BTreeSet<u32>,
    /// The process that is up, and since when.
    up: Option<(u32, Duration)>,
    gone: Option<Duration>,
    /// When it first answered, while something that worked did not.
    answered: Option<Duration>,
}

impl Readiness {
    pub(crate) fn new(old: u32) -> Self {
        Self { old, started: BTreeSet::new(), up: None, gone: None, answered: None }
    }

    /// Takes what systemd says, so long after the restart.
    pub(crate) fn see(&mut self, now: Duration, sample: &Sample) -> Verdict {
        let Sample { state, pid } = sample;
        if *pid != 0 && *pid != self.old {
            self.started.insert(*pid);
        }
        if self.started.len() > STARTS_MAX {
            return Verdict::Fails(format!(
                "its agent ended {STARTS_MAX} times before it was ready"
            ));
        }
        let until = self.answered.map_or(WITHIN, |at| WITHIN.max(at + AGAIN));
        if now >= until {
            return Verdict::Fails(format!(
                "its agent was not ready and did not answer within {} s",
                WITHIN.as_secs()
            ));
        }
        let is_up = state == "active" && self.started.contains(pid);
        self.up = match self.up {
            Some((up, since)) if is_up && up == *pid => Some((up, since)),
            _ => is_up.then_some((*pid, now)),
        };
        let is_gone = state == "failed" || state == "inactive";
        self.gone = is_gone.then(|| self.gone.unwrap_or(now));
        if self.gone.is_some_and(|since| now.saturating_sub(since) >= GONE) {
            return Verdict::Fails("its agent ended, and nothing starts it".to_owned());
        }
        match self.up {
            Some((_, since)) if now.saturating_sub(since) >= STAYS => Verdict::Ask,
            _ => Verdict::Wait,
        }
    }

    /// Takes in what an agent that was asked answered: what of that which worked before does not.
    pub(crate) fn answered(&mut self, now: Duration, lost: &[String]) -> Verdict {
        if lost.is_empty() {
            return Verdict::Works;
        }
        let since = *self.answered.get_or_insert(now);
        if now.saturating_sub(since) < AGAIN {
            return Verdict::Wait;
        }
        Verdict::Fails(format!(
            "its agent is ready, and what worked before does not within {} s: {}",
            AGAIN.as_secs(),
            lost.join("; ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(samples: &[(u64, &str, u32)]) -> Verdict {
        let mut readiness = Readiness::new(100);
        let mut last = Verdict::Wait;
        for (seconds, state, pid) in samples {
            let sample = Sample { state: (*state).to_owned(), pid: *pid };
            last = readiness.see(Duration::from_secs(*seconds), &sample);
        }
        last
    }

    fn fails(samples: &[(u64, &str, u32)], says: &str) {
        let Verdict::Fails(why) = seen(samples) else { panic!("{samples:?}: it works") };
        assert!(why.contains(says), "{why}");
    }

    #[test]
    fn an_agent_that_is_ready_and_stays_up_is_asked_and_the_old_one_is_not() {
        assert_eq!(seen(&[(0, "active", 100), (20, "active", 100)]), Verdict::Wait);
        let up = [(0, "active", 100), (1, "activating", 101), (3, "active", 101)];
        assert_eq!(seen(&up), Verdict::Wait);
        assert_eq!(seen(&[&up[..], &[(12, "active", 101)]].concat()), Verdict::Wait);
        assert_eq!(seen(&[&up[..], &[(13, "active", 101)]].concat()), Verdict::Ask);
        // It was restarted meanwhile: its time begins anew.
        let again = [(12, "activating", 102), (14, "active", 102), (20, "active", 102)];
        assert_eq!(seen(&[&up[..], &again].concat()), Verdict::Wait);
        assert_eq!(seen(&[&up[..], &again, &[(24, "active", 102)]].concat()), Verdict::Ask);
        // One that is slow, as its disk is.
        assert_eq!(seen(&[(1, "activating", 101), (600, "activating", 101)]), Verdict::Wait);
    }

    #[test]
    fn what_worked_before_has_two_minutes_from_the_first_answer_on_however_often_it_is_asked() {
        let lost = ["the domain clinical does not run".to_owned()];
        let at = Duration::from_secs;
        let mut readiness = Readiness::new(100);
        assert_eq!(readiness.answered(at(600), &lost), Verdict::Wait);
        assert_eq!(readiness.answered(at(719), &lost), Verdict::Wait);
        // It is not for having been slow before that it fails meanwhile.
        let up = Sample { state: "active".to_owned(), pid: 101 };
        assert_eq!(readiness.see(at(661), &up), Verdict::Wait);
        let Verdict::Fails(why) = readiness.answered(at(720), &lost) else { panic!("it works") };
        assert!(why.contains("within 120 s: the domain clinical"), "{why}");
        assert_eq!(readiness.answered(at(720), &[]), Verdict::Works);
        assert!(matches!(readiness.see(at(720), &up), Verdict::Fails(_)));
    }

    #[test]
    fn an_agent_that_ends_again_and_again_is_never_ready_or_is_started_by_nobody_fails() {
        let ending = [
            (0, "activating", 101),
            (1, "activating", 102),
            (2, "activating", 103),
            (3, "activating", 104),
        ];
        assert_eq!(seen(&ending[..3]), Verdict::Wait);
        fails(&ending, "ended 3 times");
        fails(&[(0, "activating", 101), (660, "activating", 101)], "within 660 s");
        fails(&[(1, "inactive", 101), (16, "inactive", 101)], "nothing starts it");
        fails(&[(1, "failed", 100), (16, "failed", 100)], "nothing starts it");
        assert_eq!(
            seen(&[(1, "failed", 101), (9, "activating", 101), (20, "failed", 101)]),
            Verdict::Wait
        );
    }
}
