//! Who asked what of the agent, and how it says that something is not as it should be.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::audit::{started, verify};
use crate::support::{MACHINE, Ward};

/// Returns the details of the entries of a kind.
pub(crate) fn entries(ward: &Ward, kind: &str) -> Vec<serde_json::Value> {
    let log = ward.at("state/audit").display().to_string();
    let output = ward.bulkhead(&["audit", "show", &log, "--json", "--kind", kind]);
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

// Shows: K-5.4.2.
#[test]
fn what_was_asked_is_on_the_record_with_how_it_ended_before_its_answer() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let last = || entries(&ward, "asked").pop().unwrap();
    assert!(ward.bulkhead(&["stop", "internet"]).status.success());
    let asked = last();
    assert_eq!((&asked["domain"], &asked["detail"]["what"]), (&"internet".into(), &"stop".into()));
    assert_eq!(asked["detail"]["outcome"], "begun");
    assert_eq!(ward.bulkhead(&["reset", "internet"]).status.code(), Some(1));
    let asked = last();
    assert_eq!(asked["detail"]["outcome"], "not done");
    assert!(asked["detail"]["why"].as_str().unwrap().contains("only a running domain"), "{asked}");
    let refused = ward.bulkhead(&["start", "nothere"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("this PC has: clinical, internet"), "{said}");
    assert_eq!(last()["detail"]["why"], said.trim().trim_start_matches("bulkhead: "));
    if Uid::effective().is_root() {
        assert_eq!(last()["detail"]["account"], "root");
    }
    agent.stop();
}

#[test]
fn what_is_asked_is_on_the_record_before_anything_of_it_is_done() {
    let ward = Ward::new(MACHINE);
    let policy = fs::read_to_string(ward.at("policy.toml")).unwrap();
    if !policy.contains("[break_glass]") {
        let section = "\n[break_glass]\nmax_duration = \"10m\"\nreason_required = true\n";
        fs::write(ward.at("policy.toml"), policy + section).unwrap();
    }
    let agent = started(&ward);
    assert!(ward.bulkhead(&["break-glass", "--reason", "CPR"]).status.success());
    assert!(ward.bulkhead(&["break-glass", "--end"]).status.success());
    agent.stop();
    let log = ward.at("state/audit").display().to_string();
    let output = ward.bulkhead(&["audit", "show", &log, "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut order = Vec::new();
    for line in text.lines() {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        let kind = entry["kind"].as_str().unwrap().to_owned();
        if kind.starts_with("ask") {
            assert_eq!(entry["detail"]["uid"], Uid::effective().as_raw(), "{entry}");
            assert_eq!(entry["detail"]["outcome"].is_null(), kind == "asking", "{entry}");
        }
        if kind.starts_with("ask") || kind.starts_with("break-glass") {
            order.push(kind);
        }
    }
    let [open, close] = ["break-glass-opened", "break-glass-closed"];
    assert_eq!(order, ["asking", open, "asked", "asking", close, "asked"]);
}

#[test]
fn how_a_request_that_takes_its_time_ended_is_an_entry_with_the_requests_number() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    ward.wait_for_state("internet", "running");
    let numbers = |what: &str| {
        let asking = entries(&ward, "asking").pop().unwrap();
        let asked = entries(&ward, "asked").pop().unwrap();
        assert_eq!(
            (&asking["detail"]["what"], &asked["detail"]["what"]),
            (&what.into(), &what.into())
        );
        assert_eq!(asked["detail"]["request"], asking["seq"]);
        (asked["detail"]["outcome"].clone(), asking["seq"].clone())
    };
    let ended = |to: &str, number: &serde_json::Value| {
        ward.wait_for_state("internet", to);
        let of_it = |entry: &serde_json::Value| entry["detail"]["request"] == *number;
        let mut came_of_it = entries(&ward, "domain");
        came_of_it.retain(of_it);
        came_of_it
            .pop()
            .is_some_and(|last| last["domain"] == "internet" && last["detail"]["to"] == to)
    };
    assert!(ward.bulkhead(&["stop", "internet"]).status.success());
    let (outcome, stop) = numbers("stop");
    assert_eq!(outcome, "begun");
    ward.wait("the end of it", || ended("off", &stop));
    assert!(ward.bulkhead(&["start", "internet"]).status.success());
    let (outcome, start) = numbers("start");
    assert_eq!(outcome, "begun");
    ward.wait("the end of it", || ended("running", &start));
    let log = ward.at("state/audit").display().to_string();
    let shown = ward.bulkhead(&["audit", "show", &log, "--kind", "domain"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains(&format!("request={start} to=\"running\"")), "{shown}");
    // What is so already is done, and nothing more comes of it.
    assert!(ward.bulkhead(&["start", "internet"]).status.success());
    assert_eq!(numbers("start").0, "done");
    agent.stop();
}

#[test]
fn a_screen_that_is_locked_is_on_the_record_at_once_though_nobody_asks_anything_after_it() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    assert!(ward.bulkhead(&["lock"]).status.success());
    // The log's files are read, and the agent is asked nothing.
    ward.wait("the entry", || !entries(&ward, "seat-locked").is_empty());
    let [locked] = &entries(&ward, "seat-locked")[..] else { panic!("one entry") };
    let asked = entries(&ward, "asked").pop().unwrap();
    let late = |entry: &serde_json::Value| entry["monotonic_us"].as_u64().unwrap();
    assert!(late(locked).abs_diff(late(&asked)) < 1_000_000, "{locked} {asked}");
    agent.stop();
}

#[test]
fn callers_that_are_refused_are_on_the_record_by_user_and_request_and_counted_also_at_the_end() {
    if !Uid::effective().is_root() {
        return; // only root can be somebody else
    }
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let bulkhead = ward.at("bulkhead");
    fs::copy(crate::support::program("bulkhead"), &bulkhead).unwrap();
    let ask = |uid: u32, args: &[&str]| {
        let mut command = Command::new(&bulkhead);
        command.env("BULKHEAD_RUNTIME", ward.at("run")).args(args).uid(uid).gid(uid);
        assert_eq!(command.output().unwrap().status.code(), Some(1));
    };
    for _ in 0..4 {
        ask(65534, &["status"]);
    }
    ask(65534, &["lock"]);
    ask(65533, &["status"]);
    agent.stop();
    let of = |uid: u32, what: &str| -> Vec<u64> {
        let mut entries = entries(&ward, "refused");
        entries.retain(|entry| entry["detail"]["uid"] == uid && entry["detail"]["what"] == what);
        entries.iter().map(|entry| entry["detail"]["times"].as_u64().unwrap()).collect()
    };
    assert_eq!(of(65534, "status"), [1, 3]);
    assert_eq!(of(65534, "lock"), [1]);
    assert_eq!(of(65533, "status"), [1]);
}

#[test]
fn what_changes_nothing_and_is_asked_again_and_again_is_counted_in_the_log_also_at_the_end() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    assert!(ward.bulkhead(&["lock"]).status.success());
    ward.wait("the lock", || ward.status()["seat"]["locked"] == true);
    for _ in 0..4 {
        assert!(ward.bulkhead(&["lock"]).status.success());
        assert_eq!(ward.bulkhead(&["switch", "internet"]).status.code(), Some(1), "it is locked");
    }
    for made_up in ["one", "two", "three"] {
        assert_eq!(ward.bulkhead(&["switch", made_up]).status.code(), Some(1));
    }
    agent.stop();
    assert!(entries(&ward, "asking").is_empty(), "nothing was to be changed");
    // The first by itself, and the sum of those that were counted.
    let times = |what: &str, domain: Option<&str>| -> (usize, u64) {
        let mut asked = entries(&ward, "asked");
        asked.retain(|entry| entry["detail"]["what"] == what && entry["domain"].as_str() == domain);
        let counts = asked.iter().map(|entry| entry["detail"]["times"].as_u64());
        let alone = counts.clone().filter(Option::is_none).count();
        (alone, counts.flatten().sum())
    };
    assert_eq!(times("lock", None), (1, 4));
    assert_eq!(times("switch", Some("internet")), (1, 3));
    assert_eq!(times("switch", None), (1, 2));
}

#[test]
fn who_asks_for_changes_without_end_is_refused_and_the_log_stays_small() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let start = Instant::now();
    let mut refused = 0;
    for _ in 0..150 {
        let output = ward.bulkhead(&["reset", "nothere"]);
        assert_eq!(output.status.code(), Some(1));
        refused += u64::from(String::from_utf8_lossy(&output.stderr).contains("too often"));
    }
    assert!(refused > 0, "no limit was met");
    agent.stop();
    let asked = entries(&ward, "asked").len() as u64;
    let counted =
        entries(&ward, "refused").into_iter().filter(|entry| entry["detail"]["what"] == "reset");
    let counted: u64 = counted.map(|entry| entry["detail"]["times"].as_u64().unwrap()).sum();
    assert_eq!(
        (asked + counted, counted),
        (150, refused),
        "each is in the log, counted or by itself"
    );
    let most = 60 + start.elapsed().as_secs() / 2 + 1;
    assert!(asked <= most, "{asked} entries in {:?}", start.elapsed());
}

