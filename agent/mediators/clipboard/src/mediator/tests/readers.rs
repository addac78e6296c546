//! What a guest's reader says that can be, and that cannot.

use worker_link::clipboard::Event;

use super::world::{A, B, CAPABLE, TEXT, World, allowed, announce, give, grab, pasted};
use crate::mediator::limits::{AGAIN, CHECK_EVERY, PULL_SILENCE, READER_SILENCE, UNREAD_CHECKS};
use crate::mediator::{Hotkey, ReaderFault, Time};

fn announces() -> Event {
    Event::Announce { request: false, capabilities: CAPABLE }
}

fn content(number: u32, length: usize) -> Event {
    Event::Content { number, kind: TEXT, length: u32::try_from(length).unwrap() }
}

/// B's stream is ended, what was to be copied from it is not, and the next stream copies and pastes.
fn only_its_stream_is_lost(mut world: World, what: &str) {
    assert_eq!(world.disconnected.len(), 1, "{what}");
    let (guest, again) = world.disconnected[0];
    assert_eq!((guest, again - world.now), (B, AGAIN.0), "{what}");
    assert!(world.to_record.is_empty() && world.gets(A).is_empty(), "{what}");
    world.connected(B);
    world.sends(B, &announce(true, CAPABLE));
    world.gets(B);
    world.copy_text(B, "goes on");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"goes on", "{what}");
}

// Shows: C-9.
#[test]
fn a_reader_that_says_what_cannot_be_loses_its_guests_stream_and_nothing_crosses() {
    let cases: [(&str, Event); 8] = [
        ("a request that was not made may be made", Event::Ready { number: 2 }),
        ("the request may be made again", Event::Ready { number: 1 }),
        ("no request may be made", Event::Ready { number: 0 }),
        ("content of a request to come", content(2, 4)),
        ("content of no request", content(0, 4)),
        ("content of any request", content(u32::MAX, 4)),
        ("progress of another request", Event::Progress { number: 7 }),
        ("too much of another request", Event::TooLarge { number: 2, bytes: 1 }),
    ];
    for (what, lie) in cases {
        let mut world = allowed();
        world.sends(B, &grab(&[TEXT]));
        world.hotkey(Hotkey::Copy, B);
        world.gets(B);
        world.lies(B, &lie, b"made");
        let words = "Not copied: INTERNET was interrupted; copy it there again.";
        assert_eq!(world.last_words(), words, "{what}");
        world.hotkey(Hotkey::Paste, A);
        assert!(world.last_words().starts_with("Nothing to paste."), "{what}");
        only_its_stream_is_lost(world, what);
    }
}

#[test]
fn a_reader_that_fails_or_ends_again_and_again_is_left_alone_for_longer_until_a_stream_has_lived() {
    for (lie, free) in [(Event::Ready { number: 9 }, 0), (Event::Ended, 1)] {
        let mut world = allowed();
        let pauses = |world: &mut World| -> Vec<u64> {
            let pause = |_| {
                world.lies(B, &announces(), b"");
                world.lies(B, &lie, b"");
                let again = world.disconnected.last().unwrap().1;
                let pause = again - world.now;
                world.wait(pause);
                world.connected(B);
                pause.as_secs()
            };
            (0..9).map(pause).collect()
        };
        let grow = [0, 1, 2, 4, 8, 16, 32, 60, 60, 60];
        let expected = if free == 1 { &grow[..9] } else { &grow[1..] };
        assert_eq!(pauses(&mut world), expected, "{lie:?}");
        world.wait(AGAIN.1);
        assert_eq!(pauses(&mut world), expected, "{lie:?}, after one that lived");
    }
}

#[test]
fn content_is_taken_once_and_only_while_somebody_waits_for_it() {
    let mut world = allowed();
    world.copy_text(B, "the one");
    world.lies(B, &content(1, 5), b"other");
    only_its_stream_is_lost(world, "twice");
    let mut world = allowed();
    world.lies(B, &content(1, 5), b"before any hotkey");
    only_its_stream_is_lost(world, "without a hotkey");
    // What was given up may be on its way, and counts for nothing.
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.wait(PULL_SILENCE);
    world.lies(B, &content(1, 4), b"late");
    assert!(world.disconnected.is_empty());
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."));
}

