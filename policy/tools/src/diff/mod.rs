//! `bulkhead policy diff`: which flows a new policy allows, denies or treats otherwise than the old one.
//!
//! What is compared is what the policies decide, not how they are written: rules that were reordered, renamed or split
//! without effect are no difference. The comparison is exact: every request whose verdict changed lies in a reported
//! change, and every reported change holds such a request (`tests/diff.rs` looks for both kinds of mistake).

use std::fmt;

use serde::Serialize;

use policy::Policy;
use policy::decide::{Decision, Verdict};
use policy::detect::Detector;
use policy::enforcement::{self, Gap, MARK};
use policy::language::MediaType;
use policy::request::{Context, Request};

mod clipboard;
mod devices;
mod regions;
mod settings;

use regions::{Budget, LOOKS_MAX};
pub use regions::{Field, Region};
pub use settings::Setting;

/// What differs between two policies.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Diff {
    /// Whether anything may cross, or happen, that the old policy did not let, or that cannot be ruled out; or a promise of its own is gone.
    pub widened: bool,
    /// The flows that are decided otherwise.
    pub flows: Vec<Change>,
    /// Everything else that matters to somebody.
    pub settings: Vec<Setting>,
    /// The flows that were not compared to the end, for which the comparison counts as wider; left out if all were.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
}

/// Flows that are decided otherwise, all in the same way.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// In which way they are decided otherwise.
    pub kind: Kind,
    /// Whether more may happen than before.
    pub widened: bool,
    pub flow: Flow,
    /// What the old policy says.
    pub before: Outcome,
    /// What the new policy says.
    pub after: Outcome,
    /// What happens instead of what the new policy says, where this version does not carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<&'static str>,
    /// Detectors that both policies call the same and that look for something else.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub patterns: Vec<OtherPattern>,
}

/// A detector that looks for something else under the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OtherPattern {
    pub detector: String,
    /// What it looked for.
    pub before: String,
    /// What it looks for.
    pub after: String,
}

/// In which way a flow is decided otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It was denied, and is not.
    NewlyAllowed,
    /// It is denied, and was not.
    NewlyDenied,
    /// It may cross on other terms.
    Changed,
}

/// Flows that are alike in all that the two policies tell apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "what")]
pub enum Flow {
    Clipboard {
        /// The domain whose clipboard it is.
        from: String,
        /// The domain that it would be pasted in.
        to: String,
        types: Vec<MediaType>,
        /// The smallest size, in bytes.
        min_bytes: u64,
        /// The largest size, in bytes; `None` has no end.
        max_bytes: Option<u64>,
    },
    /// USB functions into a domain.
    Usb {
        to: String,
        when: Vec<AttachContext>,
        /// Which functions of which devices.
        #[serde(flatten)]
        region: Region,
    },
    /// What some input devices type, in every domain but the one they are tied to.
    Input {
        #[serde(flatten)]
        region: Region,
    },
}

/// How a device comes to a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AttachContext {
    /// Somebody attaches it by hand; otherwise it is merely plugged in.
    pub by_hand: bool,
    /// Whether break-glass is open in this situation.
    pub break_glass: bool,
}

/// What a policy says of a flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub verdict: Decision,
    /// The detectors that must find nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inspect: Vec<String>,
    /// The one domain an input device is tied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tied_to: Option<String>,
    /// The rule that says so.
    pub rule: Option<String>,
    /// The line it starts on, from 1.
    pub line: Option<usize>,
    #[serde(skip)]
    detectors: Vec<Detector>,
}

/// Compares two policies by what they decide, and returns each flow that is decided otherwise.
#[must_use]
pub fn diff(old: &Policy, new: &Policy) -> Diff {
    let mut looks = Budget::new(LOOKS_MAX);
    let mut flows = clipboard::changes(old, new);
    let (input, mut not_compared) = devices::input(old, new, &mut looks);
    let (usb, more) = devices::usb(old, new, &mut looks);
    flows.extend(usb);
    flows.extend(input);
    not_compared.extend(more);
    flows.sort_by_key(|change| (!change.widened, change.kind));
    let settings = settings::changes(old, new);
    let widened = !not_compared.is_empty()
        || flows.iter().any(|change| change.widened)
        || settings.iter().any(|setting| setting.widened);
    Diff { widened, flows, settings, not_compared }
}

