mod choice;
mod every_state;
mod non_interference;
mod onlooker;
mod promises;

use policy::Policy;
use policy::language::Modifiers;
use seat_link::{Event, Rect, Size, Target};

use super::*;

const CTRL: u16 = 29;
const RIGHT_CTRL: u16 = 97;
const ALT: u16 = 56;
const SHIFT: u16 = 42;
const ONE: u16 = 2;
const TWO: u16 = 3;
const A: u16 = 30;
const B: u16 = 48;
const C: u16 = 46;
const L: u16 = 38;
const HANGUL: u16 = 122;
const ENTER: u16 = 28;
const V: u16 = 47;
const LEFT: u16 = codes::BTN_LEFT;

const KEYBOARD: DeviceId = 1;
const SECOND: DeviceId = 2;
const MOUSE: DeviceId = 3;
/// Pinned to domain 1.
const SCANNER: DeviceId = 4;

const SCREEN: Size = Size { width: 100, height: 60 };
const BANNER: u32 = 10;

const POLICY: &str = include_str!("../../../../policy/tests/fixtures/two-domains.toml");

fn settings() -> Settings {
    let policy = Policy::parse("policy.toml", POLICY).unwrap();
    let names = ["clinical".to_owned(), "internet".to_owned()];
    Settings { hotkeys: Hotkeys::of(&policy, &names), idle_lock: Some(Duration::from_secs(600)) }
}

fn geometry() -> Geometry {
    let picture = Rect { x: 0, y: BANNER, width: 100, height: 50 };
    Geometry {
        screen: SCREEN,
        banner: BANNER,
        pictures: vec![picture, picture],
        clicks: vec![
            (Rect { x: 60, y: 0, width: 20, height: BANNER }, Click::Switch(0)),
            (Rect { x: 80, y: 0, width: 20, height: BANNER }, Click::Switch(1)),
        ],
    }
}

#[derive(Clone)]
struct Seat {
    core: Core,
    now: Time,
}

impl Seat {
    fn new() -> Self {
        let mut core = Core::new(2, settings(), geometry());
        for (id, pin) in [(KEYBOARD, None), (SECOND, None), (MOUSE, None), (SCANNER, Some(1))] {
            assert_eq!(core.feed(Time::ZERO, Input::Plugged(id, pin)), []);
        }
        Self { core, now: Time::ZERO }
    }

    fn feed(&mut self, input: Input) -> Vec<Output> {
        self.core.feed(self.now, input)
    }

    fn press(&mut self, device: DeviceId, code: u16, down: bool) -> Vec<Output> {
        self.feed(Input::Report(device, Report { keys: vec![(code, down)], ..Report::default() }))
    }

    fn all(&mut self, steps: &[(u16, bool)]) -> Vec<Output> {
        steps.iter().flat_map(|&(code, down)| self.press(KEYBOARD, code, down)).collect()
    }

    fn chord(&mut self, code: u16) -> Vec<Output> {
        self.all(&[
            (CTRL, true),
            (ALT, true),
            (code, true),
            (code, false),
            (ALT, false),
            (CTRL, false),
        ])
    }

    fn motion(&mut self, motion: Motion) -> Vec<Output> {
        self.feed(Input::Report(MOUSE, Report { motion: Some(motion), ..Report::default() }))
    }
}

fn told(domain: DomainIndex, code: u16, value: i32) -> Output {
    let target = if code >= LEFT { Target::Pointer } else { Target::Keyboard };
    let key = Event { kind: codes::EV_KEY, code, value };
    Output::Send(domain, target, vec![key, Event::SYN])
}

const TO_INTERNET: Output = Output::Switched { from: 0, to: 1 };

#[test]
fn a_chord_switches_and_none_of_its_keys_reaches_anyone() {
    let mut seat = Seat::new();
    assert_eq!(seat.chord(TWO), [TO_INTERNET]);
    assert_eq!(seat.chord(TWO), [], "already there");
    assert_eq!(seat.chord(ONE), [Output::Switched { from: 1, to: 0 }]);
}

#[test]
fn the_right_keys_and_two_keyboards_make_the_same_chord() {
    let mut seat = Seat::new();
    seat.press(SECOND, RIGHT_CTRL, true);
    assert_eq!(seat.all(&[(100, true), (TWO, true)]), [TO_INTERNET]);
}

