//! Keyboards with something besides.

use super::*;

/// A boot keyboard and a card reader.
const WITH_READER: [u8; 34] = [
    9, 2, 34, 0, 2, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 1, 1, 0, 7, 5, 0x81, 3, 8, 0, 10, //
    9, 4, 1, 0, 0, 11, 0, 0, 0,
];
fn with_class(class: u8) -> Vec<u8> {
    let mut configuration = WITH_READER;
    configuration[30] = class;
    configuration.to_vec()
}

/// Makes a device that calls itself a keyboard.
fn keyboard(configuration: &[u8]) -> Identity {
    identity(configuration, "Keyboard")
}

#[test]
fn a_keyboard_with_a_card_reader_types_and_its_reader_goes_where_the_rule_says() {
    let mut bench = Bench::new(RULE);
    bench.read(keyboard(&WITH_READER));
    // The keyboard first, whatever becomes of the reader.
    assert_eq!(bench.told(), ["give {0}"]);
    assert_eq!(bench.share(), Some(Share::Interfaces([1].into())));
    let (events, _) = bench.events();
    let [event] = &events[..] else { panic!("{events:?}") };
    let device = event.detail["device"].to_string();
    assert!(device.ends_with("interfaces=0b/00/00\""), "{device}");
    assert_eq!(event.detail["seat_keeps_interfaces"], serde_json::json!([0]));
    let why = bench.report().why;
    assert!(why.contains("its keyboard or mouse stays with the PC, the rest goes to"), "{why}");
    // Taken away by hand, or by other rules: the keyboard types on, and is never switched off.
    let id = bench.id.clone();
    bench.record(true);
    bench.broker.command(Command::Detach(id.clone(), None));
    assert_eq!(bench.told(), ["give {0}"]);
    let report = bench.report();
    assert_eq!((report.state.as_str(), report.has_rest), ("host", true));
    assert_eq!(
        report.why,
        "its keyboard or mouse stays with the PC, the rest was taken away by hand"
    );
    bench.broker.command(Command::Attach(id, "clinical".to_owned(), None));
    assert_eq!(bench.told(), ["give {0}"], "it is not read again, which takes keyboards");
    assert_eq!(bench.share(), Some(Share::Interfaces([1].into())));
    bench.broker.command(Command::Rules(policy(""), false));
    assert_eq!((bench.share(), bench.report().state.as_str()), (None, "host"));
    assert!(bench.told().iter().all(|task| task == "give {0}"));
    bench.broker.command(Command::Rules(policy(RULE), false));
    assert_eq!(bench.share(), Some(Share::Interfaces([1].into())));
}

#[test]
fn a_keyboard_types_whatever_else_is_in_it_and_the_words_say_what_is_not_used() {
    for (class, rules, why) in [
        (0x0b, "", "no rule gives smart-card devices like this to any domain"),
        (0x08, RULE, "storage with a keyboard or mouse in it never enters a domain"),
        (0x0e, RULE, "no rule gives video devices like this to any domain"),
    ] {
        let mut bench = Bench::new(rules);
        bench.read(keyboard(&with_class(class)));
        let report = bench.report();
        assert_eq!(report.state, "host", "{class:02x}");
        assert_eq!(
            report.why,
            format!("its keyboard or mouse stays with the PC, the rest is not used: {why}")
        );
        assert!(bench.told().iter().all(|task| task == "give {0}"));
        let (events, words) = bench.events();
        assert_eq!(events[0].verdict.as_deref(), Some("deny"));
        assert!(words[0].starts_with(&format!("Keyboard (port 1-4): {}", report.why)), "{words:?}");
    }
}

#[test]
fn a_keyboard_types_though_what_is_besides_does_not_say_what_it_is() {
    let mut bench = Bench::new(RULE);
    let mut silent = keyboard(&WITH_READER);
    silent.unread = Some("it does not answer".to_owned());
    bench.read(silent);
    let report = bench.report();
    let why = "its keyboard or mouse stays with the PC, the rest is not used: it does not answer";
    assert_eq!((report.state.as_str(), report.why.as_str()), ("host", why));
    assert!(bench.told().iter().all(|task| task == "give {0}"));
    let (events, _) = bench.events();
    assert_eq!(events[0].kind, "usb-unreadable");
}

