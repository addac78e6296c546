//! What is proposed, what is asked, and what is refused.

use super::*;

#[test]
fn on_a_stock_pc_one_nic_is_asked_for_and_the_rest_is_seen() {
    let ward = Ward::stock();
    ward.write("sys/bus/pci/devices/0000:00:06.0/net/enp0s6/carrier", "1\n");
    let mut person = Person { chooses: vec![1, 0], ..Person::default() };
    let options = Options { dry_run: true, ..ward.asking() };
    let before = ward.picture();
    let report = ward.run_with(&options, &mut person, &mut ward.hands());
    expect(
        &report,
        SetupResult::Proposed,
        &[
            "+backend = \"kms\"",
            "+[domain.clinical]",
            "address = \"0000:00:06.0\", id = \"8086:10d3\", mac = \"52:54:00:12:34:06\"",
            "address = \"0000:00:05.0\", id = \"8086:10d3\", mac = \"52:54:00:12:34:05\"",
            "+memory = \"4G\"",
            "+memory = \"2G\"",
            "+cpus = 2",
            "+kernel = \"clinical/vmlinuz\"",
            "+GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX intel_iommu=on\"",
            "update-grub",
            "make the group bulkhead-officer",
            "systemctl enable",
            "there is no image of internet yet",
        ],
    );
    let keys: Vec<&str> = person.asked.iter().map(|question| question.key.as_str()).collect();
    assert_eq!(keys, ["domain.clinical.nic", "enable"], "the second NIC is the one that is left");
    let choices = &person.asked[0].choices;
    assert!(choices[0].contains("enp0s5 (52:54:00:12:34:05, switched off)"), "{choices:?}");
    assert!(choices[1].contains("cable in"), "{choices:?}");
    assert_eq!(before, ward.picture(), "a dry run changes nothing");
}

#[test]
fn two_nics_of_one_model_are_told_apart_and_pinned() {
    let ward = Ward::stock();
    let text = |nic: &str| format!("format = 1\nenable = false\n[domain.internet]\nnic = {nic}\n");
    for nic in ["{ mac = \"52:54:00:12:34:05\" }", "\"00:05.0\"", "{ interface = \"enp0s5\" }"] {
        let options = Options { dry_run: true, ..ward.answers(&text(nic)) };
        let report = ward.run(&options);
        expect(&report, SetupResult::Proposed, &["+[domain.internet]"]);
        let diff: String = report.changes.iter().filter_map(|c| c.diff.clone()).collect();
        let (clinical, internet) = diff.split_once("[domain.internet]").unwrap();
        assert!(clinical.contains(TWO) && internet.contains(ONE), "{nic}: {diff}");
    }
    let both = "{ interface = \"enp0s9\" }";
    let report = ward.run(&ward.answers(&text(both)));
    expect(&report, SetupResult::Refused, &["fits no NIC of this PC", "enp0s5", "enp0s6"]);
    let same =
        "format = 1\n[domain.clinical]\nnic = \"00:05.0\"\n[domain.internet]\nnic = \"00:05.0\"\n";
    expect(&ward.run(&ward.answers(same)), SetupResult::Refused, &["the NIC that", "name another"]);
}

#[test]
fn a_pc_that_does_not_do_is_told_everything_that_it_lacks_and_is_not_changed() {
    let ward = Ward::bare();
    ward.nic("0000:00:05.0", "enp0s5", ONE, None);
    fs::remove_file(ward.at("sys/firmware/acpi/tables/DMAR")).unwrap();
    ward.write("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t: fpu\n");
    ward.write("proc/meminfo", "MemTotal:  2048576 kB\n");
    fs::remove_dir_all(ward.at("sys/class/drm")).unwrap();
    let before = ward.picture();
    expect(
        &ward.run(&ward.answers("format = 1\nenable = true\n")),
        SetupResult::Refused,
        &["has 1 NIC that", "clinical, internet", "VT-d", "VT-x", "2000 MiB", "no graphics card"],
    );
    assert_eq!(before, ward.picture());
}

