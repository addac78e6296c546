//! `bulkhead policy matrix`: who may send what to whom, on one page.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::decide::{Decision, given, listed, permitted};
use crate::language::{ClipboardRule, DeviceMatch, Domain, MediaType, UsbClass};
use crate::policy::Policy;

/// Who may send what to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Matrix {
    /// The policy's serial.
    pub serial: u64,
    /// Who wrote it.
    pub issuer: String,
    /// The domains, in the order of the policy.
    pub domains: Vec<DomainEntry>,
    /// What may be pasted. A pair of domains that is missing exchanges nothing.
    pub clipboard: Vec<ClipboardEntry>,
    /// Which USB devices go where, in the order in which the rules are asked.
    pub usb: Vec<DeviceEntry>,
    /// Which input devices are tied to a domain.
    pub input: Vec<DeviceEntry>,
}

/// A domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DomainEntry {
    /// Its name.
    pub name: String,
    /// What the banner calls it.
    pub label: String,
    /// The banner's colour.
    pub colour: String,
    /// How it reaches its network.
    pub network: String,
    /// Where it may connect to; `None` sets no limit.
    pub egress: Option<Vec<String>>,
}

/// Something that may be pasted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ClipboardEntry {
    /// From this domain.
    pub from: String,
    /// Into this one.
    pub to: String,
    /// Of these types.
    pub types: Vec<MediaType>,
    /// From this size, in bytes.
    pub min_bytes: u64,
    /// Up to this size; `None` has no end.
    pub max_bytes: Option<u64>,
    /// On these terms.
    pub verdict: Decision,
    /// Unless these find something.
    pub inspect: Vec<String>,
    /// By this rule.
    pub rule: String,
    /// On this line.
    pub line: usize,
}

/// A device that belongs somewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceEntry {
    /// Such a device.
    pub device: String,
    /// Into this domain; `None` concerns all.
    pub to: Option<String>,
    /// On these terms.
    pub verdict: Decision,
    /// Only while break-glass is open.
    pub break_glass: bool,
    /// By this rule.
    pub rule: String,
    /// On this line.
    pub line: usize,
}

impl Policy {
    /// Who may send what to whom.
    #[must_use]
    pub fn matrix(&self) -> Matrix {
        Matrix {
            serial: self.serial(),
            issuer: self.issuer().to_owned(),
            domains: self.domains().iter().map(DomainEntry::of).collect(),
            clipboard: self.clipboard_entries(),
            usb: self.usb_entries(),
            input: self.input_entries(),
        }
    }

    /// What each rule really decides, which is what the steps of the staircases say.
    fn clipboard_entries(&self) -> Vec<ClipboardEntry> {
        let mut entries: Vec<ClipboardEntry> = Vec::new();
        for (from_id, from) in self.domains_by_id() {
            for (to_id, to) in self.domains_by_id() {
                for (_, media_type) in MediaType::WORDS {
                    let mut min_bytes = 0;
                    for step in self.index().clipboard.steps(from_id, to_id, media_type) {
                        let rule = self.clipboard().get(step.rule);
                        if let Some(entry) =
                            rule.and_then(|rule| entry(rule, media_type, min_bytes, step.up_to))
                        {
                            add(
                                &mut entries,
                                ClipboardEntry { from: from.into(), to: to.into(), ..entry },
                            );
                        }
                        min_bytes = step.up_to.saturating_add(1);
                    }
                }
            }
        }
        entries
    }

    fn domains_by_id(&self) -> impl Iterator<Item = (crate::language::DomainId, &str)> {
        self.domains().iter().filter_map(|domain| {
            let name = domain.name.as_str();
            Some((self.domain_id(name)?, name))
        })
    }

    fn usb_entries(&self) -> Vec<DeviceEntry> {
        let counts = |rule: &&crate::language::UsbRule| {
            !rule.only_in_break_glass() || listed(rule, self.break_glass())
        };
        let rules = self.usb().iter().filter(counts);
        let entry = |rule: &crate::language::UsbRule| DeviceEntry {
            device: describe(&rule.matches, rule.class()),
            to: rule.to.and_then(|to| self.domain_by_id(*to)).map(|domain| domain.name.to_string()),
            verdict: given(rule),
            break_glass: rule.only_in_break_glass(),
            rule: rule.head.id.to_string(),
            line: rule.head.line,
        };
        rules.map(entry).collect()
    }

    fn input_entries(&self) -> Vec<DeviceEntry> {
        let entry = |rule: &crate::language::InputRule| DeviceEntry {
            device: describe(&rule.matches, None),
            to: self.domain_by_id(*rule.to).map(|domain| domain.name.to_string()),
            verdict: Decision::Allow,
            break_glass: false,
            rule: rule.head.id.to_string(),
            line: rule.head.line,
        };
        self.input().iter().map(entry).collect()
    }
}

/// What a rule lets through of a type and a stretch of sizes; `None` if nothing.
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
        rule: rule.head.id.to_string(),
        line: rule.head.line,
    })
}

/// Adds an entry, to one that differs in the type alone if there is one.
fn add(entries: &mut Vec<ClipboardEntry>, entry: ClipboardEntry) {
    let same = entries.iter_mut().find(|other| {
        let types = other.types.clone();
        **other == ClipboardEntry { types, ..entry.clone() }
    });
    match same {
        Some(other) => other.types.extend(entry.types),
        None => entries.push(entry),
    }
}

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
        }
    }
}

