//! A policy on its way onto a PC, and what the audit log says of it.

use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::running;
use crate::support::{Agent, MACHINE, Ward};

/// Makes an officer's key in the ward, and a PC that takes only what it signed.
fn signing(ward: &Ward) -> String {
    let key = ward.at("officer").display().to_string();
    assert!(
        ward.bulkhead(&["policy", "keygen", &key, "--name", "Kim", "--no-passphrase"])
            .status
            .success()
    );
    let public = fs::read_to_string(ward.at("officer.pub")).unwrap();
    fs::write(ward.at("trust.toml"), format!("format = 1\nthreshold = 1\n{public}")).unwrap();
    key
}

fn sign(ward: &Ward, file: &str, key: &str) {
    let file = ward.at(file).display().to_string();
    assert!(ward.bulkhead(&["policy", "sign", &file, "--key", key]).status.success());
}

/// Makes a ward in which both domains run under a policy that an officer signed, whose key is in that file.
fn signed() -> (Ward, String, Agent) {
    let ward = Ward::new(MACHINE);
    let key = signing(&ward);
    sign(&ward, "policy.toml", &key);
    let agent = ward.start_agent();
    for domain in ["clinical", "internet"] {
        ward.wait_for_state(domain, "running");
    }
    (ward, key, agent)
}

#[test]
fn a_signed_policy_comes_into_force_without_restarting_a_guest_and_survives_the_agent() {
    let (ward, key, agent) = signed();
    let pids = ["clinical", "internet"].map(|domain| ward.pid(domain));
    assert_eq!(ward.status()["policy"]["signers"][0], "Kim");

    let old = fs::read_to_string(ward.at("policy.toml")).unwrap();
    let new = old.replace("serial = 7", "serial = 8").replace("\"CLINICAL\"", "\"WARD\"");
    fs::write(ward.at("new.toml"), &new).unwrap();
    let file = ward.at("new.toml").display().to_string();
    let refused = ward.bulkhead(&["policy", "apply", &file]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("no signature holds"));
    assert_eq!(ward.status()["policy"]["serial"], 7);

    sign(&ward, "new.toml", &key);
    let applied = ward.bulkhead(&["policy", "apply", &file]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let status = ward.status();
    assert_eq!(
        (&status["policy"]["serial"], &status["domains"][0]["label"]),
        (&8.into(), &"WARD".into())
    );
    assert_eq!(["clinical", "internet"].map(|domain| ward.pid(domain)), pids);
    assert_eq!(fs::read_to_string(ward.at("policy.toml")).unwrap(), new);

    // Going back is refused, by the command line and by a file that somebody lays down.
    fs::write(ward.at("old.toml"), &old).unwrap();
    sign(&ward, "old.toml", &key);
    let back = ward.bulkhead(&["policy", "apply", &ward.at("old.toml").display().to_string()]);
    assert_eq!(back.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&back.stderr).contains("serial above 8"));
    agent.stop();
    fs::copy(ward.at("old.toml"), ward.at("policy.toml")).unwrap();
    fs::copy(ward.at("old.toml.sig"), ward.at("policy.toml.sig")).unwrap();
    let agent = ward.start_agent();
    let status = ward.status();
    assert_eq!(status["policy"]["serial"], 8);
    assert!(status["policy"]["refused"].as_str().unwrap().contains("serial above 8"), "{status}");
    let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    assert!(text.contains("THE POLICY FILE IS REFUSED"), "{text}");
    agent.stop();
}

