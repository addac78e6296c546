//! What recording costs: appends with one, 16 and 256 events to a sync, beside a bare write and sync of the same bytes; and how
//! fast a log is verified, and in how much memory. `cargo bench -p bulkhead-audit -- ENTRIES` verifies as many as are said.
#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark stops where the host fails it"
)]

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use audit::events::{ClipboardPaste, Verdict};
use audit::{AuditEvent, AuditKey, Limits, Log, verify};

const TIME: Duration = Duration::from_secs(3);

fn event(bytes: u64) -> AuditEvent {
    ClipboardPaste {
        domain: "clinical".to_owned(),
        verdict: Verdict::Allow,
        rule: Some("reference-text-in".to_owned()),
        policy: 7,
        answer: None,
        break_glass: false,
        bytes,
        from: "internet".to_owned(),
        hits: None,
        inspected: None,
        normalised: None,
        sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".to_owned(),
        to: "clinical".to_owned(),
        r#type: "text/plain".to_owned(),
        unfit: None,
    }
    .into()
}

fn rate(mut turn: impl FnMut() -> u64) -> f64 {
    let (start, mut done) = (Instant::now(), 0);
    while start.elapsed() < TIME {
        done += turn();
    }
    done as f64 / start.elapsed().as_secs_f64()
}

fn main() {
    let entries =
        std::env::args().filter_map(|word| word.parse::<u64>().ok()).next().unwrap_or(1_000_000);
    let dir = tempfile::tempdir_in(".").unwrap();
    let key = AuditKey::open(&dir.path().join("key")).unwrap();
    let public = key.public();
    let (mut log, _) = Log::open(&dir.path().join("log"), key, Limits::default(), "boot").unwrap();
    for batch in [1, 16, 256] {
        let events: Vec<AuditEvent> = (0..batch).map(event).collect();
        let bytes = usize::try_from(batch).unwrap() * 480;
        let mut bare = fs::File::create(dir.path().join("bare")).unwrap();
        let bare_rate = rate(|| {
            bare.write_all(&vec![b'x'; bytes]).unwrap();
            bare.sync_data().unwrap();
            batch
        });
        let own = rate(|| {
            log.append(&events).unwrap();
            batch
        });
        println!(
            "{batch:>4} events a sync: {own:>9.0} events/s; bare write and sync {bare_rate:>9.0}; ratio {:.2}",
            own / bare_rate
        );
    }
    let events: Vec<AuditEvent> = (0..4096).map(event).collect();
    while log.head().seq < entries {
        log.append(&events).unwrap();
    }
    log.close().unwrap();
    let start = Instant::now();
    let summary = verify(&dir.path().join("log"), Some(&public), &[]).unwrap().unwrap();
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "verify: {} entries in {seconds:.1} s, {:.0} entries/s",
        summary.entries,
        summary.entries as f64 / seconds
    );
    let status = fs::read_to_string("/proc/self/status").unwrap();
    for line in status.lines().filter(|line| line.starts_with("VmHWM")) {
        println!("{line}");
    }
}
