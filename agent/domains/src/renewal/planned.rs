//! The renewals of all domains: which begin by themselves, what the person at the seat is asked and told of them, and which are under way. A pure
//! state machine: facts and clocks go in, what is to be done comes out.
//!
//! ```text
//!  clocks, domains, seat --> a Schedule for each domain --> Begin
//!                                  |   ^
//!   Ask, Reword, Tell, banner note-+   +-- put off
//! ```
//! The question is the agent's own, and nothing waits for it: the countdown goes on while the screen is locked, while another question is open, and
//! when nobody answers. It is shown for a part of the countdown, as the seat shows no question for a minute, and once more before the end.
//!
//! A question takes the keyboard from the desktop in front, so only who has this desktop in front and can put it off is asked, and nothing that
//! can be chosen throws anything away. Everybody else is told: who works in another desktop, who has put it off before, and who comes back to a desktop that
//! stood idle, where working is the answer.

use std::collections::BTreeMap;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{Outcome, RenewalBegan, RenewalEnded, RenewalPutOff, cut};

use super::schedule::{
    self, Countdown, DomainUsage, DueReason, LocalTime, PUT_OFF, Rules, Schedule, ScheduleTime,
};
use crate::lifecycle::{State, Time};

/// The question comes back for the last part of the countdown, for who left it or did something else.
const ONCE_MORE: Duration = Duration::from_secs(20);
/// What is left of a countdown in which nobody could read a question any more.
const TOO_LATE: Duration = Duration::from_secs(3);
/// Who brought about what the policy says.
const THE_POLICY: &str = "the policy";
/// Who did what was chosen on the screen.
const THE_SEAT: &str = "the seat";

/// Why a domain is renewed, and who brought it about.
#[derive(Clone, Debug)]
pub enum RenewalReason {
    /// Somebody asked for it over the control socket.
    Command {
        by: String,
        /// The number of the entry that says so.
        request: Option<u64>,
    },
    /// The policy says so.
    Due(DueReason),
}

impl RenewalReason {
    /// Returns it as the log has it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Due(due) => word(*due),
        }
    }

    /// Returns who brought it about.
    #[must_use]
    pub fn by(&self) -> String {
        match self {
            Self::Command { by, .. } => cut(by),
            Self::Due(_) => THE_POLICY.to_owned(),
        }
    }

    fn request(&self) -> Option<u64> {
        match self {
            Self::Command { request, .. } => *request,
            Self::Due(_) => None,
        }
    }

    /// Returns the event that the renewal of a domain begins.
    #[must_use]
    pub fn began(&self, domain: &str) -> AuditEvent {
        let (by, request, why) = (self.by(), self.request(), self.word().to_owned());
        RenewalBegan { domain: domain.to_owned(), by, request, why }.into()
    }
}

fn word(due: DueReason) -> &'static str {
    match due {
        DueReason::Time => "time",
        DueReason::Idle => "idle",
    }
}

/// The facts about a domain on which its renewal depends.
#[derive(Clone, Debug)]
pub struct DomainFacts {
    pub name: String,
    pub label: String,
    /// When the policy has it begin anew by itself, if it ever does.
    pub rules: Option<Rules>,
    pub state: State,
    /// What went wrong with it.
    pub problem: Option<String>,
    /// Since when it runs, as a guest that answered.
    pub runs_since: Option<Time>,
    /// When input last went to it, since this agent started.
    pub used: Option<Time>,
    /// How long its VMM has been there, whichever agent started it.
    pub vmm_age: Option<Duration>,
}

/// The facts about the seat on which a question depends.
#[derive(Clone, Debug)]
pub struct SeatFacts {
    /// Whether somebody may be there who can be asked, and nobody asks them anything.
    pub can_ask: bool,
    /// The domain in front.
    pub front: String,
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Begin to renew this domain.
    Begin(String, DueReason),
    /// Ask whether to put it off, which is the one choice. [`Renewals::not_asked`] if that cannot be.
    Ask { text: String, choices: Vec<String> },
    /// Say the question that stands in these words.
    Reword(String),
    /// Take the question off the screen.
    Withdraw,
    /// Tell whoever is at the seat, on account of this source.
    Tell { source: String, text: String },
}

/// What the answer to a question leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postponement {
    pub event: AuditEvent,
    /// What whoever answered is told.
    pub words: String,
}

/// A renewal that is under way.
#[derive(Debug)]
struct RenewalInProgress {
    since: Time,
    why: RenewalReason,
}

impl RenewalInProgress {
    fn ended(
        &self,
        domain: &str,
        outcome: Outcome,
        problem: Option<String>,
        now: Time,
    ) -> AuditEvent {
        RenewalEnded {
            domain: domain.to_owned(),
            outcome,
            problem,
            request: self.why.request(),
            seconds: now.saturating_sub(self.since).as_secs(),
            why: self.why.word().to_owned(),
        }
        .into()
    }
}

/// A domain that the policy has begin anew by itself.
#[derive(Debug)]
struct PlannedRenewal {
    label: String,
    schedule: Schedule,
    runs: Option<DomainUsage>,
    /// How often its question was asked in this countdown.
    asked: u8,
}

