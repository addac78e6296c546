//! The catalogue against the bytes from before there was one: `tests/golden`. The entries were put together as each writer did then, one of
//! every kind and field, and written by the log of that time. They show how an entry is encoded, not that a writer fills the same fields.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Once;

use super::*;
use crate::entry::line;
use crate::shown::shown;
use crate::time::{Micros, Stamp};

/// A log that was signed and holds; what the agent writes about one that does not; and the kinds and fields that came since, of which
/// `BULKHEAD_WRITE=1 cargo test -p bulkhead-audit` adds those that are in none of the logs yet.
const GOLDEN: [&str; 3] = ["whole", "found-broken", SINCE];
const SINCE: &str = "since";
/// The file of the log to which is added.
const SINCE_FILE: &str = "since/audit-000000000001.jsonl";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns the lines of a log, once what is to be added is there.
fn lines(log: &str) -> Vec<Vec<u8>> {
    static ADDED: Once = Once::new();
    if std::env::var_os("BULKHEAD_WRITE").is_some() {
        ADDED.call_once(add_what_came_since);
    }
    lines_of(&golden().join(log))
}

fn lines_of(log: &Path) -> Vec<Vec<u8>> {
    let files = crate::files::of_log(log).unwrap();
    let texts: Vec<u8> = files.iter().flat_map(|file| fs::read(&file.path).unwrap()).collect();
    texts.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

/// Adds an entry with all fields for each kind of which no log shows all of them. What is there is a contract, and stays to the byte.
fn add_what_came_since() {
    let entries: Vec<Entry> =
        GOLDEN.iter().flat_map(|log| lines_of(&golden().join(log))).map(|it| entry(&it)).collect();
    let last = entries.last().cloned().unwrap();
    let (lines, shown) = added(&entries, last);
    for (file, text) in [(SINCE_FILE, lines), ("since.shown", shown)] {
        let mut file = fs::File::options().append(true).open(golden().join(file)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

/// Returns what is to be added behind the last entry of all, as the log has it and as people are shown it.
fn added(entries: &[Entry], mut last: Entry) -> (String, String) {
    let (mut lines, mut texts) = (String::new(), String::new());
    for kind in AuditEvent::KINDS {
        let of_kind: Vec<&Entry> = entries.iter().filter(|it| it.kind == kind.name).collect();
        let is_there = |field: &Field| of_kind.iter().any(|entry| has(entry, field));
        if !of_kind.is_empty() && kind.fields.iter().all(is_there) {
            continue;
        }
        let fields = kind.fields.iter().map(|it| (it.name().to_owned(), (it.example)()));
        let event = AuditEvent::from_fields(kind.name, fields.collect()).unwrap();
        let Stamp { wall, highest } = last.stamp().unwrap();
        let stamp = Stamp { wall: Micros(wall.0 + 1), highest: Micros(highest.0 + 1) };
        let (seq, boot, prev) = (last.seq + 1, &last.boot, last.hash().unwrap());
        let (line, _) = line(seq, stamp, boot, &event.record(), prev);
        last = entry(&line);
        lines.push_str(std::str::from_utf8(&line).unwrap());
        texts.push_str(&format!("{}\n", shown(&last)));
    }
    (lines, texts)
}

/// Returns whether an entry has this field.
fn has(entry: &Entry, field: &Field) -> bool {
    match field.name() {
        DOMAIN => entry.domain.is_some(),
        VERDICT => entry.verdict.is_some(),
        RULE => entry.rule.is_some(),
        POLICY => entry.policy.is_some(),
        name => entry.detail.contains_key(name),
    }
}

fn entry(line: &[u8]) -> Entry {
    Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap()
}

/// Returns the line of this event in the place of that entry.
fn written(event: &AuditEvent, entry: &Entry) -> String {
    let (line, _) = line(
        entry.seq,
        entry.stamp().unwrap(),
        &entry.boot,
        &event.record(),
        entry.prev().unwrap(),
    );
    String::from_utf8(line).unwrap()
}

#[test]
fn each_kind_of_entry_is_written_byte_for_byte_as_it_was_before_there_was_a_catalogue() {
    let mut seen = BTreeSet::new();
    for log in GOLDEN {
        for line in lines(log) {
            let entry = entry(&line);
            let Some(event) = AuditEvent::read(&entry) else {
                assert_eq!(entry.kind, "file-sent", "a kind of another version");
                continue;
            };
            seen.insert(event.kind());
            // What another version says besides is passed over.
            if entry.kind == SeatUnlocked::KIND && !entry.detail.is_empty() {
                continue;
            }
            assert_eq!(written(&event, &entry), String::from_utf8(line).unwrap());
        }
    }
    let all: BTreeSet<_> = AuditEvent::KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(seen, all, "`BULKHEAD_WRITE=1 cargo test -p bulkhead-audit` adds what is missing");
}

#[test]
fn every_field_is_in_the_logs_that_the_catalogue_is_held_against_and_no_name_is_taken_twice() {
    let entries: Vec<Entry> = GOLDEN.into_iter().flat_map(lines).map(|line| entry(&line)).collect();
    let names: Vec<_> = AuditEvent::KINDS.iter().map(|kind| kind.name).collect();
    assert!(names.is_sorted_by(|one, next| one < next), "in the order of the alphabet, each once");
    for kind in AuditEvent::KINDS {
        let of_kind = || entries.iter().filter(|entry| entry.kind == kind.name);
        for field in kind.fields {
            let has = |entry: &Entry| has(entry, field);
            assert!(of_kind().any(has), "{}: {}", kind.name, field.name());
            // A checkpoint is signed as it is without its signature.
            assert!(!field.always || of_kind().all(has), "{}: {}", kind.name, field.name());
        }
    }
}

#[test]
fn what_no_log_shows_yet_is_added_as_an_entry_with_all_its_fields_and_what_is_shown_is_not() {
    let entries: Vec<Entry> = GOLDEN.into_iter().flat_map(lines).map(|line| entry(&line)).collect();
    let last = || entries.last().cloned().unwrap();
    assert_eq!(added(&entries, last()), (String::new(), String::new()));
    // As if these had just been thought of: a kind, and a field of another.
    let before: Vec<Entry> = entries
        .iter()
        .filter(|entry| entry.kind != RescueBoot::KIND)
        .filter(|entry| entry.kind != AgentGap::KIND || !entry.detail.contains_key("ended"))
        .cloned()
        .collect();
    let (lines, texts) = added(&before, last());
    let lines: Vec<&str> = lines.lines().collect();
    let told: Vec<Entry> =
        lines.iter().map(|line| entry(&[line.as_bytes(), b"\n"].concat())).collect();
    let kinds: Vec<&str> = told.iter().map(|entry| &*entry.kind).collect();
    assert_eq!(kinds, [AgentGap::KIND, RescueBoot::KIND]);
    assert_eq!(texts.lines().count(), told.len());
    let mut prev = last();
    for (entry, line) in told.into_iter().zip(lines) {
        let kind = AuditEvent::kind_of(&entry.kind).unwrap();
        assert!(kind.fields.iter().all(|field| has(&entry, field)), "{line}");
        assert!(entry.hash_holds(line.as_bytes()) && entry.prev() == prev.hash(), "{line}");
        assert_eq!(entry.seq, prev.seq + 1);
        prev = entry;
    }
}

#[test]
fn what_an_account_does_names_it_and_nothing_else_is_an_accounts() {
    for kind in AuditEvent::KINDS {
        let names: Vec<_> = kind.who().1.collect();
        let of_an_account = kind.actor == Actor::Account;
        assert_eq!(names.contains(&"uid"), of_an_account, "{}: whose doing is it?", kind.name);
        assert!(kind.actor != Actor::Agent || !names.contains(&"by"), "{}", kind.name);
    }
}
