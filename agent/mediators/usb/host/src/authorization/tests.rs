//! The switches, over a folder like the kernel's.
#![allow(clippy::unwrap_used)]

use super::*;
use usbsysfs::devices::testing::tree;

fn read(sysfs: &UsbDevices, file: &str) -> String {
    fs::read_to_string(sysfs.folder().join(file)).unwrap().trim().to_owned()
}

#[test]
fn the_switches_are_taken_and_put_back_as_they_were() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    let authorization = UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap();
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
    assert_eq!(read(&sysfs, "usb1/interface_authorized_default"), "0");
    let id: BusId = "1-4".parse().unwrap();
    authorization.grants().authorize(&id).unwrap();
    assert_eq!(
        (read(&sysfs, "1-4/authorized"), read(&sysfs, "1-4:1.0/authorized")),
        ("1".into(), "0".into())
    );
    admit(&sysfs, &id, &Share::Whole).unwrap();
    assert_eq!(read(&sysfs, "1-4:1.0/authorized"), "1");
    authorization.grants().deauthorize(&id).unwrap();
    assert_eq!(read(&sysfs, "1-4/authorized"), "0");
    authorization.restore();
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "1");
    assert_eq!(read(&sysfs, "usb1/interface_authorized_default"), "1");
    assert_eq!(read(&sysfs, "1-4/authorized"), "1", "the host has it again");
    assert!(!file.exists());
}

#[test]
fn of_a_keyboard_with_a_card_reader_the_host_gets_the_keyboard_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (devices, probe) = (dir.path().join("devices"), dir.path().join("drivers_probe"));
    for (name, authorised) in [("1-4.2", "1"), ("1-4.2:1.0", "0"), ("1-4.2:1.1", "0")] {
        fs::create_dir_all(devices.join(name)).unwrap();
        fs::write(devices.join(name).join("authorized"), authorised).unwrap();
    }
    let sysfs = UsbDevices::at(&devices);
    let (grants, id) = (Grants(sysfs.clone()), "1-4.2".parse::<BusId>().unwrap());
    let part = |numbers: [u8; 1]| Share::Interfaces(numbers.into());
    let both =
        || ["1-4.2:1.0", "1-4.2:1.1"].map(|name| read(&sysfs, &format!("{name}/authorized")));
    grants.give_to_host(&id, &part([0])).unwrap();
    assert_eq!(both(), ["1", "0"]);
    assert_eq!(fs::read_to_string(&probe).unwrap(), "1-4.2:1.0");
    // The reader is admitted for usbfs, and let go.
    admit(&sysfs, &id, &part([1])).unwrap();
    assert_eq!(both(), ["1", "1"]);
    withdraw(&sysfs, &id, &part([1])).unwrap();
    assert_eq!(both(), ["1", "0"]);
    let all_driven = |share| sysfs.drivers(&id, &share).unwrap().all;
    assert!(!all_driven(part([0])));
    let driver = dir.path().join("drivers/usbhid");
    fs::create_dir_all(&driver).unwrap();
    std::os::unix::fs::symlink(&driver, devices.join("1-4.2:1.0/driver")).unwrap();
    assert!(all_driven(part([0])) && !all_driven(Share::Whole));
}

#[test]
fn after_a_killed_agent_the_next_one_knows_what_they_were_before_it() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    std::mem::forget(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
    UsbAuthorization::acquire(sysfs.clone(), file).unwrap().restore();
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "1");
}

#[test]
fn what_ends_without_a_word_leaves_no_device_to_the_hosts_drivers() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    drop(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
    assert_eq!(read(&sysfs, "1-4/authorized"), "0");
    assert!(file.exists(), "the next agent knows");
}

#[test]
fn an_agent_that_cannot_take_a_switch_puts_back_its_own_and_no_earlier_ones() {
    for earlier in [false, true] {
        let (dir, sysfs) = tree();
        let file = dir.path().join("before.json");
        if earlier {
            drop(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
        }
        // A switch that can be read and not written.
        fs::create_dir(dir.path().join("usb2")).unwrap();
        let switch = dir.path().join("usb2/authorized_default");
        std::os::unix::fs::symlink("/proc/self/statm", &switch).unwrap();
        UsbAuthorization::acquire(sysfs.clone(), file).unwrap_err();
        let expected = if earlier { "0" } else { "1" };
        assert_eq!(read(&sysfs, "usb1/authorized_default"), expected);
    }
}

#[test]
fn a_broker_that_fails_leaves_no_device_to_the_hosts_drivers() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    let (ours, kept) = (sysfs.clone(), file.clone());
    let died = std::thread::spawn(move || {
        let _authorization = UsbAuthorization::acquire(ours, kept).unwrap();
        panic!("a fault of ours");
    });
    died.join().unwrap_err();
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
    assert_eq!(read(&sysfs, "1-4/authorized"), "0");
    UsbAuthorization::acquire(sysfs.clone(), file).unwrap().restore();
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "1", "the next agent knows");
}

