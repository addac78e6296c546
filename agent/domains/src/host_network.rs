//! The host-network rule: once its NICs are handed over, the host has no configured IP interface
//! but loopback. An interface that is up without an address is no network; one with any address,
//! an IPv6 link-local one too, is.
//!
//! The rule is for domains whose VMM the agent starts. [`Rule::judge`] is its one judgement: what
//! the agent's log, `status` and `doctor` say, and what a domain's start waits for.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use config::machine::{Kind, Machine};
use control::reports::{ConfiguredInterface, describe};

/// The interfaces could not be listed; the rule then counts as broken.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the host's network interfaces")]
pub struct ListError(#[from] nix::Error);

/// Lists every interface that breaks the rule.
pub fn configured_interfaces() -> Result<Vec<ConfiguredInterface>, ListError> {
    let addresses = getifaddrs()?.filter_map(|entry| {
        let storage = entry.address?;
        let ip = match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
            (Some(v4), _) => IpAddr::V4(v4.ip()),
            (None, Some(v6)) => IpAddr::V6(v6.ip()),
            (None, None) => return None,
        };
        Some((entry.interface_name, entry.flags.contains(InterfaceFlags::IFF_LOOPBACK), ip))
    });
    Ok(collect(addresses))
}

/// Collects interfaces from triples: name, whether it is loopback, address.
fn collect(addresses: impl Iterator<Item = (String, bool, IpAddr)>) -> Vec<ConfiguredInterface> {
    let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (name, _, address) in addresses.filter(|(_, loopback, _)| !loopback) {
        by_name.entry(name).or_default().push(address);
    }
    by_name.into_iter().map(|(name, addresses)| ConfiguredInterface { name, addresses }).collect()
}

/// Returns what to do about them.
#[must_use]
pub fn remedy(interfaces: &[ConfiguredInterface]) -> String {
    let flush: Vec<String> = interfaces
        .iter()
        .map(|i| format!("`ip addr flush dev {0}; ip link set {0} down`", i.name))
        .collect();
    format!(
        "remove the interface from the host's network configuration ({}), or hand its NIC to a domain; `allow_host_network = true` in machine.toml overrides the rule",
        flush.join(", ")
    )
}

/// What the machine file says of the rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Every domain is external, and the rule is for those that the agent starts.
    OnlyExternal,
    /// The host is to have no network.
    Holds,
    /// `allow_host_network = true` tolerates one.
    Lifted,
}

/// What the rule makes of the host's interfaces. Each that has some holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Judgement<'a> {
    /// The host has no interface with an address.
    NoNetwork,
    /// There are some, and no domain that they could hold back.
    HoldsNobodyBack(&'a [ConfiguredInterface]),
    /// There are some, and the machine file tolerates them.
    Tolerated(&'a [ConfiguredInterface]),
    /// There are some that must not be.
    Broken(&'a [ConfiguredInterface]),
    /// They could not be listed, for the reason given.
    Unknown(&'a str),
}

impl Rule {
    /// Reads the rule of this PC.
    #[must_use]
    pub fn of(machine: &Machine) -> Self {
        let external = |kind: &Kind| matches!(kind, Kind::External);
        match machine.allow_host_network {
            _ if machine.domains.iter().all(|domain| external(&domain.kind)) => Self::OnlyExternal,
            true => Self::Lifted,
            false => Self::Holds,
        }
    }

    /// Judges the host's interfaces, or the reason why they could not be listed.
    #[must_use]
    pub fn judge<'a>(self, found: Result<&'a [ConfiguredInterface], &'a str>) -> Judgement<'a> {
        match (found, self) {
            (Err(problem), _) => Judgement::Unknown(problem),
            (Ok([]), _) => Judgement::NoNetwork,
            (Ok(some), Self::OnlyExternal) => Judgement::HoldsNobodyBack(some),
            (Ok(some), Self::Lifted) => Judgement::Tolerated(some),
            (Ok(some), Self::Holds) => Judgement::Broken(some),
        }
    }

    /// Checks whether a domain may start; `Err` says why not, and what to do.
    pub fn gate(self, found: Result<&[ConfiguredInterface], &str>) -> Result<(), String> {
        match self.judge(found) {
            judgement @ (Judgement::Broken(_) | Judgement::Unknown(_)) if self == Self::Holds => {
                Err(judgement.to_string())
            }
            _ => Ok(()),
        }
    }
}

impl Judgement<'_> {
    /// Returns whether the rule is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self, Self::NoNetwork | Self::HoldsNobodyBack(_))
    }

    /// Returns what was found and what it means.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::NoNetwork => "no configured interface but loopback".to_owned(),
            Self::HoldsNobodyBack(some) => format!(
                "all domains are external, which the host's network does not hold back: {}",
                describe(some)
            ),
            Self::Tolerated(some) => format!(
                "THE HOST HAS A NETWORK, and allow_host_network = true tolerates it, though what reaches the host reaches every domain: {}",
                describe(some)
            ),
            Self::Broken(some) => format!(
                "the host has a network, so no domain that Bulkhead runs is started: {}",
                describe(some)
            ),
            Self::Unknown(problem) => {
                format!("the host-network rule cannot be checked: {problem}")
            }
        }
    }

    /// Returns what to do, unless the rule is kept.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::NoNetwork | Self::HoldsNobodyBack(_) => None,
            Self::Tolerated(some) | Self::Broken(some) => Some(remedy(some)),
            Self::Unknown(_) => Some("run the agent (and `bulkhead doctor`) as root".to_owned()),
        }
    }
}

