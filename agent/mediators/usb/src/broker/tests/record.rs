//! What the log says of a device, and what becomes of the device when it cannot.

use super::*;

/// Those after which the same request would be denied again.
const DENIALS_FOR_GOOD: [Denial; 8] = [
    Denial::Unanswered,
    Denial::Denied,
    Denial::OtherVerdict,
    Denial::Uninspected,
    Denial::Writable,
    Denial::NotRunning,
    Denial::Repeated,
    Denial::TooMany,
];

/// Makes a card reader that waits for the permit to go to its domain, and what keeps that domain's VMM.
fn authorizing() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.vmm = Some((listener, dir));
    bench.broker.tick(Moment::now());
    assert_eq!(bench.kinds(), ["usb-attached"]);
    bench
}

fn asked(bench: &Bench) -> (u64, UsbGrant) {
    let State::Authorizing { request, admitted } = bench.state().clone() else {
        panic!("{:?}", bench.state())
    };
    (request, admitted.grant().clone())
}

/// Makes a card reader whose verdict is on its way to the disk, its permit, and what keeps the VMM of its domain.
fn recording() -> (Bench, Command) {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    listener.set_nonblocking(true).unwrap();
    let mut bench = Bench::with(RULE, vec![SocketEndpoint::Connect(socket)]);
    bench.vmm = Some((listener, dir));
    bench.read(identity(&READER, ""));
    assert_eq!(bench.kinds(), ["usb"]);
    let State::Recording { request, grant } = bench.state().clone() else {
        panic!("{:?}", bench.state())
    };
    let admission = UsbAdmission { grant, basis: bench.broker.basis() };
    let permit = monitor::testing::permit(admission, 1);
    (bench, Command::Admitted(request, permit))
}

/// Returns whether the VMM of its domain was connected.
fn is_connected(bench: &Bench) -> bool {
    bench.vmm.as_ref().is_some_and(|(listener, _)| listener.accept().is_ok())
}

#[test]
fn a_verdict_that_is_on_the_disk_too_late_takes_no_device_to_a_domain() {
    let ends: [fn(&mut Bench); 7] = [
        |bench| bench.broker.command(Command::Rules(policy(""), false)),
        // They give it to the same domain, by a verdict of their own.
        |bench| bench.broker.command(Command::Rules(policy(RULE), false)),
        |bench| bench.broker.command(Command::RecordLost),
        |bench| bench.broker.command(Command::Detach(bench.id.clone(), None)),
        |bench| bench.drive(Event::Unplugged),
        // Another one in its place, which gets the same.
        |bench| {
            bench.drive(Event::Unplugged);
            bench.drive(Event::PluggedIn);
            bench.read(identity(&READER, ""));
        },
        |bench| bench.drive(Event::AgentEnds),
    ];
    for end in ends {
        let (mut bench, permit) = recording();
        end(&mut bench);
        bench.events();
        let state = bench.state().clone();
        bench.broker.command(permit);
        assert_eq!(*bench.state(), state);
        for _ in 0..3 {
            bench.broker.tick(Moment::now() + AGAIN);
        }
        assert!(!is_connected(&bench), "{state:?}");
        assert!(!bench.told().contains(&"serve".to_owned()));
        // Whatever is asked for since has an answer of its own.
        if matches!(state, State::Recording { .. }) {
            bench.record(true);
            bench.broker.tick(Moment::now());
            assert!(is_connected(&bench));
        }
    }
}

#[test]
fn a_verdict_that_other_rules_made_void_is_reached_anew_under_those() {
    for rules_come in [false, true] {
        let (mut bench, _) = recording();
        let State::Recording { request, .. } = *bench.state() else { panic!() };
        bench.broker.command(Command::Refused(request, Denial::Stale));
        bench.broker.tick(Moment::now());
        let (events, words) = bench.events();
        assert!(events.is_empty() && words.is_empty(), "not at once, and nobody need do anything");
        assert_eq!(bench.report().state, "waiting");
        if rules_come {
            bench.broker.command(Command::Rules(policy(RULE), true));
        } else {
            bench.broker.tick(Moment::now() + AGAIN);
        }
        let (events, _) = bench.events();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.kind, &event.detail["break_glass"]), ("usb", &rules_come.into()));
        bench.record(true);
        bench.broker.tick(Moment::now());
        assert!(is_connected(&bench));
    }
}

