//! What agent/fuzz calls.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "a fuzz target stops where it has found something"
)]

use std::fs;

use crate::events::AgentStopped;
use crate::{AuditKey, Limits, Log, each, rfc5424, verify};

/// Takes any bytes as a file of an audit log, which is verified, read, exported, opened and written on.
pub fn log(data: &[u8]) {
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
}