/// The question that stands at the seat.
#[derive(Debug)]
struct StandingQuestion {
    domain: String,
    text: String,
}

/// The renewals that are to come, and those that are under way.
#[derive(Debug, Default)]
pub struct Renewals {
    planned: BTreeMap<String, PlannedRenewal>,
    /// Domains that an earlier agent started, and since when this one has them: what was done there before is not known.
    taken_up: BTreeMap<String, Time>,
    asked: Option<StandingQuestion>,
    under_way: BTreeMap<String, RenewalInProgress>,
    /// When the schedules were last looked at, if there are any.
    looked: Option<ScheduleTime>,
    /// Whether the schedules ever were looked at.
    has_looked: bool,
}

impl Renewals {
    /// Takes note of the domains that run since an earlier agent. They may have been used.
    pub fn taken_up(&mut self, domains: &[DomainFacts]) {
        let running = domains.iter().filter_map(|domain| match domain.state {
            State::Running { from, .. } => Some((domain.name.clone(), from)),
            _ => None,
        });
        self.taken_up = running.collect();
    }

    /// Looks at clocks, domains and seat; returns what is to begin, and what the person at the seat is to know of those that are next.
    pub fn look(
        &mut self,
        now: ScheduleTime,
        domains: &[DomainFacts],
        seat: &SeatFacts,
    ) -> Vec<Effect> {
        let mut effects = self.look_at_schedules(now, domains);
        effects.extend(self.ask(seat));
        effects
    }

    fn look_at_schedules(&mut self, now: ScheduleTime, domains: &[DomainFacts]) -> Vec<Effect> {
        let first = !std::mem::replace(&mut self.has_looked, true);
        let facts: Vec<(&DomainFacts, &Rules)> =
            domains.iter().filter_map(|domain| Some((domain, domain.rules.as_ref()?))).collect();
        self.planned.retain(|name, _| facts.iter().any(|(domain, _)| domain.name == *name));
        self.looked = (!facts.is_empty()).then_some(now);
        let mut due = Vec::new();
        for (domain, rules) in facts {
            let name = &domain.name;
            let taken_up = self.taken_up.get(name).copied();
            let runs = domain.runs_since.map(|since| {
                let used = domain.used.max(taken_up.filter(|from| *from == since));
                DomainUsage { since, used }
            });
            if self.planned.get(name).is_none_or(|it| it.schedule.rules() != rules) {
                // What came and went before this agent counts for what an earlier one started.
                let age = domain.vmm_age.filter(|_| first && taken_up.is_some());
                let since = now.local.minus(age.unwrap_or_default());
                let schedule = Schedule::new(rules.clone(), since);
                let planned =
                    PlannedRenewal { label: domain.label.clone(), schedule, runs, asked: 0 };
                self.planned.insert(name.clone(), planned);
            }
            let Some(planned) = self.planned.get_mut(name) else { continue };
            planned.label.clone_from(&domain.label);
            planned.runs = runs;
            if let Some(schedule::Output::Begin(why)) = planned.schedule.look(now, runs) {
                due.push(Effect::Begin(name.clone(), why));
            }
            if planned.schedule.countdown(now.time).is_none() {
                planned.asked = 0;
            }
        }
        due
    }

    /// Asks about the renewal that is next, says how much time is left, and takes back what there is nothing to ask about any more.
    fn ask(&mut self, seat: &SeatFacts) -> Option<Effect> {
        let Some(now) = self.looked else { return self.forget_question() };
        let of = |planned: &PlannedRenewal| planned.schedule.countdown(now.time);
        if let Some(asked) = &mut self.asked {
            let planned = self.planned.get(&asked.domain);
            let Some((planned, counts)) = planned.and_then(|it| Some((it, of(it)?))) else {
                return self.forget_question();
            };
            let text = question(&planned.label, counts);
            if asked.text == text {
                return None;
            }
            asked.text.clone_from(&text);
            return Some(Effect::Reword(text));
        }
        let counting = self.planned.iter_mut().filter_map(|(name, it)| Some((of(it)?, name, it)));
        let to_ask = counting.filter(|(counts, _, planned)| {
            let again = planned.asked == 1 && counts.left <= ONCE_MORE;
            counts.left > TOO_LATE && (planned.asked == 0 || again)
        });
        let (counts, name, planned) = to_ask.min_by_key(|(counts, ..)| counts.left)?;
        // Another question goes its own way, and this one waits for its end; the countdown does not.
        if !seat.can_ask {
            return None;
        }
        planned.asked += 1;
        let text = question(&planned.label, counts);
        if !counts.may_put_off || counts.due == DueReason::Idle || seat.front != *name {
            return Some(Effect::Tell { source: format!("renewal of {name}"), text });
        }
        self.asked = Some(StandingQuestion { domain: name.clone(), text: text.clone() });
        let put_off = format!("In {} minutes (once)", PUT_OFF.as_secs() / 60);
        Some(Effect::Ask { text, choices: vec![put_off] })
    }

