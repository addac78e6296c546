mod which;

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;
use seat_link::{Event, Rect, Size, Target};

use super::codes::*;
use super::facts::Axis;
use super::*;
use crate::core::codes::{BTN_EXTRA, BTN_LEFT, BTN_TOUCH, EV_ABS, EV_KEY, EV_REL};
use crate::core::{Click, Core, Geometry, Hotkeys, Input, Motion, Output, POSITION_MAX, Settings};

/// A device that is played, and what it said.
pub(super) struct Play {
    pub(super) reader: Reader,
    /// How it is now, as the kernel says when it is asked.
    facts: EventCapabilities,
    pub(super) now: Duration,
    pub(super) typed: Option<Moment>,
}

impl Play {
    pub(super) fn new(facts: EventCapabilities) -> Self {
        let reader = Reader::new(facts.clone(), false);
        Self { reader, facts, now: Duration::from_secs(1_000_000), typed: None }
    }

    fn event(&self, (kind, code, value): (u16, u16, i32)) -> InputEvent {
        let time = libc::timeval {
            tv_sec: i64::try_from(self.now.as_secs()).unwrap(),
            tv_usec: self.now.subsec_micros().into(),
        };
        InputEvent::from(libc::input_event { time, type_: kind, code, value })
    }

    /// Events as they come.
    pub(super) fn raw(&mut self, events: &[(u16, u16, i32)]) -> Vec<DeviceEvent> {
        let mut out = Vec::new();
        let events: Vec<_> = events.iter().map(|event| self.event(*event)).collect();
        let now = || Ok(self.facts.clone());
        self.reader.add_all(1, events, self.typed, &mut out, now).unwrap();
        if self.reader.is_lost() {
            self.reader = Reader::new(self.facts.clone(), false);
        }
        out
    }

    /// Sends a whole report, eight milliseconds after the last; returns what was said.
    pub(super) fn frame(&mut self, events: &[(u16, u16, i32)]) -> Vec<Report> {
        self.now += Duration::from_millis(8);
        let events: Vec<_> = events.iter().copied().chain([(0, SYN_REPORT, 0)]).collect();
        let out = self.raw(&events).into_iter();
        let reports = out.filter_map(|event| match event {
            DeviceEvent::Report(_, report, _) => Some(report),
            _ => None,
        });
        reports.collect()
    }
}

/// Makes a device with absolute axes of these codes and ranges, the first two of them 0 to 4000 and 0 to 2400 at 40 a millimetre.
pub(super) fn with_axes(mut facts: EventCapabilities, slots: i32) -> EventCapabilities {
    for (code, most, resolution) in [
        (ABS_X, 4000, 40),
        (ABS_Y, 2400, 40),
        (ABS_MT_POSITION_X, 4000, 40),
        (ABS_MT_POSITION_Y, 2400, 40),
        (ABS_MT_SLOT, slots - 1, 0),
        (ABS_MT_TRACKING_ID, 65535, 0),
        (ABS_MT_TOOL_TYPE, 2, 0),
        (ABS_MT_PRESSURE, 255, 0),
        (ABS_PRESSURE, 255, 0),
        (ABS_MT_TOUCH_MAJOR, 4000, 40),
    ] {
        if let Some(axis) = facts.axes.get_mut(&code) {
            *axis = Axis { value: 0, least: 0, most, resolution };
        }
    }
    facts
}

/// Makes a pad that is its own button, five fingers, 100 by 60 mm.
pub(super) fn pad() -> EventCapabilities {
    let facts = facts::tests::facts("e520 10000 0 0 0 0", "6e1800001000003", "0", "5");
    with_axes(facts, 5)
}

/// Makes a touch screen of ten fingers.
fn screen() -> EventCapabilities {
    with_axes(facts::tests::facts("400 0 0 0 0 0", "2e0800000000003", "0", "2"), 10)
}

/// Makes a touch screen of one finger, the finger last here.
fn old_screen(x: i32, y: i32) -> EventCapabilities {
    let mut facts = with_axes(facts::tests::facts("400 0 0 0 0 0", "3", "0", "0"), 1);
    facts.axes.get_mut(&ABS_X).unwrap().value = x;
    facts.axes.get_mut(&ABS_Y).unwrap().value = y;
    facts
}

