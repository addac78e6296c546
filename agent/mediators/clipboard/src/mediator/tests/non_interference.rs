//! What a guest is sent does not depend on another's clipboard that no rule lets cross to it.
//!
//! Two runs have the same hotkeys, answers, permits, policies, locks and times, and the same of one guest. The other guest does and has copied
//! whatever it likes, in two ways, and so does what reads it, should that be taken over. No policy lets anything cross from it, so that the one is sent the same bytes, its stream ends at the same
//! times, and it is read from at the same times. What persons are told differs, and is meant to.

use std::sync::Arc;

use policy::Policy;
use proptest::collection::vec;
use proptest::prelude::*;

use super::properties::lie;
use super::world::{
    A, B, CAPABLE, TEXT, World, announce, give, grab, message, policy, request, rule,
};
use crate::mediator::{Hotkey, Time};
use crate::vdagent::spec::kind;
use worker_link::clipboard::Event;

/// What a guest does.
#[derive(Clone, Debug)]
enum Guest {
    Says(Vec<u8>),
    /// Its reader was taken over, and says this with this in its file.
    Lies(Event, Vec<u8>),
    Reconnects,
}

#[derive(Clone, Debug)]
enum Step {
    Hotkey(Hotkey, usize),
    /// The guest that both runs have the same of.
    Watched(Guest),
    Answer(bool),
    Permit(bool),
    Policy(usize),
    Wait(u64),
    Lock,
    RecordLost,
    /// Here the other guest does what is not the same.
    Secret,
}

/// Under each something may cross to the guest with secrets at most.
fn policies(secret: usize) -> Vec<Arc<Policy>> {
    let (from, to) = if secret == A { ("a", "b") } else { ("b", "a") };
    let allowed = rule(to, from, "allow");
    let all =
        [String::new(), allowed.clone(), rule(to, from, "ask"), rule(from, to, "deny") + &allowed];
    all.iter().map(|rules| policy(rules)).collect()
}

fn guest() -> impl Strategy<Value = Guest> {
    let number = || prop_oneof![4 => Just(TEXT), 1 => 0u32..8];
    let content = prop_oneof![4 => "[a-z]{0,40}", 1 => "[a-z]{2000}"];
    let says = prop_oneof![
        1 => any::<bool>().prop_map(|again| announce(again, CAPABLE)),
        1 => any::<u32>().prop_map(|can| announce(true, can)),
        4 => vec(number(), 0..3).prop_map(|types| grab(&types)),
        4 => number().prop_map(request),
        1 => Just(message(kind::CLIPBOARD_RELEASE, &[0; 4])),
        8 => (number(), content).prop_map(|(number, text)| give(number, text.as_bytes())),
        1 => vec(any::<u8>(), 0..40),
    ];
    let lies = (lie(), "[a-z]{0,40}").prop_map(|(event, text)| Guest::Lies(event, text.into()));
    prop_oneof![12 => says.prop_map(Guest::Says), 6 => lies, 1 => Just(Guest::Reconnects)]
}

fn step() -> impl Strategy<Value = Step> {
    let hotkey = prop_oneof![Just(Hotkey::Copy), Just(Hotkey::Paste)];
    prop_oneof![
        8 => (hotkey, A..=B).prop_map(|(hotkey, guest)| Step::Hotkey(hotkey, guest)),
        8 => guest().prop_map(Step::Watched),
        2 => any::<bool>().prop_map(Step::Answer),
        3 => proptest::bool::weighted(0.8).prop_map(Step::Permit),
        1 => (0usize..4).prop_map(Step::Policy),
        2 => (0u64..70).prop_map(Step::Wait),
        1 => Just(Step::Lock),
        1 => Just(Step::RecordLost),
        10 => Just(Step::Secret),
    ]
}

/// What a guest can know after a step: the bytes it got in it, when its stream was ended, and for how long what it sends is not taken.
type Known = (Vec<u8>, Vec<Time>, Time);

struct Run {
    world: World,
    secret: usize,
    policies: Vec<Arc<Policy>>,
}

