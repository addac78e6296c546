//! The page in words: sections of lines, for the terminal and for the printer.

use std::collections::HashMap;
use std::fmt;

use form::effort;

use super::{BreakGlassEntry, ClipboardEntry, DetectorEntry, DeviceEntry, DomainEntry, Matrix};
use policy::enforcement::MARK;

/// A heading in both languages, and what stands below it.
pub(super) struct Section<'m> {
    pub(super) heading: String,
    pub(super) korean: String,
    pub(super) lines: Vec<Line<'m>>,
}

/// Something that may happen or is so.
pub(super) struct Line<'m> {
    /// The sentence that the page has for it.
    pub(super) words: String,
    /// What is so instead, where this version does not enforce it.
    pub(super) instead: Option<&'static str>,
    /// The rule that says it, with its line.
    pub(super) by: Option<(&'m str, usize)>,
}

impl Line<'_> {
    fn of(words: impl Into<String>) -> Self {
        Self { words: words.into(), instead: None, by: None }
    }
}

impl ClipboardEntry {
    /// Returns what may be pasted, and on which terms.
    fn words(&self) -> String {
        let types: Vec<&str> = self.types.iter().map(|media_type| media_type.word()).collect();
        let bytes = |number| printable::counted(number, "byte", "bytes");
        let size = match (self.min_bytes, self.max_bytes) {
            (0, None) => String::new(),
            (0, Some(max)) => format!(" up to {}", bytes(max)),
            (min, None) => format!(" from {}", bytes(min)),
            (min, Some(max)) if min == max => format!(" of {}", bytes(min)),
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
    fn line(&self, verb: &str) -> Line<'_> {
        let to = self.to.as_deref().unwrap_or("any domain");
        let open = if self.break_glass { ", only while break-glass is open" } else { "" };
        Line {
            words: format!("{} -> {to}: {verb}{open}", self.device),
            instead: self.not_enforced,
            by: Some((&self.rule, self.line)),
        }
    }
}

impl DetectorEntry {
    fn words(&self) -> String {
        let Self { name, finds, .. } = self;
        let used = match self.used_by.as_slice() {
            [] => "no rule uses it".to_owned(),
            rules => format!("used by {}", rules.join(", ")),
        };
        if self.own {
            format!("{name}: what the pattern {finds} finds; {used}")
        } else {
            format!("{name}: {finds}, built in; {used}")
        }
    }
}

impl BreakGlassEntry {
    fn lines(&self, chord: Option<&str>) -> Vec<Line<'static>> {
        let chord = chord.map(|chord| format!("{chord}; ")).unwrap_or_default();
        let reason = match (self.opens_at_the_seat, self.reasons.as_slice()) {
            (false, _) => {
                "only IT opens it, by command with a reason: there is none to choose from at the seat".to_owned()
            }
            (true, []) => "without a reason".to_owned(),
            (true, reasons) => format!(
                "at the seat for one of these reasons: {}; IT, by command, gives its own",
                reasons.join("; ")
            ),
        };
        let opens = match self.opens.as_slice() {
            [] => "opens nothing".to_owned(),
            rules => format!("opens the USB rules {}", rules.join(", ")),
        };
        vec![
            Line::of(format!("{chord}{reason}")),
            Line::of(format!("closes by itself after {}", self.max_duration)),
            Line::of(opens),
        ]
    }
}

impl DomainEntry {
    /// Returns where it connects to, which is not always where it is meant to.
    pub(super) fn connects_to(&self) -> String {
        match &self.egress {
            _ if !self.reaches => "nowhere".to_owned(),
            Some(places) if self.egress_enforced && places.is_empty() => "nowhere".to_owned(),
            Some(places) if self.egress_enforced => places.join("; "),
            Some(_) | None => "anywhere on its network".to_owned(),
        }
    }

    /// Returns where it is meant to connect to and nothing holds it to.
    pub(super) fn meant(&self) -> Option<String> {
        let places = self.egress.as_ref().filter(|_| !self.egress_enforced)?;
        let places = if places.is_empty() { "nowhere".to_owned() } else { places.join("; ") };
        Some(format!("`egress` says {places}: {MARK}"))
    }

    /// Returns what it has for a network, in the policy's word.
    pub(super) fn network_words(&self) -> String {
        if self.network != "none" && !self.reaches {
            format!("{}: {MARK}", self.network)
        } else {
            self.network.clone()
        }
    }

    /// Returns what remains of it when it starts again.
    pub(super) fn keeps(&self) -> String {
        if self.persistence != "discard" {
            return "keeps what is stored in it".to_owned();
        }
        let mut words = "forgets everything at every start".to_owned();
        if !self.renew_at.is_empty() {
            words.push_str(&format!(", begins anew at {}", self.renew_at.join(", ")));
        }
        if let Some(idle) = &self.renew_when_idle {
            words.push_str(&format!(", begins anew when it was used and then not for {idle}"));
        }
        words
    }
}

