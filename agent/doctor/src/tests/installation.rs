//! The way to setup, the unit, the roles, USB and the clock.

use std::os::unix::fs::symlink;

use super::*;

#[test]
fn a_new_pc_is_led_to_setup_and_never_back_to_the_doctor() {
    let pc = FakePc::new();
    let system = system(&pc);
    let setup = "run `bulkhead setup`, which writes";
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "iommu",
        Level::Fail,
        &[setup, "by hand: add"],
    );
    pc.add("0000:00:05.0", 0x02_0000, Some("e1000e"), None);
    let with_nic = machine("format = 1\n[domain.a]\nkernel = \"k\"\nnic = \"0000:00:05.0\"\n");
    let findings = devices::examine(&system, &with_nic);
    expect(&findings, "iommu-group", Level::Fail, &["VT-d", "intel_iommu=on", setup]);
    let remedy = finding(&findings, "iommu-group").remedy.clone().unwrap();
    assert!(!remedy.contains("bulkhead doctor"), "{remedy}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("policy.toml"), include_str!("../../../examples/policy.toml"))
        .unwrap();
    let (_, findings) = software::input_files(&inputs(dir.path()));
    expect(&findings, "machine-file", Level::Fail, &[setup, "by hand: copy"]);
    fs::write(dir.path().join("machine.toml"), "format = 1\n").unwrap();
    let (_, findings) = software::input_files(&inputs(dir.path()));
    let message = &finding(&findings, "machine-file").message;
    assert!(message.contains(setup) && message.contains("by hand: add a section"), "{message}");
}

#[test]
fn a_unit_that_is_missing_differs_or_is_changed_beside_is_told_with_the_lines() {
    let pc = FakePc::new();
    let system = system(&pc);
    expect(
        &service::unit(&system),
        "unit",
        Level::Warn,
        &["apt install --reinstall", "systemctl enable"],
    );
    let path = service::unit_path(&system.root);
    let directory = path.parent().unwrap().to_owned();
    fs::create_dir_all(directory.join("multi-user.target.wants")).unwrap();
    let shipped = service::shipped().0;
    fs::write(&path, shipped).unwrap();
    expect(&service::unit(&system), "unit", Level::Ok, &[]);
    assert!(service::unit(&system).iter().any(|finding| finding.message.contains("not enabled")));
    symlink(&path, directory.join("multi-user.target.wants/bulkhead-agent.service")).unwrap();
    assert_eq!(service::unit(&system).len(), 1);

    fs::write(&path, shipped.replace("NoNewPrivileges=yes", "NoNewPrivileges=no")).unwrap();
    let found = service::unit(&system);
    assert_eq!(found[0].level, Level::Warn);
    for words in ["lacks `NoNewPrivileges=yes`", "has `NoNewPrivileges=no`"] {
        assert!(found[0].message.contains(words), "{found:?}");
    }
    fs::write(&path, shipped).unwrap();
    let beside = directory.join("bulkhead-agent.service.d");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("ours.conf"), "[Service]\n# why\nDevicePolicy=auto\n").unwrap();
    let found = service::unit(&system);
    assert!(
        found[1].message.contains("ours.conf") && found[1].message.contains("DevicePolicy=auto")
    );
    fs::remove_file(&path).unwrap();
    symlink("/dev/null", &path).unwrap();
    assert_eq!(service::unit(&system)[0].level, Level::Fail, "masked");
}

#[test]
fn modules_that_nobody_loads_before_the_agent_are_told() {
    let pc = FakePc::new();
    let system = system(&pc);
    let missing = service::modules(&system);
    assert_eq!(missing.level, Level::Warn);
    let (shipped, place) = (service::shipped().1, "/usr/lib/modules-load.d/bulkhead.conf");
    let page = include_str!("../../../../docs/it/install.md");
    for said in [shipped, page] {
        assert!(said.contains(place), "one place is told everywhere: {said}");
    }
    assert!(missing.remedy.as_deref().unwrap().contains("apt install --reinstall"), "{missing:?}");
    let directory = system.root.join("usr/lib/modules-load.d");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("bulkhead.conf"), shipped).unwrap();
    assert_eq!(service::modules(&system).level, Level::Ok);
    fs::write(directory.join("bulkhead.conf"), shipped.replace("vfio_pci", "")).unwrap();
    assert!(service::modules(&system).message.contains("vfio_pci"));
}

