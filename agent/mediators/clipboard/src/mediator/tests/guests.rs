//! What the mediator makes of guests' agents: slow ones, silent ones, old ones, none.

use super::world::{
    A, B, CAPABLE, TEXT, World, allowed, announce, give, grab, message, pasted, policy, rule, words,
};
use crate::mediator::Hotkey;
use crate::mediator::limits::{HELD_MAX, PULL_SILENCE};
use crate::vdagent::spec::{capability, content, kind};

#[test]
fn a_guest_whose_lines_end_with_crlf_gets_them_so() {
    let mut world = allowed();
    world.sends(A, &announce(true, CAPABLE | 1 << capability::GUEST_LINEEND_CRLF));
    world.copy_text(B, "a\nb");
    world.hotkey(Hotkey::Paste, A);
    assert_eq!(world.record(true).detail["bytes"], 3);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"a\r\nb");
}

#[test]
fn a_copy_that_fails_leaves_nothing_of_the_one_before() {
    let mut world = allowed();
    world.copy_text(B, "yesterday's patient");
    world.sends(B, &grab(&[]));
    world.hotkey(Hotkey::Copy, B);
    assert!(world.last_words().starts_with("Nothing is copied in INTERNET."));
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."));
}

#[test]
fn a_paste_that_comes_before_the_copy_is_complete_waits_for_it() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.hotkey(Hotkey::Paste, A);
    assert!(world.said.is_empty() && world.to_record.is_empty());
    world.sends(B, &give(TEXT, b"quick"));
    world.record(true);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"quick");
}

#[test]
fn a_guest_that_hands_nothing_over_is_given_up_and_what_comes_late_is_dropped() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.wait(PULL_SILENCE);
    assert!(world.last_words().starts_with("Not copied: INTERNET does not hand over"));
    world.sends(B, &give(TEXT, b"late"));
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."));
}

#[test]
fn a_late_answer_to_the_first_copy_is_never_taken_for_the_second() {
    for given_up in [true, false] {
        let mut world = allowed();
        world.sends(B, &grab(&[TEXT]));
        world.hotkey(Hotkey::Copy, B);
        assert_eq!(world.gets(B).len(), 1, "one request");
        if given_up {
            world.wait(PULL_SILENCE);
        }
        // The next patient is copied while the first answer is still due.
        world.sends(B, &grab(&[TEXT]));
        world.hotkey(Hotkey::Copy, B);
        assert!(world.gets(B).is_empty(), "nothing is asked before the first answer came");
        world.sends(B, &give(TEXT, b"the previous patient"));
        let asked = world.gets(B);
        assert_eq!(asked.len(), 1, "then it is");
        assert_eq!((asked[0].kind, asked[0].word()), (kind::CLIPBOARD_REQUEST, TEXT));
        world.hotkey(Hotkey::Paste, A);
        assert!(world.to_record.is_empty(), "and only its answer is pasted");
        world.sends(B, &give(TEXT, b"this patient"));
        world.record(true);
        world.gets(A);
        assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"this patient");
    }
}

#[test]
fn a_guest_that_owes_an_answer_for_ever_is_connected_anew() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.wait(PULL_SILENCE);
    world.hotkey(Hotkey::Copy, B);
    // Pressing again does not put it off.
    world.wait(PULL_SILENCE / 2);
    world.hotkey(Hotkey::Copy, B);
    world.wait(PULL_SILENCE / 2);
    assert!(world.last_words().starts_with("Not copied: INTERNET does not hand over"));
    assert_eq!(world.disconnected, [(B, world.now)]);
    world.connected(B);
    world.sends(B, &announce(true, CAPABLE));
    world.gets(B);
    world.copy_text(B, "on the new stream");
    assert!(world.last_words().starts_with("Copied"));
}

#[test]
fn a_copy_of_nothing_of_another_type_or_of_too_much_fails_with_words() {
    let mut world = allowed();
    for (kind, bytes) in [(content::NONE, &b""[..]), (TEXT, b""), (content::IMAGE_PNG, b"x")] {
        world.sends(B, &grab(&[TEXT]));
        world.hotkey(Hotkey::Copy, B);
        world.sends(B, &give(kind, bytes));
        assert!(world.last_words().contains("has nothing in its clipboard any more"));
    }
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.sends(B, &give(TEXT, &vec![b'x'; HELD_MAX as usize + 1]));
    assert_eq!(
        world.last_words(),
        "Not copied: INTERNET has 32.0 MiB in its clipboard, more than 32.0 MiB."
    );
    world.copy_text(B, "and after it all is well");
    assert!(world.last_words().starts_with("Copied"));
}

