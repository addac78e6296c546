mod every_state;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const A: MediatorId = MediatorId::new("a");
const B: MediatorId = MediatorId::new("b");

const fn id(mediator: MediatorId, number: u64) -> RequestId {
    RequestId { mediator, number }
}

/// Makes these rules, with break-glass closed, or open for longer than any test takes.
fn rules(policy: u64, break_glass: bool) -> InForce {
    InForce { policy, break_glass: break_glass.then_some(Time::MAX) }
}

/// Returns whether what was permitted on this basis may go on: until somebody says that break-glass is closed.
fn stands(in_force: InForce, basis: Basis) -> bool {
    in_force.policy == basis.policy && (in_force.break_glass.is_some() || !basis.break_glass)
}

const fn basis(policy: u64, break_glass: bool) -> Basis {
    Basis { policy, break_glass }
}

const NOTHING: Owed = Owed::nothing();
const ANSWER: Owed = Owed { answer: true, ..NOTHING };
const AT_ONCE: Time = Time::ZERO;

fn core() -> Core {
    let mut core = Core::new(rules(1, false), &[A, B]);
    core.step(AT_ONCE, Input::Started(A));
    core.step(AT_ONCE, Input::Started(B));
    core
}

fn seconds(count: u64) -> Time {
    Time::from_secs(count)
}

#[test]
fn a_permit_comes_once_the_entry_is_on_the_disk_and_only_once() {
    let mut core = core();
    let one = id(A, 7);
    let authorize = Input::Authorize(one, basis(1, false), NOTHING, false);
    assert_eq!(core.step(AT_ONCE, authorize), [Output::Record(one)]);
    assert_eq!(core.step(AT_ONCE, authorize), [Output::Deny(one, Denial::Repeated)]);
    let on_disk = Input::Written(one, EntryOutcome::OnDisk);
    assert_eq!(core.step(AT_ONCE, on_disk), [Output::Permit(one)]);
    assert_eq!(core.step(AT_ONCE, on_disk), []);
}

#[test]
fn what_a_verdict_owes_is_owed_before_its_entry_is_written() {
    let mut core = core();
    let now = basis(1, false);
    let mut number = 0;
    let mut denied = |core: &mut Core, owed, read_only| {
        number += 1;
        match core.step(AT_ONCE, Input::Authorize(id(A, number), now, owed, read_only))[..] {
            [Output::Deny(_, denial)] => Some(denial),
            [Output::Record(_)] => None,
            ref other => panic!("{other:?}"),
        }
    };
    let denied_by_policy = Owed { decision: Some(Decision::Deny), ..NOTHING };
    assert_eq!(denied(&mut core, denied_by_policy, true), Some(Denial::Denied));
    let inspection = Owed { inspection: true, ..NOTHING };
    assert_eq!(denied(&mut core, inspection, true), Some(Denial::Uninspected));
    assert_eq!(denied(&mut core, ANSWER, true), Some(Denial::Unanswered));
    let read_only = Owed { read_only: true, ..NOTHING };
    assert_eq!(denied(&mut core, read_only, false), Some(Denial::Writable));
    assert_eq!(denied(&mut core, read_only, true), None);
}

#[test]
fn a_yes_counts_for_the_request_it_was_given_to_and_for_one_permit() {
    let mut core = core();
    let (asked, other, of_b) = (id(A, 1), id(A, 2), id(B, 1));
    assert_eq!(core.step(AT_ONCE, Input::Ask(asked, seconds(20))), [Output::Show(asked)]);
    let authorize = |request| Input::Authorize(request, basis(1, false), ANSWER, false);
    assert_eq!(core.step(AT_ONCE, authorize(asked)), [Output::Deny(asked, Denial::Repeated)]);
    let answered = core.step(seconds(19), Input::Answer(asked, true));
    assert_eq!(answered, [Output::Answered(asked, true)]);
    for wrong in [other, of_b] {
        let denied = core.step(seconds(20), authorize(wrong));
        assert_eq!(denied, [Output::Deny(wrong, Denial::Unanswered)]);
    }
    assert_eq!(core.step(seconds(21), authorize(asked)), [Output::Record(asked)]);
    core.step(seconds(21), Input::Written(asked, EntryOutcome::OnDisk));
    let again = core.step(seconds(21), authorize(asked));
    assert_eq!(again, [Output::Deny(asked, Denial::Unanswered)]);
}

#[test]
fn silence_is_no_and_an_answer_that_comes_later_is_nothing() {
    let mut core = core();
    let one = id(A, 1);
    core.step(AT_ONCE, Input::Ask(one, seconds(20)));
    assert_eq!(core.deadline(), Some(seconds(20)));
    let over = [Output::Hide(one), Output::Answered(one, false)];
    assert_eq!(core.step(seconds(20), Input::Answer(one, true)), over);
    assert_eq!(core.step(seconds(20), Input::Answer(one, true)), []);
    assert_eq!(core.deadline(), None);
}

