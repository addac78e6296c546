//! Whatever happens at the seat, in whichever order, its promises hold.

use proptest::prelude::*;
use seat_link::Rect;

use super::onlooker::Onlooker;
use super::*;

/// Makes everything that can happen, weighted so that hotkeys do.
fn input() -> impl Strategy<Value = Input> {
    let code = prop::sample::select(vec![
        CTRL, RIGHT_CTRL, ALT, SHIFT, ONE, TWO, A, B, C, L, ENTER, HANGUL, LEFT, 0x111, V,
    ]);
    let device = prop::sample::select(vec![KEYBOARD, SECOND, MOUSE, SCANNER, 9]);
    let motion = prop_oneof![
        (-70i32..70, -70i32..70).prop_map(|(x, y)| Motion::By(x, y)),
        (0..=POSITION_MAX, 0..=POSITION_MAX).prop_map(|(x, y)| Motion::To(x, y)),
    ];
    let key = (device.clone(), code, any::<bool>()).prop_map(|(device, code, down)| {
        Input::Report(device, Report { keys: vec![(code, down)], ..Report::default() })
    });
    let moved = (device.clone(), motion).prop_map(|(device, motion)| {
        Input::Report(device, Report { motion: Some(motion), ..Report::default() })
    });
    let wheel = (device.clone(), -3i32..3).prop_map(|(device, value)| {
        Input::Report(device, Report { wheel: vec![(8, value)], ..Report::default() })
    });
    let size = (0u32..100, 0u32..60).prop_map(|(width, height)| {
        let mut other = geometry();
        other.pictures[0] = Rect { x: 0, y: BANNER, width, height };
        Input::Geometry(other)
    });
    prop_oneof![
        20 => key,
        4 => moved,
        2 => wheel,
        1 => (0usize..4).prop_map(Input::Switch),
        1 => Just(Input::Lock),
        2 => Just(Input::Unlock),
        1 => (0u64..3).prop_map(Input::Ask),
        1 => (0u64..3, 0usize..4).prop_map(|(id, choices)| Input::Choose(id, choices)),
        1 => (0u64..3, any::<bool>()).prop_map(|(id, shown)| Input::Shown(id, shown)),
        1 => (0u64..3).prop_map(Input::Withdraw),
        1 => Just(Input::Tick),
        1 => size,
        1 => device.clone().prop_map(Input::Unplugged),
        1 => (device, prop::option::of(0usize..3)).prop_map(|(id, pin)| Input::Plugged(id, pin)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_promises_hold(
        inputs in prop::collection::vec((prop::sample::select(vec![0, 1, 100, 500, 9000]), input()), 1..80)
    ) {
        let mut seat = Seat::new();
        let mut onlooker = Onlooker::of(&seat);
        for (passed, input) in inputs {
            seat.now += Duration::from_millis(passed);
            onlooker.sees(&mut seat, &input)?;
        }
    }

    #[test]
    fn from_rest_a_chord_tells_nobody_anything(
        order in prop::sample::select(vec![[CTRL, ALT], [ALT, CTRL], [RIGHT_CTRL, ALT], [ALT, RIGHT_CTRL]]),
        key in prop::sample::select(vec![ONE, TWO, C, V, L, B]),
        keep in any::<bool>(),
    ) {
        let mut seat = Seat::new();
        let mut out = Vec::new();
        for code in order {
            out.extend(seat.press(KEYBOARD, code, true));
        }
        out.extend(seat.press(SECOND, key, true));
        let mut ups = order.to_vec();
        if keep {
            ups.reverse();
        }
        for code in ups {
            out.extend(seat.press(KEYBOARD, code, false));
        }
        out.extend(seat.press(SECOND, key, false));
        let told = out.iter().any(|output| matches!(output, Output::Send(..)));
        prop_assert!(!told, "{:?}", out);
    }
}
