//! The officer's tools on the command line: what they print, write, and end with.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says by panicking what it did not expect"
)]

mod artefacts;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bulkhead(arguments: &[&str]) -> Output {
    Command::new(artefacts::program("bulkhead")).arg("policy").args(arguments).output().unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}

#[test]
fn a_new_policy_is_fit_and_never_takes_the_place_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    assert!(bulkhead(&["new", &file]).status.success());
    let written = fs::read(&file).unwrap();
    assert_eq!(bulkhead(&["new"]).stdout, written);
    let checked = bulkhead(&["check", &file, "--json"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));

    fs::write(&file, "precious").unwrap();
    let again = bulkhead(&["new", &file]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("name another file"));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn check_for_an_older_version_ends_with_1_for_what_that_version_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    bulkhead(&["new", &file]);
    assert!(bulkhead(&["check", &file, "--for-version", "0.1.0"]).status.success());
    let section = "\n[break_glass]\nreasons = [\"system down\"]\n";
    fs::write(&file, fs::read_to_string(&file).unwrap() + section).unwrap();
    assert!(bulkhead(&["check", &file]).status.success());
    let refused = bulkhead(&["check", &file, "--for-version", "0.1.0"]);
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8_lossy(&refused.stdout);
    assert!(
        words.contains("Bulkhead 0.1.0 does not know the key `reasons` of [break_glass]"),
        "{words}"
    );
    for unknown in ["999.0.0", "1", "latest"] {
        let misuse = bulkhead(&["check", &file, "--for-version", unknown]);
        assert_eq!(misuse.status.code(), Some(2), "{unknown}");
    }
}

#[test]
fn a_policy_that_widens_ends_with_1_and_one_that_narrows_with_0() {
    let dir = tempfile::tempdir().unwrap();
    let (narrow, wide) = (path(dir.path(), "narrow.toml"), path(dir.path(), "wide.toml"));
    bulkhead(&["new", &narrow]);
    let rule = "\n[[clipboard]]\nid = \"everything-out\"\nfrom = \"clinical\"\nto = \"internet\"\n\
                types = [\"text/html\"]\naction = \"allow\"\n";
    fs::write(&wide, fs::read_to_string(&narrow).unwrap() + rule).unwrap();

    let same = bulkhead(&["diff", &narrow, &narrow, "--json"]);
    assert_eq!(same.status.code(), Some(0));
    assert_eq!(json(&same)["flows"].as_array().map(Vec::len), Some(0));
    let widened = bulkhead(&["diff", &narrow, &wide]);
    assert_eq!(widened.status.code(), Some(1), "{}", String::from_utf8_lossy(&widened.stderr));
    assert!(String::from_utf8_lossy(&widened.stdout).contains("everything-out"));
    assert_eq!(json(&bulkhead(&["diff", &narrow, &wide, "--json"]))["widened"], true);
    let narrowed = bulkhead(&["diff", &wide, &narrow, "--json"]);
    assert_eq!((narrowed.status.code(), &json(&narrowed)["widened"]), (Some(0), &false.into()));
}

#[test]
fn a_mistake_in_either_policy_is_shown_and_nothing_is_compared() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (path(dir.path(), "good.toml"), path(dir.path(), "bad.toml"));
    bulkhead(&["new", &good]);
    fs::write(&bad, "format = 1\nserail = 2\n").unwrap();
    for arguments in [[&good, &bad], [&bad, &good]] {
        let output = bulkhead(&["diff", arguments[0], arguments[1]]);
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("serail"));
    }
}

