//! The host-network rule: once its NICs are handed over, the host has no configured IP interface
//! but loopback. An interface that is up without an address is no network; one with any address,
//! an IPv6 link-local one too, is.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use serde::{Deserialize, Serialize};

/// An interface of the host with an IP address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfiguredInterface {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

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

/// From (name, is it loopback, address).
fn collect(addresses: impl Iterator<Item = (String, bool, IpAddr)>) -> Vec<ConfiguredInterface> {
    let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (name, _, address) in addresses.filter(|(_, loopback, _)| !loopback) {
        by_name.entry(name).or_default().push(address);
    }
    by_name.into_iter().map(|(name, addresses)| ConfiguredInterface { name, addresses }).collect()
}

/// `enp0s3 (10.0.0.5, fe80::1)`.
#[must_use]
pub fn describe(interfaces: &[ConfiguredInterface]) -> String {
    let one = |interface: &ConfiguredInterface| {
        let addresses: Vec<String> = interface.addresses.iter().map(IpAddr::to_string).collect();
        format!("{} ({})", interface.name, addresses.join(", "))
    };
    interfaces.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What to do about them.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