#[test]
fn a_reader_that_says_nothing_more_is_waited_for_as_long_as_its_guest_would_be() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.readers[B] = None;
    world.hotkey(Hotkey::Copy, B);
    assert!(
        world.gets(B).is_empty(),
        "the guest is not asked before its reader says that it may be"
    );
    world.wait(PULL_SILENCE);
    assert!(world.last_words().starts_with("Not copied: INTERNET does not hand over"));
    assert_eq!(world.disconnected, [(B, world.now)], "and begins anew");
}

#[test]
fn a_reader_makes_up_what_its_guest_could_have_said_and_no_more() {
    let mut world = allowed();
    world.lies(B, &Event::Grab(vec![TEXT]), b"");
    world.hotkey(Hotkey::Copy, B);
    world.gets(B);
    world.lies(B, &content(1, 6), b"made up");
    world.hotkey(Hotkey::Paste, A);
    assert_eq!(world.to_record.len(), 1, "it is judged as if it had been copied there");
    world.record(false);
    assert!(world.gets(A).is_empty(), "and does not cross without its permit");
    // Another's content it gets as its guest would: with what was pasted there, and on the record.
    let mut world = allowed();
    world.lies(B, &Event::Request(TEXT), b"");
    assert!(
        world.gets(B).iter().all(|got| got.content().is_none_or(|(_, bytes)| bytes.is_empty()))
    );
    assert!(!world.noted.iter().any(|event| event.kind == "clipboard-taken"));
}

#[test]
fn a_hotkey_that_overtakes_what_a_reader_says_is_the_one_that_counts() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    let reader = world.readers[B].take();
    // Three hotkeys before the reader has said anything of the first.
    for _ in 0..3 {
        world.hotkey(Hotkey::Copy, B);
    }
    world.readers[B] = reader;
    for number in [1, 2] {
        world.lies(B, &Event::Ready { number }, b"");
        assert!(world.gets(B).is_empty(), "request {number} is not wanted any more");
    }
    world.lies(B, &Event::Ready { number: 3 }, b"");
    assert_eq!(world.gets(B).len(), 1);
    world.lies(B, &content(3, 4), b"this");
    assert!(world.last_words().starts_with("Copied from INTERNET"));
    world.sends(B, &give(TEXT, b"unasked"));
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"this");
}

#[test]
fn a_domain_whose_stream_nothing_reads_says_so_and_works_again_when_something_does() {
    let mut world = allowed();
    world.mediator.reader_missing(B, world.now);
    world.settle();
    world.hotkey(Hotkey::Copy, B);
    assert!(world.last_words().starts_with("INTERNET cannot copy or paste: what reads"));
    only_its_stream_is_lost(world, "none");
}

#[test]
fn a_reader_that_says_nothing_of_what_its_guest_said_is_found_out_and_named_as_what_it_is() {
    let mut world = allowed();
    assert_eq!(world.mediator.check_unread_at(B), None, "its agent was heard");
    world.disconnected(B);
    assert_eq!(world.mediator.check_unread_at(B), None, "there is no stream");
    world.connected(B);
    // Read once in between, its time begins anew.
    for checks in [(0..10).map(|check| check != 9).collect(), vec![true; 11]] {
        let last = checks.len() - 1;
        for (check, unread) in checks.into_iter().enumerate() {
            assert!(world.mediator.check_unread_at(B).is_some_and(|at| world.now >= at));
            let found = world.mediator.checked_unread(B, unread, world.now);
            assert_eq!(found.is_err(), unread && check == last, "check {check}");
            if let Err(fault) = found {
                assert!(matches!(fault, ReaderFault::Silent));
                assert!(fault.to_string().ends_with("for 5 seconds"), "{fault}");
                break;
            }
            assert_eq!(world.mediator.check_unread_at(B), Some(world.now + CHECK_EVERY));
            world.wait(CHECK_EVERY);
        }
    }
    world.mediator.reader_failed(B, world.now);
    world.settle();
    let failed = "INTERNET cannot copy or paste: what reads its clipboard has failed";
    for again in [false, true] {
        if again {
            world.connected(B);
        }
        world.hotkey(Hotkey::Copy, B);
        assert!(world.last_words().starts_with(failed), "{}", world.last_words());
    }
    // One that is heard, and whose guest has no agent, has not.
    world.lies(B, &Event::Ended, b"");
    world.hotkey(Hotkey::Copy, B);
    assert!(world.last_words().contains("no clipboard agent runs there"));
    world.disconnected.pop();
    only_its_stream_is_lost(world, "silent");
}

