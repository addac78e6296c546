//! `bulkhead policy matrix`: who may send what to whom, on one page.
//!
//! | file | |
//! | --- | --- |
//! | `mod` | what is on the page, as `--json` prints it |
//! | `page` | the same as sections with words, in English and Korean, and as text |
//! | `html` | the page for the browser and the printer |

use std::collections::HashMap;

use form::effort;
use serde::Serialize;

use notation::duration::written;
use policy::Policy;
use policy::decide::{Decision, given, permitted};
use policy::detect::{BuiltIn, Detector};
use policy::enforcement;
use policy::index::listed;
use policy::language::{ClipboardRule, DeviceMatch, Domain, DomainId, MediaType, UsbClass};

mod html;
mod page;

/// Who may send what to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The policy's serial.
    pub serial: u64,
    /// Who answers for the policy, as it says itself.
    pub issuer: String,
    /// The domains, in the order of the policy.
    pub domains: Vec<DomainEntry>,
    /// What may be pasted. A pair of domains that is missing exchanges nothing.
    pub clipboard: Vec<ClipboardEntry>,
    /// Which USB devices go where, in the order in which the rules are asked.
    pub usb: Vec<DeviceEntry>,
    /// Which input devices are tied to a domain.
    pub input: Vec<DeviceEntry>,
    /// What is looked for in what crosses: the built-in detectors that a rule uses, and all of the policy's own.
    pub detectors: Vec<DetectorEntry>,
    /// What an emergency opens; `None` where there is no break-glass.
    pub break_glass: Option<BreakGlassEntry>,
    /// After how long without a hand on it the screen locks; `None` never does.
    pub idle_lock: Option<String>,
    /// The chords that mean the same on every desktop.
    pub hotkeys: Vec<HotkeyEntry>,
    /// What the policy says and this version does not enforce.
    pub not_enforced: Vec<NotEnforced>,
}

/// What the page says of a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainEntry {
    pub name: String,
    /// What the banner calls it.
    pub label: String,
    /// The colour of its banner, as `#rrggbb`.
    pub colour: String,
    /// How it reaches its network.
    pub network: String,
    /// Where it may connect to; `None` sets no limit.
    pub egress: Option<Vec<String>>,
    /// Whether that list counts in this version. Where there is no list there is nothing to enforce.
    pub egress_enforced: bool,
    /// What brings it to the front.
    pub hotkey: String,
    /// Whether it keeps what is stored in it: `keep` or `discard`.
    pub persistence: String,
    /// At which times of day it begins anew while it runs.
    pub renew_at: Vec<String>,
    /// After how long without input it begins anew, if it was used.
    pub renew_when_idle: Option<String>,
    /// Whether it comes first when the PC is short of something: `high` or `normal`.
    pub priority: String,
    /// What it asks for as the time before the lock; the shortest of all desktops counts.
    pub idle_lock: Option<String>,
    /// Whether this version gives it a network.
    #[serde(skip)]
    reaches: bool,
}

/// What the page says of a detector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DetectorEntry {
    /// What rules call it.
    pub name: String,
    /// What it finds: a sentence, or the policy's own pattern.
    pub finds: String,
    /// Whether it is the policy's own.
    pub own: bool,
    /// The rules that use it.
    pub used_by: Vec<String>,
}

/// What an emergency opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BreakGlassEntry {
    /// It closes by itself after this long.
    pub max_duration: String,
    /// Whether somebody must say why.
    pub reason_required: bool,
    /// What can be chosen from at the seat.
    pub reasons: Vec<String>,
    /// Whether somebody at the seat can open it, or IT alone by command.
    pub opens_at_the_seat: bool,
    /// The USB rules that count while it is open.
    pub opens: Vec<String>,
}

/// A key combination and what it does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HotkeyEntry {
    /// Its key under `[hotkeys]`.
    pub key: &'static str,
    /// The keys that are pressed together.
    pub chord: String,
}

/// Something that the policy says and this version does not enforce.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotEnforced {
    /// The key of the language.
    pub key: &'static str,
    /// Whose: a desktop's label, or the id of a rule.
    pub owner: String,
    /// What was written and what is so instead, in one sentence.
    pub what: String,
    /// What to write instead, or do without.
    pub remedy: &'static str,
    /// The line of the policy that says it, from 1.
    pub line: usize,
}

