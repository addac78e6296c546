//! When a paste is refused, withdrawn or not delivered: by the record, the policy, the lock, the guest and time.

use monitor::Denial;

use super::world::{A, B, TEXT, allowed, grab, pasted, policy, request, rule};
use crate::mediator::Hotkey;
use crate::mediator::limits::{HELD_FOR, OFFERED_FOR};
use crate::vdagent::spec::{content, kind};

// Shows: K-5.4.2.
#[test]
fn what_cannot_be_written_down_does_not_cross() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.record(false);
    assert!(world.last_words().contains("audit log cannot be written"));
    assert!(world.gets(A).is_empty());
    assert_eq!(pasted(&mut world, A, TEXT), None);
}

#[test]
fn held_content_and_offers_end_by_themselves_and_with_the_lock() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.wait(HELD_FOR);
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."));
    for lock in [false, true] {
        world.copy_text(B, "y");
        world.hotkey(Hotkey::Paste, A);
        world.record(true);
        world.gets(A);
        if lock {
            world.mediator.locked(world.now);
        } else {
            world.wait(OFFERED_FOR);
        }
        assert_eq!(world.gets(A)[0].kind, kind::CLIPBOARD_RELEASE);
        assert_eq!(pasted(&mut world, A, TEXT), None);
    }
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Nothing to paste."), "the lock wipes");
}

#[test]
fn a_policy_that_closes_a_flow_takes_back_what_is_offered() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.mediator.policy(policy(&rule("b", "a", "allow")), world.now);
    world.settle();
    assert!(world.gets(A).is_empty(), "a policy that still allows it changes nothing");
    world.mediator.policy(policy(""), world.now);
    world.settle();
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-withdrawn");
    assert_eq!(world.gets(A)[0].kind, kind::CLIPBOARD_RELEASE);
    assert_eq!(pasted(&mut world, A, TEXT), None);
}

#[test]
fn a_policy_that_wants_a_person_asked_takes_back_what_was_offered_without() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.mediator.policy(policy(&rule("b", "a", "ask")), world.now);
    world.settle();
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-withdrawn");
    assert_eq!(world.gets(A)[0].kind, kind::CLIPBOARD_RELEASE);
    assert_eq!(pasted(&mut world, A, TEXT), None);
}

#[test]
fn a_policy_that_comes_between_verdict_and_record_ends_the_paste() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.mediator.policy(policy(""), world.now);
    world.settle();
    world.record(true);
    assert!(world.gets(A).is_empty());
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-not-delivered");
}

// Shows: K-1.3.2.
#[test]
fn a_log_that_fails_takes_back_what_is_offered_and_ends_what_is_under_way() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.mediator.record_lost(world.now);
    world.settle();
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-withdrawn");
    assert!(world.last_words().contains("the audit log cannot be written"));
    assert_eq!(world.gets(A)[0].kind, kind::CLIPBOARD_RELEASE);
    assert_eq!(pasted(&mut world, A, TEXT), None);
    world.gets(A);
    // What was about to be permitted is not offered, even if the permit comes.
    world.hotkey(Hotkey::Paste, A);
    world.mediator.record_lost(world.now);
    world.settle();
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-not-delivered");
    world.record(true);
    assert!(world.gets(A).is_empty());
    assert_eq!(pasted(&mut world, A, TEXT), None);
}

#[test]
fn a_paste_that_the_monitor_refuses_is_not_offered_and_the_reason_is_said() {
    for (denial, kind, reason) in [
        (Denial::Unrecorded, "clipboard-copied", "the audit log cannot be written"),
        (Denial::Stale, "clipboard-not-delivered", "the rules changed since it was decided"),
        (Denial::Unanswered, "clipboard-not-delivered", "nobody has agreed to it"),
        (Denial::NotRunning, "clipboard-not-delivered", "is not running"),
    ] {
        let mut world = allowed();
        world.copy_text(B, "x");
        world.hotkey(Hotkey::Paste, A);
        let paste = world.to_record.remove(0).grant;
        world.mediator.refused(paste.id, denial);
        world.settle();
        assert!(world.last_words().contains(reason), "{}", world.last_words());
        assert_eq!(world.noted.last().unwrap().kind, kind);
        assert!(world.gets(A).is_empty());
        // It has ended: a permit that comes all the same is for nothing.
        world.mediator.permitted(monitor::testing::permit(paste, 1), world.now);
        world.settle();
        assert!(world.gets(A).is_empty());
    }
}

