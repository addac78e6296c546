mod disks;
mod images;
mod installation;
mod leftovers;
mod trust;
mod worker;

use super::host::HardwareNeeds;
use super::*;
use config::machine::{Context, Machine};
use control::reports::ConfiguredInterface;
use handover::fake::FakePc;

const CPUINFO: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vmx\n";

fn system(pc: &FakePc) -> SystemPaths {
    let paths = fake::paths(pc);
    fs::create_dir_all(paths.dev.join("vfio")).unwrap();
    fs::write(paths.proc.join("cpuinfo"), CPUINFO).unwrap();
    paths
}

fn machine(text: &str) -> Machine {
    let context = Context { images: Path::new("/images"), domain_policies: None };
    Machine::parse("machine.toml", text, context).unwrap()
}

/// What there is to examine of a PC whose files are all in this directory.
fn inputs(dir: &Path) -> InputFiles {
    InputFiles {
        machine: dir.join("machine.toml"),
        policy: dir.join("policy.toml"),
        images: dir.join("images"),
        state: dir.join("state"),
        runtime: dir.join("run"),
        vmm: None,
    }
}

fn finding<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.check == check).unwrap()
}

/// The level of a check, and that its remedy holds the words a person searches the BIOS or the
/// boot loader for.
fn expect(findings: &[Finding], check: &str, level: Level, words: &[&str]) {
    let found = finding(findings, check);
    let remedy = found.remedy.clone().unwrap_or_default();
    assert_eq!(found.level, level, "{found:?}");
    assert!(words.iter().all(|word| remedy.contains(word)), "{found:?}");
}

#[test]
fn a_pc_without_anything_is_told_the_words_of_its_own_bios_and_boot_loader() {
    let pc = FakePc::new();
    let intel = system(&pc);
    let findings = host::examine(&intel, HardwareNeeds::of(None));
    expect(&findings, "kvm", Level::Fail, &["kvm-intel", "VT-x"]);
    expect(&findings, "iommu", Level::Fail, &["VT-d", "intel_iommu=on", "update-grub"]);
    fs::write(
        intel.proc.join("cpuinfo"),
        CPUINFO.replace("GenuineIntel", "AuthenticAMD").replace("vmx", "x"),
    )
    .unwrap();
    let findings = host::examine(&intel, HardwareNeeds::of(None));
    expect(&findings, "kvm", Level::Fail, &["SVM Mode"]);
    expect(&findings, "iommu", Level::Fail, &["AMD-Vi", "amd_iommu=on"]);
}

#[test]
fn an_iommu_the_bios_offers_and_the_kernel_ignores_needs_only_the_parameter() {
    let pc = FakePc::new();
    let system = system(&pc);
    let tables = pc.sysfs().path("firmware/acpi/tables");
    fs::create_dir_all(&tables).unwrap();
    fs::write(tables.join("DMAR"), "").unwrap();
    let findings = host::examine(&system, HardwareNeeds::of(None));
    expect(&findings, "iommu", Level::Fail, &["intel_iommu=on"]);
    assert!(!finding(&findings, "iommu").remedy.as_ref().unwrap().contains("BIOS"));
}