#[test]
fn what_was_asked_and_answered_under_another_policy_is_void_and_its_effects_are_reviewed() {
    let mut core = core();
    let (asked, agreed) = (id(A, 1), id(B, 1));
    core.step(AT_ONCE, Input::Ask(asked, seconds(20)));
    core.step(AT_ONCE, Input::Ask(agreed, seconds(20)));
    core.step(AT_ONCE, Input::Answer(agreed, true));
    let revoked =
        [Output::Hide(asked), Output::Revoke(A, Cause::Policy), Output::Revoke(B, Cause::Policy)];
    assert_eq!(core.step(AT_ONCE, Input::InForce(rules(2, false))), revoked);
    // A yes that was given is void as the policy is another, and not as nobody gave one.
    let authorize = |policy| Input::Authorize(agreed, basis(policy, false), ANSWER, false);
    assert_eq!(core.step(AT_ONCE, authorize(1)), [Output::Deny(agreed, Denial::Stale)]);
    assert_eq!(core.step(AT_ONCE, authorize(2)), [Output::Deny(agreed, Denial::Unanswered)]);
    // The same once more is nothing new.
    assert_eq!(core.step(AT_ONCE, Input::InForce(rules(2, false))), []);
}

#[test]
fn a_policy_that_ends_break_glass_has_each_mediator_take_back_once() {
    let mut core = core();
    core.step(AT_ONCE, Input::InForce(rules(1, true)));
    let revoked = [Output::Revoke(A, Cause::Policy), Output::Revoke(B, Cause::Policy)];
    assert_eq!(core.step(AT_ONCE, Input::InForce(rules(2, false))), revoked);
}

#[test]
fn rules_that_change_while_the_entry_is_written_permit_nothing_any_more() {
    for (before, needs, after) in [
        (rules(1, false), basis(1, false), rules(2, false)),
        (rules(1, true), basis(1, true), rules(1, false)),
    ] {
        let mut core = core();
        core.step(AT_ONCE, Input::InForce(before));
        let one = id(A, 1);
        core.step(AT_ONCE, Input::Authorize(one, needs, NOTHING, false));
        core.step(AT_ONCE, Input::InForce(after));
        let written = core.step(AT_ONCE, Input::Written(one, EntryOutcome::OnDisk));
        assert_eq!(written, [Output::Deny(one, Denial::Stale)]);
    }
}

#[test]
fn break_glass_permits_nothing_from_its_last_moment_on_though_nobody_has_closed_it() {
    let open = InForce { policy: 1, break_glass: Some(seconds(10)) };
    let one = id(A, 1);
    let authorize = Input::Authorize(one, basis(1, true), NOTHING, false);
    let stale = [Output::Deny(one, Denial::Stale)];
    let mut core = core();
    core.step(AT_ONCE, Input::InForce(open));
    assert_eq!(core.step(seconds(10), authorize), stale);
    let before = Time::from_millis(9_999);
    assert_eq!(core.step(before, authorize), [Output::Record(one)]);
    // The disk took its time.
    assert_eq!(core.step(seconds(10), Input::Written(one, EntryOutcome::OnDisk)), stale);
    let other = Input::Authorize(one, basis(1, false), NOTHING, false);
    assert_eq!(core.step(seconds(10), other), [Output::Record(one)]);
}

#[test]
fn a_log_that_fails_revokes_everything_and_what_is_withheld_nothing() {
    let mut core = core();
    let one = id(A, 1);
    let authorize = Input::Authorize(one, basis(1, false), NOTHING, false);
    core.step(AT_ONCE, authorize);
    let withheld = core.step(AT_ONCE, Input::Written(one, EntryOutcome::Withheld));
    assert_eq!(withheld, [Output::Deny(one, Denial::Unrecorded)]);
    core.step(AT_ONCE, authorize);
    let all = [Output::Revoke(A, Cause::Record), Output::Revoke(B, Cause::Record)];
    let lost = core.step(AT_ONCE, Input::Written(one, EntryOutcome::Lost));
    assert_eq!(lost, [&all[..], &[Output::Deny(one, Denial::Unrecorded)]].concat());
    assert_eq!(core.step(AT_ONCE, Input::LogKept(false)), [], "that is known");
    assert_eq!(core.step(AT_ONCE, Input::LogKept(true)), []);
    assert_eq!(core.step(AT_ONCE, Input::LogKept(false)), all);
}