impl Outcome {
    fn of(verdict: &Verdict<'_>, inspect: &[Detector]) -> Self {
        Self {
            verdict: verdict.decision(),
            inspect: inspect.iter().map(|detector| detector.name().to_owned()).collect(),
            tied_to: None,
            rule: verdict.rule().map(|rule| rule.id.to_string()),
            line: verdict.rule().map(|rule| rule.line),
            detectors: inspect.to_vec(),
        }
    }

    /// Returns whether the same happens, by whatever rule.
    fn is_like(&self, other: &Self) -> bool {
        self.verdict == other.verdict
            && self.tied_to == other.tied_to
            && self.looks_for_all_of(other)
            && other.looks_for_all_of(self)
    }

    fn looks_for_all_of(&self, other: &Self) -> bool {
        other.detectors.iter().all(|detector| self.detectors.contains(detector))
    }

    /// Returns the detectors that `before` has under the same name and with another pattern.
    fn other_patterns_than(&self, before: &Self) -> Vec<OtherPattern> {
        let other = |detector: &Detector| {
            let Detector::Pattern(name, after) = detector else { return None };
            let namesake = |other: &&Detector| other.name() == name.as_str();
            match before.detectors.iter().find(namesake)? {
                Detector::Pattern(_, before) if before.as_str() != after.as_str() => {
                    Some(OtherPattern {
                        detector: name.to_string(),
                        before: before.as_str().to_owned(),
                        after: after.as_str().to_owned(),
                    })
                }
                _ => None,
            }
        };
        self.detectors.iter().filter_map(other).collect()
    }

    /// Returns whether more may happen than in `before`.
    fn is_wider_than(&self, before: &Self) -> bool {
        match (before.verdict, self.verdict) {
            (_, Decision::Deny) => false,
            (Decision::Deny, _) => true,
            (before_verdict, verdict) => {
                verdict > before_verdict
                    || !self.looks_for_all_of(before)
                    // What is typed goes where it did not go.
                    || self.tied_to != before.tied_to
            }
        }
    }
}

impl Change {
    fn new(flow: Flow, before: Outcome, after: Outcome) -> Self {
        let kind = match (before.verdict, after.verdict) {
            (Decision::Deny, _) => Kind::NewlyAllowed,
            (_, Decision::Deny) => Kind::NewlyDenied,
            _ => Kind::Changed,
        };
        let gap = flow.gap().filter(|_| after.verdict != Decision::Deny);
        let not_enforced = gap.map(|gap| gap.instead);
        let patterns = after.other_patterns_than(&before);
        let widened = after.is_wider_than(&before);
        Self { kind, widened, flow, before, after, not_enforced, patterns }
    }
}

