//! The promises of the clipboard (`docs/design/threat-model.md`, `docs/clinician/handbook.md`), for every interleaving.

use std::collections::BTreeSet;
use std::sync::Arc;

use policy::Policy;
use proptest::prelude::*;

use super::world::{A, B, CAPABLE, World, announce, give, grab, message, policy, request, rule};
use crate::mediator::limits::HELD_MAX;
use crate::mediator::{Hotkey, Time, hash};
use crate::vdagent::spec::{content, kind};
use worker_link::clipboard::{Event, Nonsense};

#[derive(Clone, Debug)]
pub(super) enum Step {
    Hotkey(bool, usize),
    /// What a guest says; content is given a number of its own.
    Announce(usize, bool),
    Grab(usize, Vec<u32>),
    Request(usize, u32),
    Release(usize),
    Content(usize, u32),
    /// Any bytes.
    Bytes(usize, Vec<u8>),
    /// Anything that a reader which was taken over may say; content is given a number of its own.
    Lies(usize, Event),
    Answer(bool),
    Record(bool),
    Policy(usize),
    Wait(u64),
    Lock,
    RecordLost,
    Reconnect(usize),
}

fn policies() -> Vec<Arc<Policy>> {
    [
        String::new(),
        rule("b", "a", "allow"),
        rule("a", "b", "allow") + &rule("b", "a", "ask"),
        rule("a", "b", "ask") + &rule("b", "a", "deny"),
    ]
    .iter()
    .map(|rules| policy(rules))
    .collect()
}

pub(super) fn guest() -> impl Strategy<Value = usize> {
    A..=B
}

pub(super) fn number() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(content::UTF8_TEXT), 1 => 0u32..8]
}

/// What a reader may say that was taken over, numbers that can be among it.
pub(super) fn lie() -> impl Strategy<Value = Event> {
    let asked = || prop_oneof![8 => 0u32..6, 1 => any::<u32>()];
    let why = (any::<u32>(), any::<u32>());
    prop_oneof![
        1 => (any::<bool>(), any::<u32>())
            .prop_map(|(request, capabilities)| Event::Announce { request, capabilities }),
        2 => any::<bool>()
            .prop_map(|request| Event::Announce { request, capabilities: CAPABLE }),
        2 => proptest::collection::vec(number(), 0..3).prop_map(Event::Grab),
        2 => number().prop_map(Event::Request),
        1 => Just(Event::Release),
        4 => asked().prop_map(|number| Event::Ready { number }),
        2 => asked().prop_map(|number| Event::Progress { number }),
        6 => (asked(), number(), 0u32..12)
            .prop_map(|(number, kind, length)| Event::Content { number, kind, length }),
        1 => (asked(), any::<u32>())
            .prop_map(|(number, bytes)| Event::TooLarge { number, bytes }),
        1 => why.prop_map(|(kind, size)| Event::Nonsense(Nonsense::Size { kind, size })),
        1 => Just(Event::Ended),
        1 => Just(Event::Unannounced),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), guest()).prop_map(|(copy, guest)| Step::Hotkey(copy, guest)),
        1 => (guest(), any::<bool>()).prop_map(|(guest, request)| Step::Announce(guest, request)),
        4 => (guest(), proptest::collection::vec(number(), 0..3))
            .prop_map(|(guest, types)| Step::Grab(guest, types)),
        5 => (guest(), number()).prop_map(|(guest, number)| Step::Request(guest, number)),
        1 => guest().prop_map(Step::Release),
        8 => (guest(), number()).prop_map(|(guest, number)| Step::Content(guest, number)),
        1 => (guest(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(guest, bytes)| Step::Bytes(guest, bytes)),
        6 => (guest(), lie()).prop_map(|(guest, event)| Step::Lies(guest, event)),
        3 => proptest::bool::weighted(0.7).prop_map(Step::Answer),
        5 => proptest::bool::weighted(0.8).prop_map(Step::Record),
        2 => (0..policies().len()).prop_map(Step::Policy),
        2 => (0u64..70).prop_map(Step::Wait),
        1 => Just(Step::Lock),
        1 => Just(Step::RecordLost),
        1 => guest().prop_map(Step::Reconnect),
    ]
}

