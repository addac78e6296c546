//! Pictures, which are decoded elsewhere.

use super::world::*;
use crate::mediator::ClipboardEvent;
use crate::mediator::limits::{DECODE_MAX, PREPARING_AFTER};
use crate::mediator::{Hotkey, Output, Time};
use crate::vdagent::spec::content::IMAGE_PNG;
use clipboard_content::{Changes, Rejected, Sanitized, of_worker};

const SAMPLE: &[u8] = include_bytes!("../../../pictures/src/samples/out-meta.png");

/// The picture in B is copied, and pasted in A.
fn pressed(world: &mut World) -> u64 {
    world.copy(B, IMAGE_PNG, SAMPLE);
    world.hotkey(Hotkey::Paste, A);
    assert!(world.to_record.is_empty() && world.asked.is_empty() && world.gets(A).is_empty());
    world.to_decode.last().unwrap().0
}

fn encoded() -> Sanitized {
    let encoded = pictures::encode_anew(worker_link::Kind::Png, SAMPLE, 1 << 20).unwrap();
    of_worker(encoded.png, Changes::default()).unwrap()
}

fn nothing_crosses(world: &mut World) {
    assert!(world.to_record.is_empty() && world.asked.is_empty());
    assert!(world.gets(A).is_empty());
    assert_eq!(pasted(world, A, IMAGE_PNG), None);
}

#[test]
fn a_picture_crosses_as_a_worker_made_it_anew_and_what_hangs_on_it_stays_behind() {
    assert!(SAMPLE.windows(4).any(|bytes| bytes == b"HONG"));
    let mut world = allowed();
    pressed(&mut world);
    world.decode();
    let event = world.record(true);
    assert_eq!(event.detail["normalised"], "encoded anew");
    world.gets(A);
    let got = pasted(&mut world, A, IMAGE_PNG).unwrap();
    assert_eq!(got, encoded().bytes[..]);
    assert!(!got.windows(4).any(|bytes| bytes == b"HONG"));
}

#[test]
fn a_person_is_asked_about_the_picture_that_would_cross_and_not_before_there_is_one() {
    let mut world = World::ready(&rule("b", "a", "ask"));
    pressed(&mut world);
    world.decode();
    let (id, text) = world.asked.pop().unwrap();
    assert!(text.contains("a picture of ") && text.ends_with(" pixels"), "{text}");
    assert!(world.to_record.is_empty());
    world.mediator.answered(id, true);
    world.settle();
    world.record(true);
}

#[test]
fn a_picture_that_the_policy_denies_is_given_to_no_worker() {
    let mut world = World::ready(&rule("a", "b", "allow"));
    world.copy(B, IMAGE_PNG, SAMPLE);
    world.hotkey(Hotkey::Paste, A);
    assert!(world.to_decode.is_empty());
    assert_eq!(world.noted.last().unwrap().verdict.as_deref(), Some("deny"));
}

#[test]
fn what_a_failed_worker_was_doing_is_denied_in_words_and_nothing_else_is() {
    let mut world = allowed();
    let id = pressed(&mut world);
    world.decoded(id, Err(Rejected::NotDecoded));
    let words = world.last_words().to_owned();
    assert!(words.starts_with("Not pasted: a picture of ") && words.contains("call IT"), "{words}");
    let event = world.noted.last().unwrap();
    assert_eq!(event.verdict.as_deref(), Some("deny"));
    assert_eq!(event.detail["unfit"], Rejected::NotDecoded.to_string());
    nothing_crosses(&mut world);
    // It is still held, and may be pasted once more.
    world.hotkey(Hotkey::Paste, A);
    world.to_decode.remove(0);
    world.decode();
    world.record(true);
    assert!(world.last_words().starts_with("Ready"), "{}", world.last_words());
}

#[test]
fn a_picture_that_is_not_decoded_in_its_time_is_denied_and_its_worker_ended() {
    let mut world = allowed();
    let id = pressed(&mut world);
    let until = world.now + DECODE_MAX;
    world.wait(PREPARING_AFTER);
    assert_eq!(world.mediator.deadline(), Some(until));
    world.wait(DECODE_MAX - PREPARING_AFTER - Time::from_millis(1));
    assert!(world.stopped.is_empty());
    world.wait(Time::from_millis(1));
    assert_eq!(world.stopped, [id]);
    assert!(world.last_words().contains("takes too long"), "{}", world.last_words());
    assert_eq!(world.noted.last().unwrap().detail["unfit"], Rejected::TooSlow.to_string());
    world.decoded(id, Ok(encoded()));
    nothing_crosses(&mut world);
}

