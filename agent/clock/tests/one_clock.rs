//! What would stand still, wait, or end the whole process, is written nowhere in the agent.
#![allow(clippy::unwrap_used, reason = "a test may end on what it cannot do")]

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_owned();
        if path.is_dir() && !["target", "tests", "benches", "fuzz"].iter().any(|not| name == *not) {
            sources(&path, found);
        } else if path.extension().is_some_and(|kind| kind == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// Files of the agent's crates, tests left out, that have this word.
fn with(word: &str, except: &[&str]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut all);
    assert!(all.len() > 100, "{}", all.len());
    let code = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        !except.iter().any(|except| path.ends_with(except))
            && lines
                .take_while(|line| line.trim() != "#[cfg(test)]")
                .any(|line| line.contains(word))
    };
    all.into_iter().filter(code).collect()
}

#[test]
fn deadlines_are_kept_on_the_clock_that_goes_on_in_suspend() {
    assert_eq!(with("Instant", &[]), Vec::<PathBuf>::new(), "`clock::Moment` instead");
}

#[test]
fn no_deadline_is_kept_by_a_wait_that_stands_still_in_suspend() {
    // The hand-over waits for a driver that lets go, and nothing is open meanwhile.
    let timed = ["recv_timeout(", "wait_timeout(", "park_timeout(", "set_read_timeout("];
    for word in timed {
        let except = &["handover/src/handover/drivers.rs", "control/src/client.rs"];
        assert_eq!(with(word, except), Vec::<PathBuf>::new(), "{word}: `clock::Alarm` instead");
    }
}

#[test]
fn nobody_in_the_agent_waits_for_a_listener() {
    // The command line may: it has nothing else to do.
    let waits = with("UnixStream::connect", &["control/src/client.rs"]);
    assert_eq!(waits, Vec::<PathBuf>::new(), "`sockets::connect` instead");
}

#[test]
fn no_thread_is_started_by_what_panics_when_there_is_none_left() {
    for word in ["thread::spawn(", "scope.spawn("] {
        let found = with(word, &[]);
        assert_eq!(found, Vec::<PathBuf>::new(), "{word}: `thread::Builder` instead");
    }
}
