//! The policy's domains, as far as the agent needs to know them.

use std::time::Duration;

use policy::Policy;
use policy::language::{Domain, Network, Persistence};

/// What the policy says of one domain, as far as the agent needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPolicy {
    pub name: String,
    /// What people call it.
    pub label: String,
    /// How it reaches a network.
    pub network: Network,
    /// Whether it returns to its base image at every start.
    pub discard: bool,
    /// At which times of day it begins anew, in minutes after midnight.
    pub renew_at: Vec<u16>,
    /// After how long without input it begins anew.
    pub renew_when_idle: Option<Duration>,
    /// Whether it wins when CPU, memory or disk are short.
    pub high_priority: bool,
}

/// Returns the policy's domains, in its order.
#[must_use]
pub fn of(policy: &Policy) -> Vec<DomainPolicy> {
    policy.domains().iter().map(domain_policy).collect()
}

/// Returns the message that a PC has no domain of this name, and which ones it has.
pub fn no_domain<'a>(name: &str, domains: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = domains.into_iter().collect();
    match names.as_slice() {
        [] => format!("there is no domain `{name}`: this PC has none"),
        names => format!("there is no domain `{name}`; this PC has: {}", names.join(", ")),
    }
}

fn domain_policy(domain: &Domain) -> DomainPolicy {
    DomainPolicy {
        name: domain.name.value.to_string(),
        label: domain.label.value.clone(),
        network: domain.network.value,
        discard: domain.persistence == Persistence::Discard,
        renew_at: domain
            .renew_at
            .iter()
            .flat_map(|at| &at.value)
            .map(|time| time.minutes())
            .collect(),
        renew_when_idle: domain.renew_when_idle.map(|idle| idle.value),
        high_priority: domain.is_high(),
    }
}