#[test]
fn the_matrix_is_a_table_for_people_machines_and_printers() {
    let dir = tempfile::tempdir().unwrap();
    let (file, page) = (path(dir.path(), "policy.toml"), path(dir.path(), "matrix.html"));
    bulkhead(&["new", &file]);
    let table = bulkhead(&["matrix", &file]);
    assert!(table.status.success());
    let table = String::from_utf8(table.stdout).unwrap();
    assert!(table.contains("CLINICAL") && table.contains("INTERNET"), "{table}");
    assert!(json(&bulkhead(&["matrix", &file, "--json"])).is_object());
    assert!(bulkhead(&["matrix", &file, "--html", &page]).status.success());
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.starts_with("<!doctype html>") || html.starts_with("<!DOCTYPE html>"));
    let nowhere = bulkhead(&["matrix", &file, "--html", "/no/such/folder/matrix.html"]);
    assert_eq!(nowhere.status.code(), Some(1));
}

fn given(text: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.arg("policy").args(arguments).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_policy_is_read_from_standard_input_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    bulkhead(&["new", &file]);
    let text = fs::read_to_string(&file).unwrap();
    assert!(given(&text, &["check", "-"]).status.success());
    assert_eq!(given(&text, &["matrix", "-"]).stdout, bulkhead(&["matrix", &file]).stdout);
    for arguments in [["diff", &file, "-"], ["diff", "-", &file]] {
        assert!(
            String::from_utf8_lossy(&given(&text, &arguments).stdout).contains("nothing differs")
        );
    }
    let wrong = given("format = 1\nserail = 2\n", &["check", "-"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stdout).contains("standard input:2:1"));
    assert_eq!(given(&text, &["diff", "-", "-"]).status.code(), Some(2));
}

#[test]
fn a_path_without_a_file_is_told_as_that_and_no_agent_as_that() {
    let nosuch = bulkhead(&["check", "nosuch.toml"]);
    assert_eq!(nosuch.status.code(), Some(1));
    let said = String::from_utf8_lossy(&nosuch.stderr).into_owned();
    assert!(said.contains("there is no file nosuch.toml") && !said.contains("--policy"), "{said}");

    let dir = tempfile::tempdir().unwrap();
    if Path::new("/etc/bulkhead/policy.toml").exists() {
        return;
    }
    let runtime = path(dir.path(), "run");
    for arguments in [&["check"][..], &["matrix"], &["show"]] {
        let output = bulkhead(&[arguments, &["--runtime", &runtime]].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.contains("no agent is running here") && said.contains("name a policy's file"),
            "{said}"
        );
    }
}

// Shows: K-2.2.1, K-3.3.3, K-5.1.2.
#[test]
fn two_officers_sign_and_a_change_afterwards_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    let (policy, trust) = (file("policy.toml"), file("trust.toml"));
    bulkhead(&["new", &policy]);
    for officer in ["kim", "lee"] {
        let made = bulkhead(&["keygen", &file(officer), "--name", officer, "--no-passphrase"]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mode = fs::metadata(file(officer)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    let public = |officer: &str| fs::read_to_string(file(&format!("{officer}.pub"))).unwrap();
    fs::write(&trust, format!("format = 1\nthreshold = 2\n{}{}", public("kim"), public("lee")))
        .unwrap();
    let verify = || bulkhead(&["verify", &policy, "--trust", &trust]);

    assert_eq!(verify().status.code(), Some(1));
    assert!(bulkhead(&["sign", &policy, "--key", &file("kim")]).status.success());
    let one = verify();
    assert_eq!(one.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&one.stderr).contains("only kim did"));
    assert!(bulkhead(&["sign", &policy, "--key", &file("lee")]).status.success());
    let both = verify();
    assert!(both.status.success(), "{}", String::from_utf8_lossy(&both.stderr));
    assert_eq!(String::from_utf8_lossy(&both.stdout), "signed by kim, lee; 2 needed\n");

    let changed = fs::read_to_string(&policy).unwrap() + "# a word\n";
    fs::write(&policy, changed).unwrap();
    let stale = verify();
    assert_eq!(stale.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&stale.stderr).contains("changed after kim and lee signed it"));
    let again = bulkhead(&["sign", &policy, "--key", &file("kim"), "--json"]);
    assert_eq!((&json(&again)["signatures"], &json(&again)["removed"]), (&1.into(), &2.into()));
}