/// Something that may be pasted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClipboardEntry {
    /// The domain whose clipboard it is.
    pub from: String,
    /// The domain that it is pasted in.
    pub to: String,
    /// The types of content that the terms are for.
    pub types: Vec<MediaType>,
    /// From this size, in bytes.
    pub min_bytes: u64,
    /// Up to this size; `None` has no end.
    pub max_bytes: Option<u64>,
    /// The terms: `allow` or `ask`.
    pub verdict: Decision,
    /// Unless these find something.
    pub inspect: Vec<String>,
    /// What happens instead, where this version does not carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<&'static str>,
    /// The id of the rule that says it.
    pub rule: String,
    /// The line of the policy on which the rule starts, from 1.
    pub line: usize,
}

/// A device that belongs somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceEntry {
    /// The devices that it is about, in words.
    pub device: String,
    /// Into this domain; `None` concerns all.
    pub to: Option<String>,
    /// The terms on which they go there.
    pub verdict: Decision,
    /// Only while break-glass is open.
    pub break_glass: bool,
    /// What happens instead, where this version does not carry it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_enforced: Option<&'static str>,
    /// The id of the rule that says it.
    pub rule: String,
    /// The line of the policy on which the rule starts, from 1.
    pub line: usize,
}

impl Matrix {
    /// Finds out who may send what to whom.
    #[must_use]
    pub fn of(policy: &Policy) -> Self {
        Self {
            serial: policy.serial(),
            issuer: policy.issuer().to_owned(),
            domains: policy.domains().iter().map(DomainEntry::of).collect(),
            clipboard: clipboard_entries(policy),
            usb: usb_entries(policy),
            input: input_entries(policy),
            detectors: detector_entries(policy),
            break_glass: policy.break_glass().map(|open| BreakGlassEntry {
                max_duration: written(open.max_duration.as_secs()),
                reason_required: open.reason_required,
                reasons: open.reasons.iter().map(|reason| reason.value.clone()).collect(),
                opens_at_the_seat: open.opens_at_the_seat(),
                opens: open.allow_usb.iter().map(|id| id.value.to_string()).collect(),
            }),
            idle_lock: policy.idle_lock().map(|idle| written(idle.as_secs())),
            hotkeys: policy
                .hotkeys()
                .iter()
                .map(|(key, chord)| HotkeyEntry { key, chord: chord.to_string() })
                .collect(),
            not_enforced: policy
                .unenforced()
                .into_iter()
                .map(|said| NotEnforced {
                    key: said.gap.key,
                    what: said.to_string(),
                    owner: said.owner,
                    remedy: said.gap.remedy,
                    line: said.line,
                })
                .collect(),
        }
    }
}

fn detector_entries(policy: &Policy) -> Vec<DetectorEntry> {
    let built_in = BuiltIn::WORDS.iter().map(|(_, built_in)| Detector::BuiltIn(*built_in));
    let own = policy.detectors().iter().map(|(detector, _)| detector.clone());
    let mut uses: HashMap<&str, Vec<String>> = HashMap::new();
    for rule in policy.clipboard() {
        for used in &rule.inspect {
            effort::spend(1);
            let rules = uses.entry(used.name()).or_default();
            let id = rule.head.id.as_str();
            // A rule may name a detector twice.
            if rules.last().is_none_or(|last| last != id) {
                rules.push(id.to_owned());
            }
        }
    }
    let entry = |detector: Detector| {
        let used_by = uses.get(detector.name()).cloned().unwrap_or_default();
        let (finds, own) = match &detector {
            Detector::BuiltIn(_) => (detector.describe().into_owned(), false),
            Detector::Pattern(_, pattern) => (pattern.as_str().to_owned(), true),
        };
        DetectorEntry { name: detector.name().to_owned(), finds, own, used_by }
    };
    built_in.chain(own).map(entry).filter(|entry| entry.own || !entry.used_by.is_empty()).collect()
}

/// Returns what each rule really decides, which is what the steps of the staircases say.
fn clipboard_entries(policy: &Policy) -> Vec<ClipboardEntry> {
    let mut entries: Vec<ClipboardEntry> = Vec::new();
    let mut places: HashMap<EntryKey, usize> = HashMap::new();
    for (from_id, from) in domains_by_id(policy) {
        for (to_id, to) in domains_by_id(policy) {
            for (_, media_type) in MediaType::WORDS {
                let mut min_bytes = 0;
                for step in policy.index().clipboard.steps(from_id, to_id, media_type) {
                    effort::spend(1);
                    let rule = policy.clipboard().get(step.rule);
                    let entry =
                        rule.and_then(|rule| entry(rule, media_type, min_bytes, step.up_to));
                    if let Some(entry) = entry {
                        let (verdict, gap) = (entry.verdict, entry.not_enforced);
                        let alike =
                            (from_id, to_id, step.rule, min_bytes, step.up_to, verdict, gap);
                        let place = *places.entry(alike).or_insert(entries.len());
                        match entries.get_mut(place) {
                            Some(other) => other.types.push(media_type),
                            None => entries.push(ClipboardEntry {
                                from: from.into(),
                                to: to.into(),
                                ..entry
                            }),
                        }
                    }
                    min_bytes = step.up_to.saturating_add(1);
                }
            }
        }
    }
    entries
}

