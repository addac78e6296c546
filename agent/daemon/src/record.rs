//! What the agent itself writes into the audit log.

use audit::AuditEvent;
use audit::events::{
    AgentStarted, Asked, Asking, ClipboardNotDelivered, Outcome, PartFailed, PolicyApplied,
    PolicyRefused, RequestRefused, TrustChanged, TrustRefused, cut,
};
use monitor::Refused;

use config::configuration::Configuration;
use config::policy_store::{Candidate, TrustChange, TrustReport};
use control::commands;
use control::roles::Caller;

/// Returns the event that the agent runs, under this policy.
pub(super) fn started(configuration: &Configuration) -> AuditEvent {
    let policy = &configuration.policy_report;
    AgentStarted {
        policy: policy.serial,
        policy_file_refused: policy.refused.as_deref().map(cut),
        signed: policy.signed,
        signers: policy.signers.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }
    .into()
}

/// Returns the event that a mediator, or the seat, has died by a fault of ours.
pub(super) fn failed(what: &str) -> AuditEvent {
    PartFailed { what: what.to_owned() }.into()
}

/// Returns the event that a paste whose entry says it is allowed does not reach its domain, where its mediator is not there to say so.
pub(super) fn not_delivered(domain: &str, why: &Refused) -> AuditEvent {
    ClipboardNotDelivered { domain: domain.to_owned(), why: why.to_string() }.into()
}

/// Returns the account at the other end of the control socket, where the host has one of its user's number.
fn account(caller: &Caller) -> Option<String> {
    caller.account.as_deref().map(cut)
}

/// Somebody asks for something: an entry before it is done, and one when it has ended.
pub(super) struct Request(Asking);

impl Request {
    pub(super) fn new(caller: &Caller, request: &commands::Request) -> Self {
        Self(Asking {
            domain: request.domain().map(cut),
            account: account(caller),
            bus_id: request.bus_id().map(cut),
            uid: caller.uid,
            what: request.word().to_owned(),
        })
    }

    /// Returns the event of who asks what, before anything of it is done.
    pub(super) fn before(&self) -> AuditEvent {
        self.0.clone().into()
    }

    /// Returns the event of how a request ended, or how far it came while its caller waited. `request` is the number of the entry before
    /// it.
    pub(super) fn ended(
        self,
        request: Option<u64>,
        outcome: Outcome,
        refusal: Option<&str>,
    ) -> Asked {
        let Asking { domain, account, bus_id, uid, what } = self.0;
        let (uid, times, why) = (Some(uid), None, refusal.map(cut));
        Asked { domain, account, bus_id, outcome, request, times, uid, what, why }
    }
}

/// Returns the event that somebody asked for what they may not.
pub(super) fn refused(caller: &Caller, request: &commands::Request, why: &str) -> RequestRefused {
    RequestRefused {
        account: account(caller),
        times: 1,
        uid: Some(caller.uid),
        what: request.word().to_owned(),
        why: Some(cut(why)),
    }
}

/// Returns the event that a policy comes into force.
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

/// Returns the event that a policy was refused; the one in force stays.
pub(super) fn policy_refused(caller: &Caller, why: &str) -> AuditEvent {
    PolicyRefused { account: account(caller), uid: caller.uid, why: cut(why) }.into()
}

/// Another trust store counts, or does not; nothing where it is the one of before.
pub(super) fn trust(report: &TrustReport) -> Vec<AuditEvent> {
    let changed = report.changed.clone().map(|change| {
        let TrustChange { serial, signers, officers } = change;
        AuditEvent::from(TrustChanged { officers, serial, signers })
    });
    let refused = report.refused.as_ref().map(|refused| {
        AuditEvent::from(TrustRefused { serial: refused.serial, why: cut(&refused.why) })
    });
    changed.into_iter().chain(refused).collect()
}
