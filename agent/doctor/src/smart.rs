//! What disks say of their own health (SMART), asked by `smartctl` where it is installed.
//!
//! A disk that fails may hold whoever asks it in the kernel, where no signal reaches: each is asked by a thread of its own, and nobody waits for one that does not come
//! back. What a disk says is hostile: of its answer a yes, a no and a few numbers are read, and words go no further than a message.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, TryRecvError};
use std::thread;
use std::time::Duration;

use base::programs::Program;
use clock::Moment;
use nix::unistd::Uid;
use serde_json::Value;

/// The program (smartmontools 7.0 or later).
const PROGRAM: &str = "smartctl";
/// How long it may take with one disk.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long all disks together are waited for: the deadline, and what starting the programs takes.
const PATIENCE: Duration = Duration::from_millis(1200);
/// How often it is looked whether one has answered.
const LOOK: Duration = Duration::from_millis(10);
/// Disks that are asked: a ward PC has one or two, and each is a thread.
const ASKED_MAX: usize = 16;
/// Characters of the program's words that are quoted.
const SAID_MAX: usize = 200;
/// The program's exit status: what it was asked for it does not know, or the disk could not be opened (smartctl(8), EXIT STATUS).
const NOT_ASKED: u64 = 0b11;
/// Of NVMe's critical warnings the one that says nothing of the disk's own state: it is too hot (NVM Express 1.4, figure 194).
const HOT: u64 = 0b10;
/// The others, by their bits.
const WARNINGS: [(u64, &str); 4] = [
    (0b1, "its spare blocks are used up"),
    (0b100, "it has become unreliable"),
    (0b1000, "it takes no writes any more"),
    (0b1_0000, "what it keeps in its memory is lost when the power fails"),
];

/// What came of asking a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is nothing to ask by.
    NotInstalled,
    /// Only root may.
    NotRoot,
    /// It has not answered in time.
    Late,
    /// The program could not ask it: why, fit to be shown.
    Failed(String),
    /// The disk has no such word.
    Silent,
    Well,
    /// It is well, and too hot.
    Hot,
    /// It says that it fails: what of it, as far as it says.
    Failing(Vec<&'static str>),
}

/// Asks disks, each by its name and its node; whichever does not answer in time is late.
pub(super) fn ask(disks: BTreeMap<String, PathBuf>) -> BTreeMap<String, Answer> {
    if !Uid::effective().is_root() {
        return disks.into_keys().map(|disk| (disk, Answer::NotRoot)).collect();
    }
    ask_by(disks, DEADLINE, PATIENCE, one)
}

fn ask_by(
    disks: BTreeMap<String, PathBuf>,
    deadline: Duration,
    patience: Duration,
    one: impl Fn(&Path, Duration) -> Answer + Copy + Send + 'static,
) -> BTreeMap<String, Answer> {
    let (tell, told) = mpsc::channel();
    let mut answers = BTreeMap::new();
    for (disk, node) in disks.into_iter().take(ASKED_MAX) {
        answers.insert(disk.clone(), Answer::Late);
        let (tell, name) = (tell.clone(), disk.clone());
        let asking = thread::Builder::new().name("smart".to_owned());
        // Whoever listens no more has called it late.
        let asked = asking.spawn(move || drop(tell.send((name, one(&node, deadline)))));
        if let Err(error) = asked {
            answers.insert(disk, Answer::Failed(format!("cannot start a thread: {error}")));
        }
    }
    drop(tell);
    let until = Moment::now() + patience;
    while Moment::now() < until {
        match told.try_recv() {
            Ok((disk, answer)) => drop(answers.insert(disk, answer)),
            Err(TryRecvError::Empty) => thread::sleep(LOOK),
            Err(TryRecvError::Disconnected) => break,
        }
    }
    answers
}

fn one(node: &Path, deadline: Duration) -> Answer {
    let Some(node) = node.to_str() else {
        return Answer::Failed("its node has no name in UTF-8".to_owned());
    };
    match Program::new(PROGRAM, &["--json", "--health", node]).within(deadline).run() {
        Ok(outcome) => answer(&outcome.output),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Answer::NotInstalled,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Answer::Late,
        Err(error) => {
            Answer::Failed(printable::line(&error.to_string()).up_to(SAID_MAX).to_string())
        }
    }
}

