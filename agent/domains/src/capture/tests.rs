//! What a VMM writes into its log, and what is read of it.

use super::*;
use std::io::Write;
use std::time::Duration;

fn capture() -> (Capture, File, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let (capture, vmm) = Capture::create(&dir.path().join("vmm.log")).unwrap();
    (capture, vmm, dir)
}

fn is_ready(capture: &Capture) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let Some(fd) = capture.fd() else { return false };
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
}

#[test]
fn lines_are_logged_whole_and_the_last_is_remembered_without_its_newline() {
    let (mut capture, mut vmm, _dir) = capture();
    assert!(!is_ready(&capture));
    vmm.write_all(b"one\ntw").unwrap();
    assert!(is_ready(&capture));
    assert_eq!(capture.poll(Time::ZERO).lines, ["one"]);
    assert!(!is_ready(&capture));
    vmm.write_all(b"o\n").unwrap();
    assert_eq!(capture.poll(Time::ZERO).lines, ["two"]);
    vmm.write_all(b"\nfarewell").unwrap();
    assert_eq!(capture.last_words().as_deref(), Some("farewell"));
}

#[test]
fn what_merely_went_on_is_no_reason_for_a_failure() {
    let (capture, mut vmm, _dir) = capture();
    for (line, is_reason) in [
        ("bulkhead-vmm: cannot open /images/clinical: no such file", true),
        ("2026-11-29T01:55:28.056648Z ERROR the disk failed", true),
        ("2026-11-29T01:55:28.056648Z  WARN the disk is slow", true),
        ("2026-11-29T01:55:28.056648Z  INFO an agent has taken the seat", false),
        ("2026-11-29T01:55:28.056648Z DEBUG", false),
    ] {
        vmm.write_all(format!("{line}\n").as_bytes()).unwrap();
        assert_eq!(capture.last_words().as_deref(), Some(line));
        assert_eq!(capture.reason().as_deref(), is_reason.then_some(line));
    }
}

#[test]
fn a_silent_vmm_does_not_hold_the_agent_up() {
    let (mut capture, _vmm, _dir) = capture();
    assert_eq!(capture.poll(Time::ZERO), Output::default());
    assert_eq!((capture.deadline(), capture.last_words()), (None, None));
}

#[test]
fn the_next_agent_reads_what_was_said_while_there_was_none_and_not_all_that_was_said_before() {
    let (capture, mut vmm, dir) = capture();
    vmm.write_all("before\n".repeat(10_000).as_bytes()).unwrap();
    drop(capture);
    vmm.write_all(b"meanwhile\n").unwrap();
    let mut next = Capture::open(&dir.path().join("vmm.log")).unwrap();
    let lines = next.poll(Time::ZERO).lines;
    assert!(lines.len() < 1000 && lines.iter().all(|line| line == "before" || line == "meanwhile"));
    assert_eq!(next.last_words().as_deref(), Some("meanwhile"));
    vmm.write_all(b"after\n").unwrap();
    assert!(is_ready(&next));
}

#[test]
fn a_file_that_is_too_long_starts_over_and_is_written_on() {
    let (mut capture, mut vmm, dir) = capture();
    let line = [b'x'; 1023];
    for second in 0..3000 {
        vmm.write_all(&line).unwrap();
        vmm.write_all(b"\n").unwrap();
        capture.poll(Time::from_secs(second));
        assert!(fs::metadata(dir.path().join("vmm.log")).unwrap().len() <= FILE_MAX + 1024);
    }
    vmm.write_all(b"still here\n").unwrap();
    assert_eq!(capture.poll(Time::from_secs(4000)).lines, ["still here"]);
}

#[test]
fn a_file_that_grew_while_nobody_read_it_is_cut_and_one_within_bounds_is_not() {
    let (_capture, mut vmm, dir) = capture();
    let path = dir.path().join("vmm.log");
    vmm.write_all(b"a word\n").unwrap();
    assert_eq!(cut(&path).unwrap(), 0);
    vmm.set_len(FILE_MAX + 1).unwrap();
    assert_eq!(cut(&path).unwrap(), FILE_MAX + 1);
    vmm.write_all(b"more\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"more\n");
    assert_eq!(cut(&dir.path().join("vmm.log/x")).unwrap(), 0);
    assert_eq!(cut(&dir.path().join("nothing")).unwrap(), 0);
}

#[test]
fn one_that_says_more_than_is_read_is_passed_over_and_keeps_nobody_awake() {
    let (mut capture, mut vmm, _dir) = capture();
    vmm.write_all("flood\n".repeat(20_000).as_bytes()).unwrap();
    let output = capture.poll(Time::ZERO);
    assert!(output.skipped > 0, "{}", output.skipped);
    vmm.write_all(b"d\nflood\n").unwrap();
    assert!(!is_ready(&capture) && capture.deadline() == Some(PACE));
    assert_eq!(capture.poll(PACE / 2), Output::default());
    // The rest of a line whose beginning was passed over is none.
    let output = capture.poll(Duration::from_secs(60));
    assert_eq!(output.lines, ["flood"]);
}

#[test]
fn a_line_without_end_is_cut() {
    let mut lines = Lines::default();
    let mut out = VecDeque::new();
    lines.push(&vec![b'x'; 10 * LINE_MAX], &mut out);
    lines.push(b"\nnext\n", &mut out);
    assert_eq!(out.iter().map(String::len).collect::<Vec<_>>(), [LINE_MAX, 4]);
}

#[test]
fn a_flood_is_dropped_and_counted_and_later_lines_get_through_again() {
    let (mut capture, mut vmm, _dir) = capture();
    vmm.write_all("flood\n".repeat(500).as_bytes()).unwrap();
    assert_eq!(capture.poll(Time::ZERO).lines.len(), LINES.burst as usize);
    vmm.write_all(b"after\n").unwrap();
    let output = capture.poll(Duration::from_secs(1));
    assert_eq!((output.lines, output.dropped), (vec!["after".to_owned()], 300));
}

#[test]
fn a_vmm_says_what_it_has_to_say_though_nobody_reads_it() {
    let (capture, vmm, dir) = capture();
    let log = logging::LineSink::new(logging::Outlet::new(&vmm).unwrap());
    drop(capture);
    log.write(b"nobody is there\n");
    assert_eq!(log.dropped(), 0);
    let next = Capture::open(&dir.path().join("vmm.log")).unwrap();
    assert_eq!(next.last_words().as_deref(), Some("nobody is there"));
}

#[test]
fn escape_sequences_and_bidirectional_characters_do_not_reach_the_log() {
    assert_eq!(clean(b"\x1b[31mred\r"), "\\u{1b}[31mred");
    assert_eq!(clean("a\u{202e}b".as_bytes()), "a\\u{202e}b");
    assert_eq!(clean("임상 ward".as_bytes()), "임상 ward");
    assert_eq!(clean(&[0xff, b'x']), "\u{fffd}x");
}