fn keyboard() -> EventCapabilities {
    facts::tests::facts("fffffffffffffffe", "0", "103", "0")
}

/// Puts a finger down, as `hid-multitouch` says it.
pub(super) fn down(slot: i32, number: i32, x: i32, y: i32) -> Vec<(u16, u16, i32)> {
    [
        (ABS_MT_SLOT, slot),
        (ABS_MT_TRACKING_ID, number),
        (ABS_MT_POSITION_X, x),
        (ABS_MT_POSITION_Y, y),
    ]
    .map(|(code, value)| (EV_ABS, code, value))
    .to_vec()
}

pub(super) fn at(slot: i32, x: i32, y: i32) -> Vec<(u16, u16, i32)> {
    let codes = [(ABS_MT_SLOT, slot), (ABS_MT_POSITION_X, x), (ABS_MT_POSITION_Y, y)];
    codes.map(|(code, value)| (EV_ABS, code, value)).to_vec()
}

pub(super) fn up(slot: i32) -> Vec<(u16, u16, i32)> {
    vec![(EV_ABS, ABS_MT_SLOT, slot), (EV_ABS, ABS_MT_TRACKING_ID, -1)]
}

pub(super) fn key(code: u16, down: bool) -> Vec<(u16, u16, i32)> {
    vec![(EV_KEY, code, down.into())]
}

fn to(x: u32, y: u32, keys: &[(u16, bool)]) -> Report {
    Report { keys: keys.to_vec(), motion: Some(Motion::To(x, y)), wheel: Vec::new() }
}

const FAR: u32 = POSITION_MAX;
const PRESS: (u16, bool) = (BTN_LEFT, true);
const LET_GO: (u16, bool) = (BTN_LEFT, false);

fn said(keys: &[(u16, bool)]) -> Report {
    Report { keys: keys.to_vec(), ..Report::default() }
}

#[test]
fn events_become_reports_at_their_end_and_repeats_are_left_out() {
    let mut play = Play::new(keyboard());
    assert!(play.raw(&[(1, 30, 1), (4, 4, 99), (2, 0, 3), (2, 0, 4)]).is_empty());
    let out = play.raw(&[(0, 0, 0), (1, 30, 2), (0, 0, 1)]);
    let [DeviceEvent::Report(1, report, _)] = out.as_slice() else { panic!("{out:?}") };
    assert_eq!(report.keys, [(30, true)]);
    assert_eq!(report.motion, Some(Motion::By(7, 0)));
}

#[test]
fn lost_events_let_everything_go() {
    let mut play = Play::new(keyboard());
    let out = play.raw(&[(1, 30, 1), (0, 3, 0), (1, 31, 1), (0, 0, 0)]);
    assert!(matches!(out.as_slice(), [DeviceEvent::Dropped(1)]));
    assert_eq!(play.frame(&key(30, true)), [said(&[(30, true)])], "pressed anew");
}

#[test]
fn a_report_of_more_keys_than_there_can_be_lets_everything_go_and_loses_no_release() {
    let mut play = Play::new(keyboard());
    let many: Vec<_> = (1..=90).map(|code| (EV_KEY, code, 0)).collect();
    assert!(matches!(play.raw(&many)[..], [DeviceEvent::Dropped(1)]));
}

#[test]
fn a_touch_screens_first_finger_points_and_the_others_do_nothing() {
    let mut play = Play::new(screen());
    let first = [down(0, 7, 4000, 0), key(BTN_TOUCH, true)].concat();
    assert_eq!(play.frame(&first), [to(FAR, 0, &[PRESS])]);
    assert_eq!(play.frame(&down(1, 8, 0, 2400)), [to(FAR, 0, &[])], "where the first is");
    assert_eq!(play.frame(&[at(1, 100, 100), at(0, 4000, 2400)].concat()), [to(FAR, FAR, &[])]);
    assert_eq!(play.frame(&up(0)), [said(&[LET_GO])]);
    assert!(play.frame(&at(1, 2000, 1200)).is_empty(), "the second never points");
    assert_eq!(play.frame(&down(0, 9, 0, 0)), [to(0, 0, &[PRESS])], "a new one does");
    assert_eq!(play.frame(&[up(0), up(1), key(BTN_TOUCH, false)].concat()), [said(&[LET_GO])]);
}