// Shows: K-5.1.2, K-5.1.3, K-5.4.2.
#[test]
fn a_trust_store_that_nobody_signed_counts_for_nothing_and_status_and_log_say_so() {
    let ward = Ward::new(MACHINE);
    let key = signing(&ward);
    let store = ward.at("trust.toml").display().to_string();
    let trust = |arguments: &[&str]| {
        let done = ward.bulkhead(&[&["trust"][..], arguments].concat());
        assert!(done.status.success(), "{done:?}");
    };
    // Written anew in the newer format, with a key that signs changes.
    let public = ward.at("officer.pub").display().to_string();
    trust(&["add", &store, &public, "--replace", "--may-sign", "policy,trust"]);
    sign(&ward, "policy.toml", &key);
    ward.start_agent().stop();
    // Somebody adds themselves, and signs with their own key.
    let other = ward.at("other").display().to_string();
    let made = ward.bulkhead(&["policy", "keygen", &other, "--name", "Lee", "--no-passphrase"]);
    assert!(made.status.success());
    trust(&["add", &store, &format!("{other}.pub"), "--may-sign", "policy,trust"]);
    trust(&["sign", &store, "--key", &other]);
    let agent = ward.start_agent();
    let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    assert!(text.contains("THE TRUST STORE IS REFUSED"), "{text}");
    let new =
        fs::read_to_string(ward.at("policy.toml")).unwrap().replace("serial = 7", "serial = 8");
    fs::write(ward.at("new.toml"), &new).unwrap();
    sign(&ward, "new.toml", &other);
    let file = ward.at("new.toml").display().to_string();
    let refused = ward.bulkhead(&["policy", "apply", &file]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("not in the trust store"), "{said}");
    // The officer of before signs the change: it counts from the next policy on, without a restart.
    trust(&["sign", &store, "--key", &key]);
    let applied = ward.bulkhead(&["policy", "apply", &file]);
    assert!(applied.status.success(), "{applied:?}");
    assert!(!String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap().contains("TRUST STORE"));
    agent.stop();
    let log = ward.at("state/audit").display().to_string();
    let shown = String::from_utf8(ward.bulkhead(&["audit", "show", &log]).stdout).unwrap();
    assert_eq!(shown.matches("trust-changed").count(), 2, "{shown}");
    assert!(shown.contains("trust-refused"), "{shown}");
    let line = |words: [&str; 2]| {
        shown.lines().position(|line| words.iter().all(|word| line.contains(word))).unwrap()
    };
    assert!(line(["trust-changed", "serial=2"]) < line(["policy-applied", "policy=8"]), "{shown}");
}

/// Returns how often the audit log says this.
fn noted(ward: &Ward, event: &str) -> usize {
    let log = ward.at("state/audit").display().to_string();
    let shown = String::from_utf8(ward.bulkhead(&["audit", "show", &log]).stdout).unwrap();
    shown.matches(event).count()
}

/// Makes a ward whose officer signs changes of the trust store too, the key's file, and the store.
fn signing_changes() -> (Ward, String, String) {
    let ward = Ward::new(MACHINE);
    let key = signing(&ward);
    let store = ward.at("trust.toml").display().to_string();
    let public = ward.at("officer.pub").display().to_string();
    let may = ["--replace", "--may-sign", "policy,trust"];
    let done = ward.bulkhead(&[&["trust", "add", &store, &public][..], &may].concat());
    assert!(done.status.success(), "{done:?}");
    sign(&ward, "policy.toml", &key);
    (ward, key, store)
}

#[test]
fn what_is_found_of_the_trust_store_is_kept_noted_and_shown_though_the_policy_is_refused() {
    let (ward, key, store) = signing_changes();
    let agent = ward.start_agent();
    let apply = || {
        let file = ward.at("unsigned.toml").display().to_string();
        let refused = ward.bulkhead(&["policy", "apply", &file]);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    };
    let new = fs::read_to_string(ward.at("policy.toml")).unwrap();
    fs::write(ward.at("unsigned.toml"), new.replace("serial = 7", "serial = 8")).unwrap();
    let refused =
        || String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap().contains("TRUST STORE");
    // A store that nobody signed: it is said once, however often somebody tries.
    let done = ward.bulkhead(&["trust", "threshold", &store, "trust=1"]);
    assert!(done.status.success(), "{done:?}");
    assert!(!refused());
    apply();
    apply();
    assert!(refused());
    assert_eq!((noted(&ward, "trust-refused"), noted(&ward, "trust-changed")), (1, 1));
    // The officer signs it: it counts, and is remembered.
    let signed = ward.bulkhead(&["trust", "sign", &store, "--key", &key]);
    assert!(signed.status.success(), "{signed:?}");
    apply();
    assert!(!refused());
    assert_eq!(noted(&ward, "trust-changed"), 2);
    assert!(fs::read_to_string(ward.at("state/trust.json")).unwrap().contains("serial = 2"));
    agent.stop();
}