impl Matrix {
    /// Returns everything below the table of desktops. Pairs of them come first.
    pub(super) fn sections(&self) -> Vec<Section<'_>> {
        let section = |heading: &str, korean: &str, lines| Section {
            heading: heading.to_owned(),
            korean: korean.to_owned(),
            lines,
        };
        let mut sections = Vec::new();
        let mut between: HashMap<(&str, &str), Vec<&ClipboardEntry>> = HashMap::new();
        for entry in &self.clipboard {
            effort::spend(1);
            between.entry((entry.from.as_str(), entry.to.as_str())).or_default().push(entry);
        }
        for from in &self.domains {
            for to in self.domains.iter().filter(|to| to.name != from.name) {
                let between = between.remove(&(from.name.as_str(), to.name.as_str()));
                let lines = between.into_iter().flatten().map(|entry| Line {
                    words: entry.words(),
                    instead: entry.not_enforced,
                    by: Some((entry.rule.as_str(), entry.line)),
                });
                sections.push(section(
                    &format!("Paste from {} into {}", from.label, to.label),
                    &format!("붙여넣기: {} → {}", from.label, to.label),
                    lines.collect(),
                ));
            }
        }
        let usb = self.usb.iter().map(|entry| entry.line(entry.verdict.word()));
        sections.push(section(
            "USB devices; the first that fits decides",
            "USB 장치: 처음 일치하는 규칙이 결정",
            usb.collect(),
        ));
        let input = self.input.iter().map(|entry| entry.line("tied"));
        sections.push(section(
            "Keyboards and scanners tied to a desktop",
            "한 데스크톱에 고정된 키보드와 스캐너",
            input.collect(),
        ));
        let detectors = self.detectors.iter().map(|entry| Line::of(entry.words()));
        sections.push(section(
            "Looked for in what crosses; a hit denies",
            "전송 내용 검사: 발견되면 거부",
            detectors.collect(),
        ));
        let chord = |key: &str| {
            let found = self.hotkeys.iter().find(|hotkey| hotkey.key == key);
            found.map(|hotkey| hotkey.chord.as_str())
        };
        let break_glass = self.break_glass.as_ref();
        let lines = break_glass.map(|open| open.lines(chord("break_glass"))).unwrap_or_default();
        sections.push(section(
            "Break-glass: what an emergency opens",
            "비상 개방 (break-glass)",
            lines,
        ));
        let lock = match &self.idle_lock {
            Some(idle) => format!("after {idle} without a hand on the PC"),
            None => "never by itself".to_owned(),
        };
        let by_hand = chord("lock").map(|chord| Line::of(format!("at once: {chord}")));
        sections.push(section(
            "The screen locks",
            "화면 잠금",
            [Line::of(lock)].into_iter().chain(by_hand).collect(),
        ));
        let domains = self
            .domains
            .iter()
            .map(|domain| Line::of(format!("{} to the front: {}", domain.label, domain.hotkey)));
        let hotkeys = self
            .hotkeys
            .iter()
            .map(|hotkey| Line::of(format!("{}: {}", hotkey.key.replace('_', "-"), hotkey.chord)));
        sections.push(section("Hotkeys", "단축키", domains.chain(hotkeys).collect()));
        let gaps = self.not_enforced.iter().map(|gap| Line {
            words: format!("{}; {}", gap.what, gap.remedy),
            instead: None,
            by: Some((gap.owner.as_str(), gap.line)),
        });
        sections.push(section(
            "Not enforced by this version",
            "이 버전에서 시행되지 않음",
            gaps.collect(),
        ));
        sections
    }
}

impl fmt::Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for domain in &self.domains {
            writeln!(
                f,
                "{}: network {}, connects to {}; {}; priority {}",
                domain.label,
                domain.network_words(),
                domain.connects_to(),
                domain.keeps(),
                domain.priority
            )?;
            if let Some(meant) = domain.meant() {
                writeln!(f, "  {meant}")?;
            }
        }
        for Section { heading, lines, .. } in self.sections() {
            writeln!(f, "\n{heading}")?;
            if lines.is_empty() {
                writeln!(f, "  nothing")?;
            }
            for Line { words, instead, by } in lines {
                write!(f, "  {words}")?;
                if let Some(instead) = instead {
                    write!(f, " ({MARK}: {instead})")?;
                }
                match by {
                    Some((rule, line)) => writeln!(f, "   [{rule}, line {line}]")?,
                    None => writeln!(f)?,
                }
            }
        }
        Ok(())
    }
}
