use super::*;
use crate::Role;
use crate::fake::FakePc;
use crate::pins::Pins;

fn handover(pc: &FakePc) -> Handover {
    let record = pc.dir.path().join("handover.json");
    Handover::open(pc.sysfs(), &record, &record.with_extension("fallback")).unwrap()
}

fn as_nic(address: PciAddress) -> ClaimedFunction {
    ClaimedFunction { address, role: Role::Nic, pins: Pins::default() }
}

fn returned(driver: &str) -> ReturnOutcome {
    ReturnOutcome { reset: true, driver: Some(driver.to_owned()) }
}

#[test]
fn a_nic_goes_to_vfio_pci_and_comes_back_reset_to_its_own_driver() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    handover.take(&as_nic(nic), "clinical").unwrap();
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    pc.kernel.writes.lock().unwrap().clear();
    assert_eq!(handover.give_back(nic, "clinical").unwrap(), returned("e1000e"));
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
    let writes = pc.kernel.writes.lock().unwrap().clone();
    assert_eq!(writes, ["reset=1", "unbind=0000:00:05.0", "driver_override=", "bind=0000:00:05.0"]);
    assert!(handover.handed_over().is_empty());
}

#[test]
fn an_agent_that_died_leaves_enough_for_the_next_one_to_give_back() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    handover(&pc).take(&as_nic(nic), "clinical").unwrap();
    let next = handover(&pc);
    assert_eq!(next.handed_over()[&nic].driver.as_deref(), Some("e1000e"));
    next.take(&as_nic(nic), "clinical").unwrap();
    assert_eq!(next.give_back(nic, "clinical").unwrap(), returned("e1000e"));
}

#[test]
fn the_record_is_on_the_disk_before_anything_changes() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let record = pc.dir.path().join("missing/handover.json");
    let handover = Handover::open(pc.sysfs(), &record, &record.with_extension("fallback")).unwrap();
    let error = handover.take(&as_nic(nic), "clinical").unwrap_err();
    assert!(matches!(error, HandoverError::Record { .. }), "{error}");
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
}

#[test]
fn a_nic_is_handed_over_and_back_on_a_pc_whose_state_cannot_be_written() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let record = pc.dir.path().join("missing/handover.json");
    let fallback = pc.dir.path().join("handover.json");
    let open = || Handover::open(pc.sysfs(), &record, &fallback).unwrap();
    open().take(&as_nic(nic), "clinical").unwrap();
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    // The next agent knows of it, and the record is in its place again once that can be written.
    std::fs::create_dir(record.parent().unwrap()).unwrap();
    let next = open();
    assert_eq!(next.handed_over()[&nic].driver.as_deref(), Some("e1000e"));
    assert_eq!(next.give_back(nic, "clinical").unwrap(), returned("e1000e"));
    assert!(!fallback.exists() && open().handed_over().is_empty());
}

#[test]
fn an_absent_device_a_missing_iommu_and_a_shared_group_are_refused_by_name() {
    let pc = FakePc::new();
    let lonely = pc.add("0000:00:04.0", 0x02_0000, None, None);
    let nic = pc.add_nic("0000:00:05.0", 7);
    let neighbour = pc.add("0000:00:05.1", 0x01_0601, Some("ahci"), Some(7));
    let handover = handover(&pc);
    let says = |address, word: &str| {
        let error = handover.take(&as_nic(address), "clinical").unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says("0000:00:1f.0".parse().unwrap(), "lspci -D");
    says(lonely, "no IOMMU group");
    says(nic, &format!("{neighbour} (disk controller, 8086:10d3, driver ahci)"));
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
}

#[test]
fn a_bridge_in_the_group_is_no_neighbour() {
    let pc = FakePc::new();
    pc.add("0000:00:1c.0", 0x06_0400, Some("pcieport"), Some(7));
    let nic = pc.add_nic("0000:01:00.0", 7);
    handover(&pc).take(&as_nic(nic), "clinical").unwrap();
}

#[test]
fn a_driver_that_does_not_let_go_is_named_and_not_pushed_again_until_it_has() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.holds_on("e1000e");
    let deadline = Duration::from_secs(3);
    let handover = handover(&pc).with_deadline(deadline);
    let refused = || {
        let error = handover.take(&as_nic(nic), "clinical").unwrap_err().to_string();
        assert!(error.contains("driver e1000e does not let go"), "{error}");
    };
    refused();
    let start = Moment::now();
    refused();
    assert!(start.elapsed() < deadline, "the second attempt does not wait");
    let writes = pc.kernel.writes.lock().unwrap().clone();
    assert_eq!(writes.iter().filter(|write| write.starts_with("unbind")).count(), 1);
    pc.lets_go();
    while pc.driver(nic).is_some() {
        thread::sleep(POLL);
    }
    // The write that was held returns a moment after the driver is gone.
    let until = Moment::now() + DRIVER_DEADLINE;
    while handover.take(&as_nic(nic), "clinical").is_err() {
        assert!(Moment::now() < until);
        thread::sleep(POLL);
    }
    assert_eq!(handover.give_back(nic, "clinical").unwrap(), returned("e1000e"));
}

