//! `egress`: the services outside that a domain may connect to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use notation::meant;
use serde::Serialize;

use crate::document::{Mistake, Value};
use crate::terms::words;

words! {
    /// A transport protocol.
    Protocol {
        /// The Transmission Control Protocol.
        Tcp = "tcp",
        /// The User Datagram Protocol.
        Udp = "udp",
    }
}

/// A service outside that a domain may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Egress {
    /// The addresses of the machines.
    pub to: Prefix,
    /// Which port of theirs.
    pub port: u16,
    /// The transport protocol.
    pub proto: Protocol,
    /// What for, in the officer's words.
    pub purpose: String,
}

impl Egress {
    pub(crate) fn read(value: Value<'_>) -> Option<Self> {
        let mut form = value.form("an egress entry")?;
        let to = form.required("to", "\"10.10.0.0/16\"", Value::parsed);
        let port = form.required("port", "443", port);
        let proto = form
            .required("proto", "\"tcp\"", |v| v.choice("a protocol known here", &Protocol::WORDS));
        let purpose = form.required("purpose", "\"HTTPS\"", |v| v.string().map(str::to_owned));
        form.close();
        Some(Self { to: to?, port: port?, proto: proto?, purpose: purpose? })
    }
}

/// Ports of the longest range that a remedy writes out.
const PORTS_SHOWN: u64 = 4;

/// Reads one port. Ranges and lists are not of this language: each is a place of its own, with its own purpose.
fn port(value: Value<'_>) -> Option<u16> {
    let number = |text: &str| meant::whole(text).filter(|port| (1..=65_535).contains(port));
    let several = match value.is_integer() {
        true => None,
        false => {
            let plain = value.plain();
            let text = plain.trim_start_matches('[').trim_end_matches(']');
            // `443/tcp`, as firewalls write it.
            let alone = text.split_once('/').filter(|(_, proto)| matches!(*proto, "tcp" | "udp"));
            if let Some(port) = alone.and_then(|(port, _)| number(port.trim())) {
                return value
                    .not_a("a port", format!("write port = {port}, and the protocol as `proto`"));
            }
            meant::numbers(text)
        }
    };
    let Some(range) = several else {
        return value.integer("the port", 1..=u16::MAX);
    };
    let (first, last) = (range.start(), range.end());
    let help = match last.saturating_sub(*first) {
        0 => format!("write {first}"),
        1..PORTS_SHOWN if !value.plain().contains(',') => {
            let each: Vec<String> = range.map(|port| format!("port = {port}")).collect();
            format!("write one entry for each: {}", each.join(", "))
        }
        _ if value.plain().contains(',') => "write one entry for each of these ports".to_owned(),
        _ => format!("write one entry for each port that is used from {first} to {last}"),
    };
    value.not_a("one port", help)
}

impl fmt::Display for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} port {}/{} ({})", self.to, self.port, self.proto, self.purpose)
    }
}

/// A range of addresses: `10.10.0.0/16`, `2001:db8::/32`, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The first address; all bits past `length` are zero.
    pub address: IpAddr,
    /// How many leading bits are fixed.
    pub length: u8,
}

impl Prefix {
    /// Returns the address as a number, aligned to the left of 128 bits.
    #[must_use]
    pub fn bits(self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// Returns how many bits an address of this family has.
    #[must_use]
    pub fn width(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// Returns the range of `length` bits that starts with `bits`, in this one's family.
    #[must_use]
    pub fn sibling(self, bits: u128, length: u8) -> Self {
        let kept = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept >> 96).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Self { address, length }
    }

    /// Returns whether every address of `other` is one of this range's.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.width() == other.width()
            && self.length <= other.length
            && self.sibling(other.bits(), self.length) == self
    }
}

impl FromStr for Prefix {
    type Err = Mistake;
    fn from_str(text: &str) -> Result<Self, Mistake> {
        let not_one = || {
            Mistake::new(
                format!("\"{}\" is not an address or a range of addresses", text.escape_debug()),
                match (netmask(text), text.contains(|c: char| c.is_ascii_alphabetic())) {
                    (Some(prefix), _) => format!("write \"{prefix}\""),
                    (None, true) if !text.contains(':') => {
                        "write its address: names are looked up by nobody here".to_owned()
                    }
                    (None, _) => "write one address, or the first of a range with / and how many of its bits are fixed".to_owned(),
                },
            )
        };
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| not_one())?;
        let whole = Self { address, length: if address.is_ipv4() { 32 } else { 128 } };
        let length = match length {
            Some(length) => {
                length.parse().ok().filter(|&l| l <= whole.width()).ok_or_else(not_one)?
            }
            None => whole.length,
        };
        let prefix = whole.sibling(whole.bits(), length);
        if prefix.address != address {
            return Err(Mistake::new(
                format!("{address} lies inside the range, not at its start"),
                format!("write \"{prefix}\" for the range, or \"{address}\" for the one address"),
            ));
        }
        Ok(prefix)
    }
}

/// Returns `10.10.0.0/255.255.0.0`, as some devices write it.
fn netmask(text: &str) -> Option<Prefix> {
    let (address, mask) = text.split_once('/')?;
    let (address, mask): (Ipv4Addr, Ipv4Addr) = (address.parse().ok()?, mask.parse().ok()?);
    let length = mask.to_bits().leading_ones();
    let whole = mask.to_bits().checked_shl(length).unwrap_or(0) == 0;
    let length = u8::try_from(length).ok().filter(|_| whole)?;
    let prefix = Prefix { address: address.into(), length };
    Some(prefix.sibling(prefix.bits(), length))
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