#[test]
fn who_switches_without_end_is_refused_and_who_takes_something_away_never_is() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let start = Instant::now();
    let mut refused = 0;
    for turn in 0..170 {
        let to = ["internet", "clinical"][turn % 2];
        let output = ward.bulkhead(&["switch", to]);
        refused += u64::from(String::from_utf8_lossy(&output.stderr).contains("too often"));
    }
    assert!(refused > 0, "no limit was met");
    let most = 2 * (60 + start.elapsed().as_secs() / 2 + 1);
    let switched = entries(&ward, "seat-switched").len() as u64;
    assert!(switched <= most, "{switched} entries in {:?}", start.elapsed());
    // Nobody is kept from ending what should not go on, and the log stays small all the same.
    for _ in 0..90 {
        let ended = ward.bulkhead(&["break-glass", "--end"]);
        assert!(!String::from_utf8_lossy(&ended.stderr).contains("too often"), "{ended:?}");
    }
    agent.stop();
    let mut ends = entries(&ward, "asked");
    ends.retain(|entry| entry["detail"]["what"] == "break-glass-end");
    let times = |entry: &serde_json::Value| entry["detail"]["times"].as_u64().unwrap_or(1);
    assert_eq!(ends.iter().map(times).sum::<u64>(), 90, "each is in the log, counted or by itself");
    assert!((ends.len() as u64) < 60 + start.elapsed().as_secs() / 2 + 5, "{}", ends.len());
}

