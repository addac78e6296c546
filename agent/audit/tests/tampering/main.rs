//! What an auditor asks of a log: each kind of tampering is named, also by somebody who may read the files and nothing more.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../support/relink.rs"]
mod relink;
mod state;
mod times;

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use relink::relink;

use audit::events::{ClipboardPaste, Verdict};
use audit::{
    AuditEvent, AuditKey, CHECKPOINT_AFTER, ClockReading, Flaw, Head, Limits, Log, PublicKey,
    RecoveryReport, Settings, Summary, each, verify_at,
};

/// 23 November 2026, 00:00 UTC, in seconds since 1970.
const BEGIN: u64 = 1_795_392_000;

thread_local! {
    /// The wall clock and the time since start that the log under test reads.
    static NOW: Cell<(u64, u64)> = const { Cell::new((BEGIN, 100)) };
}

fn reading() -> ClockReading {
    let (wall, uptime) = NOW.get();
    ClockReading {
        wall: UNIX_EPOCH + Duration::from_secs(wall),
        uptime: Duration::from_secs(uptime),
    }
}

/// Lets seconds pass; the wall clock is set forward or back by `set` besides.
fn pass(seconds: u64, set: i64) {
    let (wall, uptime) = NOW.get();
    NOW.set(((wall + seconds).checked_add_signed(set).unwrap(), uptime + seconds));
}

fn now() -> SystemTime {
    reading().wall
}

struct Pc {
    dir: tempfile::TempDir,
}

impl Pc {
    fn new() -> Self {
        NOW.set((BEGIN, 100));
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> PathBuf {
        self.at("state/audit")
    }

    fn key(&self) -> AuditKey {
        fs::create_dir_all(self.at("state/keys")).unwrap();
        AuditKey::open(&self.at("state/keys/audit.key")).unwrap()
    }

    fn open(&self) -> (Log, RecoveryReport) {
        self.open_signing_every(256)
    }

    fn open_signing_every(&self, checkpoint_every: u64) -> (Log, RecoveryReport) {
        fs::create_dir_all(self.at("etc")).unwrap();
        let limits = Limits { file_bytes: 4000, checkpoint_every, ..Limits::default() };
        let settings = Settings {
            remembered_in: vec![self.at("state/audit.head"), self.at("etc/audit.head")],
            clock: reading,
            ..Settings::new(&self.log(), limits, "boot-1")
        };
        Log::open_with(settings, self.key()).unwrap()
    }

    /// Returns a day at the PC, closed in order.
    fn day(&self, entries: u64) -> Head {
        let (mut log, _) = self.open();
        fill(&mut log, entries);
        pass(1, 0);
        log.close().unwrap()
    }

    fn verify(&self, heads: &[Head]) -> Result<Summary, Flaw> {
        let public = fs::read_to_string(self.log().join("audit.pub")).unwrap();
        verify_at(&self.log(), PublicKey::parse(&public).as_ref(), heads, now()).unwrap()
    }

    fn named(&self, heads: &[Head], what: &str) {
        let found = self.verify(heads).unwrap_err();
        assert!(found.what.contains(what), "{found}");
    }

    fn files(&self) -> Vec<PathBuf> {
        files_of(&self.log())
    }

    fn lines(&self) -> Vec<String> {
        self.files()
            .iter()
            .flat_map(|file| {
                fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect()
    }

    fn kinds(&self) -> Vec<String> {
        let mut kinds = Vec::new();
        each(&self.log(), |_, entry| {
            kinds.push(entry.kind);
            Ok(())
        })
        .unwrap();
        kinds
    }

    /// Puts these lines in the place of the log, in one file, chained anew as somebody without the key can. `head` is written to match.
    fn forge(&self, lines: &[String]) {
        for file in self.files() {
            fs::remove_file(file).unwrap();
        }
        let (mut prev, mut text) = ("0".repeat(64), String::new());
        for (seq, line) in (1..).zip(lines) {
            let line = relink(line, seq, &prev);
            prev = line[line.len() - 66..line.len() - 2].to_owned();
            text.push_str(&line);
            text.push('\n');
        }
        fs::write(self.log().join("audit-000000000001.jsonl"), text).unwrap();
        let head = format!("bulkhead-audit-head:{}:{prev}\n", lines.len());
        fs::write(self.log().join("head"), head).unwrap();
    }
}

fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    files
}

fn event(bytes: u64) -> AuditEvent {
    ClipboardPaste {
        domain: "clinical".to_owned(),
        verdict: Verdict::Deny,
        rule: None,
        policy: 7,
        answer: None,
        break_glass: false,
        bytes,
        from: "internet".to_owned(),
        hits: None,
        inspected: None,
        normalised: None,
        sha256: "e3b0".to_owned(),
        to: "clinical".to_owned(),
        r#type: "text/plain".to_owned(),
        unfit: None,
    }
    .into()
}

fn fill(log: &mut Log, count: u64) {
    for number in 0..count {
        pass(1, 0);
        log.append(&[event(number)]).unwrap();
    }
}

#[test]
fn a_log_is_signed_where_it_is_opened_and_where_it_is_closed_however_short_the_day() {
    let pc = Pc::new();
    pc.day(0);
    assert_eq!(pc.kinds(), ["log-opened", "checkpoint", "log-closed", "checkpoint"]);
    pc.day(1);
    let summary = pc.verify(&[]).unwrap();
    assert_eq!((summary.checkpoints, summary.unsigned, summary.closed), (4, 0, true));
}

#[test]
fn what_is_new_is_signed_within_a_minute_and_once() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    assert_eq!(log.checkpoint_in(), None);
    fill(&mut log, 1);
    pass(59, 0);
    assert_eq!(log.checkpoint_in(), Some(Duration::from_secs(1)));
    log.sign_if_due().unwrap();
    assert_eq!(pc.verify(&[]).unwrap().unsigned, 1);
    pass(1, 0);
    log.sign_if_due().unwrap();
    assert_eq!((pc.verify(&[]).unwrap().unsigned, log.checkpoint_in()), (0, None));
    pass(600, 0);
    log.sign_if_due().unwrap();
    assert_eq!(pc.kinds(), ["log-opened", "checkpoint", "clipboard", "checkpoint"]);
}

#[test]
fn a_chain_rebuilt_without_checkpoints_does_not_hold() {
    let pc = Pc::new();
    pc.day(5);
    let mut lines = pc.lines();
    lines.retain(|line| !line.contains("\"kind\":\"checkpoint\""));
    pc.forge(&lines);
    pc.named(&[], "no entry is signed");
    // Nor with one from another place.
    let pc = Pc::new();
    pc.day(5);
    let mut lines = pc.lines();
    let closing = lines.pop().unwrap();
    lines.retain(|line| !line.contains("\"kind\":\"checkpoint\""));
    lines.push(closing);
    pc.forge(&lines);
    pc.named(&[], "signature is not this PC's");
}

#[test]
fn a_checkpoints_own_times_cannot_be_changed() {
    let pc = Pc::new();
    pc.day(3);
    let mut lines = pc.lines();
    let last = lines.pop().unwrap();
    lines.push(last.replacen("2026-11", "2026-12", 1));
    pc.forge(&lines);
    assert!(pc.verify(&[]).is_err());
    lines.pop();
    lines.push(last.replacen(
        "\"kind\":\"checkpoint\",",
        "\"kind\":\"checkpoint\",\"rule\":\"x\",",
        1,
    ));
    pc.forge(&lines);
    pc.named(&[], "signature is not this PC's");
}

#[test]
fn an_emptied_directory_and_renamed_files_are_no_log() {
    let pc = Pc::new();
    pc.day(5);
    for file in pc.files() {
        fs::rename(&file, file.with_extension("bak")).unwrap();
    }
    pc.named(&[], "files of other names");
    // A name that only looks like a number.
    let sign = pc.log().join("audit-+00000000001.jsonl");
    fs::rename(pc.log().join("audit-000000000001.bak"), sign).unwrap();
    pc.named(&[], "the log is missing");
    for entry in fs::read_dir(pc.log()).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("audit.pub") {
            fs::remove_file(path).unwrap();
        }
    }
    pc.named(&[], "the log is missing");
}

