//! Break-glass: for a limited time, and on the record, rules count that otherwise do not.
//!
//! ```text
//!  time, policy, who, reason --> open  --Permit<Opening>--> open until then
//!  hotkey, answers           --> Shown (a question or words for the seat); closed by its time, by somebody, by what ends its record or its rules
//! ```
//! It opens by a permit of the monitor's, as every effect does: who and why are on the disk before anything is let through by it.

use std::fmt;
use std::time::Duration;

use audit::events::{
    BreakGlassAskedAgain, BreakGlassClosed, BreakGlassOpened, BreakGlassOpening,
    BreakGlassProlonged,
};
use clock::Moment;
use policy::Policy;

use crate::authorize::{Grant, MediatorId, NoRule, RequestId};
use crate::monitor::{Answer, Monitor, QuestionId};
use crate::permit::Permit;

/// Break-glass as the monitor knows it: it asks for permits as a mediator does.
pub const BREAK_GLASS: MediatorId = MediatorId::new("break-glass");
/// Longest reason that is taken, in characters.
const REASON_MAX: usize = 500;

/// What opening it came to, for the one who opened it.
#[derive(Debug, PartialEq, Eq)]
pub struct OpeningOutcome {
    /// How long it is open from now on.
    pub left: Duration,
    /// How long it would have been open anyway, if it was.
    pub before: Option<Duration>,
}

impl fmt::Display for OpeningOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = minutes(self.left);
        match self.before.map(|before| minutes(Duration::from_secs(before.as_secs()))) {
            None => write!(f, "break-glass is open for {left}"),
            Some(before) if before == left => {
                write!(f, "break-glass was open already, and stays open for {left} more")
            }
            Some(before) => write!(
                f,
                "break-glass was open already, for {before} more; now it is open for {left}, which is on the record"
            ),
        }
    }
}

/// What is permitted: that it is open until this moment, however long its entry takes to be written.
#[derive(Debug)]
struct OpeningGrant(Moment);

impl Grant for OpeningGrant {
    type Event = BreakGlassOpening;
    type Owed = NoRule;
}

/// A text that break-glass wants shown at the seat.
#[derive(Debug, PartialEq, Eq)]
pub enum SeatPrompt {
    /// A question that is answered yes or no, or with one of the choices, if there are any.
    Question {
        /// Which one the answer is to.
        question: QuestionId,
        /// The text of the question.
        text: String,
        /// What there is to choose from.
        choices: Vec<String>,
    },
    /// A text that asks nothing and is shown for a few seconds.
    Notice(String),
}

/// A question of its own that stands at the seat.
#[derive(Debug)]
struct StandingQuestion {
    id: RequestId,
    /// Its number at the seat.
    question: QuestionId,
    what: Question,
}

#[derive(Debug)]
enum Question {
    /// Whether to open it, with the reasons that were shown to choose from.
    Open(Vec<String>),
    /// Whether to close it.
    Close,
}

/// What somebody is told whose yes was to the question of another policy.
const CHANGED: &str = "the policy has changed since it was asked; press its keys again";

/// How long a question waits at most: longer than the seat shows it.
const ASK_FOR: Duration = Duration::from_secs(60);

/// Break-glass: whether it is open, until when, and what is asked about it at the seat.
#[derive(Debug, Default)]
pub struct BreakGlass {
    until: Option<Moment>,
    asked: Option<StandingQuestion>,
    /// What was asked when the last policy came, whose answer may be under way.
    void: Option<StandingQuestion>,
}