#[test]
fn a_policy_and_a_key_are_taken_from_the_current_folder_by_their_bare_names() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["new", "policy.toml"][..],
        &["keygen", "kim", "--name", "kim"],
        &["sign", "policy.toml", "--key", "kim"],
    ] {
        let program = artefacts::program("bulkhead");
        let done =
            Command::new(program).current_dir(dir.path()).arg("policy").args(arguments).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(dir.path().join("policy.toml.sig").exists());
}

// Shows: K-2.2.1.
#[test]
fn a_key_is_never_replaced_and_a_broken_policy_never_signed() {
    let dir = tempfile::tempdir().unwrap();
    let (key, policy) = (path(dir.path(), "key"), path(dir.path(), "policy.toml"));
    assert!(bulkhead(&["keygen", &key, "--name", "Kim Min-ji \"MJ\""]).status.success());
    let secret = fs::read(&key).unwrap();
    let again = bulkhead(&["keygen", &key, "--name", "Kim"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("never replaced"));
    assert_eq!(fs::read(&key).unwrap(), secret);
    assert_eq!(bulkhead(&["keygen", &path(dir.path(), "k2"), "--name", ""]).status.code(), Some(1));
    assert!(!dir.path().join("k2").exists());

    fs::write(&policy, "format = 1\nserail = 2\n").unwrap();
    assert_eq!(bulkhead(&["sign", &policy, "--key", &key]).status.code(), Some(1));
    assert!(!dir.path().join("policy.toml.sig").exists());
    bulkhead(&["new", &path(dir.path(), "good.toml")]);
    let with_public =
        bulkhead(&["sign", &path(dir.path(), "good.toml"), "--key", &format!("{key}.pub")]);
    assert_eq!(with_public.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&with_public.stderr).contains("not the .pub file"));
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
    let clipboard = |verdict, bytes: u64| audit::Event {
        verdict: Some(verdict),
        ..audit::Event::new("clipboard")
            .with("from", "internet")
            .with("to", "clinical")
            .with("type", "text/plain")
            .with("bytes", bytes)
    };
    let both = vec!["korean-rrn", "card-number"];
    let usb = audit::Event {
        verdict: Some("read-only"),
        ..audit::Event::new("usb").with("device", "vendor=0951,product=1666,interfaces=08/06/50")
    };
    writer
        .append(&[
            clipboard("allow", 50).with("inspected", both.clone()), // the same
            clipboard("allow", 500),                                // too long now
            clipboard("deny", 50).with("inspected", vec!["korean-rrn"]), // allowed now, one detector did not look
            clipboard("deny", 60).with("inspected", both).with("hits", vec!["card-number"]), // the same
            usb, // no rule for it
            audit::Event { verdict: Some("allow"), ..audit::Event::new("clipboard") }, // says nothing
            audit::Event::new("agent-stopped"),
        ])
        .unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", String::from_utf8_lossy(&replayed.stderr));
    let answer = json(&replayed);
    assert_eq!(
        (&answer["flows"], &answer["different"], &answer["unreadable"]),
        (&5.into(), &3.into(), &1.into())
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
    assert!(said.ends_with("5 flows decided again, 3 would come out otherwise; 1 entry does not say enough to be decided again\n"), "{said}");
    let none = bulkhead(&["replay", &draft, &log, "--since", "9999"]);
    assert_eq!(none.status.code(), Some(0));
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
    let usb = |verdict, found: &str| audit::Event {
        verdict: Some(verdict),
        ..audit::Event::new("usb")
            .with("device", format!("vendor=1050,product=0407,interfaces=03/00/00{found}"))
    };
    let same = [usb("allow", ":no-keyboard"), usb("deny", ":keyboard-or-mouse"), usb("deny", "")];
    writer.append(&same).unwrap();
    writer.close().unwrap();
    let replayed = bulkhead(&["replay", &draft, &log, "--json"]);
    let answer = json(&replayed);
    assert_eq!((&answer["flows"], &answer["different"]), (&3.into(), &0.into()), "{answer}");
    assert_eq!(replayed.status.code(), Some(0));
}

#[test]
fn explain_decides_on_a_file_as_the_agent_would_on_a_paste() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let rules = "\n[[clipboard]]\nid = \"in\"\nfrom = \"internet\"\nto = \"clinical\"\n\
                 types = [\"text/plain\", \"image/png\"]\nmax_bytes = 20\naction = \"allow\"\n";
    fs::write(&policy, fs::read_to_string(&policy).unwrap() + rules).unwrap();
    let explain = |media_type: &str, content: &[u8]| {
        let file = path(dir.path(), "content");
        fs::write(&file, content).unwrap();
        let explained = bulkhead(&[
            "explain",
            &policy,
            "clipboard",
            "--from",
            "internet",
            "--to",
            "clinical",
            "--type",
            media_type,
            "--text-file",
            &file,
            "--json",
        ]);
        let answer = json(&explained);
        (
            explained.status.code(),
            answer["verdict"].clone(),
            answer["reason"].clone(),
            answer["cleaned"].clone(),
        )
    };
    // Twenty bytes once the line ends are what they will be.
    let (status, verdict, _, cleaned) = explain("text/plain", "a\r\n".repeat(10).as_bytes());
    assert_eq!(
        (status, verdict, cleaned),
        (Some(0), "allow".into(), "10 line ends changed".into())
    );
    let (status, verdict, reason, _) = explain("text/plain", b"caf\xe9");
    assert_eq!(
        (status, verdict, reason),
        (Some(1), "deny".into(), "it is not readable text".into())
    );
    let (status, verdict, reason, _) = explain("image/png", b"<html>");
    assert_eq!((status, verdict), (Some(1), "deny".into()));
    assert_eq!(reason, "it is not what it claims to be (image/png)");
}