impl Run {
    fn new(secret: usize, rules: &[Arc<Policy>]) -> Self {
        let mut world = World::ready("");
        world.mediator.policy(Arc::clone(&rules[1]), world.now);
        Self { world, secret, policies: rules.to_vec() }
    }

    fn guest(&mut self, index: usize, does: &Guest) {
        match does {
            Guest::Says(bytes) => self.world.sends(index, bytes),
            Guest::Lies(event, content) => self.world.lies(index, event, content),
            Guest::Reconnects => {
                self.world.disconnected(index);
                self.world.connected(index);
                self.world.settle();
                self.world.sends(index, &announce(true, CAPABLE));
            }
        }
    }

    fn step(&mut self, step: &Step, secrets: &[Guest]) -> Known {
        let watched = 1 - self.secret;
        let world = &mut self.world;
        match step {
            Step::Hotkey(hotkey, guest) => world.hotkey(*hotkey, *guest),
            Step::Watched(does) => self.guest(watched, does),
            Step::Answer(yes) => {
                if let Some((id, _)) = world.asked.pop() {
                    world.mediator.answered(id, *yes);
                }
            }
            Step::Permit(done) => {
                if !world.to_record.is_empty() {
                    world.record(*done);
                }
            }
            Step::Policy(index) => {
                world.mediator.policy(Arc::clone(&self.policies[*index]), world.now);
            }
            Step::Wait(seconds) => world.wait(Time::from_secs(*seconds)),
            Step::Lock => world.mediator.locked(world.now),
            Step::RecordLost => world.mediator.record_lost(world.now),
            Step::Secret => secrets.iter().for_each(|does| self.guest(self.secret, does)),
        }
        let world = &mut self.world;
        world.settle();
        world.written(A);
        world.written(B);
        let ends = world.disconnected.iter().filter(|(guest, _)| *guest == watched);
        let ends = ends.map(|(_, again)| *again).collect();
        let taken = world.unread_for(watched);
        // A guest that reads takes all that is sent to it.
        let outbox = world.mediator.outbox(watched).unwrap();
        outbox.guest_took_all();
        (std::mem::take(&mut world.wire[watched]), ends, taken)
    }
}

/// Whether the watched guest knows the same after each step.
fn runs(
    secret: usize,
    policies: &[Arc<Policy>],
    steps: &[(Step, Vec<Guest>, Vec<Guest>)],
) -> Result<(), TestCaseError> {
    let (mut one, mut other) = (Run::new(secret, policies), Run::new(secret, policies));
    for (at, (step, secrets, others)) in steps.iter().enumerate() {
        let (left, right) = (one.step(step, secrets), other.step(step, others));
        prop_assert_eq!(left, right, "step {}: {:?}", at, step);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_guest_is_sent_the_same_whatever_another_has_copied_that_no_rule_lets_cross(
        secret in A..=B,
        steps in vec((step(), vec(guest(), 0..4), vec(guest(), 0..4)), 1..60),
    ) {
        runs(secret, &policies(secret), &steps)?;
    }
}

#[test]
fn what_a_rule_lets_cross_is_found() {
    let has =
        |text: &str| vec![Guest::Says(grab(&[TEXT])), Guest::Says(give(TEXT, text.as_bytes()))];
    let grabs = vec![Guest::Says(grab(&[TEXT]))];
    let of = |step| (step, Vec::new(), Vec::new());
    let steps = [
        (Step::Secret, grabs.clone(), grabs),
        of(Step::Hotkey(Hotkey::Copy, A)),
        (Step::Secret, has("one")[1..].to_vec(), has("other")[1..].to_vec()),
        of(Step::Hotkey(Hotkey::Paste, B)),
        of(Step::Permit(true)),
        of(Step::Watched(Guest::Says(request(TEXT)))),
        of(Step::Wait(0)),
        of(Step::Wait(0)),
    ];
    runs(A, &policies(A), &steps).unwrap();
    let allowed = vec![policy(&rule("a", "b", "allow")); 4];
    runs(A, &allowed, &steps).unwrap_err();
}