#[test]
fn what_is_cut_off_is_named_and_so_is_the_head_that_would_tell() {
    for cut in ["a line", "a file", "a file and the head"] {
        let pc = Pc::new();
        let head = pc.day(40);
        let last = pc.files().pop().unwrap();
        if cut == "a line" {
            let text = fs::read_to_string(&last).unwrap();
            let keep = text.trim_end().rfind('\n').unwrap() + 1;
            fs::write(&last, &text[..keep]).unwrap();
        } else {
            fs::remove_file(&last).unwrap();
        }
        if cut == "a file and the head" {
            fs::remove_file(pc.log().join("head")).unwrap();
            pc.named(&[], "the file `head` beside the log is gone");
            pc.named(&[], "copy the whole folder, `head` included");
        } else {
            pc.named(&[], &format!("went on to entry {}", head.seq));
        }
        // The agent remembers, whatever is beside the log.
        let (_, recovered) = pc.open();
        assert!(recovered.went_back.unwrap().contains(&format!("there was an entry {}", head.seq)));
    }
}

#[test]
fn a_beginning_that_was_taken_away_is_named_though_an_unsigned_entry_says_that_it_was_dropped() {
    let pc = Pc::new();
    let head = pc.day(60);
    let files = pc.files();
    assert!(files.len() > 2);
    // The first file goes, and a line at the end says what the agent would have said of that.
    let last = fs::read_to_string(&files[0]).unwrap().lines().last().unwrap().to_owned();
    let hash = |line: &str| line[line.len() - 66..line.len() - 2].to_owned();
    let dropped: u64 = last["{\"seq\":".len()..last.find(',').unwrap()].parse().unwrap();
    fs::remove_file(&files[0]).unwrap();
    pc.named(&[head], "no entry says that they were dropped");
    // The last file without the closing of the log, so that no start is missed.
    let end = files.last().unwrap();
    let text = fs::read_to_string(end).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let kept = &lines[..lines.len() - 2];
    let before = kept.last().unwrap();
    let seq: u64 = before["{\"seq\":".len()..before.find(',').unwrap()].parse().unwrap();
    let detail = format!(
        "\"kind\":\"oldest-dropped\",\"detail\":{{\"first\":1,\"last\":{dropped},\"last_hash\":\"{}\"}},",
        hash(&last)
    );
    let model = lines[lines.len() - 2];
    let (from, to) = (model.find("\"kind\"").unwrap(), model.find("\"prev\"").unwrap());
    let forged =
        relink(&format!("{}{detail}{}", &model[..from], &model[to..]), seq + 1, &hash(before));
    fs::write(end, format!("{}\n{forged}\n", kept.join("\n"))).unwrap();
    let forged_head = format!("bulkhead-audit-head:{}:{}\n", seq + 1, hash(&forged));
    fs::write(pc.log().join("head"), forged_head).unwrap();
    let unsigned = "says that they were dropped was not signed with it";
    pc.named(&[], unsigned);
    // The agent starts, and signs what it finds.
    pass(1, 0);
    let _ = fs::remove_file(pc.at("state/audit.head"));
    let _ = fs::remove_file(pc.at("etc/audit.head"));
    let (log, recovered) = pc.open();
    assert_eq!((recovered.broken, recovered.went_back), (None, None));
    log.close().unwrap();
    pc.named(&[], unsigned);
}