#[test]
fn a_modifier_by_itself_and_with_a_key_that_makes_no_chord_reaches_the_front() {
    let mut seat = Seat::new();
    assert_eq!(seat.press(KEYBOARD, CTRL, true), []);
    assert_eq!(seat.press(KEYBOARD, CTRL, false), [told(0, CTRL, 1), told(0, CTRL, 0)]);
    assert_eq!(
        seat.all(&[(CTRL, true), (C, true), (C, false), (CTRL, false)]),
        [told(0, CTRL, 1), told(0, C, 1), told(0, C, 0), told(0, CTRL, 0)]
    );
    // No chord has Shift: it is told at once, as for a capital letter.
    assert_eq!(seat.press(KEYBOARD, SHIFT, true), [told(0, SHIFT, 1)]);
    assert_eq!(seat.press(KEYBOARD, HANGUL, true), [told(0, HANGUL, 1)]);
}

#[test]
fn a_modifier_held_for_a_click_or_the_wheel_is_told_before_it() {
    let mut seat = Seat::new();
    seat.press(KEYBOARD, CTRL, true);
    let out = seat.press(MOUSE, LEFT, true);
    assert_eq!(out[0], told(0, CTRL, 1));
    assert_eq!(out.last(), Some(&told(0, LEFT, 1)));
    let turned = Report { wheel: vec![(8, -1)], ..Report::default() };
    let wheel = vec![Event { kind: codes::EV_REL, code: 8, value: -1 }, Event::SYN];
    assert_eq!(seat.feed(Input::Report(MOUSE, turned)), [Output::Send(0, Target::Pointer, wheel)]);
}

#[test]
fn a_key_held_across_a_switch_reaches_neither_desktop() {
    let mut seat = Seat::new();
    assert_eq!(seat.press(KEYBOARD, A, true), [told(0, A, 1)]);
    let out = seat.chord(TWO);
    assert_eq!(out, [told(0, A, 0), TO_INTERNET]);
    assert_eq!(seat.press(KEYBOARD, A, true), [], "it repeats");
    assert_eq!(seat.press(KEYBOARD, A, false), []);
    assert_eq!(seat.press(KEYBOARD, A, true), [told(1, A, 1)], "pressed anew");
}

#[test]
fn what_is_pressed_while_a_chords_modifiers_are_still_held_is_part_of_the_gesture() {
    let mut seat = Seat::new();
    assert_eq!(seat.all(&[(CTRL, true), (ALT, true), (TWO, true), (TWO, false)]), [TO_INTERNET]);
    assert_eq!(seat.all(&[(A, true), (A, false), (111, true), (111, false)]), []);
    assert_eq!(seat.all(&[(ONE, true)]), [Output::Switched { from: 1, to: 0 }]);
    assert_eq!(seat.all(&[(ONE, false), (ALT, false), (CTRL, false)]), []);
    assert_eq!(seat.press(KEYBOARD, A, true), [told(0, A, 1)]);
}

#[test]
fn a_keyboard_unplugged_in_the_middle_of_a_chord_leaves_nothing_down() {
    let mut seat = Seat::new();
    seat.all(&[(A, true), (CTRL, true), (ALT, true)]);
    assert_eq!(seat.feed(Input::Unplugged(KEYBOARD)), [told(0, A, 0)]);
    seat.feed(Input::Plugged(KEYBOARD, None));
    assert_eq!(seat.all(&[(TWO, true), (TWO, false)]), [told(0, TWO, 1), told(0, TWO, 0)]);
    assert_eq!(seat.chord(TWO), [TO_INTERNET]);
}

#[test]
fn modifiers_let_go_together_were_a_chord_that_was_not_finished() {
    let mut seat = Seat::new();
    seat.all(&[(A, true), (CTRL, true), (ALT, true)]);
    let keys = vec![(CTRL, false), (A, false), (ALT, false)];
    let out = seat.feed(Input::Report(KEYBOARD, Report { keys, ..Report::default() }));
    assert_eq!(out, [told(0, A, 0)]);
    assert_eq!(seat.all(&[(CTRL, true), (CTRL, false)]), [told(0, CTRL, 1), told(0, CTRL, 0)]);
}

