//! What may come into force, and when; and what is said of it.

use super::*;
use proptest::prelude::*;

/// When all of it happens.
const AT: &str = "2026-11-29T12:00:00Z";

fn entry(content: &str) -> Installed {
    Installed {
        manifest: Digest::of(content.as_bytes()),
        size: 1,
        signers: Vec::new(),
        keys: Vec::new(),
        trust: None,
    }
}

fn with(serials: &[(u64, u64)]) -> Record {
    let mut record = Record::default();
    for (serial, floor) in serials {
        record.arrive(*serial, *floor, entry(&serial.to_string())).unwrap();
    }
    record
}

#[test]
fn arrival_is_not_activation_and_activation_comes_with_the_next_start() {
    let mut record = with(&[(1, 1)]);
    assert_eq!((record.next("a"), record.start("a", AT).unwrap()), (None, None));
    assert_eq!(record.activate(None), Ok(1));
    assert_eq!((record.current(), record.next("a")), (None, Some(1)));
    assert_eq!(record.start("a", AT).unwrap(), Some((1, true)));
    assert_eq!(record.start("a", AT).unwrap(), Some((1, false)));
    record.arrive(2, 1, entry("2")).unwrap();
    assert_eq!(record.start("a", AT).unwrap(), Some((1, false)));
    record.activate(Some(2)).unwrap();
    assert_eq!(record.roll_back(), Ok(Some(1)), "it had not come into force");
    record.activate(Some(2)).unwrap();
    assert_eq!(record.start("a", AT).unwrap(), Some((2, true)));
    assert_eq!(record.roll_back(), Ok(Some(1)));
    assert_eq!(record.start("a", AT).unwrap(), Some((1, true)));
}

#[test]
fn a_first_activation_that_has_not_come_into_force_is_taken_back_and_another_comes_instead() {
    let mut record = with(&[(1, 1)]);
    record.activate(None).unwrap();
    assert_eq!(record.roll_back(), Ok(None));
    assert_eq!((record.next("a"), record.start("a", AT).unwrap()), (None, None));
    assert_eq!(record.roll_back(), Err(Rejection::NoPrevious));
    record.remove(1).unwrap();
    record.arrive(2, 1, entry("2")).unwrap();
    record.activate(None).unwrap();
    assert_eq!(record.start("a", AT).unwrap(), Some((2, true)));
}

/// What waits for the audit log: serials and kinds.
fn waits(record: &Record) -> Vec<(u64, &'static str)> {
    let kind = |what: &Occurrence| match what {
        Occurrence::InForce { manifest } => {
            assert!(manifest.is_some());
            "in force"
        }
        Occurrence::Returned { .. } => "returned",
        Occurrence::Stayed { .. } => "stayed",
        Occurrence::Refused { .. } => "refused",
    };
    record.events().iter().map(|event| (event.serial, kind(&event.what))).collect()
}

#[test]
fn what_happened_stands_there_in_its_order_until_it_is_in_the_audit_log() {
    let mut record = with(&[(1, 1), (2, 1)]);
    record.activate(Some(1)).unwrap();
    assert_eq!(waits(&record), []);
    record.start("a", AT).unwrap();
    record.start("b", AT).unwrap();
    assert_eq!(waits(&record), [(1, "in force")], "it was in force already");
    assert_eq!(record.give_up(1, "a", AT), Err(Rejection::NoPrevious));
    record.activate(Some(2)).unwrap();
    record.start("a", AT).unwrap();
    let recorded = record.events()[..2].to_vec();
    assert_eq!(record.give_up(2, "a", AT), Ok(1));
    let all = [(1, "in force"), (1, "stayed"), (2, "in force"), (2, "returned")];
    assert_eq!(waits(&record), all);
    assert!(record.events().iter().all(|it| it.domain == "a" && it.at.as_deref() == Some(AT)));
    let later = record.events()[1..].to_vec();
    record.recorded(&later);
    assert_eq!(waits(&record), all, "the one before them is not in the log");
    record.recorded(&recorded);
    assert_eq!(waits(&record), all[2..]);
    let rest = record.events().to_vec();
    record.recorded(&rest);
    assert_eq!(waits(&record), []);
}