#[test]
fn a_controller_that_the_pc_lives_from_is_not_offered_and_why_is_said() {
    let ward = Ward::bare();
    ward.nic("0000:00:05.0", "enp0s5", ONE, Some(5));
    // Its IOMMU group holds a disk controller that is mounted.
    ward.fake.add_group("6 0000:00:06.0 020000 e1000e\n6 0000:00:06.1 010601 ahci\n");
    let report = ward.run(&ward.answers(ANSWERS));
    expect(&report, SetupResult::Refused, &["not to be had", "0000:00:06.0", "0000:00:06.1"]);
}

#[test]
fn two_nics_with_one_mac_address_are_refused() {
    let ward = Ward::bare();
    ward.nic("0000:00:05.0", "enp0s5", ONE, None);
    ward.nic("0000:00:06.0", "enp0s6", ONE, None);
    let report = ward.run(&ward.answers(ANSWERS));
    expect(&report, SetupResult::Refused, &["one MAC address", ONE, "enp0s5", "enp0s6", "bond"]);
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_one() {
    let ward = Ward::stock();
    let before = ward.picture();
    for (text, says) in [
        ("format = 1\nenabel = true\n", &["enabel", "enable", "answers.toml:2"][..]),
        (
            "format = 1\n[domain.clinicla]\ncpus = 2\n",
            &["clinicla", "did you mean [domain.clinical]?"],
        ),
        ("format = 1\n[domain.clinical]\nnic = { slto = \"2\" }\n", &["slto", "slot"]),
        ("format = 1\n[roles]\nit = [\"-x\"]\n", &["no account"]),
        ("format = 2\n", &["format"]),
        ("format = 1\n[domain.clinical]\nnic = {}\n", &["names no NIC"]),
    ] {
        expect(&ward.run(&ward.answers(text)), SetupResult::Refused, says);
    }
    assert_eq!(before, ward.picture());
}

#[test]
fn a_name_that_is_no_account_is_an_error_with_its_line_before_the_pc_is_looked_at() {
    let ward = Ward::stock();
    // An obstacle of the PC's, which is another person's to see to.
    fs::remove_dir_all(ward.at("sys/class/drm")).unwrap();
    for (name, help) in [
        ("rot", "did you mean \"root\"? if not, make the account (`adduser rot`)"),
        ("lee", "help: make the account (`adduser lee`), or take the name out"),
    ] {
        let report = ward.run(&ward.answers(&ANSWERS.replace("kim", name)));
        let says = format!("this PC has no account {name}, which is to have the role `it`");
        expect(&report, SetupResult::Refused, &["answers.toml:6:", &says, help]);
        assert!(!report.message.contains("graphics card"), "{}", report.message);
    }
}

#[test]
fn what_means_nothing_beside_another_answer_is_an_error_and_nothing_is_dropped_unsaid() {
    let ward = Ward::stock();
    let external =
        |key: &str| format!("format = 1\n[domain.internet]\nvmm = \"external\"\n{key} = \"2G\"\n");
    let nic = external("nic").replace("2G", "0000:00:06.0");
    for (text, says) in [
        (nic, "`nic` means nothing for internet, which an external VMM runs"),
        (external("memory"), "`memory` means nothing for internet"),
        (external("cpus").replace("\"2G\"", "2"), "`cpus` means nothing for internet"),
        (
            "format = 1\n[seat]\nbackend = \"none\"\ncard = \"/dev/dri/card9\"\n".to_owned(),
            "`card` means nothing for a PC without a screen",
        ),
    ] {
        let report = ward.run(&ward.answers(&text));
        expect(&report, SetupResult::Refused, &["answers.toml:4:", says, "remove this line"]);
    }
    let encrypted = |lines: &str| format!("format = 1\n[encrypted_state]\n{lines}\n");
    let by_key = "volume = \"/dev/disk/by-id/x\"\nunlock = \"passphrase\"\nkey_file = \"/k\"";
    let pcrs = "volume = \"/dev/disk/by-id/x\"\nkey_file = \"/k\"\npcrs = [7]";
    for (lines, says) in [
        ("unlock = \"tpm2\"", "`unlock` of an encrypted state means nothing, as no volume"),
        ("recovery_key_file = \"/k\"", "`recovery_key_file` of an encrypted state"),
        (
            by_key,
            "`key_file` below [encrypted_state] means nothing beside `unlock = \"passphrase\"`",
        ),
        (pcrs, "`pcrs` below [encrypted_state] means nothing beside `key_file`"),
    ] {
        let report = ward.run(&ward.answers(&encrypted(lines)));
        expect(&report, SetupResult::Refused, &[says]);
    }
    // The same where the other one stands in the machine file, or in the policy.
    let machine = "format = 1\n[seat]\nbackend = \"none\"\n[domain.internet]\nvmm = \"external\"\n";
    ward.write("etc/bulkhead/machine.toml", machine);
    let text = "format = 1\n[seat]\ncard = \"/dev/dri/card9\"\n[domain.internet]\nnic = \"0000:00:06.0\"\n";
    expect(
        &ward.run(&ward.answers(text)),
        SetupResult::Refused,
        &[
            "`seat.card` of the answer file means nothing",
            "`domain.internet.nic` of the answer file",
        ],
    );
    fs::remove_file(ward.at("etc/bulkhead/machine.toml")).unwrap();
    ward.write("etc/bulkhead/policy.toml", &network_of_internet("none"));
    let text = "format = 1\n[domain.internet]\nnic = \"0000:00:06.0\"\n";
    expect(
        &ward.run(&ward.answers(text)),
        SetupResult::Refused,
        &["`domain.internet.nic` of the answer file gives internet a NIC", "network = \"none\""],
    );
}

#[test]
fn without_a_policy_it_is_said_where_one_comes_from() {
    let ward = Ward::stock();
    fs::remove_file(ward.at("etc/bulkhead/policy.toml")).unwrap();
    let says = ["there is no policy", "bulkhead policy new", "/usr/share/bulkhead/policy.toml"];
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Refused, &says);
}

