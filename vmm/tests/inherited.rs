//! What a VMM was started with, and nobody meant to give it. Needs no `/dev/kvm`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Much longer than a start takes, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// It waits for its specification, in a descriptor that stays: everything else must be closed by then.
#[test]
fn a_descriptor_that_was_left_open_by_who_started_the_vmm_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "the other patient's").unwrap();
    for specification in [0, 5] {
        let mut vmm = Command::new("sh")
            .arg("-c")
            .arg(r#"exec 5<&0 7<"$2" 3<"$2" 9<"$2"; exec "$0" run --spec-fd "$1""#)
            .arg(env!("CARGO_BIN_EXE_bulkhead-vmm"))
            .arg(specification.to_string())
            .arg(&secret)
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (program, started) = (format!("/proc/{}/exe", vmm.id()), Instant::now());
        let held = || {
            let files = std::fs::read_dir(format!("/proc/{}/fd", vmm.id())).unwrap();
            let targets = files.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
            targets.filter(|target| *target == secret).count()
        };
        while !std::fs::read_link(&program).unwrap().ends_with("bulkhead-vmm") || held() > 0 {
            assert!(started.elapsed() < SOON, "{} descriptors are still open", held());
            std::thread::sleep(Duration::from_millis(5));
        }
        // Its specification is read all the same: what is none is said.
        drop(vmm.stdin.take());
        assert_eq!(vmm.wait().unwrap().code(), Some(1));
    }
}
