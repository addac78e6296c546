use super::super::codes::{
    ABS_MT_TOOL_TYPE, ABS_MT_TRACKING_ID, BTN_TOOL_DOUBLETAP, BTN_TOOL_FINGER, BTN_TOOL_TRIPLETAP,
    SYN_DROPPED,
};
use super::super::facts;
use super::super::tests::{Play, at, down, key, pad, up, with_axes};
use super::*;
use crate::core::codes::{BTN_TOUCH, EV_ABS, EV_KEY};
use crate::core::{Motion, Report};
use clock::Moment;

type Raw = Vec<(u16, u16, i32)>;

/// 40 units are a millimetre; the pad is 100 by 60 of them, the buttons are the last ten.
const MM: i32 = 40;
const MIDDLE: (i32, i32) = (50 * MM, 30 * MM);

/// What a pad said, put together.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sum {
    by: (i32, i32),
    keys: Vec<(u16, bool)>,
    /// Sideways and down, whole and fine.
    wheel: (i32, i32),
    fine: (i32, i32),
}

fn sum(reports: impl IntoIterator<Item = Report>) -> Sum {
    let mut sum = Sum::default();
    for report in reports {
        sum.keys.extend(report.keys);
        if let Some(motion) = report.motion {
            let Motion::By(x, y) = motion else { panic!("a pad says where: {motion:?}") };
            sum.by = (sum.by.0 + x, sum.by.1 + y);
        }
        for (code, value) in report.wheel {
            *match code {
                REL_HWHEEL => &mut sum.wheel.0,
                REL_WHEEL => &mut sum.wheel.1,
                REL_HWHEEL_HI_RES => &mut sum.fine.0,
                _ => &mut sum.fine.1,
            } += value;
        }
    }
    sum
}

/// Has the first finger, or all of them, come or go.
fn touch(fingers: Raw) -> Raw {
    [fingers, key(BTN_TOUCH, true), key(BTN_TOOL_FINGER, true)].concat()
}

fn lift(fingers: Raw) -> Raw {
    [fingers, key(BTN_TOUCH, false), key(BTN_TOOL_FINGER, false)].concat()
}

fn click(button: u16) -> Vec<(u16, bool)> {
    vec![(button, true), (button, false)]
}

impl Play {
    /// Moves the fingers by this many millimetres, in as many steps.
    fn go(&mut self, from: &[(i32, i32)], by: (i32, i32), steps: i32) -> Sum {
        let place = |at: i32, by: i32, step: i32| at + by * MM * step / steps;
        let mut reports = Vec::new();
        for step in 1..=steps {
            let fingers = from.iter().zip(0..);
            let events = fingers
                .flat_map(|((x, y), slot)| at(slot, place(*x, by.0, step), place(*y, by.1, step)));
            reports.extend(self.frame(&events.collect::<Raw>()));
        }
        sum(reports)
    }

