//! The broker over a folder instead of the kernel's; devices themselves are met in the simulated PC.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use usbdescriptors::{Pinned, Share};
use usbfilter::Filter;
use usbhost::{Found, Plugged, Vetted};

use super::device::Grant;
use super::place::Reading;
use super::*;
use crate::attached::{End, join};
use base::mailbox::Mediator;
use usbsysfs::Identity;

mod parts;

const DEVICE: [u8; 18] = [18, 1, 0, 2, 0, 0, 0, 64, 9, 18, 0x42, 0, 0, 1, 0, 0, 0, 1];
/// A keyboard of the seat's, which nobody reads further.
const KEYBOARD: [u8; 25] =
    [9, 2, 25, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 1, 3, 1, 1, 0, 7, 5, 0x81, 3, 8, 0, 10];
/// A card reader.
const READER: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 11, 0, 0, 0];

fn plug(devices: &Path, id: &str, configuration: &[u8], hangs: bool) {
    let folder = devices.join(id);
    let new = devices.join("new");
    fs::create_dir(&new).unwrap();
    for (name, text) in
        [("busnum", "1"), ("devnum", "7"), ("idVendor", "1209"), ("idProduct", "0042")]
    {
        fs::write(new.join(name), text).unwrap();
    }
    fs::write(new.join("descriptors"), [&DEVICE[..], configuration].concat()).unwrap();
    if hangs {
        // Whoever opens it waits for somebody at the other end: a device whose lock another holds.
        mkfifo(&new.join("authorized"), Mode::S_IRWXU).unwrap();
    } else {
        fs::write(new.join("authorized"), "1").unwrap();
    }
    fs::rename(new, folder).unwrap();
}

/// A device at a place, as it is found there.
fn device(id: &BusId) -> Device {
    let (vendor, product) = (0x1209, 0x42);
    Device::new(Plugged { bus_id: id.clone(), address: Some(7), vendor, product })
}

fn setup(dir: &Path, ways: Vec<Way>) -> Setup {
    fs::create_dir(dir.join("devices")).unwrap();
    Setup {
        sysfs: Sysfs::at(&dir.join("devices")),
        switches: dir.join("switches.json"),
        domains: vec![("clinical".to_owned(), ways)],
        policy: Arc::new(Policy::parse("test", policy_tools::STARTER).unwrap()),
    }
}

#[test]
fn a_device_that_hangs_holds_up_neither_the_rules_nor_another_device() {
    let dir = tempfile::tempdir().unwrap();
    let usb = crate::Usb::start(setup(dir.path(), Vec::new())).unwrap();
    let devices = dir.path().join("devices");
    plug(&devices, "1-5", &READER, true);
    let states = |wanted: [(&str, &str); 2]| {
        let until = Moment::now() + Duration::from_secs(12);
        let mut last = Vec::new();
        while Moment::now() < until {
            for happening in usb.happened() {
                if let Happening::Devices(all) = happening {
                    last = all;
                }
            }
            let all: Vec<_> = last.iter().map(|one| (&*one.bus_id, &*one.state)).collect();
            if all == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not {wanted:?}: {last:?}");
    };
    plug(&devices, "1-6", &KEYBOARD, false);
    // The second is read while nobody answers for the first.
    states([("1-5", "reading"), ("1-6", "host")]);
    let asked = Moment::now();
    usb.tell(Command::Detach("1-5".parse().unwrap(), None));
    states([("1-5", "off"), ("1-6", "host")]);
    assert!(asked.elapsed() < Duration::from_secs(1));
    // The end does not wait for it for ever; its thread does.
    fs::remove_dir_all(devices.join("1-5")).unwrap();
    drop(usb);
}

#[test]
fn a_device_that_is_being_reset_stays_and_another_in_its_place_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let (_mediator, ends) = Mediator::new("usb").unwrap();
    let mut broker = Broker::new(setup(dir.path(), Vec::new()), ends).unwrap();
    let devices = dir.path().join("devices");
    let look = |broker: &mut Broker, address: &str| {
        fs::write(devices.join("1-4/devnum"), address).unwrap();
        broker.look();
        broker
            .devices
            .values()
            .next()
            .map(|device| (device.plugged.address, device.by_hand.clone()))
    };
    plug(&devices, "1-4", &READER, false);
    assert_eq!(look(&mut broker, "0"), None, "which one it is shows when its reset is over");
    assert_eq!(look(&mut broker, "7"), Some((Some(7), None)));
    broker.devices.values_mut().for_each(|device| device.by_hand = Some("clinical".to_owned()));
    let same = Some((Some(7), Some("clinical".to_owned())));
    // The kernel shows 0 until the device has answered.
    assert_eq!(look(&mut broker, "0"), same);
    assert_eq!(look(&mut broker, "7"), same);
    assert_eq!(look(&mut broker, "8"), Some((Some(8), None)));
}

