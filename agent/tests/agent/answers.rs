//! What a script reads of `bulkhead`: the same keys in every answer of every command.
#![expect(clippy::panic, reason = "a test says by panicking what it did not expect")]

use std::fs;
use std::process::Output;

use control::commands::find;
use serde_json::Value;

use crate::support::{MACHINE, Ward};

/// Returns every command that has none below it, as `bulkhead` itself lists them.
fn commands(ward: &Ward, path: &[String]) -> Vec<Vec<String>> {
    let words: Vec<&str> = ["help"].into_iter().chain(path.iter().map(String::as_str)).collect();
    let help = String::from_utf8(ward.bulkhead(&words).stdout).unwrap();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names: Vec<&str> = listed
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    if names.is_empty() {
        return vec![path.to_vec()];
    }
    let below = |name: &&str| commands(ward, &[path, &[(*name).to_owned()]].concat());
    names.iter().flat_map(below).collect()
}

/// Ways to call a command; `{}` is the ward's directory.
fn calls(command: &str) -> &'static [&'static str] {
    match command {
        "status" => &["status", "status --watch=0"],
        "start" => &["start clinical", "start nothere"],
        "stop" => &["stop internet --now", "stop nothere"],
        "restart" => &["restart internet", "restart nothere"],
        "renew" => &["renew internet", "renew clinical", "renew nothere"],
        "reset" => &["reset clinical", "reset nothere"],
        "switch" => &["switch internet", "switch nothere"],
        "lock" => &["lock"],
        "unlock" => &["unlock"],
        "clipboard copy" => &["clipboard copy --from clinical", "clipboard copy --from nothere"],
        "clipboard paste" => &["clipboard paste --to clinical", "clipboard paste --to nothere"],
        "usb list" => &["usb list"],
        "usb attach" => &["usb attach 99-9 clinical"],
        "usb detach" => &["usb detach 99-9"],
        "break-glass" => &["break-glass --reason fire", "break-glass --end", "break-glass"],
        "policy check" => {
            &["policy check {}/policy.toml", "policy check {}/bad.toml", "policy check"]
        }
        "policy explain clipboard" => &[
            "policy explain {}/wide.toml clipboard --from clinical --to internet --type text/plain --bytes 9",
            "policy explain {}/policy.toml clipboard --from clinical --to internet --type image/png --bytes 9",
            "policy explain {}/policy.toml clipboard --from clinical --to nothere --type text/plain --bytes 9",
        ],
        "policy explain usb" => &[
            "policy explain {}/policy.toml usb --device 1234:5678,interfaces=0b/00/00",
            "policy explain {}/policy.toml usb --busid 99-9",
        ],
        "policy diff" => &[
            "policy diff {}/policy.toml {}/policy.toml",
            "policy diff {}/policy.toml {}/wide.toml",
            "policy diff {}/policy.toml {}/bad.toml",
            "policy diff - -",
        ],
        "policy matrix" => {
            &["policy matrix {}/policy.toml", "policy matrix {}/policy.toml --html {}/page"]
        }
        "policy show" => &["policy show"],
        "policy from-device" => &["policy from-device 99-9 --to clinical"],
        "policy replay" => {
            &["policy replay {}/policy.toml {}/state/audit", "policy replay {}/policy.toml {}"]
        }
        "policy keygen" => &[
            "policy keygen {}/kim --name kim --no-passphrase",
            "policy keygen {}/kim --name kim --no-passphrase",
        ],
        "policy passphrase" => &[
            "policy passphrase {}/lee --no-passphrase",
            "policy passphrase {}/nothere --no-passphrase",
        ],
        "policy sign" => &[
            "policy sign {}/policy.toml --key {}/kim",
            "policy sign {}/policy.toml --key {}/lee",
            "policy sign {}/bad.toml --key {}/kim",
        ],
        "policy verify" => &[
            "policy verify {}/policy.toml --trust {}/trust.toml",
            "policy verify {}/wide.toml --trust {}/trust.toml",
        ],
        "policy apply" => &["policy apply {}/policy.toml", "policy apply {}/bad.toml"],
        "policy new" => &["policy new", "policy new {}/new.toml", "policy new {}/new.toml"],
        "images pack" => &[
            "images pack {}/desk.bundle --name desk --serial 1 --kernel {}/policy.toml",
            "images pack {}/desk.bundle --name desk --serial 1 --kernel {}/nothere",
        ],
        "images sign" => {
            &["images sign {}/desk.bundle --key {}/kim", "images sign {}/policy.toml --key {}/kim"]
        }
        "images check" => &["images check {}/desk.bundle --trust {}/trust.toml"],
        "images install" => &[
            "images install {}/desk.bundle --images {}/store --machine {}/machine.toml --state {}/state",
        ],
        "images list" => {
            &["images list --images {}/store --machine {}/machine.toml --state {}/state"]
        }
        "images verify" => {
            &["images verify --images {}/store --machine {}/machine.toml --state {}/state"]
        }
        "images activate" => {
            &["images activate desk --images {}/store --machine {}/machine.toml --state {}/state"]
        }
        "images rollback" => {
            &["images rollback desk --images {}/store --machine {}/machine.toml --state {}/state"]
        }
        "images remove" => {
            &["images remove desk 1 --images {}/store --machine {}/machine.toml --state {}/state"]
        }
        "trust show" => &["trust show {}/trust.toml", "trust show {}/nothere.toml"],
        "trust add" => &[
            "trust add {}/new-trust.toml {}/lee.pub --may-sign policy,trust",
            "trust add {}/new-trust.toml {}/lee.pub",
        ],
        "trust remove" => &["trust remove {}/new-trust.toml nobody"],
        "trust threshold" => &[
            "trust threshold {}/new-trust.toml policy=1",
            "trust threshold {}/new-trust.toml policy=9",
        ],
        "trust sign" => {
            &["trust sign {}/new-trust.toml --key {}/lee", "trust sign {}/trust.toml --key {}/lee"]
        }
        "trust verify" => &[
            "trust verify {}/new-trust.toml --trust {}/trust.toml",
            "trust verify {}/nothere.toml --trust {}/trust.toml",
        ],
        "program pack" => &[
            "program pack {}/program.bundle --package {}/policy.toml --serial 1",
            "program pack {}/program.bundle --package {}/nothere --serial 1",
        ],
        "program sign" => &["program sign {}/desk.bundle --key {}/kim"],
        "program check" => &["program check {}/desk.bundle --trust {}/trust.toml"],
        "program install" => {
            &["program install {}/desk.bundle --machine {}/machine.toml --state {}/state"]
        }
        "program status" => &["program status --machine {}/machine.toml --state {}/state"],
        "program rollback" => &["program rollback --machine {}/machine.toml --state {}/state"],
        "program cancel" => &["program cancel --machine {}/machine.toml --state {}/state"],
        "program apply" => &["program apply --machine {}/machine.toml --state {}/state"],
        "audit verify" => &["audit verify {}/state/audit", "audit verify {}"],
        "audit show" => &[
            "audit show {}/state/audit",
            "audit show {}",
            "audit show {}/state/audit --kind nothing",
        ],
        "audit export" => &[
            "audit export {}/state/audit",
            "audit export {}/state/audit --format rfc5424",
            "audit export {}",
        ],
        "doctor" => &["doctor --machine {}/machine.toml --policy {}/policy.toml --state {}/state"],
        "setup" => &[
            "setup --dry-run --machine {}/machine.toml --policy {}/policy.toml --images {} --state {}/state",
            "setup --dry-run --undo --state {}/state",
            "setup --dry-run --answers {}/nothere.toml --machine {}/machine.toml --policy {}/policy.toml --state {}/state",
        ],
        unknown => match find(unknown).filter(|row| row.says.is_some()) {
            // Made of the table.
            Some(row) => std::slice::from_ref(&row.line),
            None => panic!("`bulkhead {unknown}` is new: say here how it is called"),
        },
    }
}