#[test]
fn a_hand_over_that_fails_leaves_the_nic_with_its_driver_and_no_record() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.refuses("vfio-pci");
    let handover = handover(&pc);
    handover.take(&as_nic(nic), "clinical").unwrap_err();
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
    assert!(handover.handed_over().is_empty());
}

#[test]
fn a_kernel_without_vfio_pci_is_told_apart_from_a_stubborn_one() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.has_no_modules();
    let error = handover(&pc).take(&as_nic(nic), "clinical").unwrap_err();
    assert!(matches!(error, HandoverError::NoVfioPci(_)), "{error}");
}

#[test]
fn a_nic_that_does_not_reset_is_kept_from_the_host() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    handover.take(&as_nic(nic), "clinical").unwrap();
    pc.does_not_reset();
    let error = handover.give_back(nic, "clinical").unwrap_err();
    assert!(matches!(error, HandoverError::NotReset { .. }), "{error}");
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    assert!(handover.handed_over().contains_key(&nic));
}

#[test]
fn a_nic_without_a_driver_or_already_with_vfio_pci_goes_back_to_none() {
    let pc = FakePc::new();
    let bare = pc.add("0000:00:05.0", 0x02_0000, None, Some(7));
    let bound = pc.add("0000:00:06.0", 0x02_0000, Some("vfio-pci"), Some(8));
    let handover = handover(&pc);
    for nic in [bare, bound] {
        handover.take(&as_nic(nic), "clinical").unwrap();
        assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
        handover.give_back(nic, "clinical").unwrap();
        assert_eq!(pc.driver(nic), None);
    }
}

#[test]
fn a_nic_that_was_reserved_before_it_had_a_driver_goes_to_the_hosts_driver_for_it() {
    let pc = FakePc::new();
    let nic = pc.add("0000:00:05.0", 0x02_0000, None, Some(7));
    assert!(crate::reserve::reserve(&as_nic(nic), &pc.sysfs()).unwrap());
    pc.has_driver_for(nic, "e1000e");
    let handover = handover(&pc);
    handover.take(&as_nic(nic), "clinical").unwrap();
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    assert_eq!(handover.give_back(nic, "clinical").unwrap(), returned("e1000e"));
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
    assert_eq!(pc.sysfs().inspect(nic).unwrap().driver_override, None);
}

#[test]
fn giving_back_what_was_never_taken_or_twice_changes_nothing() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    assert!(!handover.give_back(nic, "clinical").unwrap().reset);
    handover.take(&as_nic(nic), "clinical").unwrap();
    handover.give_back(nic, "clinical").unwrap();
    pc.kernel.writes.lock().unwrap().clear();
    handover.give_back(nic, "clinical").unwrap();
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
}