/// Returns the policy with another network for the Internet desktop.
fn network_of_internet(word: &str) -> String {
    let (before, internet) = POLICY.split_once("name = \"internet\"").unwrap();
    let changed =
        internet.replacen("network = \"passthrough\"", &format!("network = \"{word}\""), 1);
    assert_ne!(changed, internet);
    format!("{before}name = \"internet\"{changed}")
}

#[test]
fn a_desktop_with_a_vlan_gets_no_nic_and_that_is_said() {
    let ward = Ward::stock();
    ward.write("etc/bulkhead/policy.toml", &network_of_internet("vlan"));
    let report = ward.run(&ward.answers(ANSWERS));
    expect(
        &report,
        SetupResult::Changed,
        &["THE DESKTOP internet HAS NO NETWORK", "network = \"passthrough\""],
    );
    let now = ward.read("etc/bulkhead/machine.toml");
    let (clinical, internet) = now.split_once("[domain.internet]").unwrap();
    assert!(clinical.contains("nic = ") && !internet.contains("nic = "), "{now}");
}

#[test]
fn a_pc_whose_kvm_can_be_opened_virtualises_whatever_its_flags_say() {
    let ward = Ward::stock();
    let hidden = ward.read("proc/cpuinfo").replace("vmx", "hypervisor");
    ward.write("proc/cpuinfo", &hidden);
    let report = ward.run(&ward.answers(ANSWERS));
    expect(&report, SetupResult::Refused, &["does not offer virtualisation"]);
    ward.write("dev/kvm", "");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
}

#[test]
fn whoever_answers_and_is_not_understood_is_not_told_that_nobody_is_here() {
    let ward = Ward::stock();
    for (line, key) in [
        ("enable = true\n", "`enable`"),
        ("[domain.clinical]\nnic = { interface = \"enp0s5\" }\n", "`domain.clinical.nic`"),
    ] {
        let options = ward.answers(&ANSWERS.replace(line, ""));
        let mut person = Person { mumbles: true, ..Person::default() };
        let report = ward.run_with(&options, &mut person, &mut ward.hands());
        let says = ["no answer was understood", "write the number of a choice", key];
        expect(&report, SetupResult::Misused, &says);
        assert_eq!(person.asked.len(), 1, "{:?}", person.asked);
        assert!(!report.message.contains("nobody is here"), "{}", report.message);
    }
    let mut person = Person { mumbles: true, ..Person::default() };
    let options = Options { yes: false, ..ward.answers(ANSWERS) };
    let report = ward.run_with(&options, &mut person, &mut ward.hands());
    expect(&report, SetupResult::Misused, &["no answer was understood", "write y or n"]);
}

