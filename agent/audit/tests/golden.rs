//! Logs of another version: `tests/golden`, which holds every kind of entry as it was written before the catalogue was made, a kind that
//! this version does not know, and a field that it does not know.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use audit::events::SeatUnlocked;
use audit::{AuditEvent, Entry, Follower, PublicKey, each, rfc5424, shown, verify_at};

fn golden(log: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(log)
}

fn entries(log: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    each(&golden(log), |_, entry| {
        entries.push(entry);
        Ok(())
    })
    .unwrap();
    entries
}

#[test]
fn a_log_with_kinds_and_fields_that_this_version_does_not_know_is_verified_and_read_to_the_end() {
    let key = fs::read_to_string(golden("whole").join("audit.pub")).unwrap();
    let key = PublicKey::parse(key.trim()).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(1_795_010_000);
    let summary = verify_at(&golden("whole"), Some(&key), &[], now).unwrap().unwrap();
    let entries = entries("whole");
    assert_eq!(summary.entries, u64::try_from(entries.len()).unwrap());
    assert!(summary.closed && summary.clock_steps == 1);
    let mut follower = Follower::open(&golden("whole")).unwrap();
    follower.each_new(|_, _| Ok(())).unwrap();
    follower.note_end();
    assert_eq!(follower.take_flaws(), None);
    // A kind that is not known is no event, and an entry all the same.
    let other = entries.iter().find(|entry| entry.kind == "file-sent").unwrap();
    assert_eq!(AuditEvent::read(other), None);
    assert!(
        rfc5424(other, "pc").contains(" file-sent ")
            && rfc5424(other, "pc").contains("files=\"2\"")
    );
    // A field that is not known is passed over, and shown all the same.
    let more = |entry: &&Entry| entry.kind == SeatUnlocked::KIND && !entry.detail.is_empty();
    let more = entries.iter().find(more).unwrap();
    assert_eq!(AuditEvent::read(more), Some(SeatUnlocked {}.into()));
    assert!(rfc5424(more, "pc").contains("account=\"kim\""));
}

#[test]
fn every_kind_of_entry_is_shown_to_people_byte_for_byte_as_before_it_was_read_by_the_catalogue() {
    for log in ["whole", "found-broken", "since"] {
        let lines: String = entries(log).iter().map(|entry| shown(entry) + "\n").collect();
        let before = fs::read_to_string(golden(&format!("{log}.shown"))).unwrap();
        assert_eq!(lines, before, "{log}");
    }
}
