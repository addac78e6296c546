//! Programs in the place of the worker that reads a guest's stream, which do what one does that was taken over, with more rights than it has: they are in no
//! sandbox. Each stands before the Internet guest; the clinical guest has the worker that there is.

mod behaviours;

use std::fs;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command as Process;
use std::time::{Duration, Instant};

use clipboard::mediator::Hotkey;
use clipboard::mediator::limits::HANG_UP;
use clipboard::service::{ClipboardEvent, Command, Program, WorkerPrograms};
use clipboard::vdagent::spec::{content, kind};
use sha2::{Digest as _, Sha256};
use worker_link::user_of_domain;

use crate::ward::{PATIENCE, TEXT, Ward, until, worker, worker_path};
use behaviours::{ASKED, FOUND, KEEPS_QUIET, LOUD, OTHER, SAYS_NOTHING, WAVERS, start};

/// What the child is told to do.
const CHILD: &str = "BULKHEAD_TEST_ROGUE_READER";

/// Runs itself in the worker's place.
#[test]
fn what_stands_in_a_readers_place() {
    if let Ok(name) = std::env::var(CHILD) {
        let mut behaviours = [FOUND, ASKED, LOUD, OTHER].into_iter().flatten();
        behaviours.find(|(known, _)| *known == name).unwrap().1(start());
        std::process::exit(0);
    }
}

/// Returns whether this process runs the test of this name alone. If not, one is started that does, and has passed.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "BULKHEAD_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("rogue_readers::{test}");
    let mut child = Process::new(std::env::current_exe().unwrap());
    let output = child.args([&name, "--exact"]).env(ALONE, "").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A program that does this the first time that it reads the Internet guest, and what it should every other time.
fn rogue(dir: &Path, name: &str) -> Program {
    let (once, real, test) = (dir.join("once"), worker_path(), std::env::current_exe().unwrap());
    fs::write(&once, name).unwrap();
    let internet = user_of_domain(1).unwrap();
    let (once, real, test) = (once.display(), real.display(), test.display());
    Program::shell(
        dir,
        &format!(
            r#"if [ "$1 $2" = "clipboard {internet}" ] && [ -e {once} ]; then
    {CHILD}="$(cat {once})"; export {CHILD}
    rm {once}
    exec {test} rogue_readers::what_stands_in_a_readers_place --exact --nocapture 3<&0 0<&1 2>&3 1>/dev/null
fi
exec {real} "$@""#
        ),
    )
}

fn ward(dir: &Path, name: &str) -> Ward {
    let workers = WorkerPrograms { reading: Some(rogue(dir, name)), decoding: Some(worker()) };
    Ward::unannounced(TEXT, workers)
}

/// The clinical guest's agent is heard, and copies; how long that takes.
fn clinical_copies(ward: &mut Ward) -> Duration {
    let began = Instant::now();
    ward.hotkey(Hotkey::Copy, 0);
    ward.said("Nothing is copied in CLINICAL");
    began.elapsed()
}

/// The Internet guest's stream is ended; text crosses on the next.
fn is_cut(mut ward: Ward, name: &str) {
    let mut rest = Vec::new();
    let _ = ward.internet.read_to_end(&mut rest);
    ward.reconnects();
    ward.text_crosses(name);
}

// Shows: C-9.
#[test]
fn a_reader_that_says_what_it_cannot_know_loses_its_guests_stream_and_nothing_else() {
    for (name, _) in FOUND {
        let dir = tempfile::tempdir().unwrap();
        let ward = ward(dir.path(), name);
        is_cut(ward, name);
    }
}

// Shows: C-9.
#[test]
fn a_reader_that_lies_about_what_was_copied_fails_that_copy_in_words_and_nothing_crosses() {
    for (name, _) in ASKED {
        let dir = tempfile::tempdir().unwrap();
        let ward = ward(dir.path(), name);
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
        std::thread::sleep(Duration::from_millis(100));
        ward.hotkey(Hotkey::Copy, 1);
        // What was pressed early is carried out when the copy has failed.
        ward.hotkey(Hotkey::Paste, 0);
        ward.wait(|event| {
            assert!(!matches!(event, ClipboardEvent::Authorize(_)), "{name} reached the monitor");
            matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with("Not copied: INTERNET"))
        });
        if *name == "never has content" {
            // As a guest may do: its stream goes on, and its reader is another after it.
            drop(ward);
            continue;
        }
        is_cut(ward, name);
    }
}

#[test]
fn a_reader_that_hangs_is_named_as_what_it_is_and_not_as_an_agent_that_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let mut ward = ward(dir.path(), SAYS_NOTHING);
    ward.internet.read_to_end(&mut Vec::new()).unwrap();
    ward.hotkey(Hotkey::Copy, 1);
    ward.said("INTERNET cannot copy or paste: what reads its clipboard has failed");
    // The next one works, and has nothing to read: its guest has no agent any more.
    ward.internet = UnixStream::connect(ward.dir.path().join("internet")).unwrap();
    is_said_when_copied(&ward, |words| words.contains("no clipboard agent runs there"));
    ward.reconnects();
    ward.text_crosses(SAYS_NOTHING);
}

#[test]
fn a_guest_that_hangs_up_has_no_agent_from_then_on_though_its_reader_keeps_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let mut ward = ward(dir.path(), KEEPS_QUIET);
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, true)));
    let began = Instant::now();
    ward.internet.shutdown(std::net::Shutdown::Both).unwrap();
    ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
    let took = began.elapsed();
    assert!(took < HANG_UP / 2, "{took:?}");
    ward.reconnects();
    ward.text_crosses(KEEPS_QUIET);
}

