//! What a person who copies and pastes sees.

use super::world::{A, B, TEXT, World, allowed, pasted, rule};
use crate::mediator::limits::{ASK_FOR, HOTKEYS};
use crate::mediator::{Hotkey, Time};
use crate::vdagent::spec::kind;

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
