//! What who reads a log is told of it if it does not hold; and which head is whose.

use std::fs;
use std::path::Path;

use crate::audit::{a_day, copy, forget, verify};
use crate::support::{MACHINE, Ward};

type Spoil = fn(&mut Vec<String>);

const SPOILS: [(&str, &str, Spoil); 9] = [
    ("forged", "line 3, entry 3: the entry was changed", |lines| {
        lines[2] = lines[2].replace("\"kind\":\"", "\"kind\":\"un");
    }),
    ("no entry", "line 3, entry 3: this is no entry", |lines| lines[2] = "{}".to_owned()),
    ("junk appended", ": this is no entry", |lines| lines.push("junk".to_owned())),
    ("half a line appended", ": the line is cut off", |lines| lines.push("{\"se\0".to_owned())),
    ("deleted", "line 3, entry 3: entry 3 is missing", |lines| drop(lines.remove(2))),
    ("swapped", "line 3, entry 3: entry 3 is missing", |lines| lines.swap(2, 3)),
    ("doubled", "line 4, entry 4: entry 3 stands", |lines| lines.insert(3, lines[2].clone())),
    ("start cut", "line 1, entry 1: entries 1 to 2 are missing", |lines| drop(lines.drain(..2))),
    ("end cut", "the end is missing", |lines| drop(lines.pop())),
];

// Shows: K-5.4.3.
#[test]
fn who_shows_exports_or_replays_a_log_that_does_not_hold_is_told_where() {
    let ward = Ward::new(MACHINE);
    a_day(&ward);
    let file = ward.at("state/audit/audit-000000000001.jsonl");
    let good = fs::read_to_string(&file).unwrap();
    let log = ward.at("state/audit").display().to_string();
    let policy = ward.at("policy.toml").display().to_string();
    let commands: [&[&str]; 4] = [
        &["audit", "show", &log],
        &["audit", "export", &log],
        &["audit", "export", "--format", "rfc5424", &log],
        &["policy", "replay", &policy, &log],
    ];
    for command in commands {
        let output = ward.bulkhead(command);
        assert_eq!(output.status.code(), Some(0), "{command:?}: {output:?}");
        assert_eq!(output.stderr, b"", "{command:?}");
    }
    for (name, what, spoil) in SPOILS {
        let mut lines: Vec<String> = good.lines().map(str::to_owned).collect();
        spoil(&mut lines);
        // What has a NUL for its end has no newline.
        let text = (lines.join("\n") + "\n").replace("\0\n", "");
        fs::write(&file, text).unwrap();
        assert_eq!(verify(&ward, &[]).1, Some(1), "{name}");
        for command in commands {
            let output = ward.bulkhead(command);
            assert_eq!(output.status.code(), Some(1), "{name}, {command:?}: {output:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            let all = ["the audit log does not hold", what, &log, "`bulkhead audit verify"];
            assert!(all.iter().all(|word| said.contains(word)), "{name}, {command:?}: {said}");
            assert!(!output.stdout.is_empty(), "{name}: what can be read is shown");
            if command.contains(&"rfc5424") {
                continue;
            }
            let output = ward.bulkhead(&[command, &["--json"]].concat());
            assert_eq!(output.status.code(), Some(1), "{name}, {command:?}: {output:?}");
            let said = String::from_utf8(output.stdout).unwrap();
            let last = if command[0] == "policy" { &said } else { said.lines().last().unwrap() };
            let answer: serde_json::Value = serde_json::from_str(last).unwrap();
            assert_eq!(answer["ok"], false, "{name}: {answer}");
            assert!(answer["error"].as_str().unwrap().contains(what), "{name}: {answer}");
        }
    }
}

#[test]
fn an_archived_log_is_not_held_against_the_head_of_the_one_that_followed_it() {
    let ward = Ward::new(MACHINE);
    let verify_at = |name: &str| {
        let output = ward.bulkhead(&["audit", "verify", &ward.at(name).display().to_string()]);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (said, output.status.code())
    };
    a_day(&ward);
    a_day(&ward);
    // As the handbook says.
    fs::rename(ward.at("state/audit"), ward.at("state/audit-2026")).unwrap();
    forget(&ward);
    a_day(&ward);
    let (said, status) = verify_at("state/audit-2026");
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("is of another log, and says nothing of this one"), "{said}");
    let (said, status) = verify_at("state/audit");
    assert!(status == Some(0) && !said.contains("another log"), "{said}");

    // The log in force is not to be exchanged for its archive.
    fs::rename(ward.at("state/audit"), ward.at("state/kept")).unwrap();
    copy(&ward.at("state/audit-2026"), &ward.at("state/audit"));
    let (said, status) = verify_at("state/audit");
    assert_eq!(status, Some(1), "{said}");

    // Under another name it is still told by its first entry, and the head beside it is its own.
    let kept = ward.at("state/kept");
    assert_eq!(verify_at("state/kept").1, Some(0));
    cut_off_the_last_line(&kept.join("audit-000000000001.jsonl"));
    fs::write(kept.join("head"), format!("bulkhead-audit-head:0:{}\n", "0".repeat(64))).unwrap();
    let (said, status) = verify_at("state/kept");
    assert!(status == Some(1) && said.contains("the end is missing"), "{said}");
}

fn cut_off_the_last_line(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let keep = text.trim_end().rfind('\n').unwrap() + 1;
    fs::write(file, &text[..keep]).unwrap();
}