    /// Takes back what is being asked. It is asked anew if there is still something to ask.
    pub fn forget_question(&mut self) -> Option<Effect> {
        self.asked.is_some().then(|| {
            self.not_asked();
            Effect::Withdraw
        })
    }

    /// Takes note that the question could not be asked. It is tried again.
    pub fn not_asked(&mut self) {
        if let Some(asked) = self.asked.take()
            && let Some(planned) = self.planned.get_mut(&asked.domain)
        {
            planned.asked = planned.asked.saturating_sub(1);
        }
    }

    /// Takes the choice at the seat of this place, or that none was made, after which the countdown goes on.
    pub fn answered(&mut self, chosen: Option<usize>) -> Option<Postponement> {
        let asked = self.asked.take()?;
        // There is one thing to choose.
        let (Some(0), Some(now)) = (chosen, self.looked) else { return None };
        let planned = self.planned.get_mut(&asked.domain)?;
        let (due, until) = planned.schedule.put_off(now)?;
        let words = format!("{} begins anew at {}", planned.label, until.time_of_day());
        let put_off = RenewalPutOff {
            domain: asked.domain,
            by: THE_SEAT.to_owned(),
            seconds: PUT_OFF.as_secs(),
            why: word(due).to_owned(),
        };
        Some(Postponement { event: put_off.into(), words })
    }

    /// Returns in what time it has to be looked at again; `None` if nothing is planned.
    #[must_use]
    pub fn wait(&self, local: LocalTime) -> Option<Duration> {
        let now = ScheduleTime { local, ..self.looked? };
        let one = |planned: &PlannedRenewal| {
            // What is left is said by the second.
            let counts = planned.schedule.countdown(now.time).map(|counts| {
                let part = Duration::from_nanos(counts.left.subsec_nanos().into());
                if part.is_zero() { Duration::from_secs(1) } else { part }
            });
            planned.schedule.wait(now, planned.runs).into_iter().chain(counts).min()
        };
        self.planned.values().filter_map(one).min()
    }

    /// Returns what the banner says of those that are counted down to.
    #[must_use]
    pub fn banner_notes(&self) -> Vec<String> {
        let Some(now) = self.looked else { return Vec::new() };
        let counting = self.planned.values().filter_map(|planned| {
            let left = seconds(planned.schedule.countdown(now.time)?);
            Some(format!("{} begins anew in {left} s", planned.label))
        });
        counting.collect()
    }

    /// Returns whether a renewal of this domain may begin, as far as those that are under way go.
    ///
    /// # Errors
    /// One is under way.
    pub fn may_begin(&self, domain: &str) -> Result<(), String> {
        match self.under_way.contains_key(domain) {
            true => Err(format!(
                "{domain} is being renewed already; `bulkhead status` says how far it is"
            )),
            false => Ok(()),
        }
    }

    /// Takes note that a renewal has begun.
    pub fn began(&mut self, domain: &str, why: RenewalReason, now: Time) {
        self.under_way.insert(domain.to_owned(), RenewalInProgress { since: now, why });
    }

    /// Returns an event for each renewal that has ended: its domain runs again, or is off.
    pub fn ended(&mut self, domains: &[DomainFacts], now: Time) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for domain in domains.iter().filter(|domain| domain.state.is_settled()) {
            let Some(renewal) = self.under_way.remove(&domain.name) else { continue };
            let off = domain.state == State::Off;
            let problem =
                || domain.problem.as_deref().map_or_else(|| "it was stopped".to_owned(), cut);
            let outcome = if off { Outcome::NotDone } else { Outcome::Done };
            events.push(renewal.ended(&domain.name, outcome, off.then(problem), now));
        }
        events
    }

    /// Takes note that the PC slept until now: whoever finds it has the whole of a countdown.
    pub fn slept(&mut self, now: Time) {
        self.planned.values_mut().for_each(|planned| planned.schedule.count_anew(now));
    }

    /// Takes note that the agent stops: nothing begins any more, and nothing is waited for.
    pub fn stop(&mut self) -> Option<Effect> {
        self.looked = None;
        self.forget_question()
    }

    /// Returns an event for each that is under way when the agent ends. One that follows it, if its guests run on, brings it to its end.
    pub fn end(&mut self, now: Time) -> Vec<AuditEvent> {
        let left = std::mem::take(&mut self.under_way);
        let ended = "the agent ended before it did";
        let event = |(name, one): (&String, &RenewalInProgress)| {
            one.ended(name, Outcome::Begun, Some(ended.to_owned()), now)
        };
        left.iter().map(event).collect()
    }
}

/// Returns the text of the question.
fn question(label: &str, counts: Countdown) -> String {
    let why = match counts.due {
        DueReason::Time => "",
        DueReason::Idle => ", as nobody has worked there for long",
    };
    let left = seconds(counts);
    format!(
        "{label} begins anew in {left} s{why}.\nWhat is stored there is thrown away.\nKeep elsewhere what you need."
    )
}

/// Returns what is left, as it is said: the last second is 1.
fn seconds(counts: Countdown) -> u64 {
    counts.left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
