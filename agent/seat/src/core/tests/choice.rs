//! Questions with a list to choose from.

use proptest::prelude::*;

use super::*;

const ESCAPE: u16 = 1;
const NINE: u16 = 10;
const UP: u16 = 103;
const DOWN: u16 = 108;
const KEYPAD_TWO: u16 = 80;
/// What scanners type: digits, letters (Y among them), Shift, the minus, the arrows of those that are set up badly.
const TYPED: [u16; 19] =
    [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 21, A, B, C, SHIFT, 12, KEYPAD_TWO, UP, DOWN];

/// Makes a seat that asks with so many to choose from, for long enough to be read.
fn asked(choices: usize) -> Seat {
    let mut seat = Seat::new();
    assert_eq!(seat.feed(Input::Choose(7, choices)), []);
    seat.feed(Input::Shown(7, true));
    seat.now += READ_FOR;
    seat
}

impl Seat {
    fn tap(&mut self, code: u16) -> Vec<Output> {
        self.all(&[(code, true), (code, false)])
    }
}

#[test]
fn a_digit_only_marks_enter_chooses_and_no_guest_hears_either() {
    for (code, chosen) in [(ONE, 0), (TWO, 1), (KEYPAD_TWO, 1)] {
        let mut seat = asked(3);
        assert_eq!(seat.tap(code), [Output::Marked(7, chosen)]);
        seat.now += READ_FOR;
        assert_eq!(seat.tap(ENTER), [Output::Chosen(7, chosen)]);
        assert_eq!(seat.tap(A), [told(0, A, 1), told(0, A, 0)], "it is answered");
    }
}

#[test]
fn a_digit_beyond_the_list_and_every_other_key_mark_and_choose_nothing() {
    let mut seat = asked(3);
    // Enter before anything is marked, Y and N, which answer nothing here, and a letter.
    for code in [NINE, ENTER, 21, 49, A] {
        assert_eq!(seat.tap(code), [], "{code}");
        seat.now += READ_FOR;
    }
    assert_eq!(seat.tap(ONE), [Output::Marked(7, 0)], "it is still asked");
}

#[test]
fn the_arrows_mark_round_and_round_and_enter_chooses_what_is_marked() {
    let mut seat = asked(3);
    for (code, marked) in [(DOWN, 0), (DOWN, 1), (DOWN, 2), (DOWN, 0), (UP, 2), (UP, 1)] {
        assert_eq!(seat.tap(code), [Output::Marked(7, marked)]);
    }
    seat.now += READ_FOR;
    assert_eq!(seat.tap(ENTER), [Output::Chosen(7, 1)]);
    let mut seat = asked(3);
    assert_eq!(seat.tap(UP), [Output::Marked(7, 2)], "up from nothing is the last");
}

#[test]
fn who_presses_enter_again_and_again_chooses_as_soon_as_who_waits() {
    let mut seat = asked(3);
    seat.tap(TWO);
    let mut presses = 0;
    while !seat.tap(ENTER).contains(&Output::Chosen(7, 1)) {
        seat.now += Duration::from_millis(100);
        presses += 1;
        assert!(presses <= 6, "half a second after the digit at the latest");
    }
    assert!(presses >= 5, "and not before");
}

#[test]
fn enter_counts_only_if_no_key_was_pressed_for_half_a_second_before_it() {
    let just_before = READ_FOR - Duration::from_millis(1);
    for between in [ONE, DOWN, A, SHIFT, NINE] {
        let mut seat = asked(3);
        seat.tap(TWO);
        seat.now += READ_FOR;
        seat.tap(between);
        seat.now += just_before;
        assert_eq!(seat.tap(ENTER), [], "{between}");
        // Who presses Enter again and again gets there as soon as who waits.
        seat.now += READ_FOR - just_before;
        let chosen = seat.tap(ENTER);
        assert!(matches!(chosen.as_slice(), [Output::Chosen(7, _)]), "{between}: {chosen:?}");
    }
    // What a pinned device types is its domain's, and holds nobody at the seat up.
    let mut seat = asked(3);
    seat.tap(TWO);
    seat.now += READ_FOR;
    assert_eq!(seat.press(SCANNER, A, true), [told(1, A, 1)]);
    assert_eq!(seat.tap(ENTER), [Output::Chosen(7, 1)]);
}

proptest! {
    #[test]
    fn what_a_scanner_types_opens_no_list_and_says_yes_to_no_question(
        choices in prop::option::of(0usize..=9),
        waits in 0u64..2_000,
        marked in prop::option::of(0u16..9),
        codes in prop::collection::vec((prop::sample::select(TYPED.to_vec()), 0u64..500), 1..30),
    ) {
        let mut seat = Seat::new();
        seat.feed(choices.map_or(Input::Ask(7), |choices| Input::Choose(7, choices)));
        seat.feed(Input::Shown(7, true));
        seat.now += READ_FOR;
        if let Some(marked) = marked {
            seat.tap(ONE + marked);
        }
        seat.now += Duration::from_millis(waits);
        // The code itself, each key sooner than half a second after the one before it, and Enter at its end.
        for (code, after) in codes.into_iter().chain([(ENTER, 5)]) {
            let out = seat.tap(code);
            let opened = out.iter().any(|output| {
                matches!(output, Output::Chosen(..) | Output::Answered(_, true))
            });
            prop_assert!(!opened, "{out:?}");
            seat.now += Duration::from_millis(after);
        }
    }
}

#[test]
fn escape_a_switch_the_lock_and_time_leave_a_list_with_nothing_chosen() {
    assert_eq!(asked(3).tap(ESCAPE), [Output::Answered(7, false)]);
    assert_eq!(asked(3).chord(TWO), [Output::Answered(7, false), TO_INTERNET]);
    let locked = [Output::Answered(7, false), Output::Locked { idle: false }];
    assert_eq!(asked(3).feed(Input::Lock), locked);
    let mut seat = asked(3);
    seat.now += OPEN_FOR;
    assert_eq!(seat.feed(Input::Tick), [Output::Answered(7, false)]);
}

#[test]
fn nothing_is_chosen_or_marked_before_the_list_has_been_on_the_screen_for_half_a_second() {
    let mut seat = Seat::new();
    seat.feed(Input::Choose(7, 3));
    seat.feed(Input::Shown(7, true));
    seat.now += READ_FOR - Duration::from_millis(1);
    for code in [DOWN, ENTER, ONE, ESCAPE] {
        assert_eq!(seat.tap(code), [], "{code}");
    }
    seat.now += Duration::from_millis(1);
    assert_eq!(seat.tap(ENTER), [], "nothing was marked");
    assert_eq!(seat.tap(ONE), [Output::Marked(7, 0)]);
}

#[test]
fn a_list_of_nothing_can_only_be_left() {
    let mut seat = asked(0);
    for code in [ONE, UP, DOWN, ENTER] {
        assert_eq!(seat.tap(code), [], "{code}");
    }
    assert_eq!(seat.tap(ESCAPE), [Output::Answered(7, false)]);
}