#[test]
fn a_fit_pc_is_found_fit() {
    let pc = FakePc::new();
    let system = system(&pc);
    pc.add("0000:00:05.0", 0x02_0000, Some("vfio-pci"), Some(7));
    fs::write(system.dev.join("kvm"), "").unwrap();
    fs::write(system.dev.join("vfio/vfio"), "").unwrap();
    let parameters = pc.sysfs().path("module/kvm_intel/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("ept"), "Y\n").unwrap();
    let interrupts = |chip: &str| {
        fs::write(system.proc.join("interrupts"), format!("  9:  1  {chip}  9-fasteoi  acpi\n"))
    };
    interrupts("IO-APIC").unwrap();
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "interrupt-remapping",
        Level::Fail,
        &["VT-d", "intremap=off"],
    );
    interrupts("IR-IO-APIC").unwrap();
    let findings = host::examine(&system, HardwareNeeds::of(None));
    for check in ["kvm", "nested-paging", "iommu", "interrupt-remapping", "vfio-pci", "vfio-device"]
    {
        assert_eq!(finding(&findings, check).level, Level::Ok, "{check}");
    }
    fs::write(parameters.join("ept"), "N\n").unwrap();
    let flags = |flags: &str| fs::write(system.proc.join("cpuinfo"), CPUINFO.replace("vmx", flags));
    flags("vmx ept").unwrap();
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "nested-paging",
        Level::Fail,
        &["kvm-intel.ept=0"],
    );
    flags("vmx hypervisor").unwrap();
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "nested-paging",
        Level::Fail,
        &["where it runs"],
    );
    flags("vmx").unwrap();
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "nested-paging",
        Level::Fail,
        &["VT-x", "update the BIOS"],
    );
    fs::remove_file(parameters.join("ept")).unwrap();
    // KVM is a part of this kernel: nobody is sent to load it.
    let findings = host::examine(&system, HardwareNeeds::of(None));
    expect(&findings, "nested-paging", Level::Warn, &["nothing is to be done"]);
    assert!(!finding(&findings, "nested-paging").remedy.as_ref().unwrap().contains("modprobe"));
    fs::remove_file(system.dev.join("kvm")).unwrap();
    expect(
        &host::examine(&system, HardwareNeeds::of(None)),
        "nested-paging",
        Level::Warn,
        &["modprobe kvm-intel", "VT-x"],
    );
}

#[test]
fn each_device_of_the_machine_file_is_examined() {
    let pc = FakePc::new();
    let system = system(&pc);
    let good = pc.add_nic("0000:00:05.0", 7);
    let shared = pc.add_nic("0000:00:06.0", 8);
    pc.add("0000:00:06.1", 0x01_0601, Some("ahci"), Some(8));
    pc.set(shared, "reset", None);
    fs::create_dir_all(pc.sysfs().pci_device(good).join("net/enp0s5")).unwrap();
    let machine = machine(
        r#"format = 1
        [domain.a]
        kernel = "k"
        nic = "0000:00:05.0"
        [domain.b]
        kernel = "k"
        nic = "0000:00:06.0"
        [domain.c]
        kernel = "k"
        nic = "0000:00:06.1"
        [domain.d]
        kernel = "k"
        nic = "0000:00:1f.6""#,
    );
    let findings = devices::examine(&system, &machine);
    let of = |address: &str| -> Vec<Finding> {
        findings.iter().filter(|f| f.subject.as_deref() == Some(address)).cloned().collect()
    };
    let looked_at = |finding: &&Finding| finding.check != "interrupts";
    assert!(of("0000:00:05.0").iter().filter(looked_at).all(|found| found.level == Level::Ok));
    // Nobody but root may read a function's configuration space, and this one shows none.
    expect(&of("0000:00:05.0"), "interrupts", Level::Warn, &["as root"]);
    assert!(finding(&of("0000:00:05.0"), "interrupts").message.starts_with("not looked at"));
    assert!(finding(&of("0000:00:05.0"), "hand-over").message.contains("enp0s5"));
    expect(&of("0000:00:06.0"), "iommu-group", Level::Fail, &["slot"]);
    assert!(finding(&of("0000:00:06.0"), "iommu-group").message.contains("ahci"));
    expect(&of("0000:00:06.0"), "reset", Level::Fail, &["FLR"]);
    expect(&of("0000:00:06.1"), "pci-device", Level::Fail, &["network controller"]);
    // How to have it pinned is said of the right card alone.
    assert!(finding(&of("0000:00:05.0"), "pci-pin").message.contains("to have that refused"));
    assert!(of("0000:00:06.1").iter().all(|found| found.check != "pci-pin"));
    expect(&of("0000:00:1f.6"), "pci-device", Level::Fail, &["lspci -D"]);
    assert_eq!(devices::interfaces(&system, &machine), ["enp0s5"]);
}

