//! What this version makes of everything that the language can say: one table, for every tool.
//!
//! A key of a policy is a promise to whoever reads it. [`LANGUAGE`] says of each who keeps it, and what changing it means to
//! `policy diff`; a test holds the table against the keys that are read. What nothing enforces is a [`Gap`], and every tool says so by
//! the same row:
//!
//! | tool | says |
//! | --- | --- |
//! | `check` | a warning at the place; an error where the policy states a separation that does not exist |
//! | `matrix`, `diff` | "not enforced by this version" beside what is so instead |
//! | `explain` | what of the request cannot work |
//! | `new` | its text names no gap without saying that it is one (a test) |
//! | `status`, `doctor` | a note, a warning |
//!
//! What a verdict owes is held in the same way: [`Obligation::met_by`] names who sees to it in the agent, or the gap.
//!
//! A later version that enforces something takes its gap out of the table, and all of them stop saying it.

use std::fmt;

use DiffTreatment::{AsSetting, ByDecisions, Not};
use Enforcer::{ByTheAgent, ByTheVmm, Told};

use crate::decide::Obligation;
use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::language::{ClipboardAction, Domain, MediaType, Network, UsbAction, UsbClass};
use crate::policy::Policy;

/// A key of the language.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its tables and itself, joined by dots: `domain.egress`, `usb.match.class`.
    pub path: &'static str,
    /// Who keeps what it says.
    pub kept: Enforcer,
    /// What a change of it means to `policy diff`.
    pub compared: DiffTreatment,
}

/// Who keeps what a key says.
#[derive(Clone, Copy, Debug)]
pub enum Enforcer {
    /// The agent does, whoever runs the guest.
    ByTheAgent,
    /// Bulkhead's own VMM and its supervisor do; a domain with `vmm = "external"` is somebody else's to run.
    ByTheVmm,
    /// Nothing is to be kept: it is for the reader, the audit or the tools.
    Told,
}

/// What a change of a key means to `policy diff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffTreatment {
    /// It shows in what is decided.
    ByDecisions,
    /// It shows as a setting.
    AsSetting,
    /// It does not matter, and why.
    Not(&'static str),
}

/// Something that the language can say and this version does not enforce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The key: a `path` of [`LANGUAGE`].
    pub key: &'static str,
    /// The value, as [`GapOccurrence::value`] has it; `None` is every value.
    pub value: Option<&'static str>,
    /// Whether `check` refuses it: who believes it is worse off than who does not read it.
    pub severity: Severity,
    /// What is so instead.
    pub instead: &'static str,
    /// What to write instead, or do without.
    pub remedy: &'static str,
}

/// How every tool marks it.
pub const MARK: &str = "not enforced by this version";

const fn key(path: &'static str, kept: Enforcer, compared: DiffTreatment) -> Key {
    Key { path, kept, compared }
}

/// The name that the audit and the other keys of the policy call a rule by.
const A_NAME: DiffTreatment = Not("a rule decides the same under another name");