/// What a copy may have pulled: which bytes were given by a guest of which the mediator had asked for them.
#[derive(Default)]
pub(super) struct Model {
    policy: usize,
    /// Hotkeys since the start: domain and whether it was a copy.
    hotkeys: Vec<(bool, usize)>,
    /// Hash of what was given, by whom, and how many hotkeys had been pressed by then.
    given: Vec<(String, usize, usize)>,
    /// What may reach a guest's programs.
    permitted: BTreeSet<(usize, String)>,
    next: u32,
}

impl Model {
    pub(super) fn play(&mut self, world: &mut World, policies: &[Arc<Policy>], step: &Step) {
        let asked_before = world.to_record.len();
        match step {
            Step::Hotkey(copy, guest) => {
                self.hotkeys.push((*copy, *guest));
                world.hotkey(if *copy { Hotkey::Copy } else { Hotkey::Paste }, *guest);
            }
            Step::Announce(guest, request) => world.sends(*guest, &announce(*request, CAPABLE)),
            Step::Grab(guest, types) => world.sends(*guest, &grab(types)),
            Step::Request(guest, number) => world.sends(*guest, &request(*number)),
            Step::Release(guest) => {
                world.sends(*guest, &message(kind::CLIPBOARD_RELEASE, &[0; 4]));
            }
            Step::Content(guest, number) => {
                self.next += 1;
                let bytes = format!("{guest}:{}", self.next).into_bytes();
                self.given.push((hash(&bytes), *guest, self.hotkeys.len()));
                world.sends(*guest, &give(*number, &bytes));
            }
            Step::Bytes(guest, bytes) => world.sends(*guest, bytes),
            Step::Lies(guest, event) => {
                self.next += 1;
                let content = format!("{guest}:{} in a lie", self.next).into_bytes();
                if let Event::Content { length, .. } = event
                    && let Some(bytes) = content.get(..*length as usize)
                {
                    self.given.push((hash(bytes), *guest, self.hotkeys.len()));
                }
                world.lies(*guest, event, &content);
            }
            Step::Answer(yes) => {
                if let Some((id, _)) = world.asked.pop() {
                    world.mediator.answered(id, *yes);
                    world.settle();
                }
            }
            Step::Record(done) => {
                if !world.to_record.is_empty() {
                    let policy = &policies[self.policy];
                    let event = world.record(*done);
                    let to = event.detail["to"].as_str().unwrap();
                    let from = event.detail["from"].as_str().unwrap();
                    let to_index = usize::from(to == "b");
                    // Whether the policy of now would let it through; one that came after the verdict ends it.
                    let request = policy::request::ClipboardRequest {
                        from,
                        to,
                        media_type: policy::language::MediaType::TextPlain,
                        bytes: 4,
                    };
                    let verdict = policy.decide(
                        &policy::request::Request::Clipboard(request),
                        &policy::request::Context::default(),
                    );
                    if *done && verdict.permits() {
                        let hash = event.detail["sha256"].as_str().unwrap().to_owned();
                        self.permitted.insert((to_index, hash));
                    }
                }
            }
            Step::Policy(index) => {
                self.policy = *index;
                world.mediator.policy(Arc::clone(&policies[*index]), world.now);
                world.settle();
            }
            Step::Wait(seconds) => world.wait(Time::from_secs(*seconds)),
            Step::Lock => {
                world.mediator.locked(world.now);
                world.settle();
            }
            Step::RecordLost => {
                self.permitted.clear();
                world.mediator.record_lost(world.now);
                world.settle();
            }
            Step::Reconnect(guest) => {
                world.disconnected(*guest);
                world.connected(*guest);
                world.settle();
                world.sends(*guest, &announce(true, CAPABLE));
            }
        }
        for request in world.to_record.iter().skip(asked_before) {
            self.is_founded(&audit::AuditEvent::from(request.event.clone()).record());
        }
    }