#[test]
fn what_is_taken_away_before_it_was_looked_at_is_not_taken_from_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let (mediator, ends) = Mediator::new("usb").unwrap();
    let mut broker = Broker::new(setup(dir.path(), Vec::new()), ends).unwrap();
    let identity = |configuration: &[u8]| {
        let found = Found {
            bus_id: "1-4".parse().unwrap(),
            bus: 1,
            address: 7,
            vendor: 0x1209,
            product: 0x42,
            speed: String::new(),
            name: String::new(),
            serial: None,
            descriptors: [&DEVICE[..], configuration].concat(),
            authorised: true,
            drivers: Vec::new(),
        };
        Ok(Reading::Device(Box::new(Identity::of(Vetted::new(found).unwrap()))))
    };
    let id: BusId = "1-4".parse().unwrap();
    for (found, state, switched_off) in [
        (Ok(Reading::Hosts), "host", false),
        (identity(&KEYBOARD), "host", false),
        (identity(&READER), "off", true),
        (Err("it does not answer".to_owned()), "off", true),
    ] {
        for begun in [true, false] {
            let found = match &found {
                Ok(Reading::Hosts) => Ok(Reading::Hosts),
                Ok(Reading::Device(identity)) => Ok(Reading::Device(identity.clone())),
                Err(why) => Err(why.clone()),
            };
            let (tasks, given) = mpsc::channel();
            broker.places.insert(id.clone(), Place::with(tasks));
            let device = Device { state: State::Later(Moment::now() + AGAIN), ..device(&id) };
            broker.devices.insert(id.clone(), device);
            if begun {
                broker.arrived(&id);
            }
            broker.command(Command::Detach(id.clone(), None));
            broker.command(Command::Detach(id.clone(), None));
            assert_eq!(broker.devices[&id].report().state, "off");
            broker.take_note(&id, broker.last_task, Told::Read(found));
            assert_eq!(broker.devices[&id].report().state, state);
            let off = given.try_iter().any(|(_, task)| matches!(task, Task::SwitchOff));
            assert_eq!(off, switched_off);
        }
    }
    drop(mediator);
}

/// A broker with a card reader that waits for its domain.
fn waiting(setup: Setup) -> (Broker, Mediator<Command, Happening>, BusId) {
    let (mediator, ends) = Mediator::new("usb").unwrap();
    let mut broker = Broker::new(setup, ends).unwrap();
    let id: BusId = "1-4".parse().unwrap();
    let found = Found {
        bus_id: id.clone(),
        bus: 0,
        address: 0,
        vendor: 0x1209,
        product: 0x42,
        speed: String::new(),
        name: String::new(),
        serial: None,
        descriptors: [&DEVICE[..], &READER].concat(),
        authorised: true,
        drivers: Vec::new(),
    };
    let identity = Identity::of(Vetted::new(found).unwrap());
    let grant = Grant {
        domain: "clinical".to_owned(),
        label: "CLINICAL".to_owned(),
        rules: Rules::Allow,
        share: Share::Whole,
        rule: None,
        why: String::new(),
    };
    let device = Device {
        identity: Some(identity),
        state: State::Waiting(grant, Moment::now()),
        changes: Some(0),
        ..device(&id)
    };
    broker.devices.insert(id.clone(), device);
    (broker, mediator, id)
}

/// The number of the event that waits for the disk.
fn recorded(mediator: &Mediator<Command, Happening>) -> u64 {
    let mut events = mediator.happened().into_iter().filter_map(|happening| match happening {
        Happening::Record(number, event) => Some((number, event.kind())),
        _ => None,
    });
    let (number, kind) = events.next().expect("an event for the disk");
    assert_eq!(kind, "usb-attached");
    assert!(events.next().is_none());
    number
}

#[test]
fn a_device_joins_its_domain_each_time_only_when_that_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("usb-1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (mut broker, mediator, id) = waiting(setup(dir.path(), vec![Way::Dial(socket)]));
    broker.devices.get_mut(&id).unwrap().request = Some(7);
    for _ in 0..2 {
        broker.try_waiting(Moment::now());
        let event = recorded(&mediator);
        assert!(matches!(broker.devices[&id].state, State::Joining(..)));
        assert!(broker.places.is_empty(), "nobody serves it");
        // The log cannot be written: it waits, and no VMM has a stream.
        broker.recorded(event, false);
        assert!(matches!(broker.devices[&id].state, State::Waiting(..)));
        assert_eq!(broker.devices[&id].report().why, "the audit log cannot be written");
        let mut stream = listener.accept().unwrap().0;
        assert_eq!(Read::read(&mut stream, &mut [0; 8]).unwrap(), 0);
        broker.try_waiting(Moment::now() + AGAIN);
        let event = recorded(&mediator);
        broker.recorded(event, true);
        assert!(matches!(broker.devices[&id].state, State::Attached(..)));
        assert_eq!(broker.devices[&id].request, None, "what somebody asked for has ended");
        // Its VMM is gone: the next one needs an event of its own.
        broker.end(&id, Some(End::NoVmm), &Filter::new(Rules::Allow, pinned()).unwrap().counts());
        assert!(matches!(broker.devices[&id].state, State::Waiting(..)));
        let _ = listener.accept().unwrap();
        let Some(device) = broker.devices.get_mut(&id) else { panic!() };
        let State::Waiting(_, at) = &mut device.state else { panic!() };
        *at = Moment::now();
        let _ = mediator.happened();
        broker.places.clear();
    }
}

