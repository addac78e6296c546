//! The promises, each over the world that puts it to the test.

use std::cell::RefCell;

use statewalk::{Broken, Seen, walk};

use super::model::{Handle, Life, Step, Walked};
use super::*;
use crate::attached::DetachReason;

fn as_it_is(
    life: &mut Lifecycle,
    now: Moment,
    numbers: &mut Numbers,
    event: Event<Permit>,
) -> Vec<Effect<Permit>> {
    life.handle(now, numbers, event)
}

fn all_reasons() -> Vec<DetachReason> {
    let why = String::new;
    vec![
        DetachReason::NoVmm,
        DetachReason::NoDevice(why()),
        DetachReason::Lost(why()),
        DetachReason::Changed(why()),
        DetachReason::Broken(why()),
        DetachReason::Stream(why()),
    ]
}

/// Walks the world of these devices, with as many domains and as many reasons to leave one, with a life-cycle that handles events so.
fn walk_world(
    kinds: &[Kind],
    domains: usize,
    reasons: usize,
    handle: Handle,
) -> Result<Seen, Broken<(Step, bool)>> {
    let reasons = all_reasons().into_iter().take(reasons).collect();
    let seen = RefCell::default();
    let queued = usize::from(kinds.contains(&Kind::Reader));
    let life = Life { kinds: kinds.to_vec(), domains, queued, reasons, seen, handle };
    walk(Walked { life: &life, world: World::new() }, usize::MAX)
}

/// Returns how many states there are in which every promise is kept.
fn states(kinds: &[Kind], domains: usize, reasons: usize) -> usize {
    let walked = walk_world(kinds, domains, reasons, as_it_is);
    walked.unwrap_or_else(|broken| panic!("{broken:?}")).states
}

#[test]
fn whatever_happens_between_two_domains_one_has_the_device_and_none_without_a_grant_on_the_disk() {
    assert!(states(&[Kind::Reader], 2, 2) > 10_000);
}

#[test]
fn a_device_that_is_pulled_out_reset_or_broken_at_any_moment_can_be_plugged_in_again() {
    assert!(states(&[Kind::Reader], 1, 6) > 10_000);
}

#[test]
fn a_device_that_turns_into_a_keyboard_or_out_of_one_is_never_the_hosts_and_a_guests() {
    assert!(states(&[Kind::Reader, Kind::Keyboard, Kind::HostsDisk], 1, 1) > 10_000);
}

#[test]
fn a_keyboard_with_something_besides_is_the_seats_whatever_becomes_of_the_rest() {
    assert!(states(&[Kind::KeyboardWithReader], 1, 1) > 10_000);
    assert!(states(&[Kind::KeyboardWithReader], 1, 3) > 10_000);
}

fn admitted(grant: &UsbGrant) -> Admitted {
    let basis = Basis { policy: SERIAL, break_glass: false };
    Admitted::by(testing::permit(UsbAdmission { grant: grant.clone(), basis }, 0))
}

fn is_authorized_by(life: &Lifecycle, number: u64) -> bool {
    matches!(&life.state, State::Authorizing { request, .. } if *request == number)
}

