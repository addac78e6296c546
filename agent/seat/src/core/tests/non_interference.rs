//! What a domain is told does not depend on what is typed, pointed at and shown in another.
//!
//! Two runs have the same switches, locks, questions, hotkeys and keys of one domain at the same times, and everything else of the other domain in two
//! ways. What the one is told is the same, event by event and step by step. Not counted as the other's, because the person's hands are where
//! they are whichever desktop is in front:
//! - a modifier that is held while the screen changes hands: it is part of the next chord;
//! - where the pointer stands as it does;
//! - keys that answer a question of the agent's;
//! - that somebody did something, which puts the idle lock off.

use proptest::prelude::*;
use seat_link::{Rect, ToVmm};

use super::*;

/// Keys that are pressed in the other domain alone, and may be held across a switch.
const HELD_OVER: [u16; 3] = [16, 17, 18];

/// The keyboard for them: the same key of one keyboard cannot be down for both desktops.
const HIDDEN: DeviceId = 5;

/// What both runs have in common.
#[derive(Clone, Debug)]
enum Step {
    Key(DeviceId, u16, bool),
    Chord(u16),
    Point(i32, i32),
    Told(Input),
    Wait(u64),
    /// Here the other domain's user and guest do what is not the same.
    Secret,
}

/// What only one run has.
#[derive(Clone, Debug)]
enum Secret {
    Tap(u16),
    Capital(u16),
    Hold(u16),
    LetGo(u16),
    Click,
    Wheel(i32),
    Point(i32, i32),
    /// The pinned scanner of the domain.
    Scan(u16),
    /// The guest's picture has another size.
    Picture(u32, u32),
}

fn step() -> impl Strategy<Value = Step> {
    let code = prop::sample::select(vec![CTRL, ALT, SHIFT, ONE, A, B, ENTER, HANGUL, LEFT]);
    let device = prop::sample::select(vec![KEYBOARD, SECOND]);
    let chord = prop::sample::select(vec![ONE, TWO, C, V, L, B]);
    let told = prop_oneof![
        3 => (0usize..2).prop_map(Input::Switch),
        1 => Just(Input::Lock),
        2 => Just(Input::Unlock),
        1 => (0u64..3).prop_map(Input::Ask),
        1 => (0u64..3, 0usize..4).prop_map(|(id, choices)| Input::Choose(id, choices)),
        1 => (0u64..3, any::<bool>()).prop_map(|(id, shown)| Input::Shown(id, shown)),
        1 => (0u64..3).prop_map(Input::Withdraw),
        1 => Just(Input::Tick),
        1 => Just(Input::Unplugged(SECOND)),
        1 => Just(Input::Plugged(SECOND, None)),
    ];
    prop_oneof![
        8 => (device, code, any::<bool>()).prop_map(|(id, code, down)| Step::Key(id, code, down)),
        2 => chord.prop_map(Step::Chord),
        2 => (-70i32..70, -70i32..70).prop_map(|(x, y)| Step::Point(x, y)),
        5 => told.prop_map(Step::Told),
        1 => (0u64..9000).prop_map(Step::Wait),
        8 => Just(Step::Secret),
    ]
}

fn secret() -> impl Strategy<Value = Secret> {
    // Letters, digits of the hotkeys among them, Enter, Escape.
    let code = || prop::sample::select(vec![A, B, C, L, V, ONE, TWO, ENTER, 1, HANGUL, 16, 17]);
    let held = || prop::sample::select(HELD_OVER.to_vec());
    prop_oneof![
        4 => code().prop_map(Secret::Tap),
        1 => code().prop_map(Secret::Capital),
        2 => held().prop_map(Secret::Hold),
        2 => held().prop_map(Secret::LetGo),
        1 => Just(Secret::Click),
        1 => (-3i32..3).prop_map(Secret::Wheel),
        2 => (-70i32..70, 0i32..20).prop_map(|(x, y)| Secret::Point(x, y)),
        2 => code().prop_map(Secret::Scan),
        2 => (0u32..100, 0u32..50).prop_map(|(width, height)| Secret::Picture(width, height)),
    ]
}

struct Run {
    seat: Seat,
    /// The domain whose secrets there are.
    secret: DomainIndex,
    geometry: Geometry,
    out: Vec<Output>,
}

impl Run {
    fn new(secret: DomainIndex) -> Self {
        let mut seat = Seat::new();
        seat.feed(Input::Settings(Settings { idle_lock: None, ..settings() }));
        seat.feed(Input::Plugged(SCANNER, Some(secret)));
        seat.feed(Input::Plugged(HIDDEN, None));
        Self { seat, secret, geometry: geometry(), out: Vec::new() }
    }

    fn feed(&mut self, input: Input) {
        self.out.extend(self.seat.feed(input));
    }