#[test]
fn a_vmm_that_lets_a_device_go_again_and_again_gets_it_ever_more_slowly() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("usb-1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (mut broker, mediator, id) = waiting(setup(dir.path(), vec![Way::Dial(socket)]));
    let counts = Filter::new(Rules::Allow, pinned()).unwrap().counts();
    let mut attached = 0;
    for _ in 0..200 {
        // As if a second had passed, which the limit does not believe.
        broker.try_waiting(Moment::now() + AGAIN);
        if !matches!(broker.devices[&id].state, State::Joining(..)) {
            break;
        }
        attached += 1;
        broker.recorded(recorded(&mediator), true);
        let _ = listener.accept().unwrap();
        broker.end(&id, Some(End::NoVmm), &counts);
        let _ = mediator.happened();
        broker.places.clear();
    }
    assert!((2..100).contains(&attached), "attached {attached} times at once");
    let State::Waiting(_, at) = broker.devices[&id].state else { panic!("given up") };
    assert!(at > Moment::now() + AGAIN);
    // What comes in its place waits too, and is not even read.
    broker.comes(&id);
    assert!(matches!(broker.devices[&id].state, State::Later(_)));
    assert_eq!(broker.devices[&id].report().state, "waiting");
}

fn pinned() -> Pinned {
    Pinned::from_sysfs(&[&DEVICE[..], &READER].concat()).unwrap()
}

#[test]
fn a_device_that_does_not_part_is_cut_off_from_its_guest_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("usb-1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (mut broker, mediator, id) = waiting(setup(dir.path(), vec![Way::Dial(socket)]));
    broker.try_waiting(Moment::now());
    let event = recorded(&mediator);
    // Its thread is busy with a device that hangs: it never takes the task.
    let (tasks, _hangs) = mpsc::channel();
    broker.places.insert(id.clone(), Place::with(tasks));
    broker.recorded(event, true);
    let mut stream = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    let mut cut = || matches!(Read::read(&mut stream, &mut [0; 8]), Ok(0));
    broker.take_away(&id, "the rules changed");
    assert!(matches!(broker.devices[&id].state, State::Off));
    assert!(!cut(), "it may part by itself");
    broker.cut(Moment::now() + Duration::from_secs(1));
    assert!(cut());
    let said: Vec<&str> = mediator
        .happened()
        .into_iter()
        .filter_map(|happening| match happening {
            Happening::Note(event) => Some(event.kind()),
            _ => None,
        })
        .collect();
    assert_eq!(said, ["usb-detached"]);
}

#[test]
fn a_device_that_is_another_after_each_reset_is_told_from_one_that_is_pulled_out_in_a_reset() {
    let mut times = 0;
    for (was, comes, expected) in [(1, 2, 1), (2, 1, 2), (1, 1, 0), (1, 2, 1), (2, 3, 2), (3, 2, 3)]
    {
        let mut lost = Lost { times, when: Moment::now(), was: Some(vec![was]) };
        times = lost.comes(&[comes]);
        assert_eq!(times, expected);
        assert_eq!(lost.comes(&[9]), expected, "what is plugged in later was not lost");
    }
    assert!(times >= CHANGES_MAX);
}

#[test]
fn who_has_a_device_plugged_in_is_told_why_it_is_taken_away_and_what_to_do() {
    let changed = usbfilter::Change::Descriptor(3).to_string();
    let broken = usbfilter::Violation::TooManyFaults.to_string();
    for (end, words) in [
        (
            End::NoDevice("it was pulled out".to_owned()),
            "disconnected from CLINICAL:\nit was pulled out.",
        ),
        (
            End::Lost("it did not come back from a reset".to_owned()),
            "disconnected from CLINICAL:\nit did not",
        ),
        (
            End::Stream("its VMM sent nothing known".to_owned()),
            "disconnected from CLINICAL:\nits VMM sent",
        ),
        (
            End::Broken(broken),
            "is blocked:\nits answers make no sense, again and again.\nPlug it in again. If",
        ),
        (
            End::Changed(changed),
            "is blocked:\nit says something else of its name or serial number than",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("usb-1.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let (mut broker, mediator, id) = waiting(setup(dir.path(), vec![Way::Dial(socket)]));
        broker.try_waiting(Moment::now());
        broker.recorded(recorded(&mediator), true);
        let device = broker.devices.get_mut(&id).unwrap();
        device.changes = Some(CHANGES_MAX);
        // It has no serial number: there may be another of its kind.
        let (shown, counts) =
            (device.shown(), Filter::new(Rules::Allow, pinned()).unwrap().counts());
        assert_eq!(shown, "USB device (port 1-4)");
        broker.end(&id, Some(end), &counts);
        let notice = mediator.happened().into_iter().find_map(|happening| match happening {
            Happening::Notice(socket, text) => Some((socket, text)),
            _ => None,
        });
        let (socket, text) = notice.expect("a notice");
        assert_eq!(socket, "1-4");
        assert!(text.starts_with(&format!("{shown} {words}")), "{text}");
        broker.places.clear();
    }
}
