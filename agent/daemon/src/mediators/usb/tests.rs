//! The broker's client, with a monitor and a log on a disk.

use ::audit::events::{UsbAttached, UsbJudged};
use clock::Moment;
use monitor::{Basis, recorded};
use policy::decide::Decision;

use monitor::Stop;

use super::super::mediator::Mediator;
use super::super::tests::{NOT_RUNNING, dies, ends, entry, monitor, of, policy_with, seat, told};
use super::*;

fn grant() -> UsbGrant {
    UsbGrant {
        bus_id: "1-4".parse().unwrap(),
        address: 3,
        domain: "clinical".to_owned(),
        label: "CLINICAL".to_owned(),
        rules: usbfilter::Rules::Allow,
        share: usbdescriptors::Share::Whole,
        rule: None,
        why: String::new(),
    }
}

#[test]
fn what_a_keyboard_has_besides_is_attached_by_hand_and_what_is_the_hosts_is_not() {
    let host = |has_rest| UsbReport { state: "host".to_owned(), has_rest, ..listed() };
    assert!(find(&[listed()], "1-4").is_ok());
    assert!(find(&[host(true)], "1-4").is_ok(), "it was taken away by hand");
    assert!(find(&[host(false)], "1-4").unwrap_err().contains("stays with the host"));
    assert!(find(&[listed()], "1-5").unwrap_err().contains("nothing is plugged in"));
}

/// A verdict that gives a device to a domain by the policy of this serial.
fn verdict(number: u64, basis: Basis, decision: Decision) -> Request<UsbAdmission> {
    let grant = grant();
    let event = UsbJudged {
        domain: Some(grant.domain.clone()),
        verdict: recorded(decision),
        rule: None,
        policy: basis.policy,
        break_glass: basis.break_glass,
        bus_id: grant.bus_id.to_string(),
        device: String::new(),
        name: None,
        request: None,
        seat_keeps_interfaces: None,
        to: None,
    };
    let (grant, owed) = (UsbAdmission { grant, basis }, monitor::testing::owed(decision));
    Request { number, basis, owed, event, grant }
}

