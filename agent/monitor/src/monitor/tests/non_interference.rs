//! What one mediator is told does not depend on what another asks for.
//!
//! One schedule of the watched mediator's requests and of rules is played twice. Between its steps the other mediator makes other requests about
//! other content in each run, has other answers, and dies and comes back. The watched one gets the same permits, denials, answers and revocations, in the same
//! step. Not counted are the numbers of entries and of questions: they count those of both, and go to no guest.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Something that a mediator does, or that is done about its request of this number.
#[derive(Clone, Debug)]
enum Does {
    Asks(u64),
    IsAnswered(u64, bool),
    Withdraws(u64),
    /// About this content, under the policy of this serial; whether the verdict owes an answer.
    Authorizes(u64, Vec<u8>, u64, bool),
    /// It asks for as much as it may, and for more.
    Floods,
    Dies,
}

fn does() -> impl Strategy<Value = Does> {
    let content = || vec(any::<u8>(), 0..200);
    prop_oneof![
        3 => (0u64..3).prop_map(Does::Asks),
        3 => (0u64..3, any::<bool>()).prop_map(|(number, yes)| Does::IsAnswered(number, yes)),
        1 => (0u64..3).prop_map(Does::Withdraws),
        4 => (0u64..3, content(), 1u64..3, any::<bool>())
            .prop_map(|(number, content, policy, owes)| Does::Authorizes(number, content, policy, owes)),
        1 => Just(Does::Floods),
        1 => Just(Does::Dies),
    ]
}

#[derive(Debug, PartialEq, Eq)]
struct Content(Vec<u8>);

impl Grant for Content {
    type Event = UsbAttached;
    type Owed = Owed;
}

/// A monitor, and which questions it has shown for whom.
struct Run {
    monitor: Monitor,
    asked: BTreeMap<RequestId, QuestionId>,
    _dir: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self { monitor: monitor(dir.path()), asked: BTreeMap::new(), _dir: dir }
    }

    fn ask(&mut self, id: RequestId) -> String {
        match self.monitor.ask(id, Duration::from_secs(600)) {
            Ok(question) => {
                self.asked.insert(id, question);
                "asked".to_owned()
            }
            Err(denial) => format!("{denial:?}"),
        }
    }

    /// Has a mediator do something; what it is told.
    fn does(&mut self, mediator: MediatorId, does: &Does) -> String {
        let id = |number: &u64| RequestId { mediator, number: *number };
        match does {
            Does::Asks(number) => self.ask(id(number)),
            Does::IsAnswered(number, yes) => {
                let question = self.asked.get(&id(number));
                format!("{:?}", question.and_then(|it| self.monitor.answer(*it, *yes)))
            }
            Does::Withdraws(number) => {
                self.monitor.withdraw(id(number));
                String::new()
            }
            Does::Authorizes(number, content, policy, owes) => {
                let domain = String::from_utf8_lossy(content).into_owned();
                let request = Request {
                    number: *number,
                    basis: Basis { policy: *policy, break_glass: false },
                    owed: Owed { answer: *owes, ..Owed::nothing() },
                    event: UsbAttached { domain, bus_id: String::new(), request: None },
                    grant: Content(content.clone()),
                };
                let decided = self.monitor.authorize(mediator, request);
                format!("{:?}", decided.map(Permit::into_grant).map_err(|it| it.denial))
            }
            Does::Floods => {
                let numbers = 10..10 + u64::try_from(REQUESTS_MAX).unwrap();
                let told: Vec<String> = numbers.map(|number| self.ask(id(&number))).collect();
                told.concat()
            }
            Does::Dies => {
                self.monitor.died(mediator);
                self.monitor.started(mediator);
                String::new()
            }
        }
    }

    /// Returns what else a mediator is told, since the last time.
    fn events(&mut self, mediator: MediatorId) -> Vec<String> {
        let events = self.monitor.events().into_iter();
        let of_it = events.filter_map(|event| match event {
            Event::Silence(id) => {
                (id.mediator == mediator).then(|| format!("silence {}", id.number))
            }
            Event::Revoke(of, cause) => (of == mediator).then(|| format!("revoke {cause:?}")),
            Event::Hide(question) => {
                let id = self.asked.iter().find(|(_, shown)| **shown == question);
                let id = id.map(|(id, _)| *id).filter(|id| id.mediator == mediator);
                id.map(|id| format!("hide {}", id.number))
            }
        });
        of_it.collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_mediator_is_told_the_same_whatever_another_asks_for_and_about_what(
        steps in vec((does(), vec(does(), 0..3), vec(does(), 0..3), (1u64..3, any::<bool>())), 1..12),
    ) {
        let mut runs = [Run::new(), Run::new()];
        for (watched, left, right, (policy, change)) in &steps {
            let told = runs.each_mut().into_iter().zip([left, right]).map(|(run, others)| {
                others.iter().for_each(|does| drop(run.does(A, does)));
                let told = run.does(B, watched);
                if *change {
                    run.monitor.enforce(*policy, None);
                }
                (told, run.events(B))
            });
            let told: Vec<(String, Vec<String>)> = told.collect();
            prop_assert_eq!(&told[0], &told[1], "{:?}", watched);
        }
    }
}