#[test]
fn a_controller_that_comes_later_has_no_moment_without() {
    let dir = tempfile::tempdir().unwrap();
    let (devices, module) =
        (dir.path().join("bus/usb/devices"), dir.path().join("module/usbcore/parameters"));
    for folder in [&devices.join("usb1"), &module] {
        fs::create_dir_all(folder).unwrap();
    }
    let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
    write(module.join("authorized_default"), "-1\n");
    write(devices.join("usb1/authorized_default"), "2\n");
    let sysfs = UsbDevices::at(&devices);
    let parameter = || fs::read_to_string(module.join("authorized_default")).unwrap();
    let mut authorization =
        UsbAuthorization::acquire(sysfs.clone(), dir.path().join("before.json")).unwrap();
    assert_eq!(parameter(), "0");
    // The kernel has given it what the module says.
    fs::create_dir(devices.join("usb2")).unwrap();
    write(devices.join("usb2/authorized_default"), "0\n");
    authorization.apply_to_new_controllers().unwrap();
    authorization.restore();
    assert_eq!(parameter(), "-1");
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "2");
    assert_eq!(read(&sysfs, "usb2/authorized_default"), "1", "as it would have come by itself");
}

fn controller(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let folder = dir.path().join(name);
    fs::create_dir(&folder).unwrap();
    for switch in SWITCHES {
        fs::write(folder.join(switch), "1\n").unwrap();
    }
    folder
}

#[test]
fn one_controller_that_cannot_be_switched_leaves_no_later_one_open() {
    let (dir, sysfs) = tree();
    let mut authorization =
        UsbAuthorization::acquire(sysfs.clone(), dir.path().join("before.json")).unwrap();
    let [broken, later] = ["usb2", "usb3"].map(|name| controller(&dir, name));
    // It can be read and not written.
    fs::remove_file(broken.join(SWITCHES[1])).unwrap();
    std::os::unix::fs::symlink("/proc/self/statm", broken.join(SWITCHES[1])).unwrap();
    let id: BusId = "2-1".parse().unwrap();
    assert!(authorization.apply_to_new_controllers().is_err());
    assert_eq!(read(&sysfs, "usb2/authorized_default"), "0");
    assert_eq!(read(&sysfs, "usb3/interface_authorized_default"), "0");
    assert!(!authorization.keeps_drivers_off(&id), "nothing behind it is taken up");
    assert!(authorization.keeps_drivers_off(&"3-1.2".parse().unwrap()));
    let authorised = dir.path().join("2-1/authorized");
    fs::create_dir(dir.path().join("2-1")).unwrap();
    fs::write(&authorised, "0").unwrap();
    assert!(authorization.grants().authorize(&id).is_err());
    assert_eq!(fs::read_to_string(&authorised).unwrap(), "0");
    // It takes it after all.
    fs::remove_file(broken.join(SWITCHES[1])).unwrap();
    fs::write(broken.join(SWITCHES[1]), "1\n").unwrap();
    authorization.apply_to_new_controllers().unwrap();
    authorization.grants().authorize(&id).unwrap();
    assert_eq!(fs::read_to_string(&authorised).unwrap(), "1");
    // One that goes between two looks is no error.
    fs::remove_dir_all(later).unwrap();
    authorization.apply_to_new_controllers().unwrap();
}

#[test]
fn controllers_are_switched_though_nothing_can_be_kept_and_that_is_made_up_for() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    let mut authorization = UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap();
    controller(&dir, "usb2");
    // What takes the new content's place cannot be removed, as nothing can be written where no room is left.
    let fresh = durable::fresh(&file);
    fs::create_dir(&fresh).unwrap();
    let kept = fs::read(&file).unwrap();
    assert!(authorization.apply_to_new_controllers().is_err());
    assert_eq!(read(&sysfs, "usb2/interface_authorized_default"), "0");
    assert_eq!(fs::read(&file).unwrap(), kept, "it says what it said");
    fs::remove_dir(&fresh).unwrap();
    authorization.apply_to_new_controllers().unwrap();
    drop(authorization);
    UsbAuthorization::acquire(sysfs.clone(), file).unwrap().restore();
    for switch in ["usb1", "usb2"].map(|root| format!("{root}/interface_authorized_default")) {
        assert_eq!(read(&sysfs, &switch), "1", "{switch}");
    }
}

#[test]
fn an_agent_that_cannot_keep_what_the_switches_were_changes_none() {
    let (dir, sysfs) = tree();
    let file = dir.path().join("before.json");
    fs::create_dir(durable::fresh(&file)).unwrap();
    let refused = UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap_err();
    assert!(matches!(refused, SwitchError::Keep { .. }), "{refused}");
    assert_eq!(read(&sysfs, "usb1/authorized_default"), "1");
    assert!(!file.exists(), "the next one takes nothing for what was before");
}

#[test]
fn a_controller_that_comes_later_is_taken_too() {
    let (dir, sysfs) = tree();
    let mut authorization =
        UsbAuthorization::acquire(sysfs.clone(), dir.path().join("before.json")).unwrap();
    fs::create_dir(dir.path().join("usb2")).unwrap();
    fs::write(dir.path().join("usb2/authorized_default"), "1\n").unwrap();
    authorization.apply_to_new_controllers().unwrap();
    assert_eq!(read(&sysfs, "usb2/authorized_default"), "0");
    authorization.restore();
    assert_eq!(read(&sysfs, "usb2/authorized_default"), "1");
}