#[test]
fn that_another_trust_store_counts_is_noted_when_it_is_remembered_and_not_before() {
    let (ward, ..) = signing_changes();
    // Where it is written first a directory is in the way.
    let in_the_way = ward.at("state/trust.json.new");
    fs::create_dir_all(&in_the_way).unwrap();
    let agent = ward.start_agent();
    assert_eq!(noted(&ward, "trust-changed"), 0);
    fs::remove_dir(&in_the_way).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while noted(&ward, "trust-changed") == 0 {
        assert!(Instant::now() < until, "it is written again, and then noted");
        thread::sleep(Duration::from_millis(200));
    }
    assert!(ward.at("state/trust.json").exists());
    agent.stop();
}

#[test]
fn without_a_file_the_officers_tools_mean_what_the_agent_goes_by_and_not_what_lies_there() {
    let ward = Ward::new(MACHINE);
    let in_force = fs::read_to_string(ward.at("policy.toml")).unwrap();
    let agent = ward.start_agent();
    let said = |args: &[&str]| {
        let output = ward.bulkhead(args);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    fs::write(ward.at("policy.toml"), "not a policy").unwrap();
    assert_eq!(said(&["policy", "show"]), (Some(0), in_force.clone()));
    assert_eq!(said(&["policy", "check"]).0, Some(0));
    let new = in_force.replace("\"CLINICAL\"", "\"WARD\"");
    fs::write(ward.at("new.toml"), &new).unwrap();
    let file = ward.at("new.toml").display().to_string();
    let (matrix, diff) = (said(&["policy", "matrix"]), said(&["policy", "diff", &file]));
    assert!(matrix.0 == Some(0) && matrix.1.contains("CLINICAL"), "{matrix:?}");
    assert!(diff.1.contains("was CLINICAL\n      now WARD"), "{diff:?}");
    let flow = ["--from", "clinical", "--to", "internet", "--type", "text/plain", "--bytes", "1"];
    let explain =
        |file: &[&str]| said(&[&["policy", "explain"], file, &["clipboard"], &flow[..]].concat());
    fs::write(ward.at("old.toml"), &in_force).unwrap();
    assert_eq!(explain(&[]), explain(&[&ward.at("old.toml").display().to_string()]));
    assert_eq!(
        said(&["policy", "replay", "--json"]).0,
        Some(1),
        "there is no log at the usual place"
    );
    let nothing = ward.bulkhead(&["policy", "from-device", "99-1", "--to", "clinical"]);
    // An agent that looks after no USB devices refuses to list them; one that does says that nothing is plugged in there.
    assert!(matches!(nothing.status.code(), Some(1 | 2)), "there is nothing to write a rule for");
    assert!(nothing.stdout.is_empty(), "{nothing:?}");
    agent.stop();
}

// Shows: I-2, K-5.4.1, K-5.4.2.
#[test]
fn what_happens_is_in_the_audit_log_and_the_log_holds() {
    let (ward, key, agent) = signed();
    let new =
        fs::read_to_string(ward.at("policy.toml")).unwrap().replace("serial = 7", "serial = 8");
    fs::write(ward.at("new.toml"), &new).unwrap();
    let file = ward.at("new.toml").display().to_string();
    ward.bulkhead(&["policy", "apply", &file]);
    sign(&ward, "new.toml", &key);
    ward.bulkhead(&["policy", "apply", &file]);
    ward.bulkhead(&["stop", "internet", "--now"]);
    assert!(ward.status()["audit"]["ok"] == true);
    let log = ward.at("state/audit").display().to_string();
    // The agent runs; a line it is in the middle of is no break.
    let verified = ward.bulkhead(&["audit", "verify", &log, "--json"]);
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    agent.stop();

    let verified = ward.bulkhead(&["audit", "verify", &log]);
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(verified.status.success() && said.contains(" 0 entries since the last"), "{said}");
    let head = said.lines().last().unwrap().to_owned();
    let shown = String::from_utf8(ward.bulkhead(&["audit", "show", &log]).stdout).unwrap();
    let mut rest = shown.as_str();
    for word in [
        "agent-started policy=7",
        "domain clinical from=\"off\"",
        "to=\"running\"",
        "policy-refused",
        "policy-applied policy=8",
        "asked internet",
        "domain internet",
        "to=\"off\"",
        "agent-stopped",
        "checkpoint",
    ] {
        let at =
            rest.find(word).unwrap_or_else(|| panic!("`{word}` is not in its place in:\n{shown}"));
        rest = &rest[at..];
    }
    let applied = ward.bulkhead(&[
        "audit",
        "export",
        &log,
        "--format",
        "rfc5424",
        "--kind",
        "policy-applied",
    ]);
    let applied = String::from_utf8(applied.stdout).unwrap();
    assert_eq!(applied.lines().count(), 1);
    assert!(applied.starts_with("<110>1 ") && applied.contains("policy=\"8\""), "{applied}");

    // Somebody takes the agent's end out of the log.
    let file = fs::read_dir(&log).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).max().unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let cut: String =
        text.split_inclusive('\n').filter(|line| !line.contains("agent-stopped")).collect();
    fs::write(&file, cut).unwrap();
    let broken = ward.bulkhead(&["audit", "verify", &log, "--head", &head]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&broken.stderr).contains("is missing")
            || String::from_utf8_lossy(&broken.stderr).contains("are missing")
    );
}

