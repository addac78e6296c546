//! What the agent itself writes into the audit log.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use audit::AuditEvent;
use audit::events::{
    AgentGap, AgentStarted, Asked, Asking, ClipboardNotDelivered, DomainChanged, Outcome,
    PartFailed, PolicyApplied, PolicyRefused, PressureBegan, PressureEnded, RequestRefused,
    TrustChanged, TrustRefused, cut,
};
use monitor::Refused;

use config::configuration::Configuration;
use config::policy_store::{Candidate, TrustChange, TrustReport};
use control::commands;
use control::roles::Caller;
use domains::lifecycle::State;
use domains::pressure::Change;
use domains::{Adoption, Supervisor};

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

/// Returns the event of the time without an agent, if an earlier agent left any of these domains. `before` is when an agent before this one
/// was last known to run.
pub(super) fn gap(
    adopted: &[(String, Adoption)],
    before: Option<SystemTime>,
) -> Option<AuditEvent> {
    let of = |wanted: fn(Adoption) -> bool| {
        let domains = adopted.iter().filter(|(_, adopted)| wanted(*adopted));
        domains.map(|(name, _)| name.clone()).collect::<Vec<String>>()
    };
    let domains = of(|adopted| adopted == Adoption::RunsOn);
    let others = of(|adopted| adopted != Adoption::RunsOn);
    // A clock that was set back says nothing.
    let seconds = before.and_then(|before| before.elapsed().ok()).map(|time| time.as_secs() + 1);
    let ended = (!others.is_empty()).then_some(others);
    (!adopted.is_empty()).then(|| AgentGap { domains, ended, seconds }.into())
}

/// Returns the event that a mediator, or the seat, has died by a fault of ours.
pub(super) fn failed(what: &str) -> AuditEvent {
    PartFailed { what: what.to_owned() }.into()
}

/// Returns the event that a paste whose entry says it is allowed does not reach its domain, where its mediator is not there to say so.
pub(super) fn not_delivered(domain: &str, why: &Refused) -> AuditEvent {
    ClipboardNotDelivered { domain: domain.to_owned(), why: why.to_string() }.into()
}

/// Returns the event that a domain's pressure on a resource began, or ended.
pub(super) fn pressure((domain, change): (String, Change)) -> AuditEvent {
    match change {
        Change::Began { resource, percent } => {
            let (percent, resource) = (percent.into(), resource.word().to_owned());
            PressureBegan { domain, percent, resource }.into()
        }
        Change::Ended { resource, most, lasted } => {
            let (most_percent, resource) = (most.into(), resource.word().to_owned());
            PressureEnded { domain, most_percent, resource, seconds: lasted.as_secs() }.into()
        }
    }
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

/// The domains' states as they were last written down, and the requests that are to change them.
#[derive(Debug, Default)]
pub(super) struct States {
    last: BTreeMap<String, &'static str>,
    begun: BTreeMap<String, u64>,
}

impl States {
    /// Notes a request that was begun for a domain: the entries of what comes of it name its number, until the domain runs or is off.
    pub(super) fn begun(&mut self, domain: &str, request: Option<u64>) {
        match request {
            Some(request) => self.begun.insert(domain.to_owned(), request),
            // It could not be recorded; what was begun before it ends otherwise now.
            None => self.begun.remove(domain),
        };
    }

    /// Notes the domains that ran when an earlier agent ended: only what comes after that is new.
    pub(super) fn adopted(&mut self, adopted: &[(String, Adoption)]) {
        let running = State::Running { from: Duration::ZERO, answered: true }.word();
        self.last.extend(adopted.iter().map(|(name, _)| (name.clone(), running)));
    }

    /// Returns an event for each domain whose state has changed.
    pub(super) fn changes(&mut self, supervisor: &Supervisor) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for runtime in supervisor.domains() {
            let (name, state) = (&runtime.policy().name, runtime.lifecycle().state());
            let before = self.last.get(name).copied().unwrap_or("off");
            if before == state.word() {
                continue;
            }
            self.last.insert(name.clone(), state.word());
            let event = DomainChanged {
                domain: name.clone(),
                from: before.to_owned(),
                pid: runtime.pid(),
                problem: runtime.lifecycle().problem().map(cut),
                request: self.request_of(name, state.is_settled()),
                to: state.word().to_owned(),
            };
            events.push(event.into());
        }
        events
    }

    /// Returns the request that brings about what happens to a domain now; the request ends if the domain is settled with it.
    fn request_of(&mut self, domain: &str, settled: bool) -> Option<u64> {
        match settled {
            true => self.begun.remove(domain),
            false => self.begun.get(domain).copied(),
        }
    }
}