#[test]
fn a_nic_that_another_domain_still_has_is_neither_taken_from_it_nor_given_back_for_it() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    handover(&pc).take(&as_nic(nic), "clinical").unwrap();
    // The machine file gives it to the other one since.
    let next = handover(&pc);
    pc.kernel.writes.lock().unwrap().clear();
    let error = next.take(&as_nic(nic), "internet").unwrap_err();
    assert!(error.to_string().contains("is still clinical's"), "{error}");
    assert_eq!(next.give_back(nic, "internet").unwrap().driver.as_deref(), Some("vfio-pci"));
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
    assert_eq!(next.handed_over()[&nic].domain, "clinical");
    next.give_back(nic, "clinical").unwrap();
    next.take(&as_nic(nic), "internet").unwrap();
    assert_eq!(next.handed_over()[&nic].domain, "internet");
    // Nobody has anything from before a boot.
    std::fs::write(pc.sysfs().proc("sys/kernel/random/boot_id"), "second\n").unwrap();
    next.take(&as_nic(nic), "clinical").unwrap();
}

#[test]
fn who_gives_a_nic_back_and_who_takes_it_are_at_it_one_after_the_other() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    handover.take(&as_nic(nic), "clinical").unwrap();
    pc.holds_on("vfio-pci");
    thread::scope(|scope| {
        let back = scope.spawn(|| handover.give_back(nic, "clinical"));
        while pc.kernel.writes.lock().unwrap().last().is_none_or(|w| !w.starts_with("unbind")) {
            thread::sleep(POLL);
        }
        let taken = scope.spawn(|| handover.take(&as_nic(nic), "internet"));
        thread::sleep(POLL * 10);
        assert!(!taken.is_finished());
        pc.lets_go();
        back.join().unwrap().unwrap();
        taken.join().unwrap().unwrap();
    });
    assert_eq!(handover.handed_over()[&nic].domain, "internet");
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
}

/// Lenovo's AMD business PCs: a Realtek NIC with its DASH functions.
const DASH: &str = "
11 0000:02:00.0 020000 r8169
11 0000:02:00.1 070002 serial
11 0000:02:00.2 070002 serial
11 0000:02:00.3 0c0701 -
11 0000:02:00.4 0c0320 ehci-pci";

