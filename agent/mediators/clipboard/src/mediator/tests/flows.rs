//! What a person who copies and pastes sees.

use monitor::Denial;

use super::world::{A, B, CAPABLE, World, announce, give, grab, policy, request, rule};
use crate::mediator::limits::{ASK_FOR, HELD_FOR, HELD_MAX, HOTKEYS, OFFERED_FOR, PULL_SILENCE};
use crate::mediator::{Hotkey, Time};
use crate::vdagent::spec::{capability, content, kind};

const TEXT: u32 = content::UTF8_TEXT;

fn allowed() -> World {
    World::ready(&rule("b", "a", "allow"))
}

/// What reached a guest's programs when they asked.
fn pasted(world: &mut World, guest: usize, number: u32) -> Option<Vec<u8>> {
    world.sends(guest, &request(number));
    let got = world.gets(guest);
    let (kind, bytes) = got.last()?.content()?;
    (kind == number).then(|| bytes.to_vec())
}

// Shows: P-3.
#[test]
fn text_copied_in_one_domain_is_pasted_in_the_other_and_both_are_written_down() {
    let mut world = allowed();
    world.copy_text(B, "투약 기록");
    assert!(world.last_words().starts_with("Copied from INTERNET: 5 characters."));
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-copied");
    assert!(world.gets(A).is_empty(), "nothing is announced before the paste hotkey");
    world.hotkey(Hotkey::Paste, A);
    assert!(world.gets(A).is_empty(), "nothing is announced before it is on the disk");
    let event = world.record(true);
    assert_eq!((event.kind, event.verdict.as_deref()), ("clipboard", Some("allow")));
    assert_eq!(event.rule.as_deref(), Some("b-a"));
    assert_eq!(event.detail["bytes"], 13);
    assert_eq!(event.detail["from"], "b");
    let got = world.gets(A);
    assert_eq!((got[0].kind, got[0].word()), (kind::CLIPBOARD_GRAB, TEXT));
    assert!(world.last_words().starts_with("Ready: 5 characters from INTERNET to CLINICAL."));
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), "투약 기록".as_bytes());
    assert_eq!(world.noted.last().unwrap().kind, "clipboard-taken");
    assert_eq!(pasted(&mut world, A, TEXT).unwrap(), "투약 기록".as_bytes(), "twice as well");
    let log: String = world.noted.iter().map(|event| format!("{event:?}")).collect();
    assert!(!log.contains("투약"), "the audit never holds content");
}

// Shows: P-3.
#[test]
fn a_denial_says_what_was_blocked_by_which_rule_and_whom_to_ask() {
    let mut world = World::ready(&rule("a", "b", "deny"));
    world.copy_text(A, "900101-1234567");
    world.hotkey(Hotkey::Paste, B);
    assert_eq!(
        world.last_words(),
        "Not pasted: 14 characters from CLINICAL to INTERNET.\nThe policy: rule `a-b` denies text/plain of up to 1000000 bytes from CLINICAL to INTERNET.\nQuestions: Information Security Office"
    );
    assert_eq!(world.noted.last().unwrap().verdict.as_deref(), Some("deny"));
    assert!(world.gets(B).is_empty() && world.to_record.is_empty());
    assert_eq!(pasted(&mut world, B, TEXT), None);
}

#[test]
fn a_detector_that_finds_something_denies_and_is_named() {
    let rules = rule("b", "a", "allow") + "inspect = [\"korean-rrn\"]\n";
    let mut world = World::ready(&rules);
    // The digits only meet once the zero-width character between them is gone.
    world.copy_text(B, "900101-1\u{200b}234568");
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().contains("a resident registration number (rule `b-a`)"));
    let event = world.noted.last().unwrap();
    assert_eq!(event.detail["hits"][0], "korean-rrn");
    assert_eq!(event.detail["inspected"][0], "korean-rrn");
}

#[test]
fn text_loses_what_nobody_sees_whichever_way_it_goes_and_the_audit_says_so() {
    for (from, to) in [(B, A), (A, B)] {
        let mut world = World::ready(&(rule("b", "a", "allow") + &rule("a", "b", "allow")));
        world.copy_text(from, "a\u{202e}b\r\nc\u{200b}\u{1b}");
        world.hotkey(Hotkey::Paste, to);
        let event = world.record(true);
        assert_eq!(
            event.detail["normalised"],
            "1 line ends changed, 1 control characters removed, 1 bidirectional characters removed, 1 zero-width characters removed"
        );
        assert_eq!(event.detail["bytes"], 4);
        world.gets(to);
        assert_eq!(pasted(&mut world, to, TEXT).unwrap(), b"ab\nc");
    }
}