/// Holds that setup reports how it ended however it ended: a roll-out reads that where it was refused too.
fn reports(what: &str, output: &Output) {
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let result = report["result"].as_str().unwrap_or_else(|| panic!("{what}: {report}"));
    let status = match result {
        "changed" | "unchanged" | "proposed" => 0,
        "refused" => 1,
        "misused" => 2,
        other => panic!("{what}: {other}"),
    };
    assert_eq!(output.status.code(), Some(status), "{what}: {report}");
    assert!(report["message"].is_string(), "{what}: {report}");
    assert!(report["changes"].is_array() && report["notes"].is_array(), "{what}: {report}");
    assert_eq!(report["error"].is_null(), status == 0, "{what}: {report}");
}

/// Holds what was printed against the exit status.
fn holds(what: &str, output: &Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    let answers: Vec<Value> = serde_json::Deserializer::from_slice(&output.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{what}: {error}: {said}{output:?}"));
    let (last, before) = answers.split_last().unwrap_or_else(|| panic!("{what}: {output:?}"));
    let ok = |answer: &Value| {
        let (ok, error) = (answer["ok"].as_bool(), answer.get("error"));
        let ok = ok.unwrap_or_else(|| panic!("{what}: no `ok`: {answer}"));
        let error = error.unwrap_or_else(|| panic!("{what}: no `error`: {answer}"));
        let why = error.as_str().is_some_and(|why| !why.is_empty());
        assert!(if ok { error.is_null() } else { why }, "{what}: {answer}");
        ok
    };
    assert_eq!(ok(last), output.status.success(), "{what}: {output:?}");
    assert!(before.iter().all(ok), "{what}: {said}");
}

#[test]
fn every_answer_for_scripts_says_whether_it_is_yes_and_why_not() {
    let ward = Ward::new(MACHINE);
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    ward.wait_for_state("internet", "running");
    let policy = fs::read_to_string(ward.at("policy.toml")).unwrap();
    let rule = "\n[[clipboard]]\nid = \"everything-out\"\nfrom = \"clinical\"\nto = \"internet\"\n\
                types = [\"text/plain\"]\naction = \"allow\"\n";
    fs::write(ward.at("wide.toml"), policy + rule).unwrap();
    fs::write(ward.at("bad.toml"), "format = 1\nserail = 2\n").unwrap();
    let officer = ward.at("lee").display().to_string();
    let made = ward.bulkhead(&["policy", "keygen", &officer, "--name", "lee", "--no-passphrase"]);
    assert!(made.status.success(), "{made:?}");
    let public = fs::read_to_string(ward.at("lee.pub")).unwrap();
    fs::write(ward.at("trust.toml"), format!("format = 1\nthreshold = 1\n{public}")).unwrap();

    let directory = ward.at("").display().to_string();
    let nowhere = ward.at("nowhere").display().to_string();
    let all = commands(&ward, &[]);
    assert!(all.len() >= 30, "{all:?}");
    let mut statuses = Vec::new();
    for command in all {
        let command = command.join(" ");
        for call in calls(&command) {
            let call = call.replace("{}", directory.trim_end_matches('/'));
            let mut words: Vec<&str> = call.split(' ').collect();
            words.push("--json");
            let output = ward.bulkhead(&words);
            statuses.push(output.status.code());
            holds(&call, &output);
            if command == "setup" {
                reports(&call, &output);
            }
            // As long as nothing is misunderstood, where there is no agent.
            words.extend(["--runtime", &nowhere]);
            holds(&format!("without an agent: {call}"), &ward.bulkhead(&words));
            words.push("--no-such-option");
            let misuse = ward.bulkhead(&words);
            assert_eq!(misuse.status.code(), Some(2), "{call}");
            holds(&format!("misuse: {call}"), &misuse);
        }
    }
    for status in 0..=2 {
        assert!(statuses.contains(&Some(status)), "{statuses:?}");
    }
    holds("no command", &ward.bulkhead(&["--json"]));
    holds("half a command", &ward.bulkhead(&["policy", "--json"]));
    agent.stop();
}

#[test]
fn a_line_of_the_log_is_shown_to_scripts_with_the_keys_of_an_answer_and_exported_as_it_is() {
    let ward = Ward::new(MACHINE);
    crate::audit::a_day(&ward);
    let log = ward.at("state/audit").display().to_string();
    let lines = |args: &[&str]| {
        let output = ward.bulkhead(args);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = lines(&["audit", "export", &log]);
    let with = |line: &String| line.replacen('{', "{\"ok\":true,\"error\":null,", 1);
    let keyed: Vec<String> = plain.iter().map(with).collect();
    assert!(!plain.is_empty());
    assert_eq!(lines(&["audit", "show", &log, "--json"]), keyed);
    assert_eq!(lines(&["audit", "export", &log, "--json"]), keyed);
}