/// Presses the copy hotkey in B: whether that says that what reads its clipboard has failed; otherwise that no agent runs there.
fn is_said_to_have_failed(world: &mut World) -> bool {
    world.hotkey(Hotkey::Copy, B);
    let words = world.last_words();
    let failed =
        words.starts_with("INTERNET cannot copy or paste: what reads its clipboard has failed");
    assert!(failed || words.contains("no clipboard agent runs there"), "{words}");
    failed
}

#[test]
fn that_a_reader_failed_is_said_no_more_when_its_successor_has_nothing_to_read_or_there_is_no_stream()
 {
    // A successor whose guest says nothing: it has no agent.
    let mut world = unannounced();
    world.mediator.reader_failed(B, world.now);
    world.settle();
    assert!(is_said_to_have_failed(&mut world));
    world.wait(AGAIN.0);
    world.connected(B);
    world.mediator.checked_unread(B, false, world.now).unwrap();
    world.wait(READER_SILENCE - CHECK_EVERY);
    assert!(is_said_to_have_failed(&mut world), "it may hang as well");
    // Something of its guest's lies there: whether it reads that is not known.
    world.mediator.checked_unread(B, true, world.now).unwrap();
    world.wait(CHECK_EVERY);
    assert!(is_said_to_have_failed(&mut world));
    world.mediator.checked_unread(B, false, world.now).unwrap();
    world.wait(READER_SILENCE);
    assert!(!is_said_to_have_failed(&mut world));
    // Its desktop does not run: no stream begins.
    let mut world = unannounced();
    world.mediator.reader_failed(B, world.now);
    world.settle();
    world.wait(READER_SILENCE);
    assert!(is_said_to_have_failed(&mut world), "its pause is hardly over");
    world.wait(AGAIN.0);
    assert!(!is_said_to_have_failed(&mut world));
    // What is said of a guest that has hung up is said all the same.
    let mut world = unannounced();
    world.mediator.reader_failed(B, world.now);
    world.settle();
    world.connected(B);
    world.mediator.hung_up(B, world.now);
    assert!(is_said_to_have_failed(&mut world));
    world.lies(B, &announces(), b"");
    assert!(!is_said_to_have_failed(&mut world));
}

/// B's stream begins, and its agent says nothing of itself.
fn unannounced() -> World {
    let mut world = allowed();
    world.disconnected(B);
    world.connected(B);
    world
}

/// Checks whether bytes of B lie unread, which they do, until its reader is taken for one that hangs or that often.
fn found_after(
    world: &mut World,
    checks: u32,
    mut meanwhile: impl FnMut(&mut World),
) -> Option<u32> {
    for check in 0..checks {
        meanwhile(world);
        assert!(world.mediator.check_unread_at(B).is_some_and(|at| world.now >= at));
        if world.mediator.checked_unread(B, true, world.now).is_err() {
            return Some(check);
        }
        world.wait(CHECK_EVERY);
    }
    None
}

#[test]
fn a_guest_that_floods_and_never_announces_itself_keeps_its_reader_unless_that_hangs() {
    let mut world = unannounced();
    // Content that nobody asked for, of which its reader has nothing to tell: two seconds' worth of its allowance each second.
    let flood = give(TEXT, &[0; 1000]).repeat(64);
    let found = found_after(&mut world, 20 * UNREAD_CHECKS, |world| {
        for _ in 0..4 {
            if world.unread_for(B).is_zero() {
                world.sends(B, &flood);
            }
        }
        assert!(world.unread_for(B) > Time::ZERO, "bytes of it lie unread");
    });
    assert_eq!(found, None);
    assert!(world.disconnected.is_empty());
    world.hotkey(Hotkey::Copy, B);
    assert!(world.last_words().contains("no clipboard agent runs there"), "{}", world.last_words());
    let found = found_after(&mut world, 100, |_| ());
    assert!(found.is_some_and(|check| check <= UNREAD_CHECKS), "it hangs");
    world.mediator.reader_failed(B, world.now);
    world.settle();
    only_its_stream_is_lost(world, "hangs");
}

#[test]
fn a_pc_that_slept_does_not_take_its_readers_for_ones_that_hang() {
    let mut world = unannounced();
    let found = found_after(&mut world, UNREAD_CHECKS, |world| world.wait(Time::from_secs(3600)));
    assert_eq!(found, None);
    assert_eq!(found_after(&mut world, 1, |_| ()), Some(0), "it hangs indeed");
}
