//! What becomes of the devices when the broker ends.

use super::*;

/// Makes a controller, a card reader that no rule gives to anybody at 1-5, and a keyboard at 1-6.
fn a_pc(dir: &Path) -> Setup {
    let setup = setup(dir, Vec::new());
    let devices = dir.join("devices");
    for (folder, file) in [
        ("usb1", "authorized_default"),
        ("usb1", "interface_authorized_default"),
        ("1-5:1.0", "authorized"),
        ("1-6:1.0", "authorized"),
    ] {
        fs::create_dir_all(devices.join(folder)).unwrap();
        fs::write(devices.join(folder).join(file), "1").unwrap();
    }
    plug(&devices, "1-5", &READER, false);
    plug(&devices, "1-6", &KEYBOARD, false);
    setup
}

/// Returns what the kernel was last told of the controller, the card reader and the keyboard.
fn switches(dir: &Path) -> [String; 5] {
    [
        "usb1/authorized_default",
        "usb1/interface_authorized_default",
        "1-5/authorized",
        "1-6/authorized",
        "1-6:1.0/authorized",
    ]
    .map(|file| fs::read_to_string(dir.join("devices").join(file)).unwrap())
}

#[test]
fn an_agent_that_leaves_its_guests_running_gives_no_device_to_the_hosts_drivers_and_takes_no_keyboard_from_them()
 {
    let kept = ["0", "0", "0", "1", "1"];
    let given_back = ["1", "1", "1", "1", "1"];
    for (stop, expected) in [
        (Some(Stop::KeepFromHost), kept),
        // An agent that fails somewhere else.
        (None, kept),
        (Some(Stop::GiveBack), given_back),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut usb = crate::start(a_pc(dir.path())).unwrap();
        let until = Moment::now() + Duration::from_secs(12);
        while switches(dir.path()) != kept {
            assert!(Moment::now() < until, "{:?}", switches(dir.path()));
            std::thread::sleep(Duration::from_millis(20));
        }
        match stop {
            Some(stop) => usb.stop(stop),
            None => drop(usb),
        }
        assert_eq!(switches(dir.path()), expected, "{stop:?}");
        let file = dir.path().join("switches.json");
        assert_eq!(file.exists(), expected == kept, "the next agent puts them back");
    }
}

#[test]
fn a_device_that_waits_for_its_domain_or_for_the_log_is_not_connected_to_it_while_the_agent_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    listener.set_nonblocking(true).unwrap();
    for recorded in [true, false] {
        let mut bench = Bench::with(RULE, vec![SocketEndpoint::Connect(socket.clone())]);
        bench.read(identity(&READER, ""));
        bench.record(recorded);
        bench.events();
        bench.drive(Event::AgentEnds);
        bench.broker.tick(Moment::now() + AGAIN);
        bench.broker.command(Command::RecordLost);
        bench.broker.command(Command::Rules(policy(""), false));
        bench.broker.command(Command::Attach(bench.id.clone(), "clinical".to_owned(), Some(7)));
        bench.drive(Event::Unplugged);
        bench.drive(Event::PluggedIn);
        bench.broker.tick(Moment::now() + AGAIN);
        assert_eq!(bench.kinds(), ["usb-failed"], "what is asked for by hand fails");
        assert!(listener.accept().is_err());
    }
}

#[test]
fn a_broker_that_cannot_go_on_gives_the_hosts_drivers_nothing_while_its_agent_does() {
    let dir = tempfile::tempdir().unwrap();
    let (_mediator, ends) = ThreadHandle::new("usb").unwrap();
    let broker = Broker::new(a_pc(dir.path()), ends).unwrap();
    let taken = switches(dir.path());
    assert_eq!(taken[0], "0");
    // As when it cannot wait for anything any more: nobody has told it to stop.
    broker.detach_all();
    assert_eq!(switches(dir.path()), taken);
}