#[test]
fn a_pinned_device_types_into_its_domain_and_presses_no_chord() {
    let mut seat = Seat::new();
    assert_eq!(seat.press(SCANNER, A, true), [told(1, A, 1)]);
    for code in [CTRL, ALT, TWO] {
        assert_eq!(seat.press(SCANNER, code, true), [told(1, code, 1)]);
    }
    assert_eq!(seat.core.front(), 0);
    assert_eq!(seat.chord(TWO), [TO_INTERNET], "a switch does not concern it");
    assert_eq!(seat.press(SCANNER, A, false), [told(1, A, 0)]);
}

#[test]
fn while_locked_nothing_reaches_anyone_and_only_the_lock_chord_is_heard() {
    let mut seat = Seat::new();
    seat.press(KEYBOARD, A, true);
    seat.press(SCANNER, B, true);
    let out = seat.chord(L);
    assert_eq!(out, [told(0, A, 0), told(1, B, 0), Output::Locked { idle: false }]);
    assert_eq!(seat.press(SCANNER, C, true), []);
    assert_eq!(seat.press(KEYBOARD, A, false), []);
    assert_eq!(seat.all(&[(A, true), (A, false)]), []);
    assert_eq!(seat.chord(TWO), []);
    assert_eq!(seat.chord(C), []);
    assert_eq!(seat.motion(Motion::By(1, 1)), [Output::PointerMoved]);
    assert_eq!(seat.press(MOUSE, LEFT, true), []);
    assert_eq!(seat.feed(Input::Switch(1)), []);
    assert_eq!(seat.chord(L), [Output::Pressed(Action::Lock, 0)]);
    assert_eq!(seat.feed(Input::Unlock), [Output::Unlocked]);
    assert_eq!(seat.press(KEYBOARD, A, true), [told(0, A, 1)]);
}

#[test]
fn the_screen_locks_when_nobody_does_anything_and_not_before() {
    let mut seat = Seat::new();
    seat.now = Duration::from_secs(300);
    seat.press(KEYBOARD, A, true);
    assert_eq!(seat.core.deadline(), Some(Duration::from_secs(900)));
    seat.now = Duration::from_secs(899);
    assert_eq!(seat.feed(Input::Tick), []);
    seat.now = Duration::from_secs(900);
    assert_eq!(seat.feed(Input::Tick), [told(0, A, 0), Output::Locked { idle: true }]);
}

#[test]
fn an_idle_pc_locks_whatever_is_in_front() {
    let mut seat = Seat::new();
    seat.feed(Input::Switch(1));
    seat.now = Duration::from_secs(600);
    assert_eq!(seat.feed(Input::Tick), [Output::Locked { idle: true }]);
    seat.feed(Input::Unlock);
    seat.feed(Input::Settings(Settings { idle_lock: None, ..settings() }));
    assert_eq!(seat.core.deadline(), None, "no domain asks for it");
}

#[test]
fn a_click_on_a_domain_in_the_banner_switches_and_reaches_no_guest() {
    let mut seat = Seat::new();
    let out = seat.motion(Motion::To(POSITION_MAX * 9 / 10, 0));
    assert_eq!((out, seat.core.pointer_is_ours()), (vec![Output::PointerMoved], true));
    assert_eq!(seat.press(MOUSE, LEFT, true), [TO_INTERNET]);
    assert_eq!(seat.press(MOUSE, LEFT, false), []);
    seat.motion(Motion::By(-80, 0));
    assert_eq!(seat.press(MOUSE, LEFT, true), [], "there is nothing");
}

#[test]
fn a_drag_into_the_banner_gives_the_guest_no_pointer_there_and_its_button_goes_up() {
    let mut seat = Seat::new();
    seat.motion(Motion::By(0, 0));
    assert_eq!(seat.press(MOUSE, LEFT, true).last(), Some(&told(0, LEFT, 1)));
    assert_eq!(seat.motion(Motion::By(0, -50)), [Output::PointerMoved]);
    assert!(seat.core.pointer_is_ours());
    assert_eq!(seat.motion(Motion::By(3, 0)), [Output::PointerMoved]);
    let out = seat.motion(Motion::By(0, 20));
    assert!(matches!(out.last(), Some(Output::Send(0, Target::Pointer, _))), "it came back");
    seat.motion(Motion::By(0, -50));
    assert_eq!(seat.press(MOUSE, LEFT, false), [told(0, LEFT, 0)]);
}

