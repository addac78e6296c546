//! What earlier agents left running, for somebody who only looks: no group is made, no socket connected, no process signalled.
//!
//! Processes are found by the cgroups that agents put them in, which are named after the runtime directory ([`super::cgroup`]). Where there are none (no cgroup version
//! 2), nothing is found.

use std::fs;
use std::path::{Path, PathBuf};

use super::cgroup::{domain_workers_of, group_of, workers_of};
use super::process::{VmmProcess, start_time};
use super::record::VmmRecord;
use base::layout::Layout;

/// Slices within slices below the mount point in which agents' groups are looked for.
const SLICES_DEEP: usize = 3;
/// Groups, processes of one group, and folders that are looked at.
const LOOKED_AT_MAX: usize = 256;

/// A cgroup with processes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessGroup {
    pub path: PathBuf,
    /// Process numbers, in order; threads of the kernel are none.
    pub processes: Vec<i32>,
}

/// What runs in the groups of agents that had one runtime directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunningGroups {
    /// The domains whose VMMs, or whatever is in their groups, run.
    pub domains: Vec<(String, ProcessGroup)>,
    /// Groups in which workers run.
    pub workers: Vec<ProcessGroup>,
}

impl RunningGroups {
    /// Looks below the mount point of the cgroup hierarchy (version 2).
    #[must_use]
    pub fn look(mount: &Path, runtime: &Path) -> Self {
        let mut found = Self::default();
        let mut slices = Vec::new();
        add_slices(mount, SLICES_DEEP, &mut slices);
        for slice in slices {
            for group in folders(&slice.join(group_of(runtime))) {
                let name = group.file_name().and_then(|name| name.to_str()).map(str::to_owned);
                found.domains.extend(name.zip(running_in(&group)));
            }
            let of_domains = folders(&slice.join(domain_workers_of(runtime)));
            let workers = [slice.join(workers_of(runtime))].into_iter().chain(of_domains);
            found.workers.extend(workers.filter_map(|group| running_in(&group)));
        }
        found
    }

    /// Returns the domains' groups in which no process is the one of its domain's record.
    #[must_use]
    pub fn unrecorded(&self, layout: &Layout) -> Vec<&(String, ProcessGroup)> {
        let is_recorded =
            |(domain, group): &&(String, ProcessGroup)| match Recorded::of(layout, domain) {
                Recorded::Runs(pid) => group.processes.contains(&pid),
                Recorded::Nothing | Recorded::Unreadable | Recorded::Ended => false,
            };
        self.domains.iter().filter(|group| !is_recorded(group)).collect()
    }
}

/// What the record of a domain's VMM says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// There is none of this boot.
    Nothing,
    /// It cannot be read.
    Unreadable,
    /// Its process runs, by this number.
    Runs(i32),
    /// Its process has ended.
    Ended,
}

impl Recorded {
    /// Reads the record of a domain.
    #[must_use]
    pub fn of(layout: &Layout, domain: &str) -> Self {
        let record = match VmmRecord::read(layout, domain) {
            Ok(Some(record)) => record,
            Ok(None) => return Self::Nothing,
            Err(_) => return Self::Unreadable,
        };
        let found = VmmProcess::find(record.identity);
        match found.filter(|vmm| record.is_of(vmm) || record.may_be_of(vmm)) {
            Some(_) => Self::Runs(record.identity.pid),
            None => Self::Ended,
        }
    }
}

/// Returns the names of the domains that have a folder in the runtime directory, in order.
#[must_use]
pub fn domains_with_folders(layout: &Layout) -> Vec<String> {
    names_of(folders(&layout.runtime))
}

/// Returns the names of the domains that have copies of disks that forget, in order.
#[must_use]
pub fn domains_with_copies(layout: &Layout) -> Vec<String> {
    names_of(folders(&layout.discards()))
}

fn names_of(folders: Vec<PathBuf>) -> Vec<String> {
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    folders.into_iter().filter_map(name).collect()
}

/// Returns what is a folder in this one, in order.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    // What a link leads to is somebody else's.
    let entries = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).take(LOOKED_AT_MAX).collect();
    found.sort_unstable();
    found
}