// Shows: I-3, K-5.4.3.
#[test]
fn domains_run_while_the_audit_log_cannot_be_written_but_no_policy_is_applied() {
    let ward = Ward::new(MACHINE);
    fs::create_dir_all(ward.at("state")).unwrap();
    fs::write(ward.at("state/audit"), "in the way").unwrap();
    let agent = ward.start_agent();
    ward.wait_for_state("clinical", "running");
    let text = String::from_utf8(ward.bulkhead(&["status"]).stdout).unwrap();
    assert!(text.contains("audit    NOT WRITTEN") && text.contains("NOTHING CROSSES"), "{text}");
    let new =
        fs::read_to_string(ward.at("policy.toml")).unwrap().replace("serial = 7", "serial = 8");
    fs::write(ward.at("new.toml"), &new).unwrap();
    let refused = ward.bulkhead(&["policy", "apply", &ward.at("new.toml").display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("cannot be recorded"));
    assert_eq!(ward.status()["policy"]["serial"], 7);
    agent.stop();
}

#[test]
fn a_policy_that_does_not_go_with_the_machine_changes_nothing() {
    let (ward, agent) = running();
    let more = fs::read_to_string(ward.at("policy.toml"))
        .unwrap()
        .replace("serial = 7", "serial = 8")
        + "[[domain]]\nname = \"lab\"\nlabel = \"LAB\"\ncolour = \"#0000ff\"\nhotkey = \"Ctrl+Alt+3\"\n\
           network = \"none\"\npersistence = \"keep\"\n";
    let fewer = more.replace("\"internet\"", "\"outside\"");
    fs::write(ward.at("fewer.toml"), fewer).unwrap();
    let refused = ward.bulkhead(&["policy", "apply", &ward.at("fewer.toml").display().to_string()]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("machine file does not go with it"), "{said}");
    assert_eq!(ward.status()["policy"]["serial"], 7);
    agent.stop();
}

/// The policy in force can be newer than the last good one on the disk, while that cannot be written or read.
#[test]
fn no_older_policy_follows_the_one_in_force_though_the_disk_forgot_that_one() {
    let (ward, agent) = running();
    let old = fs::read_to_string(ward.at("policy.toml")).unwrap();
    let apply = |text: String| {
        fs::write(ward.at("next.toml"), text).unwrap();
        ward.bulkhead(&["policy", "apply", &ward.at("next.toml").display().to_string()])
    };
    assert!(apply(old.replace("serial = 7", "serial = 9")).status.success());
    for (serial, words) in [("serial = 8", "serial above 9"), ("serial = 9", "serial")] {
        fs::remove_file(ward.at("state/policy.json")).unwrap_or_default();
        let text = old.replace("serial = 7", serial).replace("\"CLINICAL\"", "\"WARD\"");
        let refused = apply(text);
        assert_eq!(refused.status.code(), Some(1));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains(words), "{said}");
        assert_eq!(ward.status()["domains"][0]["label"], "CLINICAL");
    }
    agent.stop();
}

