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

/// Somebody asked for something.
pub(super) fn asked(caller: &Caller, request: &Request) -> Event {
    let (what, domain) = match request {
        Request::Status => ("status", None),
        Request::Start { domain } => ("start", Some(domain)),
        Request::Stop { domain, .. } => ("stop", Some(domain)),
        Request::Restart { domain } => ("restart", Some(domain)),
        Request::Reset { domain } => ("reset", Some(domain)),
        Request::Switch { domain } => ("switch", Some(domain)),
        Request::Lock => ("lock", None),
        Request::Unlock => ("unlock", None),
        Request::Copy { domain } => ("copy", Some(domain)),
        Request::Paste { domain } => ("paste", Some(domain)),
        Request::ClipboardOutcome { .. } => ("clipboard-outcome", None),
        Request::ClipboardAnswer { yes: true, .. } => ("clipboard-yes", None),
        Request::ClipboardAnswer { yes: false, .. } => ("clipboard-no", None),
        Request::Policy => ("policy", None),
        Request::UsbList => ("usb-list", None),
        Request::UsbAttach { domain, .. } => ("usb-attach", Some(domain)),
        Request::UsbDetach { .. } => ("usb-detach", None),
        Request::BreakGlass { .. } => ("break-glass", None),
        Request::EndBreakGlass => ("break-glass-end", None),
        Request::ApplyPolicy { .. } => ("apply-policy", None),
    };
    let event = Event::new("asked").with("what", what).with("uid", caller.uid);
    match domain {
        Some(domain) => event.of(cut(domain)),
        None => event,
    }
}

/// Somebody asked for what they may not, so many times since this was last written down.
pub(super) fn refused(caller: &Caller, why: &str, times: u64) -> Event {
    Event::new("refused").with("uid", caller.uid).with("why", cut(why)).with("times", times)
}

/// A policy comes into force.
pub(super) fn policy_applied(caller: &Caller, candidate: &Candidate) -> Event {
    let mut event = Event::new("policy-applied")
        .with("uid", caller.uid)
        .with("issuer", cut(candidate.policy.issuer()))
        .with("signers", candidate.signers().to_vec());
    event.policy = Some(candidate.policy.serial());
    event
}

/// A policy was refused; the one in force stays.
pub(super) fn policy_refused(caller: &Caller, why: &str) -> Event {
    Event::new("policy-refused").with("uid", caller.uid).with("why", cut(why))
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

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default()
}
