//! Any bytes as a file of an audit log: verified, read, exported, opened and written on.
#![no_main]

use std::fs;

use audit::events::AgentStopped;
use audit::{AuditKey, Limits, Log, each, rfc5424, verify};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("audit");
    fs::create_dir(&log).expect("a log");
    fs::write(log.join("audit-000000000001.jsonl"), data).expect("a file");
    let key = AuditKey::open(&dir.path().join("key")).expect("a key");
    let _ = verify(&log, Some(&key.public()), &[]).expect("it is read");
    each(&log, |_, entry| {
        assert!(!rfc5424(&entry, "pc").contains('\n'));
        Ok(())
    })
    .expect("it is read");
    let (mut log, _) = Log::open(&log, key, Limits::default(), "boot").expect("it is opened");
    log.append(&[AgentStopped {}.into()]).expect("it is written on");
});
