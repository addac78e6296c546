//! A domain whose VMM does with its log what it likes.

use std::io::{PipeWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use clock::Moment;

use super::super::super::process::VmmProcess;
use super::super::health::tests::Ward;
use super::*;

/// Longest log, and one byte.
const TOO_LONG: u64 = (1 << 20) + 1;
const TICK: Duration = Duration::from_millis(5);

impl Ward {
    /// Has a VMM run that is this script, and whose log is too long and emptied by this function.
    fn running(
        script: &str,
        truncate: fn(&std::fs::File) -> std::io::Result<()>,
    ) -> (Self, PipeWriter) {
        let mut ward = Self::new();
        let path = ward.shared.parts.layout.vmm_log("clinical");
        let (capture, log) = Capture::create(&path).unwrap();
        log.set_len(TOO_LONG - 1).unwrap();
        (&log).write_all(b"\n").unwrap();
        let arguments = ["-c".into(), script.into()];
        let (vmm, input) = VmmProcess::start(Path::new("/bin/sh"), &arguments, log).unwrap();
        ward.runtime.feed(&mut ward.shared, Event::Found { answered: true });
        (ward.runtime.vmm, ward.runtime.capture) = (Some(vmm), Some(capture.emptied_by(truncate)));
        (ward, input)
    }

    #[track_caller]
    fn come_round_until(&mut self, holds: impl Fn(&DomainRuntime) -> bool) {
        let until = Moment::now() + Duration::from_secs(60);
        while !holds(&self.runtime) {
            assert!(Moment::now() < until, "it has not come about in a minute");
            self.runtime.process_events(&mut self.shared);
            thread::sleep(TICK);
        }
    }
}

#[test]
fn a_vmm_that_holds_its_log_is_killed_and_started_again_and_nobody_waits_for_it() {
    static RETURNED: AtomicBool = AtomicBool::new(false);
    let truncate = |_: &std::fs::File| {
        thread::sleep(Duration::from_secs(30));
        RETURNED.store(true, Ordering::SeqCst);
        Ok(())
    };
    let (mut ward, _input) = Ward::running("read line", truncate);
    let begun = Moment::now();
    ward.come_round_until(|runtime| matches!(runtime.lifecycle.state(), State::Backoff { .. }));
    assert!(begun.elapsed() >= Duration::from_secs(1) && !RETURNED.load(Ordering::SeqCst));
    assert_eq!(ward.runtime.lifecycle.problem(), Some(HOLDS_ITS_LOG));
    assert!(ward.runtime.vmm.is_none() && ward.runtime.lifecycle.wanted());
}

#[test]
fn one_that_is_being_stopped_is_not_given_its_guests_time_for_it() {
    let truncate = |_: &std::fs::File| {
        thread::sleep(Duration::from_secs(30));
        Ok(())
    };
    let (mut ward, _input) = Ward::running("trap '' TERM; while :; do read line; done", truncate);
    ward.runtime.lifecycle.handle(ward.shared.now(), Event::Stop { now: false });
    assert!(matches!(ward.runtime.lifecycle.state(), State::Stopping(_)));
    // No tick is due before its deadline.
    let until = Moment::now() + Duration::from_secs(60);
    while ward.runtime.vmm.is_some() {
        assert!(Moment::now() < until, "it is not killed");
        ward.runtime.log_output(&ward.shared);
        ward.runtime.end_if_it_holds_its_log(&mut ward.shared);
        ward.runtime.reap(&mut ward.shared);
        thread::sleep(TICK);
    }
}

#[test]
fn how_a_vmm_ended_is_known_though_its_log_was_being_started_over() {
    static MAY_RETURN: AtomicBool = AtomicBool::new(false);
    let truncate = |file: &std::fs::File| {
        while !MAY_RETURN.load(Ordering::SeqCst) {
            thread::sleep(TICK);
        }
        file.set_len(0)
    };
    let script = "read line; echo the disk is gone >&2; exit 1";
    let (mut ward, input) = Ward::running(script, truncate);
    ward.runtime.log_output(&ward.shared);
    assert!(ward.runtime.is_log_starting_over());
    drop(input);
    while ward.runtime.vmm.as_ref().unwrap().is_alive() {
        thread::sleep(TICK);
    }
    ward.runtime.reap(&mut ward.shared);
    assert!(ward.runtime.vmm.is_some(), "what it said last may be in what is not read yet");
    MAY_RETURN.store(true, Ordering::SeqCst);
    ward.come_round_until(|runtime| runtime.vmm.is_none());
    let problem = ward.runtime.lifecycle.problem().unwrap();
    assert!(problem.contains("status 1"), "{problem}");
}
