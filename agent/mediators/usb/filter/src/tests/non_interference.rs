//! What the guest with one device gets does not depend on a device of another guest.
//!
//! Two sticks are behind filters of their own. The watched one has the same commands in both runs; between them the other has other content, quirks,
//! rules and commands. What the watched guest and its stick get is the same, packet by packet, and so is what is counted.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::Rules;
use crate::testing::{Bench, Data};

/// A command that a guest's driver gives, or that no driver would.
#[derive(Clone, Debug)]
enum Does {
    Read(u32, u16),
    Write(Vec<u8>),
    Command(Vec<u8>, u32),
    Sends(Vec<u8>),
    Recovers,
}

fn does() -> impl Strategy<Value = Does> {
    prop_oneof![
        4 => (0u32..64, 0u16..4).prop_map(|(at, blocks)| Does::Read(at, blocks)),
        2 => vec(any::<u8>(), 0..600).prop_map(Does::Write),
        2 => (vec(any::<u8>(), 6..16), 0u32..600).prop_map(|(cdb, bytes)| Does::Command(cdb, bytes)),
        1 => vec(any::<u8>(), 0..64).prop_map(Does::Sends),
        1 => Just(Does::Recovers),
    ]
}

/// Does it, and says all that a guest can see of it.
fn run(bench: &mut Bench, does: &Does) -> String {
    let answer = match does {
        Does::Read(at, blocks) => format!("{:?}", bench.read_blocks(*at, *blocks)),
        Does::Write(data) => {
            let blocks = u8::try_from(data.len() / 512).unwrap_or(0);
            let cdb = [0x2a, 0, 0, 0, 0, 1, 0, 0, blocks, 0];
            format!("{:?}", bench.command(&cdb, Data::Out(data)))
        }
        Does::Command(cdb, bytes) => format!("{:?}", bench.command(cdb, Data::In(*bytes))),
        Does::Sends(data) => format!("{:?}", bench.write(data)),
        Does::Recovers => {
            bench.recover();
            String::new()
        }
    };
    let unasked = std::mem::take(&mut bench.inbox);
    format!("{answer} {unasked:?} {:?} {}", bench.filter.counts(), bench.passed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_guest_gets_the_same_of_its_device_whatever_another_guest_has_on_its_own(
        rules in prop::sample::select(vec![Rules::ReadOnly, Rules::Allow]),
        steps in vec((does(), vec(does(), 0..3), vec(does(), 0..3)), 1..12),
        contents in any::<[u8; 2]>(),
    ) {
        let other = |rules, content| {
            let mut bench = Bench::new(rules);
            bench.stick.medium.fill(content);
            bench
        };
        let (mut one, mut same) = (Bench::new(rules), Bench::new(rules));
        let mut secrets = [other(Rules::ReadOnly, contents[0]), other(Rules::Allow, contents[1])];
        for (watched, left, right) in &steps {
            left.iter().for_each(|does| drop(run(&mut secrets[0], does)));
            let seen = run(&mut one, watched);
            right.iter().for_each(|does| drop(run(&mut secrets[1], does)));
            prop_assert_eq!(seen, run(&mut same, watched));
        }
        prop_assert_eq!(one.stick.storage.medium, same.stick.storage.medium);
        prop_assert_eq!(one.stick.storage.commands, same.stick.storage.commands);
    }
}