#[test]
fn a_pointer_is_where_it_is_on_the_picture_whatever_its_size() {
    let mut seat = Seat::new();
    let mut small = geometry();
    small.pictures[0] = Rect { x: 40, y: 30, width: 20, height: 10 };
    seat.feed(Input::Geometry(small));
    for (x, y, wanted) in [(40, 30, (819, 1638)), (59, 39, (31948, 31129)), (0, 20, (819, 1638))] {
        let (dx, dy) = seat.core.pointer();
        let out = seat.motion(Motion::By(x - dx, y - dy));
        let Some(Output::Send(0, Target::Pointer, events)) = out.last() else { panic!("{out:?}") };
        assert_eq!((events[0].value, events[1].value), wanted);
    }
}

#[test]
fn a_question_is_answered_by_the_keyboard_and_no_guest_hears_it() {
    let mut seat = Seat::new();
    seat.press(KEYBOARD, A, true);
    assert_eq!(seat.feed(Input::Ask(7)), [told(0, A, 0)]);
    assert_eq!(seat.all(&[(B, true), (B, false), (CTRL, true), (CTRL, false)]), []);
    assert_eq!(seat.press(MOUSE, LEFT, true), []);
    assert_eq!(seat.motion(Motion::By(1, 1)), [Output::PointerMoved]);
    seat.feed(Input::Shown(7, true));
    seat.now += READ_FOR;
    // Y, as any letter, says nothing: a scanner types letters.
    assert_eq!(seat.all(&[(21, true), (21, false)]), []);
    seat.now += READ_FOR;
    assert_eq!(seat.press(KEYBOARD, ENTER, true), [Output::Answered(7, true)]);
    assert_eq!(seat.press(KEYBOARD, ENTER, false), []);
    assert_eq!(seat.press(KEYBOARD, B, true), [told(0, B, 1)]);
    seat.feed(Input::Ask(8));
    assert_eq!(seat.chord(TWO), [Output::Answered(8, false), TO_INTERNET]);
    seat.feed(Input::Ask(9));
    assert_eq!(seat.feed(Input::Ask(10)), [Output::Answered(9, false)]);
    seat.feed(Input::Withdraw(10));
    assert_eq!(seat.press(KEYBOARD, ENTER, true), [told(1, ENTER, 1)]);
}

#[test]
fn no_answer_counts_before_the_question_has_been_on_the_screen_for_half_a_second() {
    let enter = [(ENTER, true), (ENTER, false)];
    let mut seat = Seat::new();
    seat.feed(Input::Ask(7));
    seat.now = Duration::from_secs(9);
    assert_eq!(seat.all(&enter), [], "it was never on the screen");
    seat.feed(Input::Shown(6, true));
    seat.feed(Input::Shown(7, true));
    seat.now += READ_FOR - Duration::from_millis(1);
    assert_eq!(seat.press(KEYBOARD, ENTER, true), []);
    seat.feed(Input::Shown(7, true));
    seat.now += Duration::from_millis(1);
    assert_eq!(seat.press(KEYBOARD, ENTER, true), [], "held since before");
    seat.press(KEYBOARD, ENTER, false);
    // The screen went dark and came back.
    seat.feed(Input::Shown(7, false));
    assert_eq!(seat.all(&enter), []);
    seat.feed(Input::Shown(7, true));
    assert_eq!(seat.all(&enter), []);
    seat.now += READ_FOR;
    assert_eq!(seat.all(&enter), [Output::Answered(7, true)]);
}

#[test]
fn a_question_that_nobody_answers_is_answered_no() {
    let mut seat = Seat::new();
    seat.feed(Input::Ask(7));
    assert_eq!(seat.core.deadline(), Some(OPEN_FOR));
    seat.now = OPEN_FOR - Duration::from_millis(1);
    assert_eq!(seat.feed(Input::Tick), []);
    seat.now = OPEN_FOR;
    assert_eq!(seat.feed(Input::Tick), [Output::Answered(7, false)]);
    assert_eq!(seat.press(KEYBOARD, ENTER, true), [told(0, ENTER, 1)]);
}

#[test]
fn a_key_on_two_devices_is_up_when_both_let_go() {
    let mut seat = Seat::new();
    assert_eq!(seat.press(KEYBOARD, A, true), [told(0, A, 1)]);
    assert_eq!(seat.press(SECOND, A, true), []);
    assert_eq!(seat.press(KEYBOARD, A, false), []);
    assert_eq!(seat.press(SECOND, A, false), [told(0, A, 0)]);
}
