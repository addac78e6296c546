//! A writer that is killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use audit::{AuditEvent, AuditKey, Log};

use crate::{Place, SMALL, event};

/// Not a test: appends until it is killed, and prints what was told to be written.
#[test]
#[ignore = "the process that the next test kills"]
fn appends_until_killed() {
    let Some(dir) = std::env::var_os("AUDIT_PLACE") else { return };
    let dir = Path::new(&dir);
    let key = AuditKey::open(&dir.join("audit.key")).unwrap();
    let (mut log, _) = Log::open(&dir.join("audit"), key, SMALL, "boot").unwrap();
    for number in 0.. {
        let events: Vec<AuditEvent> = (0..number % 4 + 1).map(event).collect();
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
            .args(["killed::appends_until_killed", "--exact", "--ignored", "--nocapture"])
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
