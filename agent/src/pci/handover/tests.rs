use super::*;
use crate::pci::fake::FakePc;

fn handover(pc: &FakePc) -> Handover {
    let record = pc.dir.path().join("handover.json");
    Handover::open(pc.sysfs(), &record, &record.with_extension("fallback")).unwrap()
}

fn returned(driver: &str) -> Returned {
    Returned { reset: true, driver: Some(driver.to_owned()) }
}

#[test]
fn a_nic_goes_to_vfio_pci_and_comes_back_reset_to_its_own_driver() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    handover.take(nic, "clinical").unwrap();
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    pc.kernel.writes.lock().unwrap().clear();
    assert_eq!(handover.give_back(nic).unwrap(), returned("e1000e"));
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
    let writes = pc.kernel.writes.lock().unwrap().clone();
    assert_eq!(writes, ["reset=1", "unbind=0000:00:05.0", "driver_override=", "bind=0000:00:05.0"]);
    assert!(handover.handed_over().is_empty());
}

#[test]
fn an_agent_that_died_leaves_enough_for_the_next_one_to_give_back() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    handover(&pc).take(nic, "clinical").unwrap();
    let next = handover(&pc);
    assert_eq!(next.handed_over()[&nic].driver.as_deref(), Some("e1000e"));
    next.take(nic, "clinical").unwrap();
    assert_eq!(next.give_back(nic).unwrap(), returned("e1000e"));
}

#[test]
fn the_record_is_on_the_disk_before_anything_changes() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let record = pc.dir.path().join("missing/handover.json");
    let handover = Handover::open(pc.sysfs(), &record, &record.with_extension("fallback")).unwrap();
    let error = handover.take(nic, "clinical").unwrap_err();
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
    open().take(nic, "clinical").unwrap();
    assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
    // The next agent knows of it, and the record is in its place again once that can be written.
    std::fs::create_dir(record.parent().unwrap()).unwrap();
    let next = open();
    assert_eq!(next.handed_over()[&nic].driver.as_deref(), Some("e1000e"));
    assert_eq!(next.give_back(nic).unwrap(), returned("e1000e"));
    assert!(!fallback.exists() && open().handed_over().is_empty());
}

#[test]
fn an_absent_device_a_missing_iommu_and_a_shared_group_are_refused_by_name() {
    let pc = FakePc::new();
    let lonely = pc.add("0000:00:04.0", 0x02_0000, None, None);
    let nic = pc.add_nic("0000:00:05.0", 7);
    let neighbour = pc.add("0000:00:05.1", 0x0c_0330, Some("xhci_hcd"), Some(7));
    let handover = handover(&pc);
    let says = |address, word: &str| {
        let error = handover.take(address, "clinical").unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    };
    says("0000:00:1f.0".parse().unwrap(), "lspci -D");
    says(lonely, "no IOMMU group");
    says(nic, &format!("{neighbour} (8086:10d3, xhci_hcd)"));
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
}

#[test]
fn a_bridge_in_the_group_is_no_neighbour() {
    let pc = FakePc::new();
    pc.add("0000:00:1c.0", 0x06_0400, Some("pcieport"), Some(7));
    let nic = pc.add_nic("0000:01:00.0", 7);
    handover(&pc).take(nic, "clinical").unwrap();
}

#[test]
fn a_driver_that_does_not_let_go_is_named_and_not_pushed_again_until_it_has() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.holds_on("e1000e");
    let deadline = Duration::from_secs(3);
    let handover = handover(&pc).with_deadline(deadline);
    let refused = || {
        let error = handover.take(nic, "clinical").unwrap_err().to_string();
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
    while handover.take(nic, "clinical").is_err() {
        assert!(Moment::now() < until);
        thread::sleep(POLL);
    }
    assert_eq!(handover.give_back(nic).unwrap(), returned("e1000e"));
}

#[test]
fn a_hand_over_that_fails_leaves_the_nic_with_its_driver_and_no_record() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.refuses("vfio-pci");
    let handover = handover(&pc);
    handover.take(nic, "clinical").unwrap_err();
    assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
    assert!(handover.handed_over().is_empty());
}

#[test]
fn a_kernel_without_vfio_pci_is_told_apart_from_a_stubborn_one() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    pc.has_no_modules();
    let error = handover(&pc).take(nic, "clinical").unwrap_err();
    assert!(matches!(error, HandoverError::NoVfioPci(_)), "{error}");
}

#[test]
fn a_nic_that_does_not_reset_is_kept_from_the_host() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    handover.take(nic, "clinical").unwrap();
    pc.does_not_reset();
    let error = handover.give_back(nic).unwrap_err();
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
        handover.take(nic, "clinical").unwrap();
        assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
        handover.give_back(nic).unwrap();
        assert_eq!(pc.driver(nic), None);
    }
}

#[test]
fn giving_back_what_was_never_taken_or_twice_changes_nothing() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:00:05.0", 7);
    let handover = handover(&pc);
    assert!(!handover.give_back(nic).unwrap().reset);
    handover.take(nic, "clinical").unwrap();
    handover.give_back(nic).unwrap();
    pc.kernel.writes.lock().unwrap().clear();
    handover.give_back(nic).unwrap();
    assert!(pc.kernel.writes.lock().unwrap().is_empty());
}
