//! The monitor's decisions: a state machine without I/O and without a clock of its own.
//!
//! ```text
//!  Ask ------> Asked --yes--> Agreed --+
//!               | no, late, withdrawn  | Authorize, if the verdict owes an answer
//!               v                      v
//!             (gone)   Authorize --> Recording --Written(OnDisk)--> Permit
//!                          |             |
//!                          +--- Deny <---+ not written, other rules, mediator died
//!
//!  other policy, break-glass over, log lost --> Revoke to every mediator that runs
//! ```
//! What is promised, in every order of inputs (`core/tests.rs`, `core/tests/every_state.rs`):
//! - A permit comes only for a request whose entry is on the disk, whose mediator runs, whose rules are in force at that moment, and for
//!   which everything was done that its verdict owes. It comes at most once for each time the request was made.
//! - An answer goes to the mediator that asked, and counts for that request alone, once, and under the policy under which it was asked.
//! - Whatever ends rules or record, each mediator that runs is told at once to take back what it has permits for.
//! - What is kept of a mediator's requests is bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use policy::decide::Decision;

use crate::authorize::{Basis, Denial, MediatorId, Owed, RequestId};

/// Time since a moment of the caller's choice, never backwards.
pub type Time = Duration;

/// Requests of one mediator that are kept: more than a person can be asked about at once.
pub const REQUESTS_MAX: usize = 64;
/// How long an agreement waits for its mediator to ask for the permit: more than a busy thread needs.
pub const AGREED_FOR: Time = Time::from_secs(10);

/// Which rules count: a policy, and whether break-glass is open with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InForce {
    /// The serial of the policy.
    pub policy: u64,
    /// Until when break-glass is open, if it is. What is permitted by it ends when it is said to be open no more; nothing is after this time.
    pub break_glass: Option<Time>,
}

impl InForce {
    /// Returns whether a verdict that was reached on this basis still counts at this time.
    #[must_use]
    pub fn holds(&self, basis: Basis, now: Time) -> bool {
        let open = self.break_glass.is_some_and(|until| now < until);
        self.policy == basis.policy && (open || !basis.break_glass)
    }
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EntryOutcome {
    /// It is on the disk.
    OnDisk,
    /// It is not, and neither is what was written before it certain to be the last: the log has failed.
    Lost,
    /// It was not written, as nothing may cross now for another reason; the log is kept.
    Withheld,
}

/// An event that the monitor decides on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A mediator wants a person asked; no answer until then is no.
    Ask(RequestId, Time),
    /// The person said yes or no to the question of this request.
    Answer(RequestId, bool),
    /// The mediator does not want an answer any more.
    Withdraw(RequestId),
    /// A mediator wants a permit; whether its effect cannot write.
    Authorize(RequestId, Basis, Owed, bool),
    /// What became of the entry of a request.
    Written(RequestId, EntryOutcome),
    /// These rules count from now on.
    InForce(InForce),
    /// Whether the audit log is kept, as was found without a request.
    LogKept(bool),
    /// A mediator's thread runs.
    Started(MediatorId),
    /// A mediator's thread has died, and with it what it had.
    Died(MediatorId),
    /// Time passes, and nothing else.
    Tick,
}

/// Why what was permitted is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Another policy is in force, and break-glass may be over: what the rules would not allow now ends.
    Policy,
    /// Break-glass is over, under the same policy: what it alone allowed ends.
    BreakGlass,
    /// Nothing can be recorded: everything ends that a mediator has a permit for. The policy stays in force, as there is no other.
    Record,
}

/// What the caller is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Show the question of this request at the seat.
    Show(RequestId),
    /// Take it off the screen: nobody waits for its answer.
    Hide(RequestId),
    /// Tell the mediator what was answered.
    Answered(RequestId, bool),
    /// Write the entry of this request, and say what became of it: [`Input::Written`].
    Record(RequestId),
    /// Give the mediator the permit of this request: its entry is on the disk.
    Permit(RequestId),
    /// Tell the mediator that there is none. A question that cannot be asked is denied, too.
    Deny(RequestId, Denial),
    /// Tell this mediator to end what was permitted.
    Revoke(MediatorId, Cause),
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    Asked { until: Time },
    Agreed { until: Time },
    Recording(Basis),
}

