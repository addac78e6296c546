//! `[[domain]]`: one of the separated worlds.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use super::chord::Chord;
use super::duration;
use super::name::Name;
use crate::diagnostic::Spanned;
use crate::document::{Form, Mistake, Value};

/// Characters of the longest label: what the banner has room for at the smallest supported width.
const LABEL_MAX: usize = 24;

/// Which domain of the policy, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub(crate) u16);

impl DomainId {
    /// Its place in [`Policy::domains`](crate::Policy::domains), from 0.
    #[must_use]
    pub fn index(self) -> usize {
        self.0.into()
    }
}

/// One of the separated worlds.
#[derive(Clone, Debug)]
pub struct Domain {
    /// What files, sockets and commands call it.
    pub name: Spanned<Name>,
    /// What the banner calls it.
    pub label: Spanned<String>,
    /// The banner's colour.
    pub colour: Spanned<Colour>,
    /// What brings it to the front.
    pub hotkey: Spanned<Chord>,
    /// How it reaches its network.
    pub network: Spanned<Network>,
    /// What remains of it when it starts again.
    pub persistence: Persistence,
    /// Whether it comes first when CPU, memory or disk are short. Also how far it is trusted: what leaves a `high` domain,
    /// and what enters one, is looked at harder.
    pub priority: Priority,
    /// How long the seat may stand idle with it in front before the screen locks; `None` never locks.
    pub idle_lock: Option<Duration>,
    /// Where it may connect to. `None` sets no limit; an empty list allows nothing.
    pub egress: Option<Vec<Spanned<Egress>>>,
}

impl Domain {
    /// Reads everything but the name, which the caller read first so that other rules know it even if this fails.
    pub(crate) fn read(mut form: Form<'_>, name: Option<Spanned<Name>>) -> Option<Self> {
        let label = form.required("label", "\"CLINICAL\"", |v| Some(v.spanned(label(v)?)));
        let colour = form.required("colour", "\"#1b7f3b\"", |v| Some(v.spanned(v.parsed()?)));
        let hotkey = form.required("hotkey", "\"Ctrl+Alt+1\"", |v| Some(v.spanned(v.parsed()?)));
        let network = form.required("network", "\"none\"", |v| {
            Some(v.spanned(v.choice("a kind of network", &Network::WORDS)?))
        });
        let persistence = form.required("persistence", "\"discard\"", |v| {
            v.choice("a kind of persistence", &Persistence::WORDS)
        });
        let priority = form.optional("priority", |v| v.choice("a priority", &Priority::WORDS));
        let idle_lock = form.optional("idle_lock", |v| {
            duration::read(v, "the idle time before the lock", 10..=86_400)
        });
        let egress = form.optional("egress", |v| v.list_of(|v| Some(v.spanned(Egress::read(v)?))));
        form.close();
        Some(Self {
            name: name?,
            label: label?,
            colour: colour?,
            hotkey: hotkey?,
            network: network?,
            persistence: persistence?,
            priority: priority.unwrap_or(Priority::Normal),
            idle_lock,
            egress,
        })
    }

    /// Whether its priority is `high`.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.priority == Priority::High
    }
}

fn label(value: Value<'_>) -> Option<String> {
    let text = value.string()?;
    let length = text.chars().count();
    let printable =
        text.chars().all(|c| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation());
    if text.trim().is_empty() || length > LABEL_MAX || !printable || text.trim() != text {
        return value.wrong(
            "the banner cannot show this label",
            format!("write 1 to {LABEL_MAX} letters, digits, spaces and plain punctuation"),
        );
    }
    Some(text.to_owned())
}

/// A colour, eight bits a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Colour {
    /// Red.
    pub red: u8,
    /// Green.
    pub green: u8,
    /// Blue.
    pub blue: u8,
}

impl FromStr for Colour {
    type Err = Mistake;
    fn from_str(text: &str) -> Result<Self, Mistake> {
        let hex = text
            .strip_prefix('#')
            .filter(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        let number = hex.and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some([_, red, green, blue]) = number.map(u32::to_be_bytes) else {
            return Err(Mistake::new(
                format!("\"{}\" is not a colour", text.escape_debug()),
                "write # and six hexadecimal digits, red, green and blue: \"#1b7f3b\"",
            ));
        };
        Ok(Self { red, green, blue })
    }
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

/// Defines an enumeration by the words the policy writes for it.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant),+
        }

        impl $name {
            /// Every value with the word the policy writes for it.
            pub const WORDS: [(&'static str, Self); [$($word),+].len()] = [$(($word, Self::$variant)),+];

            /// The word the policy writes for it.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How a domain reaches its network.
    Network {
        /// It owns a network card.
        Passthrough = "passthrough",
        /// It has a VLAN of the PC's card.
        Vlan = "vlan",
        /// It has none.
        None = "none",
    }
}

words! {
    /// What remains of a domain when it starts again.
    Persistence {
        /// Everything.
        Keep = "keep",
        /// Nothing: it returns to its base image at every start.
        Discard = "discard",
    }
}

words! {
    /// Who wins when CPU, memory or disk are short.
    Priority {
        /// Comes first.
        High = "high",
        /// Waits.
        Normal = "normal",
    }
}

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
    fn read(value: Value<'_>) -> Option<Self> {
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
