//! Who asked what of the agent, and how it says that something is not as it should be.

use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Uid;

use crate::audit::{started, verify};
use crate::support::{MACHINE, Ward};

/// The details of the entries of a kind.
fn entries(ward: &Ward, kind: &str) -> Vec<serde_json::Value> {
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
