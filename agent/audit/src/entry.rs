//! One line of the log.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::time::{Micros, Stamp};

/// Longest line, in bytes. What would be longer is not an event but an attack on the log.
pub const LINE_MAX: usize = 64 << 10;

/// What stands between an entry and its hash.
const HASH_KEY: &str = ",\"hash\":\"";
/// The hash and what closes the line: 64 digits, a quote, a brace.
const HASH_TAIL: usize = 66;

/// SHA-256 of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash(pub(crate) [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Hash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        from_hex(text).map(Self).ok_or(())
    }
}

pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    if text.len() != 2 * N || !text.as_bytes().iter().all(lower) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? << 4 | digit(1)?).ok()?;
    }
    Some(bytes)
}

/// An event as its line has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The kind of event, as the catalogue names it.
    pub kind: &'static str,
    /// The domain it concerns.
    pub domain: Option<String>,
    /// The policy's decision: `allow`, `ask` or `deny`; `None` for kinds that no verdict is about.
    pub verdict: Option<String>,
    /// The rule that decided.
    pub rule: Option<String>,
    /// The serial of the policy in force.
    pub policy: Option<u64>,
    /// The rest, by name.
    pub detail: BTreeMap<String, Value>,
}

/// The fixed fields, in the order of the line.
#[derive(Serialize)]
struct LogLine<'a> {
    seq: u64,
    time: &'a str,
    monotonic_us: u64,
    boot: &'a str,
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    detail: &'a BTreeMap<String, Value>,
    prev: String,
}

/// Returns the line of an entry, with its newline, and its hash.
pub(crate) fn line(
    seq: u64,
    stamp: Stamp,
    boot: &str,
    record: &Record,
    prev: Hash,
) -> (Vec<u8>, Hash) {
    let Record { kind, domain, verdict, rule, policy, detail } = record;
    let prev = prev.to_string();
    let fields = LogLine {
        seq,
        time: &stamp.wall.to_string(),
        monotonic_us: stamp.highest.0,
        boot,
        kind,
        domain,
        verdict,
        rule,
        policy: *policy,
        detail,
        prev,
    };
    // Strings, numbers and maps with string keys cannot fail to serialise; an empty line is refused as no entry.
    let mut line = serde_json::to_vec(&fields).unwrap_or_default();
    let hash = Hash(Sha256::digest(&line).into());
    line.pop(); // the closing brace
    line.extend_from_slice(format!("{HASH_KEY}{hash}\"}}\n").as_bytes());
    (line, hash)
}

/// An entry read back. Its text is as it was; that its hash is right is not said before [`Entry::hash_holds`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Counts from 1, without a gap.
    pub seq: u64,
    /// The wall clock: RFC 3339, UTC, microseconds.
    pub time: String,
    /// The highest time seen, in microseconds since 1970, UTC; entries of format 1 have none.
    #[serde(default)]
    pub monotonic_us: Option<u64>,
    /// Which boot of the PC.
    pub boot: String,
    /// The kind of event, as the catalogue names it.
    pub kind: String,
    /// Which domain it concerns.
    #[serde(default)]
    pub domain: Option<String>,
    /// The policy's decision, for kinds that have one.
    #[serde(default)]
    pub verdict: Option<String>,
    /// The id of the rule that decided.
    #[serde(default)]
    pub rule: Option<String>,
    /// The serial of the policy that was in force.
    #[serde(default)]
    pub policy: Option<u64>,
    /// All other fields of the event.
    #[serde(default)]
    pub detail: BTreeMap<String, Value>,
    prev: String,
    hash: String,
}

impl Entry {
    /// Reads a line without its newline; `None` if it is no entry.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// Returns the hash it claims for the entry before it.
    #[must_use]
    pub fn prev(&self) -> Option<Hash> {
        self.prev.parse().ok()
    }

    /// Returns the hash it claims for itself.
    #[must_use]
    pub fn hash(&self) -> Option<Hash> {
        self.hash.parse().ok()
    }

    /// Returns whether `line`, from which this was read, has the hash it says.
    #[must_use]
    pub fn hash_holds(&self, line: &[u8]) -> bool {
        hash_of(line).is_some_and(|hash| self.hash() == Some(hash))
    }

    /// Returns what the wall clock said; `None` if that is no time.
    #[must_use]
    pub fn wall(&self) -> Option<SystemTime> {
        Micros::parse(&self.time).map(Micros::system)
    }

    /// Returns the two times it has; `None` for an entry of format 1.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        let wall = Micros::parse(&self.time)?;
        self.monotonic_us.map(|highest| Stamp { wall, highest: Micros(highest) })
    }
}

/// Returns the hash that stands at the end of a line, if it is that of the rest of the line.
fn hash_of(line: &[u8]) -> Option<Hash> {
    let at = line.len().checked_sub(HASH_TAIL + HASH_KEY.len())?;
    let (body, tail) = (line.get(..at)?, line.get(at..)?);
    let digest = Sha256::new_with_prefix(body).chain_update(b"}").finalize();
    let hash = Hash(digest.into());
    let claimed = tail.strip_prefix(HASH_KEY.as_bytes())?.strip_suffix(b"\"}")?;
    let claimed: Hash = std::str::from_utf8(claimed).ok()?.parse().ok()?;
    (claimed == hash).then_some(hash)
}

/// What a line says that the chain depends on, borrowed from it; the rest is only looked at for being well-formed.
#[derive(Debug, Deserialize)]
pub(crate) struct Link<'a> {
    pub(crate) seq: u64,
    pub(crate) time: &'a str,
    #[serde(default)]
    pub(crate) monotonic_us: Option<u64>,
    pub(crate) kind: &'a str,
    prev: &'a str,
    hash: &'a str,
}

impl<'a> Link<'a> {
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    pub(crate) fn prev(&self) -> Option<Hash> {
        self.prev.parse().ok()
    }

    pub(crate) fn hash(&self) -> Option<Hash> {
        self.hash.parse().ok()
    }

    pub(crate) fn hash_holds(&self, line: &[u8]) -> bool {
        hash_of(line).is_some_and(|hash| self.hash() == Some(hash))
    }
}