impl ClipboardEntry {
    /// What may be pasted, and on which terms.
    fn words(&self) -> String {
        let types: Vec<&str> = self.types.iter().map(|media_type| media_type.word()).collect();
        let size = match (self.min_bytes, self.max_bytes) {
            (0, None) => String::new(),
            (0, Some(max)) => format!(" up to {max} bytes"),
            (min, None) => format!(" from {min} bytes"),
            (min, Some(max)) => format!(" of {min} to {max} bytes"),
        };
        let inspect = match self.inspect.as_slice() {
            [] => String::new(),
            detectors => format!(" unless {} is found", detectors.join(" or ")),
        };
        format!("{}{size}: {}{inspect}", types.join(", "), self.verdict)
    }
}

impl DeviceEntry {
    fn words(&self, verb: &str) -> String {
        let to = self.to.as_deref().unwrap_or("any domain");
        let open = if self.break_glass { ", only while break-glass is open" } else { "" };
        format!("{} -> {to}: {verb}{open}", self.device)
    }
}

/// Something that may happen, in words, with the rule and line that let it.
type Line<'m> = (String, &'m str, usize);

impl Matrix {
    /// Everything on the page: a heading, and what stands below it. Pairs of domains come first.
    fn sections(&self) -> Vec<(String, Vec<Line<'_>>)> {
        let mut sections = Vec::new();
        for from in &self.domains {
            for to in self.domains.iter().filter(|to| to.name != from.name) {
                let between =
                    self.clipboard.iter().filter(|e| e.from == from.name && e.to == to.name);
                let lines =
                    between.map(|entry| (entry.words(), entry.rule.as_str(), entry.line)).collect();
                sections.push((format!("Paste from {} into {}", from.label, to.label), lines));
            }
        }
        let usb = self.usb.iter().map(|e| (e.words(e.verdict.word()), e.rule.as_str(), e.line));
        sections.push(("USB devices; the first that fits decides".to_owned(), usb.collect()));
        let input = self.input.iter().map(|e| (e.words("tied"), e.rule.as_str(), e.line));
        sections.push(("Keyboards and scanners tied to a desktop".to_owned(), input.collect()));
        sections
    }

    /// A page by itself that prints well: no script, nothing loaded from anywhere.
    #[must_use]
    pub fn html(&self) -> String {
        let mut out = String::from(HEAD);
        let issuer = escaped(&self.issuer);
        _ = write!(
            out,
            "<h1>Who may send what to whom</h1>\n<p>{issuer}, policy {}</p>\n",
            self.serial
        );
        out.push_str("<table><tr><th>Desktop</th><th>Network</th><th>May connect to</th></tr>\n");
        for domain in &self.domains {
            let places = match &domain.egress {
                None => "anywhere".to_owned(),
                Some(places) if places.is_empty() => "nowhere".to_owned(),
                Some(places) => {
                    places.iter().map(|place| escaped(place)).collect::<Vec<_>>().join("<br>")
                }
            };
            let (colour, label, network) =
                (&domain.colour, escaped(&domain.label), &domain.network);
            _ = writeln!(
                out,
                "<tr><td style=\"border-left: 1em solid {colour}\">{label}</td><td>{network}</td><td>{places}</td></tr>"
            );
        }
        out.push_str("</table>\n");
        for (heading, lines) in self.sections() {
            _ = write!(out, "<section><h2>{}</h2>\n<table>\n", escaped(&heading));
            if lines.is_empty() {
                out.push_str("<tr><td>nothing</td></tr>\n");
            }
            for (words, rule, line) in lines {
                let (words, rule) = (escaped(&words), escaped(rule));
                _ = writeln!(out, "<tr><td>{words}</td><td>{rule}, line {line}</td></tr>");
            }
            out.push_str("</table></section>\n");
        }
        out + "</body></html>\n"
    }
}

const HEAD: &str = "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Separation policy</title>\n<style>\n\
    body { font: 11pt/1.4 sans-serif; margin: 2em auto; max-width: 48em }\n\
    h1 { font-size: 1.5em } h2 { font-size: 1.1em; margin-bottom: .3em }\n\
    table { border-collapse: collapse; width: 100% }\n\
    th, td { border: 1px solid #999; padding: .3em .6em; text-align: left; vertical-align: top }\n\
    section { break-inside: avoid }\n\
    @media print { body { margin: 0; max-width: none } td { print-color-adjust: exact; -webkit-print-color-adjust: exact } }\n\
    </style></head><body>\n";

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for domain in &self.domains {
            let egress = match &domain.egress {
                None => "anywhere".to_owned(),
                Some(places) if places.is_empty() => "nowhere".to_owned(),
                Some(places) => places.join("; "),
            };
            writeln!(f, "{}: network {}, connects to {egress}", domain.label, domain.network)?;
        }
        for (heading, lines) in self.sections() {
            writeln!(f, "\n{heading}")?;
            if lines.is_empty() {
                writeln!(f, "  nothing")?;
            }
            for (words, rule, line) in lines {
                writeln!(f, "  {words}   [{rule}, line {line}]")?;
            }
        }
        Ok(())
    }
}
