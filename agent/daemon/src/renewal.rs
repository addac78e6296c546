//! Renewals: a domain that keeps nothing is shut down, what it wrote is thrown away, and it is started again. Who brought it about, why, and how
//! it ended is on the record.
//!
//! ```text
//!  wall clock, supervisor, seat --> a Schedule for each domain --> begin
//!                                         |   ^
//!                      question, banner <-+   +-- put off
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
use clock::Moment;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use monitor::{Answer, MediatorId, Monitor, QuestionId, RequestId};

use super::Running;
use super::seat::SeatClient;
use domains::lifecycle::{State, Time};
use domains::renewal::schedule::{COUNTDOWN, Countdown, Due, Local, Now, Output, PUT_OFF, Rules};
use domains::renewal::schedule::{Runs, Schedule};
use domains::{DomainRuntime, Supervisor};

/// What the monitor knows it by.
pub(super) const RENEWAL: MediatorId = MediatorId::new("renewal");
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
pub(super) enum Why {
    /// Somebody asked for it over the control socket.
    Command {
        by: String,
        /// The number of the entry that says so.
        request: Option<u64>,
    },
    /// The policy says so.
    Due(Due),
}

impl Why {
    /// As the log has it.
    fn word(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Due(due) => word(*due),
        }
    }

    fn by(&self) -> String {
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
}

fn word(due: Due) -> &'static str {
    match due {
        Due::Time => "time",
        Due::Idle => "idle",
    }
}

/// One that is under way.
#[derive(Debug)]
struct UnderWay {
    since: Moment,
    why: Why,
}

impl UnderWay {
    fn ended(&self, domain: &str, outcome: Outcome, problem: Option<String>) -> AuditEvent {
        RenewalEnded {
            domain: domain.to_owned(),
            outcome,
            problem,
            request: self.why.request(),
            seconds: self.since.elapsed().as_secs(),
            why: self.why.word().to_owned(),
        }
        .into()
    }
}

/// A domain that the policy has begin anew by itself.
#[derive(Debug)]
struct Planned {
    label: String,
    schedule: Schedule,
    runs: Option<Runs>,
    /// How often its question was asked in this countdown.
    asked: u8,
}

/// The question that stands at the seat.
#[derive(Debug)]
struct Asked {
    domain: String,
    id: RequestId,
    question: QuestionId,
    text: String,
}

/// The renewals that are to come, and those that are under way.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    planned: BTreeMap<String, Planned>,
    /// Domains that an earlier agent started, and since when this one has them: what was done there before is not known.
    taken_up: BTreeMap<String, Time>,
    asked: Option<Asked>,
    under_way: BTreeMap<String, UnderWay>,
    /// When it was last looked at, if there is anything to look at.
    looked: Option<Now>,
    /// Whether it ever was.
    has_looked: bool,
}

impl Renewals {
    /// These domains run since an earlier agent. They may have been used.
    pub(super) fn taken_up(&mut self, supervisor: &Supervisor) {
        let running = supervisor.domains().iter();
        self.taken_up = running
            .filter_map(|runtime| match runtime.lifecycle().state() {
                State::Running { from, .. } => Some((runtime.policy().name.clone(), from)),
                _ => None,
            })
            .collect();
    }

    /// Takes what is so now, and returns what is to begin.
    fn look(&mut self, supervisor: &Supervisor, seat: &SeatClient) -> Vec<(String, Due)> {
        let first = !std::mem::replace(&mut self.has_looked, true);
        let planned = |runtime: &&DomainRuntime| {
            let policy = runtime.policy();
            policy.discard && (!policy.renew_at.is_empty() || policy.renew_when_idle.is_some())
        };
        let runtimes: Vec<&DomainRuntime> = supervisor.domains().iter().filter(planned).collect();
        self.planned
            .retain(|name, _| runtimes.iter().any(|runtime| runtime.policy().name == *name));
        if runtimes.is_empty() {
            self.looked = None;
            return Vec::new();
        }
        let now = Now { time: supervisor.now(), local: local_time() };
        self.looked = Some(now);
        let mut due = Vec::new();
        for runtime in runtimes {
            let policy = runtime.policy();
            // The same times in another order are the same.
            let mut at = policy.renew_at.clone();
            at.sort_unstable();
            at.dedup();
            let rules = Rules { at, when_idle: policy.renew_when_idle };
            let taken_up = self.taken_up.get(&policy.name).copied();
            let runs = runtime.runs_since().map(|since| {
                let used =
                    seat.last_input(&policy.name).map(|at| now.time.saturating_sub(at.elapsed()));
                Runs { since, used: used.max(taken_up.filter(|from| *from == since)) }
            });
            let stale =
                self.planned.get(&policy.name).is_none_or(|it| *it.schedule.rules() != rules);
            if stale {
                // What came and went before this agent counts for what an earlier one started.
                let age = runtime.vmm_age().filter(|_| first && taken_up.is_some());
                let schedule = Schedule::new(rules, now.local.minus(age.unwrap_or_default()));
                let label = policy.label.clone();
                let planned = Planned { label, schedule, runs, asked: 0 };
                self.planned.insert(policy.name.clone(), planned);
            }
            let Some(planned) = self.planned.get_mut(&policy.name) else { continue };
            planned.label.clone_from(&policy.label);
            planned.runs = runs;
            if let Some(Output::Begin(why)) = planned.schedule.look(now, runs) {
                due.push((policy.name.clone(), why));
            }
            if planned.schedule.countdown(now.time).is_none() {
                planned.asked = 0;
            }
        }
        due
    }

