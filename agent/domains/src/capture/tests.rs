//! What a VMM writes into its log, and what is read of it.

use super::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
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
    assert_eq!(capture.poll(SOON), Output::default());
    assert!(!is_ready(&capture));
    vmm.write_all(b"o\n").unwrap();
    assert!(is_ready(&capture));
    assert_eq!(capture.poll(SOON).lines, ["two"]);
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
    next.poll(SOON);
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
        until_started_over(&mut capture, Time::from_secs(second));
        assert!(fs::metadata(dir.path().join("vmm.log")).unwrap().len() <= FILE_MAX + 1024);
    }
    vmm.write_all(b"still here\n").unwrap();
    assert_eq!(capture.poll(Time::from_secs(4000)).lines, ["still here"]);
}

#[test]
fn no_line_is_lost_when_a_file_starts_over() {
    let (mut capture, mut vmm, _dir) = capture();
    let (mut said, mut started_over) = (Vec::new(), 0);
    for number in 0..3000_u64 {
        writeln!(vmm, "{number:01000}").unwrap();
        let now = Time::from_secs(number);
        said.extend(capture.poll(now).lines);
        if capture.is_starting_over() {
            started_over += 1;
            said.extend(until_started_over(&mut capture, now));
        }
    }
    let numbers: Vec<u64> = said.iter().map(|line| line.parse().unwrap()).collect();
    assert!(started_over >= 2 && numbers == (0..3000).collect::<Vec<_>>(), "{started_over}");
}

#[test]
fn what_nobody_had_read_of_a_file_that_starts_over_is_read_first() {
    let (mut capture, mut vmm, _dir) = capture();
    vmm.set_len(FILE_MAX).unwrap();
    capture.at = FILE_MAX;
    vmm.write_all(b"last ").unwrap();
    assert!(capture.begin_to_start_over(Time::ZERO));
    while capture.length() > 0 {
        thread::sleep(SOON);
    }
    vmm.write_all(b"words\nafter\n").unwrap();
    assert_eq!(until_started_over(&mut capture, Time::ZERO), ["last words", "after"]);
    // Of more than is read in a round the rest is passed over, and said.
    vmm.write_all("flood\n".repeat(200_000).as_bytes()).unwrap();
    assert!(capture.begin_to_start_over(Time::ZERO));
    let mut skipped = 0;
    while capture.is_starting_over() {
        thread::sleep(SOON);
        skipped += capture.poll_rest(Time::ZERO).skipped;
    }
    assert_eq!(skipped, 6 * 200_000 - READ_MAX as u64);
}

/// Polls until the file was emptied, and returns the lines that were read.
fn until_started_over(capture: &mut Capture, mut now: Time) -> Vec<String> {
    let mut lines = Vec::new();
    while capture.is_starting_over() {
        thread::sleep(SOON);
        now += SOON;
        lines.extend(capture.poll(now).lines);
    }
    lines
}

#[test]
fn a_vmm_that_holds_its_file_holds_nobody_up_and_is_named_after_a_second() {
    static MAY_RETURN: AtomicBool = AtomicBool::new(false);
    let (mut capture, mut vmm, dir) = capture();
    capture.truncate = |file| {
        while !MAY_RETURN.load(Ordering::SeqCst) {
            thread::sleep(SOON);
        }
        file.set_len(0)
    };
    vmm.set_len(FILE_MAX).unwrap();
    capture.at = FILE_MAX;
    vmm.write_all(b"before\n").unwrap();
    assert_eq!(capture.poll(Time::ZERO).lines, ["before"]);
    assert!(capture.is_starting_over());
    let mut now = Time::ZERO;
    while capture.is_starting_over() {
        assert!(!capture.is_newly_held_up(), "after {now:?}");
        assert_eq!((capture.deadline(), is_ready(&capture)), (Some(now + SOON), false));
        now += SOON;
        assert_eq!(capture.poll(now), Output::default());
    }
    assert_eq!(now, Time::from_secs(1));
    assert!(capture.is_newly_held_up() && !capture.is_newly_held_up());
    MAY_RETURN.store(true, Ordering::SeqCst);
    while fs::metadata(dir.path().join("vmm.log")).unwrap().len() > 0 {
        thread::sleep(SOON);
    }
    vmm.write_all(b"after\n").unwrap();
    let mut said = Vec::new();
    while said.is_empty() {
        thread::sleep(SOON);
        now += PACE;
        said.extend(capture.poll(now).lines);
    }
    assert_eq!(said, ["after"]);
    assert!(!capture.is_newly_held_up());
}

#[test]
fn a_pc_that_slept_while_a_file_was_being_emptied_blames_nobody() {
    static MAY_RETURN: AtomicBool = AtomicBool::new(false);
    let (mut capture, vmm, _dir) = capture();
    capture.truncate = |_| {
        while !MAY_RETURN.load(Ordering::SeqCst) {
            thread::sleep(SOON);
        }
        Ok(())
    };
    vmm.set_len(FILE_MAX + 1).unwrap();
    capture.poll(Time::ZERO);
    assert!(capture.is_starting_over());
    capture.poll(Time::from_secs(3600));
    assert!(capture.is_starting_over() && !capture.is_newly_held_up());
    MAY_RETURN.store(true, Ordering::SeqCst);
}

#[test]
fn a_file_that_cannot_be_emptied_is_tried_again_and_read_on() {
    let (mut capture, mut vmm, _dir) = capture();
    capture.truncate = |_| Err(io::ErrorKind::PermissionDenied.into());
    vmm.set_len(FILE_MAX).unwrap();
    capture.at = FILE_MAX;
    vmm.write_all(b"one\n").unwrap();
    assert_eq!(capture.poll(Time::ZERO).lines, ["one"]);
    assert_eq!(until_started_over(&mut capture, Time::ZERO), Vec::<String>::new());
    vmm.write_all(b"two\n").unwrap();
    capture.again = None;
    assert_eq!(capture.poll(UNWATCHED / 2).lines, ["two"]);
    assert!(!capture.is_starting_over());
    capture.truncate = |file| file.set_len(0);
    capture.poll(UNWATCHED * 2);
    assert!(capture.is_starting_over());
}

#[test]
fn one_that_writes_single_bytes_wakes_nobody_for_each() {
    let (mut capture, mut vmm, _dir) = capture();
    vmm.write_all(b"x").unwrap();
    capture.poll(Time::ZERO);
    vmm.write_all(b"y\n").unwrap();
    assert!(!is_ready(&capture) && capture.deadline() == Some(SOON));
    assert_eq!(capture.poll(SOON / 2), Output::default());
    // What one said that has ended is not waited for.
    assert_eq!(capture.poll_rest(SOON / 2).lines, ["xy"]);
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