#[test]
fn status_is_not_ok_while_a_domain_is_down_that_should_run_or_nothing_can_be_recorded() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    ward.wait_for_state("internet", "running");
    let status = |status: i32| {
        let output = ward.bulkhead(&["status", "--json"]);
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let plain = ward.bulkhead(&["status"]);
        assert_eq!(plain.status.code(), Some(status));
        let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(answer["ok"], status == 0);
        let why = answer["error"].as_str().unwrap_or_default().to_owned();
        assert_eq!(String::from_utf8_lossy(&plain.stdout).contains("NOT OK: "), status == 1);
        why
    };
    assert_eq!(status(0), "");
    // Switched off on purpose is not down.
    assert!(ward.bulkhead(&["stop", "internet"]).status.success());
    assert_eq!(status(0), "");
    ward.behave("internet", "crash");
    assert_eq!(ward.bulkhead(&["start", "internet"]).status.code(), Some(1));
    let why = status(1);
    assert!(why.contains("internet is down"), "{why}");
    agent.stop();

    let ward = Ward::new(MACHINE);
    fs::create_dir_all(ward.at("state")).unwrap();
    fs::write(ward.at("state/audit"), "in the way").unwrap();
    let agent = started(&ward);
    let output = ward.bulkhead(&["status", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("nothing can be recorded"));
    agent.stop();
}

#[test]
fn a_watched_status_goes_on_until_nobody_reads_it() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let bulkhead = crate::support::program("bulkhead").display().to_string();
    let runtime = ward.at("run").display().to_string();
    let pipe =
        format!("'{bulkhead}' --runtime '{runtime}' status --watch=1 | grep -m 2 -c '^agent '");
    let output = Command::new("sh").args(["-c", &pipe]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "2");
    assert_eq!(ward.bulkhead(&["status", "--watch=0"]).status.code(), Some(2));
    agent.stop();
}

#[test]
fn a_terminal_that_hangs_up_stops_the_agent_in_order() {
    let ward = Ward::new(MACHINE);
    let mut agent = started(&ward);
    let pid = ward.pid("clinical");
    agent.signal(Signal::SIGHUP);
    assert_eq!(agent.wait().code(), Some(0));
    assert!(!crate::support::alive(pid));
    assert_eq!(ward.events("clinical").last().map(String::as_str), Some("power-button"));
    let (said, status) = verify(&ward, &[]);
    assert!(status == Some(0) && said.contains(" 0 entries since the last"), "{said}");
}