impl Flow {
    /// Returns what of it this version does not carry, if that is all of it.
    fn gap(&self) -> Option<&'static Gap> {
        match self {
            Self::Clipboard { types, .. } => {
                let mut gaps = types.iter().map(|media_type| enforcement::of_type(*media_type));
                let first = gaps.next().flatten()?;
                gaps.all(|gap| gap.is_some()).then_some(first)
            }
            Self::Usb { region: Region { class: Field::Is(class), .. }, .. } => {
                enforcement::gap("usb.match.class", class)
            }
            Self::Usb { .. } | Self::Input { .. } => None,
        }
    }

    /// Returns whether a request is one of these flows, for one at least of a device's functions.
    #[must_use]
    pub fn covers(&self, request: &Request<'_>, context: &Context) -> bool {
        match (self, request) {
            (
                Self::Clipboard { from, to, types, min_bytes, max_bytes },
                Request::Clipboard(request),
            ) => {
                from == request.from
                    && to == request.to
                    && types.contains(&request.media_type)
                    && *min_bytes <= request.bytes
                    && max_bytes.is_none_or(|max| request.bytes <= max)
            }
            (Self::Usb { to, when, region }, Request::Usb(request)) => {
                let now = AttachContext {
                    by_hand: request.to.is_some(),
                    break_glass: context.break_glass,
                };
                when.contains(&now)
                    && request.to.is_none_or(|wanted| wanted == to)
                    && request
                        .device
                        .functions
                        .iter()
                        .any(|f| region.covers(&request.device, Some(f.class)))
            }
            _ => false,
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for change in &self.flows {
            writeln!(f, "{change}")?;
        }
        for setting in &self.settings {
            writeln!(f, "{setting}")?;
        }
        for flow in &self.not_compared {
            writeln!(
                f,
                "+ not compared  {flow}\n      so many rules give different fields that nobody could follow it to the end: write fewer, or give all of them the same fields"
            )?;
        }
        if !self.not_compared.is_empty() {
            return writeln!(
                f,
                "the new policy may be WIDER than the old one: not everything was compared"
            );
        }
        match (self.flows.is_empty() && self.settings.is_empty(), self.widened) {
            (true, _) => writeln!(f, "nothing differs: both policies decide the same"),
            (false, true) => {
                writeln!(f, "the new policy is WIDER than the old one (lines marked +)")
            }
            (false, false) => writeln!(f, "the new policy allows nothing that the old one did not"),
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, kind) = match (self.widened, self.kind) {
            (true, Kind::NewlyAllowed) => ("+", "newly allowed"),
            (_, Kind::NewlyDenied) => ("-", "newly denied "),
            (true, _) => ("+", "changed      "),
            (false, _) => ("~", "changed      "),
        };
        let outcome = |outcome: &Outcome| match (&self.flow, &outcome.tied_to) {
            (Flow::Input { .. }, None) => "typed into whatever is in front".to_owned(),
            _ => outcome.to_string(),
        };
        let (before, after) = (outcome(&self.before), outcome(&self.after));
        write!(f, "{mark} {kind}  {}\n      was {before}\n      now {after}", self.flow)?;
        for OtherPattern { detector, before, after } in &self.patterns {
            write!(f, "\n      {detector} was {before}\n      {detector} now {after}")?;
        }
        match self.not_enforced {
            Some(instead) => write!(f, "\n      {MARK}: {instead}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clipboard { from, to, types, min_bytes, max_bytes } => {
                let types: Vec<&str> = types.iter().map(|media_type| media_type.word()).collect();
                write!(f, "clipboard {from} -> {to}: {}", types.join(", "))?;
                let bytes = |number: &u64| printable::counted(*number, "byte", "bytes");
                match (min_bytes, max_bytes) {
                    (0, None) => f.write_str(" of any size"),
                    (0, Some(max)) => write!(f, " of up to {}", bytes(max)),
                    (min, None) => write!(f, " of {} and more", bytes(min)),
                    (min, Some(max)) if min == max => write!(f, " of {}", bytes(min)),
                    (min, Some(max)) => write!(f, " of {min} to {max} bytes"),
                }
            }
            Self::Usb { to, when, region } => {
                write!(f, "USB -> {to}: {region}")?;
                let when: Vec<&str> = when.iter().map(AttachContext::words).collect();
                if when.len() < 4 { write!(f, " ({})", when.join("; ")) } else { Ok(()) }
            }
            Self::Input { region } => write!(f, "input: {region}"),
        }
    }
}

impl AttachContext {
    fn words(&self) -> &'static str {
        match (self.by_hand, self.break_glass) {
            (false, false) => "plugged in",
            (true, false) => "attached by hand",
            (false, true) => "plugged in during break-glass",
            (true, true) => "attached by hand during break-glass",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tied_to {
            Some(domain) => write!(f, "tied to {domain}")?,
            None => write!(f, "{}", self.verdict)?,
        }
        if !self.inspect.is_empty() {
            write!(f, " unless {} is found", self.inspect.join(" or "))?;
        }
        match (&self.rule, self.line) {
            (Some(rule), Some(line)) => write!(f, ", by `{rule}` (line {line})"),
            _ => write!(f, ", by no rule"),
        }
    }
}
