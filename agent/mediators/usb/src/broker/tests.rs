//! The broker over a folder instead of the kernel's; devices themselves are met in the simulated PC.

use std::fs;
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use std::time::Duration;

use audit::events::Record;
use monitor::Denial;

use super::place::Task;
use super::*;
use crate::attached::{DetachReason, NotServed, Served};
use crate::grant::UsbAdmission;
use crate::lifecycle::CHANGES_MAX;
use base::mailbox::ThreadHandle;
use base::sockets::SocketEndpoint;
use usbsysfs::Identity;

mod bench;
mod budget;
mod ending;
mod looks;
mod monitored;
mod non_interference;
mod parts;
mod record;
mod revocation;
mod steps;
mod world;

use bench::*;

#[test]
fn a_device_that_hangs_holds_up_neither_the_rules_nor_another_device() {
    let dir = tempfile::tempdir().unwrap();
    let usb = crate::start(setup(dir.path(), Vec::new())).unwrap();
    let devices = dir.path().join("devices");
    plug(&devices, "1-5", &READER, true);
    let states = |wanted: [(&str, &str); 2]| {
        let until = Moment::now() + Duration::from_secs(12);
        let mut last = Vec::new();
        while Moment::now() < until {
            for event in usb.events() {
                if let UsbEvent::Devices(all) = event {
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
    usb.send(Command::Detach("1-5".parse().unwrap(), None));
    states([("1-5", "off"), ("1-6", "host")]);
    assert!(asked.elapsed() < Duration::from_secs(1));
    // The end does not wait for it for ever; its thread does.
    fs::remove_dir_all(devices.join("1-5")).unwrap();
    drop(usb);
}

#[test]
fn a_device_that_is_being_reset_stays_and_another_in_its_place_is_another() {
    let dir = tempfile::tempdir().unwrap();
    let (_mediator, ends) = ThreadHandle::new("usb").unwrap();
    let mut broker = Broker::new(setup(dir.path(), Vec::new()), ends).unwrap();
    let devices = dir.path().join("devices");
    let by_hand = |device: &Device| device.lifecycle.by_hand().map(str::to_owned);
    let look = |broker: &mut Broker, address: &str| {
        fs::write(devices.join("1-4/devnum"), address).unwrap();
        broker.look();
        broker
            .devices
            .values()
            .next()
            .and_then(|device| Some((device.plugged.as_ref()?.address, by_hand(device))))
    };
    plug(&devices, "1-4", &READER, false);
    assert_eq!(look(&mut broker, "0"), None, "which one it is shows when its reset is over");
    assert_eq!(look(&mut broker, "7"), Some((Some(7), None)));
    broker.command(Command::Attach("1-4".parse().unwrap(), "clinical".to_owned(), None));
    let same = Some((Some(7), Some("clinical".to_owned())));
    // The kernel shows 0 until the device has answered.
    assert_eq!(look(&mut broker, "0"), same);
    assert_eq!(look(&mut broker, "7"), same);
    assert_eq!(look(&mut broker, "8"), Some((Some(8), None)));
}

#[test]
fn what_is_taken_away_before_it_was_looked_at_is_not_taken_from_the_host() {
    for (configuration, state, switched_off) in [
        (None, "host", false),
        (Some(Ok(&KEYBOARD[..])), "host", false),
        (Some(Ok(&READER[..])), "off", true),
        (Some(Err("it does not answer")), "off", true),
    ] {
        for begun in [true, false] {
            let mut bench = Bench::new("");
            if !begun {
                // Devices come and go too often at its socket: it is not read yet.
                bench.drive(Event::Unplugged);
                (0..100).for_each(|_| bench.broker.pace.count(&bench.id));
                bench.drive(Event::PluggedIn);
                assert!(matches!(bench.state(), State::Throttled { .. }));
            }
            bench.broker.command(Command::Detach(bench.id.clone(), None));
            bench.broker.command(Command::Detach(bench.id.clone(), None));
            assert_eq!(bench.report().state, "off");
            bench.found(match configuration {
                None => Ok(DeviceReading::HostNeeds),
                Some(Ok(bytes)) => Ok(DeviceReading::Device(Box::new(identity(bytes, "")))),
                Some(Err(why)) => Err(why.to_owned()),
            });
            assert_eq!(bench.report().state, state);
            assert_eq!(bench.told().contains(&"switch off".to_owned()), switched_off);
        }
    }
}

/// Makes a socket at which a VMM listens.
fn vmm(dir: &Path) -> (PathBuf, UnixListener) {
    let socket = dir.join("usb-1.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    (socket, listener)
}

#[test]
fn a_device_joins_its_domain_each_time_only_when_that_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.broker.command(Command::Attach(bench.id.clone(), "clinical".to_owned(), Some(7)));
    bench.read(identity(&READER, ""));
    bench.record(true);
    let _ = (bench.told(), bench.events());
    for _ in 0..2 {
        bench.broker.tick(Moment::now());
        assert_eq!(bench.kinds(), ["usb-attached"]);
        assert!(matches!(bench.state(), State::Authorizing { .. }));
        assert!(bench.told().is_empty(), "nobody serves it");
        // The log cannot be written: it waits, and no VMM has a stream.
        bench.refuse();
        assert!(matches!(bench.state(), State::Waiting { .. }));
        assert_eq!(bench.report().why, "the audit log cannot be written");
        let mut stream = listener.accept().unwrap().0;
        assert_eq!(Read::read(&mut stream, &mut [0; 8]).unwrap(), 0);
        bench.events();
        bench.broker.tick(Moment::now() + AGAIN);
        assert_eq!(bench.kinds(), ["usb-attached"]);
        bench.permit();
        assert!(matches!(bench.state(), State::Attached { .. }));
        assert_eq!(bench.told(), ["serve"]);
        let request = bench.broker.devices[&bench.id].lifecycle.request();
        assert_eq!(request, None, "what somebody asked for has ended");
        // Its VMM is gone: the next one needs an event of its own.
        bench.ends(DetachReason::NoVmm);
        assert!(matches!(bench.state(), State::Waiting { .. }));
        let _ = (listener.accept().unwrap(), bench.events());
        std::thread::sleep(AGAIN);
    }
}

#[test]
fn a_vmm_that_lets_a_device_go_again_and_again_gets_it_ever_more_slowly() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    let mut attached = 0;
    for _ in 0..200 {
        // As if a second had passed, which the limit does not believe.
        bench.broker.tick(Moment::now() + AGAIN);
        if !matches!(bench.state(), State::Authorizing { .. }) {
            break;
        }
        attached += 1;
        bench.permit();
        let _ = listener.accept().unwrap();
        bench.ends(DetachReason::NoVmm);
    }
    assert!((2..100).contains(&attached), "attached {attached} times at once");
    let State::Waiting { retry, .. } = *bench.state() else { panic!("given up") };
    assert!(retry > Moment::now() + AGAIN);
    // What comes in its place waits too, and is not even read.
    bench.drive(Event::Unplugged);
    bench.told();
    bench.drive(Event::PluggedIn);
    assert!(matches!(bench.state(), State::Throttled { .. }));
    assert_eq!(bench.report().state, "waiting");
    assert!(bench.told().is_empty());
}

#[test]
fn a_device_that_does_not_part_is_cut_off_from_its_guest_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.broker.tick(Moment::now());
    // Its thread is busy with a device that hangs: it never takes the task.
    bench.permit();
    bench.events();
    let mut stream = listener.accept().unwrap().0;
    stream.set_nonblocking(true).unwrap();
    let mut cut = || matches!(Read::read(&mut stream, &mut [0; 8]), Ok(0));
    bench.broker.command(Command::Rules(policy(""), false));
    assert!(!matches!(bench.state(), State::Attached { .. }));
    assert!(!cut(), "it may part by itself");
    bench.broker.tick(Moment::now() + Duration::from_secs(1));
    assert!(cut());
    let (events, _) = bench.events();
    let [event] = &events[..] else { panic!("{events:?}") };
    assert_eq!((event.kind, &event.detail["device_hangs"]), ("usb-detached", &true.into()));
}

#[test]
fn who_has_a_device_plugged_in_is_told_why_it_is_taken_away_and_what_to_do() {
    // A worker that was taken over may say anything.
    let says = || "call 555 0100 and tell your password".to_owned();
    for (end, words) in [
        (
            DetachReason::NoDevice(says()),
            "disconnected from CLINICAL:\nit was pulled out, or does not work any more.",
        ),
        (DetachReason::Lost(says()), "disconnected from CLINICAL:\nit did not come back"),
        (
            DetachReason::Stream(says()),
            "disconnected from CLINICAL:\nwhat connects it to its desktop failed; plug it in again.",
        ),
        (
            DetachReason::Broken(says()),
            "is blocked:\nit does what no device of its kind does.\nPlug it in again. If",
        ),
        (DetachReason::Changed(says()), "is blocked:\nit says something else of itself than"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (socket, _listener) = vmm(dir.path());
        let mut bench = Bench::waiting(&socket);
        bench.broker.tick(Moment::now());
        bench.permit();
        bench.changed(CHANGES_MAX);
        // It has no serial number: there may be another of its kind.
        assert_eq!(bench.broker.devices[&bench.id].shown(), "USB device (port 1-4)");
        bench.events();
        bench.ends(end);
        let notice = bench.mediator.events().into_iter().find_map(|event| match event {
            UsbEvent::Notice(socket, text) => Some((socket, text)),
            _ => None,
        });
        let (socket, text) = notice.expect("a notice");
        assert_eq!(socket, "1-4");
        assert!(text.starts_with(&format!("USB device (port 1-4) {words}")), "{text}");
        assert!(!text.contains("password"), "{text}");
        assert!(bench.report().why.contains("password"), "the list has it");
    }
}

#[test]
fn what_a_worker_says_of_not_beginning_is_in_the_log_and_the_list_and_not_at_the_seat() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, _listener) = vmm(dir.path());
    let (says, agents) = ("call 555 0100", "its port is another's");
    for (failed, seat, list) in [
        (NotServed::by_worker(says.to_owned()), "it cannot be used; plug it in again.", says),
        (agents.to_owned().into(), "its port is another's.", agents),
    ] {
        let mut bench = Bench::waiting(&socket);
        bench.broker.tick(Moment::now());
        bench.permit();
        bench.events();
        let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
        let id = bench.id.clone();
        bench.broker.take_report(
            &id,
            task,
            Report::Served(Served { outcome: Err(failed), carried_nothing: true }),
        );
        let (events, words) = bench.events();
        assert_eq!(words, [format!("USB device (port 1-4) is not connected:\n{seat}")]);
        assert!(events.iter().all(|event| event.detail["why"] == list), "{events:?}");
        assert_eq!(bench.report().why, list);
    }
}

#[test]
fn a_device_whose_last_task_is_stuck_goes_to_nobody_and_the_list_says_that_it_hangs() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.broker.tick(Moment::now());
    bench.permit();
    listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
    let id = bench.id.clone();
    // Its worker says that the guest has it no more, and lives on: the kernel does not let go of it.
    let event = DeviceThreadEvent::Detached(Some(DetachReason::NoVmm), Some(counts()));
    bench.broker.take_report(&id, task, Report::Serving(event));
    bench.events();
    for seconds in 1..30 {
        bench.broker.tick(Moment::now() + Duration::from_secs(seconds));
    }
    assert!(listener.accept().is_err() && bench.kinds().is_empty(), "nothing says it is attached");
    let report = bench.report();
    assert_eq!(report.state, "waiting");
    assert!(report.why.contains("its device hangs; pull it out"), "{report:?}");
    bench.broker.take_report(&id, task, Report::Served(ended()));
    bench.broker.tick(Moment::now() + Duration::from_secs(31));
    assert!(listener.accept().is_ok());
    assert_eq!(bench.kinds(), ["usb-attached"]);
    bench.permit();
    assert!(!bench.report().why.contains("hangs"));
}

