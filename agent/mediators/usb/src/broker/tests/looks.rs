//! What a look finds, and what it takes for found.

use super::*;
use crate::lifecycle::{READ_FOR_LONG, READ_WITHIN};

#[test]
fn a_look_without_descriptors_takes_no_device_for_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, _listener) = vmm(dir.path());
    let mut bench = Bench::waiting(&socket);
    bench.broker.tick(Moment::now());
    bench.permit();
    bench.events();
    let kept = |bench: &Bench| matches!(bench.state(), State::Attached { .. });
    for _ in 0..3 {
        bench.broker.look_at = Moment::now() + LOOK;
        bench.broker.look_at(Err(io::Error::from(Errno::EMFILE)), None);
        assert!(kept(&bench) && bench.kinds().is_empty());
        assert!(bench.broker.look_at <= Moment::now() + AGAIN, "the next look is soon");
    }
    // What is there and cannot be read is not gone either.
    let folder = bench.dir.path().join("devices/1-4/devnum");
    fs::create_dir_all(&folder).unwrap();
    bench.broker.look();
    assert!(kept(&bench) && bench.kinds().is_empty());
    fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    bench.broker.look();
    assert!(!kept(&bench), "it was pulled out");
}

#[test]
fn a_look_without_descriptors_takes_no_keyboard_for_one_that_lost_its_driver() {
    let mut bench = Bench::new("");
    bench.read(identity(&KEYBOARD, "Keyboard"));
    bench.idle();
    bench.told();
    // No driver is bound in this folder, and whether one is cannot be seen.
    bench.broker.look_at(Err(io::Error::from(Errno::EMFILE)), None);
    assert_eq!(bench.told(), Vec::<String>::new());
    bench.broker.look_at_keyboards();
    assert_eq!(bench.told(), ["give {0}"]);
}

#[test]
fn a_device_behind_a_controller_that_was_not_switched_is_taken_up_when_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let devices = dir.path().join("devices");
    let mut bench = Bench::over(setup(dir.path(), Vec::new()), dir);
    let [new, other]: [BusId; 2] = ["2-1", "3-1"].map(|id| id.parse().unwrap());
    let tasks = [&new, &other].map(|id| thread_of(&mut bench.broker, id));
    for root in ["usb2", "usb3"] {
        fs::create_dir(devices.join(root)).unwrap();
        fs::write(devices.join(root).join("authorized_default"), "0").unwrap();
    }
    // A switch that can be read and not written, and a controller behind it that can be switched.
    let switch = devices.join("usb2/interface_authorized_default");
    std::os::unix::fs::symlink("/proc/self/statm", &switch).unwrap();
    fs::write(devices.join("usb3/interface_authorized_default"), "1").unwrap();
    plug(&devices, "2-1", &READER, false);
    plug(&devices, "3-1", &KEYBOARD, false);
    bench.broker.look();
    assert!(!bench.broker.devices.contains_key(&new) && tasks[0].try_recv().is_err());
    assert!(matches!(tasks[1].try_recv(), Ok((_, Task::Read))), "another controller's is taken up");
    let kept = fs::read_to_string(devices.join("usb3/interface_authorized_default")).unwrap();
    assert_eq!(kept, "0");
    assert!(bench.broker.look_at <= Moment::now() + AGAIN);
    fs::remove_file(&switch).unwrap();
    fs::write(&switch, "1").unwrap();
    // Where nothing was taken up there is no thread any more.
    let tasks = thread_of(&mut bench.broker, &new);
    bench.broker.look();
    assert!(matches!(tasks.try_recv(), Ok((_, Task::Read))));
    assert_eq!(fs::read_to_string(&switch).unwrap(), "0");
}

#[test]
fn a_device_whose_reading_does_not_end_is_said_to_hang_once_and_taken_up_when_it_ends() {
    for (leaving, state) in [(false, "reading"), (true, "off")] {
        let mut bench = Bench::new("");
        let id = bench.id.clone();
        if leaving {
            bench.broker.command(Command::Detach(id.clone(), None));
        }
        bench.broker.tick(Moment::now() + READ_WITHIN / 2);
        assert!(bench.events().0.is_empty() && !bench.report().why.contains("hangs"));
        let deadline = bench.broker.devices[&id].lifecycle.deadline().expect("it is watched");
        assert!(deadline <= Moment::now() + READ_WITHIN);
        for _ in 0..3 {
            bench.broker.tick(Moment::now() + READ_WITHIN);
        }
        let (events, words) = bench.events();
        let [event] = &events[..] else { panic!("{events:?}") };
        assert_eq!((event.kind, &event.detail["why"]), ("usb-unreadable", &READ_FOR_LONG.into()));
        assert_eq!(words.len(), 1, "{words:?}");
        assert_eq!(bench.report().state, state);
        assert!(leaving || bench.report().why == READ_FOR_LONG);
        assert!(bench.told().is_empty(), "it may be the seat's, or what the host runs from");
        // It was the seat's keyboard, behind what hung at this place before.
        bench.read(identity(&KEYBOARD, "Keyboard"));
        assert_eq!((bench.report().state, bench.told()), ("host".into(), vec!["give all".into()]));
    }
}
