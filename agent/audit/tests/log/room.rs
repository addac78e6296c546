//! A log that has reached its size, and a disk that has.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use audit::{AuditKey, Limits, Log, LogError, WhenFull};

use crate::{Place, SMALL, event, fill};

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

/// Returns where the log is, in a child that runs the test of this name alone. `None` in the test itself, once the child has ended with 0 and left a log that goes on
/// and holds.
fn in_a_child(test: &str) -> Option<PathBuf> {
    if let Some(dir) = std::env::var_os("AUDIT_NO_ROOM") {
        return Some(PathBuf::from(dir));
    }
    let place = Place::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact"])
        .env("AUDIT_NO_ROOM", place.dir.path())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let (log, recovered) = place.open();
    assert!(recovered.broken.is_none());
    log.close().unwrap();
    place.verify(&[]).unwrap();
    None
}

#[test]
fn what_is_on_the_disk_is_told_to_be_though_the_checkpoint_after_it_is_not() {
    // As below: a child with a limit on the size of files, which lets the entry through that fills a file, and not the checkpoint that closes it.
    let Some(dir) =
        in_a_child("room::what_is_on_the_disk_is_told_to_be_though_the_checkpoint_after_it_is_not")
    else {
        return;
    };
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
    let key = AuditKey::open(&dir.join("audit.key")).unwrap();
    let written = || fs::metadata(dir.join("audit/audit-000000000001.jsonl")).unwrap().len();
    let limits = Limits { file_bytes: 4000, checkpoint_every: 1000, ..SMALL };
    let (mut log, _) = Log::open(&dir.join("audit"), key, limits, "boot").unwrap();
    let opened = written();
    log.append(&[event(1)]).unwrap();
    let one = written() - opened;
    while written() + one < limits.file_bytes {
        log.append(&[event(2)]).unwrap();
    }
    SigSet::from_iter([Signal::SIGXFSZ]).thread_block().unwrap();
    let room = written() + one + 20;
    setrlimit(Resource::RLIMIT_FSIZE, room, room).unwrap();
    let numbers = log.append(&[event(3)]).unwrap();
    assert_eq!(log.head().seq, *numbers.end());
    assert!(matches!(log.append(&[event(4)]), Err(LogError::Failed(_))));
}

#[test]
fn a_disk_without_room_stops_the_log_until_it_is_opened_anew() {
    // A limit on the size of files stands in for the disk; the child ends with 0 if all is as it should be.
    let Some(dir) = in_a_child("room::a_disk_without_room_stops_the_log_until_it_is_opened_anew")
    else {
        return;
    };
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::signal::{SigSet, Signal};
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
