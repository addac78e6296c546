//! For the monitoring centre (I-2): RFC 5424 syslog lines, and which entries are wanted.

use std::fmt::Write as _;
use std::time::SystemTime;

use crate::entry::Entry;
use crate::events::{
    ChainBroken, ClockStep, DomainChanged, PolicyRefused, StateWentBack, TornTailRepaired,
};

/// The structured data's name: ours, under the number that RFC 5612 gives to documentation, as the project has none of its own.
const SD_ID: &str = "bulkhead@32473";
/// Facility "log audit" (RFC 5424 table 1).
const FACILITY: u8 = 13;
const WARNING: u8 = 4;
const NOTICE: u8 = 5;
const INFO: u8 = 6;

/// Which entries are wanted: all that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// The earliest time, by the wall clock.
    pub since: Option<SystemTime>,
    /// The time before which they were written, by the wall clock.
    pub until: Option<SystemTime>,
    /// The kind of event, as the catalogue names it; `None` passes every kind.
    pub kind: Option<String>,
    /// The domain that they concern, or that something came into or left.
    pub domain: Option<String>,
    /// The decision, `allow`, `ask` or `deny`; `None` passes entries with any and with none.
    pub verdict: Option<String>,
}

impl Filter {
    /// Returns whether an entry is wanted. One whose time cannot be read is not, where times are asked for.
    #[must_use]
    pub fn wants(&self, entry: &Entry) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let wall = entry.wall();
        self.since.is_none_or(|since| wall.is_some_and(|wall| wall >= since))
            && self.until.is_none_or(|until| wall.is_some_and(|wall| wall < until))
            && is(&self.kind, Some(&entry.kind))
            && self.domain.as_deref().is_none_or(|domain| concerns(entry, domain))
            && is(&self.verdict, entry.verdict.as_deref())
    }
}

fn concerns(entry: &Entry, domain: &str) -> bool {
    let detail = |key: &str| entry.detail.get(key).and_then(serde_json::Value::as_str);
    // Of a domain itself they are its states, which a domain may be called like.
    let flow =
        entry.kind != DomainChanged::KIND && [detail("from"), detail("to")].contains(&Some(domain));
    // Some entries are of several.
    let is_among = |key: &str| {
        let listed = entry.detail.get(key).and_then(serde_json::Value::as_array);
        listed.is_some_and(|all| all.iter().any(|one| one.as_str() == Some(domain)))
    };
    flow || entry.domain.as_deref() == Some(domain) || is_among("domains") || is_among("ended")
}

/// Returns an entry as a syslog line (RFC 5424 section 6), without a newline. `host` is the PC's name.
#[must_use]
pub fn rfc5424(entry: &Entry, host: &str) -> String {
    let severity = match (entry.verdict.as_deref(), entry.kind.as_str()) {
        (Some("deny"), _)
        | (
            _,
            ChainBroken::KIND
            | ClockStep::KIND
            | PolicyRefused::KIND
            | StateWentBack::KIND
            | TornTailRepaired::KIND,
        ) => WARNING,
        (Some(_), _) => NOTICE,
        _ => INFO,
    };
    let mut line = format!(
        "<{}>1 {} {} bulkhead-agent - {} [{SD_ID} seq=\"{}\" boot=\"{}\"",
        FACILITY * 8 + severity,
        name(&entry.time, 32),
        name(host, 255),
        name(&entry.kind, 32),
        entry.seq,
        value(&entry.boot),
    );
    let mut put = |key: &str, text: &str| {
        let _ = write!(line, " {key}=\"{}\"", value(text));
    };
    for (key, text) in
        [("domain", &entry.domain), ("verdict", &entry.verdict), ("rule", &entry.rule)]
    {
        if let Some(text) = text {
            put(key, text);
        }
    }
    if let Some(serial) = entry.policy {
        put("policy", &serial.to_string());
    }
    for (key, detail) in &entry.detail {
        match detail.as_str() {
            Some(text) => put(&name(key, 32), text),
            None => put(&name(key, 32), &detail.to_string()),
        }
    }
    line.push(']');
    line
}

/// Returns a name: printable ASCII without what has a meaning (section 6.3.3), at most `most` bytes; `-` if nothing is left.
fn name(text: &str, most: usize) -> String {
    let fit = |c: &char| c.is_ascii_graphic() && !matches!(c, '=' | '"' | ']');
    let name: String = text.chars().filter(fit).take(most).collect();
    if name.is_empty() { "-".to_owned() } else { name }
}

/// Returns a parameter's value: backslash, quote and bracket escaped (section 6.3.3), what is not shown as spaces, so that no entry can
/// begin a line of its own.
fn value(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '"' | ']' => {
                escaped.push('\\');
                escaped.push(c);
            }
            c if !printable::is_shown(c) => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_that_lists_a_domain_concerns_it_and_no_other() {
        let log = include_bytes!("../tests/golden/since/audit-000000000001.jsonl");
        let entries: Vec<Entry> =
            log.split(|byte| *byte == b'\n').filter_map(Entry::parse).collect();
        for (kind, list) in
            [("pc-slept", "domains"), ("agent-gap", "ended"), ("agent-left", "domains")]
        {
            let entry = entries
                .iter()
                .find(|entry| entry.kind == kind && entry.detail.contains_key(list))
                .unwrap();
            let listed = entry.detail.get(list).and_then(|list| list[0].as_str()).unwrap();
            let wants = |domain: &str| {
                Filter { domain: Some(domain.to_owned()), ..Filter::default() }.wants(entry)
            };
            assert!(wants(listed), "{kind}");
            assert!(!wants("elsewhere"), "{kind}");
        }
    }
}
