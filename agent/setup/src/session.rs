//! Which NIC the person who runs setup comes in by: when a domain gets it, that session ends.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Pc;
use crate::hardware::Nic;

/// Interfaces that one may stand on: a VLAN on a bridge on a bond of NICs is far fewer.
const INTERFACES_MAX: usize = 64;
/// A route's flag for one that leads through a gateway (`RTF_GATEWAY`).
const THROUGH_GATEWAY: u32 = 2;

/// What goes through a NIC now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// The session in which setup runs.
    Session,
    /// Everything that the PC sends to other networks.
    DefaultRoute,
}

/// The interfaces that matter to whoever runs setup.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    session: BTreeSet<String>,
    default: BTreeSet<String>,
}

impl Interfaces {
    /// Looks at the PC's routes; `ssh_connection` is the variable of that name, by which `sshd` says who is connected to what.
    pub(crate) fn of(pc: &Pc, ssh_connection: Option<&str>) -> Self {
        let server = ssh_connection.and_then(|words| words.split_ascii_whitespace().nth(2));
        let session = server.and_then(|server| owner(pc, server));
        let below = |names: Vec<String>| standing_on(pc, names);
        Self { session: below(session.into_iter().collect()), default: below(default_routes(pc)) }
    }

    /// Returns what is to be said of interfaces that matter and are none of these NICs': the host's network services do not start any more.
    pub(crate) fn left(&self, nics: &[(&Nic, &str)]) -> Option<String> {
        let is_left = |name: &&String| !nics.iter().any(|(nic, _)| nic.carries(name));
        let named = |names: &BTreeSet<String>| names.iter().find(is_left).cloned();
        if let Some(name) = named(&self.session) {
            return Some(format!(
                "THIS SESSION COMES IN OVER {name}, WHICH NO DOMAIN GETS: from the next boot on the host's network services do not start, and it cannot be had again"
            ));
        }
        named(&self.default).map(|name| {
            format!(
                "this PC reaches its network over {name}, which no domain gets: from the next boot on the host's network services do not start"
            )
        })
    }

    /// Returns what goes through a NIC.
    pub(crate) fn through(&self, nic: &Nic) -> Option<Traffic> {
        let any = |names: &BTreeSet<String>| names.iter().any(|name| nic.carries(name));
        if any(&self.session) {
            return Some(Traffic::Session);
        }
        any(&self.default).then_some(Traffic::DefaultRoute)
    }
}

/// Returns the interface that has the address which a client is connected to.
fn owner(pc: &Pc, server: &str) -> Option<String> {
    // An address that counts on one link alone names its interface.
    let (address, zone) = server.split_once('%').unwrap_or((server, ""));
    if !zone.is_empty() {
        return Some(zone.to_owned());
    }
    match address.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => owner_of_v4(pc, address),
        IpAddr::V6(address) => owner_of_v6(pc, address),
    }
}

/// A line of `/proc/net/route`.
struct Route {
    interface: String,
    destination: u32,
    mask: u32,
    flags: u32,
}

fn routes(pc: &Pc) -> Vec<Route> {
    let text = pc.proc_text("net/route");
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let number = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok();
        Some(Route {
            interface: (*fields.first()?).to_owned(),
            destination: number(1)?,
            flags: number(3)?,
            mask: number(7)?,
        })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// Finds the interface whose network an address is in that its interface is in; the kernel writes it as it lies in memory.
fn owner_of_v4(pc: &Pc, address: Ipv4Addr) -> Option<String> {
    let address = u32::from_ne_bytes(address.octets());
    let is_there = |route: &Route| {
        route.mask != 0
            && route.flags & THROUGH_GATEWAY == 0
            && address & route.mask == route.destination
    };
    let near = routes(pc).into_iter().filter(is_there);
    near.max_by_key(|route| route.mask.count_ones()).map(|route| route.interface)
}

fn owner_of_v6(pc: &Pc, address: Ipv6Addr) -> Option<String> {
    let text = pc.proc_text("net/if_inet6");
    text.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let own = u128::from_str_radix(fields.next()?, 16).ok()?;
        (own == u128::from(address)).then(|| fields.last().map(str::to_owned))?
    })
}

fn default_routes(pc: &Pc) -> Vec<String> {
    let four = routes(pc).into_iter().filter(|route| route.mask == 0 && route.destination == 0);
    let mut names: Vec<String> = four.map(|route| route.interface).collect();
    let text = pc.proc_text("net/ipv6_route");
    names.extend(text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let anywhere = fields.first()?.bytes().all(|digit| digit == b'0');
        let name = *fields.last()?;
        (anywhere && fields.get(1) == Some(&"00") && name != "lo").then(|| name.to_owned())
    }));
    names
}

/// Returns those and whatever they stand on: a bridge's ports, a bond's cards, the card of a VLAN.
fn standing_on(pc: &Pc, names: Vec<String>) -> BTreeSet<String> {
    let (mut found, mut left) = (BTreeSet::new(), names);
    while let Some(name) = left.pop() {
        // A name is one part of a path.
        let is_name = !name.is_empty() && !name.contains('/') && name != "..";
        if !is_name || found.len() >= INTERFACES_MAX || !found.insert(name.clone()) {
            continue;
        }
        let entries = crate::names_in(&pc.sysfs.path("class/net").join(&name));
        left.extend(
            entries.iter().filter_map(|entry| entry.strip_prefix("lower_")).map(str::to_owned),
        );
    }
    found
}
