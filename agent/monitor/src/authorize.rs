//! What a mediator asks the monitor for, and why the monitor refuses.

use audit::events;
use policy::decide::{Decision, Obligation, Verdict};

/// A part of the agent that asks for permits, by its name in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediatorId(&'static str);

impl MediatorId {
    /// Makes the identity of the mediator of this name.
    #[must_use]
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// Returns the name that it has in messages and questions.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }
}

/// One request of one mediator. Requests of two mediators are never taken for each other, whatever numbers they give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The mediator that asks.
    pub mediator: MediatorId,
    /// The number that the mediator gave it.
    pub number: u64,
}

/// What a verdict owes before its effect: its decision, and of the obligations that [`Verdict::obligations`] lists those that the monitor
/// holds a request against. That its entry is on the disk is owed by each and is not listed.
///
/// It is made of a verdict alone; a request whose entry has another verdict than this gets no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owed {
    /// What the policy decided, where it was asked.
    pub(crate) decision: Option<Decision>,
    /// Content or report descriptors have still to be looked into: such a verdict permits nothing.
    pub(crate) inspection: bool,
    /// A person has to say yes first.
    pub(crate) answer: bool,
    /// The effect must not be able to write.
    pub(crate) read_only: bool,
}

impl Owed {
    /// Reads a verdict's obligations. The match has no wildcard: an obligation that the language gains does not compile until the monitor
    /// consumes it.
    #[must_use]
    pub fn of(verdict: &Verdict<'_>) -> Self {
        let decided = Self { decision: Some(verdict.decision()), ..Self::nothing() };
        verdict.obligations().fold(decided, Self::and)
    }

    /// Returns what is owed where no rule decides. The entry of such a request has no verdict.
    pub(crate) const fn nothing() -> Self {
        Self { decision: None, inspection: false, answer: false, read_only: false }
    }

    /// Returns whether a person has to say yes first.
    #[must_use]
    pub const fn needs_answer(self) -> bool {
        self.answer
    }

    /// Returns whether an entry that says this of the verdict can be one of the verdict that owes this.
    pub(crate) fn is_recorded_as(self, verdict: Option<events::Verdict>) -> bool {
        verdict.is_none() || verdict == self.decision.map(recorded)
    }

    /// Adds what one obligation owes.
    const fn and(self, obligation: Obligation<'_>) -> Self {
        match obligation {
            Obligation::Inspect(_) | Obligation::ConfirmNoKeyboard => {
                Self { inspection: true, ..self }
            }
            Obligation::Ask => Self { answer: true, ..self },
            Obligation::ReadOnly => Self { read_only: true, ..self },
            // Each permit is recorded: there is no way to one without.
            Obligation::Audit => self,
        }
    }
}

/// Returns a decision as the audit log has it.
#[must_use]
pub const fn recorded(decision: Decision) -> events::Verdict {
    match decision {
        Decision::Allow => events::Verdict::Allow,
        Decision::Ask => events::Verdict::Ask,
        Decision::Deny => events::Verdict::Deny,
        Decision::ReadOnly => events::Verdict::ReadOnly,
    }
}

/// The rules under which a verdict was reached. Once others are in force, it permits nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Basis {
    /// The serial of the policy.
    pub policy: u64,
    /// Whether it needs break-glass to be open.
    pub break_glass: bool,
}

/// What is owed where no rule of the policy decides: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRule;

/// What a grant owes: [`Owed`], by the policy's verdict on it, or [`NoRule`]. There is nothing else.
pub trait Account: sealed::Account {}

impl Account for Owed {}
impl Account for NoRule {}

pub(crate) mod sealed {
    use super::{NoRule, Owed};

    /// What the monitor alone reads of an account.
    pub trait Account {
        /// Returns what is owed.
        fn owed(self) -> Owed;
    }

    impl Account for Owed {
        fn owed(self) -> Owed {
            self
        }
    }

    impl Account for NoRule {
        fn owed(self) -> Owed {
            Owed::nothing()
        }
    }
}