#[test]
fn the_rest_of_a_harmless_group_goes_to_vfio_pci_with_the_nic_and_comes_back_with_it() {
    let pc = FakePc::new();
    pc.add_group(DASH);
    let at = |text: &str| text.parse::<PciAddress>().unwrap();
    let nic = at("0000:02:00.0");
    let others: Vec<PciAddress> = (1..5).map(|n| at(&format!("0000:02:00.{n}"))).collect();
    let handover = handover(&pc);
    assert_eq!(handover.take(&as_nic(nic), "clinical").unwrap(), others);
    for address in others.iter().chain([&nic]) {
        assert_eq!(pc.driver(*address).as_deref(), Some("vfio-pci"), "{address}");
    }
    // The next agent knows what goes with what.
    let next = self::handover(&pc);
    assert!(others.iter().all(|a| next.handed_over()[a].companion_of() == Some(nic)));
    assert_eq!(next.take(&as_nic(nic), "clinical").unwrap(), [], "they are there already");
    next.give_back(nic, "clinical").unwrap();
    let drivers: Vec<_> = others.iter().map(|address| pc.driver(*address)).collect();
    let expected = [Some("serial"), Some("serial"), None, Some("ehci-pci")];
    assert_eq!(drivers.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
    assert_eq!(pc.driver(nic).as_deref(), Some("r8169"));
    assert!(next.handed_over().is_empty());
}

#[test]
fn a_hand_over_that_fails_halfway_puts_the_rest_of_the_group_back() {
    let pc = FakePc::new();
    pc.add_group(DASH);
    pc.holds_on("r8169");
    let handover = handover(&pc).with_deadline(Duration::from_millis(300));
    handover.take(&as_nic("0000:02:00.0".parse().unwrap()), "clinical").unwrap_err();
    for (function, driver) in [(1, Some("serial")), (3, None), (4, Some("ehci-pci"))] {
        let address = format!("0000:02:00.{function}").parse().unwrap();
        assert_eq!(pc.driver(address).as_deref(), driver, "{address}");
    }
    pc.lets_go();
}

/// What a machine file's address names after a card was added and bus numbers moved.
const WHAT_MAY_BE_THERE: [(u32, &str); 6] = [
    (0x01_0802, "nvme"),
    (0x01_0601, "ahci"),
    (0x03_0000, "i915"),
    (0x0c_0330, "xhci_hcd"),
    (0x06_0100, "lpc_ich"),
    (0x06_0400, "pcieport"),
];

#[test]
fn a_nic_that_is_no_network_controller_is_refused_before_anything_is_unbound() {
    for (class, driver) in WHAT_MAY_BE_THERE {
        let pc = FakePc::new();
        let address = pc.add("0000:03:00.0", class, Some(driver), Some(7));
        let error = handover(&pc).take(&as_nic(address), "clinical").unwrap_err();
        assert!(matches!(error, HandoverError::Refused(_)), "{error}");
        assert_eq!(pc.driver(address).as_deref(), Some(driver));
        assert!(pc.kernel.writes.lock().unwrap().is_empty());
    }
}

#[test]
fn what_the_pc_lives_from_is_refused_as_any_device_before_anything_is_unbound() {
    for (class, driver) in WHAT_MAY_BE_THERE {
        let pc = FakePc::new();
        let address = pc.add("0000:03:00.0", class, Some(driver), Some(7));
        pc.add_disk(address, "sda/sda1", "8:1");
        if class >> 16 == 1 {
            pc.mounts("24 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n");
        }
        pc.add_card(address, "card0", "connected");
        pc.add_input(
            address,
            "event3",
            "Dell KB216",
            "1000000000007 ff9f207ac14057ff febeffdfffefffff fffffffffffffffe",
        );
        let screen = crate::host_use::Screen::First;
        let claims = Claims { screen, ..Claims::default() };
        let handover = handover(&pc).with_claims(claims);
        let wanted = ClaimedFunction { role: Role::Device, ..as_nic(address) };
        let error = handover.take(&wanted, "clinical").unwrap_err();
        assert!(matches!(error, HandoverError::Refused(_)), "{error}");
        assert_eq!(pc.driver(address).as_deref(), Some(driver), "{error}");
        assert!(pc.kernel.writes.lock().unwrap().is_empty() && handover.handed_over().is_empty());
    }
}

#[test]
fn a_nic_that_moved_is_not_taken_for_the_one_that_was_pinned() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 7);
    pc.add_interface(nic, "enp3s0", "52:54:00:00:00:01");
    let other = pc.add_nic("0000:04:00.0", 8);
    pc.add_interface(other, "enp4s0", "52:54:00:00:00:02");
    let handover = handover(&pc);
    let pinned = |mac: &str| ClaimedFunction {
        pins: Pins { mac: Some(mac.to_owned()), ..Pins::default() },
        ..as_nic(nic)
    };
    let error = handover.take(&pinned("52:54:00:00:00:02"), "clinical").unwrap_err().to_string();
    assert!(error.contains("52:54:00:00:00:01") && error.contains("is at 0000:04:00.0"), "{error}");
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
    handover.take(&pinned("52:54:00:00:00:01"), "clinical").unwrap();
    // With vfio-pci no interface shows the address any more; the record does.
    std::fs::remove_dir_all(pc.sysfs().pci_device(nic).join("net")).unwrap();
    self::handover(&pc).take(&pinned("52:54:00:00:00:01"), "clinical").unwrap();
    let error = self::handover(&pc).take(&pinned("52:54:00:00:00:02"), "clinical").unwrap_err();
    assert!(error.to_string().contains("52:54:00:00:00:01"), "{error}");
}

#[test]
fn another_card_at_the_address_is_not_given_the_former_ones_driver() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 7);
    handover(&pc).take(&as_nic(nic), "clinical").unwrap();
    // Switched off, a card added, switched on: a disk controller is there, and has its own driver.
    std::fs::remove_dir_all(pc.sysfs().pci_device(nic)).unwrap();
    std::fs::remove_dir_all(pc.sysfs().path("kernel/iommu_groups/7")).unwrap();
    pc.add("0000:03:00.0", 0x01_0601, Some("ahci"), Some(7));
    pc.set(nic, "device", Some("0xa282\n"));
    pc.kernel.writes.lock().unwrap().clear();
    let next = handover(&pc);
    next.give_back(nic, "clinical").unwrap();
    assert!(pc.kernel.writes.lock().unwrap().is_empty(), "nothing was done to it");
    assert!(next.handed_over().is_empty());
}

