//! What is promised of the log: nothing that was told to be written is lost, and nothing is changed unseen.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use audit::{
    AuditKey, Break, Entry, Event, Filter, Follower, Head, LINE_MAX, Limits, Log, LogError,
    PublicKey, Recovered, Summary, WhenFull, each, rfc5424, verify,
};
use proptest::prelude::*;

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

    fn open_with(&self, limits: Limits) -> (Log, Recovered) {
        Log::open(&self.log(), self.key(), limits, "boot-1").unwrap()
    }

    fn open(&self) -> (Log, Recovered) {
        self.open_with(SMALL)
    }

    fn verify(&self, heads: &[Head]) -> Result<Summary, Break> {
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

    /// What who reads it sees of what is wrong.
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

#[test]
fn what_is_asked_for_by_domain_is_what_came_into_it_and_what_left_it_too() {
    let place = Place::new();
    let (mut log, _) = place.open();
    let crossed =
        |from: &str, to: &str| Event::new("clipboard").of(to).with("from", from).with("to", to);
    let state = Event::new("domain").of("internet").with("from", "off").with("to", "clinical");
    let switched = Event::new("seat-switched").of("internet").with("from", "clinical");
    let by_hand = Event::new("usb").with("to", "clinical");
    let events = [
        crossed("clinical", "internet"),
        crossed("internet", "clinical"),
        crossed("internet", "other"),
        state,
        switched,
        by_hand,
    ];
    let seqs = log.append(&events).unwrap();
    log.close().unwrap();
    let filter = Filter { domain: Some("clinical".to_owned()), ..Filter::default() };
    let entries = place.entries();
    let wanted = entries.iter().filter(|entry| filter.wants(entry)).map(|entry| entry.seq);
    let wanted: Vec<_> = wanted.map(|seq| seq - seqs.start()).collect();
    // The state of a domain that is called like another domain is none of that one's.
    assert_eq!(wanted, [0, 1, 4, 5]);
}

fn event(number: u64) -> Event {
    Event {
        verdict: Some("deny"),
        rule: Some("rule \"one\"".to_owned()),
        policy: Some(7),
        ..Event::new("clipboard").of("clinical").with("bytes", number).with("text", "한글 \n ] \\")
    }
}

fn fill(log: &mut Log, from: u64, count: u64) {
    for number in from..from + count {
        log.append(&[event(number)]).unwrap();
    }
}

fn filled(entries: u64) -> (Place, Head) {
    let place = Place::new();
    let (mut log, recovered) = place.open();
    assert_eq!(recovered, Recovered::default());
    fill(&mut log, 0, entries);
    let head = log.close().unwrap();
    (place, head)
}

#[test]
fn a_log_over_several_files_and_starts_holds() {
    let (place, head) = filled(40);
    let (mut log, recovered) = place.open();
    assert_eq!(recovered, Recovered::default());
    log.append(&[event(1), event(2)]).unwrap();
    let later = log.close().unwrap();
    assert!(place.files().len() > 3);
    let summary = place.verify(&[head, later]).unwrap();
    assert_eq!((summary.first, summary.unsigned, summary.head), (1, 0, later));
    assert_eq!(summary.entries, later.seq);
    let entries = place.entries();
    assert!(entries.iter().map(|entry| entry.seq).eq(1..=later.seq));
    assert_eq!(entries[2].detail["text"], "한글 \n ] \\");
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

// Shows: K-5.4.3.
#[test]
fn full_the_log_stops_and_nothing_is_lost() {
    let place = Place::new();
    let (mut log, _) = place.open_with(Limits { total_bytes: 6000, ..SMALL });
    let full = loop {
        if let Err(error) = log.append(&[event(1)]) {
            break error;
        }
    };
    assert!(matches!(full, LogError::Full(6000)) && full.to_string().contains("raise the limit"));
    assert!(log.append(&[event(1)]).is_err());
    log.close().unwrap();
    assert_eq!(place.verify(&[]).unwrap().first, 1);
}

#[test]
fn the_oldest_goes_where_that_was_chosen_and_the_log_says_so() {
    let place = Place::new();
    let limits = Limits { total_bytes: 6000, when_full: WhenFull::DropOldest, ..SMALL };
    let (mut log, _) = place.open_with(limits);
    fill(&mut log, 0, 200);
    log.close().unwrap();
    let bytes: u64 = place.files().iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= 6000 + 2000, "{bytes}");
    let summary = place.verify(&[]).unwrap();
    assert!(summary.first > 100);
    assert_eq!(place.flaws(), None);
    // One file more than is recorded is one too many.
    fs::remove_file(&place.files()[0]).unwrap();
    assert!(place.verify(&[]).unwrap_err().what.contains("no entry says that they were dropped"));
}

#[test]
fn what_is_old_enough_goes_first_even_if_the_log_would_rather_stop() {
    let place = Place::new();
    let limits = Limits { total_bytes: 6000, keep_for: Duration::ZERO, ..SMALL };
    let (mut log, _) = place.open_with(limits);
    fill(&mut log, 0, 100);
    log.close().unwrap();
    assert!(place.verify(&[]).unwrap().first > 1);
}

#[test]
fn an_event_too_long_is_refused_and_harms_nothing() {
    let place = Place::new();
    let (mut log, _) = place.open();
    let long = Event::new("clipboard").with("text", "x".repeat(LINE_MAX));
    assert!(matches!(log.append(&[long]), Err(LogError::TooLong("clipboard"))));
    log.append(&[event(1)]).unwrap();
    log.close().unwrap();
    place.verify(&[]).unwrap();
}

// Shows: I-2.
#[test]
fn syslog_lines_are_escaped_and_filters_hold() {
    let (place, _) = filled(3);
    let entries = place.entries();
    let line = rfc5424(&entries[2], "ward pc");
    assert!(
        line.starts_with("<108>1 20")
            && line.contains(" wardpc bulkhead-agent - clipboard [bulkhead@32473 seq=\"3\""),
        "{line}"
    );
    assert!(
        line.contains("rule=\"rule \\\"one\\\"\"") && line.contains("text=\"한글   \\] \\\\\""),
        "{line}"
    );
    assert!(!line.contains('\n') && line.ends_with(']'));
    let wants = |filter: Filter| entries.iter().filter(|entry| filter.wants(entry)).count();
    let first = entries[0].wall().unwrap();
    let later = entries.last().unwrap().wall().unwrap() + Duration::from_micros(1);
    let between = |since, until| wants(Filter { since, until, ..Filter::default() });
    assert_eq!(between(Some(first), Some(later)), entries.len());
    assert_eq!(between(Some(later), None), 0);
    assert_eq!(between(None, Some(first)), 0);
    assert_eq!(
        wants(Filter {
            kind: Some("clipboard".to_owned()),
            verdict: Some("deny".to_owned()),
            ..Filter::default()
        }),
        3
    );
    assert_eq!(wants(Filter { domain: Some("internet".to_owned()), ..Filter::default() }), 0);
}

#[test]
fn nothing_of_an_entry_begins_a_syslog_line_of_its_own_or_steers_a_terminal() {
    let (place, _) = filled(1);
    let whole = place.entries().pop().unwrap();
    let evil = "2026\u{1b}[2J\n<0>1 - ward bulkhead-agent - all-is-well -";
    type Change = fn(&mut Entry, String);
    let changes: [Change; 8] = [
        |entry, text| entry.time = text,
        |entry, text| entry.boot = text,
        |entry, text| entry.kind = text,
        |entry, text| entry.domain = Some(text),
        |entry, text| entry.verdict = Some(text),
        |entry, text| entry.rule = Some(text),
        |entry, text| entry.detail = [(text.clone(), text.into())].into(),
        |entry, text| entry.detail = [("more".to_owned(), vec![text].into())].into(),
    ];
    for change in changes {
        let mut entry = whole.clone();
        change(&mut entry, evil.to_owned());
        let line = rfc5424(&entry, evil);
        assert!(!line.contains(|c: char| c.is_control()), "{line:?}");
    }
}

#[derive(Clone, Debug)]
enum Tampering {
    Flip(u8),
    Delete,
    Swap,
    Double,
    Insert,
    Cut,
    LoseFile,
}

fn tampering() -> impl Strategy<Value = Tampering> {
    prop_oneof![
        (0..8u8).prop_map(Tampering::Flip),
        Just(Tampering::Delete),
        Just(Tampering::Swap),
        Just(Tampering::Double),
        Just(Tampering::Insert),
        Just(Tampering::Cut),
        Just(Tampering::LoseFile),
    ]
}

/// Changes the files; `false` if that came out as no change.
fn tamper(place: &Place, tampering: &Tampering, at: prop::sample::Index) -> bool {
    let files = place.files();
    let path = &files[at.index(files.len())];
    let before = fs::read(path).unwrap();
    let mut bytes = before.clone();
    let mut lines: Vec<Vec<u8>> =
        before.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let line = at.index(lines.len());
    match tampering {
        Tampering::Flip(bit) => bytes[at.index(before.len())] ^= 1 << bit,
        Tampering::Cut => bytes.truncate(at.index(before.len())),
        Tampering::LoseFile => {
            fs::remove_file(path).unwrap();
            return true;
        }
        Tampering::Delete => drop(lines.remove(line)),
        Tampering::Swap => lines.swap(line, 0),
        Tampering::Double => lines.insert(line, lines[line].clone()),
        Tampering::Insert => lines.insert(line, b"{}\n".to_vec()),
    }
    if !matches!(tampering, Tampering::Flip(_) | Tampering::Cut) {
        bytes = lines.concat();
    }
    fs::write(path, &bytes).unwrap();
    bytes != before
}

#[test]
fn a_directory_without_a_log_is_not_an_empty_log() {
    let place = Place::new();
    fs::create_dir_all(place.log()).unwrap();
    let error = each(&place.log(), |_, _| Ok(())).unwrap_err();
    assert!(error.to_string().contains("the log is missing"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    // Shows: P-3, K-3.1.2, K-5.4.3.
    #[test]
    fn whatever_is_done_to_a_log_is_found(tampering in tampering(), at in any::<prop::sample::Index>()) {
        let (place, head) = filled(23);
        prop_assert!(place.verify(&[head]).is_ok());
        prop_assert_eq!(place.flaws(), None);
        if tamper(&place, &tampering, at) {
            // Who only reads it, without a key, sees it too, as long as the head beside it was left.
            prop_assert!(place.flaws().is_some());
            // With nothing but what was kept off the PC: key and head. A head beside the log says nothing of it.
            let key = place.key().public();
            fs::write(place.log().join("head"), format!("bulkhead-audit-head:0:{:064}", 0)).unwrap();
            prop_assert!(verify(&place.log(), Some(&key), &[head]).unwrap().is_err());
        }
    }

    #[test]
    fn arbitrary_files_are_read_to_the_end(bytes in prop::collection::vec(any::<u8>(), 0..3000), good in any::<bool>()) {
        let place = if good { filled(3).0 } else { Place::new() };
        fs::create_dir_all(place.log()).unwrap();
        let path = place.log().join("audit-000000000005.jsonl");
        fs::write(&path, &bytes).unwrap();
        let _ = place.verify(&[]);
        let _ = place.entries();
        let (mut log, _) = place.open();
        log.append(&[event(1)]).unwrap();
    }
}

/// Not a test: appends until it is killed, and prints what was told to be written.
#[test]
#[ignore = "the process that the next test kills"]
fn appends_until_killed() {
    let Some(dir) = std::env::var_os("AUDIT_PLACE") else { return };
    let dir = Path::new(&dir);
    let key = AuditKey::open(&dir.join("audit.key")).unwrap();
    let (mut log, _) = Log::open(&dir.join("audit"), key, SMALL, "boot").unwrap();
    for number in 0.. {
        let events: Vec<Event> = (0..number % 4 + 1).map(event).collect();
        let written = log.append(&events).unwrap();
        println!("WRITTEN {}", written.end());
    }
}

// Shows: K-5.4.2.
#[test]
fn kill_9_at_any_moment_loses_nothing_that_was_told_to_be_written() {
    let kills =
        std::env::var("AUDIT_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(40);
    let place = Place::new();
    let (mut torn, mut seed) = (0, 0x2545_f491_4f6c_dd1d_u64);
    for round in 0..kills {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["appends_until_killed", "--exact", "--ignored", "--nocapture"])
            .env("AUDIT_PLACE", place.dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || {
            let told = |line: String| line.split("WRITTEN ").nth(1)?.trim().parse::<u64>().ok();
            stdout.lines().map_while(Result::ok).filter_map(told).last()
        });
        std::thread::sleep(Duration::from_micros(5_000 + seed % 20_000));
        child.kill().unwrap();
        child.wait().unwrap();
        let told = reader.join().unwrap().unwrap_or(0);
        let (log, recovered) = place.open();
        assert_eq!(recovered.broken, None, "round {round}");
        torn += u64::from(recovered.torn.is_some());
        let there = log.close().unwrap().seq;
        assert!(
            there >= told,
            "round {round}: entry {told} was told to be written, the log ends at {there}"
        );
    }
    let summary = place.verify(&[]).unwrap();
    println!("{kills} kills, {torn} torn tails, {} entries", summary.entries);
}

#[test]
fn a_disk_without_room_stops_the_log_until_it_is_opened_anew() {
    // A limit on the size of files stands in for the disk; the child ends with 0 if all is as it should be.
    if std::env::var_os("AUDIT_NO_ROOM").is_none() {
        let place = Place::new();
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["a_disk_without_room_stops_the_log_until_it_is_opened_anew", "--exact"])
            .env("AUDIT_NO_ROOM", place.dir.path())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        let (log, recovered) = place.open();
        assert!(recovered.broken.is_none());
        log.close().unwrap();
        place.verify(&[]).unwrap();
        return;
    }
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    let dir = PathBuf::from(std::env::var_os("AUDIT_NO_ROOM").unwrap());
    let key = AuditKey::open(&dir.join("audit.key")).unwrap();
    let limits = Limits { file_bytes: 1 << 20, ..SMALL };
    let (mut log, _) = Log::open(&dir.join("audit"), key, limits, "boot").unwrap();
    log.append(&[event(1)]).unwrap();
    // Blocked, the signal leaves it to the system call to say what is wrong.
    SigSet::from_iter([Signal::SIGXFSZ]).thread_block().unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 4000, 4000).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let failed = loop {
        assert!(Instant::now() < until);
        if let Err(error) = log.append(&[event(2)]) {
            break error;
        }
    };
    assert!(matches!(failed, LogError::Write { .. }) && failed.to_string().contains("has room"));
    assert!(
        matches!(log.append(&[event(3)]), Err(LogError::Failed(why)) if why.contains("File too large"))
    );
}
