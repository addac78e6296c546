//! What stands in the place of a file: named, and never waited for.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::{artefacts, bulkhead, path};

/// Longer than anything here takes.
const LONGEST: Duration = Duration::from_secs(60);

/// Returns what a command says; one that waits is ended, and the test fails.
fn soon(arguments: &[&str]) -> Output {
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > LONGEST {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.code().is_some(), "`bulkhead {}` waits", arguments.join(" "));
    output
}

fn says_pipe(arguments: &[&str], file: &str) {
    let output = soon(arguments);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(said.contains(file) && said.contains("it is a named pipe"), "{arguments:?}: {said}");
}

#[test]
fn a_named_pipe_in_the_place_of_an_officers_file_is_named_and_keeps_no_tool_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    let pipe = |name: &str| mkfifo(dir.path().join(name).as_path(), Mode::S_IRWXU).unwrap();
    let (policy, key, trust) = (file("policy.toml"), file("kim"), file("trust.toml"));
    bulkhead(&["new", &policy]);
    assert!(bulkhead(&["keygen", &key, "--name", "Kim", "--no-passphrase"]).status.success());
    let public = fs::read_to_string(file("kim.pub")).unwrap();
    fs::write(&trust, format!("format = 1\nthreshold = 1\n{public}")).unwrap();
    pipe("pipe");
    let named = file("pipe");
    for arguments in [
        &["policy", "check", &named][..],
        &["policy", "matrix", &named],
        &["policy", "diff", &policy, &named],
        &["policy", "sign", &named, "--key", &key],
        &["policy", "sign", &policy, "--key", &named],
        &["policy", "passphrase", &key, "--no-passphrase", "--passphrase-file", &named],
        &["policy", "verify", &policy, "--trust", &named],
        &["policy", "apply", &named],
    ] {
        // The key has no passphrase that could be asked for.
        if !arguments.contains(&"passphrase") {
            says_pipe(arguments, &named);
        }
    }
    // Below a pipe there is nothing, and nobody is asked for the passphrase of what cannot be written.
    let below = format!("{named}/kim");
    assert_eq!(
        soon(&["policy", "keygen", &below, "--name", "Kim", "--no-passphrase"]).status.code(),
        Some(1)
    );
    // What the tools take for theirs because of its name.
    pipe("policy.toml.sig");
    for arguments in [
        &["policy", "sign", &policy, "--key", &key][..],
        &["policy", "verify", &policy, "--trust", &trust],
        &["policy", "apply", &policy],
    ] {
        says_pipe(arguments, "policy.toml.sig");
    }
    fs::remove_file(file("policy.toml.sig")).unwrap();
    fs::rename(file("kim.pub"), file("kept.pub")).unwrap();
    pipe("kim.pub");
    says_pipe(&["policy", "sign", &policy, "--key", &key], "kim.pub");
    fs::rename(file("kept.pub"), file("kim.pub")).unwrap();
    // Left where the signatures are written before they take their place, it goes.
    pipe("policy.toml.sig.new");
    assert!(soon(&["policy", "sign", &policy, "--key", &key]).status.success());
    assert!(!Path::new(&file("policy.toml.sig.new")).exists());
    assert!(soon(&["policy", "verify", &policy, "--trust", &trust]).status.success());
}

#[test]
fn a_named_pipe_among_the_files_of_an_audit_log_is_named_and_keeps_no_tool_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("audit");
    let key = audit::AuditKey::open(&dir.path().join("key")).unwrap();
    let (mut writer, _) = audit::Log::open(&log, key, audit::Limits::default(), "boot").unwrap();
    writer.append(&[audit::events::AgentStopped {}.into()]).unwrap();
    writer.close().unwrap();
    let named = log.display().to_string();
    assert!(soon(&["audit", "verify", &named]).status.success());
    let pipe = |name: &str| mkfifo(log.join(name).as_path(), Mode::S_IRWXU).unwrap();
    let first = log.join("audit-000000000001.jsonl");
    let entries = fs::read_to_string(&first).unwrap().lines().count();
    let next = format!("audit-{:012}.jsonl", entries + 1);
    pipe(&next);
    for command in ["verify", "show", "export"] {
        says_pipe(&["audit", command, &named], &next);
    }
    let draft = path(dir.path(), "draft.toml");
    bulkhead(&["new", &draft]);
    says_pipe(&["policy", "replay", &draft, &named], &next);
    fs::remove_file(log.join(&next)).unwrap();
    for name in ["audit.pub", "head"] {
        let kept = fs::read(log.join(name)).unwrap();
        fs::remove_file(log.join(name)).unwrap();
        pipe(name);
        assert!(soon(&["audit", "verify", &named]).status.code() != Some(2));
        soon(&["audit", "show", &named]);
        fs::remove_file(log.join(name)).unwrap();
        fs::write(log.join(name), kept).unwrap();
    }
    fs::remove_file(&first).unwrap();
    pipe("audit-000000000001.jsonl");
    for command in ["verify", "show"] {
        says_pipe(&["audit", command, &named], "audit-000000000001.jsonl");
    }
}

#[test]
fn a_policy_that_a_shell_gives_as_a_file_is_read_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let program = artefacts::program("bulkhead");
    let script = r#""$1" policy diff <(sleep 0.2; cat "$2") <(cat "$2")"#;
    let output =
        Command::new("bash").args(["-c", script, "bash"]).arg(program).arg(&policy).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(said.contains("nothing differs"), "{said}");
}