    /// What is about to cross was given by the other guest after a copy hotkey there, and a paste hotkey came after that.
    fn is_founded(&self, event: &audit::events::Record) {
        let guest = |key: &str| usize::from(event.detail[key].as_str() == Some("b"));
        let (from, to) = (guest("from"), guest("to"));
        assert_ne!(from, to);
        let sha256 = event.detail["sha256"].as_str().unwrap();
        let (_, giver, at) =
            self.given.iter().find(|(hash, ..)| hash == sha256).expect("it was given by somebody");
        assert_eq!(*giver, from);
        let copied = self.hotkeys[..*at].iter().rposition(|hotkey| *hotkey == (true, from));
        let copied = copied.expect("a copy hotkey came before");
        let pasted = self.hotkeys[copied..].contains(&(false, to));
        assert!(pasted, "a paste hotkey came after the copy hotkey");
    }
}

/// Everything that a guest's programs got.
pub(super) fn contents(world: &mut World, guest: usize) -> Vec<Vec<u8>> {
    world.gets(guest).iter().filter_map(|got| Some(got.content()?.1.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    // Shows: C-9, K-3.5.1.
    #[test]
    fn bytes_cross_only_by_a_copy_there_a_paste_here_a_verdict_and_a_record(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let policies = policies();
        let mut world = World::ready("");
        let mut model = Model::default();
        for step in &steps {
            model.play(&mut world, &policies, step);
            for guest in [A, B] {
                for bytes in contents(&mut world, guest) {
                    if bytes.is_empty() {
                        continue; // "there is nothing"
                    }
                    prop_assert!(
                        model.permitted.contains(&(guest, hash(&bytes))),
                        "{:?} reached {guest}", String::from_utf8_lossy(&bytes)
                    );
                }
            }
            prop_assert!(world.kept() <= 3 * usize::try_from(HELD_MAX).unwrap());
        }
    }

    #[test]
    fn a_guest_into_which_nothing_is_pasted_gets_the_same_bytes_whatever_the_other_does(
        steps in proptest::collection::vec(step(), 1..80),
        policy in 0usize..4,
    ) {
        // What B is sent, with everything A and its user do, and without any of it.
        let policies = policies();
        let pasted_into_b = |step: &Step| matches!(step, Step::Hotkey(false, B) | Step::Policy(_));
        let of_a = |step: &Step| matches!(
            step,
            Step::Hotkey(_, A) | Step::Announce(A, _) | Step::Grab(A, _) | Step::Request(A, _)
                | Step::Release(A) | Step::Content(A, _) | Step::Bytes(A, _) | Step::Lies(A, _) | Step::Reconnect(A)
                | Step::Answer(_) | Step::Record(_)
        );
        let run = |with_a: bool| {
            let mut world = World::ready("");
            world.mediator.policy(Arc::clone(&policies[policy]), world.now);
            let mut model = Model { policy, ..Model::default() };
            let mut sent = Vec::new();
            for step in steps.iter().filter(|step| !pasted_into_b(step)) {
                if with_a || !of_a(step) {
                    model.play(&mut world, &policies, step);
                }
                if !of_a(step) {
                    world.gets(B);
                    sent.push(world.wire[B].clone());
                }
            }
            sent
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn pasting_into_a_guest_that_the_policy_denies_everything_shows_it_nothing(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let of_a = |step: &Step| matches!(
            step,
            Step::Hotkey(_, A) | Step::Hotkey(false, B) | Step::Announce(A, _) | Step::Grab(A, _)
                | Step::Request(A, _) | Step::Release(A) | Step::Content(A, _)
                | Step::Bytes(A, _) | Step::Lies(A, _) | Step::Reconnect(A)
        );
        let run = |with_a: bool| {
            let mut world = World::ready(&rule("b", "a", "allow"));
            let mut model = Model { policy: 1, ..Model::default() };
            let policies = policies();
            let mut sent = Vec::new();
            for step in steps.iter().filter(|step| !matches!(step, Step::Policy(_))) {
                if with_a || !of_a(step) {
                    model.play(&mut world, &policies, step);
                }
                if !of_a(step) {
                    world.gets(B);
                    sent.push(world.wire[B].clone());
                }
            }
            sent
        };
        prop_assert_eq!(run(true), run(false));
    }

    #[test]
    fn any_bytes_at_all_do_no_harm(input in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzz::mediator(&input);
        crate::fuzz::content(&input);
    }
}