#[test]
fn explain_answers_2_and_not_denied_where_the_policy_or_the_language_knows_no_such_thing() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let clipboard = |from: &str, to: &str, media_type: &str| {
        let with = ["--from", from, "--to", to, "--type", media_type, "--bytes", "10"];
        bulkhead(&[&["explain", &policy, "clipboard"][..], &with].concat())
    };
    let usb =
        |arguments: &[&str]| bulkhead(&[&["explain", &policy, "usb"][..], arguments].concat());
    let missing = path(dir.path(), "1-4");
    let reader = "08e6:3437,interfaces=0b/00/00";
    for (output, says) in [
        (clipboard("clincal", "internet", "text/plain"), "did you mean \"clinical\"?"),
        (clipboard("clinical", "lab", "text/plain"), "write one of: clinical, internet"),
        (clipboard("clinical", "internet", "text/plane"), "did you mean text/plain?"),
        (clipboard("clinical", "internet", "application/pdf"), "known are text/plain"),
        (usb(&["--device", reader, "--to", "internt"]), "did you mean \"internet\"?"),
        (
            usb(&["--device", "vender=08e6,product=3437,interfaces=0b/00/00"]),
            "did you mean `vendor=`?",
        ),
        (usb(&["--device", "08e6:3437"]), "--busid reads them"),
        (usb(&["--device", "08e6:3437,interfaces=smart-card"]), "0b/00/00"),
        (usb(&["--device", "08e6:3437,interfaces=03/01/01:keybord-or-mouse"]), "did you mean"),
        (usb(&["--busid", "999-9"]), "no USB device is plugged in at 999-9"),
        (usb(&["--busid", "somewhere"]), "1-4.2"),
        (usb(&["--sysfs", &missing]), "no USB device is plugged in at 1-4"),
        (usb(&[]), "--device"),
    ] {
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(output.stdout.is_empty());
    }
    // What is known and not allowed is still denied.
    assert_eq!(clipboard("clinical", "internet", "text/plain").status.code(), Some(1));
}