#[test]
fn memory_that_does_not_suffice_is_told_in_numbers() {
    let pc = FakePc::new();
    let system = system(&pc);
    let machine = machine(
        "format = 1\n[domain.a]\nkernel = \"k\"\nmemory = \"4G\"\n[domain.b]\nkernel = \"k\"\nmemory = \"2G\"\n",
    );
    let meminfo = |mib: u64, huge: u64| {
        let text =
            format!("MemTotal: {} kB\nHugePages_Total: {huge}\nHugepagesize: 2048 kB\n", mib << 10);
        fs::write(system.proc.join("meminfo"), text).unwrap();
        software::memory(&system, &machine)
    };
    assert_eq!(finding(&meminfo(8000, 0), "memory").level, Level::Ok);
    let findings = meminfo(6144, 0);
    assert_eq!(finding(&findings, "memory").level, Level::Fail);
    assert!(finding(&findings, "memory").message.contains("6144 MiB and the host 512"));
    expect(&meminfo(8000, 1000), "huge-pages", Level::Fail, &["nr_hugepages"]);
}

#[test]
fn an_interface_that_goes_with_its_nic_is_no_obstacle_and_another_is() {
    let interface = |name: &str| ConfiguredInterface {
        name: name.to_owned(),
        addresses: vec!["10.0.0.5".parse().unwrap()],
    };
    let leaving = ["enp0s5".to_owned()];
    let judge = |rule, names: &[&str]| {
        let found = names.iter().map(|name| interface(name)).collect();
        host::judge_network(rule, &leaving, Ok(found))
    };
    assert_eq!(judge(Some(Rule::Holds), &[]).level, Level::Ok);
    assert_eq!(judge(Some(Rule::Holds), &["enp0s5"]).level, Level::Ok);
    let stays = judge(Some(Rule::Holds), &["enp0s5", "wlan0"]);
    assert_eq!(stays.level, Level::Fail);
    assert!(stays.message.contains("wlan0") && !stays.message.contains("enp0s5"), "{stays:?}");
    assert_eq!(judge(Some(Rule::Lifted), &["wlan0"]).level, Level::Warn);
    assert_eq!(judge(None, &["wlan0"]).level, Level::Warn);
    let external = machine("format = 1\n[domain.a]\nvmm = \"external\"\n");
    let mixed = machine("format = 1\n[domain.a]\nvmm = \"external\"\n[domain.b]\nkernel = \"k\"\n");
    assert_eq!(Rule::of(&mixed), Rule::Holds);
    let tolerated = judge(Some(Rule::of(&external)), &["wlan0"]);
    assert_eq!(tolerated.level, Level::Ok, "{tolerated:?}");
}

#[test]
fn what_nothing_on_this_pc_needs_is_no_failure_to_the_doctor() {
    let pc = FakePc::new();
    let system = system(&pc);
    let vm = ["kvm", "kvm-vm", "nested-paging"];
    let hand_over = ["iommu", "interrupt-remapping", "vfio-device"];
    let external = machine("format = 1\n[domain.a]\nvmm = \"external\"\n");
    let own = machine("format = 1\n[domain.a]\nkernel = \"k\"\n");
    let nic = machine("format = 1\n[domain.a]\nkernel = \"k\"\nnic = \"0000:00:05.0\"\n");
    for (machine, vms, devices) in
        [(&external, true, true), (&own, false, true), (&nic, false, false)]
    {
        let findings = host::examine(&system, HardwareNeeds::of(Some(machine)));
        let ok = |check: &&str| finding(&findings, check).level == Level::Ok;
        assert_eq!(vm.iter().all(ok), vms, "{findings:?}");
        assert_eq!(vm.iter().any(ok), vms, "{findings:?}");
        assert_eq!(hand_over.iter().all(ok), devices, "{findings:?}");
        assert_eq!(hand_over.iter().any(ok), devices, "{findings:?}");
    }
}

