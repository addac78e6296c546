//! A domain that keeps nothing begins anew: it is shut down as by a stop, what it wrote is thrown away, and it is started again.
//!
//! When that is due by itself says [`schedule`]; what the person at the seat is asked and told of it, and which renewals are under way, [`planned`].
//!
//! For the life-cycle that is a restart: at every start of such a domain its disks are copied anew ([`disks`](super::disks)). What is decided here is
//! whether there is anything to be thrown away.

pub mod planned;
pub mod schedule;

use clock::Moment;

use super::Supervisor;
use super::lifecycle::{Event, Lifecycle, State, Time};
use super::runtime::DomainRuntime;
use planned::DomainFacts;
use schedule::Rules;

impl Supervisor {
    /// Returns the facts about the domains on which renewals depend. When input last went to one of this name is known to the seat alone.
    pub fn renewal_facts(&self, last_input: impl Fn(&str) -> Option<Moment>) -> Vec<DomainFacts> {
        let now = self.now();
        let of_one = |facts: DomainFacts| {
            let used = last_input(&facts.name);
            DomainFacts { used: used.map(|at| now.saturating_sub(at.elapsed())), ..facts }
        };
        self.domains().iter().map(|runtime| of_one(runtime.renewal_facts())).collect()
    }

    /// Returns whether [`Self::renew`] would begin.
    ///
    /// # Errors
    /// Why not, and what to do instead.
    pub fn may_renew(&mut self, name: &str) -> Result<(), String> {
        let runtime = Self::find(&mut self.domains, &self.externals, name)?;
        let policy = &runtime.policy;
        may_begin(&policy.name, policy.discard, &runtime.lifecycle)?;
        // What it writes to now was decided when it was started.
        if policy.discard && !runtime.devices.discard {
            return Err(format!(
                "{name} was started when the policy had it keep what it stores, and has written that to its disk images: put images in their place that nobody wrote to, then `bulkhead restart {name}`"
            ));
        }
        Ok(())
    }

    /// Shuts a domain down, throws away what it wrote, and starts it again.
    ///
    /// # Errors
    /// It keeps what it writes, is off, or begins anew already.
    pub fn renew(&mut self, name: &str) -> Result<(), String> {
        self.may_renew(name)?;
        self.command(name, Event::Restart)
    }
}

impl DomainRuntime {
    /// Returns the facts on which its renewals depend, but for whether it was used, which the seat knows.
    #[must_use]
    fn renewal_facts(&self) -> DomainFacts {
        let policy = &self.policy;
        let by_itself = !policy.renew_at.is_empty() || policy.renew_when_idle.is_some();
        let rules = (policy.discard && by_itself).then(|| {
            // The same times in another order are the same.
            let mut at = policy.renew_at.clone();
            at.sort_unstable();
            at.dedup();
            Rules { at, when_idle: policy.renew_when_idle }
        });
        DomainFacts {
            name: policy.name.clone(),
            label: policy.label.clone(),
            rules,
            state: self.lifecycle.state(),
            problem: self.lifecycle.problem().map(str::to_owned),
            runs_since: self.runs_since(),
            used: None,
            vmm_age: self.vmm_age(),
        }
    }

    /// Returns since when it has had what was written in it, as nothing of that is thrown away while its guest runs; `None` if it does not run.
    #[must_use]
    pub fn runs_since(&self) -> Option<Time> {
        match self.lifecycle.state() {
            State::Running { from, answered: true } => Some(from),
            _ => None,
        }
    }
}

fn may_begin(name: &str, discard: bool, lifecycle: &Lifecycle) -> Result<(), String> {
    if !discard {
        return Err(format!(
            "{name} keeps what it stores, as the policy says (`persistence = \"keep\"`), and nothing of it is thrown away; `bulkhead restart {name}` shuts it down and runs it again"
        ));
    }
    let start = format!("`bulkhead start {name}`");
    match lifecycle.state() {
        State::Running { answered: true, .. } | State::Backoff { .. } => Ok(()),
        State::Off => Err(format!("{name} is off, and begins anew when it is started: {start}")),
        _ if !lifecycle.wanted() => Err(format!(
            "{name} is being shut down, and begins anew when it is started again: {start}"
        )),
        _ => Err(format!(
            "{name} is being started anew already; `bulkhead status` says how far it is"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lifecycle::Exit;

    fn after(events: &[Event]) -> Lifecycle {
        let mut lifecycle = Lifecycle::new(Duration::from_secs(10));
        for event in events {
            let _ = lifecycle.handle(Duration::from_secs(1), event.clone());
        }
        lifecycle
    }

    const STARTED: [Event; 5] = [
        Event::Start,
        Event::Prepared(Ok(())),
        Event::Gate(Ok(())),
        Event::Spawned(Ok(())),
        Event::Answered,
    ];

    #[test]
    fn a_domain_that_keeps_what_it_stores_is_never_renewed() {
        for lifecycle in [after(&[]), after(&STARTED)] {
            let why = may_begin("internet", false, &lifecycle).unwrap_err();
            assert!(why.contains("keeps what it stores") && why.contains("bulkhead restart"));
        }
    }

    #[test]
    fn a_domain_is_renewed_while_it_runs_or_is_tried_again_and_at_no_other_time() {
        let renewed = |lifecycle: &Lifecycle| may_begin("internet", true, lifecycle);
        assert!(renewed(&after(&[])).unwrap_err().contains("is off"));
        for length in 1..STARTED.len() {
            let why = renewed(&after(&STARTED[..length])).unwrap_err();
            assert!(why.contains("anew already"), "{length}: {why}");
        }
        let with = |more: &[Event]| after(&[STARTED.as_slice(), more].concat());
        renewed(&with(&[])).unwrap();
        renewed(&with(&[Event::Exited(Exit::Failed("crash".to_owned()))])).unwrap();
        assert!(renewed(&with(&[Event::Restart])).unwrap_err().contains("anew already"));
        let stops = with(&[Event::Stop { now: false }]);
        assert!(renewed(&stops).unwrap_err().contains("is being shut down"));
    }
}
