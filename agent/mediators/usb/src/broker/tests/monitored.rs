//! The broker with the monitor and a log on a disk, as the daemon has them speak: in every interleaving of devices, threads, answers, rules and failures of
//! the log nothing of a device reaches a domain without the monitor's permit, and nothing outlives it.

use proptest::collection::vec;
use proptest::prelude::*;

use super::steps::{Does, Happens, does, happens};
use super::world::{CLINICAL, INTERNET, Plant, World};

const NAMES: [&str; 2] = ["clinical", "internet"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Step {
    /// With the device of this domain.
    Device(usize, Does),
    /// With all that concerns both.
    Both(Happens),
    /// The broker's thread takes one command, or all.
    Takes,
    TakesAll,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (CLINICAL..=INTERNET, does()).prop_map(|(domain, does)| Step::Device(domain, does)),
        2 => happens().prop_map(Step::Both),
        2 => Just(Step::Takes),
        1 => Just(Step::TakesAll),
    ]
}

/// A world, and how much has arrived at its domains.
struct Watched {
    world: World,
    arrived: usize,
}

impl Watched {
    fn happens(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Device(domain, does) => drop(self.world.does(*domain, does)),
            Step::Both(happens) => self.world.happens(happens),
            Step::Takes => self.world.takes(),
            Step::TakesAll => self.world.takes_all(),
        }
        for domain in [CLINICAL, INTERNET] {
            self.world.turn(domain);
            self.world.thread();
        }
        if self.world.mailbox.is_empty() {
            let ahead = self.world.ahead;
            for given in self.world.given.iter_mut().filter(|given| given.revoked) {
                given.told.get_or_insert(ahead);
            }
        }
        self.check()
    }

    /// Whatever reaches a domain has a permit that stands, or that the broker has not been told is revoked for longer than a device may take to leave.
    fn check(&mut self) -> Result<(), String> {
        let ahead = self.world.ahead;
        for domain in [CLINICAL, INTERNET] {
            let bytes = self.world.arrives(domain);
            if bytes.iter().all(|(bytes, _)| bytes.is_empty()) {
                continue;
            }
            self.arrived += 1;
            let stands = self.world.given.iter().any(|given| {
                let in_time = given.told.is_none_or(|told| ahead <= told);
                given.domain == NAMES[domain] && (!given.revoked || in_time)
            });
            if !stands {
                return Err(format!("{bytes:?} reached {}", NAMES[domain]));
            }
        }
        Ok(())
    }

    /// Plays it, and then looks at what each domain still gets when everybody has come round.
    fn played(plant: Plant, all: &[Step]) -> Result<Self, String> {
        let mut world = World::new(plant);
        world.is_slow = true;
        let mut watched = Self { world, arrived: 0 };
        let sends = |domain| Step::Device(domain, Does::Sends(vec![7]));
        let end =
            [Step::TakesAll, Step::Both(Happens::TimePasses), sends(CLINICAL), sends(INTERNET)];
        all.iter().chain(&end).try_for_each(|step| watched.happens(step))?;
        Ok(watched)
    }
}

/// The Internet domain's device is used there.
fn used() -> Step {
    Step::Device(INTERNET, Does::IsUsed(vec![1]))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn nothing_of_a_device_reaches_a_domain_without_the_monitors_permit_or_outlives_it_whatever_fails_when(
        steps in vec(step(), 0..30),
    ) {
        Watched::played(Plant::None, &steps).map_err(TestCaseError::fail)?;
        // From a device that is in use.
        let steps: Vec<Step> = [used()].into_iter().chain(steps).collect();
        let watched = Watched::played(Plant::None, &steps).map_err(TestCaseError::fail)?;
        prop_assert!(watched.arrived > 0);
    }
}

#[test]
fn an_attachment_without_a_permit_or_that_outlives_it_would_be_found() {
    let rules = Step::Both(Happens::Rules(1, false));
    for (plant, all) in [
        (Plant::PermitsItself, vec![used()]),
        (Plant::KeepsOnRules, vec![used(), rules]),
        (Plant::KeepsOnRecordLost, vec![used(), Step::Both(Happens::LogFails)]),
    ] {
        let right = Watched::played(Plant::None, &all).unwrap();
        assert!(right.arrived > 0, "{plant:?}");
        let found = Watched::played(plant, &all).map(|_| ());
        let found = found.expect_err(&format!("{plant:?}"));
        assert!(found.ends_with("reached internet"), "{plant:?}: {found}");
    }
}
