//! Programs in the place of the worker that decodes, which do what one does that was taken over, with more rights than it has: they are in no sandbox.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use clipboard::service::{ClipboardEvent, Command, Program, WorkerPrograms};
use clipboard::vdagent::spec::{content, kind};
use worker_link::{ANSWER_HEADER, Answer, Kind};

use crate::ward::{PICTURES, Ward, until, worker};

const SAMPLE: &[u8] = include_bytes!("../../mediators/clipboard/pictures/src/samples/out-meta.png");

fn png() -> Vec<u8> {
    pictures::encode_anew(Kind::Png, SAMPLE, 1 << 20).unwrap().png.to_vec()
}

fn header(length: usize) -> [u8; ANSWER_HEADER] {
    let length = u32::try_from(length).unwrap();
    Answer::Encoded { turned: false, made_opaque: false, first_of: None, length }.header()
}

fn answer(content: &[u8]) -> Vec<u8> {
    [&header(content.len())[..], content].concat()
}

/// A program that runs this; `ANSWER` in it is a file that holds the answer.
fn rogue(dir: &Path, does: &str, answer: &[u8]) -> Program {
    let file = dir.join("answer");
    fs::write(&file, answer).unwrap();
    Program::shell(dir, &does.replace("ANSWER", &file.display().to_string()))
}

/// A ward whose pictures are decoded by this.
fn decoded_by(decoding: Option<Program>) -> Ward {
    Ward::with(PICTURES, WorkerPrograms { reading: Some(worker()), decoding })
}

/// What was pasted is denied; the clinical guest was not told of anything, and text crosses as if nothing had been.
fn denied_and_all_is_well(mut ward: Ward, what: &str) {
    let mut denied = false;
    ward.wait(|event| {
        if let ClipboardEvent::Note(event) = event {
            let record = event.record();
            denied |= record.kind == "clipboard-not-delivered";
            denied |= record.verdict.as_deref() == Some("deny")
                && record.detail.get("unfit").is_some_and(|why| !why.to_string().is_empty());
        }
        let ended = |words: &str| words.starts_with("Not pasted: a picture");
        assert!(!matches!(event, ClipboardEvent::Authorize(_)), "{what} reached the monitor");
        matches!(event, ClipboardEvent::Completed(_, outcome) if ended(&outcome.words))
    });
    assert!(denied, "{what}");
    ward.pastes(content::UTF8_TEXT, b"goes on");
    ward.said("Ready");
    // The first that it hears of is the text.
    let grab = until(&mut ward.clinical, kind::CLIPBOARD_GRAB);
    assert_eq!(grab[4..8], content::UTF8_TEXT.to_le_bytes(), "{what}");
}

// Shows: C-9.
#[test]
fn whatever_stands_in_the_workers_place_gets_nothing_across_but_a_picture_that_the_policy_allows() {
    let png = png();
    let html = b"<html><script>alert(1)</script></html>".repeat(20);
    let hung = [&png[..], b"PATIENT 123456-1234567"].concat();
    let (start, end) = png.split_at(png.len() - 12);
    let noted = [start, b"\0\0\0\x03tEXtabcdddd", end].concat();
    let cases: [(&str, &str, Vec<u8>); 12] = [
        ("nothing", "exit 0", vec![]),
        ("noise", "head -c 5000 /dev/urandom", vec![]),
        ("more than there is room for", "head -c 100000000 /dev/zero; exit 0", vec![]),
        ("a file that is made longer", "truncate -s 1G /proc/self/fd/1; exit 0", vec![]),
        ("no picture", "cat ANSWER", answer(&html)),
        ("text", "cat ANSWER", answer(b"rm -rf ~\n")),
        ("another kind of picture", "cat ANSWER", answer(b"GIF89a\x01\0\x01\0\0\0\0;")),
        ("a picture as it was copied", "cat ANSWER", answer(SAMPLE)),
        ("a picture with something behind it", "cat ANSWER", answer(&hung)),
        ("a picture with a note in it", "cat ANSWER", answer(&noted)),
        (
            "two answers, the second no picture",
            "cat ANSWER; cat ANSWER | dd bs=1 count=60 of=/proc/self/fd/1 conv=notrunc seek=40 2>/dev/null; true",
            answer(&png),
        ),
        ("a picture and a death", "cat ANSWER; kill -9 $$", answer(&png)),
    ];
    for (what, script, answer) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut ward = decoded_by(Some(rogue(dir.path(), script, &answer)));
        ward.pastes(content::IMAGE_PNG, SAMPLE);
        denied_and_all_is_well(ward, what);
    }
    let mut ward = decoded_by(Some(Program::script("/nonexistent/worker".into())));
    ward.pastes(content::IMAGE_PNG, SAMPLE);
    denied_and_all_is_well(ward, "no program");
    let mut ward = decoded_by(None);
    ward.pastes(content::IMAGE_PNG, SAMPLE);
    denied_and_all_is_well(ward, "none");
}

#[test]
fn a_program_in_the_workers_place_can_put_another_picture_there_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let answer = answer(&png());
    let program = rogue(dir.path(), "cat ANSWER; exit 0", &answer);
    let mut ward = decoded_by(Some(program));
    ward.pastes(content::IMAGE_PNG, b"\x89PNG\r\n\x1a\n of which nobody knows what it is");
    ward.said("Ready");
    let grab = until(&mut ward.clinical, kind::CLIPBOARD_GRAB);
    assert_eq!(grab[4..8], content::IMAGE_PNG.to_le_bytes());
}

/// Returns whether a process is neither gone nor dead: nobody may be left to take a dead one's exit status, as the mediator ends with its test.
fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    // The state stands behind the name, in brackets (proc_pid_stat(5)).
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn one_that_never_answers_is_killed_when_the_screen_is_locked_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("pid");
    let script = format!("echo $$ > {}; exec sleep 600", told.display());
    let mut ward = decoded_by(Some(rogue(dir.path(), &script, &[])));
    ward.pastes(content::IMAGE_PNG, SAMPLE);
    let deadline = Instant::now() + Duration::from_secs(30);
    let pid = loop {
        match fs::read_to_string(&told) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => assert!(Instant::now() < deadline, "it does not start"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    ward.clipboard.send(Command::Locked);
    denied_and_all_is_well(ward, "one that never answers");
    while is_alive(&pid) {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn an_agent_that_ends_while_a_picture_is_decoded_leaves_an_entry_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let told = dir.path().join("started");
    let script = format!("echo > {}; exec sleep 600", told.display());
    let mut ward = decoded_by(Some(rogue(dir.path(), &script, &[])));
    ward.pastes(content::IMAGE_PNG, SAMPLE);
    let deadline = Instant::now() + Duration::from_secs(30);
    while !told.exists() {
        assert!(Instant::now() < deadline, "it does not start");
        std::thread::sleep(Duration::from_millis(5));
    }
    ward.clipboard.stop(monitor::Stop::GiveBack);
    let events = ward.clipboard.events().into_iter();
    let noted = events.filter_map(|event| match event {
        ClipboardEvent::Note(event) => Some(event.kind()),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), ["clipboard", "clipboard-not-delivered"]);
}