#[test]
fn what_nobody_answers_is_named_by_its_keys_with_its_choices() {
    let ward = Ward::stock();
    let report = ward.run(&ward.answers("format = 1\n"));
    expect(&report, SetupResult::Misused, &["`domain.clinical.nic`", "enp0s5", "--answers"]);
    let report = ward.run(&ward.answers(&ANSWERS.replace("enable = true\n", "")));
    expect(&report, SetupResult::Misused, &["`enable`"]);
    let agreed = Options { yes: false, ..ward.answers(ANSWERS) };
    expect(&ward.run(&agreed), SetupResult::Misused, &["--yes"]);
    let mut person = Person { agrees: Some(false), ..Person::default() };
    let report = ward.run_with(&agreed, &mut person, &mut ward.hands());
    expect(&report, SetupResult::Refused, &["nothing was changed"]);
    assert!(person.shown.contains("+[domain.clinical]"), "shown before it is asked");
    let caller = Caller::default();
    let report =
        ward.run_by(&caller, &ward.answers(ANSWERS), &mut Person::default(), &mut ward.hands());
    expect(&report, SetupResult::Misused, &["run it as root"]);
}

#[test]
fn the_nic_of_the_session_is_said_before_it_is_taken() {
    let ward = Ward::stock();
    // 10.0.2.0/24 on a bridge that stands on the first card; the way out on the second.
    ward.write(
        "proc/net/route",
        "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
         enp0s6 00000000 0103A8C0 0003 0 0 0 00000000 0 0 0\n\
         br0 0002000A 00000000 0001 0 0 0 00FFFFFF 0 0 0\n",
    );
    ward.write("proc/net/if_inet6", "fd00000000000000000000000000000f 02 40 00 80 br0\n");
    ward.folder("sys/class/net/br0/lower_enp0s5");
    for address in ["10.0.2.15", "fd00::f", "::ffff:10.0.2.15", "fe80::1%br0"] {
        let ssh_connection = Some(format!("10.0.9.9 50000 {address} 22"));
        let caller = Caller { is_root: true, ssh_connection };
        let mut person = Person { chooses: vec![0, 1], ..Person::default() };
        let options = Options { dry_run: true, ..ward.asking() };
        let report = ward.run_by(&caller, &options, &mut person, &mut ward.hands());
        expect(
            &report,
            SetupResult::Proposed,
            &[
                "THIS SESSION COMES IN OVER THE NIC OF clinical (0000:00:05.0",
                "over the NIC of internet",
            ],
        );
        let choices = &person.asked[0].choices;
        assert!(choices[0].contains("YOUR SESSION"), "{choices:?}");
        assert!(choices[1].contains("default route"), "{choices:?}");
    }
}

#[test]
fn a_machine_file_that_was_written_by_hand_keeps_what_it_says() {
    let ward = Ward::stock();
    let text = "# ours\nformat = 1\nstop_deadline = \"1m\"   # slow guests\n[seat]\nbackend = \"none\"\n\n\
                [domain.clinical]\nmemory = \"3G\" # enough\ncpus = 3\nkernel = \"other/k\"\nnic = \"0000:00:06.0\"\n";
    ward.write("etc/bulkhead/machine.toml", text);
    let answers = "format = 1\nenable = false\n[domain.clinical]\ncpus = 1\n";
    expect(&ward.run(&ward.answers(answers)), SetupResult::Changed, &[]);
    let now = ward.read("etc/bulkhead/machine.toml");
    let (clinical, internet) = now.split_once("[domain.internet]").unwrap();
    assert_eq!(clinical.trim(), text.replace("cpus = 3", "cpus = 1").trim());
    assert!(internet.contains("0000:00:05.0") && internet.contains("memory = \"3"), "{internet}");
}

#[test]
fn an_image_that_was_exchanged_brings_its_command_line_and_words_of_ours_stay() {
    let ward = Ward::stock();
    for name in ["vmlinuz", "initrd", "root.img", "home.img"] {
        ward.write(&format!("var/lib/bulkhead/images/clinical/{name}"), "x");
    }
    let cmdline = "var/lib/bulkhead/images/clinical/cmdline";
    ward.write(cmdline, "verity.hash=aa quiet\n");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    let file = "etc/bulkhead/machine.toml";
    let first = ward.read(file);
    for line in [
        "initrd = \"clinical/initrd\"",
        "cmdline = \"verity.hash=aa quiet\"",
        "disks = [{ path = \"clinical/root.img\", readonly = true }, { path = \"clinical/home.img\" }]",
    ] {
        assert!(first.contains(line), "{first}");
    }
    ward.write(file, &first.replace("aa quiet", "aa quiet verity.check=lazy"));
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Unchanged, &[]);
    ward.write(cmdline, "verity.hash=bb quiet\n");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    assert_eq!(ward.read(file), first.replace("hash=aa", "hash=bb"));
}

