//! `egress`: the services outside that a domain may connect to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

use super::words::words;
use crate::document::{Mistake, Value};

words! {
    /// A transport protocol.
    Protocol {
        /// TCP.
        Tcp = "tcp",
        /// UDP.
        Udp = "udp",
    }
}

/// A service outside that a domain may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Egress {
    /// Which machines.
    pub to: Prefix,
    /// Which port of theirs.
    pub port: u16,
    /// By which protocol.
    pub proto: Protocol,
    /// What for, in the officer's words.
    pub purpose: String,
}

impl Egress {
    pub(crate) fn read(value: Value<'_>) -> Option<Self> {
        let mut form = value.form("an egress entry")?;
        let to = form.required("to", "\"10.10.0.0/16\"", Value::parsed);
        let port = form.required("port", "443", |v| v.integer("the port", 1..=u16::MAX));
        let proto = form
            .required("proto", "\"tcp\"", |v| v.choice("a protocol known here", &Protocol::WORDS));
        let purpose = form.required("purpose", "\"HTTPS\"", |v| v.string().map(str::to_owned));
        form.close();
        Some(Self { to: to?, port: port?, proto: proto?, purpose: purpose? })
    }
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
    /// The address as a number, aligned to the left of 128 bits.
    pub(crate) fn bits(self) -> u128 {
        match self.address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
            IpAddr::V6(v6) => v6.to_bits(),
        }
    }

    /// How many bits an address of this family has.
    pub(crate) fn width(self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    /// The range of `length` bits that starts with `bits`, in this one's family.
    pub(crate) fn sibling(self, bits: u128, length: u8) -> Self {
        let kept = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        let address = match self.address {
            IpAddr::V4(_) => IpAddr::V4(u32::try_from(kept >> 96).unwrap_or(u32::MAX).into()),
            IpAddr::V6(_) => IpAddr::V6(kept.into()),
        };
        Self { address, length }
    }

    /// Whether every address of `other` is one of this range's.
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
                "write for example \"10.10.0.0/16\", \"2001:db8::/32\" or one address",
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
