//! What an earlier agent, a setup or an installation left behind: only what is so for certain.
//!
//! Where an agent runs, what it has in hand is its own: what goes by its records is not looked at then, and what it or a command has in hand at this moment is told by
//! the kernel's list of locks, or by a second look. That list is read again at the end: what somebody has begun meanwhile is not left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use base::layout::Layout;
use config::machine::{Kind, Machine};
use domains::remains::{self, ProcessGroup, Recorded, RunningGroups};
use handover::handover::Handover;
use hostpci::{Function, VFIO_PCI};
use images::manifest::ImageName;
use images::store::Store as ImageStore;
use program::store::Store as ProgramStore;

use super::{Finding, SystemPaths, cgroup_mount};

const CHECK: &str = "leftovers";
/// Between two looks at what may be on its way.
const PAUSE: Duration = Duration::from_millis(300);
/// Processes and files that are named.
const NAMED_MAX: usize = 8;
/// Files of which the size is counted.
const FILES_MAX: usize = 256;
const START: &str = "`systemctl start bulkhead-agent`";

/// Examines what is left. Domains and PCI functions that nobody has any more are known only with a machine file.
pub(super) fn examine(
    system: &SystemPaths,
    layout: &Layout,
    machine: Option<&Machine>,
) -> Vec<Finding> {
    examine_with(system, layout, machine, &|| thread::sleep(PAUSE))
}

/// Examines it, with what is done between two looks.
pub(super) fn examine_with(
    system: &SystemPaths,
    layout: &Layout,
    machine: Option<&Machine>,
    pause: &dyn Fn(),
) -> Vec<Finding> {
    for folder in [&layout.state, &layout.runtime] {
        let read = fs::read_dir(folder).err().map(|error| error.kind());
        if read == Some(io::ErrorKind::PermissionDenied) {
            let what = format!("not looked at: {} is root's to read", folder.display());
            return vec![Finding::warn(CHECK, what, "run this command as root")];
        }
    }
    let agent = layout.lock();
    let locks = Locks::read(system, &agent);
    let looked = LeftoverSearch { system, layout, machine, locks, pause };
    let mut left = Left::default();
    left.add(Some(&Layout::setup_lock(&system.root)), looked.setup());
    for (lock, finding) in looked.images() {
        left.add(Some(&lock), [finding]);
    }
    left.add(Some(&ProgramStore::at(&layout.programs()).lock_file()), looked.program());
    let groups = looked.groups();
    // What is found where no agent runs is so only if none has been started meanwhile.
    let no_agent = (!looked.agent_runs()).then_some(agent.as_path());
    left.add(no_agent, looked.processes(&groups));
    if no_agent.is_some() {
        left.add(no_agent, looked.records());
        left.add(no_agent, looked.copies());
        left.add(no_agent, looked.folders(&groups));
    }
    looked.functions(no_agent, &mut left);
    let mut findings = left.without(&Locks::read(system, &agent));
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "nothing is left of an earlier agent, a setup or an installation",
        ));
    }
    findings
}

/// What was found, each with the lock that nobody has if it is so.
#[derive(Default)]
struct Left(Vec<(Option<PathBuf>, Finding)>);

impl Left {
    /// Adds what is so only if nobody has a lock, or, without one, whoever has which.
    fn add(&mut self, lock: Option<&Path>, findings: impl IntoIterator<Item = Finding>) {
        self.0.extend(findings.into_iter().map(|it| (lock.map(Path::to_owned), it)));
    }

    /// Returns the findings without those whose lock somebody has.
    fn without(self, locks: &Locks) -> Vec<Finding> {
        let is_left = |lock: Option<PathBuf>| lock.is_none_or(|lock| !locks.has(&lock));
        self.0.into_iter().filter_map(|(lock, it)| is_left(lock).then_some(it)).collect()
    }
}

/// Who has locked which files with flock(2), by the kernel's list: a file is not locked to find that out, which would keep others out meanwhile.
struct Locks {
    /// The inode numbers of the files.
    files: BTreeSet<u64>,
    /// The agent's lock, if it names a process that runs: the kernel's list is read by position, and may lack a line where others change it meanwhile. A number that has
    /// gone to another process is taken for the agent's, and something that is left is not named.
    agent: Option<PathBuf>,
}

impl Locks {
    fn read(system: &SystemPaths, agent: &Path) -> Self {
        let text = system.proc_text("locks").unwrap_or_default();
        let inode = |line: &str| {
            let file =
                line.split_ascii_whitespace().find(|field| field.matches(':').count() == 2)?;
            file.rsplit(':').next()?.parse().ok()
        };
        let lines = text.lines().filter(|line| line.contains("FLOCK"));
        Self {
            files: lines.filter_map(inode).collect(),
            agent: names_process(system, agent).then(|| agent.to_owned()),
        }
    }

