//! What is promised of the log: nothing that was told to be written is lost, and nothing is changed unseen.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

mod changed;
mod killed;
mod read;
mod room;

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use audit::events::{ClipboardPaste, Verdict};
use audit::{
    AuditEvent, AuditKey, Entry, Flaw, Follower, Head, LINE_MAX, Limits, Log, LogError, PublicKey,
    RecoveryReport, Summary, WhenFull, each, verify,
};

/// Small files and many checkpoints, so that there is much of everything.
const SMALL: Limits = Limits {
    file_bytes: 2000,
    total_bytes: 1 << 30,
    keep_for: Duration::from_secs(3600),
    when_full: WhenFull::Stop,
    checkpoint_every: 5,
};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("audit")
    }

    fn key(&self) -> AuditKey {
        AuditKey::open(&self.dir.path().join("audit.key")).unwrap()
    }

    fn open_with(&self, limits: Limits) -> (Log, RecoveryReport) {
        Log::open(&self.log(), self.key(), limits, "boot-1").unwrap()
    }

    fn open(&self) -> (Log, RecoveryReport) {
        self.open_with(SMALL)
    }

    fn verify(&self, heads: &[Head]) -> Result<Summary, Flaw> {
        verify(&self.log(), Some(&self.key().public()), heads).unwrap()
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<_> =
            fs::read_dir(self.log()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        files
    }

    fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        each(&self.log(), |_, entry| {
            entries.push(entry);
            Ok(())
        })
        .unwrap();
        entries
    }

    /// Returns what a reader of the log is told is wrong.
    fn flaws(&self) -> Option<String> {
        let mut follower = match Follower::open(&self.log()) {
            Ok(follower) => follower,
            Err(error) => return Some(error.to_string()),
        };
        follower.each_new(|_, _| Ok(())).unwrap();
        follower.note_end();
        follower.take_flaws().map(|flaws| flaws.named[0].to_string())
    }
}

fn paste(bytes: u64) -> ClipboardPaste {
    ClipboardPaste {
        domain: "clinical".to_owned(),
        verdict: Verdict::Deny,
        rule: Some("rule \"one\"".to_owned()),
        policy: 7,
        answer: None,
        break_glass: false,
        bytes,
        from: "office".to_owned(),
        hits: None,
        inspected: None,
        normalised: Some("한글 \n ] \\".to_owned()),
        sha256: "e3b0".to_owned(),
        to: "clinical".to_owned(),
        r#type: "text/plain".to_owned(),
        unfit: None,
    }
}

fn event(number: u64) -> AuditEvent {
    paste(number).into()
}

fn fill(log: &mut Log, from: u64, count: u64) {
    for number in from..from + count {
        log.append(&[event(number)]).unwrap();
    }
}

fn filled(entries: u64) -> (Place, Head) {
    let place = Place::new();
    let (mut log, recovered) = place.open();
    assert_eq!(recovered, RecoveryReport::default());
    fill(&mut log, 0, entries);
    let head = log.close().unwrap();
    (place, head)
}

#[test]
fn a_log_over_several_files_and_starts_holds() {
    let (place, head) = filled(40);
    let (mut log, recovered) = place.open();
    assert_eq!(recovered, RecoveryReport::default());
    log.append(&[event(1), event(2)]).unwrap();
    let later = log.close().unwrap();
    assert!(place.files().len() > 3);
    let summary = place.verify(&[head, later]).unwrap();
    assert_eq!((summary.first, summary.unsigned, summary.head), (1, 0, later));
    assert_eq!(summary.entries, later.seq);
    let entries = place.entries();
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=later.seq));
    assert_eq!(entries[2].detail["normalised"], "한글 \n ] \\");
    assert_eq!(later.to_string().parse::<Head>().unwrap(), later);
}

#[test]
fn another_pcs_key_signs_nothing_here() {
    let (place, _) = filled(20);
    let other = Place::new().key().public();
    let found = verify(&place.log(), Some(&other), &[]).unwrap().unwrap_err();
    assert!(found.what.contains("signature is not this PC's"), "{found}");
    assert_eq!(PublicKey::parse(&other.text()), Some(other));
}

#[test]
fn a_chain_made_anew_by_somebody_without_the_key_is_found() {
    let (place, _) = filled(20);
    let forged = Place::new();
    let (mut log, _) = forged.open();
    fill(&mut log, 1, 20);
    log.close().unwrap();
    let found = verify(&forged.log(), Some(&place.key().public()), &[]).unwrap().unwrap_err();
    assert!(found.what.contains("signature"), "{found}");
}

#[test]
fn a_torn_tail_is_put_aside_recorded_and_told() {
    let (place, _) = filled(10);
    let last = place.files().pop().unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&last).unwrap();
    file.write_all(b"{\"seq\":99,\"time\":").unwrap();
    assert!(place.verify(&[]).unwrap_err().what.contains("cut off"));
    let (log, recovered) = place.open();
    assert_eq!((recovered.torn, recovered.broken), (Some(17), None));
    log.close().unwrap();
    place.verify(&[]).unwrap();
    assert!(place.entries().iter().any(|entry| entry.kind == "torn-tail-repaired"));
    let aside = last.with_extension("jsonl.torn-1");
    assert_eq!(fs::read(aside).unwrap(), b"{\"seq\":99,\"time\":");
}

#[test]
fn any_other_break_is_kept_told_and_never_mended() {
    let (place, _) = filled(10);
    let last = place.files().pop().unwrap();
    let text = fs::read_to_string(&last).unwrap().replacen("clinical", "internet", 1);
    fs::write(&last, &text).unwrap();
    let (mut log, recovered) = place.open();
    assert!(recovered.broken.as_ref().unwrap().contains("line 1"), "{recovered:?}");
    log.append(&[event(1)]).unwrap();
    log.close().unwrap();
    assert_eq!(fs::read_to_string(&last).unwrap(), text);
    assert!(place.verify(&[]).is_err());
    assert!(place.entries().iter().any(|entry| entry.kind == "chain-broken"));
}

#[test]
fn a_tail_that_was_cut_off_is_seen_at_the_next_start_and_stays_seen() {
    let (place, head) = filled(20);
    let last = place.files().pop().unwrap();
    fs::remove_file(last).unwrap();
    let found = place.verify(&[]).unwrap_err();
    assert!(found.what.contains(&format!("went on to entry {}", head.seq)), "{found}");
    let (mut log, recovered) = place.open();
    assert!(recovered.broken.is_some());
    fill(&mut log, 0, 20);
    log.close().unwrap();
    assert!(place.verify(&[]).unwrap_err().what.contains("found broken"));
    assert!(place.verify(&[head]).is_err());
}

#[test]
fn an_event_too_long_is_refused_and_harms_nothing() {
    let place = Place::new();
    let (mut log, _) = place.open();
    let long = ClipboardPaste { unfit: Some("x".repeat(LINE_MAX)), ..paste(1) };
    assert!(matches!(log.append(&[long.into()]), Err(LogError::TooLong("clipboard"))));
    log.append(&[event(1)]).unwrap();
    log.close().unwrap();
    place.verify(&[]).unwrap();
}

#[test]
fn a_directory_without_a_log_is_not_an_empty_log() {
    let place = Place::new();
    fs::create_dir_all(place.log()).unwrap();
    let error = each(&place.log(), |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("the log is missing"), "{error}");
}
