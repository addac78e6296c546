//! What is left of earlier agents, setups and installations, and what only looks so.

use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use base::layout::Layout;
use domains::capture::Capture;
use domains::process::VmmProcess;
use domains::record::{LaunchRecord, VmmRecord};
use handover::PciAddress;

use super::*;
use crate::fake::Pc;

/// A PC with an agent's directories.
struct PcWithLayout {
    pc: Pc,
    layout: Layout,
    locks: String,
}

impl PcWithLayout {
    fn new() -> Self {
        let pc = Pc::new();
        let at = |name: &str| pc.system.root.join(name);
        let layout = Layout {
            images: at("var/lib/bulkhead/images"),
            state: at("var/lib/bulkhead"),
            runtime: at("run/bulkhead"),
        };
        layout.create_runtime(&["clinical"]).unwrap();
        layout.create_state().unwrap();
        fs::write(layout.lock(), "").unwrap();
        Self { pc, layout, locks: String::new() }
    }

    /// Has somebody hold the lock of a file, as the kernel tells it.
    fn lock(&mut self, file: &Path) {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, "").unwrap();
        self.locks.push_str(&lock_line(file));
        fs::write(self.pc.system.proc.join("locks"), &self.locks).unwrap();
    }

    fn agent_starts(&mut self) {
        self.lock(&self.layout.lock());
    }

    /// What is found, with a machine file that has the domain `clinical` and the NIC `00:05.0`.
    fn found(&self) -> Vec<Finding> {
        self.found_with("[domain.clinical]\nkernel = \"k\"\nnic = \"0000:00:05.0\"\n")
    }

    fn found_with(&self, domains: &str) -> Vec<Finding> {
        let machine = machine(&format!("format = 1\n{domains}"));
        let found = crate::leftovers::examine(&self.pc.system, &self.layout, Some(&machine));
        assert!(found.iter().all(|it| it.check == "leftovers"), "{found:?}");
        found
    }

    /// What is found of a machine file with the domain `clinical` if something happens between two looks.
    fn found_while(&self, happens: &dyn Fn()) -> Vec<Finding> {
        let machine = machine("format = 1\n[domain.clinical]\nkernel = \"k\"\n");
        let system = &self.pc.system;
        crate::leftovers::examine_with(system, &self.layout, Some(&machine), happens)
    }

    #[track_caller]
    fn nothing_is_left(&self) {
        let found = self.found();
        assert_eq!((found.len(), found[0].level), (1, Level::Ok), "{found:?}");
    }

    #[track_caller]
    fn one_is_left(&self, subject: Option<&str>, says: &str, remedy: &str) {
        let found = self.found();
        assert_eq!(found.len(), 1, "{found:?}");
        let help = found[0].remedy.clone().unwrap_or_default();
        assert_eq!((found[0].level, found[0].subject.as_deref()), (Level::Warn, subject));
        assert!(found[0].message.contains(says) && help.contains(remedy), "{found:?}");
    }

    /// Has a process be the VMM of a domain, by its record.
    fn record(&self, domain: &str) -> (VmmProcess, std::io::PipeWriter) {
        self.layout.create_runtime(&[domain]).unwrap();
        let (_, log) = Capture::create(&self.layout.vmm_log(domain)).unwrap();
        let arguments = ["-c".into(), "read line".into()];
        let (vmm, input) = VmmProcess::start(Path::new("/bin/sh"), &arguments, log).unwrap();
        let started = LaunchRecord {
            spec: String::new(),
            sandbox_id: None,
            functions: Vec::new(),
            image: None,
        };
        VmmRecord::new(domain, &vmm, started).write(&self.layout).unwrap();
        (vmm, input)
    }

    /// Has processes run in a cgroup.
    fn group(&self, below: &str, processes: &[u32]) {
        let mount = self.pc.files.dir.path().join("cgroup");
        let group = mount.join(
            below.replace("RUN", &self.layout.runtime.display().to_string().replace('/', "-")),
        );
        fs::create_dir_all(&group).unwrap();
        let lines: String = processes.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(group.join("cgroup.procs"), lines).unwrap();
        let mounts = format!("cgroup2 {} cgroup2 rw 0 0\n", mount.display());
        fs::write(self.pc.system.proc.join("self/mounts"), mounts).unwrap();
    }
}

