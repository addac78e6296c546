//! What the Internet domain gets of its USB device does not depend on the clinical domain's.
//!
//! One broker has both domains. One schedule of the device at 1-5, which is the Internet domain's, and of what concerns all devices (time,
//! rules, the record) is played twice; between its steps the device at 1-4, the clinical domain's, is another in each run, says and sends
//! other things, and comes, goes and is attached at other times. What comes out of the Internet domain's socket is the same to the byte, in
//! the same step, and so is what is recorded of that domain, said and listed of its device, and done with it. Not counted are the numbers of requests
//! and tasks: they count those of both, and leave the agent nowhere. What is asked for is decided by a monitor with a log on a disk, which has the requests of both.

use proptest::collection::vec;
use proptest::prelude::*;

use super::steps::{Does, Happens, does, happens};
use super::world::{CLINICAL, INTERNET, Plant, World};

/// A step of the watched device, before and after which the secret one does something, and then something for all.
type Step = (Does, Happens);

impl World {
    /// All that the Internet domain's VMM was sent, and what the agent was told of that domain and its device.
    fn seen(&mut self, told: &[String]) -> String {
        let bytes = self.arrives(INTERNET);
        self.bench.broker.report();
        self.hear();
        let events = std::mem::take(&mut self.said);
        let listed = self
            .bench
            .broker
            .last_reported
            .iter()
            .filter(|one| one.bus_id == "1-5" || one.domain.as_deref() == Some("internet"));
        format!("{told:?} {bytes:?} {events:?} {:?}", listed.collect::<Vec<_>>())
    }

    fn played(plant: Plant, steps: &[Step], secrets: &[(Vec<Does>, Vec<Does>)]) -> Vec<String> {
        let mut world = Self::new(plant);
        let none = (Vec::new(), Vec::new());
        let mut seen = Vec::new();
        for (number, (does, happens)) in steps.iter().enumerate() {
            let (before, after) = secrets.get(number).unwrap_or(&none);
            before.iter().for_each(|secret| drop(world.does(CLINICAL, secret)));
            let mut told = world.does(INTERNET, does);
            after.iter().for_each(|secret| drop(world.does(CLINICAL, secret)));
            world.happens(happens);
            world.turn(INTERNET);
            told.extend(world.thread());
            seen.push(world.seen(&told));
            world.turn(CLINICAL);
            world.thread();
        }
        seen
    }
}

/// What the clinical domain's device does before and after each step.
fn secrets() -> impl Strategy<Value = Vec<(Vec<Does>, Vec<Does>)>> {
    vec((vec(does(), 0..3), vec(does(), 0..3)), 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_the_internet_domain_gets_of_its_device_is_the_same_whatever_the_clinical_domain_has_on_its_own(
        steps in vec((does(), happens()), 1..10),
        one in secrets(),
        other in secrets(),
    ) {
        let [one, other] = [one, other].map(|secrets| World::played(Plant::None, &steps, &secrets));
        prop_assert_eq!(one, other);
    }
}

#[test]
fn a_device_of_the_clinical_domains_that_reaches_the_other_domain_is_found_by_this_comparison() {
    let steps: Vec<Step> = (0..4u8)
        .map(|step| (Does::IsUsed(vec![step]), Happens::TimePasses))
        .chain([(Does::Leaves, Happens::Nothing), (Does::IsUsed(vec![9]), Happens::Nothing)])
        .collect();
    let uses = |content: u8| {
        let comes = vec![Does::Leaves, Does::IsUsed(vec![content; 8])];
        vec![(comes.clone(), comes); 4]
    };
    let seen = |plant, secrets: &[_]| World::played(plant, &steps, secrets);
    let plain = seen(Plant::None, &[]);
    // The watched device was served, and its content arrived.
    assert!(plain[0].contains("serve") && plain[0].contains("([0], false)"), "{}", plain[0]);
    assert_eq!(plain, seen(Plant::None, &uses(1)));
    // Content.
    assert_ne!(seen(Plant::Socket, &uses(1)), seen(Plant::Socket, &uses(2)));
    // Time.
    assert_ne!(seen(Plant::Pace, &[]), seen(Plant::Pace, &uses(1)));
}
