//! The monitor with its log: carries out what [`Core`] decides.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use audit::AuditEvent;
use clock::Moment;

use crate::authorize::sealed::Account;
use crate::authorize::{Basis, Denial, Grant, MediatorId, NoRule, Owed, Request, RequestId};
use crate::core::{Cause, Core, EntryOutcome, InForce, Input, Output, Time};
use crate::permit::Permit;
use recorder::Recorder;

/// A question as the seat knows it. Each has a number of its own, so that an answer that comes late answers no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QuestionId(u64);

impl QuestionId {
    /// Returns the question of this number, as the seat names it.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number by which the seat names the question.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// An answer from the seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The person at the seat agreed.
    Yes,
    /// The person did not agree, or did not answer.
    No,
    /// The person agreed, by the choice at this index.
    Chosen(usize),
}

impl Answer {
    /// Returns whether the answer agrees.
    #[must_use]
    pub fn agrees(self) -> bool {
        self != Self::No
    }

    /// Returns the place of what was chosen.
    #[must_use]
    pub const fn chosen(self) -> Option<usize> {
        match self {
            Self::Chosen(place) => Some(place),
            Self::Yes | Self::No => None,
        }
    }
}

/// What the caller has to do besides what a call returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nobody answered in time: tell the mediator that the answer is no.
    Silence(RequestId),
    /// Take this question off the screen.
    Hide(QuestionId),
    /// Tell the mediator to take back what was permitted.
    Revoke(MediatorId, Cause),
}

/// Why there is no permit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotPermitted {
    /// Why it was refused.
    pub denial: Denial,
    /// What is wrong with the log.
    problem: Option<String>,
}

impl fmt::Display for NotPermitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Some(problem) => write!(f, "{}: {problem}", self.denial),
            None => self.denial.fmt(f),
        }
    }
}

/// The reference monitor. See the crate.
pub struct Monitor {
    core: Core,
    recorder: Recorder,
    epoch: Moment,
    /// The questions that the seat shows, each with the request that it was asked for.
    questions: BTreeMap<QuestionId, RequestId>,
    last_question: u64,
    /// The last number given to a request of the agent's own, which has no mediator to number it.
    last_own: u64,
    events: Vec<Event>,
}

impl Monitor {
    /// Makes a monitor under the policy of this serial, for these mediators, which do not run yet.
    #[must_use]
    pub fn new(recorder: Recorder, policy: u64, mediators: &[MediatorId]) -> Self {
        Self {
            core: Core::new(InForce { policy, break_glass: None }, mediators),
            recorder,
            epoch: Moment::now(),
            questions: BTreeMap::new(),
            last_question: 0,
            last_own: 0,
            events: Vec::new(),
        }
    }

    /// Returns the audit log, to be looked at.
    #[must_use]
    pub const fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Admits the requests of a mediator from now on.
    pub fn started(&mut self, mediator: MediatorId) {
        self.step(Input::Started(mediator));
    }

    /// Forgets the requests of a mediator whose thread has died, and permits it nothing any more.
    pub fn died(&mut self, mediator: MediatorId) {
        self.step(Input::Died(mediator));
    }

    /// Puts rules in force: the policy of this serial, and break-glass, if it is open, until this moment. What they would not allow is
    /// revoked.
    pub fn enforce(&mut self, policy: u64, break_glass: Option<Moment>) {
        let break_glass = break_glass.map(|until| until.saturating_duration_since(self.epoch));
        self.step(Input::InForce(InForce { policy, break_glass }));
    }

    /// Decides on a request, and writes its entry to the disk. Whatever it decides, the entry is written: what the policy said of which
    /// content, and what a person answered, is so. Whoever is refused for another reason than [`Denial::Unrecorded`] writes a second one,
    /// which says that it did not happen.
    ///
    /// # Errors
    /// Why its effect must not happen.
    pub fn authorize<G: Grant>(
        &mut self,
        mediator: MediatorId,
        request: Request<G>,
    ) -> Result<Permit<G>, NotPermitted> {
        let Request { number, basis, owed, event, grant } = request;
        let id = RequestId { mediator, number };
        self.decide(id, (basis, owed.owed()), event.into(), grant).map_err(|(denial, event)| {
            if let Some(event) = event {
                self.note(&[*event]);
            }
            self.refused(denial)
        })
    }

    /// Decides, and writes the entry of what may be. What may not comes with the event that was not written.
    fn decide<G: Grant>(
        &mut self,
        id: RequestId,
        (basis, owed): (Basis, Owed),
        event: AuditEvent,
        grant: G,
    ) -> Result<Permit<G>, (Denial, Option<Box<AuditEvent>>)> {
        let decided = if owed.is_recorded_as(event.verdict()) {
            self.step(Input::Authorize(id, basis, owed, grant.is_read_only()))
        } else {
            // A yes to it counts for nothing else either.
            self.withdraw(id);
            Some(Err(Denial::OtherVerdict))
        };
        if let Some(Err(denial)) = decided {
            if denial != Denial::Stale {
                tracing::error!("{} gets no permit: {denial}", id.mediator.name());
            }
            return Err((denial, Some(Box::new(event))));
        }
        let (written, entry) = self.write(event);
        match (self.step(Input::Written(id, written)), entry) {
            (Some(Ok(())), Some(entry)) => Ok(Permit::new(grant, entry)),
            (Some(Err(denial)), _) => Err((denial, None)),
            _ => Err((Denial::Unrecorded, None)),
        }
    }

