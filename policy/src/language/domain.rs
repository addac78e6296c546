//! `[[domain]]`: one of the separated worlds.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::chord::Chord;
use super::egress::Egress;
use super::time_of_day::TimeOfDay;
use crate::diagnostic::{Diagnostic, Spanned};
use crate::document::{Form, Mistake, Value, duration};
use crate::terms::{Name, words};
use crate::version::Version;

/// Characters of the longest label: what the banner has room for at the smallest supported width.
const LABEL_MAX: usize = 24;

/// Places of the longest `egress`: what a firewall's rule set holds and a person still reads.
const EGRESS_MAX: usize = 256;

/// Times of the longest `renew_at`: one an hour. A desktop that begins anew more often is of no use to anybody.
const RENEW_AT_MAX: usize = 24;

/// The version that read the first policy with `renew_at` or `renew_when_idle`.
const RENEWALS_SINCE: Version = Version::new(0, 2, 0);

/// Which domain of the policy, in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

impl DomainId {
    /// Returns its place in [`Policy::domains`](crate::Policy::domains), from 0.
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
    /// The colour of its banner.
    pub colour: Spanned<Colour>,
    /// What brings it to the front.
    pub hotkey: Spanned<Chord>,
    /// How it reaches its network.
    pub network: Spanned<Network>,
    /// What remains of it when it starts again.
    pub persistence: Persistence,
    /// At which times of day it begins anew while it runs. Only of one that discards.
    pub renew_at: Option<Spanned<Vec<Spanned<TimeOfDay>>>>,
    /// After how long without input it begins anew, if it was used. Only of one that discards.
    pub renew_when_idle: Option<Spanned<Duration>>,
    /// Whether it comes first when CPU, memory or disk are short. Also how far it is trusted: what leaves a `high` domain,
    /// and what enters one, is looked at harder.
    pub priority: Priority,
    /// How long the PC may stand idle before the screen locks, whatever is in front; `None` asks for no lock. The
    /// shortest of all domains counts ([`Policy::idle_lock`](crate::Policy::idle_lock)).
    pub idle_lock: Option<Spanned<Duration>>,
    /// Where it may connect to. `None` sets no limit; an empty list allows nothing.
    pub egress: Option<Spanned<Vec<Spanned<Egress>>>>,
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
        let renew_at =
            form.optional_since(RENEWALS_SINCE, "renew_at", |v| Some(v.spanned(renew_at(v)?)));
        let renew_when_idle = form.optional_since(RENEWALS_SINCE, "renew_when_idle", |v| {
            Some(v.spanned(duration::read(v, "the idle time before the renewal", 60..=86_400)?))
        });
        let priority = form.optional("priority", |v| v.choice("a priority", &Priority::WORDS));
        let idle_lock = form.optional("idle_lock", |v| {
            Some(v.spanned(duration::read(v, "the idle time before the lock", 10..=86_400)?))
        });
        let egress = form.optional("egress", |v| {
            Some(v.spanned(v.list_of(EGRESS_MAX, |v| Some(v.spanned(Egress::read(v)?)))?))
        });
        form.close();
        Some(Self {
            name: name?,
            label: label?,
            colour: colour?,
            hotkey: hotkey?,
            network: network?,
            persistence: persistence?,
            renew_at,
            renew_when_idle,
            priority: priority.unwrap_or(Priority::Normal),
            idle_lock,
            egress,
        })
    }

    /// Returns whether its priority is `high`.
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.priority == Priority::High
    }
}

fn renew_at(value: Value<'_>) -> Option<Vec<Spanned<TimeOfDay>>> {
    let times = value.list_of(RENEW_AT_MAX, |v| Some(v.spanned(v.parsed()?)))?;
    if times.is_empty() {
        return value.wrong(
            "this list names no time",
            "write times of day, such as [\"07:00\", \"15:00\", \"23:00\"], or remove `renew_at`",
        );
    }
    value.sink().all_different(
        times.iter().map(|time: &Spanned<TimeOfDay>| (time.value, time.span)),
        |time, span, first| {
            let message = format!("the time \"{time}\" is listed twice");
            Diagnostic::error(span, message, "remove one").and(first, "the other one")
        },
    );
    Some(times)
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
    /// The red part, 0 to 255.
    pub red: u8,
    /// The green part, 0 to 255.
    pub green: u8,
    /// The blue part, 0 to 255.
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
                match meant(text) {
                    Some(colour) => format!("write \"{colour}\""),
                    None => "write # and six hexadecimal digits: two each for red, green and blue"
                        .to_owned(),
                },
            ));
        };
        Ok(Self { red, green, blue })
    }
}

/// The colours that HTML has names for.
const NAMED: [(&str, &str); 18] = [
    ("black", "000000"),
    ("silver", "c0c0c0"),
    ("gray", "808080"),
    ("grey", "808080"),
    ("white", "ffffff"),
    ("maroon", "800000"),
    ("red", "ff0000"),
    ("purple", "800080"),
    ("fuchsia", "ff00ff"),
    ("green", "008000"),
    ("lime", "00ff00"),
    ("olive", "808000"),
    ("yellow", "ffff00"),
    ("navy", "000080"),
    ("blue", "0000ff"),
    ("teal", "008080"),
    ("aqua", "00ffff"),
    ("orange", "ffa500"),
];

/// Returns the colour that somebody means by its name, by three digits, or without the `#`.
fn meant(text: &str) -> Option<Colour> {
    let word = text.trim().to_ascii_lowercase();
    let digits = word.strip_prefix('#').or(word.strip_prefix("0x")).unwrap_or(&word);
    let hex = digits.bytes().all(|b| b.is_ascii_hexdigit());
    let digits = match NAMED.iter().find(|(name, _)| *name == word) {
        Some((_, digits)) => (*digits).to_owned(),
        None if hex && digits.len() == 6 => digits.to_owned(),
        None if hex && digits.len() == 3 => digits.chars().flat_map(|c| [c, c]).collect(),
        None => return None,
    };
    format!("#{digits}").parse().ok()
}

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.red, self.green, self.blue)
    }
}

words! {
    /// How a domain reaches its network.
    Network {
        /// It owns a network card.
        Passthrough = "passthrough",
        /// It has a VLAN of the PC's card.
        Vlan = "vlan",
        /// It has no network.
        None = "none",
    }
}

words! {
    /// What remains of a domain when it starts again.
    Persistence {
        /// Everything: it writes to the images themselves.
        Keep = "keep",
        /// Nothing: it returns to its base image at every start.
        Discard = "discard",
    }
}

words! {
    /// Who wins when CPU, memory or disk are short.
    Priority {
        /// The domain comes first for processors, memory and disks.
        High = "high",
        /// It waits for those that come first.
        Normal = "normal",
    }
}
