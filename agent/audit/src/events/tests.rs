//! The catalogue against the bytes from before there was one: `tests/golden`. The entries were put together as each writer did then, one of
//! every kind and field, and written by the log of that time. They show how an entry is encoded, not that a writer fills the same fields.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::*;
use crate::entry::line;

/// A log that was signed and holds; what the agent writes about one that does not; and the fields that came since, put together by hand.
const GOLDEN: [&str; 3] = ["whole", "found-broken", "since"];

/// The lines of a log as it lies there.
fn lines(log: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(log);
    let files = crate::files::of_log(&dir).unwrap();
    let texts: Vec<u8> = files.iter().flat_map(|file| fs::read(&file.path).unwrap()).collect();
    texts.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
}

fn entry(line: &[u8]) -> Entry {
    Entry::parse(line.strip_suffix(b"\n").unwrap()).unwrap()
}

/// The line of this event in the place of that entry.
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
    assert_eq!(seen, all);
}

#[test]
fn every_field_is_in_the_logs_that_the_catalogue_is_held_against_and_no_name_is_taken_twice() {
    let entries: Vec<Entry> = GOLDEN.into_iter().flat_map(lines).map(|line| entry(&line)).collect();
    let names: Vec<_> = AuditEvent::KINDS.iter().map(|kind| kind.name).collect();
    assert!(names.is_sorted_by(|one, next| one < next), "in the order of the alphabet, each once");
    for kind in AuditEvent::KINDS {
        let of_kind = || entries.iter().filter(|entry| entry.kind == kind.name);
        for field in kind.fields {
            let has = |entry: &Entry| match field.name() {
                DOMAIN => entry.domain.is_some(),
                VERDICT => entry.verdict.is_some(),
                RULE => entry.rule.is_some(),
                POLICY => entry.policy.is_some(),
                name => entry.detail.contains_key(name),
            };
            assert!(of_kind().any(has), "{}: {}", kind.name, field.name());
            // A checkpoint is signed as it is without its signature.
            assert!(!field.always || of_kind().all(has), "{}: {}", kind.name, field.name());
        }
    }
}