#[test]
fn a_mediator_that_died_is_asked_for_nothing_and_permitted_nothing() {
    let mut core = core();
    let (asked, recording) = (id(A, 1), id(A, 2));
    core.step(AT_ONCE, Input::Ask(asked, seconds(20)));
    core.step(AT_ONCE, Input::Authorize(recording, basis(1, false), NOTHING, false));
    assert_eq!(core.step(AT_ONCE, Input::Died(A)), [Output::Hide(asked)]);
    assert_eq!(core.step(AT_ONCE, Input::Written(recording, EntryOutcome::OnDisk)), []);
    let denied = core.step(AT_ONCE, Input::Ask(asked, seconds(20)));
    assert_eq!(denied, [Output::Deny(asked, Denial::NotRunning)]);
    let unknown = id(MediatorId::new("c"), 1);
    core.step(AT_ONCE, Input::Started(unknown.mediator));
    let denied = core.step(AT_ONCE, Input::Authorize(unknown, basis(1, false), NOTHING, false));
    assert_eq!(denied, [Output::Deny(unknown, Denial::NotRunning)]);
}

#[test]
fn one_mediator_takes_only_its_own_room() {
    let mut core = core();
    for number in 0..u64::try_from(REQUESTS_MAX).unwrap() {
        core.step(AT_ONCE, Input::Ask(id(A, number), seconds(20)));
    }
    let more = id(A, u64::MAX);
    let denied = core.step(AT_ONCE, Input::Ask(more, seconds(20)));
    assert_eq!(denied, [Output::Deny(more, Denial::TooMany)]);
    let of_b = id(B, 1);
    assert_eq!(core.step(AT_ONCE, Input::Ask(of_b, seconds(20))), [Output::Show(of_b)]);
}

/// What the promises are held against: what was asked, agreed, recorded and is permitted, kept by other means.
struct Model {
    core: Core,
    now: Time,
    in_force: InForce,
    kept: bool,
    runs: BTreeSet<MediatorId>,
    asked: BTreeSet<RequestId>,
    /// Until when a yes counts.
    agreed: BTreeMap<RequestId, Time>,
    recording: BTreeMap<RequestId, Basis>,
    /// What mediators have permits for.
    effects: Vec<(RequestId, Basis)>,
    permits: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            core: Core::new(rules(1, false), &[A, B]),
            now: AT_ONCE,
            in_force: rules(1, false),
            kept: true,
            runs: BTreeSet::new(),
            asked: BTreeSet::new(),
            agreed: BTreeMap::new(),
            recording: BTreeMap::new(),
            effects: Vec::new(),
            permits: 0,
        }
    }

    /// Expects what an input means, whatever the core makes of it.
    fn expect(&mut self, input: Input) {
        match input {
            Input::Started(mediator) => {
                self.runs.insert(mediator);
            }
            Input::Died(mediator) => {
                self.runs.remove(&mediator);
                self.agreed.retain(|id, _| id.mediator != mediator);
                self.recording.retain(|id, _| id.mediator != mediator);
                self.effects.retain(|(id, _)| id.mediator != mediator);
            }
            Input::InForce(new) => {
                if new.policy != self.in_force.policy {
                    self.agreed.clear();
                }
                self.in_force = new;
            }
            Input::LogKept(kept) => self.kept = kept,
            Input::Written(_, EntryOutcome::OnDisk) => self.kept = true,
            Input::Written(_, EntryOutcome::Lost) => self.kept = false,
            _ => {}
        }
    }

    fn step(&mut self, input: Input) {
        self.expect(input);
        let outputs = self.core.step(self.now, input);
        let mut decided = 0;
        for output in outputs {
            match output {
                Output::Show(id) => {
                    decided += 1;
                    assert!(self.asked.insert(id));
                }
                Output::Hide(id) => assert!(self.asked.remove(&id), "{id:?} was not asked"),
                Output::Answered(id, true) => {
                    assert_eq!(input, Input::Answer(id, true), "nobody said yes");
                    assert!(self.asked.remove(&id));
                    self.agreed.insert(id, self.now + AGREED_FOR);
                }
                Output::Answered(id, false) => {
                    self.asked.remove(&id);
                }
                Output::Record(id) => {
                    let Input::Authorize(of, basis, owed, read_only) = input else {
                        panic!("{input:?}")
                    };
                    decided += 1;
                    assert!(of == id && self.runs.contains(&id.mediator));
                    let agreed = self.agreed.remove(&id).is_some_and(|until| self.now < until);
                    assert!(!owed.inspection && (agreed || !owed.answer));
                    assert_ne!(owed.decision, Some(Decision::Deny));
                    assert!(read_only || !owed.read_only);
                    assert!(self.in_force.holds(basis, self.now));
                    assert!(self.recording.insert(id, basis).is_none());
                }
                Output::Permit(id) => {
                    decided += 1;
                    self.permits += 1;
                    assert_eq!(input, Input::Written(id, EntryOutcome::OnDisk));
                    let basis = self.recording.remove(&id).expect("it was recorded");
                    assert!(self.in_force.holds(basis, self.now));
                    self.effects.push((id, basis));
                }
                Output::Deny(id, _) => {
                    decided += 1;
                    if matches!(input, Input::Written(of, _) if of == id) {
                        self.recording.remove(&id);
                    }
                    if matches!(input, Input::Authorize(of, ..) if of == id) {
                        self.agreed.remove(&id);
                    }
                }
                Output::Revoke(mediator, cause) => {
                    assert!(self.runs.contains(&mediator));
                    let in_force = self.in_force;
                    self.effects.retain(|(id, basis)| {
                        // A mediator ends what it would not be granted again, and all if nothing is recorded.
                        let stands = cause != Cause::Record && stands(in_force, *basis);
                        id.mediator != mediator || stands
                    });
                }
            }
        }
        let of_recording = matches!(input, Input::Ask(..) | Input::Authorize(..));
        assert!(decided <= 1 && (decided == 1 || !of_recording), "{decided} answers to {input:?}");
        assert!(self.kept || self.effects.is_empty(), "an effect outlives its record");
        for (id, basis) in &self.effects {
            assert!(stands(self.in_force, *basis), "{id:?} outlives its rules");
            assert!(self.runs.contains(&id.mediator), "{id:?} outlives its mediator");
        }
        assert!(self.core.requests.len() <= 2 * REQUESTS_MAX);
        if let Some(deadline) = self.core.deadline() {
            assert!(deadline > self.now, "{deadline:?} is over and was not acted on");
        }
    }
}