#[test]
fn that_a_trial_failed_is_said_until_somebody_activates_an_image_or_removes_that_one() {
    let failed = || {
        let mut record = with(&[(1, 1), (2, 1)]);
        for serial in [1, 2] {
            record.activate(Some(serial)).unwrap();
            record.start("a", AT).unwrap();
        }
        record.give_up(2, "a", AT).unwrap();
        record.start("a", AT).unwrap();
        let failed = FailedTrial { serial: 2, domain: "a".to_owned(), back: Ok(1) };
        assert_eq!(record.failed(), Some(&failed));
        record
    };
    let mut record = failed();
    record.activate(Some(2)).unwrap();
    assert_eq!(record.failed(), None);
    let mut record = failed();
    record.remove(2).unwrap();
    assert_eq!(record.failed(), None);
}

#[test]
fn what_waits_for_the_audit_log_has_a_cap_and_nothing_comes_into_force_that_it_could_not_say() {
    let mut record = with(&[(1, 1), (2, 1), (3, 1)]);
    let refused = |serial, why: usize| RefusedStart {
        serial,
        domain: "a".to_owned(),
        why: format!("for the cause {why}"),
    };
    record.activate(Some(3)).unwrap();
    assert!(record.refuse(refused(3, 0), AT) && record.refuse(refused(3, 0), "13:00"));
    assert_eq!(record.events().len(), 1, "the same refusal does not wait twice");
    let noted = (1..100).filter(|why| record.refuse(refused(3, *why), AT)).count();
    assert!(noted < 20, "however often a domain starts");
    let mut turns = 0;
    let last = loop {
        record.activate(Some(1)).unwrap();
        if let Err(why) = record.start("a", AT) {
            break why;
        }
        record.activate(Some(2)).unwrap();
        if let Err(why) = record.start("a", AT) {
            break why;
        }
        // Whatever came into force, that it goes back is recorded.
        record.give_up(2, "a", AT).unwrap();
        assert_eq!(waits(&record).last(), Some(&(2, "returned")));
        assert!(record.is_sound());
        turns += 1;
        record.activate(Some(3)).unwrap();
        if let Err(why) = record.start("a", AT) {
            break why;
        }
    };
    assert!(turns > 1 && matches!(last, Rejection::NotRecorded(_)), "{turns} {last}");
    assert!(record.is_sound() && record.pending().is_some());
    let rest = record.events().to_vec();
    record.recorded(&rest);
    assert!(record.start("a", AT).unwrap().is_some_and(|(_, is_new)| is_new));
}

#[test]
fn why_an_image_could_not_come_into_force_is_said_for_as_long_as_it_is_to() {
    let mut record = with(&[(1, 1), (2, 1), (3, 1)]);
    let activate = |record: &mut Record, serial| {
        record.activate(Some(serial)).unwrap();
        let why = "it is damaged".to_owned();
        assert!(record.refuse(RefusedStart { serial, domain: "a".to_owned(), why }, AT));
        assert_eq!(record.refused().unwrap().serial, serial);
    };
    activate(&mut record, 1);
    record.start("a", AT).unwrap();
    assert_eq!(record.refused(), None);
    activate(&mut record, 2);
    record.roll_back().unwrap();
    assert_eq!(record.refused(), None);
    activate(&mut record, 2);
    record.activate(Some(3)).unwrap();
    assert_eq!(record.refused(), None);
}

#[test]
fn nothing_goes_below_the_floor_which_stays_when_all_is_removed() {
    let mut record = with(&[(5, 1)]);
    record.activate(None).unwrap();
    record.start("a", AT).unwrap();
    record.arrive(7, 6, entry("7")).unwrap();
    record.activate(None).unwrap();
    record.start("a", AT).unwrap();
    let below = Rejection::BelowFloor { serial: 5, floor: 6 };
    assert_eq!(record.roll_back(), Err(below.clone()));
    assert_eq!(record.activate(Some(5)), Err(below.clone()));
    record.remove(5).unwrap();
    assert_eq!(record.admits(5, Digest::of(b"5")), Err(below));
    assert_eq!(record.remove(7), Err(Rejection::StillNeeded(7, "is in force")));
    // A bundle with a lower floor changes nothing about it.
    record.arrive(8, 1, entry("8")).unwrap();
    assert_eq!(record.floor(), 6);
}

