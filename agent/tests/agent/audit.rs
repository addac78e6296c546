//! What an auditor, and somebody who meddles with the state, find.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ::audit::events::SeatLocked;
use ::audit::{AuditEvent, AuditKey, ClockReading, Limits, Log, Settings};
use nix::unistd::Uid;

use crate::relink::relink;
use crate::support::{Agent, MACHINE, Ward};

pub(crate) fn started(ward: &Ward) -> Agent {
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    agent
}

pub(crate) fn a_day(ward: &Ward) {
    assert_eq!(started(ward).stop().code(), Some(0));
}

/// Verifies the log; what it says, and its status.
pub(crate) fn verify(ward: &Ward, more: &[&str]) -> (String, Option<i32>) {
    let log = ward.at("state/audit").display().to_string();
    let output = ward.bulkhead(&[&["audit", "verify", &log], more].concat());
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.code())
}

fn head(ward: &Ward) -> String {
    let (said, status) = verify(ward, &[]);
    assert_eq!(status, Some(0), "{said}");
    said.lines().last().unwrap().to_owned()
}

pub(crate) fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn log_files(ward: &Ward) -> Vec<PathBuf> {
    let files = fs::read_dir(ward.at("state/audit")).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    files
}

fn lines(ward: &Ward) -> Vec<String> {
    let texts = log_files(ward).into_iter().map(|file| fs::read_to_string(file).unwrap());
    texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Puts these lines in the place of the log, in one file, chained anew as somebody without the key can. `head` is written to match.
fn forge(ward: &Ward, lines: &[String]) {
    for file in log_files(ward) {
        fs::remove_file(file).unwrap();
    }
    let (mut prev, mut text) = ("0".repeat(64), String::new());
    for (seq, line) in (1..).zip(lines) {
        let line = relink(line, seq, &prev);
        prev = line[line.len() - 66..line.len() - 2].to_owned();
        text.push_str(&line);
        text.push('\n');
    }
    fs::write(ward.at("state/audit/audit-000000000001.jsonl"), text).unwrap();
    let head = format!("bulkhead-audit-head:{}:{prev}\n", lines.len());
    fs::write(ward.at("state/audit/head"), head).unwrap();
}

/// Takes away all in which how far the log went is remembered.
pub(crate) fn forget(ward: &Ward) {
    for file in ["state/audit.head", "run/audit.head", "audit.head"] {
        let _ = fs::remove_file(ward.at(file));
    }
}

// Shows: K-5.4.3.
#[test]
fn each_kind_of_tampering_is_named_with_exit_status_1() {
    let ward = Ward::new(MACHINE);
    a_day(&ward);
    a_day(&ward);
    let (said, status) = verify(&ward, &[]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("What this cannot know") && said.contains("--head"), "{said}");
    let good = ward.at("good");
    copy(&ward.at("state"), &good);
    let spoil = |name: &str, what: &str, spoil: &dyn Fn()| {
        fs::remove_dir_all(ward.at("state")).unwrap();
        copy(&good, &ward.at("state"));
        spoil();
        let (said, status) = verify(&ward, &[]);
        assert_eq!(status, Some(1), "{name}: {said}");
        assert!(said.contains(what), "{name}: {said}");
    };
    let last = || log_files(&ward).pop().unwrap();
    spoil("last line cut", "the end is missing", &|| {
        let text = fs::read_to_string(last()).unwrap();
        let keep = text.trim_end().rfind('\n').unwrap() + 1;
        fs::write(last(), &text[..keep]).unwrap();
    });
    spoil("last file cut", "the end is missing", &|| fs::remove_file(last()).unwrap());
    spoil("last file and head cut", "the end is missing", &|| {
        fs::remove_file(last()).unwrap();
        fs::remove_file(ward.at("state/audit/head")).unwrap();
    });
    spoil(
        "tail after the last checkpoint rewritten",
        "entries 3 to 5 are not signed and older",
        &|| {
            // An agent that died an hour ago.
            fs::remove_dir_all(ward.at("state/audit")).unwrap();
            let clock = || {
                let now = ClockReading::now();
                ClockReading { wall: now.wall - Duration::from_secs(3600), ..now }
            };
            let settings = Settings {
                clock,
                ..Settings::new(&ward.at("state/audit"), Limits::default(), "boot")
            };
            let key = AuditKey::open(&ward.at("state/keys/audit.key")).unwrap();
            let (mut log, _) = Log::open_with(settings, key).unwrap();
            let locked = || AuditEvent::from(SeatLocked { idle: true });
            log.append(&[locked(), locked(), locked()]).unwrap();
            drop(log);
            let mut lines = lines(&ward);
            lines[4] = lines[4].replace("\"idle\":true", "\"idle\":false");
            forge(&ward, &lines);
            forget(&ward);
        },
    );
    spoil("all checkpoints removed", "no entry is signed", &|| {
        let mut lines = lines(&ward);
        lines.retain(|line| !line.contains("\"kind\":\"checkpoint\""));
        forge(&ward, &lines);
        forget(&ward);
    });
    spoil("an entry forged after the head", "added from outside", &|| {
        let mut lines = lines(&ward);
        let last = lines.last().unwrap().replace("\"kind\":\"checkpoint\"", "\"kind\":\"usb\"");
        lines.push(last);
        forge(&ward, &lines);
        fs::copy(good.join("audit/head"), ward.at("state/audit/head")).unwrap();
    });
    spoil("times that go back, signed with the key", "never goes back", &|| {
        // The agent signs what it finds unsigned when it starts; whoever has its key can do as it does.
        let mut lines = lines(&ward);
        lines.truncate(4);
        lines.swap(2, 3);
        forge(&ward, &lines);
        forget(&ward);
        a_day(&ward);
    });
    spoil("all files renamed", "files of other names", &|| {
        for file in log_files(&ward) {
            fs::rename(&file, file.with_extension("old")).unwrap();
        }
    });
    spoil("directory emptied", "the log is missing", &|| {
        for entry in fs::read_dir(ward.at("state/audit")).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    });
    spoil("another PC's log", "another than this PC remembers", &|| {
        let other = Ward::new(MACHINE);
        a_day(&other);
        fs::remove_dir_all(ward.at("state/audit")).unwrap();
        copy(&other.at("state/audit"), &ward.at("state/audit"));
    });
}

#[test]
fn verify_finds_the_log_of_the_directory_it_is_called_in() {
    let ward = Ward::new(MACHINE);
    a_day(&ward);
    let mut command = ward.bulkhead_command(&["audit", "verify", "."]);
    let output = command.current_dir(ward.at("state/audit")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_state_directory_put_back_from_a_backup_or_deleted_is_said_everywhere_at_the_next_start() {
    for deleted in [false, true] {
        let ward = Ward::new(MACHINE);
        a_day(&ward);
        let backup = ward.at("backup");
        copy(&ward.at("state"), &backup);
        a_day(&ward);
        let later = head(&ward);
        fs::remove_dir_all(ward.at("state")).unwrap();
        if !deleted {
            fs::rename(&backup, ward.at("state")).unwrap();
        }
        // Before the agent runs, too.
        assert!(doctor(&ward).contains("audit log"));

        let agent = started(&ward);
        let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
        assert!(text.contains("THE STATE DIRECTORY WENT BACK"), "{text}");
        assert!(ward.status()["audit"]["went_back"].is_string());
        assert!(ward.log().contains("THE STATE DIRECTORY WENT BACK"), "{}", ward.log());
        assert!(doctor(&ward).contains("remembered a later one"));
        agent.stop();
        let (said, status) = verify(&ward, &[]);
        assert!(status == Some(1) && said.contains("remembered a later one"), "{said}");
        let (said, status) = verify(&ward, &["--head", &later]);
        assert_eq!(status, Some(1), "{said}");
    }
}

/// Returns what the doctor says of the audit log, which it must not like.
fn doctor(ward: &Ward) -> String {
    let mut command = ward.bulkhead_command(&["doctor", "--json"]);
    command.arg("--machine").arg(ward.at("machine.toml"));
    command.arg("--policy").arg(ward.at("policy.toml"));
    command.arg("--state").arg(ward.at("state"));
    let output = command.output().unwrap();
    let diagnosis: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["check"] == "audit-log").unwrap();
    assert_eq!(finding["level"], "fail", "{finding}");
    finding["message"].as_str().unwrap().to_owned()
}

#[test]
fn two_agents_with_one_state_directory_do_not_both_run() {
    let ward = Ward::new(MACHINE);
    let agent = started(&ward);
    let before = head(&ward);
    let mut command = ward.agent_command();
    command.arg("--runtime").arg(ward.at("other-run"));
    let arguments: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let first = arguments.iter().position(|argument| argument == "--runtime").unwrap();
    let arguments = [&arguments[..first], &arguments[first + 2..]].concat();
    let output = Command::new(command.get_program()).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("another bulkhead-agent uses the state directory"), "{said}");
    assert_eq!(ward.domain("clinical")["state"], "running");
    assert_eq!(agent.stop().code(), Some(0));
    let (said, status) = verify(&ward, &["--head", &before]);
    assert_eq!(status, Some(0), "{said}");
}

/// Makes an agent that runs in a mount namespace of its own in which `mounts` were made.
fn with_mounts(ward: &Ward, mounts: &str) -> Agent {
    let plain = ward.agent_command();
    let mut inside = Command::new("unshare");
    let script = format!("{mounts}\nexec \"$@\"");
    inside.args(["--map-root-user", "--mount", "sh", "-ec", &script, "sh"]);
    inside.arg(plain.get_program()).args(plain.get_args());
    ward.start(inside)
}

// Shows: I-3.
#[test]
fn a_state_directory_that_is_read_only_or_full_holds_no_desktop_up_and_lets_nothing_cross() {
    let read_only = "mount --bind \"$STATE\" \"$STATE\"; mount -o remount,bind,ro \"$STATE\"";
    let full = "mount -t tmpfs -o size=4k none \"$STATE\"; dd if=/dev/zero of=\"$STATE/ballast\" bs=1 count=4096 2>/dev/null";
    for (mounts, cause, used_before) in [
        (read_only, "Read-only file system", false),
        (read_only, "Read-only file system", true),
        (full, "No space left on device", false),
    ] {
        let ward = Ward::new(MACHINE);
        if used_before {
            a_day(&ward);
        }
        fs::create_dir_all(ward.at("state")).unwrap();
        let mounts = mounts.replace("$STATE", &ward.at("state").display().to_string());
        let agent = with_mounts(&ward, &mounts);
        ward.wait_for_state("clinical", "running");
        ward.wait_for_state("internet", "running");
        let status = ward.status();
        assert_eq!(status["audit"]["ok"], false);
        let problem = status["audit"]["problem"].as_str().unwrap().to_owned();
        assert!(problem.contains(cause), "{problem}");
        // The first cause is what is said later, too.
        let new =
            fs::read_to_string(ward.at("policy.toml")).unwrap().replace("serial = 7", "serial = 8");
        fs::write(ward.at("new.toml"), &new).unwrap();
        let new = ward.at("new.toml").display().to_string();
        let refused = ward.bulkhead(&["policy", "apply", &new]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(cause), "{refused:?}");
        assert_eq!(ward.status()["policy"]["serial"], 7);
        assert_eq!(agent.stop().code(), Some(0));
    }
}

#[test]
fn an_auditor_without_root_verifies_a_copy_and_a_member_of_the_group_the_log_itself() {
    if !Uid::effective().is_root() {
        return; // only root can be somebody else
    }
    let ward = Ward::new(MACHINE);
    let group = fs::read_to_string("/etc/group").unwrap() + "bulkhead-auditor:x:64990:\n";
    fs::write(ward.at("group"), group).unwrap();
    let mounts = format!("mount --bind '{}' /etc/group", ward.at("group").display());
    let plain = ward.agent_command();
    let mut inside = Command::new("unshare");
    // No user namespace: in one only root's own groups exist.
    inside.args(["--mount", "sh", "-ec", &format!("{mounts}\nexec \"$@\""), "sh"]);
    inside.arg(plain.get_program()).args(plain.get_args());
    let agent = ward.start(inside);
    ward.wait_for_state("clinical", "running");
    agent.stop();

    let bulkhead = ward.at("bulkhead");
    fs::copy(crate::support::program("bulkhead"), &bulkhead).unwrap();
    let verify = |group: u32, log: &Path| {
        let mut command = Command::new(&bulkhead);
        command.args(["audit", "verify"]).arg(log).uid(65534).gid(group);
        command.output().unwrap()
    };
    let own = verify(64990, &ward.at("state/audit"));
    assert!(own.status.success(), "{own:?}");
    let refused = verify(65534, &ward.at("state/audit"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("bulkhead-auditor"), "{refused:?}");
    assert!(fs::read_dir(ward.at("state/keys")).is_ok());
    let keys = fs::metadata(ward.at("state/keys")).unwrap();
    assert_eq!(keys.permissions().mode() & 0o777, 0o700);

    let copied = ward.at("copied");
    copy(&ward.at("state/audit"), &copied);
    assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&copied).status().unwrap().success());
    let copied = verify(65534, &copied);
    assert!(copied.status.success(), "{copied:?}");
}