#[test]
fn roles_that_nobody_has_that_one_person_has_or_that_come_from_a_directory_are_told() {
    let pc = FakePc::new();
    let system = system(&pc);
    let machine = machine("format = 1\n[domain.lab]\nvmm = \"external\"\n");
    let say = |name: &str, text: &str| fs::write(system.root.join("etc").join(name), text).unwrap();
    let found = || service::roles(&system, Some(&machine));
    assert!(found().iter().all(
        |finding| finding.level == Level::Warn && finding.message.starts_with("not looked at")
    ));
    say("passwd", "kim:x:1000:1000::/:\nlee:x:1001:991::/:\n");
    say(
        "group",
        "bulkhead-user:x:990:kim\nbulkhead-it:x:991:\nbulkhead-officer:x:992:\nbulkhead-vm-lab:x:993:\n",
    );
    let told = |words: &str, level: Level| {
        let found = found();
        assert!(
            found.iter().any(|one| one.level == level && one.message.contains(words)),
            "{words}: {found:?}"
        );
    };
    told("bulkhead-user: kim", Level::Ok);
    told("bulkhead-it: lee", Level::Ok);
    told("nobody is in the group bulkhead-officer", Level::Warn);
    told("no group bulkhead-auditor", Level::Warn);
    told("bulkhead-vm-lab may reach", Level::Ok);
    say("group", "bulkhead-it:x:991:kim\nbulkhead-officer:x:992:kim,lee\n");
    told("both IT and security office: kim, lee", Level::Warn);
    told("no group bulkhead-vm-lab", Level::Warn);
    say("nsswitch.conf", "passwd: files systemd\ngroup: files [SUCCESS=merge] systemd\n");
    assert!(!found().iter().any(|one| one.message.contains("nsswitch")), "Debian's own");
    say("nsswitch.conf", "# sss\npasswd: files sss # sssd\nhosts: dns\n");
    told("also names sss;", Level::Warn);
}

#[test]
fn usb_that_is_not_withheld_though_an_agent_took_it_is_a_failure() {
    let pc = FakePc::new();
    let system = system(&pc);
    let switches = pc.dir.path().join("usb-switches.json");
    let found = || usb::examine(&system, &switches);
    assert!(found()[0].message.starts_with("not looked at"));
    let devices = pc.sysfs().path("bus/usb/devices");
    fs::create_dir_all(devices.join("1-1")).unwrap();
    expect(&found(), "usb", Level::Warn, &["BIOS"]);
    let root = devices.join("usb1");
    fs::create_dir(&root).unwrap();
    assert_eq!(found()[0].level, Level::Fail, "no switches");
    let module = pc.sysfs().path("module/usbcore/parameters");
    fs::create_dir_all(&module).unwrap();
    let set = |default: &str, interface: &str, later: &str| {
        fs::write(root.join("authorized_default"), default).unwrap();
        fs::write(root.join("interface_authorized_default"), interface).unwrap();
        fs::write(module.join("authorized_default"), later).unwrap();
    };
    let levels = || found().iter().map(|finding| finding.level).collect::<Vec<_>>();
    set("1\n", "1\n", "-1\n");
    assert_eq!(levels(), [Level::Ok, Level::Ok], "no agent runs");
    fs::write(&switches, "{}").unwrap();
    assert_eq!(levels(), [Level::Fail, Level::Fail]);
    set("0\n", "1\n", "0\n");
    assert_eq!(levels(), [Level::Fail, Level::Ok]);
    assert!(found()[0].message.contains("interface_authorized_default"));
    set("0\n", "0\n", "0\n");
    assert_eq!(levels(), [Level::Ok, Level::Ok]);
    fs::remove_file(&switches).unwrap();
    assert_eq!(levels()[0], Level::Warn, "withheld by nobody");
}