    fn wait(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    fn sum(&mut self, events: Raw) -> Sum {
        sum(self.frame(&events))
    }

    /// Puts a finger in the middle, which lies there for long enough to move at once.
    fn resting(facts: EventCapabilities) -> Self {
        let mut play = Self::new(facts);
        assert_eq!(play.sum(touch(down(0, 1, MIDDLE.0, MIDDLE.1))), Sum::default());
        play.wait(300);
        assert_eq!(play.sum(at(0, MIDDLE.0 + 1, MIDDLE.1)), Sum::default());
        play
    }
}

#[test]
fn a_finger_moves_the_pointer_and_touching_presses_nothing() {
    let mut play = Play::resting(pad());
    // Slow: one millimetre in ten reports of eight milliseconds.
    let moved = play.go(&[MIDDLE], (1, 0), 10);
    assert!((8..=10).contains(&moved.by.0) && moved.by.1 == 0, "{moved:?}");
    let from = (MIDDLE.0 + MM, MIDDLE.1);
    let fast = play.go(&[from], (-20, -20), 4);
    assert!(fast.by.0 < -600 && fast.by.1 < -600, "{fast:?}");
    assert_eq!(play.sum(lift(up(0))), Sum::default());
}

#[test]
fn a_pad_whose_fingers_repeat_like_keys_moves_as_one_whose_do_not() {
    // Some drivers let the kernel repeat what is down: reports that say nothing else, a millisecond before the next.
    let steps = |play: &mut Play, repeats: bool| {
        let mut said = Vec::new();
        for step in 1..=20 {
            play.now -= Duration::from_millis(4);
            if repeats {
                said.extend(play.frame(&[(EV_KEY, BTN_TOOL_FINGER, 2)]));
            } else {
                play.wait(8);
            }
            play.now -= Duration::from_millis(4);
            said.extend(play.frame(&at(0, MIDDLE.0 + step * MM / 2, MIDDLE.1)));
        }
        sum(said)
    };
    let [plain, repeating] = [false, true].map(|repeats| steps(&mut Play::resting(pad()), repeats));
    assert_eq!(plain, repeating);
    assert!(plain.by.0 > 60, "{plain:?}");
}

#[test]
fn a_finger_that_rests_moves_nothing() {
    let mut play = Play::new(pad());
    play.frame(&touch(down(0, 1, MIDDLE.0, MIDDLE.1)));
    let moved = play.go(&[MIDDLE], (1, 1), 15);
    assert_eq!(moved, Sum::default(), "it may be a tap yet");
    let from = (MIDDLE.0 + MM, MIDDLE.1 + MM);
    let moved = play.go(&[from], (10, 0), 20);
    assert!(moved.by.0 > 50 && moved.by.1 == 0, "{moved:?}");
}

#[test]
fn one_two_and_three_fingers_tap_left_right_and_middle() {
    for (fingers, button) in [(1, BTN_LEFT), (2, BTN_RIGHT), (3, BTN_MIDDLE)] {
        let mut play = Play::new(pad());
        for round in 0..2 {
            let mut said = Vec::new();
            for slot in 0..fingers {
                let finger = down(slot, 10 * round + slot, (20 + 15 * slot) * MM, MIDDLE.1);
                said.extend(play.frame(&touch(finger)));
            }
            play.wait(60);
            for slot in 1..fingers {
                said.extend(play.frame(&up(slot)));
            }
            said.extend(play.frame(&lift(up(0))));
            assert_eq!(
                sum(said),
                Sum { keys: click(button), ..Sum::default() },
                "{fingers} fingers"
            );
            play.wait(100);
        }
    }
}

#[test]
fn a_touch_that_is_long_or_moves_taps_nothing() {
    let mut play = Play::resting(pad());
    assert_eq!(play.sum(lift(up(0))), Sum::default(), "long");
    play.frame(&touch(down(0, 2, MIDDLE.0, MIDDLE.1)));
    assert_eq!(play.go(&[MIDDLE], (3, 0), 4).keys, []);
    assert_eq!(play.sum(lift(up(0))).keys, [], "moved");
    // A second finger that taps while the first lies there.
    let mut play = Play::resting(pad());
    play.frame(&down(1, 2, 20 * MM, MIDDLE.1));
    assert_eq!(play.sum(up(1)), Sum::default());
    assert_eq!(play.sum(lift(up(0))), Sum::default());
}

#[test]
fn two_fingers_turn_the_wheel_and_what_is_shown_follows_them() {
    let fingers = [(30 * MM, 20 * MM), (50 * MM, 20 * MM)];
    let land = |play: &mut Play| {
        let both = [down(0, 1, fingers[0].0, fingers[0].1), down(1, 2, fingers[1].0, fingers[1].1)];
        play.frame(&touch(both.concat()));
    };
    let mut play = Play::new(pad());
    land(&mut play);
    let turned = play.go(&fingers, (1, 20), 40);
    assert_eq!((turned.by, &turned.keys[..], turned.fine.0), ((0, 0), &[][..], 0));
    assert!((240..=300).contains(&turned.fine.1), "{turned:?}");
    assert_eq!(turned.wheel, (0, turned.fine.1 / 120));
    assert_eq!(play.sum(lift([up(0), up(1)].concat())), Sum::default());
    land(&mut play);
    let sideways = play.go(&fingers, (20, 0), 40);
    assert!(
        sideways.fine.0 < -240 && sideways.fine.1 == 0 && sideways.wheel.0 == -2,
        "{sideways:?}"
    );
}

#[test]
fn a_finger_that_comes_or_goes_makes_no_jump() {
    let mut play = Play::resting(pad());
    let other = (70 * MM, 10 * MM);
    assert_eq!(
        play.sum([at(0, MIDDLE.0 + 8 * MM, MIDDLE.1), down(1, 2, other.0, other.1)].concat()),
        Sum::default()
    );
    assert_eq!(play.sum([up(0), at(1, other.0 + 8 * MM, other.1)].concat()), Sum::default());
    // Another finger in the same slot, without a word of the first having gone.
    assert_eq!(play.sum(down(1, 3, 20 * MM, 40 * MM)), Sum::default());
    // A way that no finger goes in eight milliseconds.
    play.wait(300);
    assert_eq!(play.sum(at(1, 20 * MM + 1, 40 * MM)), Sum::default());
    assert_eq!(play.sum(at(1, 60 * MM, 10 * MM)), Sum::default());
    assert!(play.sum(at(1, 61 * MM, 10 * MM)).by.0 > 0);
}

#[test]
fn a_press_at_the_bottom_right_or_with_two_fingers_is_a_right_click() {
    let low = 57 * MM;
    type Press = (&'static str, Vec<(i32, i32)>, u16);
    let cases: [Press; 8] = [
        ("in the middle", vec![MIDDLE], BTN_LEFT),
        ("at the bottom left", vec![(20 * MM, low)], BTN_LEFT),
        ("at the bottom right", vec![(80 * MM, low)], BTN_RIGHT),
        ("in the corner at the right", vec![(99 * MM, low)], BTN_RIGHT),
        ("with two fingers", vec![MIDDLE, (70 * MM, 30 * MM)], BTN_RIGHT),
        ("with three", vec![MIDDLE, (70 * MM, 30 * MM), (30 * MM, 30 * MM)], BTN_MIDDLE),
        ("with the thumb at the left, a finger above", vec![(20 * MM, low), MIDDLE], BTN_LEFT),
        ("with nothing that is told of", vec![], BTN_LEFT),
    ];
    for (name, fingers, button) in cases {
        let mut play = Play::new(pad());
        let landing = fingers.iter().zip(0..).flat_map(|((x, y), slot)| down(slot, slot, *x, *y));
        play.frame(&touch(landing.collect()));
        play.wait(300);
        assert_eq!(play.sum(key(BTN_LEFT, true)).keys, [(button, true)], "{name}");
        // It is let go as what it was pressed as, wherever the finger is by then.
        play.frame(&at(0, 10 * MM, 10 * MM));
        assert_eq!(play.sum(key(BTN_LEFT, false)).keys, [(button, false)], "{name}");
        let gone = (0..3).flat_map(up).collect();
        assert_eq!(play.sum(lift(gone)).keys, [], "{name}: a press is no tap");
    }
}

#[test]
fn a_pad_with_buttons_of_its_own_presses_those() {
    let facts = facts::tests::facts("e520 70000 0 0 0 0", "6e1800001000003", "0", "1");
    let mut play = Play::new(with_axes(facts, 5));
    play.frame(&touch(down(0, 1, 80 * MM, 57 * MM)));
    for button in [BTN_LEFT, BTN_RIGHT, BTN_MIDDLE] {
        assert_eq!(play.sum(key(button, true)).keys, [(button, true)]);
        assert_eq!(play.sum(key(button, false)).keys, [(button, false)]);
    }
}

#[test]
fn one_finger_presses_and_another_drags() {
    let mut play = Play::new(pad());
    play.frame(&touch(down(0, 1, 20 * MM, 57 * MM)));
    assert_eq!(play.sum(key(BTN_LEFT, true)).keys, [(BTN_LEFT, true)]);
    play.frame(&down(1, 2, MIDDLE.0, MIDDLE.1));
    let places = [(20 * MM, 57 * MM), MIDDLE];
    let dragged = |play: &mut Play| {
        let steps =
            (1..=20).map(|step| play.frame(&at(1, places[1].0 + step * MM / 2, places[1].1)));
        sum(steps.collect::<Vec<_>>().concat())
    };
    let moved = dragged(&mut play);
    assert!(moved.by.0 > 80 && moved.by.1 == 0 && moved.fine == (0, 0), "{moved:?}");
    assert_eq!(play.sum(key(BTN_LEFT, false)).keys, [(BTN_LEFT, false)]);
}

#[test]
fn a_thumb_that_rests_at_the_bottom_turns_no_pointing_into_scrolling() {
    let mut play = Play::new(pad());
    play.frame(&touch(down(1, 1, 30 * MM, 57 * MM)));
    play.wait(500);
    play.frame(&down(0, 2, MIDDLE.0, MIDDLE.1));
    let moved = play.go(&[MIDDLE], (10, 0), 20);
    assert!(moved.by.0 > 60 && moved.fine == (0, 0), "{moved:?}");
    play.frame(&up(0));
    play.wait(200);
    // And a finger taps beside it.
    play.frame(&down(0, 3, MIDDLE.0, MIDDLE.1));
    play.wait(50);
    assert_eq!(play.sum(up(0)).keys, click(BTN_LEFT));
}

#[test]
fn a_palm_moves_and_taps_nothing_however_it_is_known() {
    let ways: [(&str, (i32, i32), Raw); 6] = [
        ("the device says so", MIDDLE, vec![(EV_ABS, ABS_MT_TOOL_TYPE, 2)]),
        ("it presses hard", MIDDLE, vec![(EV_ABS, ABS_MT_PRESSURE, 180)]),
        ("it is large", MIDDLE, vec![(EV_ABS, ABS_MT_TOUCH_MAJOR, 35 * MM)]),
        ("at the left", (3 * MM, 30 * MM), vec![]),
        ("at the right", (97 * MM, 30 * MM), vec![]),
        ("at the top", (50 * MM, 3 * MM), vec![]),
    ];
    for (name, place, how) in ways {
        let mut play = Play::new(pad());
        let landing = [down(0, 1, place.0, place.1), how].concat();
        assert_eq!(play.sum(touch(landing)), Sum::default(), "{name}");
        let inwards = if name == "at the top" { (5, 0) } else { (0, 5) };
        assert_eq!(play.go(&[place], inwards, 40), Sum::default(), "{name}");
        assert_eq!(play.sum(lift(up(0))), Sum::default(), "{name}");
        play.wait(100);
        let again = if how_is_of_the_slot(name) { continue } else { down(0, 2, place.0, place.1) };
        play.frame(&touch(again));
        assert_eq!(play.sum(lift(up(0))), Sum::default(), "{name}: a short one");
    }
    // A finger beside it works, and a finger that turns out a palm taps nothing.
    let mut play = Play::new(pad());
    play.frame(&touch(
        [down(1, 1, 97 * MM, 30 * MM), vec![(EV_ABS, ABS_MT_TOOL_TYPE, 2)]].concat(),
    ));
    play.wait(300);
    play.frame(&down(0, 2, MIDDLE.0, MIDDLE.1));
    assert!(play.go(&[MIDDLE], (10, 0), 20).by.0 > 60);
    let mut play = Play::new(pad());
    play.frame(&touch(down(0, 1, MIDDLE.0, MIDDLE.1)));
    play.frame(&[(EV_ABS, ABS_MT_TOOL_TYPE, 2)]);
    assert_eq!(play.sum(lift(up(0))), Sum::default());
}

/// Returns whether the next contact of the slot is a palm as well, because the kernel says nothing else.
fn how_is_of_the_slot(name: &str) -> bool {
    !name.starts_with("at")
}

#[test]
fn a_finger_that_comes_in_quickly_over_the_edge_moves_the_pointer() {
    let mut play = Play::new(pad());
    play.frame(&touch(down(0, 1, 99 * MM, 30 * MM)));
    let moved = play.go(&[(99 * MM, 30 * MM)], (-40, 0), 12);
    assert!(moved.by.0 < -200, "{moved:?}");
}

#[test]
fn what_touches_the_pad_while_somebody_types_is_a_palm() {
    let mut play = Play::new(pad());
    play.typed = Some(Moment::since_start(play.now));
    play.wait(100);
    play.frame(&touch(down(0, 1, MIDDLE.0, MIDDLE.1)));
    assert_eq!(play.sum(lift(up(0))), Sum::default());
    play.wait(400);
    play.frame(&touch(down(0, 2, MIDDLE.0, MIDDLE.1)));
    assert_eq!(play.sum(lift(up(0))).keys, click(BTN_LEFT));
}

#[test]
fn fingers_that_a_pad_only_counts_count() {
    // One place, two fingers: an older pad.
    let facts = facts::tests::facts("6420 30000 0 0 0 0", "1000003", "0", "1");
    let single = |x, y| vec![(EV_ABS, ABS_X, x), (EV_ABS, ABS_Y, y)];
    let mut play = Play::new(with_axes(facts, 1));
    play.frame(&touch(single(MIDDLE.0, MIDDLE.1)));
    let two =
        [key(BTN_TOOL_FINGER, false), key(BTN_TOOL_DOUBLETAP, true), single(60 * MM, 20 * MM)];
    assert_eq!(play.sum(two.concat()), Sum::default(), "the place jumps");
    let turned = (1..=40).map(|step| play.frame(&single(60 * MM, 20 * MM + step * MM / 2)));
    let turned = sum(turned.collect::<Vec<_>>().concat());
    assert!(turned.by == (0, 0) && turned.fine.1 > 240, "{turned:?}");
    // Two places, three fingers.
    let facts = facts::tests::facts("e420 70000 0 0 0 0", "260800001000003", "0", "8");
    let mut play = Play::new(with_axes(facts, 2));
    let landing = [down(0, 1, MIDDLE.0, MIDDLE.1), down(1, 2, 60 * MM, MIDDLE.1)].concat();
    play.frame(&[landing, key(BTN_TOUCH, true), key(BTN_TOOL_TRIPLETAP, true)].concat());
    play.wait(60);
    let gone = [up(0), up(1), key(BTN_TOUCH, false), key(BTN_TOOL_TRIPLETAP, false)].concat();
    assert_eq!(play.sum(gone).keys, click(BTN_MIDDLE));
}

#[test]
fn a_count_that_the_driver_never_takes_back_turns_no_pointing_into_scrolling() {
    let mut play = Play::new(pad());
    play.frame(&touch([down(0, 1, MIDDLE.0, MIDDLE.1), key(BTN_TOOL_TRIPLETAP, true)].concat()));
    play.wait(300);
    assert!(play.go(&[MIDDLE], (10, 0), 20).by.0 > 60);
}

#[test]
fn after_lost_events_a_pad_starts_with_nothing_on_it() {
    let mut play = Play::resting(pad());
    play.frame(&key(BTN_LEFT, true));
    play.raw(&[(0, SYN_DROPPED, 0)]);
    assert_eq!(play.go(&[MIDDLE], (10, 0), 10), Sum::default());
    assert_eq!(play.sum(key(BTN_LEFT, false)), Sum::default(), "it was let go with the rest");
    play.frame(&lift(up(0)));
    play.frame(&touch(vec![(EV_ABS, ABS_MT_TRACKING_ID, 9)]));
    assert_eq!(play.sum(at(0, 1000, 1000)), Sum::default(), "where it is was not said before");
    play.wait(300);
    assert!(play.go(&[(1000, 1000)], (10, 0), 20).by.0 > 60);
}

#[test]
fn whatever_the_clock_says_a_finger_moves_and_taps_nothing_it_should_not() {
    let mut play = Play::resting(pad());
    play.now = Duration::ZERO;
    let moved = play.go(&[MIDDLE], (10, 0), 20);
    assert!((60..=400).contains(&moved.by.0), "{moved:?}");
    assert_eq!(play.sum(vec![(EV_KEY, BTN_TOUCH, 0)]), Sum::default());
}

#[test]
fn a_time_of_typing_that_is_still_to_come_leaves_the_pad_working() {
    let mut play = Play::new(pad());
    play.typed = Some(Moment::since_start(play.now + Duration::from_secs(9 * 3600)));
    let mut moved = 0;
    for round in 0..20 {
        play.wait(60_000);
        play.sum(touch(down(0, round + 1, MIDDLE.0, MIDDLE.1)));
        play.wait(300);
        play.sum(at(0, MIDDLE.0 + 1, MIDDLE.1));
        moved += i32::from(play.go(&[MIDDLE], (20, 0), 20).by.0 != 0);
        play.sum(lift(up(0)));
    }
    assert_eq!(moved, 20);
}
