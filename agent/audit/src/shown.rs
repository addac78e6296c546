//! An entry for people, in one line: `12 domain clinical from="off" to="running"`.

use serde_json::Value;

use crate::entry::{Entry, Record};
use crate::events::{AuditEvent, Recognition};

/// Returns an entry in one line for people, without its time: what its event says by the catalogue, and behind it by name whatever else is
/// in the entry. What cannot be shown as it is, is escaped.
#[must_use]
pub fn shown(entry: &Entry) -> String {
    let (said, remark) = match AuditEvent::recognize(entry) {
        Recognition::Event(event) => (event.record().with_rest_of(entry), ""),
        Recognition::Incomplete(kind) => {
            (Record::of_entry(kind.name, entry), " (does not say what an entry of its kind says)")
        }
        Recognition::Unknown => {
            (Record::of_entry("", entry), " (of a kind that this version does not know)")
        }
    };
    let mut line = format!("{:>7} {}", entry.seq, entry.kind);
    for word in [&said.domain, &said.verdict, &said.rule].into_iter().flatten() {
        line.push(' ');
        line.push_str(word);
    }
    if let Some(serial) = said.policy {
        line.push_str(&format!(" policy={serial}"));
    }
    for (key, value) in &said.detail {
        line.push_str(&format!(" {key}={value}"));
    }
    line.push_str(remark);
    printable::line(&line).up_to(usize::MAX).to_string()
}

impl Record {
    /// Returns what an entry says, taken as it is.
    fn of_entry(kind: &'static str, entry: &Entry) -> Self {
        let (domain, verdict, rule) =
            (entry.domain.clone(), entry.verdict.clone(), entry.rule.clone());
        Self { kind, domain, verdict, rule, policy: entry.policy, detail: entry.detail.clone() }
    }

    /// Adds what the entry says besides, which another version knows.
    fn with_rest_of(mut self, entry: &Entry) -> Self {
        let Self { domain, verdict, rule, policy, detail, .. } = &mut self;
        for (own, other) in
            [(domain, &entry.domain), (verdict, &entry.verdict), (rule, &entry.rule)]
        {
            if own.is_none() {
                own.clone_from(other);
            }
        }
        *policy = policy.or(entry.policy);
        for (name, value) in &entry.detail {
            detail.entry(name.clone()).or_insert_with(|| Value::clone(value));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::shown;
    use crate::entry::Entry;

    fn of(kind: &str, more: &str) -> String {
        let line = format!(
            "{{\"seq\":7,\"time\":\"2026-11-23T15:04:05.000000Z\",\"boot\":\"b\",\"kind\":\"{kind}\",{more}\"prev\":\"\",\"hash\":\"\"}}"
        );
        shown(&Entry::parse(line.as_bytes()).unwrap())
    }

    #[test]
    fn an_entry_that_lacks_what_its_kind_says_is_shown_as_it_is_and_the_reader_is_told() {
        let told = "(does not say what an entry of its kind says)";
        assert_eq!(
            of("usb-attached", "\"detail\":{\"bus_id\":\"1-4\"},"),
            format!("      7 usb-attached bus_id=\"1-4\" {told}")
        );
        // A number in the place of a text, and a verdict that is none.
        assert!(of("failed", "\"detail\":{\"what\":1},").ends_with(told));
        assert!(of("clipboard", "\"domain\":\"clinical\",\"verdict\":\"maybe\",").ends_with(told));
        assert_eq!(of("failed", "\"detail\":{\"what\":\"usb\"},"), "      7 failed what=\"usb\"");
    }

    #[test]
    fn what_another_version_says_besides_is_shown_among_the_rest() {
        assert_eq!(
            of("failed", "\"domain\":\"clinical\",\"detail\":{\"again\":true,\"what\":\"usb\"},"),
            "      7 failed clinical again=true what=\"usb\""
        );
    }
}