/// Reads what the program says of a disk, whatever that is.
fn answer(json: &[u8]) -> Answer {
    let Ok(said) = serde_json::from_slice::<Value>(json) else {
        return Answer::Failed(format!("{PROGRAM} gives no answer in JSON, as 7.0 and later do"));
    };
    let critical = said.pointer("/smart_status/nvme/value").and_then(Value::as_u64).unwrap_or(0);
    match said.pointer("/smart_status/passed").and_then(Value::as_bool) {
        Some(true) => Answer::Well,
        Some(false) if critical == HOT => Answer::Hot,
        Some(false) => {
            let is_said = |(bit, _): &&(u64, &str)| critical & bit != 0;
            Answer::Failing(WARNINGS.iter().filter(is_said).map(|(_, what)| *what).collect())
        }
        None => {
            let status = said.pointer("/smartctl/exit_status").and_then(Value::as_u64);
            if status.unwrap_or(0) & NOT_ASKED == 0 {
                return Answer::Silent;
            }
            let words = said.pointer("/smartctl/messages/0/string").and_then(Value::as_str);
            let words = words.unwrap_or("it does not say why");
            Answer::Failed(printable::line(words).up_to(SAID_MAX).to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn of_a_disks_answer_its_verdict_is_read_and_of_what_is_none_no_verdict_is_made() {
        let ata = r#"{"json_format_version":[1,0],"smartctl":{"version":[7,3],"exit_status":0},
            "device":{"name":"/dev/sda","type":"sat","protocol":"ATA"},"smart_status":{"passed":true}}"#;
        assert_eq!(answer(ata.as_bytes()), Answer::Well);
        let failing = r#"{"smartctl":{"exit_status":8},"smart_status":{"passed":false}}"#;
        assert_eq!(answer(failing.as_bytes()), Answer::Failing(Vec::new()));
        let nvme = |value: &str| {
            let text = format!(
                r#"{{"smartctl":{{"exit_status":8}},"smart_status":{{"passed":false,"nvme":{{"value":{value}}}}}}}"#
            );
            answer(text.as_bytes())
        };
        assert_eq!(nvme("2"), Answer::Hot);
        assert_eq!(
            nvme("9"),
            Answer::Failing(vec!["its spare blocks are used up", "it takes no writes any more"])
        );
        // More than any disk says, or something else.
        for value in ["-1", "\"x\"", "[]", "1e99", "18446744073709551616"] {
            assert_eq!(nvme(value), Answer::Failing(Vec::new()), "{value}");
        }
        let virtual_one = r#"{"smartctl":{"exit_status":4},"device":{"type":"scsi"}}"#;
        assert_eq!(answer(virtual_one.as_bytes()), Answer::Silent);
        let refused = "{\"smartctl\":{\"messages\":[{\"string\":\"open \\u001b[31mfailed\\n\",\"severity\":\"error\"}],\"exit_status\":2}}";
        let Answer::Failed(words) = answer(refused.as_bytes()) else { panic!() };
        assert!(words.contains("failed") && !words.contains('\u{1b}') && !words.contains('\n'));
        let long = format!(
            r#"{{"smartctl":{{"messages":[{{"string":"{}"}}],"exit_status":2}}}}"#,
            "x".repeat(100_000)
        );
        let Answer::Failed(words) = answer(long.as_bytes()) else { panic!() };
        assert!(words.chars().count() <= SAID_MAX + 1, "{}", words.len());
    }

    #[test]
    fn answers_of_any_form_are_read_without_an_end() {
        let deep = "[".repeat(100_000);
        for text in ["", "{", "smartctl 6.6\nusage", &deep, "\u{0}"] {
            assert!(matches!(answer(text.as_bytes()), Answer::Failed(_)), "{text:.20}");
        }
        for text in ["null", "[]", "{\"smart_status\":[]}", "{\"smart_status\":{\"passed\":1}}"] {
            assert_eq!(answer(text.as_bytes()), Answer::Silent, "{text}");
        }
        assert!(matches!(
            answer(b"{\"smartctl\":{\"exit_status\":1,\"messages\":{}}}"),
            Answer::Failed(_)
        ));
    }

    #[test]
    fn a_disk_that_holds_whoever_asks_it_is_late_and_holds_up_nobody() {
        let disks = ["sda", "sdb"].map(|name| (name.to_owned(), PathBuf::from(name)));
        let began = Instant::now();
        let answers = ask_by(disks.into(), DEADLINE, Duration::from_millis(200), |node, _| {
            if node.ends_with("sda") {
                thread::sleep(Duration::from_secs(600));
            }
            Answer::Well
        });
        assert!(began.elapsed() < Duration::from_secs(60));
        assert_eq!(answers.get("sda"), Some(&Answer::Late));
        assert_eq!(answers.get("sdb"), Some(&Answer::Well));
    }

    #[test]
    fn no_more_disks_are_asked_than_a_pc_has_threads_for() {
        let disks = (0..100).map(|number| (format!("sd{number}"), PathBuf::new())).collect();
        let answers = ask_by(disks, DEADLINE, Duration::from_secs(60), |_, _| Answer::Well);
        assert_eq!(answers.len(), ASKED_MAX);
        assert!(answers.values().all(|answer| *answer == Answer::Well));
    }
}