#[test]
fn a_finger_is_let_go_where_it_was_and_not_where_the_next_one_is() {
    let mut play = Play::new(screen());
    play.frame(&[down(0, 7, 0, 0), key(BTN_TOUCH, true)].concat());
    let next = play.frame(&[up(0), down(1, 8, 4000, 2400)].concat());
    assert_eq!(next, [said(&[LET_GO]), to(FAR, FAR, &[PRESS])]);
}

#[test]
fn a_touch_begins_where_the_axes_are_and_not_in_the_corner() {
    // The finger comes down in the column of the last one, which the kernel does not say again.
    let mut play = Play::new(old_screen(4000, 1200));
    let touched = play.frame(&[(EV_KEY, BTN_TOUCH, 1), (EV_ABS, ABS_Y, 2400)]);
    assert_eq!(touched, [to(FAR, FAR, &[PRESS])]);
    let mut facts = screen();
    facts.axes.get_mut(&ABS_X).unwrap().value = 4000;
    let mut play = Play::new(facts);
    let touched = [
        (EV_ABS, ABS_MT_TRACKING_ID, 7),
        (EV_ABS, ABS_MT_POSITION_Y, 2400),
        (EV_KEY, BTN_TOUCH, 1),
    ];
    assert_eq!(play.frame(&touched), [to(FAR, FAR, &[PRESS])]);
    // A pen: only one axis moves.
    let mut facts = with_axes(facts::tests::facts("1c03 0 0 0 0 0", "3", "0", "2"), 1);
    facts.axes.get_mut(&ABS_X).unwrap().value = 4000;
    let mut play = Play::new(facts);
    assert_eq!(play.frame(&[(EV_ABS, ABS_Y, 2400)]), [to(FAR, FAR, &[])]);
}

#[test]
fn a_pens_tip_and_buttons_are_a_mouses() {
    let mut play = Play::new(with_axes(facts::tests::facts("1c03 0 0 0 0 0", "3", "0", "2"), 1));
    let near = [(EV_KEY, BTN_TOOL_PEN, 1), (EV_ABS, ABS_X, 4000)];
    assert_eq!(play.frame(&near), [to(FAR, 0, &[])], "it hovers");
    assert_eq!(play.frame(&key(BTN_TOUCH, true)), [to(FAR, 0, &[PRESS])]);
    assert_eq!(play.frame(&key(BTN_STYLUS, true)), [to(FAR, 0, &[(BTN_RIGHT, true)])]);
    let all = [key(BTN_TOUCH, false), key(BTN_STYLUS, false), key(BTN_TOOL_PEN, false)].concat();
    assert_eq!(play.frame(&all), [said(&[LET_GO, (BTN_RIGHT, false)])]);
}

#[test]
fn two_codes_that_are_one_button_are_up_when_both_are() {
    let mut play = Play::new(with_axes(facts::tests::facts("400 30000 0 0 0 0", "3", "0", "0"), 1));
    assert_eq!(play.frame(&key(BTN_LEFT, true)), [to(0, 0, &[PRESS])]);
    assert!(play.frame(&key(BTN_TOUCH, true)).is_empty());
    assert!(play.frame(&key(BTN_LEFT, false)).is_empty());
    assert_eq!(play.frame(&key(BTN_TOUCH, false)), [said(&[LET_GO])]);
}

/// Makes the mouse of a remote console, which says where it is; last here.
fn tablet(x: i32, y: i32) -> EventCapabilities {
    let mut facts = with_axes(facts::tests::facts("1f0000 0 0 0 0", "3", "100", "0"), 1);
    facts.axes.get_mut(&ABS_X).unwrap().value = x;
    facts.axes.get_mut(&ABS_Y).unwrap().value = y;
    facts
}

