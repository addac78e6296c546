use proptest::prelude::*;

use super::*;

fn encoded(length: u32) -> Answer {
    Answer::Encoded { turned: true, made_opaque: false, first_of: Some(3), length }
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_as_it_is_written_or_none(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        start in 0usize..4,
        code in 0u32..6,
    ) {
        let code = code.to_le_bytes();
        let starts: [&[u8]; 4] = [&[], &JOB_MAGIC, &ANSWER_MAGIC, &[&ANSWER_MAGIC[..], &code].concat()];
        fuzz(&[starts[start], &bytes].concat());
        fuzz(&[&JOB_MAGIC[..], &code, &[0; 4], &bytes].concat());
    }

    #[test]
    fn one_bit_of_an_answer_that_is_another_makes_another_answer_or_none(bit in 0..ANSWER_HEADER * 8) {
        for answer in [encoded(1000), Answer::Refused(Refused::Damaged)] {
            let mut header = answer.header();
            header[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(Answer::read(&header, 5000), Ok(answer));
        }
    }
}

#[test]
fn what_is_written_is_read() {
    for kind in Kind::ALL {
        let job = Job { kind, most: 5 };
        let bytes = [&job.header()[..], b"picture"].concat();
        assert_eq!(Job::read(&bytes), Ok((job, &b"picture"[..])));
    }
    let refusals = Refused::ALL.into_iter().map(Answer::Refused);
    for answer in refusals.chain([encoded(1), encoded(5000)]) {
        assert_eq!(Answer::read(&answer.header(), 5000), Ok(answer));
    }
}

#[test]
fn an_answer_that_is_empty_too_large_or_contradicts_itself_is_none() {
    assert!(Answer::read(&encoded(5001).header(), 5000).is_err());
    assert!(Answer::read(&encoded(0).header(), 5000).is_err());
    assert!(Answer::read(&[0; ANSWER_HEADER], 5000).is_err(), "what nobody wrote");
    for (at, what) in [(8, 5), (12, 4), (16, 1), (20, 1), (31, 1)] {
        let plain =
            Answer::Encoded { turned: false, made_opaque: false, first_of: None, length: 7 };
        let mut header = plain.header();
        header[at] = what;
        assert!(Answer::read(&header, u64::MAX).is_err(), "{what} at {at}");
    }
    // A refusal brings no picture along.
    for at in [12, 16, 24] {
        let mut header = Answer::Refused(Refused::Damaged).header();
        header[at] = 2;
        assert!(Answer::read(&header, 5000).is_err(), "at {at}");
    }
}

#[test]
fn a_job_that_allows_more_than_there_may_be_is_none() {
    let job = |most: u64| {
        let mut header = Job { kind: Kind::Png, most: 0 }.header();
        header[16..].copy_from_slice(&most.to_le_bytes());
        Job::read(&header).map(|_| ())
    };
    assert_eq!(job(u64::from(CONTENT_MAX)), Ok(()));
    for most in [u64::from(CONTENT_MAX) + 1, u64::MAX, 1 << 32] {
        assert!(job(most).is_err(), "{most}");
    }
    assert!(Job::read(&JOB_MAGIC).is_err());
}
