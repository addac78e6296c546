//! A draft, held against what is in the audit log.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{artefacts, bulkhead, json, path};

#[test]
fn a_draft_is_replayed_against_what_crossed_last_month() {
    let dir = tempfile::tempdir().unwrap();
    let (draft, log) = (path(dir.path(), "draft.toml"), path(dir.path(), "audit"));
    bulkhead(&["new", &draft]);
    let rules = "\n[[clipboard]]\nid = \"text-in\"\nfrom = \"internet\"\nto = \"clinical\"\n\
                 types = [\"text/plain\"]\nmax_bytes = 100\naction = \"allow\"\n\
                 inspect = [\"korean-rrn\", \"card-number\"]\n";
    fs::write(&draft, fs::read_to_string(&draft).unwrap() + rules).unwrap();
    let key = audit::AuditKey::open(&dir.path().join("key")).unwrap();
    let limits = audit::Limits::default();
    let (mut writer, _) = audit::Log::open(Path::new(&log), key, limits, "boot").unwrap();
    let clipboard = |verdict, bytes: u64| audit::Event {
        verdict: Some(verdict),
        ..audit::Event::new("clipboard")
            .with("from", "internet")
            .with("to", "clinical")
            .with("type", "text/plain")
            .with("bytes", bytes)
    };
    let both = vec!["korean-rrn", "card-number"];
    let usb = audit::Event {
        verdict: Some("read-only"),
        ..audit::Event::new("usb").with("device", "vendor=0951,product=1666,interfaces=08/06/50")
    };
    writer
        .append(&[
            clipboard("allow", 50).with("inspected", both.clone()), // the same
            clipboard("allow", 500),                                // too long now
            clipboard("deny", 50).with("inspected", vec!["korean-rrn"]), // allowed now, one detector did not look
            clipboard("deny", 60).with("inspected", both).with("hits", vec!["card-number"]), // the same
            usb, // no rule for it
            audit::Event { verdict: Some("allow"), ..audit::Event::new("clipboard") }, // says nothing
            audit::Event::new("agent-stopped"),
        ])
        .unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", String::from_utf8_lossy(&replayed.stderr));
    let answer = json(&replayed);
    assert_eq!(
        (&answer["flows"], &answer["different"], &answer["unreadable"]),
        (&5.into(), &3.into(), &1.into())
    );
    let seqs: Vec<_> = answer["differences"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| d["seq"].as_u64().unwrap())
        .collect();
    // The log was opened and signed before.
    assert_eq!(seqs, [4, 5, 7]);
    assert_eq!(answer["differences"][1]["unasked"], serde_json::json!(["card-number"]));
    let said = String::from_utf8(bulkhead(&["replay", &draft, &log]).stdout).unwrap();
    assert!(
        said.contains("internet to clinical, text/plain, 500 bytes: was allow, would be deny"),
        "{said}"
    );
    assert!(said.contains("unless card-number finds something"), "{said}");
    // As a person here reads a clock; a script gets it as the log has it.
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.env("TZ", "Asia/Seoul").args(["policy", "replay", &draft, &log]);
    let local = String::from_utf8(command.output().unwrap().stdout).unwrap();
    assert!(local.lines().next().unwrap().contains(" +09:00 "), "{local}");
    assert!(answer["differences"][0]["time"].as_str().unwrap().ends_with('Z'), "{answer}");
    assert!(said.ends_with("5 flows decided again, 3 would come out otherwise; 1 entry does not say enough to be decided again\n"), "{said}");
    let none = bulkhead(&["replay", &draft, &log, "--since", "9999"]);
    assert_eq!(none.status.code(), Some(0));
}

#[test]
fn the_log_says_enough_of_an_input_device_to_decide_on_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let (draft, log) = (path(dir.path(), "draft.toml"), path(dir.path(), "audit"));
    bulkhead(&["new", &draft]);
    let rules = "\n[[usb]]\nid = \"keys\"\nmatch = { class = \"hid\" }\nto = \"clinical\"\naction = \"allow\"\n";
    fs::write(&draft, fs::read_to_string(&draft).unwrap() + rules).unwrap();
    let key = audit::AuditKey::open(&dir.path().join("key")).unwrap();
    let (mut writer, _) =
        audit::Log::open(Path::new(&log), key, audit::Limits::default(), "boot").unwrap();
    // As the agent decides: by what the reports show, and what shows nothing may be a keyboard.
    let usb = |verdict, found: &str| audit::Event {
        verdict: Some(verdict),
        ..audit::Event::new("usb")
            .with("device", format!("vendor=1050,product=0407,interfaces=03/00/00{found}"))
    };
    let same = [usb("allow", ":no-keyboard"), usb("deny", ":keyboard-or-mouse"), usb("deny", "")];
    writer.append(&same).unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    let answer = json(&replayed);
    assert_eq!((&answer["flows"], &answer["different"]), (&3.into(), &0.into()), "{answer}");
    assert_eq!(replayed.status.code(), Some(0));
}
