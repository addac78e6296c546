//! Whatever happens at the seat, in whichever order, its promises hold.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use seat_link::{Event, Rect, Target};

use super::*;

/// Everything that can happen, weighted so that chords do.
fn input() -> impl Strategy<Value = Input> {
    let code = prop::sample::select(vec![
        CTRL, RIGHT_CTRL, ALT, SHIFT, ONE, TWO, A, B, C, L, ENTER, HANGUL, LEFT, 0x111, 47,
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

/// What an onlooker sees who knows no more than the promises.
#[derive(Default)]
struct Onlooker {
    /// What each domain was told to be down.
    down: [BTreeSet<u16>; 2],
    /// What is held on each device, and whether since before the last switch or lock.
    held: BTreeMap<(DeviceId, u16), bool>,
    pins: BTreeMap<DeviceId, DomainIndex>,
    plugged: BTreeSet<DeviceId>,
    /// The open question, since when, and since when it has been on the screen.
    question: Option<(u64, Time, Option<Time>)>,
    /// When a key was last pressed on a device that is not pinned.
    last_key: Option<Time>,
}

impl Onlooker {
    /// Whether a key is pressed by that, anew and on a device that is not pinned.
    fn is_key(&self, input: &Input) -> bool {
        let Input::Report(id, report) = input else { return false };
        let shared = self.plugged.contains(id) && !self.pins.contains_key(id);
        let is_fresh = |(code, down): &(u16, bool)| {
            *down
                && *code < LEFT
                && !matches!(chord::choice(*code), Some(chord::ChoiceKey::Enter))
                && !self.held.contains_key(&(*id, *code))
        };
        shared && report.keys.iter().any(is_fresh)
    }

    /// Questions: each is answered once, by nobody too early, and by time in the end.
    fn see_question(
        &mut self,
        now: Time,
        input: &Input,
        out: &[Output],
        locked: bool,
    ) -> Result<(), TestCaseError> {
        let answers = out.iter().filter_map(|output| match output {
            Output::Answered(id, yes) => Some((*id, *yes)),
            Output::Chosen(id, _) => Some((*id, true)),
            _ => None,
        });
        let answers: Vec<(u64, bool)> = answers.collect();
        if let Input::Ask(id) | Input::Choose(id, _) = input {
            let before = self.question.map(|(before, ..)| (before, false));
            let at_once = locked.then_some((*id, false));
            let expected: Vec<(u64, bool)> = before.into_iter().chain(at_once).collect();
            prop_assert_eq!(answers, expected);
            self.question = (!locked).then_some((*id, now, None));
            return Ok(());
        }
        for (id, yes) in answers {
            let Some((asked, _, shown)) = self.question.take() else {
                return Err(TestCaseError::fail("an answer to nothing"));
            };
            prop_assert_eq!(id, asked);
            let read = shown.is_some_and(|shown| now - shown >= READ_FOR);
            prop_assert!(!yes || read, "yes to what nobody can have read");
            let quiet = self.last_key.is_none_or(|last| now - last >= READ_FOR);
            let enter = matches!(input, Input::Report(_, report) if report.keys == [(ENTER, true)]);
            prop_assert!(!yes || (quiet && enter), "yes by what a scanner may have typed");
        }
        match input {
            Input::Withdraw(id) => {
                self.question.take_if(|question| question.0 == *id);
            }
            Input::Shown(id, shown) => {
                if let Some(question) = self.question.as_mut().filter(|asked| asked.0 == *id) {
                    question.2 = shown.then(|| question.2.unwrap_or(now));
                }
            }
            Input::Tick => {
                let open = self.question.is_none_or(|question| now - question.1 < OPEN_FOR);
                prop_assert!(open, "a question stays open for ever");
            }
            _ => {}
        }
        Ok(())
    }

    fn see(
        &mut self,
        input: &Input,
        out: &[Output],
        before: (DomainIndex, bool),
        after: (DomainIndex, bool),
    ) -> Result<(), TestCaseError> {
        match input {
            Input::Plugged(id, pin) => {
                let pin = pin.filter(|domain| *domain < 2);
                if !self.plugged.insert(*id) && self.pins.get(id).copied() != pin {
                    self.held.retain(|(device, _), _| device != id);
                }
                match pin {
                    Some(domain) => self.pins.insert(*id, domain),
                    None => self.pins.remove(id),
                };
            }
            Input::Unplugged(id) => {
                self.held.retain(|(device, _), _| device != id);
                self.pins.remove(id);
                self.plugged.remove(id);
            }
            Input::Report(id, report) if self.plugged.contains(id) => {
                for (code, down) in &report.keys {
                    let key = (*id, *code);
                    if *down {
                        self.held.entry(key).or_insert(false);
                    }
                }
            }
            _ => {}
        }
        let device = match input {
            Input::Report(id, _) => Some(*id),
            _ => None,
        };
        let pin = device.and_then(|id| self.pins.get(&id).copied());
        for output in out {
            let Output::Send(domain, _, events) = output else { continue };
            let (domain, old) = (*domain, self.down[*domain].clone());
            for event in events.iter().filter(|event| **event != Event::SYN) {
                if event.kind == codes::EV_KEY && event.value == 0 {
                    prop_assert!(old.contains(&event.code), "an up without a down");
                    self.down[domain].remove(&event.code);
                    continue;
                }
                // Everything but letting go.
                prop_assert!(!before.1 && !after.1, "locked, and something was told");
                prop_assert!(device.is_some(), "something was told though nobody did anything");
                match pin {
                    Some(own) => prop_assert_eq!(domain, own, "a pinned device reached another"),
                    None => {
                        prop_assert_eq!(domain, before.0, "another domain was reached");
                        prop_assert_eq!(before.0, after.0, "told in the middle of a switch");
                    }
                }
                if event.kind == codes::EV_KEY {
                    let fresh = self.held.iter().any(|((id, code), stale)| {
                        *code == event.code && !stale && self.pins.get(id).copied() == pin
                    });
                    prop_assert!(fresh, "{} was told and nobody pressed it anew", event.code);
                    self.down[domain].insert(event.code);
                }
            }
        }
        if let Input::Report(id, report) = input {
            for (code, down) in &report.keys {
                if !down {
                    self.held.remove(&(*id, *code));
                }
            }
        }
        if before != after {
            for ((id, _), stale) in &mut self.held {
                *stale |= after.1 || !self.pins.contains_key(id);
            }
        }
        for (domain, down) in self.down.iter().enumerate() {
            for code in down {
                prop_assert!(!after.1, "locked, and {code} is down in {domain}");
                let holder = self.held.iter().any(|((id, held), stale)| {
                    let may = self.pins.get(id).map_or(domain == after.0, |own| *own == domain);
                    held == code && !stale && may
                });
                prop_assert!(holder, "{code} stays down in {domain} and nobody holds it");
            }
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_promises_hold(
        inputs in prop::collection::vec((prop::sample::select(vec![0, 1, 100, 500, 9000]), input()), 1..80)
    ) {
        let mut seat = Seat::new();
        let mut onlooker = Onlooker::default();
        onlooker.pins.insert(SCANNER, 1);
        onlooker.plugged.extend([KEYBOARD, SECOND, MOUSE, SCANNER]);
        for (passed, input) in inputs {
            seat.now += Duration::from_millis(passed);
            let before = (seat.core.front(), seat.core.locked());
            let out = seat.feed(input.clone());
            let after = (seat.core.front(), seat.core.locked());
            let is_key = onlooker.is_key(&input);
            onlooker.see(&input, &out, before, after)?;
            onlooker.see_question(seat.now, &input, &out, before.1)?;
            if is_key {
                onlooker.last_key = Some(seat.now);
            }
            let shared = !matches!(&input, Input::Report(id, _) if onlooker.pins.contains_key(id));
            let ours = seat.core.pointer().1 < i32::try_from(BANNER).unwrap();
            if shared && (ours || onlooker.question.is_some()) {
                let moves = out.iter().any(|output| match output {
                    Output::Send(_, Target::Pointer, events) => events.iter().any(|event| {
                        *event != Event::SYN && (event.kind != codes::EV_KEY || event.value != 0)
                    }),
                    _ => false,
                });
                prop_assert!(!moves, "a guest has the pointer in the agent's rows: {:?}", out);
            }
            let by_a_person = matches!(input, Input::Report(..) | Input::Switch(_));
            prop_assert!(before.0 == after.0 || by_a_person, "switched by {:?}", input);
            // A device that is pinned, and what a guest can change, switch and lock nothing.
            let pinned = matches!(&input, Input::Report(id, _) if onlooker.pins.contains_key(id));
            if pinned || matches!(input, Input::Geometry(_)) {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn from_rest_a_chord_tells_nobody_anything(
        order in prop::sample::select(vec![[CTRL, ALT], [ALT, CTRL], [RIGHT_CTRL, ALT], [ALT, RIGHT_CTRL]]),
        key in prop::sample::select(vec![ONE, TWO, C, 47, L, B]),
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