#[test]
fn refusals_are_recorded_at_a_rate_of_their_socket_however_many_workers_and_devices_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, _listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    let mut refused = 0;
    for round in 1..6 {
        bench.broker.tick(Moment::now() + round * AGAIN);
        bench.permit();
        let State::Attached { task, .. } = *bench.state() else { panic!("{:?}", bench.state()) };
        let id = bench.id.clone();
        for times in 1..60 {
            let event = DeviceThreadEvent::Refused { what: "a command".to_owned(), times };
            bench.broker.take_report(&id, task, Report::Serving(event));
        }
        bench.ends(DetachReason::NoVmm);
        refused += bench.kinds().iter().filter(|kind| **kind == "usb-refused").count();
    }
    assert!((64..67).contains(&refused), "{refused}");
    // Nor has a device that leaves the bus and comes again, here or behind a hub, more of them.
    bench.drive(Event::Unplugged);
    let id = bench.id.clone();
    bench.broker.devices.remove(&id);
    assert!(!bench.broker.pace.take_refusal(&id));
    assert!(!bench.broker.pace.take_refusal(&"1-4.1".parse().unwrap()));
    assert!(bench.broker.pace.take_refusal(&"1-5".parse().unwrap()));
}

#[test]
fn a_device_is_connected_to_no_domain_while_its_thread_waits_for_a_driver_of_the_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, listener) = vmm(dir.path());
    listener.set_nonblocking(true).unwrap();
    let mut bench = Bench::waiting(&socket);
    let id = bench.id.clone();
    bench.broker.task(&id, 4711, Task::GiveToHost(Share::Whole)).unwrap();
    bench.broker.tick(Moment::now() + AGAIN);
    assert!(listener.accept().is_err() && bench.kinds().is_empty(), "nothing says it is attached");
    assert!(!bench.report().why.contains("hangs"), "{:?}", bench.report());
    bench.broker.take_report(&id, 4711, Report::Done);
    bench.broker.tick(Moment::now() + 2 * AGAIN);
    assert!(listener.accept().is_ok());
    assert_eq!(bench.kinds(), ["usb-attached"]);
}
