//! How a passphrase comes in, and what is left of it and of the terminal afterwards.

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{artefacts, bulkhead, path};

const PASSPHRASE: &str = "four words of rain";

/// Makes a policy and a key under [`PASSPHRASE`], in a folder of their own.
fn keyed() -> (tempfile::TempDir, String, String) {
    let dir = tempfile::tempdir().unwrap();
    let (policy, key) = (path(dir.path(), "policy.toml"), path(dir.path(), "kim"));
    bulkhead(&["new", &policy]);
    let given = path(dir.path(), "passphrase");
    fs::write(&given, format!("{PASSPHRASE}\n")).unwrap();
    let made = bulkhead(&["keygen", &key, "--name", "Kim", "--passphrase-file", &given]);
    assert!(made.status.success(), "{made:?}");
    (dir, policy, key)
}

fn with_input(arguments: &[&str], input: impl Into<Stdio>) -> Child {
    let mut command = Command::new(artefacts::program("bulkhead"));
    command.arg("policy").args(arguments).stdin(input);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn signed(policy: &str, key: &str, input: impl Into<Stdio>) -> Output {
    let arguments = ["sign", policy, "--key", key, "--passphrase-fd", "0"];
    with_input(&arguments, input).wait_with_output().unwrap()
}

#[test]
fn a_descriptor_is_read_itself_from_where_it_is_and_no_further_than_the_line() {
    let (dir, policy, key) = keyed();
    let given = path(dir.path(), "given");
    // What comes after the line is no text, and what came before it is somebody else's.
    fs::write(&given, [b"not this\n", PASSPHRASE.as_bytes(), b"\r\n\xff\xfe and on"].concat())
        .unwrap();
    let mut file = File::open(&given).unwrap();
    file.seek(SeekFrom::Start(9)).unwrap();
    let output = signed(&policy, &key, file.try_clone().unwrap());
    assert!(output.status.success(), "{output:?}");
    let mut left = Vec::new();
    file.read_to_end(&mut left).unwrap();
    assert_eq!(left, b"\xff\xfe and on");

    // A socket, whose other end stays open.
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    ours.write_all(format!("{PASSPHRASE}\n").as_bytes()).unwrap();
    theirs.set_nonblocking(true).unwrap();
    let output = signed(&policy, &key, OwnedFd::from(theirs));
    assert!(output.status.success(), "{output:?}");

    // The old one and the new one, line by line.
    fs::write(&given, format!("{PASSPHRASE}\nfour words of snow\n")).unwrap();
    let arguments = ["passphrase", &key, "--passphrase-fd", "0", "--new-passphrase-fd", "0"];
    let changed = with_input(&arguments, File::open(&given).unwrap()).wait_with_output().unwrap();
    assert!(changed.status.success(), "{changed:?}");
    fs::write(&given, "four words of snow").unwrap();
    assert!(signed(&policy, &key, File::open(&given).unwrap()).status.success());
}

#[test]
fn a_file_whose_later_lines_are_no_text_gives_its_first_and_one_without_end_is_given_up() {
    let (dir, policy, key) = keyed();
    let given = path(dir.path(), "given");
    let sign = |file: &str| {
        let arguments = ["sign", &policy, "--key", &key, "--passphrase-file", file];
        with_input(&arguments, Stdio::null()).wait_with_output().unwrap()
    };
    fs::write(&given, [PASSPHRASE.as_bytes(), b"\n\xff\xff\n"].concat()).unwrap();
    assert!(sign(&given).status.success());
    for (content, says) in [
        (vec![b'x'; 5000], "longer than 1024 bytes"),
        (b"\nfour words of rain\n".to_vec(), "its first line is empty"),
        (b"\xff\xff\xff\xff rain\n".to_vec(), "passphrase from"),
    ] {
        fs::write(&given, content).unwrap();
        let refused = sign(&given);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.contains(says), "{said}");
    }
    let closed = bulkhead(&["sign", &policy, "--key", &key, "--passphrase-fd", "77"]);
    let said = String::from_utf8_lossy(&closed.stderr).into_owned();
    assert!(said.contains("the file descriptor 77: it is not open"), "{said}");
}

