//! A state directory that was put back, deleted or exchanged, a second writer, and a log of the old format.

use std::fs;
use std::path::Path;

use audit::{Limits, Log, PublicKey, RecoveryReport, verify_at};

use super::{BEGIN, NOW, Pc, fill, now};

#[test]
fn a_state_directory_that_went_back_is_found_at_the_next_start_and_stays_in_the_log() {
    let pc = Pc::new();
    let head = pc.day(3);
    let backup = pc.at("backup");
    copy(&pc.at("state"), &backup);
    let later = pc.day(3);
    assert!(later.seq > head.seq);
    fs::remove_dir_all(pc.at("state")).unwrap();
    fs::rename(&backup, pc.at("state")).unwrap();
    // The log itself holds: only somebody who remembers can know.
    pc.verify(&[]).unwrap();
    pc.named(&[later], "the end is missing");
    let (log, recovered) = pc.open();
    let what = recovered.went_back.unwrap();
    assert!(
        what.contains(&format!("ends at entry {}, and there was an entry {}", head.seq, later.seq)),
        "{what}"
    );
    log.close().unwrap();
    pc.named(&[], "the agent remembered a later one");
    // Known now: it is not said again.
    assert_eq!(pc.open().1.went_back, None);
}

#[test]
fn a_state_directory_that_was_deleted_is_found_at_the_next_start() {
    let pc = Pc::new();
    let head = pc.day(3);
    fs::remove_dir_all(pc.at("state")).unwrap();
    let (_log, recovered) = pc.open();
    let what = recovered.went_back.unwrap();
    assert!(what.contains(&format!("it is empty, and there was an entry {}", head.seq)), "{what}");
    assert!(what.contains("the audit key is another one"), "{what}");
    assert!(pc.kinds().contains(&"state-went-back".to_owned()));
}

#[test]
fn what_is_remembered_of_another_log_says_nothing_of_this_one() {
    let pc = Pc::new();
    pc.day(3);
    let other = Pc::new();
    for file in ["state/audit.head", "etc/audit.head"] {
        fs::create_dir_all(other.at(file).parent().unwrap()).unwrap();
        fs::copy(pc.at(file), other.at(file)).unwrap();
    }
    assert_eq!(other.open().1.went_back, None);
}

#[test]
fn a_second_writer_is_refused_and_forks_nothing() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    let second = Log::open(&pc.log(), pc.key(), Limits::default(), "boot-1").unwrap_err();
    assert!(second.to_string().contains("another bulkhead-agent writes the audit log"), "{second}");
    fill(&mut log, 1);
    log.close().unwrap();
    pc.verify(&[]).unwrap();
    pc.open().0.close().unwrap();
}

#[test]
fn who_may_read_the_log_cannot_keep_its_writer_from_it() {
    use std::os::unix::fs::PermissionsExt;
    let pc = Pc::new();
    pc.day(1);
    let reader = fs::File::open(pc.log()).unwrap();
    reader.try_lock().unwrap();
    pc.open().0.close().unwrap();
    let lock = fs::metadata(pc.at("state/audit.lock")).unwrap();
    assert_eq!(lock.permissions().mode() & 0o777, 0o600, "nobody else opens it");
}

#[test]
fn an_old_log_still_verifies_and_goes_on_in_the_new_format_but_nothing_of_the_old_one_follows() {
    let pc = Pc::new();
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format-1");
    copy(&old, &pc.at("state"));
    NOW.set((BEGIN + 10 * 86_400, 100));
    let public = fs::read_to_string(pc.at("state/keys/audit.pub")).unwrap();
    let key = PublicKey::parse(&public).unwrap();
    let verify = || verify_at(&pc.log(), Some(&key), &[], now()).unwrap();
    let summary = verify().unwrap();
    assert_eq!((summary.entries, summary.format_1, summary.unsigned), (24, 24, 0));
    let (log, recovered) = pc.open();
    assert_eq!(recovered, RecoveryReport::default());
    log.close().unwrap();
    let summary = verify().unwrap();
    assert_eq!((summary.entries, summary.format_1), (28, 24));
    // A checkpoint of the old format, which signs less, does not come after.
    let old_line = pc.lines()[22].clone();
    let mut lines = pc.lines();
    lines.push(old_line);
    pc.forge(&lines);
    assert!(verify().is_err());
    // An old log without its checkpoints does not hold either.
    lines.truncate(24);
    lines.retain(|line| !line.contains("\"checkpoint\""));
    pc.forge(&lines);
    assert!(verify().unwrap_err().what.contains("no entry is signed"));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, name) = (entry.as_ref().unwrap().path(), entry.unwrap().file_name());
        if from.is_dir() {
            copy(&from, &to.join(name));
        } else {
            fs::copy(&from, to.join(name)).unwrap();
        }
    }
}