    fn key(&mut self, id: DeviceId, code: u16, down: bool) {
        self.feed(Input::Report(id, Report { keys: vec![(code, down)], ..Report::default() }));
    }

    fn tap(&mut self, id: DeviceId, code: u16) {
        self.key(id, code, true);
        self.key(id, code, false);
    }

    fn point(&mut self, motion: Motion) {
        self.feed(Input::Report(MOUSE, Report { motion: Some(motion), ..Report::default() }));
    }

    /// Returns what the other domain is told in this step, as its VMM receives it, and what everybody sees.
    fn step(&mut self, step: &Step, secrets: &[Secret]) -> (Vec<Vec<u8>>, DomainIndex, bool) {
        match step {
            Step::Key(id, code, down) => self.key(*id, *code, *down),
            Step::Chord(code) => {
                [CTRL, ALT].into_iter().for_each(|modifier| self.key(SECOND, modifier, true));
                self.tap(SECOND, *code);
                [ALT, CTRL].into_iter().for_each(|modifier| self.key(SECOND, modifier, false));
            }
            Step::Point(x, y) => self.point(Motion::By(*x, *y)),
            Step::Told(input) => self.feed(input.clone()),
            Step::Wait(time) => self.seat.now += Duration::from_millis(*time),
            Step::Secret => secrets.iter().for_each(|secret| self.secret(secret)),
        }
        let told = self.out.drain(..).filter_map(|output| match output {
            Output::Send(domain, target, events) if domain != self.secret => {
                Some(ToVmm::Input(target, events).encode())
            }
            _ => None,
        });
        (told.collect(), self.seat.core.front(), self.seat.core.locked())
    }

    fn secret(&mut self, secret: &Secret) {
        let core = &self.seat.core;
        let in_hand = core.front() == self.secret && !core.locked() && core.question.is_none();
        let in_hand = in_hand && core.modifiers() == Modifiers::default();
        match secret {
            Secret::Scan(code) => self.tap(SCANNER, *code),
            Secret::Picture(width, height) => {
                let picture = Rect { x: 0, y: BANNER, width: *width, height: *height };
                self.geometry.pictures[self.secret] = picture;
                self.feed(Input::Geometry(self.geometry.clone()));
            }
            Secret::LetGo(code) => self.key(HIDDEN, *code, false),
            _ if !in_hand => {}
            Secret::Tap(code) => self.tap(HIDDEN, *code),
            Secret::Capital(code) => {
                self.key(HIDDEN, SHIFT, true);
                self.tap(HIDDEN, *code);
                self.key(HIDDEN, SHIFT, false);
            }
            Secret::Hold(code) => self.key(HIDDEN, *code, true),
            Secret::Wheel(by) => {
                let wheel = vec![(8, *by)];
                self.feed(Input::Report(MOUSE, Report { wheel, ..Report::default() }));
            }
            // In the banner a click is the agent's.
            Secret::Click if self.seat.core.pointer_is_ours() => {}
            Secret::Click => self.tap(MOUSE, 0x111),
            Secret::Point(x, y) => {
                let (left, top) = self.seat.core.pointer();
                self.point(Motion::By(*x, *y));
                // And back to where the other run has it.
                let (x, y) = self.seat.core.pointer();
                self.point(Motion::By(left - x, top - y));
            }
        }
    }
}

fn runs(
    secret: DomainIndex,
    steps: &[(Step, Vec<Secret>, Vec<Secret>)],
) -> Result<(), TestCaseError> {
    let (mut one, mut other) = (Run::new(secret), Run::new(secret));
    for (at, (step, secrets, others)) in steps.iter().enumerate() {
        let (left, right) = (one.step(step, secrets), other.step(step, others));
        prop_assert_eq!(left, right, "step {}: {:?}", at, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_domain_is_told_the_same_whatever_is_typed_pointed_at_and_shown_in_the_other(
        secret in 0usize..2,
        steps in prop::collection::vec(
            (step(), prop::collection::vec(secret(), 0..6), prop::collection::vec(secret(), 0..6)),
            1..60,
        ),
    ) {
        runs(secret, &steps)?;
    }
}

#[test]
fn what_is_not_counted_as_a_secret_would_be_found() {
    // A modifier held across the switch is heard in the next desktop: there Ctrl+Alt+2 begins on Alt.
    let secrets = vec![Secret::Hold(CTRL)];
    let keys = [(ALT, true), (B, true)].map(|(code, down)| Step::Key(SECOND, code, down));
    let switch = [Step::Secret, Step::Told(Input::Switch(1))];
    let with = |step: Step| (step, secrets.clone(), Vec::new());
    let steps: Vec<_> = switch.into_iter().chain(keys).map(with).collect();
    runs(0, &steps).unwrap_err();
}
