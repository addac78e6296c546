//! What the agent itself writes into the audit log.

use std::collections::BTreeMap;

use audit::AuditEvent;
use audit::events::{
    AgentStarted, Asked, Asking, DomainChanged, Outcome, PartFailed, PolicyApplied, PolicyRefused,
};

use crate::control::protocol;
use crate::control::roles::Caller;
use crate::files::Files;
use crate::policy_store::Candidate;
use crate::supervisor::Supervisor;

/// Longest text of somebody else's that is written down, in bytes.
const TEXT_MAX: usize = 4096;

/// The agent runs, under this policy.
pub(super) fn started(files: &Files) -> AuditEvent {
    let policy = &files.policy;
    AgentStarted {
        policy: policy.serial,
        policy_file_refused: policy.refused.as_deref().map(cut),
        signed: policy.signed,
        signers: policy.signers.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
    .into()
}

/// A mediator, or the seat, has died by a fault of ours.
pub(super) fn failed(what: &str) -> AuditEvent {
    PartFailed { what: what.to_owned() }.into()
}

/// The account at the other end of the control socket, where the host has one of its user's number.
pub(super) fn account(caller: &Caller) -> Option<String> {
    caller.account.as_deref().map(cut)
}

/// Somebody asks for something: an entry before it is done, and one when it has ended.
pub(super) struct Request {
    asking: Asking,
    takes_time: bool,
}

impl Request {
    pub(super) fn new(caller: &Caller, request: &protocol::Request) -> Self {
        let bus_id = match request {
            protocol::Request::UsbAttach { bus_id, .. }
            | protocol::Request::UsbDetach { bus_id } => Some(cut(bus_id)),
            _ => None,
        };
        let asking = Asking {
            domain: request.domain().map(cut),
            account: account(caller),
            bus_id,
            uid: caller.uid,
            what: request.word().to_owned(),
        };
        Self { asking, takes_time: request.takes_time() }
    }

    /// Who asks what, before anything of it is done.
    pub(super) fn before(&self) -> AuditEvent {
        self.asking.clone().into()
    }

    /// How it ended, or how far it came while its asker waited.
    pub(super) fn ended(self, refusal: Option<&str>) -> AuditEvent {
        let Asking { domain, account, bus_id, uid, what } = self.asking;
        let outcome = match refusal {
            None if self.takes_time => Outcome::Begun,
            None => Outcome::Done,
            Some(_) => Outcome::NotDone,
        };
        Asked { domain, account, bus_id, outcome, uid, what, why: refusal.map(cut) }.into()
    }
}

/// A policy comes into force.
pub(super) fn policy_applied(caller: &Caller, candidate: &Candidate) -> AuditEvent {
    PolicyApplied {
        policy: candidate.policy.serial(),
        account: account(caller),
        issuer: cut(candidate.policy.issuer()),
        signers: candidate.signers().to_vec(),
        uid: caller.uid,
    }
    .into()
}

/// A policy was refused; the one in force stays.
pub(super) fn policy_refused(caller: &Caller, why: &str) -> AuditEvent {
    PolicyRefused { account: account(caller), uid: caller.uid, why: cut(why) }.into()
}

/// The domains' states as they were last written down.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<String, &'static str>);

impl States {
    /// An event for each domain whose state is another.
    pub(super) fn changes(&mut self, supervisor: &Supervisor) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for slot in supervisor.slots() {
            let (name, state) = (&slot.member().name, slot.domain().state().word());
            let before = self.0.get(name).copied().unwrap_or("off");
            if before == state {
                continue;
            }
            self.0.insert(name.clone(), state);
            let event = DomainChanged {
                domain: name.clone(),
                from: before.to_owned(),
                pid: slot.pid(),
                problem: slot.domain().problem().map(cut),
                to: state.to_owned(),
            };
            events.push(event.into());
        }
        events
    }
}

/// As much of a text of somebody else's as is written down.
pub(super) fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default().to_owned()
}