#[test]
fn a_file_that_is_not_there_is_said_to_be_missing_and_what_makes_one() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let inputs = inputs(dir.path());
    let look = || software::input_files(&inputs).1;
    let told = |findings: &[Finding]| {
        expect(findings, "machine-file", Level::Fail, &["examples/machine.toml", "--machine"]);
        let found = finding(findings, "machine-file");
        assert!(!found.remedy.as_ref().unwrap().contains("correct"), "{found:?}");
        assert!(found.message.contains(&inputs.machine.display().to_string()), "{found:?}");
    };
    let without_both = look();
    told(&without_both);
    expect(&without_both, "policy", Level::Fail, &["bulkhead policy new", "--policy"]);
    fs::write(at("policy.toml"), policy_tools::STARTER).unwrap();
    told(&look());
    fs::write(at("policy.toml"), "nonsense").unwrap();
    told(&look());
}

#[test]
fn the_doctor_says_of_a_device_what_the_hand_over_would_say() {
    let pc = FakePc::new();
    let system = system(&pc);
    pc.add_group(
        "17 0000:00:1f.4 0c0500 i801_smbus\n17 0000:00:1f.6 020000 e1000e\n3 0000:03:00.0 020000 igb",
    );
    pc.add_group("11 0000:02:00.0 020000 r8169\n11 0000:02:00.1 070002 serial");
    let disk = pc.add("0000:04:00.0", 0x01_0802, Some("nvme"), Some(4));
    pc.add_disk(disk, "nvme0n1", "259:0");
    pc.mounts("24 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    let wifi = pc.add("0000:05:00.0", 0x02_8000, Some("ath9k"), Some(5));
    pc.set(wifi, "vendor", Some("0x168c\n"));
    pc.set(wifi, "device", Some("0x0036\n"));
    let machine = machine(
        r#"format = 1
        [domain.a]
        kernel = "k"
        nic = "0000:00:1f.6"
        passthrough = ["0000:04:00.0", "0000:05:00.0"]
        [domain.b]
        kernel = "k"
        nic = { address = "0000:02:00.0", id = "10ec:8168" }"#,
    );
    let findings = devices::examine(&system, &machine);
    let of = |address: &str| -> Vec<Finding> {
        findings.iter().filter(|f| f.subject.as_deref() == Some(address)).cloned().collect()
    };
    let words = ["cannot be moved", "NICs of this PC that could be handed over: 0000:03:00.0"];
    expect(&of("0000:00:1f.6"), "iommu-group", Level::Fail, &words);
    let pin = finding(&of("0000:00:1f.6"), "pci-pin").clone();
    assert!(
        pin.message.contains(r#"nic = { address = "0000:00:1f.6", id = "8086:10d3" }"#),
        "{pin:?}"
    );
    expect(&of("0000:04:00.0"), "host-use", Level::Fail, &["a card was added or moved"]);
    expect(&of("0000:05:00.0"), "interrupts", Level::Warn, &["ath9k.use_msi=1"]);
    expect(&of("0000:02:00.0"), "pci-pin", Level::Fail, &["moved or exchanged"]);
    let group = finding(&of("0000:02:00.0"), "iommu-group").clone();
    assert_eq!(group.level, Level::Ok);
    assert!(
        group.message.contains("0000:02:00.1") && group.message.contains("to nobody"),
        "{group:?}"
    );
}

#[test]
fn what_the_policy_says_and_nothing_enforces_is_a_warning_here_and_a_note_of_the_status() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let egress = "priority = \"high\"\negress = [ { to = \"10.0.0.0/8\", port = 443, proto = \"tcp\", purpose = \"HTTPS\" } ]\n";
    let starter = policy_tools::STARTER;
    let policy = file("policy.toml", &starter.replacen("priority = \"high\"", egress, 1));
    let external = "format = 1\n[seat]\nbackend = \"none\"\n[domain.clinical]\nvmm = \"external\"\n[domain.internet]\nvmm = \"external\"\n";
    let machine = file("machine.toml", external);
    let images = dir.path().to_owned();
    let (state, runtime) = (images.join("state"), images.join("run"));
    let inputs = InputFiles { machine, policy: policy.clone(), images, state, runtime, vmm: None };
    let warned = || -> Vec<String> {
        let (files, findings) = software::input_files(&inputs);
        assert!(files.is_some(), "{findings:?}");
        let found = findings.into_iter().filter(|found| found.check == "policy-enforcement");
        found.inspect(|found| assert!(found.remedy.is_some())).map(|found| found.message).collect()
    };
    let found = warned();
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].contains("`egress` of CLINICAL is not enforced by this version"), "{found:?}");
    assert!(
        found[1].starts_with("clinical is external")
            && found[1]
                .contains("network, persistence, renew_at, renew_when_idle, priority, egress"),
        "{found:?}"
    );
    fs::write(&policy, starter).unwrap();
    assert_eq!(warned().len(), 2, "the network cards are somebody else's either way");
}

