//! Pads and touch screens at the seat, as the kernel tells of them (`Documentation/input/multi-touch-protocol.rst`, type B).

use serde_json::{Value, json};
use tests::agent::Agent;
use tests::guest::Probe;
use tests::seat::Person;
use tests::ward::Ward;
use tests::ward_test;
use tests::{Outcome, ensure};

use super::seat::{
    GREEN, RED, SOON, events, in_front, keys, saw, tab_of, typed, wait_for, with_seat,
};

/// 100 by 60 mm, 40 units each.
const WIDTH: i32 = 4000;
const HEIGHT: i32 = 2400;
const MM: i32 = 40;

const EV_KEY: i32 = 1;
const EV_ABS: i32 = 3;
const BTN_LEFT: u64 = 0x110;
const BTN_TOUCH: i32 = 0x14a;
const BTN_TOOL_FINGER: i32 = 0x145;
const POINTER: u64 = 0;
const DIRECT: u64 = 1;
const BUTTONPAD: u64 = 2;
/// The last position on either axis of a guest's pointer.
const LAST: i64 = 32767;

fn surface(keys: &[u64], properties: &[u64]) -> Value {
    let axes = [
        [0x00, WIDTH, MM], // ABS_X
        [0x01, HEIGHT, MM],
        [0x2f, 9, 0], // ABS_MT_SLOT
        [0x35, WIDTH, MM],
        [0x36, HEIGHT, MM],
        [0x39, 65535, 0], // ABS_MT_TRACKING_ID
    ];
    json!({"keys": keys, "axes": axes, "properties": properties})
}

/// Makes the report in which a finger is there; `touch`, if it is the first.
fn finger(slot: i32, number: i32, (x, y): (i32, i32), touch: &[i32]) -> Vec<[i32; 3]> {
    let mut events =
        vec![[EV_ABS, 0x2f, slot], [EV_ABS, 0x39, number], [EV_ABS, 0x35, x], [EV_ABS, 0x36, y]];
    if slot == 0 {
        events.extend([[EV_ABS, 0, x], [EV_ABS, 1, y]]);
    }
    events.extend(touch.iter().map(|key| [EV_KEY, *key, 1]));
    events
}

fn gone(slot: i32, touch: &[i32]) -> Vec<[i32; 3]> {
    let events = [[EV_ABS, 0x2f, slot], [EV_ABS, 0x39, -1]];
    events.into_iter().chain(touch.iter().map(|key| [EV_KEY, *key, 0])).collect()
}

/// Returns the last place on an axis that a guest was told of; nothing, if of none.
fn last(events: &[Value], axis: u64) -> Option<i64> {
    let of_axis = |event: &&Value| event[0] == EV_ABS && event[1] == axis;
    events.iter().rev().find(of_axis)?[2].as_i64()
}

/// Returns the same of a guest that is told soon.
fn last_soon(probe: &Probe<'_>, axis: u64) -> Outcome<i64> {
    let mut at = None;
    wait_for("a place of the pointer", || {
        at = last(&events(probe)?, axis).or(at);
        Ok(at.is_some())
    })?;
    Ok(at.unwrap_or_default())
}

/// Has a device at the seat while something is done.
fn with_surface(
    ward: &Ward,
    agent: &Agent<'_>,
    (name, surface): (&str, Value),
    doing: impl FnOnce() -> Outcome,
) -> Outcome {
    let pointers = || Ok::<_, tests::Failure>(agent.status()?["seat"]["pointers"].as_u64());
    let before = pointers()?;
    ward.pc.plug_surface(name, &surface)?;
    wait_for("one more pointer", || Ok(pointers()? > before))?;
    let result = doing();
    ward.pc.pull_keyboard(name)?;
    wait_for("it is gone again", || Ok(pointers()? == before))?;
    result
}

/// Returns where the tab of the Internet domain is on a surface that covers the screen.
fn tab_on_surface(person: &mut Person<'_>) -> Outcome<(i32, i32)> {
    let tab = tab_of(&person.look()?, RED).ok_or("no tab of the Internet domain in the banner")?;
    Ok((i32::try_from(tab)? * WIDTH / 32767, HEIGHT / 100))
}