/// Both in one line.
impl fmt::Display for Judgement<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what())?;
        self.remedy().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use config::machine::Context;

    fn entry(name: &str, loopback: bool, ip: &str) -> (String, bool, IpAddr) {
        (name.to_owned(), loopback, ip.parse().unwrap())
    }

    #[test]
    fn a_link_local_address_alone_is_a_configured_interface() {
        let found =
            collect([entry("lo", true, "127.0.0.1"), entry("eth0", false, "fe80::1")].into_iter());
        assert_eq!(describe(&found), "eth0 (fe80::1)");
    }

    #[test]
    fn loopback_is_no_network_whatever_its_addresses() {
        let found =
            collect([entry("lo", true, "127.0.0.1"), entry("lo", true, "10.0.0.1")].into_iter());
        assert!(found.is_empty());
    }

    #[test]
    fn several_addresses_of_an_interface_are_one_finding() {
        let found = collect(
            [
                entry("eth0", false, "10.0.0.5"),
                entry("eth1", false, "fe80::2"),
                entry("eth0", false, "fe80::1"),
            ]
            .into_iter(),
        );
        assert_eq!(describe(&found), "eth0 (10.0.0.5, fe80::1), eth1 (fe80::2)");
        assert!(remedy(&found).contains("ip addr flush dev eth0"));
    }

    #[test]
    fn only_a_domain_that_the_agent_starts_is_held_back_by_the_hosts_network() {
        let parse = |text: &str| {
            let context = Context { images: Path::new("/images"), domain_policies: None };
            Rule::of(&Machine::parse("machine.toml", text, context).unwrap())
        };
        let (external, own) = ("[domain.a]\nvmm = \"external\"\n", "[domain.b]\nkernel = \"k\"\n");
        let found = collect([entry("eth0", false, "10.0.0.5")].into_iter());
        for (text, kept, starts) in [
            (format!("format = 1\n{external}"), true, true),
            (format!("format = 1\nallow_host_network = true\n{external}"), true, true),
            (format!("format = 1\n{external}{own}"), false, false),
            (format!("format = 1\nallow_host_network = true\n{external}{own}"), false, true),
        ] {
            let rule = parse(&text);
            let judgement = rule.judge(Ok(&found));
            assert_eq!(judgement.is_kept(), kept, "{text}");
            assert_eq!(judgement.remedy().is_none(), kept, "{text}");
            assert!(judgement.what().contains("eth0 (10.0.0.5)"), "{text}");
            assert_eq!(rule.gate(Ok(&found)).is_ok(), starts, "{text}");
            assert!(rule.judge(Ok(&[])).is_kept() && rule.gate(Ok(&[])).is_ok(), "{text}");
            assert!(!rule.judge(Err("no netlink")).is_kept(), "{text}");
            assert_eq!(rule.gate(Err("no netlink")).is_ok(), starts, "{text}");
        }
    }
}
