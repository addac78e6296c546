//! What the audit log says of policies and of trust stores. Pure: facts go in, events come out.

use audit::AuditEvent;
use audit::events::{AgentStarted, PolicyApplied, PolicyRefused, TrustChanged, TrustRefused, cut};
use control::entries::account;
use control::roles::Caller;

use crate::configuration::Configuration;
use crate::policy_store::Candidate;
use config::trust::{TrustChange, TrustReport};

/// Returns the event that the agent runs, under this policy.
#[must_use]
pub fn started(configuration: &Configuration) -> AuditEvent {
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

/// Returns the event that a policy comes into force.
#[must_use]
pub fn policy_applied(caller: &Caller, candidate: &Candidate) -> PolicyApplied {
    PolicyApplied {
        policy: candidate.policy.serial(),
        account: account(caller),
        issuer: cut(candidate.policy.issuer()),
        signers: candidate.signers().to_vec(),
        uid: caller.uid,
    }
}

/// Returns the event that a policy was refused; the one in force stays.
#[must_use]
pub fn policy_refused(caller: &Caller, why: &str) -> AuditEvent {
    PolicyRefused { account: account(caller), uid: caller.uid, why: cut(why) }.into()
}

/// Returns the events that another trust store counts, or does not; none where it is the one of before.
#[must_use]
pub fn trust(report: &TrustReport) -> Vec<AuditEvent> {
    let changed = report.changed.clone().map(|change| {
        let TrustChange { serial, signers, officers } = change;
        AuditEvent::from(TrustChanged { officers, serial, signers })
    });
    let refused = report.refused.as_ref().map(|refused| {
        AuditEvent::from(TrustRefused { serial: refused.serial, why: cut(&refused.why) })
    });
    changed.into_iter().chain(refused).collect()
}
