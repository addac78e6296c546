//! What the audit log says of domains: facts go in, events come out. Pure but for [`States`], which knows what was said last.

use std::collections::BTreeMap;
use std::time::Duration;

use audit::AuditEvent;
use audit::events::{AgentGap, DomainChanged, PressureBegan, PressureEnded, cut};

use super::lifecycle::State;
use super::pressure::Change;
use super::{Adoption, DomainRuntime};

/// Returns the event of the time without an agent, if an earlier agent left any of these domains. `since` is how long ago an agent before this one
/// was last known to run.
#[must_use]
pub fn gap(adopted: &[(String, Adoption)], since: Option<Duration>) -> Option<AuditEvent> {
    let of = |wanted: fn(Adoption) -> bool| {
        let domains = adopted.iter().filter(|(_, adopted)| wanted(*adopted));
        domains.map(|(name, _)| name.clone()).collect::<Vec<String>>()
    };
    let domains = of(|adopted| adopted == Adoption::RunsOn);
    let others = of(|adopted| adopted != Adoption::RunsOn);
    let seconds = since.map(|time| time.as_secs() + 1);
    let ended = (!others.is_empty()).then_some(others);
    (!adopted.is_empty()).then(|| AgentGap { domains, ended, seconds }.into())
}

/// Returns the event that a domain's pressure on a resource began, or ended.
#[must_use]
pub fn pressure((domain, change): (String, Change)) -> AuditEvent {
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

/// The state of a domain, for the log.
#[derive(Clone, Copy, Debug)]
pub struct DomainState<'a> {
    pub name: &'a str,
    pub state: State,
    /// The process id of its VMM.
    pub pid: Option<i32>,
    /// What went wrong with it.
    pub problem: Option<&'a str>,
}

impl DomainRuntime {
    /// Returns where it is, for the log.
    #[must_use]
    pub fn state(&self) -> DomainState<'_> {
        let (name, lifecycle) = (self.policy().name.as_str(), self.lifecycle());
        let problem = lifecycle.problem();
        DomainState { name, state: lifecycle.state(), pid: self.pid(), problem }
    }
}

/// The domains' states as they were last written down, and the requests that are to change them.
#[derive(Debug, Default)]
pub struct States {
    last: BTreeMap<String, &'static str>,
    begun: BTreeMap<String, u64>,
}

impl States {
    /// Notes a request that was begun for a domain: the entries of what comes of it name its number, until the domain runs or is off.
    pub fn begun(&mut self, domain: &str, request: Option<u64>) {
        match request {
            Some(request) => self.begun.insert(domain.to_owned(), request),
            // It could not be recorded; what was begun before it ends otherwise now.
            None => self.begun.remove(domain),
        };
    }

    /// Notes the domains that ran when an earlier agent ended: only what comes after that is new.
    pub fn adopted(&mut self, adopted: &[(String, Adoption)]) {
        let running = State::Running { from: Duration::ZERO, answered: true }.word();
        self.last.extend(adopted.iter().map(|(name, _)| (name.clone(), running)));
    }

    /// Returns an event for each domain whose state has changed.
    pub fn changes<'a>(
        &mut self,
        domains: impl Iterator<Item = DomainState<'a>>,
    ) -> Vec<AuditEvent> {
        let mut events = Vec::new();
        for DomainState { name, state, pid, problem } in domains {
            let before = self.last.get(name).copied().unwrap_or("off");
            if before == state.word() {
                continue;
            }
            self.last.insert(name.to_owned(), state.word());
            let event = DomainChanged {
                domain: name.to_owned(),
                from: before.to_owned(),
                pid,
                problem: problem.map(cut),
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

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: State = State::Running { from: Duration::ZERO, answered: true };

    fn at(state: State) -> DomainState<'static> {
        DomainState { name: "lab", state, pid: Some(7), problem: None }
    }

    /// From, to and request of the one event, if there is one.
    fn change(states: &mut States, state: State) -> Option<(String, String, Option<u64>)> {
        match states.changes([at(state)].into_iter()).pop()? {
            AuditEvent::DomainChanged(event) => Some((event.from, event.to, event.request)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_change_of_a_domain_names_the_request_that_brought_it_about_until_it_is_settled() {
        let mut states = States::default();
        assert_eq!(change(&mut states, State::Off), None);
        states.begun("lab", Some(12));
        let of = |from: State, to: State, request| {
            Some((from.word().to_owned(), to.word().to_owned(), request))
        };
        assert_eq!(change(&mut states, State::Gated), of(State::Off, State::Gated, Some(12)));
        assert_eq!(change(&mut states, State::Gated), None, "it was said");
        assert_eq!(change(&mut states, RUNNING), of(State::Gated, RUNNING, Some(12)));
        assert_eq!(change(&mut states, State::Off), of(RUNNING, State::Off, None));
        // One that could not be recorded takes the place of the one before.
        states.begun("lab", Some(13));
        states.begun("lab", None);
        assert_eq!(change(&mut states, RUNNING), of(State::Off, RUNNING, None));
    }

    #[test]
    fn of_a_domain_that_was_taken_up_only_what_comes_after_that_is_new() {
        let mut states = States::default();
        let adopted = [("lab".to_owned(), Adoption::RunsOn)];
        states.adopted(&adopted);
        assert_eq!(change(&mut states, RUNNING), None);
        assert!(change(&mut states, State::Off).is_some());
    }

    #[test]
    fn a_time_without_an_agent_is_told_if_it_left_a_domain_with_those_that_did_not_outlive_it() {
        let name = |name: &str| name.to_owned();
        assert_eq!(gap(&[], Some(Duration::from_secs(5))), None);
        let adopted = [(name("lab"), Adoption::RunsOn), (name("store"), Adoption::HadEnded)];
        let (domains, ended) = (vec![name("lab")], Some(vec![name("store")]));
        let told = gap(&adopted, Some(Duration::from_millis(4500)));
        assert_eq!(told, Some(AgentGap { domains, ended, seconds: Some(5) }.into()));
        let told = gap(&adopted[..1], None);
        let domains = vec![name("lab")];
        assert_eq!(told, Some(AgentGap { domains, ended: None, seconds: None }.into()));
    }
}
