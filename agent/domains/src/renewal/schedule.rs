//! When a domain begins anew by itself: a pure state machine, to which clocks and facts are given.
//!
//! ```text
//!            its time has come, or it stands idle                      the countdown is over, or "now"
//!  Waiting ---------------------------------------> Counting ------------------------------------------> begun, Waiting
//!     ^                                              |    ^
//!     | it was used, for one that stood idle         |    | the time is over
//!     | it is off, or began anew otherwise           v    | (it cannot be put off again)
//!     +------------------------------------------- PutOff-+
//! ```
//! Two clocks: what the policy says in times of day goes by the wall clock, in local time; the countdown and idleness by the agent's clock, which
//! nobody sets. What is promised, whatever the wall clock does (`tests`):
//! - the next time of day is one that the wall clock has not shown; once it shows it, or a later one, the domain is due, once, however many times
//!   were passed at once: a clock that is set forth and a PC that slept are late, and not twice as late;
//! - a clock that is set back by [`SLACK`] or less, as at the end of summer time, makes no time come twice;
//! - one that is set back further begins anew with what it shows: a domain waits for no more than its longest gap and [`SLACK`];
//! - a renewal is put off at most once, for [`PUT_OFF`] of the wall clock at most.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::lifecycle::Time;

/// How long the person at the seat is told before it begins.
pub const COUNTDOWN: Duration = Duration::from_secs(60);
/// For how long it is put off.
pub const PUT_OFF: Duration = Duration::from_secs(15 * 60);
/// How far the wall clock may go back without a time of day coming twice: more than any summer time, less than a day.
pub const SLACK: Duration = Duration::from_secs(12 * 3600);

const DAY: i64 = 24 * 3600;

/// Local time as the wall clock shows it: seconds since 1970-01-01 00:00 there, summer time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime(pub i64);

impl LocalTime {
    /// Returns what the wall clock shows.
    #[must_use]
    pub fn now() -> Self {
        let now = Timestamp::now();
        let offset = TimeZone::system().to_offset(now).seconds();
        Self(now.as_second().saturating_add(i64::from(offset)))
    }

    /// Returns the moment so much later.
    #[must_use]
    pub fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Returns the moment so much earlier.
    #[must_use]
    pub fn minus(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(time.as_secs()).unwrap_or(i64::MAX)))
    }

    /// Returns the time of day as people write it: `07:00`.
    #[must_use]
    pub fn time_of_day(self) -> String {
        let minutes = self.0.rem_euclid(DAY) / 60;
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// The policy's rules on when a domain is renewed by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The times of day, in minutes since midnight.
    pub at: Vec<u16>,
    /// How long no input has to go to it.
    pub when_idle: Option<Duration>,
}

impl Rules {
    /// Returns the first of its times after this one.
    fn first_after(&self, local: LocalTime) -> Option<LocalTime> {
        let midnight = local.0.saturating_sub(local.0.rem_euclid(DAY));
        let next = |minutes: &u16| {
            let today = midnight.saturating_add(i64::from(*minutes) * 60);
            LocalTime(if today > local.0 { today } else { today.saturating_add(DAY) })
        };
        self.at.iter().map(next).min()
    }

    /// Returns how long there is none of its times at most.
    fn longest_gap(&self) -> i64 {
        let mut at: Vec<i64> = self.at.iter().map(|minutes| i64::from(*minutes) * 60).collect();
        at.sort_unstable();
        let (Some(first), Some(last)) = (at.first(), at.last()) else { return DAY };
        let over_night = first.saturating_add(DAY).saturating_sub(*last);
        let gaps =
            at.windows(2).filter_map(|pair| Some(pair.get(1)?.saturating_sub(*pair.first()?)));
        gaps.fold(over_night, i64::max)
    }
}

/// Why it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DueReason {
    /// Its time of day has come.
    Time,
    /// Nothing was done there for long.
    Idle,
}

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct ScheduleTime {
    /// By the agent's clock, which nobody sets.
    pub time: Time,
    /// By the wall clock, in local time.
    pub local: LocalTime,
}

/// The use of a domain while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainUsage {
    /// Since when, without anything that was written before.
    pub since: Time,
    /// When input last went to it.
    pub used: Option<Time>,
}

impl DomainUsage {
    /// Returns when it was used, if it was since it began.
    fn used_since(self) -> Option<Time> {
        self.used.filter(|used| *used >= self.since)
    }
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin the renewal, for this reason.
    Begin(DueReason),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Waiting,
    Counting { due: DueReason, until: Time, may_put_off: bool, since: Time },
    PutOff { due: DueReason, until: LocalTime, at: Time, since: Time },
}

/// A countdown to a renewal, as far as it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Countdown {
    /// Why it is due.
    pub due: DueReason,
    /// How long it takes until it begins.
    pub left: Duration,
    /// Whether it can be put off.
    pub may_put_off: bool,
}

/// The schedule of one domain. See the module.
#[derive(Clone, Debug)]
pub struct Schedule {
    rules: Rules,
    /// The next of its times, unless it has none.
    next: Option<LocalTime>,
    stage: Stage,
}