#[test]
fn a_click_is_where_the_device_points_though_the_kernel_says_that_place_only_once() {
    // Whatever is pointed at with it is in the banner; the mouse beside it is at the tab.
    let (mut core, mut play) = (seat(), Play::new(tablet(2000, 1200)));
    core.feed(Duration::ZERO, Input::Plugged(2, None));
    let tab = Report { motion: Some(Motion::To(FAR - 100, 100)), ..Report::default() };
    core.feed(Duration::ZERO, Input::Report(2, tab));
    let out = feed(&mut core, play.frame(&key(BTN_LEFT, true)));
    let pressed = Event { kind: EV_KEY, code: BTN_LEFT, value: 1 };
    assert!(!out.contains(&Output::Switched { from: 0, to: 1 }), "{out:?}");
    assert!(out.contains(&Output::Send(0, Target::Pointer, vec![pressed, Event::SYN])), "{out:?}");
    // A key beside it moves nothing.
    assert_eq!(play.frame(&key(30, true)), [said(&[(30, true)])]);
    // What it last said was a way: then its place is not the pointer's.
    let mut facts = tablet(2000, 1200);
    facts.relative.extend([REL_X, REL_Y]);
    let mut play = Play::new(facts);
    assert_eq!(play.frame(&key(BTN_LEFT, true)), [said(&[PRESS])]);
    play.frame(&[vec![(EV_ABS, ABS_X, 4000)], key(BTN_LEFT, false)].concat());
    assert_eq!(play.frame(&key(BTN_RIGHT, true)), [to(FAR, FAR / 2, &[(BTN_RIGHT, true)])]);
    play.frame(&[(EV_REL, REL_X, 5)]);
    assert_eq!(play.frame(&key(BTN_LEFT, true)), [said(&[PRESS])]);
}

#[test]
fn after_lost_events_a_place_is_where_the_device_is_and_not_where_it_was_when_it_was_plugged_in() {
    let mut play = Play::new(tablet(0, 0));
    // What it said meanwhile was lost; of what came after, the kernel says what changed.
    play.facts = tablet(4000, 2400);
    let lost = [(0, SYN_DROPPED, 0), (EV_ABS, ABS_X, 3999), (0, SYN_REPORT, 0)];
    let then = [(EV_ABS, ABS_X, 4000), (EV_KEY, BTN_LEFT, 1), (0, SYN_REPORT, 0)];
    let out = play.raw(&[&lost[..], &then].concat());
    let [DeviceEvent::Dropped(1), DeviceEvent::Report(1, report, _)] = &out[..] else {
        panic!("{out:?}");
    };
    assert_eq!(*report, to(FAR, FAR, &[PRESS]));
}

#[test]
fn a_palm_on_a_touch_screen_points_at_nothing_and_keeps_no_finger_from_it() {
    let mut play = Play::new(screen());
    let palm = [down(0, 7, 0, 0), vec![(EV_ABS, ABS_MT_TOOL_TYPE, 2), (EV_KEY, BTN_TOUCH, 1)]];
    assert!(play.frame(&palm.concat()).is_empty());
    assert_eq!(play.frame(&down(1, 8, 4000, 0)), [to(FAR, 0, &[PRESS])]);
    assert_eq!(
        play.frame(&[at(1, 4000, 0), vec![(EV_ABS, ABS_MT_TOOL_TYPE, 2)]].concat()),
        [said(&[LET_GO])]
    );
}

#[test]
fn what_was_touched_while_events_were_lost_is_nothing_until_it_is_touched_anew() {
    let mut play = Play::new(screen());
    play.frame(&[down(0, 7, 0, 0), key(BTN_TOUCH, true)].concat());
    assert!(matches!(play.raw(&[(0, SYN_DROPPED, 0)])[..], [DeviceEvent::Dropped(1)]));
    assert!(play.frame(&at(0, 4000, 2400)).is_empty());
    assert!(play.frame(&[up(0), key(BTN_TOUCH, false)].concat()).is_empty());
    let anew = [down(0, 9, 4000, 2400), key(BTN_TOUCH, true)].concat();
    assert_eq!(play.frame(&anew), [to(FAR, FAR, &[PRESS])]);
}

/// Makes a seat of two domains whose banner is the upper tenth, with a tab for the second at the right.
fn seat() -> Core {
    let policy = Policy::parse("test", policy_tools::STARTER).unwrap();
    let names: Vec<String> =
        policy.domains().iter().map(|domain| domain.name.to_string()).collect();
    let settings = Settings { hotkeys: Hotkeys::of(&policy, &names), idle_lock: None };
    let picture = Rect { x: 0, y: 10, width: 100, height: 90 };
    let geometry = Geometry {
        screen: Size { width: 100, height: 100 },
        banner: 10,
        pictures: vec![picture, picture],
        clicks: vec![(Rect { x: 80, y: 0, width: 20, height: 10 }, Click::Switch(1))],
    };
    let mut core = Core::new(2, settings, geometry);
    core.feed(Duration::ZERO, Input::Plugged(1, None));
    core
}