#[test]
fn what_is_not_signed_is_counted_and_is_tampering_once_a_checkpoint_should_have_been() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    fill(&mut log, 3);
    drop(log); // the agent is killed
    assert_eq!(pc.verify(&[]).unwrap().unsigned, 3);
    // Somebody without the key makes the end anew; what was signed they cannot.
    let mut lines = pc.lines();
    let last = lines.len() - 1;
    lines[last] = lines[last].replace("\"deny\"", "\"allow\"");
    pc.forge(&lines);
    pass(CHECKPOINT_AFTER.as_secs() + 20, 0);
    pc.named(&[], "entries 3 to 5 are not signed and older");
    // The agent that follows signs what it finds, and says that it found it so.
    let (log, recovered) = pc.open();
    assert_eq!(recovered.unsigned, 3);
    log.close().unwrap();
    assert_eq!(pc.verify(&[]).unwrap().unsigned_at_start, 3);
}

#[test]
fn an_unsigned_end_dated_into_the_future_is_no_fresh_one() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    pass(86_400, 0);
    fill(&mut log, 1);
    drop(log);
    pass(0, -86_400);
    pc.named(&[], "later than the clock of this PC");
}

#[test]
fn an_entry_added_after_the_log_was_closed_is_named_at_once() {
    let pc = Pc::new();
    pc.day(3);
    let mut lines = pc.lines();
    let forged = lines[lines.len() - 2].replace("log-closed", "usb");
    lines.push(forged);
    pc.forge(&lines);
    pc.named(&[], "added from outside");
}

#[derive(Clone, Debug)]
enum Change {
    Delete,
    Double,
    Swap,
    Allow,
    Rename,
    Cut,
    Unsign,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        Just(Change::Delete),
        Just(Change::Double),
        Just(Change::Swap),
        Just(Change::Allow),
        Just(Change::Rename),
        Just(Change::Cut),
        Just(Change::Unsign),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // Shows: P-3, K-5.4.3.
    #[test]
    fn who_makes_the_chain_anew_without_the_key_can_cut_it_off_at_a_checkpoint_and_nothing_else(
        changes in prop::collection::vec((change(), any::<prop::sample::Index>()), 1..4),
    ) {
        let pc = Pc::new();
        let (mut log, _) = pc.open_signing_every(4);
        fill(&mut log, 10);
        log.close().unwrap();
        let head = pc.day(2);
        let before = pc.lines();
        let mut lines = before.clone();
        for (change, at) in &changes {
            let at = at.index(lines.len());
            match change {
                Change::Delete => drop(lines.remove(at)),
                Change::Double => lines.insert(at, lines[at].clone()),
                Change::Swap => lines.swap(at, 0),
                Change::Allow => lines[at] = lines[at].replace("\"deny\"", "\"allow\""),
                Change::Rename => lines[at] = lines[at].replace("\"clinical\"", "\"internet\""),
                Change::Cut => lines.truncate(at.max(1)),
                Change::Unsign => lines.retain(|line| !line.contains("\"kind\":\"checkpoint\"")),
            }
            if lines.is_empty() {
                lines.push(before[0].clone());
            }
        }
        pc.forge(&lines);
        pass(CHECKPOINT_AFTER.as_secs() + 20, 0);
        if let Ok(summary) = pc.verify(&[]) {
            let left = pc.lines();
            prop_assert_eq!(&left[..], &before[..left.len()]);
            prop_assert_eq!(summary.unsigned, 0);
            if left.len() < before.len() {
                prop_assert!(pc.verify(&[head]).is_err());
            }
        }
    }
}