impl Schedule {
    /// Makes a schedule for a domain that has what was written since this time: times of day after that count.
    #[must_use]
    pub fn new(rules: Rules, since: LocalTime) -> Self {
        Self { next: rules.first_after(since), rules, stage: Stage::Waiting }
    }

    /// Returns what the policy says.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Looks at clocks and domain; `None` for a domain that does not run, which begins anew in any case.
    pub fn look(&mut self, now: ScheduleTime, runs: Option<DomainUsage>) -> Option<Output> {
        let time_has_come = self.time_has_come(now.local);
        let Some(runs) = runs else {
            self.stage = Stage::Waiting;
            return None;
        };
        self.drop_what_is_void(runs);
        match &mut self.stage {
            Stage::Waiting => {
                let due = if time_has_come {
                    DueReason::Time
                } else if self.is_idle(now.time, runs) {
                    DueReason::Idle
                } else {
                    return None;
                };
                self.count(now, due, true, runs);
            }
            // Its time has come meanwhile: it is not waited for that nobody works there.
            Stage::Counting { due, .. } | Stage::PutOff { due, .. } if time_has_come => {
                *due = DueReason::Time
            }
            Stage::Counting { .. } | Stage::PutOff { .. } => {}
        }
        match &mut self.stage {
            Stage::Counting { due, until, .. } if now.time >= *until => {
                let due = *due;
                self.stage = Stage::Waiting;
                Some(Output::Begin(due))
            }
            Stage::PutOff { due, until, .. } => {
                *until = (*until).min(now.local.plus(PUT_OFF));
                if now.local >= *until {
                    let due = *due;
                    self.count(now, due, false, runs);
                }
                None
            }
            Stage::Waiting | Stage::Counting { .. } => None,
        }
    }

    /// Puts the renewal off that is counted down to; until when, if that can be.
    pub fn put_off(&mut self, now: ScheduleTime) -> Option<(DueReason, LocalTime)> {
        let Stage::Counting { due, may_put_off: true, since, .. } = self.stage else { return None };
        let until = now.local.plus(PUT_OFF);
        self.stage = Stage::PutOff { due, until, at: now.time, since };
        Some((due, until))
    }

    /// Begins a countdown that runs from its start, as nobody can have seen it until now.
    pub fn count_anew(&mut self, now: Time) {
        if let Stage::Counting { until, .. } = &mut self.stage {
            *until = now + COUNTDOWN;
        }
    }

    /// Returns how far the countdown is, if one runs.
    #[must_use]
    pub fn countdown(&self, now: Time) -> Option<Countdown> {
        let Stage::Counting { due, until, may_put_off, .. } = self.stage else { return None };
        Some(Countdown { due, left: until.saturating_sub(now), may_put_off })
    }

    /// Returns in what time [`Self::look`] may have something to do; `None` if never by itself.
    #[must_use]
    pub fn wait(&self, now: ScheduleTime, runs: Option<DomainUsage>) -> Option<Duration> {
        let until = |local: LocalTime| {
            Duration::from_secs(u64::try_from(local.0.saturating_sub(now.local.0)).unwrap_or(0))
        };
        let idle = self.rules.when_idle.zip(runs.and_then(DomainUsage::used_since));
        let idle = idle.map(|(idle, used)| used.saturating_add(idle).saturating_sub(now.time));
        let stage = match self.stage {
            Stage::Waiting => idle,
            Stage::Counting { until, .. } => Some(until.saturating_sub(now.time)),
            Stage::PutOff { until: at, .. } => Some(until(at)),
        };
        stage.into_iter().chain(self.next.map(until)).min()
    }

    fn count(&mut self, now: ScheduleTime, due: DueReason, may_put_off: bool, runs: DomainUsage) {
        let until = now.time.saturating_add(COUNTDOWN);
        self.stage = Stage::Counting { due, until, may_put_off, since: runs.since };
    }

    /// Returns whether one of its times has come since the last look. There is one answer for all of them.
    fn time_has_come(&mut self, local: LocalTime) -> bool {
        let Some(next) = self.next else { return false };
        let slack = i64::try_from(SLACK.as_secs()).unwrap_or(DAY);
        let come = local >= next;
        let too_far =
            next.0.saturating_sub(local.0) > self.rules.longest_gap().saturating_add(slack);
        if come || too_far {
            self.next = self.rules.first_after(local);
        }
        come
    }

    fn is_idle(&self, now: Time, runs: DomainUsage) -> bool {
        let used = self.rules.when_idle.zip(runs.used_since());
        used.is_some_and(|(idle, used)| now.saturating_sub(used) >= idle)
    }

    /// Drops what is void: a domain that began anew otherwise has nothing to be thrown away, and one in which somebody works again is not idle.
    fn drop_what_is_void(&mut self, runs: DomainUsage) {
        let void = match self.stage {
            Stage::Waiting => false,
            Stage::Counting { due, until, since, .. } => {
                let began = until.saturating_sub(COUNTDOWN);
                runs.since != since
                    || due == DueReason::Idle && runs.used.is_some_and(|used| used > began)
            }
            Stage::PutOff { due, at, since, .. } => {
                runs.since != since
                    || due == DueReason::Idle && runs.used.is_some_and(|used| used > at)
            }
        };
        if void {
            self.stage = Stage::Waiting;
        }
    }
}

#[cfg(test)]
mod tests;