    /// In what time it has to be looked at again; `None` if nothing is planned.
    pub(super) fn wait(&self) -> Option<Duration> {
        let before = self.looked?;
        let now = Now { local: local_time(), ..before };
        let one = |planned: &Planned| {
            // What is left is said by the second.
            let counts = planned.schedule.countdown(now.time).map(|counts| {
                let part = Duration::from_nanos(counts.left.subsec_nanos().into());
                if part.is_zero() { Duration::from_secs(1) } else { part }
            });
            planned.schedule.wait(now, planned.runs).into_iter().chain(counts).min()
        };
        self.planned.values().filter_map(one).min()
    }

    /// What the banner says of those that are counted down to.
    pub(super) fn banner_notes(&self) -> Vec<String> {
        let Some(now) = self.looked else { return Vec::new() };
        let counting = self.planned.values().filter_map(|planned| {
            let left = seconds(planned.schedule.countdown(now.time)?);
            Some(format!("{} begins anew in {left} s", planned.label))
        });
        counting.collect()
    }

    /// Asks about the renewal that is next, says how much time is left, and takes back what there is nothing to ask about any more.
    fn ask(&mut self, seat: &SeatClient, monitor: &mut Monitor) {
        let Some(now) = self.looked else { return self.forget_question(monitor) };
        let of = |planned: &Planned| planned.schedule.countdown(now.time);
        if let Some(asked) = &mut self.asked {
            let planned = self.planned.get(&asked.domain);
            let Some((planned, counts)) = planned.and_then(|it| Some((it, of(it)?))) else {
                return self.forget_question(monitor);
            };
            let text = question(&planned.label, counts);
            if asked.text != text {
                asked.text.clone_from(&text);
                seat.reword(asked.question, text);
            }
            return;
        }
        let counting = self.planned.iter_mut().filter_map(|(name, it)| Some((of(it)?, name, it)));
        let to_ask = counting.filter(|(counts, _, planned)| {
            let again = planned.asked == 1 && counts.left <= ONCE_MORE;
            counts.left > TOO_LATE && (planned.asked == 0 || again)
        });
        let Some((counts, name, planned)) = to_ask.min_by_key(|(counts, ..)| counts.left) else {
            return;
        };
        // Another question goes its own way, and this one waits for its end; the countdown does not.
        if !seat.can_ask() || monitor.is_asking() {
            return;
        }
        let text = question(&planned.label, counts);
        if !counts.may_put_off || counts.due == Due::Idle || !seat.has_in_front(name) {
            planned.asked += 1;
            return seat.notice_of(&format!("renewal of {name}"), text);
        }
        let id = monitor.own(RENEWAL);
        // Until it is taken back: it is this countdown that ends it.
        let Ok(number) = monitor.ask(id, COUNTDOWN * 2) else { return };
        planned.asked += 1;
        let put_off = format!("In {} minutes (once)", PUT_OFF.as_secs() / 60);
        seat.choose(number, text.clone(), vec![put_off]);
        self.asked = Some(Asked { domain: name.clone(), id, question: number, text });
    }

    /// What is being asked is not asked any more. It is asked anew if there is still something to ask.
    pub(super) fn forget_question(&mut self, monitor: &mut Monitor) {
        if let Some(asked) = self.asked.take() {
            monitor.withdraw(asked.id);
            if let Some(planned) = self.planned.get_mut(&asked.domain) {
                planned.asked = planned.asked.saturating_sub(1);
            }
        }
    }