#[test]
fn a_verdict_to_which_the_monitor_says_no_for_good_connects_no_domain() {
    for denial in DENIALS_FOR_GOOD {
        let (mut bench, _) = recording();
        let State::Recording { request, .. } = *bench.state() else { panic!() };
        bench.broker.command(Command::Refused(request, denial));
        let report = bench.report();
        assert_eq!((report.state, report.why), ("blocked".to_owned(), denial.to_string()));
        assert_eq!(bench.kinds(), ["usb-failed"], "the log does not say that it was attached");
        assert_eq!(bench.told(), ["switch off"]);
        bench.broker.tick(Moment::now() + AGAIN);
        assert!(bench.kinds().is_empty() && !is_connected(&bench));
    }
}

/// Returns what the log says of its not being attached.
fn not_attached(bench: &Bench) -> Vec<(String, String)> {
    let (events, _) = bench.events();
    let detached = events.iter().filter(|event| event.kind == "usb-detached");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    detached
        .map(|event| (event.domain.clone().unwrap_or_default(), text(&event.detail["why"])))
        .collect()
}

#[test]
fn the_log_never_says_that_a_device_is_attached_and_no_more_when_it_is_not() {
    let ends: [fn(&mut Bench); 4] = [
        |bench| bench.broker.command(Command::Rules(policy(""), false)),
        |bench| bench.broker.command(Command::Detach(bench.id.clone(), None)),
        // It is gone from the kernel's folder, where it never was.
        |bench| bench.broker.look(),
        |bench| bench.drive(Event::AgentEnds),
    ];
    for end in ends {
        for denial in [None, Some(Denial::Stale), Some(Denial::Unrecorded)] {
            let mut bench = authorizing();
            let (request, grant) = asked(&bench);
            end(&mut bench);
            assert!(not_attached(&bench).is_empty());
            bench.broker.command(match denial {
                None => Command::Permitted(request, monitor::testing::permit(grant, 1)),
                Some(denial) => Command::Refused(request, denial),
            });
            let said = not_attached(&bench);
            let why = match denial {
                None => "it was no longer to be attached when the permit came",
                Some(Denial::Stale) => "the rules changed since it was decided",
                // Then the log says nothing.
                _ => {
                    assert!(said.is_empty(), "{said:?}");
                    continue;
                }
            };
            assert_eq!(said, [("clinical".to_owned(), why.to_owned())]);
            assert!(!bench.told().contains(&"serve".to_owned()));
        }
    }
    // Nothing is remembered of one that is gone once all is said.
    let mut bench = authorizing();
    let (request, _) = asked(&bench);
    bench.broker.look();
    assert_eq!(bench.broker.devices.len(), 1);
    bench.broker.command(Command::Refused(request, Denial::Unrecorded));
    bench.broker.look();
    assert!(bench.broker.devices.is_empty());
}

#[test]
fn a_device_that_cannot_be_opened_has_left_its_domain_at_once_and_is_not_said_to_hang() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    let in_use = Served { outcome: Err("it is in use".to_owned().into()), carried_nothing: true };
    for (failed, known) in [(Report::Served(in_use), true), (Report::Failed, false)] {
        bench.broker.tick(Moment::now() + AGAIN);
        bench.permit();
        bench.events();
        let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
        let id = bench.id.clone();
        bench.broker.take_report(&id, task, failed);
        let mut stream = listener.accept().unwrap().0;
        assert_eq!(Read::read(&mut stream, &mut [0; 8]).unwrap(), 0);
        let (events, _) = bench.events();
        let [detached, failed] = &events[..] else { panic!("{events:?}") };
        assert_eq!((detached.kind, failed.kind), ("usb-detached", "usb-failed"));
        assert!(detached.detail.get("device_hangs").is_none_or(|hangs| hangs.is_null()));
        assert_eq!(carried(detached), known.then_some(0), "a thread that failed does not know");
        bench.broker.tick(Moment::now() + Duration::from_secs(1));
        assert!(bench.events().0.is_empty(), "nothing of it is left");
        bench.broker.command(Command::Attach(bench.id.clone(), "clinical".to_owned(), None));
        bench.read(identity(&READER, ""));
        bench.record(true);
        bench.events();
    }
}

#[test]
fn a_device_that_could_not_be_started_after_its_entry_was_written_has_left_its_domain() {
    let mut bench = authorizing();
    bench.broker.devices.get_mut(&bench.id).unwrap().connection = None;
    bench.permit();
    assert_eq!(bench.kinds(), ["usb-detached", "usb-failed"]);
}