fn request() -> impl Strategy<Value = RequestId> {
    (prop::sample::select(vec![A, B]), 0u64..3).prop_map(|(mediator, number)| id(mediator, number))
}

fn owed() -> impl Strategy<Value = Owed> {
    let decision = prop_oneof![
        2 => Just(None),
        4 => Just(Some(Decision::Allow)),
        1 => Just(Some(Decision::Deny)),
    ];
    (decision, proptest::bool::weighted(0.1), any::<bool>(), proptest::bool::weighted(0.2))
        .prop_map(|(decision, inspection, answer, read_only)| Owed {
            decision,
            inspection,
            answer,
            read_only,
        })
}

fn input() -> impl Strategy<Value = Input> {
    let basis =
        || (1u64..3, any::<bool>()).prop_map(|(policy, break_glass)| basis(policy, break_glass));
    let written = prop_oneof![6 => Just(EntryOutcome::OnDisk), 1 => Just(EntryOutcome::Lost), 1 => Just(EntryOutcome::Withheld)];
    let mediator = || prop::sample::select(vec![A, B]);
    prop_oneof![
        4 => (request(), 1u64..40).prop_map(|(id, until)| Input::Ask(id, seconds(until))),
        5 => (request(), proptest::bool::weighted(0.8)).prop_map(|(id, yes)| Input::Answer(id, yes)),
        1 => request().prop_map(Input::Withdraw),
        8 => (request(), basis(), owed(), any::<bool>())
            .prop_map(|(id, basis, owed, read_only)| Input::Authorize(id, basis, owed, read_only)),
        8 => (request(), written).prop_map(|(id, written)| Input::Written(id, written)),
        2 => (1u64..3, proptest::option::of(0u64..40)).prop_map(|(policy, break_glass)| {
            Input::InForce(InForce { policy, break_glass: break_glass.map(seconds) })
        }),
        1 => any::<bool>().prop_map(Input::LogKept),
        2 => mediator().prop_map(Input::Started),
        1 => mediator().prop_map(Input::Died),
        1 => Just(Input::Tick),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    // Shows: C-9, K-3.5.1.
    #[test]
    fn no_effect_comes_without_its_permit_and_none_outlives_its_rules_its_record_or_its_mediator(
        steps in proptest::collection::vec((input(), 0u64..4), 1..120)
    ) {
        let mut model = Model::new();
        model.step(Input::Started(A));
        model.step(Input::Started(B));
        for (input, later) in steps {
            model.now += seconds(later);
            model.step(match input {
                Input::Ask(id, within) => Input::Ask(id, model.now + within),
                Input::InForce(InForce { policy, break_glass }) => {
                    let break_glass = break_glass.map(|left| model.now + left);
                    Input::InForce(InForce { policy, break_glass })
                }
                other => other,
            });
        }
    }
}

#[test]
fn the_model_is_not_vacuous() {
    let mut model = Model::new();
    model.step(Input::Started(A));
    model.step(Input::Ask(id(A, 1), seconds(20)));
    model.step(Input::Answer(id(A, 1), true));
    model.step(Input::Authorize(id(A, 1), basis(1, false), ANSWER, false));
    model.step(Input::Written(id(A, 1), EntryOutcome::OnDisk));
    assert_eq!((model.permits, model.effects.len()), (1, 1));
    model.step(Input::LogKept(false));
    assert!(model.effects.is_empty());
}