#[ward_test]
fn a_finger_on_a_touchpad_moves_the_pointer_and_a_tap_clicks_in_the_guest_and_presses_no_tab(
    ward: &Ward,
) -> Outcome {
    const TOUCH: [i32; 2] = [BTN_TOUCH, BTN_TOOL_FINGER];
    let keys_of_pad = [BTN_LEFT, 0x14a, 0x145, 0x14d, 0x14e];
    let pad = ("touchpad", surface(&keys_of_pad, &[POINTER, BUTTONPAD]));
    let tap = |number: i32, at: (i32, i32), clock: i64| {
        json!([
            {"events": finger(0, number, at, &TOUCH)},
            {"after_ms": 30, "set_clock_by_s": clock, "events": gone(0, &TOUCH)},
        ])
    };
    let middle = (WIDTH / 2, HEIGHT / 2);
    with_seat(ward, |agent, person, [clinical, internet]| {
        let tab = tab_on_surface(person)?;
        with_surface(ward, agent, pad, || {
            ward.pc.progress("a finger where on a touch screen the tab would be");
            ward.pc.play("touchpad", &tap(1, tab, 0))?;
            ward.pc.progress("a tap, and one while the clock is set");
            for (number, clock) in [(2, 0), (3, 3600), (4, -3600)] {
                ward.pc.play("touchpad", &json!([{"after_ms": 400, "events": []}]))?;
                keys(&clinical)?;
                ward.pc.play("touchpad", &tap(number, middle, clock))?;
                saw(&clinical, &format!("clinical, clock set by {clock} s,"), &typed(BTN_LEFT))?;
            }
            person.see("the clinical banner still", SOON, in_front(GREEN))?;
            saw(&internet, "internet", &[])?;

            ward.pc.progress("twelve millimetres to the right");
            let mut reports =
                vec![json!({"after_ms": 400, "events": finger(0, 5, middle, &TOUCH)})];
            reports.extend((1..=24).map(|step| {
                let x = middle.0 + step * MM / 2;
                json!({"after_ms": 10, "events": [[EV_ABS, 0x35, x], [EV_ABS, 0, x]]})
            }));
            reports.push(json!({"after_ms": 10, "events": gone(0, &TOUCH)}));
            ward.pc.play("touchpad", &json!(reports))?;
            std::thread::sleep(std::time::Duration::from_millis(500));
            let told = events(&clinical)?;
            let x = last(&told, 0).ok_or("the guest was told of no way")?;
            // From the middle, at 10 to 40 of 1280 pixels a millimetre.
            let way = x - LAST / 2;
            ensure!((1500..15_000).contains(&way), "the pointer went by {way} of {LAST}");
            let down = last(&told, 1).map_or(0, |y| (y - LAST / 2).abs());
            ensure!(down < 1500, "it went up or down by {down}");
            ensure!(told.iter().all(|event| event[0] != EV_KEY), "a way is no click: {told:?}");
            Ok(())
        })
    })
}

#[ward_test]
fn the_first_finger_on_a_touch_screen_points_where_it_touches_and_presses_tabs(
    ward: &Ward,
) -> Outcome {
    const TOUCH: [i32; 1] = [BTN_TOUCH];
    let screen = ("touch screen", surface(&[0x14a], &[DIRECT]));
    with_seat(ward, |agent, person, [clinical, internet]| {
        let tab = tab_on_surface(person)?;
        with_surface(ward, agent, screen, || {
            ward.pc.progress("two fingers; the second does nothing");
            let play = |reports: Value| ward.pc.play("touch screen", &reports);
            play(json!([{"events": finger(0, 1, (WIDTH * 3 / 4, HEIGHT / 2), &TOUCH)}]))?;
            let x = last_soon(&clinical, 0)?;
            ensure!((x - LAST * 3 / 4).abs() < 200, "it points at {x} of {LAST}");
            play(json!([{"events": finger(1, 2, (WIDTH / 4, HEIGHT / 4), &[])}]))?;
            play(json!([{"after_ms": 100, "events": gone(1, &[])}]))?;
            std::thread::sleep(std::time::Duration::from_millis(500));
            let told = events(&clinical)?;
            let other = last(&told, 0).filter(|x| (x - LAST * 3 / 4).abs() >= 200);
            ensure!(other.is_none(), "the second finger points at {other:?}");
            ensure!(told.iter().all(|event| event[2] != 0 || event[0] != EV_KEY), "{told:?}");
            play(json!([{"events": gone(0, &TOUCH)}]))?;
            saw(&clinical, "clinical", &[(BTN_LEFT, 0)])?;

            ward.pc.progress("a click where it already pointed, and a tab");
            play(json!([
                {"events": [[EV_ABS, 0x2f, 0], [EV_ABS, 0x39, 3], [EV_KEY, BTN_TOUCH, 1]]},
                {"after_ms": 50, "events": gone(0, &TOUCH)},
            ]))?;
            saw(&clinical, "clinical", &typed(BTN_LEFT))?;
            play(json!([
                {"events": finger(0, 4, tab, &TOUCH)},
                {"after_ms": 50, "events": gone(0, &TOUCH)},
            ]))?;
            person.see("the Internet banner after a touch of its tab", SOON, in_front(RED))?;
            saw(&clinical, "clinical", &[])?;
            saw(&internet, "internet", &[])
        })
    })
}