#[test]
fn an_image_that_came_after_setup_brings_its_initrd_and_its_disks() {
    let ward = Ward::stock();
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &["no image of clinical yet"]);
    let file = "etc/bulkhead/machine.toml";
    assert!(!ward.read(file).contains("initrd"), "{}", ward.read(file));
    let image = |name: &str| format!("var/lib/bulkhead/images/clinical/{name}");
    ward.write(&image("home.img"), "x");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Unchanged, &[]);
    fs::remove_file(ward.at(&image("home.img"))).unwrap();
    for name in ["vmlinuz", "initrd", "root.img"] {
        ward.write(&image(name), "x");
    }
    ward.write(&image("cmdline"), "verity.hash=aa quiet\n");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Changed, &[]);
    let now = ward.read(file);
    let (clinical, internet) = now.split_once("[domain.internet]").unwrap();
    for line in [
        "kernel = \"clinical/vmlinuz\"",
        "initrd = \"clinical/initrd\"",
        "cmdline = \"verity.hash=aa quiet\"",
        "disks = [{ path = \"clinical/root.img\", readonly = true }]",
    ] {
        assert!(clinical.contains(line), "{line}: {clinical}");
    }
    assert!(!internet.contains("initrd"), "{internet}");
    // Which disks it has somebody has said by then.
    ward.write(&image("home.img"), "x");
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Unchanged, &[]);
    // Another kernel is not the image's.
    let other = now.replace("clinical/vmlinuz", "other/k").replace("initrd = ", "# ");
    ward.write(file, &other);
    expect(&ward.run(&ward.answers(ANSWERS)), SetupResult::Unchanged, &[]);
}

#[test]
fn an_answer_that_fits_no_nic_is_told_with_the_slot_of_each() {
    let ward = Ward::stock();
    ward.write("sys/bus/pci/slots/3/address", "0000:00:06\n");
    let text = "format = 1\n[domain.clinical]\nnic = { slot = \"2\", interface = \"enp0s5\" }\n";
    expect(
        &ward.run(&ward.answers(text)),
        SetupResult::Refused,
        &[
            "`domain.clinical.nic` of the answer file = { slot = \"2\", interface = \"enp0s5\" } fits no NIC",
            "0000:00:05.0, enp0s5 (52:54:00:12:34:05, switched off), no slot,",
            "0000:00:06.0, enp0s6 (52:54:00:12:34:06, switched off), slot 3,",
        ],
    );
}

#[test]
fn a_pc_whose_domains_others_run_needs_no_hardware() {
    let ward = Ward::bare();
    fs::remove_dir_all(ward.at("sys/class/drm")).unwrap();
    fs::remove_file(ward.at("sys/firmware/acpi/tables/DMAR")).unwrap();
    let answers = "format = 1\nenable = false\n[seat]\nbackend = \"none\"\n[domain.clinical]\nvmm = \"external\"\n[domain.internet]\nvmm = \"external\"\n";
    expect(&ward.run(&ward.answers(answers)), SetupResult::Changed, &[]);
    expect(&ward.run(&ward.answers(answers)), SetupResult::Unchanged, &[]);
    assert!(!ward.at("etc/default/grub.d").exists());
}

#[test]
fn a_domain_of_others_whose_name_is_too_long_for_a_group_is_told() {
    let ward = Ward::bare();
    let say = |name: &str| {
        ward.write("etc/bulkhead/policy.toml", &POLICY.replace("internet", name));
        let answers = format!(
            "format = 1\nenable = false\n[seat]\nbackend = \"none\"\n[domain.clinical]\nvmm = \"external\"\n[domain.{name}]\nvmm = \"external\"\n"
        );
        ward.run(&Options { dry_run: true, ..ward.answers(&answers) })
    };
    let long = "internet-of-the-north";
    expect(
        &say(long),
        SetupResult::Proposed,
        &["has 33 characters", "at most 20 characters, in the policy and in the machine file"],
    );
    assert!(!say("internet-of-the-nort").described().contains("characters"));
}