/// Each check is a finding of its own, with a policy that cannot be read too.
#[test]
fn what_was_not_looked_at_is_never_ok_and_a_bad_policy_hides_no_other_finding() {
    let pc = FakePc::new();
    let system = system(&pc);
    let at = |name: &str| pc.dir.path().join(name);
    fs::write(at("machine.toml"), "format = 1\n[domain.a]\nkernel = \"k\"\n").unwrap();
    fs::write(at("policy.toml"), "nonsense").unwrap();
    let inputs = InputFiles {
        machine: at("machine.toml"),
        policy: at("policy.toml"),
        images: at("images"),
        state: at("state"),
        runtime: at("run"),
        vmm: None,
    };
    let findings = examine(&system, &inputs);
    expect(&findings, "policy", Level::Fail, &["correct"]);
    expect(&findings, "machine-file", Level::Warn, &["policy first"]);
    finding(&findings, "image");
    fs::write(at("machine.toml"), "nonsense").unwrap();
    let findings = examine(&system, &inputs);
    for check in ["policy", "machine-file", "kvm", "unit", "roles", "usb", "clock", "audit-disk"] {
        assert_ne!(finding(&findings, check).level, Level::Ok, "{check}");
    }
    fs::write(at("policy.toml"), policy_tools::STARTER).unwrap();
    let with_policy = examine(&system, &inputs);
    assert_eq!(finding(&with_policy, "policy").level, Level::Ok, "{with_policy:?}");
    assert_eq!(finding(&with_policy, "machine-file").level, Level::Fail);
    for finding in findings.into_iter().chain(with_policy) {
        let looked =
            !finding.message.contains("not looked at") && !finding.message.contains("unknown");
        assert!(finding.level != Level::Ok || looked, "{finding:?}");
        assert_eq!(finding.level == Level::Ok, finding.remedy.is_none(), "{finding:?}");
    }
}

#[test]
fn every_finding_has_its_line_in_its_document() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(here.join("../../docs/it/doctor.md")).unwrap();
    let mut checks = 0;
    for entry in fs::read_dir(here.join("src")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() || path.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        // As if each call were on one line.
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("( ", "(");
        let starts = [
            "let check = \"",
            "CHECK: &str = \"",
            "DISK: &str = \"",
            "Finding::ok(\"",
            "Finding::warn(\"",
            "Finding::fail(\"",
        ];
        for start in starts {
            for rest in text.split(start).skip(1) {
                let check = rest.split('"').next().unwrap();
                checks += 1;
                assert!(
                    document.contains(&format!("`{check}`")),
                    "docs/it/doctor.md lacks `{check}`"
                );
            }
        }
    }
    assert!(checks > 20, "{checks}");
}