#[test]
fn a_clock_that_lost_its_battery_keeps_local_time_or_went_back_is_told() {
    use std::time::{Duration, UNIX_EPOCH};
    let pc = FakePc::new();
    let system = system(&pc);
    let log = pc.dir.path().join("audit");
    let now = 1_800_000_000;
    let found = |now: u64| clock::examine(&system, &log, UNIX_EPOCH + Duration::from_secs(now));
    assert!(found(now).iter().all(|one| one.message.starts_with("not looked at")));
    assert_eq!(found(60)[0].level, Level::Fail);
    let hardware = pc.sysfs().path("class/rtc/rtc0");
    fs::create_dir_all(&hardware).unwrap();
    let says = |seconds: u64| {
        fs::write(hardware.join("since_epoch"), format!("{seconds}\n")).unwrap();
        found(now).swap_remove(0)
    };
    assert_eq!(says(now - 1).level, Level::Ok);
    assert!(says(now + 9 * 3600).remedy.unwrap().contains("set-local-rtc 0"));
    assert!(says(now - 40).message.contains("40 s off"));
    assert!(says(now - 86_400 * 30).message.contains("s off"));
    says(now);
    let source = pc.sysfs().path("devices/system/clocksource/clocksource0");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("current_clocksource"), "tsc\n").unwrap();
    assert_eq!(found(now).last().unwrap().level, Level::Ok);
    fs::write(source.join("current_clocksource"), "hpet\n").unwrap();
    assert_eq!(found(now).last().unwrap().level, Level::Warn);
    fs::create_dir(&log).unwrap();
    fs::File::create(log.join("1.jsonl"))
        .unwrap()
        .set_modified(UNIX_EPOCH + Duration::from_secs(now + 600))
        .unwrap();
    assert!(found(now)[1].message.contains("set back"));
}

#[test]
fn what_needs_no_decision_is_mended_once_and_looked_at_again() {
    let pc = FakePc::new();
    let system = system(&pc);
    let of_package = system.root.join("usr/lib/sysusers.d/bulkhead.conf");
    fs::create_dir_all(of_package.parent().unwrap()).unwrap();
    fs::write(&of_package, "").unwrap();
    fs::write(system.root.join("etc/passwd"), "").unwrap();
    fs::write(system.root.join("etc/group"), "").unwrap();
    let lab = machine("format = 1\n[domain.lab]\nvmm = \"external\"\n");
    let examine = || {
        let mut findings = service::roles(&system, Some(&lab));
        findings.extend(host::examine(&system, HardwareNeeds::of(None)));
        findings
    };
    let mut ran = Vec::new();
    let diagnosis = repair::mend(examine, &mut |program, arguments| {
        ran.push(format!("{program} {}", arguments.join(" ")));
        match program {
            "systemd-sysusers" => {
                let groups = "bulkhead-user:x:990:\nbulkhead-it:x:991:\nbulkhead-officer:x:992:\nbulkhead-auditor:x:993:\n";
                fs::write(system.root.join("etc/group"), groups)
            }
            "modprobe" => Err(std::io::Error::other("no such module")),
            _ => Ok(()),
        }
    });
    // Four groups are missing, and one list makes them.
    assert_eq!(
        ran,
        [
            "modprobe kvm-intel",
            "modprobe vfio-pci",
            "systemd-sysusers bulkhead.conf",
            "groupadd --system bulkhead-vm-lab",
        ]
    );
    let failed: Vec<_> =
        diagnosis.repairs.iter().filter_map(|repair| repair.problem.as_deref()).collect();
    assert_eq!(failed, ["no such module"; 2]);
    let of_roles = |finding: &&Finding| finding.check == "roles" && finding.repair.is_some();
    let left: Vec<_> = diagnosis.findings.iter().filter(of_roles).collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(left[0].subject.as_deref(), Some("lab"), "nobody made that one in this test");
}

#[test]
fn what_setup_or_somebody_has_to_decide_is_not_mended() {
    let pc = FakePc::new();
    let system = system(&pc);
    let path = service::unit_path(&system.root);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, service::shipped().0).unwrap();
    assert!(service::unit(&system).iter().all(|finding| finding.repair.is_none()), "not enabled");
    // No list of the package's, and a name that no group can have.
    assert_eq!(repair::accounts(&system.root), None);
    fs::write(system.root.join("etc/group"), "").unwrap();
    let of = |domain: &str| {
        let machine = machine(&format!("format = 1\n[domain.{domain}]\nvmm = \"external\"\n"));
        let found = service::roles(&system, Some(&machine));
        found.into_iter().find(|finding| finding.subject.as_deref() == Some(domain)).unwrap()
    };
    assert!(of("a-laboratory-of-ours").repair.is_some(), "32 characters");
    let long = of("a-laboratory-of-yours");
    assert_eq!(long.repair, None);
    assert!(long.message.contains("has 33 characters"), "{long:?}");
    assert!(long.remedy.is_some_and(|it| it.contains("at most 20 characters")));
}