/// Adds a group, and the slices in it.
fn add_slices(group: &Path, deep: usize, found: &mut Vec<PathBuf>) {
    found.push(group.to_owned());
    let Some(deep) = deep.checked_sub(1) else { return };
    let slices = folders(group).into_iter();
    for slice in slices.filter(|path| path.extension().is_some_and(|kind| kind == "slice")) {
        if found.len() < LOOKED_AT_MAX {
            add_slices(&slice, deep, found);
        }
    }
}

/// Returns a group if processes run in it.
fn running_in(group: &Path) -> Option<ProcessGroup> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let numbers = text.lines().filter_map(|line| line.parse().ok());
    let mut processes: Vec<i32> =
        numbers.filter(|pid| start_time(*pid).is_some()).take(LOOKED_AT_MAX).collect();
    processes.sort_unstable();
    (!processes.is_empty()).then(|| ProcessGroup { path: group.to_owned(), processes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Capture;
    use crate::record::LaunchRecord;

    #[test]
    fn what_runs_is_found_in_every_slice_and_held_against_the_records() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let runtime = PathBuf::from("/run/bulkhead");
        let group = |path: &str, processes: &str| {
            fs::create_dir_all(at(path)).unwrap();
            fs::write(at(path).join("cgroup.procs"), processes).unwrap();
        };
        assert_eq!(RunningGroups::look(&at("cgroup"), &runtime), RunningGroups::default());
        let own = std::process::id();
        let mine = i32::try_from(own).unwrap();
        group("cgroup/bulkhead-run-bulkhead/clinical", &format!("{own}\n2147483647\nx\n"));
        group("cgroup/bulkhead-run-bulkhead/off", "");
        group("cgroup/bulkhead-run-other/clinical", &format!("{own}\n"));
        group("cgroup/a.slice/b.slice/bulkhead-run-bulkhead/internet", &format!("{own}\n"));
        group("cgroup/a.slice/bulkhead.workers-run-bulkhead", &format!("{own}\n"));
        group("cgroup/a.slice/bulkhead.workers.domains-run-bulkhead/clinical", &format!("{own}\n"));
        let found = RunningGroups::look(&at("cgroup"), &runtime);
        let names: Vec<&str> = found.domains.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["clinical", "internet"]);
        assert!(found.domains.iter().all(|(_, group)| group.processes == [mine]));
        assert_eq!(found.workers.len(), 2);
    }

    #[test]
    fn a_record_says_whether_its_process_runs_and_that_process_belongs_to_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["clinical"]).unwrap();
        assert_eq!(Recorded::of(&layout, "clinical"), Recorded::Nothing);
        fs::write(layout.vmm_record("clinical"), "half a reco").unwrap();
        assert_eq!(Recorded::of(&layout, "clinical"), Recorded::Unreadable);
        let (_, log) = Capture::create(&layout.vmm_log("clinical")).unwrap();
        let arguments = ["-c".into(), "read line".into()];
        let (vmm, input) = VmmProcess::start(Path::new("/bin/sh"), &arguments, log).unwrap();
        let started = LaunchRecord {
            spec: String::new(),
            sandbox_id: None,
            functions: Vec::new(),
            image: None,
        };
        VmmRecord::new("clinical", &vmm, started).write(&layout).unwrap();
        let pid = vmm.identity().pid;
        assert_eq!(Recorded::of(&layout, "clinical"), Recorded::Runs(pid));
        let groups = |pid: i32| {
            let group = ProcessGroup { path: at("group"), processes: vec![pid] };
            RunningGroups { domains: vec![("clinical".to_owned(), group)], workers: Vec::new() }
        };
        assert!(groups(pid).unrecorded(&layout).is_empty());
        assert_eq!(groups(pid + 1).unrecorded(&layout).len(), 1);
        drop(input);
        while vmm.is_alive() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        assert_eq!(Recorded::of(&layout, "clinical"), Recorded::Ended);
        assert_eq!(groups(pid).unrecorded(&layout).len(), 1);
        assert_eq!(domains_with_folders(&layout), ["clinical"]);
        assert!(domains_with_copies(&layout).is_empty());
    }
}