// Shows: C-9.
#[test]
fn a_reader_that_is_loud_holds_itself_up_and_gives_nothing_to_the_agent() {
    // Its descriptors are no other test's.
    if !is_alone("a_reader_that_is_loud_holds_itself_up_and_gives_nothing_to_the_agent") {
        return;
    }
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for (name, _) in LOUD {
        let dir = tempfile::tempdir().unwrap();
        let mut ward = ward(dir.path(), name);
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(0, true)));
        let before = descriptors();
        let (began, mut told) = (Instant::now(), 0);
        for _ in 0..5 {
            let copying = Instant::now();
            ward.hotkey(Hotkey::Copy, 0);
            ward.wait(|event| match event {
                ClipboardEvent::Agent(1, _) => {
                    told += 1;
                    false
                }
                event => matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.words.starts_with("Nothing is copied in CLINICAL")),
            });
            let took = copying.elapsed();
            assert!(took < Duration::from_secs(2), "{name}: {took:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
        // Two more: what was told before this began, and at the same moment as its end.
        assert!(told <= began.elapsed().as_millis() / 100 + 2, "{name}: {told} times");
        let after = descriptors();
        assert!(after <= before, "{name}: {after} descriptors, and before {before}");
        // Its guest hangs up, and comes again.
        ward.internet.shutdown(std::net::Shutdown::Both).unwrap();
        if *name != WAVERS {
            // Of one that wavers it may have been told already.
            ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
        }
        ward.reconnects();
        ward.text_crosses(name);
    }
}

#[test]
fn a_program_in_a_readers_place_can_put_another_text_there_which_is_judged_and_no_more() {
    for (name, _) in OTHER {
        let dir = tempfile::tempdir().unwrap();
        let mut ward = ward(dir.path(), name);
        ward.are_heard();
        std::thread::sleep(Duration::from_millis(100));
        ward.hotkey(Hotkey::Copy, 1);
        let mut sha256 = String::new();
        ward.wait(|event| match event {
            ClipboardEvent::Note(event) if event.kind() == "clipboard-copied" => {
                event.record().detail["sha256"].as_str().unwrap().clone_into(&mut sha256);
                false
            }
            event => matches!(event, ClipboardEvent::Completed(_, outcome) if outcome.done),
        });
        // The rules are those of another domain's content all the same.
        ward.clipboard.send(Command::Policy(crate::ward::policy("")));
        ward.hotkey(Hotkey::Paste, 0);
        ward.said("Not pasted");
        ward.clipboard.send(Command::Policy(crate::ward::policy(TEXT)));
        ward.hotkey(Hotkey::Paste, 0);
        ward.said("Ready");
        until(&mut ward.clinical, kind::CLIPBOARD_GRAB);
        let asks = crate::ward::words(&[0, content::UTF8_TEXT]);
        let asks = crate::ward::message(kind::CLIPBOARD_REQUEST, &asks);
        std::io::Write::write_all(&mut ward.clinical, &asks).unwrap();
        let body = until(&mut ward.clinical, kind::CLIPBOARD);
        let hash: String =
            Sha256::digest(&body[8..]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hash, sha256, "as it was when it was read, and judged");
        // Its file is written all the time, also when it is told that nobody waits any more.
        for _ in 0..5 {
            ward.hotkey(Hotkey::Copy, 1);
            let took = clinical_copies(&mut ward);
            assert!(took < Duration::from_secs(2), "{took:?}");
        }
    }
}

#[test]
fn without_the_program_nothing_is_copied_and_it_is_said() {
    for reading in [None, Some(Program::script("/nonexistent/worker".into()))] {
        let workers = WorkerPrograms { reading, decoding: None };
        let ward = Ward::unannounced(TEXT, workers);
        let says = "INTERNET cannot copy or paste: what reads its clipboard";
        is_said_when_copied(&ward, |words| words.starts_with(says));
    }
}

/// Presses the copy hotkey in the Internet desktop again and again, until this is said.
fn is_said_when_copied(ward: &Ward, wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        ward.hotkey(Hotkey::Copy, 1);
        let mut words = String::new();
        ward.wait(|event| match event {
            ClipboardEvent::Completed(_, outcome) => {
                words.clone_from(&outcome.words);
                true
            }
            _ => false,
        });
        if wanted(&words) {
            return;
        }
        assert!(Instant::now() < deadline, "{words}");
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn a_reader_that_is_killed_is_started_again_and_holds_up_nobody() {
    // Its readers are no other test's.
    if !is_alone("a_reader_that_is_killed_is_started_again_and_holds_up_nobody") {
        return;
    }
    let mut ward = Ward::open();
    for _ in 0..3 {
        let readers = children("clipboard");
        assert_eq!(readers.len(), 2, "{readers:?}");
        // The later is the Internet guest's: its number says so.
        let internet = user_of_domain(1).unwrap().to_string();
        let (pid, _) = readers.iter().find(|(_, user)| *user == internet).unwrap();
        let killed = Process::new("kill").args(["-9", pid]).status().unwrap();
        assert!(killed.success());
        ward.wait(|event| matches!(event, ClipboardEvent::Agent(1, false)));
        ward.reconnects();
        ward.asks("goes on");
        until(&mut ward.clinical, kind::CLIPBOARD);
    }
}

/// Returns this process's workers in this role, with the number that they were started with.
fn children(role: &str) -> Vec<(String, String)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into())
            .collect();
        if words.first().is_some_and(|name| name == "bulkhead-worker")
            && words.get(1).is_some_and(|word| word == role)
            && words.get(3) == Some(&own)
        {
            found.push((entry.file_name().to_string_lossy().into(), words[2].clone()));
        }
    }
    found
}