#[test]
fn what_the_rest_does_in_its_domain_costs_the_seat_no_keyboard() {
    let broken = "its firmware is another".to_owned();
    let lost = "it was pulled out".to_owned();
    for end in [
        DetachReason::Changed(broken.clone()),
        DetachReason::Broken(broken.clone()),
        DetachReason::Lost(broken),
    ] {
        let mut bench = attached();
        bench.ends(end);
        assert!(bench.told().iter().all(|task| task == "give {0}"));
        let report = bench.report();
        assert_eq!(report.state, "host");
        assert!(report.why.contains("the rest is not used any more: its firmware"), "{report:?}");
    }
    // A driver of the host's that resets the device takes it from the guest: it goes there again, but not for ever.
    let mut bench = attached();
    for _ in 1..CHANGES_MAX {
        bench.ends(DetachReason::NoDevice(lost.clone()));
        assert!(bench.share().is_some());
        attach(&mut bench);
    }
    bench.ends(DetachReason::NoDevice(lost));
    assert_eq!(bench.report().state, "host");
    assert!(!bench.told().contains(&"switch off".to_owned()));
}

#[test]
fn a_keyboard_that_lost_its_driver_gets_it_back_before_the_rest_is_used_again() {
    let mut bench = attached();
    for _ in 1..CHANGES_MAX {
        bench.told();
        bench.broker.look_at_keyboards();
        assert_eq!(bench.told()[0], "give {0}", "no driver is bound in this folder");
        assert!(bench.share().is_some());
        attach(&mut bench);
    }
    bench.broker.look_at_keyboards();
    assert_eq!(bench.report().state, "host");
    assert!(bench.report().why.contains("the PC loses the keyboard"));
    // As long as it has its driver nothing is done.
    let mut bench = attached();
    let interface = bench.dir.path().join("devices/1-4:1.0");
    fs::create_dir_all(&interface).unwrap();
    std::os::unix::fs::symlink("usbhid", interface.join("driver")).unwrap();
    bench.told();
    bench.broker.look_at_keyboards();
    assert!(bench.told().is_empty() && bench.report().state == "attached");
}

#[test]
fn a_keyboard_that_no_driver_takes_is_offered_a_few_times_and_that_is_said_once() {
    // The rest was taken away by hand, and no driver is bound in this folder.
    let mut bench = attached();
    let id = bench.id.clone();
    bench.broker.command(Command::Detach(id.clone(), None));
    let _ = (bench.told(), bench.events());
    let idle = |bench: &mut Bench| bench.broker.places.get_mut(&bench.id).unwrap().busy = 0;
    let looks = |bench: &mut Bench, times: u32| {
        for _ in 0..times {
            idle(bench);
            bench.broker.look_at_keyboards();
        }
    };
    looks(&mut bench, 100);
    assert_eq!(bench.told(), vec!["give {0}"; 3]);
    let (events, words) = bench.events();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event.kind, "usb-failed");
    let [words] = &words[..] else { panic!("{words:?}") };
    assert!(words.contains("no driver") && words.contains("plug it in again"), "{words}");
    assert!(bench.report().why.contains("no driver of this PC takes its keyboard"));
    // A driver takes it after all, and lets go of it later.
    let interface = bench.dir.path().join("devices/1-4:1.0");
    fs::create_dir_all(&interface).unwrap();
    std::os::unix::fs::symlink("usbhid", interface.join("driver")).unwrap();
    looks(&mut bench, 1);
    fs::remove_file(interface.join("driver")).unwrap();
    looks(&mut bench, 2);
    assert_eq!(bench.told(), vec!["give {0}"; 2]);
    assert!(!bench.report().why.contains("no driver"));
    // Somebody asks for it by hand.
    looks(&mut bench, 100);
    bench.told();
    bench.broker.command(Command::Attach(id, "clinical".to_owned(), None));
    bench.record(true);
    bench.told();
    looks(&mut bench, 100);
    assert_eq!(bench.told(), vec!["give {0}"; 3]);
}

#[test]
fn a_mouse_that_its_driver_did_not_take_when_it_was_offered_is_offered_again() {
    // A mouse without the boot protocol has to be read, and is not its driver's meanwhile. No driver is bound in this folder.
    let mut bench = Bench::new("");
    bench.read(keyboard(&KEYBOARD));
    assert_eq!(
        (bench.told(), bench.report().state),
        (vec!["give all".to_owned()], "host".to_owned())
    );
    let look = |bench: &mut Bench| {
        bench.broker.places.get_mut(&bench.id).unwrap().busy = 0;
        bench.broker.look_at_keyboards();
        bench.told()
    };
    assert_eq!(look(&mut bench), ["give {0}"]);
    let interface = bench.dir.path().join("devices/1-4:1.0");
    fs::create_dir_all(&interface).unwrap();
    std::os::unix::fs::symlink("usbhid", interface.join("driver")).unwrap();
    assert!(look(&mut bench).is_empty(), "it has its driver");
    fs::remove_file(interface.join("driver")).unwrap();
    for _ in 0..10 {
        look(&mut bench);
    }
    let report = bench.report();
    assert!(report.state == "host" && report.why.contains("no driver"), "{report:?}");
}