/// The decisions of the monitor, as a pure state machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    in_force: InForce,
    kept: bool,
    /// The mediators there are, and whether each runs.
    mediators: BTreeMap<MediatorId, bool>,
    requests: BTreeMap<RequestId, Stage>,
}

impl Core {
    /// Makes a monitor for mediators none of which runs yet.
    #[must_use]
    pub fn new(in_force: InForce, mediators: &[MediatorId]) -> Self {
        Self {
            in_force,
            kept: true,
            mediators: mediators.iter().map(|mediator| (*mediator, false)).collect(),
            requests: BTreeMap::new(),
        }
    }

    /// Returns which rules count.
    #[must_use]
    pub const fn in_force(&self) -> InForce {
        self.in_force
    }

    /// Takes what happens, and returns what is to be done, in this order.
    pub fn step(&mut self, now: Time, input: Input) -> Vec<Output> {
        let mut out = self.time_out(now);
        match input {
            Input::Ask(id, until) => out.push(self.ask(id, until)),
            Input::Answer(id, yes) => out.extend(self.answer(now, id, yes)),
            Input::Withdraw(id) => out.extend(self.withdraw(id)),
            Input::Authorize(id, basis, owed, read_only) => {
                out.push(match self.authorize(now, id, basis, (owed, read_only)) {
                    Ok(()) => Output::Record(id),
                    Err(denial) => Output::Deny(id, denial),
                });
            }
            Input::Written(id, written) => self.written(now, id, written, &mut out),
            Input::InForce(in_force) => self.change_policy(in_force, &mut out),
            Input::LogKept(kept) => self.keep(kept, &mut out),
            Input::Started(mediator) => {
                if let Some(runs) = self.mediators.get_mut(&mediator) {
                    *runs = true;
                }
            }
            Input::Died(mediator) => {
                if let Some(runs) = self.mediators.get_mut(&mediator) {
                    *runs = false;
                }
                self.drop_requests(&mut out, |id, _| id.mediator == mediator);
            }
            Input::Tick => {}
        }
        out
    }

