//! Times that somebody changed, and a clock that somebody set.

use std::fs;

use super::{Pc, event, fill, now, pass};

#[test]
fn a_step_of_the_wall_clock_is_an_entry_and_the_log_holds() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    fill(&mut log, 2);
    let before = log.highest_time();
    pass(10, -3600);
    assert!(log.highest_time() >= before, "what has been seen is not forgotten");
    log.append(&[event(1)]).unwrap();
    pass(10, 7200);
    log.append(&[event(2)]).unwrap();
    assert_eq!(log.highest_time(), now());
    // While the agent does not run, too.
    log.close().unwrap();
    pass(10, -86_400);
    let (log, _) = pc.open();
    log.close().unwrap();
    let steps = pc.kinds().iter().filter(|kind| *kind == "clock-step").count();
    let summary = pc.verify(&[]).unwrap();
    assert_eq!((steps, summary.clock_steps), (3, 3));
    let step = pc.lines().into_iter().find(|line| line.contains("clock-step")).unwrap();
    assert!(step.contains("\"seconds\":-3600"), "{step}");
}

#[test]
fn a_log_holds_again_as_soon_as_its_writer_was_told_that_the_clock_was_set() {
    for set in [-3600, 3600] {
        let pc = Pc::new();
        let (mut log, _) = pc.open();
        fill(&mut log, 2);
        assert!(!log.note_step().unwrap(), "it was not set");
        pass(1, set);
        let dated_wrongly = pc.verify(&[]).unwrap_err();
        assert!(dated_wrongly.what.contains("not signed"), "{dated_wrongly}");
        assert!(log.note_step().unwrap());
        let summary = pc.verify(&[]).unwrap();
        assert_eq!((summary.clock_steps, summary.unsigned), (1, 0), "set by {set} s");
        assert!(!log.note_step().unwrap(), "it is known now");
    }
}

#[test]
fn a_long_silence_is_no_step_of_the_clock() {
    let pc = Pc::new();
    let (mut log, _) = pc.open();
    pass(1_000_000, 0);
    log.append(&[event(1)]).unwrap();
    log.close().unwrap();
    assert_eq!(pc.verify(&[]).unwrap().clock_steps, 0);
}

/// A log whose times somebody with the key has changed: the real writer, under a clock that lies.
#[test]
fn times_that_go_back_are_named_even_if_the_key_signed_them() {
    let pc = Pc::new();
    pc.day(2);
    let mut lines = pc.lines();
    // The second is put before the first; the checkpoint at the end is signed anew below.
    lines.swap(2, 3);
    lines.truncate(4);
    pc.forge(&lines);
    fs::remove_file(pc.at("state/audit.head")).unwrap();
    fs::remove_file(pc.at("etc/audit.head")).unwrap();
    let (log, _) = pc.open(); // signs what it finds
    log.close().unwrap();
    pc.named(&[], "never goes back");
    // Only the wall clock of one entry, after which the rest is chained and signed.
    let pc = Pc::new();
    pc.day(2);
    let mut lines = pc.lines();
    lines.truncate(4);
    lines[3] = lines[3].replacen("2026-11-", "2026-10-", 1);
    pc.forge(&lines);
    fs::remove_file(pc.at("state/audit.head")).unwrap();
    fs::remove_file(pc.at("etc/audit.head")).unwrap();
    let (log, _) = pc.open();
    log.close().unwrap();
    pc.named(&[], "no entry says that it was set");
}
