//! What is read out of the audit log, and what is told to who looks for what is not there.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::audit::{a_day, started};
use crate::support::{MACHINE, Ward};

#[test]
fn who_looks_into_a_folder_without_a_log_or_for_what_is_not_there_is_told_so() {
    let ward = Ward::new(MACHINE);
    a_day(&ward);
    let log = ward.at("state/audit").display().to_string();
    let state = ward.at("state").display().to_string();
    let policy = ward.at("policy.toml").display().to_string();
    let tells = |args: &[&str], status: i32, words: &[&str]| {
        let output = ward.bulkhead(args);
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    };
    let missing = ["there is no audit log in", "did you mean", "state/audit?"];
    tells(&["audit", "show", &state], 1, &missing);
    tells(&["audit", "export", &state], 1, &missing);
    tells(&["policy", "replay", &policy, &state], 1, &missing);
    tells(&["audit", "verify", &state], 1, &missing);
    for command in ["show", "export", "verify"] {
        let nowhere = ["there is no audit log at /nowhere", "name the log's directory"];
        tells(&["audit", command, "/nowhere"], 1, &nowhere);
        let output = ward.bulkhead(&["audit", command, "/nowhere"]);
        assert!(!String::from_utf8_lossy(&output.stderr).contains("os error"), "{output:?}");
        // As an export is.
        let file = ["is not a directory; name the folder", "an export can be neither verified"];
        tells(&["audit", command, &policy], 1, &file);
    }
    let no_key = ["the audit key /nowhere: it is not there; name the file", "kept off the PC"];
    tells(&["audit", "verify", "--key", "/nowhere", &log], 1, &no_key);
    let other = ward.at("a/folder");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("notes.txt"), "").unwrap();
    let none = ["is no audit log", "files of other names", "name the log's directory"];
    tells(&["audit", "verify", &other.display().to_string()], 1, &none);
    let nothing = ["nothing was compared: of the", "entries in the log"];
    tells(&["policy", "replay", &policy, &log], 0, &nothing);
    for command in
        [vec!["audit", "show"], vec!["audit", "export"], vec!["policy", "replay", &policy]]
    {
        let with = |option: &'static str, word: &'static str| {
            [&command[..], &[log.as_str(), option, word]].concat()
        };
        tells(&with("--since", "yesterdy"), 2, &["is not a point in time", "yesterday"]);
        tells(&with("--until", "2026-13"), 2, &["is not a point in time", "2026-11,"]);
        tells(&with("--kind", "usb-atached"), 2, &["a similar value exists: 'usb-attached'"]);
        tells(&with("--verdict", "denied"), 2, &["deny"]);
        let both = [&with("--since", "today")[..], &["--until", "yesterday"]].concat();
        tells(&both, 2, &["--since is not before --until"]);
    }
    tells(&["audit", "show", &log, "--kind", "usb"], 0, &["none of the", "is wanted"]);
    // As it is called by who looks for it.
    tells(&["audit", "show", &log, "--kind", "paste"], 0, &["none of the", "is wanted"]);
    tells(&["audit", "show", &log, "--since", "2h", "--kind", "agent-started"], 0, &["policy=7"]);
    tells(&["audit", "show", &log, "--until", "2h"], 0, &["none of the"]);
    // As a person here reads a clock; in UTC for a machine.
    let at = |zone: &str| {
        let mut command = ward.bulkhead_command(&["audit", "show", &log, "--kind", "log-closed"]);
        String::from_utf8(command.env("TZ", zone).output().unwrap().stdout).unwrap()
    };
    assert!(at("Asia/Seoul").contains(" +09:00 "), "{}", at("Asia/Seoul"));
    assert!(at("UTC").contains(" +00:00 "), "{}", at("UTC"));
}

#[test]
fn a_log_that_is_followed_shows_each_entry_within_a_second_and_in_order() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let log = ward.at("state/audit").display().to_string();
    let shown = fs::File::create(ward.at("shown")).unwrap();
    let mut command =
        ward.bulkhead_command(&["audit", "show", &log, "--follow", "--kind", "asked"]);
    let mut follower = command.stdout(Stdio::from(shown)).spawn().unwrap();
    for domain in ["internet", "clinical"] {
        assert!(ward.bulkhead(&["switch", domain]).status.success());
        let asked = Instant::now();
        let there = || fs::read_to_string(ward.at("shown")).unwrap();
        ward.wait("the entry", || there().contains(&format!("asked {domain}")));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
    follower.kill().unwrap();
    follower.wait().unwrap();
    // Nor does a log look broken that is written meanwhile.
    let output = ward.bulkhead(&["audit", "show", &log]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    // That new entries get there is all that the agent knows.
    let status = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    let line = status.lines().find(|line| line.starts_with("audit ")).unwrap();
    assert!(line.ends_with("whether they hold says `bulkhead audit verify`"), "{status}");
    agent.stop();
    // Who follows a log that is emptied does not wait for ever for what is written nowhere.
    let emptied = ward.at("emptied");
    fs::create_dir(&emptied).unwrap();
    for entry in fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, emptied.join(path.file_name().unwrap())).unwrap();
    }
    let mut command =
        ward.bulkhead_command(&["audit", "show", &emptied.display().to_string(), "--follow"]);
    let shown_of_it = fs::File::create(ward.at("shown-of-it")).unwrap();
    let follower = command.stdout(Stdio::from(shown_of_it)).stderr(Stdio::piped()).spawn().unwrap();
    let there = || fs::read_to_string(ward.at("shown-of-it")).unwrap();
    ward.wait("the end", || there().contains("log-closed"));
    for entry in fs::read_dir(&emptied).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let told = follower.wait_with_output().unwrap();
    let words = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(1), "{words}");
    assert!(words.contains("is gone") && words.contains("bulkhead audit verify"), "{words}");
    let shown = fs::read_to_string(ward.at("shown")).unwrap();
    let first = shown.lines().next().unwrap();
    assert!(first.contains("asked internet") && first.contains("outcome=\"done\""), "{shown}");
    // Who reads no more ends it, though nothing is written any more.
    let pipe = format!(
        "'{}' audit show '{log}' --follow | head -n 1",
        crate::support::program("bulkhead").display()
    );
    let start = Instant::now();
    assert!(
        Command::new("sh").args(["-c", &pipe]).stdout(Stdio::null()).status().unwrap().success()
    );
    assert!(start.elapsed() < Duration::from_secs(10));
}
