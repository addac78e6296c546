use super::*;
use crate::fake::FakePc;

const KEYBOARD: &str = "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe";
const MOUSE: &str = "ff0000 0 0 0 0";
/// Play, volume: a headset's buttons at a sound card.
const HEADSET: &str = "40 0 0 1 0 0 0 0 0 0 0 0 0";

fn look(pc: &FakePc, screen: &Screen) -> HostUse {
    HostUse::look(&pc.sysfs(), screen, &[]).unwrap()
}

#[test]
fn the_controller_of_a_mounted_disk_is_found_through_partitions_lvm_raid_and_btrfs() {
    let pc = FakePc::new();
    let at =
        |function: u8| pc.add(&format!("0000:03:00.{function}"), 0x01_0601, Some("ahci"), None);
    let (plain, lvm, raid, btrfs, idle) = (at(0), at(1), at(2), at(3), at(4));
    pc.add_disk(plain, "sda/sda1", "8:1");
    let below = pc.add_disk(lvm, "sdb/sdb2", "8:18");
    pc.add_virtual_disk("dm-0", "254:0", &[&below]);
    let one = pc.add_disk(raid, "sdc", "8:32");
    let md = pc.add_virtual_disk("md0", "9:0", &[&one]);
    pc.add_virtual_disk("dm-1", "254:1", &[&md]);
    let subvolume = pc.add_disk(btrfs, "sdd", "8:48");
    let devices = pc.sysfs().path("fs/btrfs/5d2c/devices");
    fs::create_dir_all(&devices).unwrap();
    std::os::unix::fs::symlink(subvolume, devices.join("sdd")).unwrap();
    pc.add_disk(idle, "sde", "8:64");
    pc.mounts(
        "24 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
         25 24 254:0 / /var rw - xfs /dev/mapper/vg-var rw\n\
         26 24 254:1 / /srv rw - ext4 /dev/mapper/vg-srv rw\n\
         27 24 0:21 / /proc rw - proc proc rw\n\
         nonsense\n",
    );
    let found = look(&pc, &Screen::None);
    assert_eq!(found.of(plain), ["the disk mounted on /"]);
    assert_eq!(found.of(lvm), ["the disk mounted on /var"]);
    assert_eq!(found.of(raid), ["the disk mounted on /srv"]);
    assert_eq!(found.of(btrfs), ["the disk mounted on a btrfs file system"]);
    assert_eq!(found.of(idle), [""; 0]);
}

#[test]
fn a_disk_with_a_number_of_its_own_and_one_that_is_swapped_to_are_found_by_their_nodes() {
    let pc = FakePc::new();
    let nvme = pc.add("0000:03:00.0", 0x01_0802, Some("nvme"), None);
    let usb = pc.add("0000:00:14.0", 0x0c_0330, Some("xhci_hcd"), None);
    pc.add_disk(nvme, "nvme0n1/nvme0n1p3", "259:3");
    pc.add_disk(usb, "sdz/sdz1", "65:145");
    pc.mounts("24 1 0:25 /root / rw - btrfs /dev/nvme0n1p3 rw\n");
    fs::write(
        pc.sysfs().proc("swaps"),
        "Filename\tType\tSize\tUsed\tPriority\n/dev/sdz1 partition 1 0 -2\n",
    )
    .unwrap();
    let found = look(&pc, &Screen::None);
    assert_eq!(found.of(nvme), ["the disk mounted on /"]);
    assert_eq!(found.of(usb), ["the swap on /dev/sdz1"], "a stick's controller is one too");
}