    /// An event for each renewal that has ended: its domain runs again, or is off.
    pub(super) fn ended(&mut self, supervisor: &Supervisor) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for runtime in supervisor.domains() {
            let (name, lifecycle) = (&runtime.policy().name, runtime.lifecycle());
            if !lifecycle.state().is_settled() {
                continue;
            }
            let Some(renewal) = self.under_way.remove(name) else { continue };
            let off = lifecycle.state() == State::Off;
            let problem = || lifecycle.problem().map_or_else(|| "it was stopped".to_owned(), cut);
            let outcome = if off { Outcome::NotDone } else { Outcome::Done };
            events.push(renewal.ended(name, outcome, off.then(problem)));
        }
        events
    }

    /// The PC slept until now: whoever finds it has the whole of a countdown.
    pub(super) fn slept(&mut self, now: Time) {
        self.planned.values_mut().for_each(|planned| planned.schedule.count_anew(now));
    }

    /// An event for each that is under way when the agent ends. One that follows it, if its guests run on, brings it to its end.
    pub(super) fn end(&mut self) -> Vec<AuditEvent> {
        let left = std::mem::take(&mut self.under_way);
        let ended = "the agent ended before it did";
        let event = |(name, one): (&String, &UnderWay)| {
            one.ended(name, Outcome::Begun, Some(ended.to_owned()))
        };
        left.iter().map(event).collect()
    }
}

/// The text of the question.
fn question(label: &str, counts: Countdown) -> String {
    let why = match counts.due {
        Due::Time => "",
        Due::Idle => ", as nobody has worked there for long",
    };
    let left = seconds(counts);
    format!(
        "{label} begins anew in {left} s{why}.\nWhat is stored there is thrown away.\nKeep elsewhere what you need."
    )
}

/// What is left, as it is said: the last second is 1.
fn seconds(counts: Countdown) -> u64 {
    counts.left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX)
}

/// What the wall clock shows, in local time.
fn local_time() -> Local {
    let now = Timestamp::now();
    let offset = TimeZone::system().to_offset(now).seconds();
    Local(now.as_second().saturating_add(i64::from(offset)))
}

impl Running {
    /// Begins the renewals whose time has come, and has the person at the seat know of those that are next.
    pub(super) fn look_at_renewals(&mut self) {
        if self.supervisor.is_stopping() {
            // Nothing begins any more, and nothing is waited for.
            self.renewals.looked = None;
            return self.renewals.forget_question(&mut self.monitor);
        }
        for (domain, due) in self.renewals.look(&self.supervisor, &self.seat) {
            self.begin_due(&domain, due);
        }
        self.renewals.ask(&self.seat, &mut self.monitor);
    }

    fn begin_due(&mut self, domain: &str, due: Due) {
        if let Err(why) = self.begin_renewal(domain, Why::Due(due)) {
            tracing::warn!("{domain} was to begin anew: {why}");
        }
    }

    /// Somebody at the seat answered the question, or it could not be answered any more, after which the countdown goes on.
    pub(super) fn renewal_answered(&mut self, id: RequestId, answer: Answer) {
        // Nothing waits for a permit.
        self.monitor.withdraw(id);
        let Some(asked) = self.renewals.asked.take_if(|asked| asked.id == id) else { return };
        // There is one thing to choose.
        let Answer::Chosen(0) = answer else { return };
        let (Some(now), Some(planned)) =
            (self.renewals.looked, self.renewals.planned.get_mut(&asked.domain))
        else {
            return;
        };
        let Some((due, until)) = planned.schedule.put_off(now) else { return };
        let text = format!("{} begins anew at {}", planned.label, until.time_of_day());
        let put_off = RenewalPutOff {
            domain: asked.domain,
            by: THE_SEAT.to_owned(),
            seconds: PUT_OFF.as_secs(),
            why: word(due).to_owned(),
        };
        self.monitor.note(&[put_off.into()]);
        self.seat.notice(text);
    }

    /// Begins to renew a domain.
    ///
    /// # Errors
    /// Why it is not to be renewed now, and what to do instead.
    pub(super) fn begin_renewal(&mut self, domain: &str, why: Why) -> Result<(), String> {
        if self.renewals.under_way.contains_key(domain) {
            return Err(format!(
                "{domain} is being renewed already; `bulkhead status` says how far it is"
            ));
        }
        self.supervisor.may_renew(domain)?;
        let began = RenewalBegan {
            domain: domain.to_owned(),
            by: why.by(),
            request: why.request(),
            why: why.word().to_owned(),
        };
        self.monitor.note(&[began.into()]);
        self.supervisor.renew(domain)?;
        tracing::info!("{domain} is renewed: asked for by {} ({})", why.by(), why.word());
        let under_way = UnderWay { since: Moment::now(), why };
        self.renewals.under_way.insert(domain.to_owned(), under_way);
        Ok(())
    }
}
