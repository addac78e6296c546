//! Renewals: a domain that keeps nothing is shut down, what it wrote is thrown away, and it is started again. Who brought it about, why, and how
//! it ended is on the record.

use std::collections::BTreeMap;

use audit::AuditEvent;
use audit::events::{Outcome, RenewalBegan, RenewalEnded};
use clock::Moment;

use super::Running;
use super::record::cut;
use domains::Supervisor;
use domains::lifecycle::State;

/// Why a domain is renewed, and who brought it about.
#[derive(Clone, Debug)]
pub(super) enum Why {
    /// Somebody asked for it over the control socket.
    Command {
        by: String,
        /// The number of the entry that says so.
        request: Option<u64>,
    },
}

impl Why {
    /// As the log has it.
    fn word(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
        }
    }

    fn by(&self) -> String {
        match self {
            Self::Command { by, .. } => cut(by),
        }
    }

    fn request(&self) -> Option<u64> {
        match self {
            Self::Command { request, .. } => *request,
        }
    }
}

/// One that is under way.
#[derive(Debug)]
struct UnderWay {
    since: Moment,
    why: Why,
}

impl UnderWay {
    fn ended(&self, domain: &str, problem: Option<String>) -> AuditEvent {
        let outcome = if problem.is_some() { Outcome::NotDone } else { Outcome::Done };
        RenewalEnded {
            domain: domain.to_owned(),
            outcome,
            problem,
            request: self.why.request(),
            seconds: self.since.elapsed().as_secs(),
            why: self.why.word().to_owned(),
        }
        .into()
    }
}

/// The renewals that are under way.
#[derive(Debug, Default)]
pub(super) struct Renewals {
    under_way: BTreeMap<String, UnderWay>,
}

impl Renewals {
    /// An event for each renewal that has ended: its domain runs again, or is off.
    pub(super) fn ended(&mut self, supervisor: &Supervisor) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for runtime in supervisor.domains() {
            let (name, lifecycle) = (&runtime.policy().name, runtime.lifecycle());
            if !lifecycle.state().is_settled() {
                continue;
            }
            let Some(renewal) = self.under_way.remove(name) else { continue };
            let off = lifecycle.state() == State::Off;
            let problem = || lifecycle.problem().map_or_else(|| "it was stopped".to_owned(), cut);
            events.push(renewal.ended(name, off.then(problem)));
        }
        events
    }

    /// An event for each that is under way when the agent ends.
    pub(super) fn end(&mut self) -> Vec<AuditEvent> {
        let left = std::mem::take(&mut self.under_way);
        let ended = "the agent ended before it did";
        left.iter().map(|(name, one)| one.ended(name, Some(ended.to_owned()))).collect()
    }
}

impl Running {
    /// Begins to renew a domain.
    ///
    /// # Errors
    /// Why it is not to be renewed now, and what to do instead.
    pub(super) fn begin_renewal(&mut self, domain: &str, why: Why) -> Result<(), String> {
        if self.renewals.under_way.contains_key(domain) {
            return Err(format!(
                "{domain} is being renewed already; `bulkhead status` says how far it is"
            ));
        }
        self.supervisor.may_renew(domain)?;
        let began = RenewalBegan {
            domain: domain.to_owned(),
            by: why.by(),
            request: why.request(),
            why: why.word().to_owned(),
        };
        self.monitor.note(&[began.into()]);
        self.supervisor.renew(domain)?;
        tracing::info!("{domain} is renewed: asked for by {} ({})", why.by(), why.word());
        let under_way = UnderWay { since: Moment::now(), why };
        self.renewals.under_way.insert(domain.to_owned(), under_way);
        Ok(())
    }
}