#[test]
fn an_account_that_may_take_a_vmms_number_is_told_with_what_to_do() {
    let ward = Ward::stock();
    let propose = || ward.run(&Options { dry_run: true, ..ward.answers(ANSWERS) });
    ward.write("etc/subuid", "kim:100000:65536\n");
    assert!(!propose().described().contains("subuid"));
    ward.write("etc/subuid", "kim:60000:65536\n");
    expect(
        &propose(),
        SetupResult::Proposed,
        &["kim may take 60000 to 125535 by /etc/subuid", "usermod --del-subuids 60000-125535 kim"],
    );
}

#[test]
fn the_parameter_is_the_processors_own_and_a_pc_without_grub_is_told_it() {
    let ward = Ward::stock();
    let cpuinfo =
        ward.read("proc/cpuinfo").replace("GenuineIntel", "AuthenticAMD").replace("vmx", "svm");
    ward.write("proc/cpuinfo", &cpuinfo);
    let options = Options { dry_run: true, ..ward.answers(ANSWERS) };
    expect(&ward.run(&options), SetupResult::Proposed, &["amd_iommu=on"]);
    fs::remove_file(ward.at("etc/default/grub")).unwrap();
    expect(&ward.run(&options), SetupResult::Refused, &["amd_iommu=on", "boot loader"]);
    let with_iommu = Ward::bare();
    with_iommu.nic("0000:00:05.0", "enp0s5", ONE, Some(5));
    with_iommu.nic("0000:00:06.0", "enp0s6", TWO, Some(6));
    let report = with_iommu.run(&with_iommu.answers(ANSWERS));
    expect(&report, SetupResult::Changed, &[]);
    assert!(!with_iommu.at("etc/default/grub.d").exists(), "it is on already");
}

#[test]
fn the_example_of_an_answer_file_is_one() {
    let ward = Ward::stock();
    ward.write("sys/bus/pci/slots/2/address", "0000:00:05\n");
    ward.write("sys/bus/pci/slots/3/address", "0000:00:06\n");
    let example = include_str!("../../../../docs/it/answers.toml");
    let options = Options { dry_run: true, ..ward.answers(example) };
    expect(
        &ward.run(&options),
        SetupResult::Proposed,
        &["slot = \"2\"", "systemctl enable", "kim"],
    );
}

#[test]
fn a_domain_whose_bundle_was_installed_is_proposed_to_start_from_it() {
    let ward = Ward::stock();
    let digest = "0".repeat(64);
    let record = format!(
        "{{\"format\":1,\"floor\":1,\"newest\":{{\"serial\":7,\"manifest\":\"{digest}\"}},\"installed\":{{\"7\":{{\"manifest\":\"{digest}\",\"size\":1,\"signers\":[],\"keys\":[],\"trust\":null}}}}}}"
    );
    ward.write("var/lib/bulkhead/images/clinical/image.json", &record);
    let report = ward.run(&ward.answers(ANSWERS));
    // It is not activated yet, and has no disk to keep anything on.
    let said = ["bulkhead images activate clinical", "NOTHING IS KEPT IN clinical", "home.img"];
    expect(&report, SetupResult::Changed, &said);
    let before = ward.read("etc/bulkhead/machine.toml");
    assert!(before.contains("image = \"clinical\"\n") && !before.contains("disks"), "{before}");
    ward.write("var/lib/bulkhead/images/clinical/home.img", "x");
    let report = ward.run(&ward.answers(ANSWERS));
    expect(&report, SetupResult::Changed, &["home.img"]);
    assert!(!format!("{report:?}").contains("NOTHING IS KEPT"), "{report:?}");
    let now = ward.read("etc/bulkhead/machine.toml");
    let (clinical, internet) = now.split_once("[domain.internet]").unwrap();
    assert!(clinical.contains("image = \"clinical\"\n"), "{clinical}");
    assert!(clinical.contains("disks = [{ path = \"clinical/home.img\" }]"), "{clinical}");
    assert!(!clinical.contains("kernel ="), "{clinical}");
    assert!(internet.contains("kernel = \"internet/vmlinuz\""), "{internet}");
}