    /// Returns whether somebody has a file locked. Devices are not compared, as btrfs has several numbers for one: a file of the same inode number on another disk is
    /// taken for this one, and something that is left is not named.
    fn has(&self, file: &Path) -> bool {
        self.agent.as_deref() == Some(file)
            || fs::metadata(file).is_ok_and(|metadata| self.files.contains(&metadata.ino()))
    }
}

/// Longest file of a lock that is read, in bytes: it has a process number.
const NUMBER_MAX: u64 = 32;

/// Returns whether a lock's file has the number of a process that runs, or may have.
fn names_process(system: &SystemPaths, lock: &Path) -> bool {
    let runs = |pid: u32| system.proc.join(pid.to_string()).try_exists().unwrap_or(true);
    match fileopen::read(lock, NUMBER_MAX) {
        Ok(text) => String::from_utf8_lossy(&text).trim().parse().is_ok_and(runs),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// What runs in the groups of agents.
struct Running {
    /// The domains in whose groups something runs, at any look.
    domains: BTreeSet<String>,
    /// The domains' groups of which the same processes were in no record at two looks.
    unrecorded: Vec<(String, ProcessGroup)>,
    /// The groups in which the same workers ran at two looks.
    workers: Vec<ProcessGroup>,
}

/// Returns a group with those of its processes that an earlier look has seen in it too, if there are such.
fn seen_twice(before: &[ProcessGroup], group: &ProcessGroup) -> Option<ProcessGroup> {
    let before = before.iter().find(|it| it.path == group.path)?;
    let mut group = group.clone();
    group.processes.retain(|pid| before.processes.contains(pid));
    (!group.processes.is_empty()).then_some(group)
}

struct LeftoverSearch<'a> {
    system: &'a SystemPaths,
    layout: &'a Layout,
    machine: Option<&'a Machine>,
    locks: Locks,
    /// Lets some time pass between two looks.
    pause: &'a dyn Fn(),
}

impl LeftoverSearch<'_> {
    fn agent_runs(&self) -> bool {
        self.locks.has(&self.layout.lock())
    }

    /// Returns whether the machine file has a domain; without one nobody knows.
    fn has_domain(&self, name: &str) -> Option<bool> {
        Some(self.machine?.domain(name).is_some())
    }

    fn setup(&self) -> Option<Finding> {
        if self.locks.has(&Layout::setup_lock(&self.system.root)) {
            return None;
        }
        match setup::interrupted(&self.layout.state) {
            Ok(None) => None,
            Ok(Some(what)) => Some(Finding::warn(
                CHECK,
                format!(
                    "setup, or its undo, ended half-way (or somebody took back by hand what it did last): it was to {what}"
                ),
                "`bulkhead setup` goes on with it, and `bulkhead setup --undo` takes everything back",
            )),
            Err(why) => {
                Some(Finding::warn(CHECK, "not looked at: whether a setup ended half-way", why))
            }
        }
    }

    /// Looks at images, each with the lock of who installs or removes it.
    fn images(&self) -> Vec<(PathBuf, Finding)> {
        // What cannot be read is the finding `image`.
        let mut left = ImageStore::at(&self.layout.images).interrupted().unwrap_or_default();
        let lock = |name: &ImageName| self.layout.images.join(name.as_str()).join(".installing");
        left.retain(|(name, _)| !self.locks.has(&lock(name)));
        let finding = |(name, place): (ImageName, PathBuf)| {
            let finding = Finding::warn(
                CHECK,
                format!(
                    "installing or removing an image was interrupted, and left {} ({} MiB)",
                    place.display(),
                    size(&place) >> 20
                ),
                format!(
                    "`bulkhead images install` with its bundle goes on; to give it up: `rm -r {}`",
                    place.display()
                ),
            );
            (lock(&name), finding.of(name.as_str()))
        };
        left.into_iter().map(finding).collect()
    }

    fn program(&self) -> Option<Finding> {
        let store = ProgramStore::at(&self.layout.programs());
        if self.locks.has(&store.lock_file()) {
            return None;
        }
        // A record that cannot be read is the finding `program`.
        let left = store.left_over().unwrap_or_default();
        (!left.is_empty()).then(|| {
            let paths = named(left.iter().map(|path| path.display()));
            Finding::warn(
                CHECK,
                format!("copying a bundle of Bulkhead's own was interrupted, and left {paths}"),
                "the next `bulkhead program install` removes it, and so does `systemctl start bulkhead-update`",
            )
        })
    }

    fn groups(&self) -> Running {
        let mounts = self.system.proc_text("self/mounts").unwrap_or_default();
        let mount = cgroup_mount(&mounts).map(PathBuf::from);
        let look = || match &mount {
            Some(mount) => RunningGroups::look(mount, &self.layout.runtime),
            None => RunningGroups::default(),
        };
        let names = |groups: &RunningGroups| -> Vec<String> {
            groups.domains.iter().map(|(name, _)| name.clone()).collect()
        };
        let first = look();
        let unrecorded: Vec<ProcessGroup> =
            first.unrecorded(self.layout).into_iter().map(|(_, group)| group.clone()).collect();
        let domains = names(&first).into_iter().collect();
        let mut found = Running { domains, unrecorded: Vec::new(), workers: Vec::new() };
        let workers = !first.workers.is_empty() && !self.agent_runs();
        if !workers && unrecorded.is_empty() {
            return found;
        }
        // A VMM that is started is in its group before its record is written, and workers end after their agent.
        (self.pause)();
        let second = look();
        found.domains.extend(names(&second));
        for (domain, group) in second.unrecorded(self.layout) {
            let group = seen_twice(&unrecorded, group);
            found.unrecorded.extend(group.map(|group| (domain.clone(), group)));
        }
        let workers = second.workers.iter();
        found.workers = workers.filter_map(|it| seen_twice(&first.workers, it)).collect();
        found
    }

    /// Looks at processes of domains that no record names, and at workers of no agent.
    fn processes(&self, groups: &Running) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (domain, group) in &groups.unrecorded {
            let (start, rest) = match self.agent_runs() {
                true => {
                    ("`systemctl restart bulkhead-agent`", ", under which the other guests run on")
                }
                false => (START, ""),
            };
            let finding = Finding::warn(
                CHECK,
                format!(
                    "processes run as this domain's VMM ({}, in {}), and no record of an agent's names them",
                    pids(group),
                    group.path.display()
                ),
                format!("{start} ends them{rest}"),
            );
            findings.push(finding.of(domain.as_str()));
        }
        if !self.agent_runs() {
            findings.extend(groups.workers.iter().map(|group| {
                Finding::warn(
                    CHECK,
                    format!(
                        "workers run ({}, in {}), and no agent does",
                        pids(group),
                        group.path.display()
                    ),
                    format!("`echo 1 > {}` ends them", group.path.join("cgroup.kill").display()),
                )
            }));
        }
        findings
    }

    /// Looks at the records of VMMs, while no agent runs.
    fn records(&self) -> Vec<Finding> {
        let record = |domain: String| {
            let file = self.layout.vmm_record(&domain);
            let finding = match Recorded::of(self.layout, &domain) {
                Recorded::Nothing => return None,
                Recorded::Runs(pid) if self.has_domain(&domain) == Some(false) => Finding::warn(
                    CHECK,
                    format!(
                        "its guest runs (process {pid}), machine.toml has no such domain, and no agent runs"
                    ),
                    format!("{START} shuts it down"),
                ),
                Recorded::Runs(pid) => Finding::warn(
                    CHECK,
                    format!(
                        "its guest runs (process {pid}), and no agent does: it has neither screen nor keyboard"
                    ),
                    format!(
                        "{START} takes it up; `systemctl stop bulkhead-agent` then shuts it down"
                    ),
                ),
                Recorded::Ended => Finding::warn(
                    CHECK,
                    format!("{} names a VMM that has ended, and no agent runs", file.display()),
                    format!("{START} starts the domain anew, and its log says how the VMM ended"),
                ),
                Recorded::Unreadable => Finding::warn(
                    CHECK,
                    format!("{} is no record that can be read, and no agent runs", file.display()),
                    format!("{START} ends what is left of that VMM, and starts the domain anew"),
                ),
            };
            Some(finding.of(domain))
        };
        remains::domains_with_folders(self.layout).into_iter().filter_map(record).collect()
    }

    /// Looks at what domains wrote to disks that forget, while no agent runs and the domain does not.
    fn copies(&self) -> Vec<Finding> {
        let mut left = remains::domains_with_copies(self.layout);
        left.retain(|domain| {
            matches!(Recorded::of(self.layout, domain), Recorded::Nothing | Recorded::Ended)
        });
        let finding = |domain: String| {
            let folder = self.layout.discard(&domain);
            let finding = Finding::warn(
                CHECK,
                format!(
                    "what was written to its disks that forget is still there, in {} ({} MiB): no agent runs, and neither does the domain",
                    folder.display(),
                    size(&folder) >> 20
                ),
                format!("`rm -r {}`; its next start makes them anew", folder.display()),
            );
            finding.of(domain)
        };
        left.into_iter().map(finding).collect()
    }

    /// Looks at folders with sockets of domains that there are not any more, while no agent runs.
    fn folders(&self, groups: &Running) -> Vec<Finding> {
        let runs = |domain: &str| groups.domains.contains(domain);
        let mut left = remains::domains_with_folders(self.layout);
        left.retain(|domain| {
            let is_nobodys = self.has_domain(domain) == Some(false) && !runs(domain);
            is_nobodys && !self.layout.vmm_record(domain).exists()
        });
        let finding = |domain: String| {
            let folder = self.layout.domain(&domain);
            let finding = Finding::warn(
                CHECK,
                format!("{} is left of a domain that machine.toml does not have", folder.display()),
                format!(
                    "`rm -r {}`; after the next start of the PC it is gone by itself",
                    folder.display()
                ),
            );
            finding.of(domain)
        };
        left.into_iter().map(finding).collect()
    }

    /// Looks at PCI functions that are kept from the host, and that no domain is to have; where no agent runs, with its lock.
    fn functions(&self, no_agent: Option<&Path>, left: &mut Left) {
        let Some(machine) = self.machine else { return };
        let sysfs = &self.system.sysfs;
        let record = Handover::open(
            sysfs.clone(),
            &self.layout.handover_record(),
            &self.layout.handover_fallback(),
        );
        let handed_over = match record {
            Ok(handover) => handover.handed_over(),
            Err(error) => {
                let what = "not looked at: which PCI functions are kept from the host for nobody";
                left.add(None, [Finding::warn(CHECK, what, printable::explain(&error))]);
                return;
            }
        };
        let claims = machine.claims().domains;
        // What is in a group with a function that is handed over goes with it.
        let groups: BTreeSet<u32> = claims
            .keys()
            .filter_map(|address| Some(sysfs.inspect(*address).ok()?.group?.number))
            .collect();
        let external = machine.domains.iter().any(|domain| matches!(domain.kind, Kind::External));
        let is_kept = |function: &Function| {
            [&function.driver, &function.driver_override]
                .into_iter()
                .any(|name| name.as_deref() == Some(VFIO_PCI))
        };
        let functions = sysfs.functions().into_iter().filter(|it| !claims.contains_key(it));
        let kept = functions.filter_map(|address| sysfs.inspect(address).ok()).filter(is_kept);
        let kept =
            kept.filter(|it| it.group.as_ref().is_none_or(|it| !groups.contains(&it.number)));
        let finding = |function: Function| {
            let what = function.describe();
            let (what, remedy) = match handed_over.get(&function.address) {
                Some(_) if self.agent_runs() => return None,
                Some(former) => (
                    format!(
                        "{what} was handed to {}, and machine.toml gives it to nobody; no agent runs",
                        printable::line(&former.domain).up_to(64)
                    ),
                    format!("{START} gives it back to the host, and so does a restart of the PC"),
                ),
                // The VMM of an external domain, or whoever runs it, may have set it aside.
                None if external => return None,
                None => {
                    let device = sysfs.pci_device(function.address);
                    (
                        format!(
                            "{what} is kept for vfio-pci, and neither machine.toml nor what the agent has written down of its hand-overs names it: the host cannot use it, and nobody does"
                        ),
                        format!(
                            "name it in machine.toml; or restart the PC, which gives it back to the host unless something else keeps it (`grep -r vfio-pci /etc/modprobe.d /proc/cmdline`); without a restart: `echo > {0}/driver_override; echo {1} > {0}/driver/unbind; echo {1} > /sys/bus/pci/drivers_probe`",
                            device.display(),
                            function.address
                        ),
                    )
                }
            };
            Some(Finding::warn(CHECK, what, remedy).of(function.address.to_string()))
        };
        left.add(no_agent, kept.filter_map(finding));
    }
}

fn pids(group: &ProcessGroup) -> String {
    let what = if group.processes.len() == 1 { "process" } else { "processes" };
    format!("{what} {}", named(&group.processes))
}

/// Returns the first of several things, and how many more there are.
fn named<T: std::fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    let mut all = all.into_iter();
    let mut named: Vec<String> = all.by_ref().take(NAMED_MAX).map(|it| it.to_string()).collect();
    match all.count() {
        0 => {}
        more => named.push(format!("{more} more")),
    }
    named.join(", ")
}

/// Returns what the files in a folder take on the disk, in bytes.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(FILES_MAX);
    let sizes = entries.filter_map(|entry| entry.metadata().ok());
    sizes.fold(0, |sum, file| sum.saturating_add(file.blocks().saturating_mul(512)))
}