#[test]
fn a_policy_is_not_held_against_a_machine_file_that_nothing_runs_by() {
    let (ward, agent) = running();
    let machine = fs::read_to_string(ward.at("machine.toml")).unwrap();
    let with = |line: &str| {
        machine.replace("[domain.internet]\n", &format!("[domain.internet]\n{line}\n"))
    };
    fs::write(ward.at("machine.toml"), with("disks = [{ path = \"new.img\" }]")).unwrap();
    let policy = fs::read_to_string(ward.at("policy.toml")).unwrap();
    fs::write(ward.at("next.toml"), policy.replace("serial = 7", "serial = 8")).unwrap();
    let file = ward.at("next.toml").display().to_string();
    let refused = ward.bulkhead(&["policy", "apply", &file]);
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("restart the agent first"), "{said}");
    assert_eq!(ward.status()["policy"]["serial"], 7);
    // Memory for the next start is none of a policy's.
    fs::write(ward.at("machine.toml"), with("cpus = 2")).unwrap();
    assert!(ward.bulkhead(&["policy", "apply", &file]).status.success());
    agent.stop();
}

#[test]
fn while_a_long_policy_is_looked_at_everything_else_goes_on_and_no_second_one_is() {
    let (ward, agent) = running();
    let policy = fs::read_to_string(ward.at("policy.toml")).unwrap();
    let policy = policy.replace("serial = 7", "serial = 8");
    let rules: String = (0..20_000)
        .map(|n| format!("[[usb]]\nid=\"u{n}\"\naction=\"deny\"\nmatch={{vendor={n}}}\n"))
        .collect();
    let ask = |request: &Value| {
        let mut stream = UnixStream::connect(ward.at("run/control.sock")).unwrap();
        stream.write_all(format!("{request}\n").as_bytes()).unwrap();
        stream
    };
    let answer = |stream: &UnixStream| -> Value {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let long = ask(&json!({"command": "apply-policy", "policy": policy.clone() + &rules}));
    // Whoever came first is heard first.
    let second = answer(&ask(&json!({"command": "apply-policy", "policy": "format = 1"})));
    let why = second["error"].as_str().unwrap();
    assert!(why.contains("another policy is being looked at: try again"), "{why}");
    let status = answer(&ask(&json!({"command": "status"})));
    assert_eq!(status["policy"]["serial"], 7);
    assert_eq!(answer(&ask(&json!({"command": "switch", "domain": "nowhere"})))["ok"], false);
    long.set_nonblocking(true).unwrap();
    let early = (&long).read(&mut [0]).unwrap_err();
    assert_eq!(
        early.kind(),
        ErrorKind::WouldBlock,
        "it was looked at before the others were answered"
    );
    long.set_nonblocking(false).unwrap();
    assert_eq!(answer(&long)["ok"], true);
    assert_eq!(ward.status()["policy"]["serial"], 8);
    // Whoever does not wait for the end has asked all the same, and the next one is taken.
    drop(ask(
        &json!({"command": "apply-policy", "policy": policy.replace("serial = 8", "serial = 9")}),
    ));
    ward.wait("the next policy", || ward.status()["policy"]["serial"] == 9);
    agent.stop();
}
