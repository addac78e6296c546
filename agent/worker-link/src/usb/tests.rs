use std::collections::BTreeSet;

use proptest::prelude::*;
use usbdescriptors::{PinnedDescriptor, Share};

use super::*;

fn counts_of(commands: &[(u8, u64)]) -> Counts {
    let commands = commands.iter().copied().collect();
    Counts { to_device: 1, to_guest: u64::MAX, refused: 3, commands }
}

fn messages() -> Vec<Message> {
    let refused = |what: &str| Message::Refused { times: 7, what: what.to_owned() };
    let mut all = vec![
        Message::Authorise,
        Message::Begun,
        Message::Serving,
        refused(""),
        refused("SCSI command 0x2a: it writes"),
        Message::Failed("the device is gone".to_owned()),
    ];
    all.extend(Reason::ALL.map(|reason| {
        let counts = counts_of(&[(0x12, 1), (0x28, 900), (0xff, u64::MAX)]);
        Message::Detached { reason, counts, why: "it was pulled out".to_owned() }
    }));
    all
}

fn job(share: Share) -> Job {
    let other = |configuration, bytes: &[u8]| PinnedDescriptor {
        configuration,
        kind: 3,
        index: 1,
        target: 0x0409,
        bytes: bytes.to_vec(),
    };
    let others = vec![other(None, b"\x04\x03A\0"), other(Some(0), b""), other(Some(2), &[7; 4096])];
    let descriptors = vec![18; 50];
    Job { read_only: true, speed: Speed::High, share, budget: 0x0102_0304, descriptors, others }
}

#[test]
fn what_is_written_is_read() {
    for whole in [true, false] {
        assert_eq!(Start::read(&Start { whole }.write()), Ok(Start { whole }));
    }
    for command in
        [Command::Flush, Command::Close, Command::Done(0), Command::Done(255), Command::Ask]
    {
        assert_eq!(Command::read(&command.write()), Ok(command));
    }
    for message in messages() {
        assert_eq!(Message::read(&message.write()), Ok(message));
    }
    for share in [Share::Whole, Share::Interfaces(BTreeSet::from([0, 1, 8, 255]))] {
        assert_eq!(Job::read(&job(share.clone()).write()), Ok(job(share)));
    }
}

#[test]
fn each_sides_messages_are_none_of_the_others_and_none_has_anything_behind_it() {
    for message in messages() {
        let bytes = message.write();
        assert!(Command::read(&bytes).is_err() && Start::read(&bytes).is_err(), "{message:?}");
    }
    for command in [Command::Flush, Command::Close, Command::Done(1), Command::Ask] {
        let bytes = command.write();
        assert!(Message::read(&bytes).is_err() && Start::read(&bytes).is_err());
        assert!(Command::read(&[&bytes[..], &[0]].concat()).is_err());
    }
    for bytes in [Message::Authorise.write(), Message::Begun.write(), Message::Serving.write()] {
        assert!(Message::read(&[&bytes[..], &[0]].concat()).is_err());
    }
    assert!(Job::read(&[&job(Share::Whole).write()[..], &[0]].concat()).is_err());
    assert!(Message::read(&[]).is_err() && Command::read(&[]).is_err());
}

#[test]
fn words_that_are_too_long_are_cut_where_a_character_ends_and_read_by_nobody_else() {
    let long = "ä".repeat(WORDS_MAX);
    let Ok(Message::Failed(read)) = Message::read(&Message::Failed(long.clone()).write()) else {
        panic!("it is read");
    };
    assert_eq!(read, "ä".repeat(WORDS_MAX / 2));
    let odd = format!("a{long}");
    let Ok(Message::Failed(read)) = Message::read(&Message::Failed(odd).write()) else {
        panic!("it is read");
    };
    assert_eq!(read.len(), WORDS_MAX - 1);
    let longer = [&[FAILED][..], &[b'a'; WORDS_MAX + 1]].concat();
    assert!(Message::read(&longer).is_err());
    assert!(Message::read(&[FAILED, 0xff]).is_err(), "no words");
}

#[test]
fn a_longest_message_fits_and_a_command_is_counted_once() {
    let commands: Vec<(u8, u64)> = (0..=u8::MAX).map(|opcode| (opcode, u64::MAX)).collect();
    let why = "x".repeat(WORDS_MAX);
    let detached = |commands: &[(u8, u64)]| {
        let counts = counts_of(commands);
        Message::Detached { reason: Reason::Stream, counts, why: why.clone() }
    };
    let longest = detached(&commands).write();
    assert_eq!(longest.len(), MESSAGE_MAX);
    assert!(longest.len() < crate::MESSAGE_MAX);
    assert_eq!(Message::read(&longest), Ok(detached(&commands)));
    let mut twice = detached(&[(1, 1), (2, 2)]).write();
    assert!(Message::read(&twice).is_ok());
    // The second opcode, behind tag, reason, three totals, the number, and the first command.
    twice[2 + 3 * 8 + 2 + 9] = 1;
    assert!(Message::read(&twice).is_err());
}

#[test]
fn a_job_that_is_larger_than_any_device_makes_it_is_none() {
    let mut large = job(Share::Whole);
    large.others = vec![
        PinnedDescriptor {
            configuration: None,
            kind: 1,
            index: 0,
            target: 0,
            bytes: vec![0; 4096]
        };
        OTHERS_MAX
    ];
    large.descriptors = vec![0; 18 + 8 * 4096];
    let bytes = large.write();
    assert!(bytes.len() <= JOB_MAX);
    assert_eq!(Job::read(&bytes).as_ref(), Ok(&large));
    large.others.push(large.others[0].clone());
    assert!(Job::read(&large.write()).is_err());
    large.others.truncate(1);
    large.others[0].bytes.push(0);
    assert!(Job::read(&large.write()).is_err());
    large.others.clear();
    large.descriptors.push(0);
    assert!(Job::read(&large.write()).is_err());
}

#[test]
fn the_kernels_words_for_a_speed_are_known() {
    for (words, speed) in [
        ("1.5", Speed::Low),
        ("12", Speed::Full),
        ("480", Speed::High),
        ("5000", Speed::Super),
        ("20000", Speed::Super),
        ("53.3-480", Speed::Unknown),
        ("", Speed::Unknown),
    ] {
        assert_eq!(Speed::of(words), speed, "{words}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_as_it_is_written_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..120),
        tag in prop::sample::select(vec![1, 2, 3, 4, 5, 6, 0x10, 0x11, 0x12, 0x13, 0x14]),
        reason in 0u8..9,
        number in 0u8..4,
    ) {
        fuzz(&bytes);
        fuzz(&[&[tag][..], &bytes].concat());
        fuzz(&[&[DETACHED, reason][..], &[0; 24], &[number, 0], &bytes].concat());
        fuzz(&[&job::MAGIC[..], &bytes].concat());
    }

    #[test]
    fn any_change_of_a_message_or_a_job_makes_another_or_none(
        which in 0usize..14,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        end in any::<prop::sample::Index>(),
    ) {
        let mut all: Vec<Vec<u8>> = messages().iter().map(Message::write).collect();
        all.push(job(Share::Interfaces(BTreeSet::from([3]))).write());
        let mut bytes = all.swap_remove(which % all.len());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        fuzz(&bytes);
        bytes.truncate(end.index(bytes.len() + 1));
        fuzz(&bytes);
    }
}