// Shows: P-2.
#[test]
fn no_dose_changes_on_its_way() {
    for (copied, found) in [
        ("Warfarin 1\u{b}5 mg at night", "Warfarin 1\n5 mg at night"),
        ("Dose 1\u{2028}2 mg bid", "Dose 1\n2 mg bid"),
        ("Dose 1\u{2029}2 mg bid", "Dose 1\n2 mg bid"),
        ("page 1 ends: INR 2\u{c}5 on page 2", "page 1 ends: INR 2\n5 on page 2"),
        ("a\u{85}b", "a\nb"),
        ("Start 5\u{ad}10 mg/day", "Start 5-10 mg/day"),
        ("K 3\u{0}5", "K 3 5"),
    ] {
        let mut world = allowed();
        world.copy_text(B, copied);
        world.hotkey(Hotkey::Paste, A);
        world.record(true);
        world.gets(A);
        assert_eq!(pasted(&mut world, A, TEXT).unwrap(), found.as_bytes(), "{copied:?}");
    }
}

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
fn a_question_shows_a_safe_preview_and_silence_is_no() {
    let mut world = World::ready(&rule("b", "a", "ask"));
    world.copy_text(B, "line one\n\u{202e}line two");
    world.hotkey(Hotkey::Paste, A);
    let (id, text) = world.asked.pop().unwrap();
    assert_eq!(text, "Paste 17 characters from INTERNET to CLINICAL?\nline one line two");
    assert!(world.to_record.is_empty());
    world.wait(ASK_FOR);
    assert_eq!(world.withdrawn, [id]);
    let event = world.noted.last().unwrap();
    assert_eq!(event.verdict.as_deref(), Some("ask"));
    assert_eq!(event.detail["answer"], "silence");
    world.mediator.answered(id, true);
    world.settle();
    assert!(world.to_record.is_empty(), "an answer that comes too late counts for nothing");
    assert!(world.gets(A).is_empty());
}

#[test]
fn a_question_answered_with_yes_lets_it_through_and_with_no_does_not() {
    for yes in [true, false] {
        let mut world = World::ready(&rule("b", "a", "ask"));
        world.copy_text(B, "x");
        world.hotkey(Hotkey::Paste, A);
        let (id, _) = world.asked.pop().unwrap();
        world.mediator.answered(id, yes);
        world.settle();
        if yes {
            assert_eq!(world.record(true).detail["answer"], "yes");
            world.gets(A);
            assert_eq!(pasted(&mut world, A, TEXT).unwrap(), b"x");
        } else {
            assert!(world.to_record.is_empty());
            assert_eq!(pasted(&mut world, A, TEXT), None);
        }
    }
}

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
        let (paste, _) = world.to_record.remove(0);
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
    world.mediator.connected(B);
    world.sends(B, &announce(true, CAPABLE));
    world.gets(B);
    world.copy_text(B, "on the new stream");
    assert!(world.last_words().starts_with("Copied"));
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
        world.mediator.connected(guest);
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
fn pasting_faster_than_people_do_is_held_back_in_one_direction_only() {
    let mut world = World::ready(&(rule("b", "a", "allow") + &rule("a", "b", "allow")));
    world.copy_text(B, "x");
    for _ in 0..HOTKEYS.burst {
        world.hotkey(Hotkey::Paste, A);
        world.record(true);
    }
    world.hotkey(Hotkey::Paste, A);
    assert!(world.last_words().starts_with("Too often"));
    world.copy_text(A, "y");
    world.hotkey(Hotkey::Paste, B);
    world.record(true);
    assert!(world.last_words().starts_with("Ready"));
    world.wait(Time::from_secs(3));
    world.copy_text(B, "z");
    world.hotkey(Hotkey::Paste, A);
    world.record(true);
    assert!(world.last_words().starts_with("Ready"));
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

#[test]
fn the_guests_screen_follows_the_seats_if_its_agent_can_do_that() {
    let mut world = allowed();
    world.mediator.screen(Some((1920, 1040)));
    assert!(world.gets(A).is_empty());
    world.sends(A, &announce(true, CAPABLE | 1 << capability::MONITORS_CONFIG));
    let got = world.gets(A);
    assert_eq!(got.last().unwrap().kind, kind::MONITORS_CONFIG);
    assert_eq!(got.last().unwrap().body, super::world::words(&[1, 0, 1040, 1920, 32, 0, 0]));
}

#[test]
fn an_agent_of_old_without_selections_is_understood() {
    use super::world::{message, words};
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