#[test]
fn people_are_told_of_a_picture_that_takes_longer_than_a_moment_until_there_is_an_outcome() {
    type Ends = fn(&mut World, u64);
    const ENDS: [Ends; 4] = [
        |world, _| world.decode(),
        |world, id| world.decoded(id, Err(Rejected::Damaged)),
        |world, _| world.wait(DECODE_MAX),
        |world, _| {
            world.mediator.locked(world.now);
            world.settle();
        },
    ];
    for ends in ENDS {
        let mut world = allowed();
        let id = pressed(&mut world);
        assert_eq!(world.mediator.deadline(), Some(world.now + PREPARING_AFTER));
        world.wait(PREPARING_AFTER - Time::from_millis(1));
        assert!(!world.mediator.is_preparing());
        world.wait(Time::from_millis(1));
        assert!(world.mediator.is_preparing());
        // Who presses again waits for the same, and is told the same.
        world.hotkey(Hotkey::Paste, A);
        assert!(world.mediator.is_preparing());
        ends(&mut world, id);
        assert!(!world.mediator.is_preparing());
    }
}

#[test]
fn whatever_comes_while_a_picture_is_decoded_ends_its_worker_and_what_that_says_later_counts_for_nothing()
 {
    type Event = (&'static str, fn(&mut World));
    const EVENTS: [Event; 6] = [
        ("the agent's end", |world| world.mediator.end()),
        ("the lock", |world| world.mediator.locked(world.now)),
        ("a policy", |world| {
            let other = rule("b", "a", "deny").replace("b-a", "other");
            world.mediator.policy(policy_of(2, &other), world.now);
        }),
        ("a lost record", |world| world.mediator.record_lost(world.now)),
        ("another copy", |world| world.mediator.hotkey(Hotkey::Copy, B, None, world.now)),
        ("another paste", |world| world.mediator.hotkey(Hotkey::Paste, B, None, world.now)),
    ];
    for (what, happens) in EVENTS {
        let mut world = allowed();
        let id = pressed(&mut world);
        happens(&mut world);
        world.settle();
        assert_eq!(world.stopped, [id], "{what}");
        let [.., paste, ended] = &world.noted[..] else { panic!("{what}") };
        // What the policy said, by its serial; nothing was wrong with the picture.
        assert_eq!(paste.verdict.as_deref(), Some("allow"), "{what}");
        assert_eq!((paste.rule.as_deref(), paste.policy), (Some("b-a"), Some(1)), "{what}");
        assert!(!paste.detail.contains_key("unfit"), "{what}");
        assert_eq!(ended.kind, "clipboard-not-delivered", "{what}");
        world.gets(B);
        world.decoded(id, Ok(encoded()));
        nothing_crosses(&mut world);
    }
}

#[test]
fn the_answer_of_another_worker_is_not_taken_for_this_ones() {
    let mut world = allowed();
    let first = pressed(&mut world);
    world.mediator.policy(policy(&rule("b", "a", "allow")), world.now);
    world.hotkey(Hotkey::Paste, A);
    assert_eq!(world.stopped, [first]);
    world.decoded(first, Ok(encoded()));
    world.decoded(first + 2, Ok(encoded()));
    nothing_crosses(&mut world);
    world.to_decode.remove(0);
    world.decode();
    world.record(true);
    assert!(world.last_words().starts_with("Ready"), "{}", world.last_words());
}

#[test]
fn of_pastes_that_come_at_once_only_the_last_one_s_picture_is_still_wanted_when_they_are_carried_out()
 {
    let mut world = allowed();
    world.copy(B, IMAGE_PNG, SAMPLE);
    for _ in 0..3 {
        world.mediator.hotkey(Hotkey::Paste, A, None, world.now);
        world.mediator.policy(policy(&rule("b", "a", "allow")), world.now);
    }
    world.mediator.hotkey(Hotkey::Paste, A, None, world.now);
    world.settle();
    let wanted: Vec<bool> =
        world.to_decode.iter().map(|(id, ..)| world.mediator.decodes(*id)).collect();
    assert_eq!(wanted, [false, false, false, true]);
}

#[test]
fn pressing_again_while_a_picture_is_decoded_waits_for_that_picture() {
    let mut world = allowed();
    let id = pressed(&mut world);
    let noted = world.noted.len();
    for _ in 0..30 {
        world.hotkey(Hotkey::Paste, A);
    }
    assert!(world.stopped.is_empty() && world.to_decode.len() == 1);
    assert_eq!(world.noted.len(), noted);
    // Who waits for the outcome is who pressed last.
    let said = world.said.len();
    world.mediator.hotkey(Hotkey::Paste, A, Some(7), world.now);
    world.settle();
    assert_eq!(world.said.len(), said + 1);
    assert_eq!(world.to_decode[0].0, id);
    world.decode();
    world
        .mediator
        .permitted(monitor::testing::permit(world.to_record.remove(0).grant, 1), world.now);
    let outputs = world.mediator.outputs();
    let done = |output: &Output| matches!(output, Output::Report(ClipboardEvent::Completed(Some(7), outcome)) if outcome.done);
    assert!(outputs.iter().any(done), "{outputs:?}");
}

#[test]
fn a_question_that_was_not_put_yet_is_on_the_record_as_one_without_an_answer() {
    let mut world = World::ready(&rule("b", "a", "ask"));
    pressed(&mut world);
    world.mediator.locked(world.now);
    world.settle();
    let event = world.noted.last().unwrap();
    assert_eq!(event.verdict.as_deref(), Some("ask"));
    assert_eq!(event.detail["answer"], "it was not wanted any more");
    assert!(!event.detail.contains_key("unfit"));
}