#[test]
fn another_card_that_vfio_pci_has_since_a_new_boot_has_not_the_mac_address_of_the_former_one() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 7);
    pc.add_interface(nic, "enp3s0", "52:54:00:00:00:01");
    let pins = Pins { mac: Some("52:54:00:00:00:01".to_owned()), ..Pins::default() };
    let pinned = ClaimedFunction { pins, ..as_nic(nic) };
    handover(&pc).take(&pinned, "clinical").unwrap();
    std::fs::remove_dir_all(pc.sysfs().pci_device(nic).join("net")).unwrap();
    handover(&pc).take(&pinned, "clinical").expect("the same card in the same boot");
    // Power is lost, and the card changed for another of its model.
    std::fs::write(pc.sysfs().proc("sys/kernel/random/boot_id"), "second\n").unwrap();
    for _ in 0..2 {
        let refused = handover(&pc).take(&pinned, "clinical").unwrap_err().to_string();
        assert!(refused.contains("cannot be compared"), "{refused}");
    }
    // Nor is what was known carried on by whoever does not ask.
    handover(&pc).take(&as_nic(nic), "clinical").unwrap();
    assert!(handover(&pc).take(&pinned, "clinical").is_err());
}

#[test]
fn a_controller_with_a_keyboard_that_no_driver_has_at_the_moment_stays_with_the_seat() {
    let pc = FakePc::new();
    let usb = pc.add("0000:00:14.0", 0x0c_0330, Some("xhci_hcd"), Some(7));
    let interface = pc.sysfs().pci_device(usb).join("usb1/1-4/1-4:1.0");
    std::fs::create_dir_all(&interface).unwrap();
    std::fs::write(interface.join("bInterfaceClass"), "03\n").unwrap();
    let bus = pc.sysfs().path("bus/usb/devices");
    std::fs::create_dir_all(&bus).unwrap();
    std::os::unix::fs::symlink(&interface, bus.join("1-4:1.0")).unwrap();
    let claims = Claims { screen: crate::host_use::Screen::First, ..Claims::default() };
    let wanted = ClaimedFunction { role: Role::Device, ..as_nic(usb) };
    assert!(handover(&pc).with_claims(claims).take(&wanted, "clinical").is_err());
}

#[test]
fn disks_are_found_however_many_there_are_and_however_their_mounts_are_written() {
    let refuses_nvme = |mounts: &[u8]| {
        let pc = FakePc::new();
        let nvme = pc.add("0000:03:00.0", 0x01_0802, Some("nvme"), Some(7));
        pc.add_disk(nvme, "nvme0n1", "259:0");
        pc.add_disk(nvme, "pci-0:1", "259:1");
        let other = pc.add("0000:04:00.0", 0x01_0601, Some("ahci"), Some(8));
        pc.add_disk(other, "sda", "8:0");
        std::fs::write(pc.sysfs().proc("self/mountinfo"), mounts).unwrap();
        let wanted = ClaimedFunction { role: Role::Device, ..as_nic(nvme) };
        handover(&pc).take(&wanted, "clinical").is_err()
    };
    let many = "24 1 8:0 / /snap rw - ext4 /dev/sda rw\n".repeat(5000);
    assert!(!refuses_nvme(many.as_bytes()), "one disk, however often it is mounted");
    let fuse =
        format!("24 1 0:60 / /home/user/x rw - fuse.x {} rw\n", ["/dev/sda"; 5000].join(":"));
    assert!(
        !refuses_nvme(fuse.as_bytes()),
        "nobody keeps a card back by saying a disk's name often"
    );
    let last = many + "24 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n";
    assert!(refuses_nvme(last.as_bytes()));
    assert!(refuses_nvme(b"24 1 0:30 / / rw - bcachefs /dev/nvme0n1:/dev/sda rw\n"));
    assert!(
        refuses_nvme(b"24 1 0:30 / / rw - btrfs /dev/disk/by-path/pci-0:1 rw\n"),
        "a colon of its own"
    );
    let odd = b"24 1 0:50 / /home/user/\xff rw - fuse.x x rw\n";
    assert!(!refuses_nvme(odd), "a name that is no UTF-8 keeps nothing back");
    assert!(refuses_nvme(&[&odd[..], b"24 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n"].concat()));
}