#[test]
fn without_an_agent_in_the_guest_the_chord_says_so() {
    let mut world = World::new(policy(&rule("b", "a", "allow")));
    for guest in [A, B] {
        world.connected(guest);
    }
    world.hotkey(Hotkey::Copy, B);
    assert!(world.last_words().contains("no clipboard agent runs there"));
    world.sends(B, &announce(true, CAPABLE));
    world.gets(B);
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("CLINICAL cannot copy or paste"));
    assert!(world.to_record.is_empty());
}

#[test]
fn the_guests_screen_follows_the_seats_if_its_agent_can_do_that() {
    let mut world = allowed();
    world.mediator.screen(Some((1920, 1040)));
    assert!(world.gets(A).is_empty());
    world.sends(A, &announce(true, CAPABLE | 1 << capability::MONITORS_CONFIG));
    let got = world.gets(A);
    assert_eq!(got.last().unwrap().kind, kind::MONITORS_CONFIG);
    assert_eq!(got.last().unwrap().body, words(&[1, 0, 1040, 1920, 32, 0, 0]));
}

#[test]
fn an_agent_of_old_without_selections_is_understood() {
    let mut world = World::ready(&(rule("b", "a", "allow") + &rule("a", "b", "allow")));
    world.sends(B, &announce(true, 1 << capability::CLIPBOARD_BY_DEMAND));
    world.gets(B);
    world.sends(B, &message(kind::CLIPBOARD_GRAB, &words(&[TEXT])));
    world.hotkey(Hotkey::Copy, B);
    let got = world.gets(B);
    assert_eq!((got[0].kind, &got[0].body), (kind::CLIPBOARD_REQUEST, &words(&[TEXT])));
    world.sends(B, &message(kind::CLIPBOARD, &[&words(&[TEXT]), &b"old"[..]].concat()));
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"old");
}

#[test]
fn a_guest_that_has_hung_up_is_offered_nothing_though_its_reader_has_not_said_so() {
    let mut world = allowed();
    world.copy_text(B, "text");
    world.hotkey(Hotkey::Paste, A);
    let reader = world.readers[A].take();
    world.mediator.hung_up(A, world.now);
    world.record(true);
    assert!(world.last_words().starts_with("CLINICAL cannot copy or paste"));
    let undelivered = world.noted.pop().unwrap();
    assert_eq!(undelivered.kind, "clipboard-not-delivered");
    assert_eq!(undelivered.detail["why"], "its agent is gone");
    // Nor is it asked about, whatever it said before.
    world.readers[A] = reader;
    for before in [announce(true, CAPABLE), grab(&[TEXT])] {
        world.sends(A, &before);
        for hotkey in [Hotkey::Paste, Hotkey::Copy] {
            world.hotkey(hotkey, A);
            assert!(world.last_words().starts_with("CLINICAL cannot copy or paste"));
        }
        world.copy_text(B, "text");
    }
    assert!(world.to_record.is_empty() && world.gets(A).is_empty());
    world.disconnected(A);
    world.connected(A);
    world.sends(A, &announce(true, CAPABLE));
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"text");
}

#[test]
fn what_is_offered_to_a_guest_that_hangs_up_is_not_taken_by_what_it_said_before() {
    let mut world = allowed();
    world.copy_text(B, "text");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.mediator.hung_up(A, world.now);
    assert_eq!(pasted(&mut world, A, TEXT), None);
    assert!(!world.noted.iter().any(|event| event.kind == "clipboard-taken"));
}

#[test]
fn what_a_guest_was_asked_for_before_it_hung_up_is_still_copied_and_nothing_is_asked_after_it() {
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    world.hotkey(Hotkey::Copy, B);
    world.gets(B);
    world.mediator.hung_up(B, world.now);
    world.sends(B, &give(TEXT, b"its last"));
    assert!(world.last_words().starts_with("Copied from INTERNET"));
    let mut world = allowed();
    world.sends(B, &grab(&[TEXT]));
    let reader = world.readers[B].take();
    world.hotkey(Hotkey::Copy, B);
    world.mediator.hung_up(B, world.now);
    world.settle();
    assert_eq!(world.last_words(), "Not copied: INTERNET was restarted.");
    world.readers[B] = reader;
    world.lies(B, &worker_link::clipboard::Event::Ready { number: 1 }, b"");
    assert!(world.gets(B).is_empty() && world.disconnected.is_empty());
}