#[test]
fn explain_takes_a_device_as_lsusb_usbguard_and_the_kernel_write_it() {
    let dir = tempfile::tempdir().unwrap();
    let policy = path(dir.path(), "policy.toml");
    bulkhead(&["new", &policy]);
    let rule = "\n[[usb]]\nid = \"one-stick\"\nmatch = { vendor = 0x0781, product = 0x5567, serial = \"A,1\" }\n\
                to = \"clinical\"\naction = \"read-only\"\n";
    fs::write(&policy, fs::read_to_string(&policy).unwrap() + rule).unwrap();
    let decided = |arguments: &[&str]| {
        let answer = bulkhead(&[&["explain", &policy, "usb", "--json"][..], arguments].concat());
        let said = String::from_utf8_lossy(&answer.stderr).into_owned();
        assert!(said.is_empty(), "{said}");
        json(&answer)["rule"].clone()
    };
    for device in [
        "vendor=0781,product=5567,serial=A,1,interfaces=08/06/50",
        "0781:5567,serial=A,1,interfaces=08:06:50",
        "0781:5567,interfaces={ 08:06:50 },serial=A,1",
        "vendor=0x0781,product=0x5567,interfaces=08:06:50+08/06/62,serial=A,1",
    ] {
        assert_eq!(decided(&["--device", device]), "one-stick", "{device}");
    }
    // As the kernel shows it once it is plugged in.
    let folder = dir.path().join("1-4");
    fs::create_dir(&folder).unwrap();
    let device = [18, 1, 0, 2, 0, 0, 0, 64, 0x81, 0x07, 0x67, 0x55, 0, 1, 1, 2, 3, 1];
    let configuration = [
        9, 2, 32, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 2, 8, 6, 0x50, 0, //
        7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0,
    ];
    fs::write(folder.join("descriptors"), [&device[..], &configuration].concat()).unwrap();
    for (name, text) in [
        ("busnum", "1"),
        ("devnum", "7"),
        ("idVendor", "0781"),
        ("idProduct", "5567"),
        ("serial", "A,1"),
        ("authorized", "1"),
    ] {
        fs::write(folder.join(name), text).unwrap();
    }
    assert_eq!(decided(&["--sysfs", &path(dir.path(), "1-4")]), "one-stick");
    let said = bulkhead(&["explain", &policy, "usb", "--sysfs", &path(dir.path(), "1-4")]);
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(
        said.starts_with(
            "device    vendor=0781,product=5567,serial=A,1,port=1-4,interfaces=08/06/50\n"
        ),
        "{said}"
    );
}

#[test]
fn a_file_that_is_no_utf_8_text_is_named_for_what_it_is_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = path(dir.path(), "policy.toml");
    let utf16: Vec<u8> =
        "\u{feff}issuer = \"정보보호\"".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, says) in [
        (utf16, "it is UTF-16: save it as UTF-8 (in Notepad: Save as, Encoding UTF-8)"),
        (
            b"a = 1\nissuer = \"\xc1\xa4\xba\xb8\"\n".to_vec(),
            "0xc1 at line 2, column 11 (byte 17 of the file); it looks like Korean in CP949",
        ),
        (b"issuer = \"S\xe9curit\xe9\"".to_vec(), "Latin-1"),
        (vec![b'#'; (4 << 20) + 1], "larger than 4 MiB: is this the right file?"),
    ] {
        fs::write(&file, content).unwrap();
        for command in ["check", "matrix"] {
            let output = bulkhead(&[command, &file]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(says) && !said.contains("create it"), "{said}");
        }
    }
    let folder = bulkhead(&["check", dir.path().to_str().unwrap()]);
    let said = String::from_utf8_lossy(&folder.stderr).into_owned();
    assert!(said.contains("it is a folder: name the file in it"), "{said}");
    let nothing = bulkhead(&["check", &path(dir.path(), "nothing.toml")]);
    let said = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(said.contains("there is no file") && !said.contains("--policy"), "{said}");
}