#[test]
fn what_had_no_keyboard_in_it_before_it_was_another_device_types_nowhere() {
    for (became, logged) in [(&WITH_READER[..], "03/01/01+0b/00/00"), (&KEYBOARD[..], "03/01/01")] {
        let mut bench = Bench::new(RULE);
        bench.changed(1);
        bench.read(keyboard(became));
        assert_eq!(bench.told(), ["switch off"]);
        let report = bench.report();
        assert_eq!(report.state, "blocked");
        assert!(report.why.contains("appears in a device in use"), "{report:?}");
        let (events, _) = bench.events();
        let device = events[0].detail["device"].to_string();
        assert!(device.contains(logged), "what it became is in the log: {device}");
        // Nor with other rules, nor by hand; but when it is plugged in again.
        bench.broker.command(Command::Rules(policy(""), false));
        let attach = Command::Attach(bench.id.clone(), "clinical".to_owned(), None);
        bench.broker.command(attach);
        bench.read(keyboard(became));
        assert!(!bench.told().iter().any(|task| task.starts_with("give")));
        assert_eq!(bench.report().state, "blocked");
    }
}

#[test]
fn what_had_no_keyboard_in_it_when_it_was_first_read_types_nowhere_though_it_is_attached_by_hand() {
    for became in [&WITH_READER[..], &KEYBOARD[..]] {
        let mut bench = Bench::new(RULE);
        bench.read(identity(&READER, "Keyboard"));
        bench.record(true);
        bench.broker.command(Command::Attach(bench.id.clone(), "clinical".to_owned(), None));
        let _ = (bench.told(), bench.events());
        bench.read(keyboard(became));
        assert_eq!(bench.told(), ["switch off"]);
        assert!(bench.report().why.contains("appears in a device in use"), "{:?}", bench.report());
    }
}

/// Makes a broker with a keyboard whose reader is in its domain.
fn attached() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::with(RULE, vec![SocketEndpoint::Connect(socket)]);
    // The VMM takes as many connections as there are, and nobody looks at them.
    bench.vmm = Some((listener, dir));
    bench.read(keyboard(&WITH_READER));
    attach(&mut bench);
    assert_eq!(bench.told(), ["give {0}", "serve"]);
    bench
}

fn attach(bench: &mut Bench) {
    if matches!(bench.state(), State::Recording { .. }) {
        bench.record(true);
    }
    // What it had before has left.
    let tasks: Vec<u64> = bench.broker.devices[&bench.id].attachments.keys().copied().collect();
    tasks.into_iter().for_each(|task| bench.leaves(task, None));
    bench.idle();
    bench.broker.tick(Moment::now() + AGAIN);
    bench.permit();
    let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
    let id = bench.id.clone();
    bench.broker.take_report(&id, task, Report::Serving(DeviceThreadEvent::Begun));
}

#[test]
fn how_a_request_to_attach_a_device_by_hand_ended_is_an_entry_with_the_requests_number() {
    let mut bench = Bench::new(RULE);
    bench.read(keyboard(&WITH_READER));
    bench.events();
    let id = bench.id.clone();
    let requests = |bench: &Bench| -> Vec<(&'static str, Option<u64>)> {
        let number = |event: &Record| event.detail.get("request").and_then(|n| n.as_u64());
        bench.events().0.iter().map(|event| (event.kind, number(event))).collect()
    };
    let attach = |bench: &mut Bench, domain: &str, request| {
        bench.broker.command(Command::Attach(id.clone(), domain.to_owned(), Some(request)));
    };
    attach(&mut bench, "internet", 9);
    assert_eq!(requests(&bench), [("usb", Some(9))], "the policy says no");
    attach(&mut bench, "clinical", 12);
    assert_eq!(requests(&bench), [("usb", Some(12))]);
    attach(&mut bench, "clinical", 15);
    assert_eq!(requests(&bench), [("usb-failed", Some(12)), ("usb", Some(15))]);
    bench.record(true);
    bench.broker.command(Command::Detach(id.clone(), Some(20)));
    assert_eq!(requests(&bench), [("usb-failed", Some(15))]);
    // Nothing is left that a later entry could name.
    assert_eq!(bench.broker.devices[&id].lifecycle.request(), None);
}