#[test]
fn an_older_serial_and_one_that_stands_for_something_else_do_not_arrive() {
    let record = with(&[(3, 1)]);
    assert_eq!(record.admits(3, Digest::of(b"3")), Ok(true));
    assert_eq!(record.admits(3, Digest::of(b"x")), Err(Rejection::OtherContent(3)));
    assert_eq!(record.admits(2, Digest::of(b"2")), Err(Rejection::Older { serial: 2, newest: 3 }));
    // Also when it is not there any more.
    let mut record = with(&[(2, 1), (3, 1)]);
    record.remove(3).unwrap();
    assert_eq!(record.admits(3, Digest::of(b"x")), Err(Rejection::OtherContent(3)));
    assert_eq!(record.admits(1, Digest::of(b"1")), Err(Rejection::Older { serial: 1, newest: 3 }));
    record.remove(2).unwrap();
    assert_eq!(record.admits(2, Digest::of(b"2")), Err(Rejection::Older { serial: 2, newest: 3 }));
    assert_eq!(record.admits(3, Digest::of(b"3")), Ok(false));
    let full = with(&[(1, 1), (2, 1), (3, 1), (4, 1)]);
    assert_eq!(full.admits(5, Digest::of(b"5")), Err(Rejection::TooMany));
}

#[test]
fn an_image_whose_guest_does_not_come_up_goes_back_and_never_below_the_floor() {
    let mut record = with(&[(1, 1)]);
    record.activate(None).unwrap();
    record.start("a", AT).unwrap();
    assert!(record.is_on_trial(1, "a"));
    assert_eq!(record.give_up(1, "a", AT), Err(Rejection::NoPrevious), "the first one stays");
    assert!(!record.is_on_trial(1, "a"));
    record.arrive(2, 1, entry("2")).unwrap();
    record.activate(None).unwrap();
    record.start("a", AT).unwrap();
    assert_eq!(
        record.give_up(1, "a", AT),
        Err(Rejection::NotOnTrial(1)),
        "it is not the one on trial"
    );
    assert_eq!(
        (record.give_up(2, "a", AT), record.start("a", AT).unwrap()),
        (Ok(1), Some((1, false)))
    );
    assert!(!record.is_on_trial(1, "a"));
    // One that came up once does not go back, and neither does what somebody went back to.
    record.activate(Some(2)).unwrap();
    record.start("a", AT).unwrap();
    record.came_up(2, "a");
    assert_eq!(record.give_up(2, "a", AT), Err(Rejection::NotOnTrial(2)));
    record.roll_back().unwrap();
    record.start("a", AT).unwrap();
    assert!(!record.is_on_trial(1, "a"));
    record.arrive(3, 3, entry("3")).unwrap();
    record.activate(None).unwrap();
    record.start("a", AT).unwrap();
    assert_eq!(record.give_up(3, "a", AT), Err(Rejection::BelowFloor { serial: 1, floor: 3 }));
    assert_eq!(record.current(), Some(3));
}

#[test]
fn an_image_is_judged_by_the_domain_with_whose_start_it_came_into_force_and_by_no_other() {
    let mut record = with(&[(1, 1), (2, 1)]);
    record.activate(Some(1)).unwrap();
    record.start("a", AT).unwrap();
    record.came_up(1, "a");
    record.activate(Some(2)).unwrap();
    assert_eq!(
        (record.start("a", AT).unwrap(), record.start("b", AT).unwrap()),
        (Some((2, true)), Some((1, false)))
    );
    assert!(record.is_on_trial(2, "a") && !record.is_on_trial(2, "b"));
    record.came_up(2, "b");
    assert_eq!(record.give_up(2, "b", AT), Err(Rejection::NotOnTrial(2)));
    assert!(record.is_on_trial(2, "a"), "another domain's guest says nothing of it");
    assert_eq!(record.give_up(2, "a", AT), Ok(1));
}

