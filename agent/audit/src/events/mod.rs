//! The catalogue of what is recorded: a type for each kind of entry, from which its line, its place in `--kind` and its section of
//! `docs/security-office/audit-events.md` come. There is no other way to write an entry.
//!
//! Of another version's entries, [`AuditEvent::read`] passes over fields that it does not know; an entry of a kind it does not know, or
//! without a field that is always there, it does not read. Such an entry is shown and verified all the same, as its [`Entry`].

mod catalogue;
mod form;
mod grant;
mod table;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use catalogue::*;
pub use form::{Outcome, Verdict};
pub use grant::{BreakGlassOpening, GrantEvent};

pub use crate::entry::Record;

use crate::entry::Entry;

/// Longest text of somebody else's that is recorded, in bytes.
const TEXT_MAX: usize = 4096;

/// Returns as much of a text of somebody else's as is recorded.
#[must_use]
pub fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(TEXT_MAX)).unwrap_or_default().to_owned()
}

/// On whose doing an entry is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The agent itself.
    Agent,
    /// An account of the PC's, over the control socket or as root.
    Account,
    /// Whoever sits at the PC, or an account in their place.
    Person,
    /// The domain's guest.
    Guest,
    /// What was plugged in.
    Device,
    /// One of these, as the entry says.
    Various,
}

impl Actor {
    fn in_words(self) -> &'static str {
        match self {
            Self::Agent => "the agent",
            Self::Account => "an account of the PC",
            Self::Person => "whoever is at the PC, or an account in their place",
            Self::Guest => "the guest of the domain",
            Self::Device => "the device that is plugged in",
            Self::Various => "whom or what the entry names, or the agent",
        }
    }
}

/// What a field says of the two questions that are asked of every entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The field answers neither.
    Plain,
    /// Who is behind it, or which entry names them.
    Who,
    /// What came of it.
    Outcome,
}

/// A kind of entry, as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// What the log calls it.
    pub name: &'static str,
    /// Its type in this module.
    pub type_name: &'static str,
    meaning: &'static str,
    /// On whose doing it is written.
    pub actor: Actor,
    /// What such an entry says, beyond what every entry does.
    pub fields: &'static [Field],
}

impl Kind {
    /// Returns what such an entry means.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim()
    }

    /// Returns who is behind such an entry, in words, and the fields that name them.
    pub fn who(&self) -> (&'static str, impl Iterator<Item = &'static str>) {
        (self.actor.in_words(), self.with(Role::Who))
    }

    /// Returns the fields that say what came of it; without one that is what its kind says.
    pub fn outcome(&self) -> impl Iterator<Item = &'static str> {
        self.with(Role::Outcome)
    }

    fn with(&self, role: Role) -> impl Iterator<Item = &'static str> {
        self.fields.iter().filter(move |field| field.role == role).map(Field::name)
    }
}

/// A field of an entry, as it is documented.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: &'static str,
    meaning: &'static str,
    role: Role,
    /// What its value is.
    pub form: &'static str,
    /// Whether every entry of the kind has it.
    pub always: bool,
    /// A value of it.
    #[cfg(test)]
    example: fn() -> Value,
}

impl Field {
    /// Returns its name in the log.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.trim_start_matches("r#")
    }

    /// Returns what it means.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        self.meaning.trim()
    }

    /// Returns whether it stands among the fixed fields of the line, and not in `detail`.
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        FIXED.contains(&self.name)
    }
}

/// How an entry reads by the catalogue of this version.
#[derive(Clone, Debug)]
pub enum Recognition {
    /// It reads as this event.
    Event(Box<AuditEvent>),
    /// It reads as no event, though its kind is in the catalogue: something that is always there is missing, or is not what it should be.
    Incomplete(&'static Kind),
    /// It reads as no event: its kind is not in the catalogue.
    Unknown,
}

const DOMAIN: &str = "domain";
const VERDICT: &str = "verdict";
const RULE: &str = "rule";
const POLICY: &str = "policy";
/// Fields that stand in the line itself, where an event has them.
const FIXED: [&str; 4] = [DOMAIN, VERDICT, RULE, POLICY];

impl AuditEvent {
    /// Returns the record of it, as the log's line has it.
    #[must_use]
    pub fn record(&self) -> Record {
        // Strings, numbers, lists and maps with strings for keys cannot fail to serialise.
        let fields = match self.fields() {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let mut detail: BTreeMap<String, Value> =
            fields.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let mut text = |name| match detail.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (domain, verdict, rule) = (text(DOMAIN), text(VERDICT), text(RULE));
        let policy = detail.remove(POLICY).and_then(|serial| serial.as_u64());
        Record { kind: self.kind(), domain, verdict, rule, policy, detail }
    }

    /// Returns the policy's verdict, of an event that has one.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let word = self.record().verdict?;
        serde_json::from_value(Value::String(word)).ok()
    }

    /// Reads an entry by this catalogue, and says why it cannot be.
    #[must_use]
    pub fn recognize(entry: &Entry) -> Recognition {
        match (Self::read(entry), Self::kind_of(&entry.kind)) {
            (Some(event), _) => Recognition::Event(Box::new(event)),
            (None, Some(kind)) => Recognition::Incomplete(kind),
            (None, None) => Recognition::Unknown,
        }
    }

    /// Reads what an entry says; `None` if it is not of this catalogue.
    #[must_use]
    pub fn read(entry: &Entry) -> Option<Self> {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let fixed = [
            (DOMAIN, text(&entry.domain)),
            (VERDICT, text(&entry.verdict)),
            (RULE, text(&entry.rule)),
            (POLICY, entry.policy.map(Value::from)),
        ];
        let fixed = fixed.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let detail = entry.detail.iter().map(|(name, value)| (name.clone(), value.clone()));
        Self::from_fields(&entry.kind, detail.chain(fixed).collect())
    }

    /// Returns the kind of this name, if it is of this catalogue.
    #[must_use]
    pub fn kind_of(name: &str) -> Option<&'static Kind> {
        Self::KINDS.iter().find(|kind| kind.name == name)
    }
}

#[cfg(test)]
mod tests;