fn feed(core: &mut Core, reports: Vec<Report>) -> Vec<Output> {
    let input = reports.into_iter().map(|report| Input::Report(1, report));
    input.flat_map(|input| core.feed(Duration::ZERO, input)).collect()
}

#[test]
fn the_banners_tabs_are_reached_by_a_touch_screen_and_not_by_a_finger_that_rests_on_a_pad() {
    let (mut core, mut play) = (seat(), Play::new(screen()));
    let tab = [down(0, 7, 3900, 100), key(BTN_TOUCH, true)].concat();
    let out = feed(&mut core, play.frame(&tab));
    assert!(out.contains(&Output::Switched { from: 0, to: 1 }), "{out:?}");
    let (mut core, mut play) = (seat(), Play::new(pad()));
    let start = core.pointer();
    let mut out = feed(&mut core, play.frame(&[tab.clone(), key(BTN_TOOL_FINGER, true)].concat()));
    for _ in 0..100 {
        out.extend(feed(&mut core, play.frame(&at(0, 3901, 101))));
        out.extend(feed(&mut core, play.frame(&at(0, 3900, 100))));
    }
    out.extend(feed(&mut core, play.frame(&[up(0), key(BTN_TOUCH, false)].concat())));
    assert_eq!((out, core.pointer()), (vec![], start));
}

/// Makes any event a device of these kinds may send, and some it may not.
fn event() -> impl Strategy<Value = (u16, u16, i32)> {
    let abs = prop::sample::select(vec![
        ABS_X,
        ABS_Y,
        ABS_PRESSURE,
        ABS_MT_SLOT,
        ABS_MT_TOUCH_MAJOR,
        ABS_MT_POSITION_X,
        ABS_MT_POSITION_Y,
        ABS_MT_TOOL_TYPE,
        ABS_MT_TRACKING_ID,
        ABS_MT_PRESSURE,
        0x3f,
    ]);
    let value = prop_oneof![
        6 => 0..4000i32,
        3 => -1..6i32,
        1 => any::<i32>(),
    ];
    let key = prop::sample::select(vec![
        BTN_LEFT,
        BTN_RIGHT,
        BTN_MIDDLE,
        BTN_TOUCH,
        BTN_TOOL_PEN,
        BTN_TOOL_FINGER,
        BTN_STYLUS,
        BTN_STYLUS2,
        BTN_TOOL_DOUBLETAP,
        BTN_TOOL_TRIPLETAP,
        BTN_TOOL_QUADTAP,
        30,
    ]);
    prop_oneof![
        10 => (abs, value).prop_map(|(code, value)| (EV_ABS, code, value)),
        6 => (key, -1..3i32).prop_map(|(code, value)| (EV_KEY, code, value)),
        6 => Just((0, SYN_REPORT, 0)),
        1 => Just((0, SYN_DROPPED, 0)),
    ]
}

fn kinds() -> impl Strategy<Value = EventCapabilities> {
    let single_pad = with_axes(facts::tests::facts("e420 70000 0 0 0 0", "1000003", "0", "8"), 1);
    let pen = with_axes(facts::tests::facts("1c03 10000 0 0 0 0", "3", "0", "2"), 1);
    prop::sample::select(vec![pad(), single_pad, screen(), old_screen(9, 9), pen, keyboard()])
}