    /// Decides on an effect of the agent's own, under the rules in force. One that a person was asked about has the request of the
    /// question. Its entry says what was done, and not what was decided: it is written if it may be done, and not otherwise.
    ///
    /// # Errors
    /// Why its effect must not happen.
    pub fn authorize_own<G: Grant<Owed = NoRule>>(
        &mut self,
        mediator: MediatorId,
        agreed: Option<RequestId>,
        event: G::Event,
        grant: G,
    ) -> Result<Permit<G>, NotPermitted> {
        let number = agreed.map_or_else(|| self.own(mediator).number, |id| id.number);
        let id = RequestId { mediator, number };
        let basis = Basis { policy: self.core.in_force().policy, break_glass: false };
        let owed = Owed { answer: agreed.is_some(), ..Owed::nothing() };
        let decided = self.decide(id, (basis, owed), event.into(), grant);
        decided.map_err(|(denial, _)| self.refused(denial))
    }

    /// Returns a request with a number that no other of the agent's own has.
    pub fn own(&mut self, mediator: MediatorId) -> RequestId {
        self.last_own += 1;
        RequestId { mediator, number: self.last_own }
    }

    /// Asks the person at the seat. No answer within this time is a no.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn ask(&mut self, id: RequestId, within: Duration) -> Result<QuestionId, Denial> {
        let until = self.now().saturating_add(within);
        if let Some(Err(denial)) = self.step(Input::Ask(id, until)) {
            return Err(denial);
        }
        self.last_question += 1;
        let question = QuestionId(self.last_question);
        self.questions.insert(question, id);
        Ok(question)
    }

    /// Returns whether a person is being asked something.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        !self.questions.is_empty()
    }

    /// Takes the answer to a question, and returns the request that it is for, if that still waits for it.
    pub fn answer(&mut self, question: QuestionId, yes: bool) -> Option<RequestId> {
        let id = self.questions.remove(&question)?;
        self.step(Input::Answer(id, yes)).map(|_| id)
    }

    /// Withdraws a request that asked a person: nobody waits for the answer any more.
    pub fn withdraw(&mut self, id: RequestId) {
        self.step(Input::Withdraw(id));
    }

    /// Records what happens whether or not it is recorded, and returns the number of the first of the entries, if they are on the disk.
    pub fn note(&mut self, events: &[AuditEvent]) -> Option<u64> {
        let number = self.recorder.note(events);
        self.look();
        number
    }

    /// Lets nothing cross for another reason than the log, or no longer, and returns whether that is news.
    pub fn withhold(&mut self, why: Option<String>) -> bool {
        self.recorder.withhold(why)
    }

    /// Looks after the log and after what has had its time.
    pub fn poll(&mut self) {
        self.recorder.poll();
        self.look();
    }

    /// Returns in what time [`Self::poll`] has something to do, or [`Self::events`] something to return.
    #[must_use]
    pub fn wait(&self) -> Option<Duration> {
        if !self.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let now = self.now();
        let due = self.core.deadline().map(|until| until.saturating_sub(now));
        self.recorder.wait().into_iter().chain(due).min()
    }

    /// Returns the outcomes of decisions since the last call, in order.
    pub fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Ends the log with a checkpoint.
    pub fn close(self) {
        self.recorder.close();
    }

    fn now(&self) -> Time {
        self.epoch.elapsed()
    }

    fn look(&mut self) {
        self.step(Input::LogKept(self.recorder.is_kept()));
    }

    fn write(&mut self, event: AuditEvent) -> (EntryOutcome, Option<u64>) {
        match self.recorder.record(&[event]) {
            Ok(entry) => (EntryOutcome::OnDisk, Some(entry)),
            Err(_) if self.recorder.is_withheld() => (EntryOutcome::Withheld, None),
            Err(_) => (EntryOutcome::Lost, None),
        }
    }

    fn refused(&self, denial: Denial) -> NotPermitted {
        let problem = self.recorder.problem().filter(|_| denial == Denial::Unrecorded);
        NotPermitted { denial, problem: problem.map(str::to_owned) }
    }

    /// Gives the core an input: returns its decision on a request, and puts everything else where [`Self::events`] takes it.
    fn step(&mut self, input: Input) -> Option<Result<(), Denial>> {
        let mut decided = None;
        for output in self.core.step(self.now(), input) {
            match output {
                Output::Show(_) | Output::Record(_) | Output::Permit(_) => decided = Some(Ok(())),
                Output::Deny(_, denial) => decided = Some(Err(denial)),
                // A yes that comes too late is answered with no, as silence is.
                Output::Answered(id, yes) if input == Input::Answer(id, yes) => {
                    decided = Some(Ok(()));
                }
                Output::Answered(id, _) => self.events.push(Event::Silence(id)),
                Output::Hide(id) => {
                    let found = self.questions.iter().find(|(_, of)| **of == id);
                    if let Some(question) = found.map(|(question, _)| *question) {
                        self.questions.remove(&question);
                        self.events.push(Event::Hide(question));
                    }
                }
                Output::Revoke(mediator, cause) => {
                    self.events.push(Event::Revoke(mediator, cause));
                }
            }
        }
        decided
    }
}

#[cfg(test)]
mod tests;