// Shows: K-2.2.1.
#[test]
fn a_key_is_kept_under_a_passphrase_that_a_file_or_a_descriptor_gives() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| path(dir.path(), name);
    bulkhead(&["new", &file("policy.toml")]);
    fs::write(file("right"), "four words of rain\nnot this line\n").unwrap();
    fs::write(file("wrong"), "four words of snow\n").unwrap();
    fs::write(file("short"), "rain\n").unwrap();
    let made = |passphrase: &str, key: &str| {
        bulkhead(&[
            "keygen",
            &file(key),
            "--name",
            "Kim",
            "--passphrase-file",
            &file(passphrase),
            "--json",
        ])
    };
    for (passphrase, says) in
        [("short", "shorter than 8"), ("nothing", "cannot read the passphrase")]
    {
        let refused = made(passphrase, "kim");
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stdout).contains(says), "{refused:?}");
        assert!(!Path::new(&file("kim")).exists() && !Path::new(&file("kim.pub")).exists());
    }
    let kim = made("right", "kim");
    assert_eq!((kim.status.code(), &json(&kim)["encrypted"]), (Some(0), &true.into()));
    let secret = fs::read_to_string(file("kim")).unwrap();
    assert!(secret.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "{secret}");
    assert_eq!(fs::metadata(file("kim")).unwrap().permissions().mode() & 0o777, 0o600);

    let sign = |more: &[&str]| {
        bulkhead(&[&["sign", &file("policy.toml"), "--key", &file("kim")][..], more].concat())
    };
    for (more, says) in [
        (vec![], "--passphrase-file or --passphrase-fd"),
        (vec!["--passphrase-file".to_owned(), file("wrong")], "the passphrase is not this key's"),
    ] {
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let refused = sign(&more);
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains(says), "{refused:?}");
        assert!(!Path::new(&file("policy.toml.sig")).exists());
    }
    assert!(sign(&["--passphrase-file", &file("right")]).status.success());
    // From a descriptor: here the standard input.
    let by_descriptor = Command::new(artefacts::program("bulkhead"))
        .args([
            "policy",
            "sign",
            &file("policy.toml"),
            "--key",
            &file("kim"),
            "--passphrase-fd",
            "0",
        ])
        .stdin(fs::File::open(file("right")).unwrap())
        .output()
        .unwrap();
    assert!(by_descriptor.status.success(), "{by_descriptor:?}");
    fs::write(
        file("trust.toml"),
        format!("format = 1\nthreshold = 1\n{}", fs::read_to_string(file("kim.pub")).unwrap()),
    )
    .unwrap();
    assert!(
        bulkhead(&["verify", &file("policy.toml"), "--trust", &file("trust.toml")])
            .status
            .success()
    );
}

// Shows: K-2.2.1.
#[test]
fn keygen_leaves_nothing_behind_when_it_fails() {
    let dir = tempfile::tempdir().unwrap();
    let key = path(dir.path(), "kim");
    fs::write(format!("{key}.pub"), "somebody else's").unwrap();
    let refused = bulkhead(&["keygen", &key, "--name", "Kim", "--no-passphrase"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("kim.pub: it is there already"),
        "{refused:?}"
    );
    assert!(!Path::new(&key).exists(), "a secret key whose public half nobody has");
    assert_eq!(fs::read_to_string(format!("{key}.pub")).unwrap(), "somebody else's");
    // The longest name there is: no file can be called `.pub` after it.
    let long = path(dir.path(), &"k".repeat(253));
    let refused = bulkhead(&["keygen", &long, "--name", "Kim", "--no-passphrase"]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(!Path::new(&long).exists(), "a secret key whose public half nobody has");
    let unwritable =
        bulkhead(&["keygen", "/no/such/folder/kim", "--name", "Kim", "--no-passphrase"]);
    assert_eq!(unwritable.status.code(), Some(1));
}