#[test]
fn a_verdict_that_cannot_be_recorded_is_reached_anew_until_it_can_be_and_that_is_said_once() {
    let mut bench = Bench::new(RULE);
    bench.read(identity(&READER, ""));
    for round in 0..3 {
        bench.events();
        bench.record(false);
        let report = bench.report();
        let waits = ("waiting", "the audit log cannot be written");
        assert_eq!((report.state.as_str(), report.why.as_str()), waits);
        let (_, words) = bench.events();
        assert_eq!(words.len(), usize::from(round == 0), "{words:?}");
        bench.broker.tick(Moment::now());
        assert!(bench.kinds().is_empty(), "not at once");
        bench.broker.tick(Moment::now() + AGAIN);
        assert_eq!(bench.kinds(), ["usb"]);
    }
    assert!(bench.told().is_empty(), "nobody has it meanwhile, and it stays as it was read");
    bench.record(true);
    assert!(matches!(bench.state(), State::Waiting { .. }));
}

#[test]
fn a_device_whose_verdict_may_be_lost_goes_to_its_domain_by_another_and_the_seat_is_told_why_it_waits()
 {
    for asked in [false, true] {
        let mut bench = authorizing();
        if !asked {
            bench.refuse();
        }
        let told_before = !bench.events().1.is_empty();
        bench.broker.command(Command::RecordLost);
        assert_eq!(bench.kinds(), ["usb"], "its verdict is recorded anew");
        assert!(bench.broker.devices[&bench.id].connection.is_none());
        bench.record(false);
        let (_, words) = bench.events();
        assert_eq!(words.len(), usize::from(!told_before), "{words:?}");
    }
}

#[test]
fn a_device_to_which_the_monitor_says_no_for_good_is_not_connected_to_its_domain_again() {
    for denial in DENIALS_FOR_GOOD {
        let mut bench = authorizing();
        let (request, _) = asked(&bench);
        bench.broker.command(Command::Refused(request, denial));
        let report = bench.report();
        assert_eq!((report.state, report.why), ("blocked".to_owned(), denial.to_string()));
        let (events, words) = bench.events();
        let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
        assert_eq!(kinds, ["usb-detached", "usb-failed"]);
        assert!(words[0].contains(&denial.to_string()), "{words:?}");
        assert_eq!(bench.told(), ["switch off"]);
        bench.broker.tick(Moment::now() + AGAIN);
        assert!(bench.kinds().is_empty());
    }
}

/// Returns how many bytes an entry says went to and fro, if it says that.
fn carried(entry: &Record) -> Option<u64> {
    let bytes = |field| entry.detail.get(field).and_then(serde_json::Value::as_u64);
    Some(bytes("bytes_to_device")? + bytes("bytes_to_guest")? + bytes("refused")?)
}

#[test]
fn a_device_that_is_taken_away_before_its_worker_began_has_carried_nothing_by_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, _listener) = vmm(dir.path());
    for (in_time, carried_nothing) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut bench = Bench::waiting(&socket);
        bench.broker.tick(Moment::now() + AGAIN);
        bench.permit();
        bench.events();
        let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
        bench.broker.command(Command::Detach(bench.id.clone(), Some(7)));
        let mut entries = Vec::new();
        if !in_time {
            // It is cut off, and whether it had begun is not known before nothing is left of its worker.
            bench.broker.tick(Moment::now() + CUT_OFF_AFTER);
            entries.extend(bench.events().0);
            assert_eq!(entries.len(), 1, "{entries:?}");
        }
        let id = bench.id.clone();
        let served = Served { outcome: Ok(()), carried_nothing };
        bench.broker.take_report(&id, task, Report::Served(served));
        entries.extend(bench.events().0);
        let said: Vec<_> = entries.iter().map(|entry| (entry.kind, carried(entry))).collect();
        let expected: &[(&str, Option<u64>)] = match (in_time, carried_nothing) {
            (true, true) => &[("usb-detached", Some(0))],
            (false, true) => &[("usb-detached", None), ("usb-counted", Some(0))],
            (_, false) => &[("usb-detached", None)],
        };
        assert_eq!(said, expected);
    }
}

#[test]
fn what_went_to_and_fro_is_unknown_in_the_log_when_what_served_the_device_failed() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, _listener) = vmm(dir.path());
    for known in [true, false] {
        let mut bench = Bench::waiting(&socket);
        bench.broker.tick(Moment::now() + AGAIN);
        bench.permit();
        bench.events();
        let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
        let why = DetachReason::Stream("what serves it failed".to_owned());
        bench.leaves_after(task, Some(why), known.then(counts));
        let (events, _) = bench.events();
        let detached = events.iter().find(|event| event.kind == "usb-detached").unwrap();
        for field in ["bytes_to_device", "bytes_to_guest", "refused", "commands"] {
            let said = detached.detail.get(field).is_some_and(|value| !value.is_null());
            assert_eq!(said, known, "{field}: {:?}", detached.detail);
        }
    }
}