    /// Returns when [`Input::Tick`] is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let due = |stage: &Stage| match stage {
            Stage::Asked { until } | Stage::Agreed { until } => Some(*until),
            Stage::Recording(_) => None,
        };
        self.requests.values().filter_map(due).min()
    }

    /// Answers with no what was not answered in time, and forgets agreements that nobody came for.
    fn time_out(&mut self, now: Time) -> Vec<Output> {
        let mut out = Vec::new();
        self.requests.retain(|id, stage| match stage {
            Stage::Asked { until } if now >= *until => {
                out.extend([Output::Hide(*id), Output::Answered(*id, false)]);
                false
            }
            Stage::Agreed { until } => now < *until,
            Stage::Asked { .. } | Stage::Recording(_) => true,
        });
        out
    }

    /// Checks that a mediator may make one more request.
    fn admit(&self, id: RequestId) -> Result<(), Denial> {
        if !self.runs(id.mediator) {
            return Err(Denial::NotRunning);
        }
        if self.requests.contains_key(&id) {
            return Err(Denial::Repeated);
        }
        let of_it = self.requests.keys().filter(|other| other.mediator == id.mediator);
        if of_it.count() >= REQUESTS_MAX {
            return Err(Denial::TooMany);
        }
        Ok(())
    }

    fn runs(&self, mediator: MediatorId) -> bool {
        self.mediators.get(&mediator).copied().unwrap_or(false)
    }

    fn ask(&mut self, id: RequestId, until: Time) -> Output {
        match self.admit(id) {
            Ok(()) => {
                self.requests.insert(id, Stage::Asked { until });
                Output::Show(id)
            }
            Err(denial) => Output::Deny(id, denial),
        }
    }

    fn answer(&mut self, now: Time, id: RequestId, yes: bool) -> Option<Output> {
        let asked = |stage: &&mut Stage| matches!(stage, Stage::Asked { .. });
        let stage = self.requests.get_mut(&id).filter(asked)?;
        if yes {
            *stage = Stage::Agreed { until: now.saturating_add(AGREED_FOR) };
        } else {
            self.requests.remove(&id);
        }
        Some(Output::Answered(id, yes))
    }

    /// Withdraws a request; nothing if its entry is being written, since then it is past withdrawing and its outcome is told.
    fn withdraw(&mut self, id: RequestId) -> Option<Output> {
        match self.requests.get(&id)? {
            Stage::Asked { .. } => {
                self.requests.remove(&id);
                Some(Output::Hide(id))
            }
            Stage::Agreed { .. } => {
                self.requests.remove(&id);
                None
            }
            Stage::Recording(_) => None,
        }
    }

    /// Holds a request against all that must be so before its entry is written.
    fn authorize(
        &mut self,
        now: Time,
        id: RequestId,
        basis: Basis,
        (owed, read_only): (Owed, bool),
    ) -> Result<(), Denial> {
        let agreed = matches!(self.requests.get(&id), Some(Stage::Agreed { .. }));
        if agreed {
            // It counts for this once, whatever comes of it.
            self.requests.remove(&id);
        }
        self.admit(id)?;
        // First: what the rules of another policy owed is void, an answer to its question with it, and that they changed is why.
        if !self.in_force.holds(basis, now) {
            return Err(Denial::Stale);
        }
        if owed.decision == Some(Decision::Deny) {
            return Err(Denial::Denied);
        }
        if owed.inspection {
            return Err(Denial::Uninspected);
        }
        if owed.answer && !agreed {
            return Err(Denial::Unanswered);
        }
        if owed.read_only && !read_only {
            return Err(Denial::Writable);
        }
        self.requests.insert(id, Stage::Recording(basis));
        Ok(())
    }

    fn written(&mut self, now: Time, id: RequestId, written: EntryOutcome, out: &mut Vec<Output>) {
        let recording = self.requests.get(&id).copied();
        match written {
            EntryOutcome::OnDisk => self.keep(true, out),
            EntryOutcome::Lost => self.keep(false, out),
            EntryOutcome::Withheld => {}
        }
        let Some(Stage::Recording(basis)) = recording else { return };
        self.requests.remove(&id);
        out.push(if written != EntryOutcome::OnDisk {
            Output::Deny(id, Denial::Unrecorded)
        } else if !self.in_force.holds(basis, now) {
            Output::Deny(id, Denial::Stale)
        } else {
            Output::Permit(id)
        });
    }

    fn change_policy(&mut self, in_force: InForce, out: &mut Vec<Output>) {
        let before = std::mem::replace(&mut self.in_force, in_force);
        if before.policy != in_force.policy {
            // What was asked, or answered, was about the other policy.
            self.drop_requests(out, |_, stage| !matches!(stage, Stage::Recording(_)));
            // What break-glass alone allowed ends with the rest, if it is over, too.
            self.revoke(Cause::Policy, out);
        } else if before.break_glass.is_some() && in_force.break_glass.is_none() {
            self.revoke(Cause::BreakGlass, out);
        }
    }

    fn keep(&mut self, kept: bool, out: &mut Vec<Output>) {
        if std::mem::replace(&mut self.kept, kept) && !kept {
            self.revoke(Cause::Record, out);
        }
    }

    fn revoke(&self, cause: Cause, out: &mut Vec<Output>) {
        let running = self.mediators.iter().filter(|(_, runs)| **runs);
        out.extend(running.map(|(mediator, _)| Output::Revoke(*mediator, cause)));
    }

    fn drop_requests(&mut self, out: &mut Vec<Output>, which: impl Fn(&RequestId, &Stage) -> bool) {
        self.requests.retain(|id, stage| {
            let drops = which(id, stage);
            if drops && matches!(stage, Stage::Asked { .. }) {
                out.push(Output::Hide(*id));
            }
            !drops
        });
    }
}

#[cfg(test)]
mod tests;