/// Every key of the language, in the order of the handbook.
pub const LANGUAGE: &[Key] = &[
    key("format", ByTheAgent, Not("there is one format that is read")),
    key(
        "serial",
        ByTheAgent,
        Not("it orders policies and allows nothing; a PC refuses one that goes back"),
    ),
    key("issuer", Told, AsSetting),
    key("domain.name", ByTheAgent, AsSetting),
    key("domain.label", ByTheAgent, AsSetting),
    key("domain.colour", ByTheAgent, AsSetting),
    key("domain.hotkey", ByTheAgent, AsSetting),
    key("domain.network", ByTheVmm, AsSetting),
    key("domain.persistence", ByTheVmm, AsSetting),
    key("domain.renew_at", ByTheVmm, AsSetting),
    key("domain.renew_when_idle", ByTheVmm, AsSetting),
    key("domain.priority", ByTheVmm, AsSetting),
    key("domain.idle_lock", ByTheAgent, AsSetting),
    key("domain.egress.to", ByTheVmm, AsSetting),
    key("domain.egress.port", ByTheVmm, AsSetting),
    key("domain.egress.proto", ByTheVmm, AsSetting),
    key("domain.egress.purpose", Told, Not("it is a word to the reader")),
    key("hotkeys.copy", ByTheAgent, AsSetting),
    key("hotkeys.paste", ByTheAgent, AsSetting),
    key("hotkeys.lock", ByTheAgent, AsSetting),
    key("hotkeys.break_glass", ByTheAgent, AsSetting),
    key("detector.name", Told, Not("what a rule looks for is compared by its pattern")),
    key("detector.regex", ByTheAgent, ByDecisions),
    key("clipboard.id", Told, A_NAME),
    key("clipboard.from", ByTheAgent, ByDecisions),
    key("clipboard.to", ByTheAgent, ByDecisions),
    key("clipboard.types", ByTheAgent, ByDecisions),
    key("clipboard.max_bytes", ByTheAgent, ByDecisions),
    key("clipboard.action", ByTheAgent, ByDecisions),
    key("clipboard.inspect", ByTheAgent, ByDecisions),
    key("usb.id", Told, A_NAME),
    key("usb.match.class", ByTheAgent, ByDecisions),
    key("usb.match.vendor", ByTheAgent, ByDecisions),
    key("usb.match.product", ByTheAgent, ByDecisions),
    key("usb.match.serial", ByTheAgent, ByDecisions),
    key("usb.match.port", ByTheAgent, ByDecisions),
    key("usb.to", ByTheAgent, ByDecisions),
    key("usb.action", ByTheAgent, ByDecisions),
    key("usb.break_glass", ByTheAgent, ByDecisions),
    key("input.id", Told, A_NAME),
    key("input.match.vendor", ByTheAgent, ByDecisions),
    key("input.match.product", ByTheAgent, ByDecisions),
    key("input.match.serial", ByTheAgent, ByDecisions),
    key("input.match.port", ByTheAgent, ByDecisions),
    key("input.to", ByTheAgent, ByDecisions),
    key("break_glass.max_duration", ByTheAgent, AsSetting),
    key("break_glass.reason_required", ByTheAgent, AsSetting),
    key("break_glass.reasons", ByTheAgent, AsSetting),
    key("break_glass.allow_usb", ByTheAgent, ByDecisions),
    key("expect.clipboard.from", ByTheAgent, AsSetting),
    key("expect.clipboard.to", ByTheAgent, AsSetting),
    key("expect.clipboard.type", ByTheAgent, AsSetting),
    key("expect.clipboard.text", ByTheAgent, AsSetting),
    key("expect.clipboard.bytes", ByTheAgent, AsSetting),
    key("expect.usb.vendor", ByTheAgent, AsSetting),
    key("expect.usb.product", ByTheAgent, AsSetting),
    key("expect.usb.serial", ByTheAgent, AsSetting),
    key("expect.usb.port", ByTheAgent, AsSetting),
    key("expect.usb.interfaces", ByTheAgent, AsSetting),
    key("expect.usb.to", ByTheAgent, AsSetting),
    key("expect.verdict", ByTheAgent, AsSetting),
    key("expect.rule", ByTheAgent, AsSetting),
    key("expect.break_glass", ByTheAgent, AsSetting),
];

/// What this version does not enforce.
pub const GAPS: &[Gap] = &[
    Gap {
        key: "domain.egress",
        value: Some("nowhere"),
        severity: Severity::Error,
        instead: "its network card reaches whatever is on its network",
        remedy: "write `network = \"none\"` for a desktop that is to reach nothing, or remove `egress`",
    },
    Gap {
        key: "domain.egress",
        value: None,
        severity: Severity::Warning,
        instead: "its network card reaches whatever is on its network",
        remedy: "have the hospital's firewall or switch limit it; the list says what they are to let through",
    },
    Gap {
        key: "domain.network",
        value: Some(Network::Vlan.word()),
        severity: Severity::Warning,
        instead: "it has no network, and a machine file that gives it a network card is refused",
        remedy: "write \"passthrough\" for a network card of its own, or \"none\"; a switch can put the card's port into a VLAN",
    },
    Gap {
        key: "clipboard.types",
        value: Some(MediaType::TextHtml.word()),
        severity: Severity::Warning,
        instead: "formatted text never crosses; desktops hand it over as plain text",
        remedy: "write \"text/plain\"",
    },
    isochronous("video"),
    isochronous("audio"),
    isochronous("audio-video"),
];

const fn isochronous(class: &'static str) -> Gap {
    Gap {
        key: "usb.match.class",
        value: Some(class),
        severity: Severity::Warning,
        instead: "most such devices cannot work, since cameras and sound use isochronous transfers, which are not carried",
        remedy: "leave the rule out until they are carried; still cameras of the class \"image\" work",
    }
}

/// Returns the gap that a value of a key falls into.
#[must_use]
pub fn gap(key: &str, value: &str) -> Option<&'static Gap> {
    let is_it = |gap: &&Gap| gap.key == key && gap.value.is_none_or(|this| this == value);
    GAPS.iter().find(is_it)
}

/// Returns whether this version carries a type of clipboard content.
#[must_use]
pub fn of_type(media_type: MediaType) -> Option<&'static Gap> {
    gap("clipboard.types", media_type.word())
}

/// Returns whether this version carries what devices of a class are for.
#[must_use]
pub fn of_class(class: UsbClass) -> Option<&'static Gap> {
    let word = UsbClass::WORDS.iter().find(|(_, known)| *known == class)?.0;
    gap("usb.match.class", word)
}

/// Something that a policy says, and that this version does not enforce.
#[derive(Clone, Debug)]
pub struct GapOccurrence {
    /// What it falls into.
    pub gap: &'static Gap,
    /// The value, as it was written.
    pub value: String,
    /// Whose it is: a desktop as the banner calls it, or the id of a rule.
    pub owner: String,
    /// Where it stands in the text.
    pub span: Span,
    /// The line it stands on, from 1.
    pub line: usize,
}