/// What can be granted. Its entry and its account belong to its type: it is not had by those of another.
pub trait Grant {
    /// The kind of entry that is on the disk before it is permitted: one that the catalogue means for a grant.
    type Event: events::GrantEvent;
    /// What it owes before: whether a rule of the policy decides on it.
    type Owed: Account;

    /// Returns whether the effect cannot write, whatever the guest does.
    fn is_read_only(&self) -> bool {
        false
    }
}

/// What a mediator asks for: this effect, under this verdict, recorded as this event.
#[derive(Debug)]
pub struct Request<G: Grant> {
    /// The number that the mediator gives the request; the answer carries it, and a question that was asked for it has the same.
    pub number: u64,
    /// The rules of the verdict.
    pub basis: Basis,
    /// What the verdict owes.
    pub owed: G::Owed,
    /// The audit entry of the effect, written before it is permitted.
    pub event: G::Event,
    /// What is granted: the effect, or all that it needs.
    pub grant: G,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Denial {
    /// The audit log did not take the entry.
    #[error("it cannot be recorded")]
    Unrecorded,
    /// The policy changed, or break-glass ended, since the verdict.
    #[error("the rules changed since it was decided")]
    Stale,
    /// The policy wants a person asked, and nobody has said yes to this request.
    #[error("nobody has agreed to it")]
    Unanswered,
    /// The policy denies it.
    #[error("the policy denies it")]
    Denied,
    /// The entry of the request has another verdict than the one by which it is asked for.
    #[error(
        "its entry has another verdict than the policy's; this is a fault of Bulkhead's: report it"
    )]
    OtherVerdict,
    /// What has to be looked into was not.
    #[error("it was not inspected")]
    Uninspected,
    /// The policy allows reading alone, and the effect could write.
    #[error("the policy allows reading alone, and this could write")]
    Writable,
    /// The mediator is not running.
    #[error("the part of the agent that asks is not running")]
    NotRunning,
    /// The mediator has a request of this number already.
    #[error("a request of this number is being decided on")]
    Repeated,
    /// The mediator has too many requests.
    #[error("too many requests are being decided on")]
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{Core, InForce, Input, Output, Time};

    /// Returns the obligation after this one. A variant that the language gains has no place here, which does not compile.
    const fn next(obligation: Obligation<'static>) -> Option<Obligation<'static>> {
        match obligation {
            Obligation::Inspect(_) => Some(Obligation::ConfirmNoKeyboard),
            Obligation::ConfirmNoKeyboard => Some(Obligation::Ask),
            Obligation::Ask => Some(Obligation::ReadOnly),
            Obligation::ReadOnly => Some(Obligation::Audit),
            Obligation::Audit => None,
        }
    }

    #[test]
    fn every_obligation_that_the_language_has_stands_between_a_request_and_its_permit() {
        let mediator = MediatorId::new("a");
        let id = RequestId { mediator, number: 1 };
        let mut walked = 0;
        let mut obligation = Some(Obligation::Inspect(&[]));
        while let Some(owed) = obligation {
            let mut core = Core::new(InForce { policy: 1, break_glass: None }, &[mediator]);
            core.step(Time::ZERO, Input::Started(mediator));
            let basis = Basis { policy: 1, break_glass: false };
            let request = Input::Authorize(id, basis, Owed::nothing().and(owed), false);
            let expected = match owed {
                Obligation::Inspect(_) | Obligation::ConfirmNoKeyboard => {
                    Output::Deny(id, Denial::Uninspected)
                }
                Obligation::Ask => Output::Deny(id, Denial::Unanswered),
                Obligation::ReadOnly => Output::Deny(id, Denial::Writable),
                // And no permit before it was written.
                Obligation::Audit => Output::Record(id),
            };
            assert_eq!(core.step(Time::ZERO, request), [expected], "{}", owed.word());
            walked += 1;
            obligation = next(owed);
        }
        assert_eq!(walked, 5);
    }
}