/// Returns what takes back everything that can be down.
fn all_up() -> Vec<(u16, u16, i32)> {
    let keys = (BTN_LEFT..=BTN_EXTRA).chain(TOOLS).chain([30]).flat_map(|code| key(code, false));
    (0..16).flat_map(up).chain(keys).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_surface_says_no_button_is_stuck_and_no_report_moves_far(
        facts in kinds(),
        events in prop::collection::vec((event(), 0u64..60), 1..120),
    ) {
        let kind = facts.kind();
        let mut play = Play::new(facts);
        let mut held = BTreeSet::new();
        let rounds = events.into_iter().map(|(event, passed)| (vec![event], passed));
        let last = [all_up(), vec![(0, SYN_REPORT, 0)], all_up(), vec![(0, SYN_REPORT, 0)]].concat();
        for (events, passed) in rounds.chain([(last, 8)]) {
            play.now += Duration::from_millis(passed);
            for event in play.raw(&events) {
                let DeviceEvent::Report(_, report, _) = event else {
                    prop_assert!(matches!(event, DeviceEvent::Dropped(_)));
                    held.clear();
                    continue;
                };
                for (code, down) in report.keys {
                    let surface = kind != facts::Kind::Relative;
                    prop_assert!(!surface || !TOOLS.contains(&code), "{code:#x} is no key");
                    if surface && code >= BTN_LEFT {
                        let news = if down { held.insert(code) } else { held.remove(&code) };
                        prop_assert!(news, "{code:#x} {down}, which it was");
                    } else if down {
                        held.insert(code);
                    } else {
                        held.remove(&code);
                    }
                }
                match (kind, report.motion) {
                    (facts::Kind::Pad, Some(Motion::By(x, y))) => {
                        let furthest = i64::from(x.unsigned_abs().max(y.unsigned_abs()));
                        prop_assert!(furthest <= pad::MOTION_MAX, "{furthest} pixels at once");
                    }
                    (facts::Kind::Pad, motion) => prop_assert_eq!(motion, None, "a pad is no screen"),
                    (_, Some(Motion::To(x, y))) => prop_assert!(x <= POSITION_MAX && y <= POSITION_MAX),
                    _ => {}
                }
                for (_, turned) in report.wheel {
                    prop_assert!(turned.unsigned_abs() <= 225, "the wheel turns by {turned} at once");
                }
            }
        }
        prop_assert!(held.is_empty(), "{held:?} stay down and nobody holds them");
    }

    #[test]
    fn when_a_surface_goes_whatever_it_held_is_let_go(
        facts in kinds(),
        events in prop::collection::vec((event(), 0u64..60), 1..120),
    ) {
        let (mut core, mut play) = (seat(), Play::new(facts));
        let mut told: BTreeSet<(usize, u16)> = BTreeSet::new();
        let mut see = |out: Vec<Output>| {
            for output in out {
                let Output::Send(domain, Target::Pointer | Target::Keyboard, events) = output else { continue };
                for Event { code, value, .. } in events.into_iter().filter(|event| event.kind == EV_KEY) {
                    if value == 0 { told.remove(&(domain, code)) } else { told.insert((domain, code)) };
                }
            }
        };
        for (event, passed) in events {
            play.now += Duration::from_millis(passed);
            for event in play.raw(&[event]) {
                match event {
                    DeviceEvent::Report(_, report, _) => see(core.feed(Duration::ZERO, Input::Report(1, report))),
                    _ => {
                        see(core.feed(Duration::ZERO, Input::Unplugged(1)));
                        see(core.feed(Duration::ZERO, Input::Plugged(1, None)));
                    }
                }
            }
        }
        see(core.feed(Duration::ZERO, Input::Unplugged(1)));
        prop_assert!(told.is_empty(), "{told:?}");
    }
}

#[test]
fn a_key_is_typed_and_a_modifier_or_a_button_is_not() {
    let then = Moment::now();
    let report = |code, down| DeviceEvent::Report(1, said(&[(code, down)]), then);
    assert_eq!(typed_at(&report(30, true)), Some(then));
    for other in
        [report(29, true), report(30, false), report(BTN_LEFT, true), DeviceEvent::Dropped(1)]
    {
        assert_eq!(typed_at(&other), None);
    }
}

#[test]
fn a_mouse_moves_by_what_it_says() {
    let mut play = Play::new(facts::tests::facts("1f0000 0 0 0 0", "0", "903", "0"));
    let reports =
        play.frame(&[(EV_REL, 0, -3), (EV_REL, 1, 4), (EV_REL, 8, -1), (EV_KEY, BTN_LEFT, 1)]);
    let report =
        Report { keys: vec![PRESS], motion: Some(Motion::By(-3, 4)), wheel: vec![(8, -1)] };
    assert_eq!(reports, [report]);
}