impl fmt::Display for GapOccurrence {
    /// Writes one sentence, without a full stop.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { gap: Gap { key, instead, .. }, value, owner, .. } = self;
        let (table, name) = key.split_once('.').unwrap_or(("", key));
        let whose = match table {
            "domain" => format!("of {owner}"),
            _ => format!("in the rule `{owner}`"),
        };
        match name {
            "egress" => write!(f, "`egress` {whose} is {MARK}: {instead}"),
            _ => write!(f, "`{value}` {whose} is {MARK}: {instead}"),
        }
    }
}

impl GapOccurrence {
    /// Returns it as `check` reports it.
    #[must_use]
    pub fn diagnostic(&self) -> Diagnostic {
        let found = Diagnostic::warning(self.span, self.to_string(), self.gap.remedy);
        found.of_severity(self.gap.severity)
    }
}

impl Obligation<'_> {
    /// Returns who sees to it in the agent; an obligation that nobody sees to is a gap, of the key that a policy asks for it by.
    ///
    /// # Errors
    /// Nobody does: the row of [`GAPS`] by which every tool says so.
    pub const fn met_by(&self) -> Result<&'static str, &'static Gap> {
        Ok(match self {
            Self::Inspect(_) => {
                "the clipboard's mediator, which goes by what the detectors find in the content"
            }
            Self::ConfirmNoKeyboard => {
                "the USB broker, which reads the report descriptors before it asks, and takes what they do not say for a keyboard"
            }
            Self::Ask => {
                "the clipboard's mediator, which asks on the screen and takes silence for no"
            }
            Self::ReadOnly => "the USB filter, which lets no command through that could write",
            Self::Audit => {
                "the reference monitor, which gives no permit before the entry is on the disk"
            }
        })
    }
}

impl Domain {
    /// Returns what its network cannot be held to.
    #[must_use]
    pub fn network_gap(&self) -> Option<&'static Gap> {
        gap("domain.network", self.network.word())
    }

    /// Returns what its `egress` cannot be held to. Where it has no network, nothing leaves it and the list is kept.
    #[must_use]
    pub fn egress_gap(&self) -> Option<&'static Gap> {
        let places = self.egress.as_ref().filter(|_| self.reaches_a_network())?;
        gap("domain.egress", if places.is_empty() { "nowhere" } else { "some places" })
    }

    fn egress_span(&self) -> Span {
        let first = self.egress.as_ref().and_then(|places| places.first()).map(|place| place.span);
        first.or(self.egress.as_ref().map(|places| places.span)).unwrap_or_default()
    }

    /// Returns whether this version gives it a network.
    #[must_use]
    pub fn reaches_a_network(&self) -> bool {
        *self.network != Network::None && self.network_gap().is_none()
    }
}

impl Policy {
    /// Returns everything that it says and this version does not enforce, in the order of the file. A rule that denies is kept whatever it names.
    #[must_use]
    pub fn unenforced(&self) -> Vec<GapOccurrence> {
        let said = |gap: &'static Gap, value: &str, owner: &str, span: Span| GapOccurrence {
            gap,
            value: value.to_owned(),
            owner: owner.to_owned(),
            span,
            line: self.source().line(span.start),
        };
        let mut found = Vec::new();
        for domain in self.domains() {
            let label = domain.label.as_str();
            if let Some(gap) = domain.network_gap() {
                let value = format!("network = \"{}\"", *domain.network);
                found.push(said(gap, &value, label, domain.network.span));
            }
            if let Some(gap) = domain.egress_gap() {
                found.push(said(gap, "egress", label, domain.egress_span()));
            }
        }
        for rule in self.clipboard().iter().filter(|rule| *rule.action != ClipboardAction::Deny) {
            for media_type in &rule.types {
                if let Some(gap) = of_type(**media_type) {
                    let id = rule.head.id.value.as_str();
                    found.push(said(gap, media_type.word(), id, media_type.span));
                }
            }
        }
        for rule in self.usb().iter().filter(|rule| *rule.action != UsbAction::Deny) {
            if let Some(class) = rule.matches.class
                && let Some(gap) = of_class(class)
            {
                let value = class.to_string();
                found.push(said(gap, &value, rule.head.id.value.as_str(), rule.matches.span));
            }
        }
        found
    }
}

/// Returns the keys of a domain that are not Bulkhead's to keep where somebody else's VMM runs it, as one word each.
pub fn of_the_vmm() -> impl Iterator<Item = &'static str> {
    let keys = LANGUAGE.iter().filter(|key| matches!(key.kept, ByTheVmm));
    let names = keys.filter_map(|key| key.path.strip_prefix("domain."));
    names.filter(|name| !name.contains('.')).chain(["egress"])
}