/// Each of these is a mistake that somebody could make in one line.
#[test]
fn a_fault_in_the_life_cycle_is_found() {
    let late_permits: Handle = |life, now, numbers, event| {
        if let (Event::Permitted { request, .. }, State::Recording { grant, .. }) =
            (&event, &life.state)
        {
            life.state = State::Authorizing { request: *request, admitted: admitted(grant) };
        }
        life.handle(now, numbers, event)
    };
    let late_records: Handle = |life, now, numbers, event| {
        if let (Event::Admitted { request: of, .. }, State::Recording { request, .. }) =
            (&event, &mut life.state)
        {
            *request = *of;
        }
        life.handle(now, numbers, event)
    };
    let content_with_the_same: Handle = |life, now, numbers, event| match event {
        Event::RulesChanged { would_get: Some(would_get), .. }
            if matches!(life.state, State::Recording { .. })
                && life.grant().is_some_and(|has| has.gives_the_same_as(&would_get)) =>
        {
            Vec::new()
        }
        event => life.handle(now, numbers, event),
    };
    let does_not_wait_for_the_disk: Handle = |life, now, numbers, event| {
        if let (Event::Refused { .. }, State::Recording { grant, .. }) = (&event, &life.state) {
            life.state = State::Waiting { admitted: admitted(grant), retry: now };
        }
        life.handle(now, numbers, event)
    };
    let no_waiting: Handle = |life, now, numbers, event| {
        let mut effects = life.handle(now, numbers, event);
        if matches!(life.state, State::Waiting { .. }) {
            let detaching = std::mem::take(&mut life.detaching);
            effects.extend(life.handle(now, numbers, Event::Tick));
            life.detaching = detaching;
        }
        effects
    };
    let deaf_to_the_log: Handle = |life, now, numbers, event| match event {
        Event::RecordLost => Vec::new(),
        event => life.handle(now, numbers, event),
    };
    let deaf_to_the_policy: Handle = |life, now, numbers, event| match event {
        Event::RulesChanged { would_get: Some(_), .. }
            if matches!(life.state, State::Attached { .. }) =>
        {
            Vec::new()
        }
        event => life.handle(now, numbers, event),
    };
    let deaf_to_the_policy_in_waiting: Handle = |life, now, numbers, event| match event {
        Event::RulesChanged { would_get: Some(would_get), .. }
            if matches!(life.state, State::Waiting { .. })
                && life.grant().is_some_and(|has| has.gives_the_same_as(&would_get)) =>
        {
            Vec::new()
        }
        event => life.handle(now, numbers, event),
    };
    let deaf_to_the_policy_in_authorizing: Handle = |life, now, numbers, event| match event {
        Event::RulesChanged { would_get: Some(would_get), .. }
            if matches!(life.state, State::Authorizing { .. })
                && life.grant().is_some_and(|has| has.gives_the_same_as(&would_get)) =>
        {
            Vec::new()
        }
        event => life.handle(now, numbers, event),
    };
    let forgets_that_the_policy_changed: Handle = |life, now, numbers, event| {
        let effects = life.handle(now, numbers, event);
        life.known.outdated = false;
        effects
    };
    let keeps_authority: Handle = |life, now, numbers, event| {
        let broken = matches!(&event, Event::Left { reason: Some(DetachReason::Broken(_)), .. });
        let mut effects = life.handle(now, numbers, event);
        effects.retain(|effect| !broken || *effect != Effect::Deauthorize);
        effects
    };
    let stuck: Handle = |life, now, numbers, event| match event {
        Event::Unplugged if matches!(life.state, State::Off) => Vec::new(),
        event => life.handle(now, numbers, event),
    };
    let forgets_requests: Handle = |life, now, numbers, event| {
        if matches!(event, Event::Unplugged) {
            life.known.request = None;
        }
        life.handle(now, numbers, event)
    };
    let drops_late_answers: Handle = |life, now, numbers, event| match &event {
        Event::Permitted { request, .. } | Event::Refused { request, .. }
            if life.unanswered.contains_key(request) && !is_authorized_by(life, *request) =>
        {
            life.unanswered.remove(request);
            Vec::new()
        }
        _ => life.handle(now, numbers, event),
    };
    let keeps_verdicts: Handle = |life, now, numbers, event| match event {
        Event::RecordLost if matches!(life.state, State::Waiting { .. }) => Vec::new(),
        event => life.handle(now, numbers, event),
    };
    let goes_on: Handle = |life, now, numbers, event| match event {
        Event::AgentEnds if matches!(life.state, State::Waiting { .. }) => Vec::new(),
        event => life.handle(now, numbers, event),
    };
    let gives_more: Handle = |life, now, numbers, event| {
        if let (Event::Permitted { .. }, State::Authorizing { admitted: by, .. }) =
            (&event, &mut life.state)
        {
            *by = admitted(&UsbGrant { share: Share::Whole, ..by.grant().clone() });
        }
        life.handle(now, numbers, event)
    };
    let (reader, keyboard) = (Kind::Reader, Kind::KeyboardWithReader);
    let faults: [(Handle, Kind, &str); 17] = [
        // A permit that was asked for before is taken though nobody waits for it any more.
        (late_permits, reader, "nothing to serve it over"),
        // It is connected while another domain may still have it.
        (no_waiting, keyboard, "no VMM is connected while another"),
        (deaf_to_the_log, reader, "outlives its record"),
        (deaf_to_the_policy, reader, "outlives its rule"),
        // Others that give the same: it waits by a verdict of rules that are no more.
        (deaf_to_the_policy_in_waiting, reader, "of the rules in force"),
        (deaf_to_the_policy_in_authorizing, reader, "of the rules in force"),
        (forgets_that_the_policy_changed, reader, "of the rules in force"),
        (keeps_authority, reader, "authority is given up"),
        (stuck, reader, "can come back"),
        (forgets_requests, reader, "how a request by hand ended"),
        (drops_late_answers, reader, "what became of each attachment"),
        (keeps_verdicts, reader, "no verdict outlives its record"),
        (goes_on, reader, "begins nothing"),
        // Of a device that was pulled out, by rules that are others now, or lost with its log.
        (late_records, reader, "a stale record"),
        (content_with_the_same, reader, "a stale record"),
        (does_not_wait_for_the_disk, reader, "no verdict outlives its record"),
        // The log says that the seat keeps a part of it.
        (gives_more, keyboard, "without a grant on the disk"),
    ];
    for (handle, kind, promise) in faults {
        let broken = walk_world(&[kind], 2, 6, handle).err();
        let found = broken.as_ref().map(|broken| broken.promise.as_str());
        assert!(found.is_some_and(|found| found.contains(promise)), "{promise}: {broken:?}");
    }
}