#[test]
fn while_one_domain_tries_an_image_another_starts_from_the_one_before_until_it_is_judged() {
    let tried = || {
        let mut record = with(&[(1, 1), (2, 1)]);
        for serial in [1, 2] {
            record.activate(Some(serial)).unwrap();
            record.start("a", AT).unwrap();
            if serial == 1 {
                record.came_up(1, "a");
            }
        }
        assert_eq!((record.in_force_in("a"), record.in_force_in("b")), (Some(2), Some(1)));
        assert_eq!((record.next("b"), record.start("b", AT).unwrap()), (Some(1), Some((1, false))));
        assert_eq!(record.tried_in(), Some("a"));
        record
    };
    let mut record = tried();
    record.came_up(2, "a");
    assert_eq!((record.in_force_in("b"), record.tried_in()), (Some(2), None));
    let mut record = tried();
    record.give_up(2, "a", AT).unwrap();
    assert_eq!((record.in_force_in("a"), record.in_force_in("b")), (Some(1), Some(1)));
    // What is below the floor, or not there any more, nobody starts from.
    let mut record = tried();
    record.arrive(3, 2, entry("3")).unwrap();
    assert_eq!(record.in_force_in("b"), Some(2));
    let mut record = tried();
    record.remove(1).unwrap();
    assert_eq!(record.in_force_in("b"), Some(2));
    // The domain that tries it is gone: another is let try it.
    let mut record = tried();
    assert_eq!(record.roll_back(), Ok(Some(1)));
    assert_eq!((record.start("b", AT).unwrap(), record.tried_in()), (Some((1, true)), None));
    record.activate(Some(2)).unwrap();
    assert_eq!(record.start("b", AT).unwrap(), Some((2, true)));
    assert!(record.is_on_trial(2, "b"));
}

#[test]
fn what_never_came_up_is_not_gone_back_to() {
    let mut record = with(&[(1, 1), (2, 1), (3, 1)]);
    record.activate(Some(1)).unwrap();
    record.start("a", AT).unwrap();
    record.came_up(1, "a");
    for serial in [2, 3] {
        record.activate(Some(serial)).unwrap();
        record.start(if serial == 2 { "a" } else { "b" }, AT).unwrap();
    }
    assert!(record.is_on_trial(3, "b") && !record.is_on_trial(2, "a"));
    assert_eq!(record.in_force_in("a"), Some(1));
    assert_eq!(record.give_up(3, "b", AT), Ok(1));
}

proptest! {
    #[test]
    fn whatever_is_done_what_starts_is_installed_and_not_below_a_floor_that_never_falls(
        steps in prop::collection::vec((0_u8..7, 1_u64..8, 1_u64..8), 0..60)
    ) {
        let mut record = Record::default();
        for (what, serial, floor) in steps {
            let (before, was) = (record.floor(), record.current());
            match what {
                0 => { let _ = record.arrive(serial, floor.min(serial), entry(&serial.to_string())); }
                1 => { let _ = record.activate(Some(serial)); }
                2 => { let _ = record.roll_back(); }
                3 => { let _ = record.remove(serial); }
                4 => {
                    let back = record.give_up(serial, "a", AT);
                    prop_assert!(back.is_err() || back.is_ok_and(|back| back >= record.floor() && record.current() == Some(back)));
                }
                5 => record.recorded(&record.events().iter().take(1).cloned().collect::<Vec<_>>()),
                _ => {
                    // What is in force already goes on.
                    if let Ok(Some((started, is_new))) = record.start("a", AT) {
                        prop_assert!(record.entry(started).is_ok());
                        prop_assert!(!is_new || started >= record.floor());
                    }
                }
            }
            prop_assert!(record.is_sound());
            prop_assert!(record.floor() >= before);
            if what < 4 { prop_assert_eq!(record.current(), was); }
        }
    }
}
