//! What the agent itself writes into the audit log.

use std::collections::BTreeMap;

use audit::Event;

use crate::control::protocol::Request;
use crate::control::roles::Caller;
use crate::files::Files;
use crate::policy_store::Candidate;
use crate::supervisor::Supervisor;

/// Longest text of somebody else's that is written down, in bytes.
const TEXT_MAX: usize = 4096;

/// The agent runs, under this policy.
pub(super) fn started(files: &Files) -> Event {
    let policy = &files.policy;
    let mut event = Event::new("agent-started")
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("signed", policy.signed)
        .with("signers", policy.signers.clone());
    event.policy = Some(policy.serial);
    match &policy.refused {
        Some(why) => event.with("policy_file_refused", cut(why)),
        None => event,
    }
}

/// A mediator, or the seat, has died by a fault of ours.
pub(super) fn failed(what: &'static str) -> Event {
    Event::new("failed").with("what", what)
}

/// Who is at the other end of the control socket: the user, and the account where the host has one of that number.
pub(super) fn by(event: Event, caller: &Caller) -> Event {
    let event = event.with("uid", caller.uid);
    match &caller.account {
        Some(account) => event.with("account", cut(account)),
        None => event,
    }
}

/// Somebody asks for something: an entry before it is done, and one when it has ended.
pub(super) struct Asked {
    before: Event,
    after: Event,
    takes_time: bool,
}

impl Asked {
    pub(super) fn new(caller: &Caller, request: &Request) -> Self {
        let about = |kind| {
            let mut event = by(Event::new(kind).with("what", request.word()), caller);
            if let Request::UsbAttach { bus_id, .. } | Request::UsbDetach { bus_id } = request {
                event = event.with("bus_id", cut(bus_id));
            }
            match request.domain() {
                Some(domain) => event.of(cut(domain)),
                None => event,
            }
        };
        Self { before: about("asking"), after: about("asked"), takes_time: request.takes_time() }
    }

    /// Who asks what, before anything of it is done.
    pub(super) fn before(&self) -> &Event {
        &self.before
    }

    /// How it ended, or how far it came while its asker waited.
    pub(super) fn ended(self, refusal: Option<&str>) -> Event {
        match refusal {
            None if self.takes_time => self.after.with("outcome", "begun"),
            None => self.after.with("outcome", "done"),
            Some(why) => self.after.with("outcome", "not done").with("why", cut(why)),
        }
    }
}

/// A policy comes into force.
pub(super) fn policy_applied(caller: &Caller, candidate: &Candidate) -> Event {
    let mut event = by(Event::new("policy-applied"), caller)
        .with("issuer", cut(candidate.policy.issuer()))
        .with("signers", candidate.signers().to_vec());
    event.policy = Some(candidate.policy.serial());
    event
}

/// A policy was refused; the one in force stays.
pub(super) fn policy_refused(caller: &Caller, why: &str) -> Event {
    by(Event::new("policy-refused"), caller).with("why", cut(why))
}

/// The domains' states as they were last written down.
#[derive(Debug, Default)]
pub(super) struct States(BTreeMap<String, &'static str>);

impl States {
    /// An event for each domain whose state is another.
    pub(super) fn changes(&mut self, supervisor: &Supervisor) -> Vec<Event> {
        let mut events = Vec::new();
        for slot in supervisor.slots() {
            let (name, state) = (&slot.member().name, slot.domain().state().word());
            let before = self.0.get(name).copied().unwrap_or("off");
            if before == state {
                continue;
            }
            self.0.insert(name.clone(), state);
            let mut event = Event::new("domain").of(name).with("from", before).with("to", state);
            if let Some(pid) = slot.pid() {
                event = event.with("pid", pid);
            }
            if let Some(problem) = slot.domain().problem() {
                event = event.with("problem", cut(problem));
            }
            events.push(event);
        }
        events
    }
}

pub(super) fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default()
}
