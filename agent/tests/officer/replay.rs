//! A draft, held against what is in the audit log.

use std::fs;
use std::path::Path;
use std::process::Command;

use audit::AuditEvent;
use audit::events::{AgentStopped, ClipboardPaste, UsbJudged, Verdict};

use crate::{artefacts, bulkhead, json, path};

/// Asserts that a device was judged so.
fn usb(verdict: Verdict, device: String) -> AuditEvent {
    UsbJudged {
        domain: None,
        verdict,
        rule: None,
        policy: 7,
        break_glass: false,
        bus_id: "1-4".to_owned(),
        device,
        name: None,
        request: None,
        seat_keeps_interfaces: None,
        to: None,
    }
    .into()
}

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
    let clipboard = |verdict, bytes| ClipboardPaste {
        domain: "clinical".to_owned(),
        verdict,
        rule: None,
        policy: 7,
        answer: None,
        break_glass: false,
        bytes,
        from: "internet".to_owned(),
        hits: None,
        inspected: None,
        normalised: None,
        sha256: "e3b0".to_owned(),
        to: "clinical".to_owned(),
        r#type: "text/plain".to_owned(),
        unfit: None,
    };
    let looked = |verdict, bytes, inspected: &[&str], hits: &[&str]| {
        let listed = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        let hits = Some(hits).filter(|hits| !hits.is_empty()).and_then(listed);
        ClipboardPaste { inspected: listed(inspected), hits, ..clipboard(verdict, bytes) }.into()
    };
    let both = ["korean-rrn", "card-number"];
    writer
        .append(&[
            looked(Verdict::Allow, 50, &both, &[]),             // the same
            clipboard(Verdict::Allow, 500).into(),              // too long now
            looked(Verdict::Deny, 50, &["korean-rrn"], &[]), // allowed now, one detector did not look
            looked(Verdict::Deny, 60, &both, &["card-number"]), // the same
            usb(Verdict::ReadOnly, "vendor=0951,product=1666,interfaces=08/06/50".to_owned()), // no rule for it
            AgentStopped {}.into(),
        ])
        .unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", String::from_utf8_lossy(&replayed.stderr));
    let answer = json(&replayed);
    assert_eq!(
        (&answer["flows"], &answer["different"], &answer["unreadable"]),
        (&5.into(), &3.into(), &0.into())
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
    assert!(said.ends_with("5 flows decided again, 3 would come out otherwise\n"), "{said}");
    let none = bulkhead(&["replay", &draft, &log, "--since", "9999"]);
    assert_eq!(none.status.code(), Some(0));
    // The log by its option: the same, and not another log behind the draft too.
    let by_option = bulkhead(&["replay", "--log", &log, &draft]);
    assert_eq!(by_option.status.code(), Some(1));
    assert_eq!(String::from_utf8(by_option.stdout).unwrap(), said);
    let two_logs = bulkhead(&["replay", &draft, &log, "--log", &log]);
    assert_eq!(two_logs.status.code(), Some(2), "{two_logs:?}");
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
    let usb = |verdict, found: &str| {
        usb(verdict, format!("vendor=1050,product=0407,interfaces=03/00/00{found}"))
    };
    let same = [
        usb(Verdict::Allow, ":no-keyboard"),
        usb(Verdict::Deny, ":keyboard-or-mouse"),
        usb(Verdict::Deny, ""),
    ];
    writer.append(&same).unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    let answer = json(&replayed);
    assert_eq!((&answer["flows"], &answer["different"]), (&3.into(), &0.into()), "{answer}");
    assert_eq!(replayed.status.code(), Some(0));
}
