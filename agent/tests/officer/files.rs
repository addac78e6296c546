//! Where a policy is read from, and what is said of what is none.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::{artefacts, bulkhead, path};

fn given(text: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.arg("policy").args(arguments).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One that refuses its arguments has ended before it was given anything.
    let written = child.stdin.take().unwrap().write_all(text.as_bytes());
    assert!(written.is_ok() || written.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe));
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
    let flow = ["clipboard", "--from", "internet", "--to", "clinical", "--type", "text/plain"];
    let told = given(&text, &[&["explain", "-"], &flow[..], &["--bytes", "3"]].concat());
    assert_eq!(told.status.code(), Some(1), "{told:?}");
    let content = ["--text-file", "-"];
    let measured = given("abc", &[&["explain", &file], &flow[..], &content].concat());
    assert_eq!(measured.stdout, told.stdout);
    let both = given(&text, &[&["explain", "-"], &flow[..], &content].concat());
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn what_has_its_signatures_in_a_file_beside_it_is_not_read_from_standard_input_and_it_is_said_why()
{
    let dir = tempfile::tempdir().unwrap();
    let key = path(dir.path(), "kim");
    assert!(bulkhead(&["keygen", &key, "--name", "Kim", "--no-passphrase"]).status.success());
    for arguments in [&["sign", "-", "--key", &key][..], &["verify", "-"], &["apply", "-"]] {
        let refused = given("", arguments);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{said}");
        assert!(said.contains("FILE.sig") && said.contains("save the policy in a file"), "{said}");
    }
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
    let explain = [
        "explain",
        "clipboard",
        "--from",
        "a",
        "--to",
        "b",
        "--type",
        "text/plain",
        "--bytes",
        "1",
    ];
    for arguments in [&["check"][..], &["matrix"], &["show"], &["replay"], &explain] {
        let output = bulkhead(&[arguments, &["--runtime", &runtime]].concat());
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // One of them takes no file.
        let help = match arguments {
            ["show"] => "start the agent, or put the office's policy at /etc/bulkhead/policy.toml",
            _ => "name a policy's file",
        };
        assert!(said.contains("no agent is running here") && said.contains(help), "{said}");
    }
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