fn domains_by_id(policy: &Policy) -> impl Iterator<Item = (DomainId, &str)> {
    policy.domains().iter().filter_map(|domain| {
        let name = domain.name.as_str();
        Some((policy.domain_id(name)?, name))
    })
}

fn usb_entries(policy: &Policy) -> Vec<DeviceEntry> {
    let counts = |rule: &&policy::language::UsbRule| {
        !rule.only_in_break_glass() || listed(rule, policy.break_glass())
    };
    let rules = policy.usb().iter().filter(counts);
    let entry = |rule: &policy::language::UsbRule| DeviceEntry {
        device: describe(&rule.matches, rule.class()),
        to: rule.to.and_then(|to| policy.domain_by_id(*to)).map(|domain| domain.name.to_string()),
        verdict: given(rule),
        break_glass: rule.only_in_break_glass(),
        not_enforced: rule
            .class()
            .filter(|_| given(rule) != Decision::Deny)
            .and_then(enforcement::of_class)
            .map(|gap| gap.instead),
        rule: rule.head.id.to_string(),
        line: rule.head.line,
    };
    rules.map(entry).collect()
}

fn input_entries(policy: &Policy) -> Vec<DeviceEntry> {
    let entry = |rule: &policy::language::InputRule| DeviceEntry {
        device: describe(&rule.matches, None),
        to: policy.domain_by_id(*rule.to).map(|domain| domain.name.to_string()),
        verdict: Decision::Allow,
        break_glass: false,
        not_enforced: None,
        rule: rule.head.id.to_string(),
        line: rule.head.line,
    };
    policy.input().iter().map(entry).collect()
}

/// Returns what a rule lets through of a type and a stretch of sizes; `None` if nothing.
fn entry(
    rule: &ClipboardRule,
    media_type: MediaType,
    min_bytes: u64,
    up_to: u64,
) -> Option<ClipboardEntry> {
    let verdict = Some(permitted(rule, media_type)).filter(|verdict| *verdict != Decision::Deny)?;
    Some(ClipboardEntry {
        from: String::new(),
        to: String::new(),
        types: vec![media_type],
        min_bytes,
        max_bytes: (up_to < u64::MAX).then_some(up_to),
        verdict,
        inspect: rule.inspect.iter().map(|detector| detector.name().to_owned()).collect(),
        not_enforced: enforcement::of_type(media_type).map(|gap| gap.instead),
        rule: rule.head.id.to_string(),
        line: rule.head.line,
    })
}

/// What entries have in common that differ in the type alone.
type EntryKey = (DomainId, DomainId, usize, u64, u64, Decision, Option<&'static str>);

fn describe(matches: &DeviceMatch, class: Option<UsbClass>) -> String {
    let parts = [
        class.map(|class| class.to_string()),
        matches.vendor.map(|vendor| format!("vendor {vendor:#06x}")),
        matches.product.map(|product| format!("product {product:#06x}")),
        matches.serial.as_ref().map(|serial| format!("serial {}", serial.escape_debug())),
        matches.port.as_ref().map(|port| format!("in port {port}")),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "everything".to_owned() } else { parts.join(", ") }
}

impl DomainEntry {
    fn of(domain: &Domain) -> Self {
        let places = domain.egress.as_ref();
        Self {
            name: domain.name.to_string(),
            label: domain.label.value.clone(),
            colour: domain.colour.to_string(),
            network: domain.network.to_string(),
            egress: places.map(|places| places.iter().map(|place| place.to_string()).collect()),
            egress_enforced: domain.egress_gap().is_none(),
            hotkey: domain.hotkey.to_string(),
            persistence: domain.persistence.to_string(),
            renew_at: domain
                .renew_at
                .iter()
                .flat_map(|at| &at.value)
                .map(|time| time.to_string())
                .collect(),
            renew_when_idle: domain.renew_when_idle.map(|idle| written(idle.as_secs())),
            priority: domain.priority.to_string(),
            idle_lock: domain.idle_lock.map(|idle| written(idle.as_secs())),
            reaches: domain.reaches_a_network(),
        }
    }
}
