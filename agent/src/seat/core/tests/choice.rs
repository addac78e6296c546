//! Questions with a list to choose from.

use super::*;

const ESCAPE: u16 = 1;
const NINE: u16 = 10;
const UP: u16 = 103;
const DOWN: u16 = 108;
const KEYPAD_TWO: u16 = 80;

/// A seat that asks with so many to choose from, for long enough to be read.
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
fn a_digit_chooses_and_no_guest_hears_it() {
    for (code, chosen) in [(ONE, 0), (TWO, 1), (KEYPAD_TWO, 1)] {
        let mut seat = asked(3);
        assert_eq!(seat.tap(code), [Output::Chosen(7, chosen)]);
        assert_eq!(seat.tap(A), [told(0, A, 1), told(0, A, 0)], "it is answered");
    }
}

#[test]
fn a_digit_beyond_the_list_and_every_other_key_choose_nothing() {
    let mut seat = asked(3);
    // Enter before anything is marked, Y and N, which answer other questions, and a letter.
    for code in [NINE, ENTER, 21, 49, A] {
        assert_eq!(seat.tap(code), [], "{code}");
    }
    assert_eq!(seat.tap(ONE), [Output::Chosen(7, 0)], "it is still asked");
}

#[test]
fn the_arrows_mark_round_and_round_and_enter_chooses_what_is_marked() {
    let mut seat = asked(3);
    for (code, marked) in [(DOWN, 0), (DOWN, 1), (DOWN, 2), (DOWN, 0), (UP, 2), (UP, 1)] {
        assert_eq!(seat.tap(code), [Output::Marked(7, marked)]);
    }
    assert_eq!(seat.tap(ENTER), [Output::Chosen(7, 1)]);
    let mut seat = asked(3);
    assert_eq!(seat.tap(UP), [Output::Marked(7, 2)], "up from nothing is the last");
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
    assert_eq!(seat.tap(ONE), [Output::Chosen(7, 0)]);
}

#[test]
fn a_list_of_nothing_can_only_be_left() {
    let mut seat = asked(0);
    for code in [ONE, UP, DOWN, ENTER] {
        assert_eq!(seat.tap(code), [], "{code}");
    }
    assert_eq!(seat.tap(ESCAPE), [Output::Answered(7, false)]);
}