#[test]
fn an_nvme_disk_with_several_paths_is_found_behind_each_of_its_controllers() {
    let pc = FakePc::new();
    let nvme = pc.add("0000:03:00.0", 0x01_0802, Some("nvme"), None);
    let controller = pc.sysfs().pci_device(nvme).join("nvme/nvme0");
    fs::create_dir_all(&controller).unwrap();
    let subsystem = pc.sysfs().path("devices/virtual/nvme-subsystem/nvme-subsys0");
    let disk = subsystem.join("nvme0n1");
    fs::create_dir_all(&disk).unwrap();
    std::os::unix::fs::symlink(controller, subsystem.join("nvme0")).unwrap();
    fs::create_dir_all(pc.sysfs().path("dev/block")).unwrap();
    std::os::unix::fs::symlink(disk, pc.sysfs().path("dev/block/259:0")).unwrap();
    pc.mounts("24 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    assert_eq!(look(&pc, &Screen::None).of(nvme), ["the disk mounted on /"]);
}

#[test]
fn block_devices_that_are_made_of_each_other_end_the_search() {
    let pc = FakePc::new();
    let disk = pc.add_virtual_disk("dm-0", "254:0", &[]);
    std::os::unix::fs::symlink(&disk, disk.join("slaves/dm-0")).unwrap();
    pc.mounts("24 1 254:0 / / rw - ext4 /dev/dm-0 rw\n");
    look(&pc, &Screen::None);
}

#[test]
fn the_seats_card_is_the_named_one_or_each_that_has_a_screen() {
    let pc = FakePc::new();
    let inner = pc.add("0000:00:02.0", 0x03_0000, Some("i915"), None);
    let extra = pc.add("0000:01:00.0", 0x03_0000, Some("amdgpu"), None);
    pc.add_card(inner, "card0", "connected");
    pc.add_card(extra, "card1", "disconnected");
    let seat = ["the seat's screen (card0)"];
    let found = look(&pc, &Screen::First);
    assert_eq!((found.of(inner), found.of(extra)), (seat.map(str::to_owned).to_vec(), vec![]));
    let found = look(&pc, &Screen::Card("/dev/dri/card1".into()));
    assert_eq!(found.of(extra), ["the seat's screen (card1)"]);
    assert!(found.of(inner).is_empty(), "another desktop may have the one that is not the seat's");
    // A screen that is switched off: what the firmware showed its menu on.
    pc.set(extra, "boot_vga", Some("1\n"));
    assert_eq!(look(&pc, &Screen::First).of(extra), ["the seat's screen (card1)"]);
    assert!(look(&pc, &Screen::None).of(inner).is_empty());
}

#[test]
fn the_controllers_of_keyboard_and_pointer_are_the_seats_and_a_sound_cards_buttons_are_not() {
    let pc = FakePc::new();
    let usb = pc.add("0000:00:14.0", 0x0c_0330, Some("xhci_hcd"), None);
    let other = pc.add("0000:00:1a.0", 0x0c_0320, Some("ehci-pci"), None);
    let sound = pc.add("0000:00:1f.3", 0x04_0300, Some("snd_hda_intel"), None);
    pc.add_input(usb, "event3", "Dell \u{1b}KB216", KEYBOARD);
    pc.add_input(other, "event4", "Logitech Mouse", MOUSE);
    pc.add_input(sound, "event5", "HDA Intel PCH Headset", HEADSET);
    let found = look(&pc, &Screen::First);
    let said = found.of(usb);
    assert!(said[0].contains("KB216") && !said[0].contains('\u{1b}'), "{said:?}");
    assert_eq!(found.of(other), ["the seat's keyboard or pointer (Logitech Mouse)"]);
    assert!(found.of(sound).is_empty());
    assert!(look(&pc, &Screen::None).of(usb).is_empty());
}

#[test]
fn a_pc_whose_mounts_cannot_be_read_is_not_taken_for_one_without_disks() {
    let pc = FakePc::new();
    fs::remove_file(pc.sysfs().proc("self/mountinfo")).unwrap();
    assert!(HostUse::look(&pc.sysfs(), &Screen::None, &[]).is_err());
}

/// Makes something that is there and cannot be read, whoever reads it: a folder where a file should be, or the other way round.
fn break_up(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    if path.exists() && path.is_dir() {
        fs::remove_dir_all(path).unwrap();
        fs::write(path, "").unwrap();
    } else {
        let _ = fs::remove_file(path);
        fs::create_dir(path).unwrap();
    }
}

#[test]
fn what_is_there_and_cannot_be_read_is_not_taken_for_nothing_and_is_named() {
    for file in ["proc/1/mountinfo", "proc/swaps"] {
        let pc = FakePc::new();
        look(&pc, &Screen::First);
        break_up(&pc.dir.path().join(file));
        let error = HostUse::look(&pc.sysfs(), &Screen::First, &[]).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
    }
    for folder in ["fs/btrfs", "class/drm", "class/input", "bus/usb/devices"] {
        let pc = FakePc::new();
        let path = pc.sysfs().path(folder);
        fs::create_dir_all(&path).unwrap();
        look(&pc, &Screen::First);
        break_up(&path);
        let error = HostUse::look(&pc.sysfs(), &Screen::First, &[]).unwrap_err().to_string();
        assert!(error.contains(folder), "{error}");
    }
}

#[test]
fn a_proc_that_hides_the_first_process_hides_what_is_mounted() {
    let pc = FakePc::new();
    let hiding = "27 24 0:21 / /proc rw - proc proc rw,hidepid=invisible\n";
    pc.mounts(hiding);
    let error = HostUse::look(&pc.sysfs(), &Screen::None, &[]).unwrap_err().to_string();
    assert!(error.contains("hidepid"), "{error}");
    // One that is shown to whoever may trace it.
    fs::create_dir_all(pc.sysfs().proc("1")).unwrap();
    fs::write(pc.sysfs().proc("1/mountinfo"), hiding).unwrap();
    look(&pc, &Screen::None);
}

#[test]
fn swap_on_a_file_whose_name_is_no_text_hides_no_other_swap() {
    let pc = FakePc::new();
    let nvme = pc.add("0000:03:00.0", 0x01_0802, Some("nvme"), None);
    pc.add_disk(nvme, "nvme0n1/nvme0n1p3", "259:3");
    let swaps = b"Filename\tType\n/swap\xff file 1 0 -2\n/dev/nvme0n1p3 partition 1 0 -3\n";
    fs::write(pc.sysfs().proc("swaps"), swaps).unwrap();
    assert_eq!(look(&pc, &Screen::None).of(nvme), ["the swap on /dev/nvme0n1p3"]);
}