#[test]
fn a_verdict_permits_by_the_rules_in_force_alone_and_is_on_the_record_whatever_it_permits() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let (plain, allow) = (Basis { policy: 1, break_glass: false }, Decision::Allow);
    let by_break_glass = Basis { break_glass: true, ..plain };
    let verdicts = || told(dir.path()).iter().filter(|(kind, _)| kind == "usb").count();
    let mut number = 0;
    let mut denied = |monitor: &mut Monitor, basis, decision| {
        number += 1;
        let before = verdicts();
        let command = admit(verdict(number, basis, decision), monitor);
        let recorded = verdicts() - before;
        match command {
            Command::Admitted(of, permit) if of == number => {
                assert_eq!((permit.grant().grant.clone(), recorded), (grant(), 1));
                None
            }
            Command::Refused(of, denial) if of == number => Some((denial, recorded)),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(denied(&mut monitor, plain, allow), None);
    let stale = Some((Denial::Stale, 1));
    assert_eq!(denied(&mut monitor, by_break_glass, allow), stale);
    monitor.enforce(1, Some(Moment::now() + std::time::Duration::from_secs(600)));
    assert_eq!(denied(&mut monitor, by_break_glass, allow), None);
    monitor.enforce(2, None);
    assert_eq!(denied(&mut monitor, plain, allow), stale, "the policy changed meanwhile");
    let in_force = Basis { policy: 2, break_glass: false };
    assert_eq!(denied(&mut monitor, in_force, allow), None);
    let writable = denied(&mut monitor, in_force, Decision::ReadOnly);
    assert_eq!(writable, Some((Denial::Writable, 1)));
    monitor.withhold(Some("the policy cannot be remembered".to_owned()));
    assert_eq!(denied(&mut monitor, in_force, allow), Some((Denial::Unrecorded, 0)));
    monitor.withhold(None);
    monitor.died(USB);
    assert_eq!(denied(&mut monitor, in_force, allow), Some((Denial::NotRunning, 1)));
}

/// A policy that speaks of USB.
fn policy() -> Arc<Policy> {
    let rule = "[[usb]]\nid = \"sticks\"\nmatch = { class = \"smart-card\" }\naction = \"allow\"\nto = \"clinical\"\n";
    policy_with(rule)
}

/// An attachment that the broker asks for.
fn wanted() -> UsbEvent {
    let (domain, bus_id) = ("clinical".to_owned(), "1-4".to_owned());
    let event = UsbAttached { domain, bus_id, request: None };
    let (basis, owed) =
        (Basis { policy: 1, break_glass: false }, monitor::testing::owed(Decision::Allow));
    UsbEvent::Authorize(Request { number: 1, basis, owed, event, grant: grant() })
}

/// A device as the broker lists it.
fn listed() -> UsbReport {
    UsbReport {
        bus_id: "1-4".to_owned(),
        name: String::new(),
        device: String::new(),
        state: "waiting".to_owned(),
        domain: Some("clinical".to_owned()),
        verdict: None,
        rule: None,
        why: String::new(),
        has_rest: false,
    }
}

#[test]
fn what_a_broker_wanted_that_died_is_permitted_to_nobody_and_log_status_banner_and_answers_say_so()
{
    for last in [dies, ends] {
        let dir = tempfile::tempdir().unwrap();
        let (mut monitor, seat) = (monitor(dir.path()), seat(dir.path()));
        let thread = monitor::spawn(USB, Ok, move |ends: monitor::mediator_thread::Ends<_, _>| {
            ends.send(UsbEvent::Devices(vec![listed()]));
            ends.send(wanted());
            last();
        });
        let mut client =
            UsbClient { usb: thread.map_err(|error| error.to_string()), list: Vec::new() };
        assert_eq!((client.banner_note(), client.fault(&policy())), (None, None));
        client.usb.as_mut().unwrap().join();
        for _ in 0..2 {
            client.process_events(&seat, &mut monitor);
            let [attached, detached] =
                ["usb-attached", "usb-detached"].map(|kind| of(kind, Some("clinical")));
            assert_eq!(told(dir.path()), [attached, detached, of("failed", None)], "once");
            assert_eq!(entry(dir.path(), 1).detail["why"], NOT_RUNNING);
            assert_eq!(entry(dir.path(), 2).detail["what"], "usb");
            assert_eq!(client.banner_note().as_deref(), Some("USB devices do not work: call IT"));
            let fault =
                "NO USB DEVICE REACHES A DOMAIN: the USB broker has failed; restart the agent";
            assert_eq!(client.fault(&policy()).as_deref(), Some(fault));
            let refused =
                "USB mediation is not running: the USB broker has failed; restart the agent";
            assert_eq!(client.list().unwrap_err(), refused);
            assert_eq!(client.detach("1-4", None).unwrap_err(), refused);
        }
        assert!(client.is_responsive(), "the watchdog leaves the agent alone: its guests run on");
        client.stop(Stop::GiveBack, &mut monitor);
        assert_eq!(told(dir.path()).len(), 3);
    }
}

#[test]
fn what_a_broker_said_last_as_the_agent_ended_is_on_the_record_and_permitted_to_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut monitor = monitor(dir.path());
    let thread = monitor::spawn(USB, Ok, |ends: monitor::mediator_thread::Ends<_, _>| {
        while !ends.is_stopped() {
            let _ = ends.next();
        }
        assert_eq!(ends.stopped(), Some(Stop::GiveBack));
        ends.send(wanted());
    });
    let mut client = UsbClient { usb: thread.map_err(|error| error.to_string()), list: Vec::new() };
    client.stop(Stop::GiveBack, &mut monitor);
    let [attached, detached] =
        ["usb-attached", "usb-detached"].map(|kind| of(kind, Some("clinical")));
    assert_eq!(told(dir.path()), [attached, detached]);
}

#[test]
fn a_domain_without_a_number_for_its_workers_is_told_so_and_not_that_a_program_is_missing() {
    assert_eq!(workers(62, None, None).unwrap_err(), NO_PROGRAM);
    assert_eq!(workers(63, None, None).unwrap_err(), NO_USER);
}