#[test]
fn a_key_that_others_may_read_is_warned_of_with_its_mode_and_the_remedy() {
    let (dir, policy, key) = keyed();
    let given = path(dir.path(), "passphrase");
    let sign = || bulkhead(&["sign", &policy, "--key", &key, "--passphrase-file", &given]);
    assert!(!String::from_utf8_lossy(&sign().stderr).contains("warning"));
    for mode in [0o640, 0o604, 0o620] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let output = sign();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("mode {mode:04o}")), "{said}");
        assert!(said.contains(&format!("chmod 600 {key}")), "{said}");
    }
}

#[test]
fn while_a_passphrase_is_waited_for_a_crash_would_leave_no_core_dump() {
    let (_dir, policy, key) = keyed();
    for arguments in [
        &["sign", &policy, "--key", &key, "--passphrase-fd", "0"][..],
        &["passphrase", &key, "--passphrase-fd", "0", "--no-passphrase"],
        &["keygen", &format!("{key}-2"), "--name", "Lee", "--passphrase-fd", "0"],
    ] {
        let mut child = with_input(arguments, Stdio::piped());
        let limits = format!("/proc/{}/limits", child.id());
        wait(|| {
            let limits = fs::read_to_string(&limits).unwrap();
            let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
            core.split_whitespace().filter(|word| *word == "0").count() == 2
        });
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn wait(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "it does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Returns what a terminal shows of a shell that runs `keygen`, then what its settings are. `interrupt` is called with the terminal's other end
/// and the process once it asks.
fn terminal_after(interrupt: impl FnOnce(&mut File, Pid)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let pty = openpty(None, None).unwrap();
    // The shell leads the session: the terminal outlives what it runs.
    let script = r#"trap : INT TERM; sh -c 'echo "process $$;"; exec "$@"' sh "$@"; echo "settings:"; stty -a; echo "end.""#;
    let mut shell = Command::new("setsid")
        .args(["--ctty", "sh", "-c", script, "sh"])
        .arg(artefacts::program("bulkhead"))
        .args(["policy", "keygen", &path(dir.path(), "kim"), "--name", "Kim"])
        .stdin(pty.slave.try_clone().unwrap())
        .stdout(pty.slave.try_clone().unwrap())
        .stderr(pty.slave)
        .spawn()
        .unwrap();
    let mut terminal = File::from(pty.master);
    let mut shown = String::new();
    let mut until = |terminal: &mut File, end: &str| {
        while !shown.contains(end) {
            let mut some = [0; 512];
            let count = terminal.read(&mut some).unwrap();
            shown.push_str(&String::from_utf8_lossy(some.get(..count).unwrap()));
        }
        shown.clone()
    };
    let asked = until(&mut terminal, "Passphrase of the new key: ");
    let process = asked.split("process ").nth(1).unwrap().split(';').next().unwrap();
    let process = Pid::from_raw(process.parse().unwrap());
    // It shows nothing from here on.
    wait(|| {
        let settings = nix::sys::termios::tcgetattr(&terminal).unwrap();
        !settings.local_flags.contains(nix::sys::termios::LocalFlags::ECHO)
    });
    interrupt(&mut terminal, process);
    let shown = until(&mut terminal, "end.");
    assert!(shell.wait().unwrap().success());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{shown}");
    shown.split("settings:").nth(1).unwrap().to_owned()
}

#[test]
fn a_terminal_shows_again_what_is_typed_when_a_question_for_a_passphrase_was_interrupted() {
    for signal in [None, Some(Signal::SIGTERM), Some(Signal::SIGINT), Some(Signal::SIGHUP)] {
        let settings = terminal_after(|terminal, process| match signal {
            None => terminal.write_all(b"four w\x03").unwrap(),
            Some(signal) => kill(process, signal).unwrap(),
        });
        for word in ["echo", "icanon", "isig"] {
            assert!(
                settings.split_whitespace().any(|setting| setting.trim_end_matches(';') == word),
                "{signal:?}: {settings}"
            );
        }
    }
}
