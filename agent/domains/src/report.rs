//! What `status` says of the domains and of the host's network.

use config::domain_policies::DomainPolicy;
use control::protocol::{DomainReport, HostNetworkReport};
use control::reports::PressureReport;

use super::host_network::{Judgement, Rule};
use super::lifecycle::{State, Time};
use super::pressure::PressureEpisode;
use super::{DomainRuntime, Supervisor};

impl Supervisor {
    /// Reports the domains that these are about, in their order. Which guests can copy and paste others know.
    pub fn report(
        &self,
        policies: &[DomainPolicy],
        has_clipboard_agent: impl Fn(&str) -> bool,
    ) -> Vec<DomainReport> {
        let one = |policy: &DomainPolicy| {
            let clipboard_agent = has_clipboard_agent(&policy.name);
            match self.domains().iter().find(|runtime| runtime.policy() == policy) {
                Some(runtime) => Some(domain(runtime, clipboard_agent, self.now())),
                None if self.externals().contains(&policy.name) => {
                    Some(external(policy, clipboard_agent, self.now()))
                }
                None => None,
            }
        };
        policies.iter().filter_map(one).collect()
    }

    /// Returns what else there is to say of the domains: which run with what was changed since, and whose images did not come into force.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let outdated = self.domains().iter().filter_map(|runtime| {
            let name = &runtime.policy().name;
            let outdated = runtime.outdated()?;
            Some(format!(
                "{name} {outdated}: `bulkhead restart {name}` puts it right when nobody works there"
            ))
        });
        let images = self.domains().iter().filter_map(|runtime| {
            Some(format!("{}: {}", runtime.policy().name, runtime.image_note()?))
        });
        outdated.chain(images).collect()
    }

    /// Reports the host's network, and returns what there is to say of it.
    #[must_use]
    pub fn host_network_report(&self) -> (HostNetworkReport, Option<String>) {
        let (rule, found) = self.host_network();
        let judgement = rule.judge(found);
        let note = match (rule, judgement) {
            (Rule::Lifted, Judgement::NoNetwork) => Some(
                "allow_host_network = true in machine.toml switches the host-network rule off"
                    .to_owned(),
            ),
            (_, judgement) if judgement.is_kept() => None,
            (_, judgement) => Some(judgement.to_string()),
        };
        let report = HostNetworkReport {
            ok: judgement.is_kept(),
            allowed: rule == Rule::Lifted,
            interfaces: found.map(<[_]>::to_vec).unwrap_or_default(),
        };
        (report, note)
    }
}

fn domain(runtime: &DomainRuntime, clipboard_agent: bool, now: Time) -> DomainReport {
    let (policy, life) = (runtime.policy(), runtime.lifecycle());
    DomainReport {
        name: policy.name.clone(),
        label: policy.label.clone(),
        state: life.state().word().to_owned(),
        for_seconds: now.saturating_sub(life.since()).as_secs(),
        wanted: life.wanted() || life.has_given_up(),
        pid: runtime.pid(),
        restarts: life.restarts(),
        silent: runtime.is_silent(),
        retry_in_seconds: match life.state() {
            State::Backoff { until } => Some(until.saturating_sub(now).as_secs()),
            _ => None,
        },
        problem: life
            .problem()
            .map(str::to_owned)
            .or_else(|| runtime.waits())
            .or_else(|| runtime.not_kept().map(str::to_owned)),
        network: policy.network.word().to_owned(),
        clipboard_agent,
        pressure: runtime.pressure().pressing().map(|what| pressure(what, now)).collect(),
        pci: runtime.functions(),
    }
}

fn pressure(what: PressureEpisode, now: Time) -> PressureReport {
    PressureReport {
        resource: what.resource.word().to_owned(),
        percent: what.percent,
        for_seconds: now.saturating_sub(what.since).as_secs(),
        words: what.resource.says().to_owned(),
    }
}

fn external(policy: &DomainPolicy, clipboard_agent: bool, now: Time) -> DomainReport {
    DomainReport {
        name: policy.name.clone(),
        label: policy.label.clone(),
        state: "external".to_owned(),
        for_seconds: now.as_secs(),
        wanted: true,
        pid: None,
        restarts: 0,
        silent: false,
        retry_in_seconds: None,
        problem: None,
        network: policy.network.word().to_owned(),
        clipboard_agent,
        pressure: Vec::new(),
        pci: Vec::new(),
    }
}