impl BreakGlass {
    /// Returns whether it is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.until.is_some()
    }

    /// Returns until when it is open.
    #[must_use]
    pub fn until(&self) -> Option<Moment> {
        self.until
    }

    /// Returns how long it stays open from now on.
    #[must_use]
    pub fn left(&self, now: Moment) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now))
    }

    /// Returns what the banner says while it is open.
    #[must_use]
    pub fn banner_note(&self, now: Moment) -> Option<String> {
        let minutes = self.left(now)?.as_secs().div_ceil(60);
        Some(format!("BREAK-GLASS is open for {minutes} min; all of it is recorded"))
    }

    /// Opens it; `who` and `reason` go on the record first. If it is open it stays open as long at least, which is said and recorded as such:
    /// it is closed by nothing but [`Self::close`], its time, another policy, a sleep of the PC, and the loss of the record that says that it was opened.
    ///
    /// # Errors
    /// Why it stays as it is, and what to do instead.
    pub fn open(
        &mut self,
        policy: &Policy,
        monitor: &mut Monitor,
        who: Opener<'_>,
        reason: Option<&str>,
        wanted: Option<Duration>,
        now: Moment,
    ) -> Result<OpeningOutcome, String> {
        let Some(rules) = policy.break_glass() else {
            return Err(format!("the policy provides no break-glass; ask the {}", policy.issuer()));
        };
        let reason = reason.map(str::trim).filter(|reason| !reason.is_empty());
        if rules.reason_required && reason.is_none() {
            return Err(
                "the policy wants a reason: bulkhead break-glass --reason \"...\"".to_owned()
            );
        }
        let most = rules.max_duration;
        let time = match wanted {
            Some(wanted) if wanted > most => {
                return Err(format!(
                    "the policy allows {} at most; ask for less with --for",
                    minutes(most)
                ));
            }
            Some(wanted) => wanted,
            None => most,
        };
        let reason = printable::line(reason.unwrap_or_default()).up_to(REASON_MAX).to_string();
        let before = self.left(now);
        let left = before.unwrap_or_default().max(time);
        let (policy, by, seconds) = (policy.serial(), who.name.to_owned(), left.as_secs());
        let event = match before.map(|before| before.as_secs()) {
            None => BreakGlassOpening::Opened(BreakGlassOpened { policy, by, reason, seconds }),
            Some(seconds_before) if Some(time) > before => {
                let event = BreakGlassProlonged { policy, by, reason, seconds, seconds_before };
                BreakGlassOpening::Prolonged(event)
            }
            // It stays open as long as it was.
            Some(_) => {
                let seconds_asked = time.as_secs();
                let event = BreakGlassAskedAgain { policy, by, reason, seconds, seconds_asked };
                BreakGlassOpening::AskedAgain(event)
            }
        };
        let permit = monitor
            .authorize_own(BREAK_GLASS, who.agreed, event, OpeningGrant(now + left))
            .map_err(|refused| format!("it stays as it is: {refused}"))?;
        self.extend(permit);
        let opened = OpeningOutcome { left, before };
        tracing::warn!("{opened}: by {}", who.name);
        Ok(opened)
    }

    fn extend(&mut self, permit: Permit<OpeningGrant>) {
        let OpeningGrant(until) = permit.into_grant();
        self.until = Some(until);
    }

    /// Closes it, and returns whether it was open.
    pub fn close(&mut self, monitor: &mut Monitor, why: &str) -> bool {
        let open = self.until.take().is_some();
        if open {
            tracing::warn!("break-glass is closed: {why}");
            monitor.note(&[BreakGlassClosed { why: why.to_owned() }.into()]);
        }
        open
    }

    /// Closes it, if it is open, as the audit log has failed and may have lost that it was opened: what a permit allowed ends when its record
    /// is gone. Nothing crosses by it until there is a log again in any case, and then it can be opened anew. Returns words for whoever is at the
    /// seat, if it was open.
    pub fn record_lost(&mut self, monitor: &mut Monitor) -> Option<String> {
        self.close(monitor, "the audit log cannot be written").then(|| {
            "Break-glass is closed:\nthe audit log cannot be written.\nCall IT.".to_owned()
        })
    }

    /// Closes it when its time is over; returns whether it did.
    pub fn expire(&mut self, monitor: &mut Monitor, now: Moment) -> bool {
        let over = self.until.is_some_and(|until| now >= until);
        over && self.close(monitor, "its time is over")
    }

    /// Handles the answer at the seat to a question of its own; returns words for whoever answered, and none if the answer was no.
    ///
    /// What it says of an answer to a question that is not the one that stands is that it was about other rules.
    pub fn answered(
        &mut self,
        policy: &Policy,
        monitor: &mut Monitor,
        (id, answer): (RequestId, Answer),
        now: Moment,
    ) -> Option<String> {
        let asked = self.asked.take_if(|asked| asked.id == id);
        if !answer.agrees() {
            return None;
        }
        let Some(asked) = asked else {
            monitor.withdraw(id);
            return Some(stays_closed(CHANGED));
        };
        Some(match asked.what {
            Question::Close => {
                monitor.withdraw(id);
                self.close(monitor, "by somebody at the seat");
                "Break-glass is closed.".to_owned()
            }
            Question::Open(shown) => {
                match self.agreed(policy, monitor, id, (&shown, answer), now) {
                    Ok(_) => "Break-glass is open.".to_owned(),
                    Err(why) => stays_closed(&why),
                }
            }
        })
    }

    /// Handles the answer to a question that was asked under another policy; returns words for whoever answered, and none if the answer was
    /// no.
    pub fn answered_late(&mut self, question: QuestionId, answer: Answer) -> Option<String> {
        let asked = self.void.take_if(|asked| asked.question == question)?;
        answer.agrees().then(|| match asked.what {
            Question::Open(_) => stays_closed(CHANGED),
            Question::Close => "Break-glass is closed.".to_owned(),
        })
    }

    /// Opens it after a yes at the seat, or the choice of one of the reasons that were shown.
    fn agreed(
        &mut self,
        policy: &Policy,
        monitor: &mut Monitor,
        id: RequestId,
        (shown, answer): (&[String], Answer),
        now: Moment,
    ) -> Result<OpeningOutcome, String> {
        let reason = answer.chosen().and_then(|chosen| shown.get(chosen));
        if reason.is_none() && !shown.is_empty() {
            monitor.withdraw(id);
            return Err("no reason was chosen; press its keys again".to_owned());
        }
        let who = Opener { name: "the seat", agreed: Some(id) };
        self.open(policy, monitor, who, reason.map(String::as_str), None, now)
    }

    /// Withdraws the question that was asked under another policy: it named that policy's time and reasons.
    pub fn forget_question(&mut self, monitor: &mut Monitor) {
        if let Some(asked) = self.asked.take() {
            monitor.withdraw(asked.id);
            self.void = Some(asked);
        }
    }

    /// Handles its hotkey: asks whether to open or close it, or says why that cannot be asked.
    #[must_use]
    pub fn hotkey(&mut self, policy: &Policy, monitor: &mut Monitor) -> SeatPrompt {
        let words = match policy.break_glass() {
            _ if self.is_open() => {
                let text = "Close break-glass now?".to_owned();
                return self.ask(monitor, text, Question::Close);
            }
            None => format!("The policy provides no break-glass.\nQuestions: {}", policy.issuer()),
            Some(rules) if !rules.opens_at_the_seat() => {
                "Break-glass needs a reason in words.\nAsk IT for: bulkhead break-glass --reason"
                    .to_owned()
            }
            Some(rules) => {
                let reasons: Vec<String> =
                    rules.reasons.iter().map(|reason| reason.value.clone()).collect();
                let why = if reasons.is_empty() { "" } else { " Why?" };
                let text = format!(
                    "Open break-glass for {}?{why}\nWhat is allowed only by it will be recorded as such.",
                    minutes(rules.max_duration)
                );
                return self.ask(monitor, text, Question::Open(reasons));
            }
        };
        SeatPrompt::Notice(words)
    }

    /// Asks at the seat, instead of what was asked there before.
    fn ask(&mut self, monitor: &mut Monitor, text: String, what: Question) -> SeatPrompt {
        if let Some(before) = self.asked.take() {
            monitor.withdraw(before.id);
        }
        let id = monitor.own(BREAK_GLASS);
        match monitor.ask(id, ASK_FOR) {
            Ok(question) => {
                let choices = match &what {
                    Question::Open(reasons) => reasons.clone(),
                    Question::Close => Vec::new(),
                };
                self.asked = Some(StandingQuestion { id, question, what });
                SeatPrompt::Question { question, text, choices }
            }
            Err(denial) => SeatPrompt::Notice(format!("Break-glass stays as it is:\n{denial}.")),
        }
    }
}

/// The user who opens it, and the question that was agreed to.
#[derive(Clone, Copy, Debug)]
pub struct Opener<'a> {
    /// Their name in the log.
    pub name: &'a str,
    /// The question that was answered with yes, if one was asked.
    pub agreed: Option<RequestId>,
}

fn stays_closed(why: &str) -> String {
    format!("Break-glass stays closed:\n{why}.")
}

fn minutes(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds % 60 == 0 => printable::counted(seconds / 60, "minute", "minutes"),
        seconds => printable::counted(seconds, "second", "seconds"),
    }
}

#[cfg(test)]
mod tests;
