//! What is promised to who follows a log while it is written: every entry once, and to be told if it is the same log no longer.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use audit::events::AgentStopped;
use audit::{AuditKey, Follower, Limits, Log, WhenFull};

struct Place(tempfile::TempDir);

impl Place {
    /// Makes a log, a follower that has read all of it, and the last file.
    fn new(entries: usize) -> (Self, Log, Follower, PathBuf) {
        let place = Self(tempfile::tempdir().unwrap());
        let mut log = place.open();
        for _ in 0..entries {
            log.append(&[AgentStopped {}.into()]).unwrap();
        }
        let mut follower = Follower::open(&place.log()).unwrap();
        look(&mut follower).unwrap();
        let last = place.files().pop().unwrap();
        (place, log, follower, last)
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("audit")
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(self.log()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        files
    }

    fn open(&self) -> Log {
        self.open_with(8000)
    }

    fn open_with(&self, total_bytes: u64) -> Log {
        let key = AuditKey::open(&self.0.path().join("audit.key")).unwrap();
        let limits = Limits {
            file_bytes: 2000,
            total_bytes,
            keep_for: Duration::from_secs(3600),
            when_full: WhenFull::DropOldest,
            checkpoint_every: 5,
        };
        Log::open(&self.log(), key, limits, "boot-1").unwrap().0
    }
}

fn look(follower: &mut Follower) -> Result<Vec<u64>, String> {
    let mut seen = Vec::new();
    let done = follower.each_new(|_, entry| {
        seen.push(entry.seq);
        Ok(())
    });
    done.map(|()| seen).map_err(|error| error.to_string())
}

fn told(follower: &mut Follower, words: &str) {
    for _ in 0..2 {
        let told = look(follower).unwrap_err();
        assert!(told.contains(words) && told.contains("bulkhead audit verify"), "{told}");
    }
}

fn remove_files(log: &Path) {
    for entry in fs::read_dir(log).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

#[test]
fn who_follows_a_log_gets_every_entry_once_whatever_file_it_goes_on_in() {
    let place = Place(tempfile::tempdir().unwrap());
    let mut log = place.open_with(1 << 30);
    let mut follower = Follower::open(&place.log()).unwrap();
    let mut seen: Vec<u64> = Vec::new();
    let mut look = |seen: &mut Vec<u64>| {
        follower
            .each_new(|_, entry| {
                seen.push(entry.seq);
                Ok(())
            })
            .unwrap();
    };
    for round in 0..60 {
        log.append(&[AgentStopped {}.into()]).unwrap();
        if round % 7 == 0 {
            look(&mut seen);
            assert_eq!(*seen.last().unwrap(), log.head().seq, "it is there at once");
        }
    }
    // A line of which only the beginning is there is waited for.
    let last = place.files().pop().unwrap();
    let whole = fs::read(&last).unwrap();
    let head = log.close().unwrap();
    look(&mut seen);
    assert!(place.files().len() > 3);
    assert_eq!(seen, (1..=head.seq).collect::<Vec<_>>());
    let other = tempfile::tempdir().unwrap();
    let file = other.path().join("audit-000000000001.jsonl");
    fs::write(&file, &whole[..whole.len() - 9]).unwrap();
    let mut follower = Follower::open(other.path()).unwrap();
    let mut count = 0;
    let mut look = |count: &mut usize| {
        follower
            .each_new(|_, _| {
                *count += 1;
                Ok(())
            })
            .unwrap();
        *count
    };
    let lines = whole.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(look(&mut count), lines - 1);
    fs::write(&file, &whole).unwrap();
    assert_eq!(look(&mut count), lines);
}

#[test]
fn who_follows_a_log_that_is_emptied_is_told_so_after_the_last_entry_that_was_written() {
    let (place, mut log, mut follower, _) = Place::new(20);
    log.append(&[AgentStopped {}.into()]).unwrap();
    let last = log.head().seq;
    remove_files(&place.log());
    let mut seen = Vec::new();
    let emptied = follower.each_new(|_, entry| {
        seen.push(entry.seq);
        Ok(())
    });
    assert!(emptied.is_err());
    assert_eq!(seen.last(), Some(&last), "what was written is still shown");
    told(&mut follower, "is gone");
}

#[test]
fn who_follows_a_log_that_begins_anew_or_is_put_back_is_told_so() {
    let (place, log, mut follower, _) = Place::new(20);
    drop(log);
    remove_files(&place.log());
    drop(place.open());
    told(&mut follower, "is gone, and there is no newer one");

    // In a log of one file, the new one has the same name.
    let (place, log, mut follower, file) = Place::new(1);
    drop(log);
    let before = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, before).unwrap();
    told(&mut follower, "another file");
    drop(place);
}

#[test]
fn who_follows_a_log_whose_end_is_cut_off_is_told_so() {
    let (_place, _log, mut follower, file) = Place::new(20);
    let whole = fs::metadata(&file).unwrap().len();
    File::options().write(true).open(&file).unwrap().set_len(whole - 1).unwrap();
    told(&mut follower, "is shorter");
}

#[test]
fn a_torn_line_that_is_put_aside_and_files_that_are_dropped_to_make_room_are_no_other_log() {
    let (place, log, mut follower, file) = Place::new(3);
    drop(log);
    File::options().append(true).open(&file).unwrap().write_all(b"{\"seq\":99,\"ti").unwrap();
    assert_eq!(look(&mut follower), Ok(Vec::new()));
    let mut log = place.open();
    let seen = look(&mut follower).unwrap();
    let seen = [seen, look(&mut follower).unwrap()].concat();
    assert_eq!(seen.last(), Some(&log.head().seq), "what came in its place is shown");
    for _ in 0..100 {
        log.append(&[AgentStopped {}.into()]).unwrap();
    }
    assert!(!file.exists(), "it was dropped");
    assert_eq!(look(&mut follower).unwrap().last(), Some(&log.head().seq));
}
