//! What was permitted ends with what permitted it.

use super::*;

const BREAK_GLASS_RULE: &str = "\n[[usb]]\nid = \"readers\"\nmatch = { class = \"smart-card\" }\nto = \"clinical\"\naction = \"allow\"\nbreak_glass = true\n\n[break_glass]\nmax_duration = \"1h\"\nreason_required = false\nallow_usb = [\"readers\"]\n";

/// Makes a card reader in its domain, by these rules, and the domain's end of its stream.
fn attached(rules: &str, break_glass: bool) -> (Bench, std::os::unix::net::UnixStream) {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::with("", vec![SocketEndpoint::Connect(socket)]);
    bench.broker.command(Command::Rules(policy(rules), break_glass));
    bench.read(identity(&READER, ""));
    bench.record(true);
    bench.broker.tick(Moment::now());
    bench.permit();
    let stream = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    bench.vmm = Some((listener, dir));
    let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
    let id = bench.id.clone();
    bench.broker.take_report(&id, task, Report::Serving(DeviceThreadEvent::Begun));
    let _ = (bench.told(), bench.events());
    (bench, stream)
}

/// Asserts that the device has to leave at once, and is cut off half a second later though its thread hangs.
fn is_revoked(bench: &mut Bench, mut stream: std::os::unix::net::UnixStream, why: &str) {
    assert!(!matches!(bench.state(), State::Attached { .. }), "{:?}", bench.state());
    let (_, texts) = bench.events();
    let disconnected = format!("disconnected from CLINICAL:\n{why}");
    assert!(texts.iter().any(|text| text.contains(&disconnected)), "{texts:?}");
    bench.broker.tick(Moment::now() + Duration::from_millis(500));
    assert!(matches!(Read::read(&mut stream, &mut [0; 8]), Ok(0)), "no byte goes to the guest");
    assert_eq!(bench.kinds(), ["usb-detached"]);
}

#[test]
fn a_device_leaves_its_domain_at_once_when_its_rule_is_gone() {
    let (mut bench, stream) = attached(RULE, false);
    bench.broker.command(Command::Rules(policy(""), false));
    is_revoked(&mut bench, stream, "the rules changed");
}

#[test]
fn a_device_leaves_its_domain_at_once_when_the_break_glass_ends_that_gave_it() {
    let (mut bench, stream) = attached(BREAK_GLASS_RULE, true);
    bench.broker.command(Command::Rules(policy(BREAK_GLASS_RULE), false));
    is_revoked(&mut bench, stream, "the rules changed");
}

#[test]
fn a_device_leaves_its_domain_at_once_when_its_record_is_lost_and_comes_back_when_it_has_another() {
    let (mut bench, stream) = attached(RULE, false);
    let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
    bench.broker.command(Command::RecordLost);
    is_revoked(&mut bench, stream, "the audit log cannot be written");
    assert_eq!(bench.report().why, "the audit log cannot be written");
    bench.leaves(task, None);
    // Its verdict may be lost, too.
    bench.record(true);
    bench.events();
    bench.broker.tick(Moment::now() + AGAIN);
    assert_eq!(bench.kinds(), ["usb-attached"]);
    bench.permit();
    assert_eq!(bench.told(), ["serve"]);
}

#[test]
fn a_device_that_broke_the_rules_goes_nowhere_until_it_is_plugged_in_again() {
    for reason in [
        DetachReason::Broken("its answers make no sense".to_owned()),
        DetachReason::Changed("its firmware is another".to_owned()),
    ] {
        let (mut bench, _stream) = attached(RULE, false);
        bench.changed(CHANGES_MAX);
        bench.ends(reason);
        let is_blocked = |bench: &Bench| {
            let report = bench.report();
            assert_eq!(report.state, "blocked", "{report:?}");
            assert!(report.why.ends_with("; plug it in again"), "{report:?}");
            assert!(!bench.told().contains(&"read".to_owned()));
        };
        is_blocked(&bench);
        // Break-glass is opened, which any guest's user may do at any time.
        bench.broker.command(Command::Rules(policy(RULE), true));
        is_blocked(&bench);
        bench.events();
        let by_hand = Command::Attach(bench.id.clone(), "clinical".to_owned(), Some(7));
        bench.broker.command(by_hand);
        is_blocked(&bench);
        let (events, words) = bench.events();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.kind, &event.detail["request"]), ("usb-failed", &7.into()));
        assert!(words[0].contains("plug it in again"), "{words:?}");
        bench.drive(Event::Unplugged);
        bench.drive(Event::PluggedIn);
        assert_eq!(bench.report().state, "reading");
    }
}

#[test]
fn a_permit_that_comes_after_its_rule_is_gone_attaches_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.broker.tick(Moment::now());
    let State::Authorizing { request, admitted } = bench.state().clone() else {
        panic!("{:?}", bench.state())
    };
    bench.broker.command(Command::Rules(policy(""), false));
    let permit = monitor::testing::permit(admitted.grant().clone(), 1);
    bench.broker.command(Command::Permitted(request, permit));
    assert!(!bench.told().contains(&"serve".to_owned()));
    let mut stream = listener.accept().unwrap().0;
    assert_eq!(Read::read(&mut stream, &mut [0; 8]).unwrap(), 0, "the connection is dropped");
}

/// Makes the policy with the rule for card readers, as this one.
fn policy_of(serial: u64) -> Arc<Policy> {
    let text = policy_tools::STARTER.to_owned() + RULE;
    let text = text.replacen("serial = 1 ", &format!("serial = {serial} "), 1);
    Arc::new(Policy::parse("test", &text).unwrap())
}

/// Returns the policies of the verdicts that are asked to be recorded, and of nothing else.
fn verdicts(bench: &Bench) -> Vec<Option<u64>> {
    let (events, _) = bench.events();
    let judged = events.iter().filter(|event| event.kind == "usb");
    judged.map(|event| event.policy).collect()
}

#[test]
fn a_domain_is_connected_by_no_verdict_of_rules_that_are_no_more_though_those_of_now_give_the_same()
{
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    listener.set_nonblocking(true).unwrap();
    let mut bench = Bench::waiting(&socket);
    bench.broker.command(Command::Rules(policy_of(2), false));
    assert_eq!(verdicts(&bench), [Some(2)]);
    bench.broker.tick(Moment::now() + AGAIN);
    assert!(listener.accept().is_err(), "not before that is on the disk");
    bench.record(true);
    // The same rules once more.
    bench.broker.command(Command::Rules(policy_of(2), false));
    assert_eq!(verdicts(&bench), []);
    bench.broker.tick(Moment::now());
    assert!(matches!(bench.state(), State::Authorizing { .. }));
    bench.broker.command(Command::Rules(policy_of(3), false));
    assert_eq!(verdicts(&bench), [Some(3)]);
    let mut stream = listener.accept().unwrap().0;
    assert_eq!(Read::read(&mut stream, &mut [0; 8]).unwrap(), 0, "the connection is dropped");
    bench.record(true);
    bench.broker.tick(Moment::now());
    bench.permit();
    // It stays attached, and goes to its domain again by another verdict.
    bench.broker.command(Command::Rules(policy_of(4), false));
    assert!(matches!(bench.state(), State::Attached { .. }));
    assert_eq!(verdicts(&bench), []);
    bench.ends(DetachReason::NoVmm);
    assert_eq!(verdicts(&bench), [Some(4)]);
    bench.record(true);
    assert!(matches!(bench.state(), State::Waiting { .. }));
}