#[test]
fn a_permitted_paste_that_the_guest_does_not_take_is_written_down_as_not_delivered() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    // It asks and asks for what is not there, and reads none of the answers.
    for _ in 0..1000 {
        world.sends(A, &request(TEXT));
    }
    world.record(true);
    assert!(world.last_words().contains("does not take anything"), "{}", world.last_words());
    let event = world.noted.last().unwrap();
    assert_eq!((event.kind, event.domain.as_deref()), ("clipboard-not-delivered", Some("a")));
    assert_eq!(event.detail["why"], "the desktop does not take anything");
    assert!(world.gets(A).iter().all(|got| got.kind != kind::CLIPBOARD_GRAB));
}

#[test]
fn what_was_asked_for_and_not_read_is_taken_back_with_the_lock_and_by_a_policy_that_denies() {
    for read_before in [0, 1, 2] {
        for lock in [true, false] {
            let mut world = allowed();
            let secret = "a patient's name ".repeat(300);
            world.copy_text(B, &secret);
            world.hotkey(Hotkey::Paste, A);
            world.record(true);
            world.gets(A);
            world.sends(A, &request(TEXT));
            world.written(A);
            for _ in 0..read_before {
                world.mediator.outbox(A).unwrap().guest_took_all();
                world.written(A);
            }
            if lock {
                world.mediator.locked(world.now);
            } else {
                world.mediator.policy(policy(""), world.now);
            }
            world.settle();
            let got: Vec<_> = world.gets(A);
            let whole = got.iter().filter_map(|got| got.content()).any(|(kind, _)| kind == TEXT);
            let left = world.left[A].len();
            match read_before {
                // Only the message's header was out.
                0 => assert!(!whole && left < 64, "{left}"),
                1 => assert!(!whole && left > secret.len(), "{left}, but for its last byte"),
                // It has read all but the last byte, which is out: it has it.
                _ => {}
            }
            assert_eq!(world.disconnected.len(), 1, "and its stream ends, so that it never is");
            assert_eq!(pasted(&mut world, A, TEXT), None);
        }
    }
}

#[test]
fn what_was_asked_for_and_not_begun_is_answered_with_nothing() {
    let mut world = allowed();
    world.copy_text(B, "a patient's name");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.sends(A, &request(TEXT));
    world.mediator.locked(world.now);
    world.settle();
    let got = world.gets(A);
    assert_eq!(got[0].content(), Some((content::NONE, &b""[..])));
    assert_eq!(got[1].kind, kind::CLIPBOARD_RELEASE);
    assert!(world.disconnected.is_empty());
}

#[test]
fn what_is_on_its_way_is_withdrawn_even_after_the_guest_copied_something_itself() {
    let mut world = allowed();
    world.copy_text(B, "a patient's name");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.gets(A);
    world.sends(A, &request(TEXT));
    world.written(A);
    world.sends(A, &grab(&[TEXT]));
    world.mediator.locked(world.now);
    world.settle();
    assert_eq!(world.disconnected, [(A, world.now)]);
}

#[test]
fn what_the_guest_copies_itself_takes_the_place_of_what_was_pasted() {
    let mut world = allowed();
    world.copy_text(B, "x");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    world.sends(A, &grab(&[TEXT]));
    world.gets(A);
    assert_eq!(pasted(&mut world, A, TEXT), None);
}