/// The kernel's lines for a file that somebody has locked.
fn lock_line(file: &Path) -> String {
    let inode = fs::metadata(file).unwrap().ino();
    format!("1: FLOCK  ADVISORY  WRITE 815 fe:00:{inode} 0 EOF\n1: -> FLOCK x\n")
}

/// A process that is nobody's VMM.
struct Stray(Child);

impl Stray {
    fn new() -> Self {
        Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_pc_on_which_nothing_is_left_is_told_so_with_an_agent_and_without() {
    let mut pc = PcWithLayout::new();
    pc.nothing_is_left();
    pc.agent_starts();
    pc.nothing_is_left();
    let (_vmm, _input) = pc.record("clinical");
    pc.nothing_is_left();
    fs::remove_dir_all(&pc.layout.state).unwrap();
    fs::remove_dir_all(&pc.layout.runtime).unwrap();
    pc.nothing_is_left();
}

#[test]
fn a_setup_that_ended_half_way_is_named_by_its_last_change_unless_one_runs() {
    let mut pc = PcWithLayout::new();
    let (first, second) = (pc.pc.system.root.join("first"), pc.pc.system.root.join("second"));
    let change = |path: &Path, former: &str| {
        format!(
            r#"{{"file": {{"path": "{}", "former": {former}, "content": "new", "boot_menu": false}}}}"#,
            path.display()
        )
    };
    let journal = Layout::setup_journal(&pc.layout.state);
    let note = |changes: &[String]| {
        let text = format!(r#"{{"format": 1, "changes": [{}]}}"#, changes.join(","));
        fs::write(&journal, text).unwrap();
    };
    let former = r#"{"content": "old", "attributes": {"mode": 420, "uid": 0, "gid": 0}}"#;
    note(&[change(&first, "null"), change(&second, "null")]);
    pc.one_is_left(None, &format!("write {}", second.display()), "bulkhead setup --undo");
    // What is made, and what somebody changed since, is no half of anything.
    for content in ["new", "a person's"] {
        fs::write(&second, content).unwrap();
        pc.nothing_is_left();
    }
    // Of the first one nobody knows.
    assert!(!first.exists());
    fs::write(durable::fresh(&second), "ne").unwrap();
    pc.one_is_left(None, "ended half-way", "goes on with it");
    fs::remove_file(durable::fresh(&second)).unwrap();
    note(&[change(&second, former)]);
    fs::write(&second, "old").unwrap();
    pc.one_is_left(None, &format!("change {}", second.display()), "");
    fs::write(&second, "new").unwrap();
    pc.nothing_is_left();
    note(&[r#"{"folder": {"path": "/nonexistent/folder"}}"#.to_owned()]);
    pc.one_is_left(None, "make the folder /nonexistent/folder", "");
    // Started no more at each boot: by a person, or by half a setup. `unit` says that.
    note(&[r#""service""#.to_owned()]);
    pc.nothing_is_left();
    fs::write(durable::fresh(&journal), "{").unwrap();
    pc.one_is_left(None, "write down in", "");
    fs::remove_file(durable::fresh(&journal)).unwrap();
    fs::write(&journal, "{").unwrap();
    pc.one_is_left(None, "not looked at", "setup.json");
    note(&[change(&first, "null")]);
    pc.one_is_left(None, "ended half-way", "");
    pc.lock(&Layout::setup_lock(&pc.pc.system.root));
    pc.nothing_is_left();
}

#[test]
fn an_interrupted_installation_is_named_unless_a_command_is_at_it() {
    let mut pc = PcWithLayout::new();
    let arriving = pc.layout.images.join("clinical/.arriving");
    fs::create_dir_all(&arriving).unwrap();
    fs::write(arriving.join("manifest.sha256"), "0".repeat(64)).unwrap();
    pc.one_is_left(Some("clinical"), ".arriving", "images install");
    pc.lock(&pc.layout.images.join("clinical/.installing"));
    pc.nothing_is_left();
    fs::create_dir_all(pc.layout.programs()).unwrap();
    fs::write(pc.layout.programs().join("9.bundle.new"), "").unwrap();
    pc.one_is_left(None, "9.bundle.new", "bulkhead-update");
    pc.lock(&pc.layout.programs().join(".lock"));
    pc.nothing_is_left();
}

#[test]
fn a_guest_that_runs_without_an_agent_is_named_and_one_that_ended_meanwhile() {
    let pc = PcWithLayout::new();
    let (vmm, input) = pc.record("clinical");
    pc.one_is_left(Some("clinical"), "neither screen nor keyboard", "takes it up");
    let (_other, _kept) = pc.record("gone");
    let found = pc.found();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].message.contains("machine.toml has no such domain"), "{found:?}");
    fs::remove_dir_all(pc.layout.domain("gone")).unwrap();
    drop(input);
    while vmm.is_alive() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    pc.one_is_left(Some("clinical"), "has ended", "starts the domain anew");
    fs::write(pc.layout.vmm_record("clinical"), "half a reco").unwrap();
    pc.one_is_left(Some("clinical"), "no record that can be read", "");
}

#[test]
fn processes_that_no_record_names_are_named_with_an_agent_and_workers_without_one() {
    let mut pc = PcWithLayout::new();
    let stray = Stray::new();
    let (vmm, _input) = pc.record("clinical");
    let own = u32::try_from(vmm.identity().pid).unwrap();
    pc.agent_starts();
    pc.group("system.slice/bulkheadRUN/clinical", &[own, stray.0.id()]);
    // Whatever is with a VMM goes with it.
    pc.nothing_is_left();
    pc.group("system.slice/bulkheadRUN/clinical", &[stray.0.id()]);
    let named = format!("process {}", stray.0.id());
    pc.one_is_left(Some("clinical"), &named, "systemctl restart bulkhead-agent");
    pc.group("system.slice/bulkheadRUN/clinical", &[own]);
    pc.group("system.slice/bulkhead.workers.domainsRUN/clinical", &[stray.0.id()]);
    pc.nothing_is_left();
    fs::write(pc.pc.system.proc.join("locks"), "").unwrap();
    let found = pc.found();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].message.contains("workers run") && found[0].message.contains(&named));
    assert!(found[0].remedy.as_ref().unwrap().contains("clinical/cgroup.kill"), "{found:?}");
}

#[test]
fn what_somebody_takes_in_hand_during_the_look_is_not_left() {
    let pc = PcWithLayout::new();
    let (stray, (_vmm, _input)) = (Stray::new(), pc.record("gone"));
    pc.group("system.slice/bulkhead.workers.domainsRUN/clinical", &[stray.0.id()]);
    let image = pc.layout.images.join("clinical");
    fs::create_dir_all(image.join(".arriving")).unwrap();
    fs::write(image.join(".arriving/manifest.sha256"), "0".repeat(64)).unwrap();
    fs::write(image.join(".installing"), "").unwrap();
    fs::write(pc.layout.lock(), "815").unwrap();
    let found = pc.found_while(&|| {});
    assert_eq!(found.len(), 3, "{found:?}");
    let (agent, installs) = (lock_line(&pc.layout.lock()), lock_line(&image.join(".installing")));
    let locks = pc.pc.system.proc.join("locks");
    let found = pc.found_while(&|| fs::write(&locks, &installs).unwrap());
    assert_eq!(found.len(), 2, "{found:?}");
    fs::remove_file(&locks).unwrap();
    let found = pc.found_while(&|| fs::write(&locks, agent.clone() + &installs).unwrap());
    assert_eq!((found.len(), found[0].level), (1, Level::Ok), "{found:?}");
    // The kernel's list lacks the agent that runs.
    fs::write(&locks, &installs).unwrap();
    fs::create_dir(pc.pc.system.proc.join("815")).unwrap();
    pc.nothing_is_left();
    fs::remove_dir(pc.pc.system.proc.join("815")).unwrap();
    assert_eq!(pc.found().len(), 2);
}

#[test]
fn only_processes_that_were_seen_twice_are_named() {
    let pc = PcWithLayout::new();
    let strays = [Stray::new(), Stray::new()];
    let [one, other] = strays.each_ref().map(|stray| stray.0.id());
    for group in ["bulkheadRUN/clinical", "bulkhead.workers.domainsRUN/clinical"] {
        pc.group(group, &[one]);
        let found = pc.found_while(&|| pc.group(group, &[other]));
        assert_eq!((found.len(), found[0].level), (1, Level::Ok), "{found:?}");
        pc.group(group, &[one]);
        let found = pc.found_while(&|| pc.group(group, &[one, other]));
        assert_eq!((found.len(), found[0].level), (1, Level::Warn), "{found:?}");
        assert!(found[0].message.contains(&format!("(process {one}, in")), "{found:?}");
        pc.group(group, &[]);
    }
}

#[test]
fn a_mount_point_that_is_no_text_hides_no_group() {
    let pc = PcWithLayout::new();
    let stray = Stray::new();
    pc.group("bulkheadRUN/clinical", &[stray.0.id()]);
    let file = pc.pc.system.proc.join("self/mounts");
    let mounts = [b"x /home/a/\xff fuse rw 0 0\n".as_slice(), &fs::read(&file).unwrap()].concat();
    fs::write(file, mounts).unwrap();
    pc.one_is_left(Some("clinical"), "processes run", "systemctl start");
}

#[test]
fn what_was_to_be_forgotten_and_folders_of_domains_that_are_gone_are_named_while_no_agent_runs() {
    let mut pc = PcWithLayout::new();
    fs::create_dir_all(pc.layout.discard("clinical")).unwrap();
    fs::write(pc.layout.discard("clinical").join("disk0.img"), vec![1; 2 << 20]).unwrap();
    pc.one_is_left(Some("clinical"), "to its disks that forget", "rm -r");
    let (_vmm, _input) = pc.record("clinical");
    pc.one_is_left(Some("clinical"), "its guest runs", "");
    fs::remove_file(pc.layout.vmm_record("clinical")).unwrap();
    fs::remove_dir_all(pc.layout.discard("clinical")).unwrap();
    pc.layout.create_runtime(&["gone"]).unwrap();
    pc.one_is_left(Some("gone"), "left of a domain", "rm -r");
    // Without a machine file nobody knows which domains there are.
    let found = crate::leftovers::examine(&pc.pc.system, &pc.layout, None);
    assert_eq!(found[0].level, Level::Ok, "{found:?}");
    fs::create_dir_all(pc.layout.discard("clinical")).unwrap();
    pc.agent_starts();
    pc.nothing_is_left();
}

#[test]
fn a_function_that_is_kept_for_nobody_is_named_and_one_that_is_somebodys_is_not() {
    let mut pc = PcWithLayout::new();
    let files = &pc.pc.files;
    let claimed = files.add("0000:00:05.0", 0x02_0000, Some("vfio-pci"), Some(7));
    let companion = files.add("0000:00:05.1", 0x02_0000, Some("vfio-pci"), Some(7));
    let other = files.add("0000:00:06.0", 0x02_0000, Some("e1000e"), Some(8));
    pc.nothing_is_left();
    pc.pc.files.set(other, "driver_override", Some("vfio-pci\n"));
    pc.one_is_left(Some("0000:00:06.0"), "the host cannot use it", "drivers_probe");
    let external = "[domain.clinical]\nkernel = \"k\"\nnic = \"0000:00:05.0\"\n[domain.internet]\nvmm = \"external\"\n";
    assert_eq!(pc.found_with(external)[0].level, Level::Ok);
    let record = pc.layout.handover_record();
    let handed = |to: PciAddress| {
        let former = r#"{"domain": "gone", "driver": "e1000e", "driver_override": null}"#;
        let text = format!(r#"{{"version": 1, "devices": {{"{to}": {former}}}}}"#);
        fs::write(&record, text).unwrap();
    };
    handed(other);
    pc.one_is_left(Some("0000:00:06.0"), "was handed to gone", "gives it back");
    assert_eq!(pc.found_with(external)[0].level, Level::Warn);
    pc.agent_starts();
    pc.nothing_is_left();
    handed(companion);
    pc.one_is_left(Some("0000:00:06.0"), "is kept for vfio-pci", "");
    fs::write(pc.layout.handover_record(), "{").unwrap();
    pc.one_is_left(None, "not looked at", "handover.json");
    fs::remove_file(pc.layout.handover_record()).unwrap();
    pc.pc.files.set(other, "driver_override", Some("(null)\n"));
    pc.nothing_is_left();
    assert_eq!(pc.pc.files.driver(claimed).as_deref(), Some("vfio-pci"));
}
