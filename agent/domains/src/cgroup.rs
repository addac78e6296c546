//! One cgroup (version 2) for each VMM, so that a flood or a miner in one domain leaves the other
//! responsive. The file names are the kernel's `Documentation/admin-guide/cgroup-v2.rst`.
//!
//! The domains' groups stand in one that is named after the runtime directory, of which there is one agent: `bulkhead-run-bulkhead`.
//! Under systemd it stands beside the service's own, in its slice, and otherwise at the top. It is not within the service's: what a VMM
//! runs in has to be there while no agent is, and systemd could start no agent in a group that has groups with controllers in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::pressure::{self, Resource};

/// `cpu.weight` and the weight of its I/O of a domain of high priority; the kernel's default is 100, and a thousand the most that bfq takes.
const WEIGHT_HIGH: u32 = 1000;
const WEIGHT_NORMAL: u32 = 100;
/// Processes and threads of one VMM: a few for each vCPU and device.
const PIDS_MAX: u32 = 256;
/// Memory of a VMM beyond its guest's: its own, its disks' page cache, the kernel's on its behalf.
const OVERHEAD_MAX: u64 = 256 << 20;
/// Its frame memory: that of the screen it had and that of the one it is given.
const FRAMES_MAX: u64 = 2 * seat_link::Size::FRAME_BYTES_MAX;
/// The kernel's share grows with the guest (page and IOMMU tables): one part in this many.
const OVERHEAD_SHARE: u64 = 64;
/// How much of a guest's memory the kernel may write to swap.
const SWAP_MAX: &str = "memory.swap.max";
/// The weight of a domain's I/O, where a disk has the scheduler bfq, or where the kernel's cost model (`io.cost.qos`) is on. A kernel has one, both
/// or neither of the files; which of them counts is each disk's own.
const IO_WEIGHT: &str = "io.weight";
const IO_BFQ_WEIGHT: &str = "io.bfq.weight";
/// Lists where the kernel swaps to; missing in a kernel that cannot swap.
const SWAPS: &str = "/proc/swaps";
/// What the group of what decodes pictures weighs beside the agent's and that of all domains, of 100 each.
const WEIGHT_WORKERS: u32 = 50;
/// What the workers of all domains weigh together beside those: little, as the weight of a group whose only thread spins counts whole on that processor, and that of
/// the domains is spread over theirs.
const WEIGHT_DOMAIN_WORKERS: u32 = 25;
/// A group's share of the processors, beside those in the same folder.
const WEIGHT: &str = "cpu.weight";
/// One processor's time: microseconds in each 100 ms.
const ONE_PROCESSOR: &str = "100000 100000";
/// Processes in the workers' group to which no other may be added by what is in there. Workers enter it from outside, which this does not count.
const WORKERS_FORK_MAX: &str = "1";
/// Threads in the group of one domain's workers: one for its clipboard, a few for each USB device.
const DOMAIN_WORKERS_PIDS_MAX: u32 = 128;
/// Memory of one domain's workers together, in bytes: what was copied (32 MiB), what is on its way to and from four USB devices (1 MiB each with the device, and a
/// few on either side of it), and some MiB for each process.
const DOMAIN_WORKERS_MEMORY_MAX: u64 = 256 << 20;
/// Controllers the domains' groups use.
const CONTROLLERS: [&str; 5] = ["cpu", "cpuset", "memory", "io", "pids"];
/// The processors that run what is in a group.
const CPUSET: &str = "cpuset.cpus";

/// The cgroups' folders below which those of domains and of workers are made.
#[derive(Debug)]
pub struct Cgroups {
    base: PathBuf,
    /// That of what decodes pictures. Beside the domains', among which an agent looks for guests.
    workers: PathBuf,
    /// That in which each domain's workers have a group.
    domain_workers: PathBuf,
}

/// Why there are no cgroups.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No version 2 hierarchy.
    #[error(
        "no cgroup version 2 hierarchy is mounted: boot with systemd.unified_cgroup_hierarchy=1, or mount it on /sys/fs/cgroup"
    )]
    NotMounted,
    /// The kernel refused to make, read or write it.
    #[error("cannot use the cgroup {}: run the agent as root, with Delegate=yes in its systemd unit", path.display())]
    Refused {
        /// The file or directory.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The cgroup that a domain's VMM runs in.
#[derive(Debug)]
pub struct DomainGroup {
    path: PathBuf,
}

/// What a domain may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Its guest's memory, in bytes.
    pub memory: u64,
    /// Whether it goes before other domains where processor time, memory or disk are short.
    pub high_priority: bool,
}

impl Cgroups {
    /// Finds the hierarchy and makes the base group. The caller holds the lock of `runtime`.
    pub fn open(runtime: &Path) -> Result<Self, CgroupError> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let mount = mount_point(&mounts).ok_or(CgroupError::NotMounted)?;
        let parent = slice(&own).map_or(mount.clone(), |slice| mount.join(slice));
        let base = parent.join(group_of(runtime));
        make(&base)?;
        enable_controllers(&parent);
        enable_controllers(&base);
        let workers = parent.join(workers_of(runtime));
        let domain_workers = parent.join(domain_workers_of(runtime));
        Ok(Self { base, workers, domain_workers })
    }

    /// Makes a domain's group, or finds it again. Limits whose controller is missing are left out
    /// and named in the second part.
    pub fn domain(
        &self,
        name: &str,
        limits: Limits,
    ) -> Result<(DomainGroup, Vec<&'static str>), CgroupError> {
        let path = self.base.join(name);
        make(&path)?;
        let missing = limit(&path, settings(limits));
        Ok((DomainGroup { path }, one_weight_suffices(missing)))
    }

    /// Makes the group of what decodes pictures, or finds it again: all of an agent's workers together have `memory` bytes, and one
    /// processor's time. Limits whose controller is missing are left out and named in the second part.
    ///
    /// # Errors
    /// The kernel refuses the group.
    pub fn workers(&self, memory: u64) -> Result<(&Path, Vec<&'static str>), CgroupError> {
        make(&self.workers)?;
        let missing = limit(&self.workers, worker_settings(memory, WORKERS_FORK_MAX.to_owned()));
        Ok((&self.workers, missing))
    }

    /// Makes the group of the workers that read this domain's guest, or finds it again: all of them together have their own memory and one processor's time,
    /// which they take from no other domain's, on the processors that its VMM is kept to (`cpus`, as `cpuset.cpus` takes them). Limits whose controller is
    /// missing are left out and named in the second part.
    ///
    /// The workers of all domains weigh little beside the domains. They have no processor time together: what one domain's used up of it, another's would wait for.
    ///
    /// # Errors
    /// The kernel refuses the group.
    pub fn workers_of_domain(
        &self,
        name: &str,
        cpus: Option<&str>,
    ) -> Result<(PathBuf, Vec<&'static str>), CgroupError> {
        make(&self.domain_workers)?;
        enable_controllers(&self.domain_workers);
        let mut missing =
            limit(&self.domain_workers, [(WEIGHT, WEIGHT_DOMAIN_WORKERS.to_string())]);
        let path = self.domain_workers.join(name);
        make(&path)?;
        let settings =
            worker_settings(DOMAIN_WORKERS_MEMORY_MAX, DOMAIN_WORKERS_PIDS_MAX.to_string());
        missing.extend(limit(&path, settings));
        missing.dedup();
        let group = DomainGroup { path };
        if group.keep_to(cpus).is_err() {
            missing.push(CPUSET);
        }
        Ok((group.path, missing))
    }

    /// Finds a domain's group, with the limits it has.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<DomainGroup> {
        let path = self.base.join(name);
        path.is_dir().then_some(DomainGroup { path })
    }

    /// Returns the domains that have groups, left by an earlier agent too.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.base).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.filter_map(|group| group.file_name().into_string().ok()).collect()
    }

    /// Returns the processes in a domain's group, left by an earlier agent.
    #[must_use]
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let text = fs::read_to_string(self.base.join(name).join("cgroup.procs"));
        text.unwrap_or_default().lines().filter_map(|line| line.parse().ok()).collect()
    }
}

impl Drop for Cgroups {
    /// Removes the groups that are empty: that of the domains if no guest runs on.
    fn drop(&mut self) {
        let of_domains = fs::read_dir(&self.domain_workers).into_iter().flatten().flatten();
        let of_domains = of_domains.map(|group| group.path()).filter(|path| path.is_dir());
        let groups = [&self.domain_workers, &self.workers, &self.base].into_iter().cloned();
        for group in of_domains.chain(groups.filter(|group| group.is_dir())) {
            if let Err(error) = fs::remove_dir(&group) {
                tracing::debug!(group = %group.display(), "not removed: {error}");
            }
        }
    }
}

impl DomainGroup {
    /// Keeps what is in it to these processors, as `cpuset.cpus` takes them; with none to those that the group above has.
    ///
    /// # Errors
    /// There is no such controller, or no such processor.
    pub fn keep_to(&self, cpus: Option<&str>) -> Result<(), CgroupError> {
        let file = self.path.join(CPUSET);
        match cpus {
            Some(cpus) => write(&file, cpus),
            None if file.exists() => write(&file, "\n"),
            None => Ok(()),
        }
    }

    /// Moves a process into it.
    pub fn add(&self, pid: i32) -> Result<(), CgroupError> {
        write(&self.path.join("cgroup.procs"), &pid.to_string())
    }

    /// Returns the percentage of the last minute in which something in it waited for a resource.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub fn pressure(&self, resource: Resource) -> io::Result<u8> {
        let text = fs::read_to_string(self.path.join(resource.file()))?;
        pressure::percentage(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// Kills whatever is in it (kernel 5.14).
    pub fn kill(&self) {
        if let Err(error) = write(&self.path.join("cgroup.kill"), "1") {
            tracing::debug!("{error}");
        }
    }

    /// Removes it; it is empty.
    pub fn remove(&self) {
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::debug!(group = %self.path.display(), "not removed: {error}");
        }
    }
}

fn settings(limits: Limits) -> Vec<(&'static str, String)> {
    let weight = if limits.high_priority { WEIGHT_HIGH } else { WEIGHT_NORMAL };
    let ceiling = limits.memory + limits.memory / OVERHEAD_SHARE + OVERHEAD_MAX + FRAMES_MAX;
    vec![
        (WEIGHT, weight.to_string()),
        (IO_WEIGHT, format!("default {weight}")),
        (IO_BFQ_WEIGHT, format!("default {weight}")),
        ("memory.max", ceiling.to_string()),
        // What a domain of high priority has is not taken from it when another is greedy.
        ("memory.low", if limits.high_priority { limits.memory } else { 0 }.to_string()),
        // What a patient's desktop holds in memory is written to no disk of the host's.
        (SWAP_MAX, "0".to_owned()),
        ("memory.oom.group", "1".to_owned()),
        ("pids.max", PIDS_MAX.to_string()),
    ]
}

/// Writes the limits of a group; returns the files of those that the kernel does not have.
fn limit(
    group: &Path,
    settings: impl IntoIterator<Item = (&'static str, String)>,
) -> Vec<&'static str> {
    let mut missing = Vec::new();
    let swaps = Path::new(SWAPS).exists();
    for (file, value) in settings {
        let needless = file == SWAP_MAX && !swaps;
        if write(&group.join(file), &value).is_err() && !needless {
            missing.push(file);
        }
    }
    missing
}

fn worker_settings(memory: u64, pids: String) -> [(&'static str, String); 5] {
    [
        (WEIGHT, WEIGHT_WORKERS.to_string()),
        ("cpu.max", ONE_PROCESSOR.to_owned()),
        ("memory.max", memory.to_string()),
        // What was copied in a desktop is written to no disk of the host's.
        (SWAP_MAX, "0".to_owned()),
        ("pids.max", pids),
    ]
}

/// Returns what is missing: of the two files with the weight of I/O neither is if there is one.
fn one_weight_suffices(mut missing: Vec<&'static str>) -> Vec<&'static str> {
    let has = |file| !missing.contains(&file);
    let (cost, bfq) = (has(IO_WEIGHT), has(IO_BFQ_WEIGHT));
    missing.retain(|file| *file != IO_BFQ_WEIGHT && (*file != IO_WEIGHT || !(cost || bfq)));
    missing
}

/// Returns the mount point of the version 2 hierarchy, from `/proc/self/mounts`.
fn mount_point(mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (point, kind) = (fields.nth(1)?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(point))
    })
}

/// Returns the slice of the systemd service the agent runs in, relative to the mount point, from `/proc/self/cgroup`.
fn slice(own: &str) -> Option<PathBuf> {
    let path = Path::new(own.lines().find_map(|line| line.strip_prefix("0::/"))?);
    let service = path.extension().is_some_and(|kind| kind == "service");
    path.parent().filter(|_| service).map(Path::to_owned)
}

/// Returns the name of the group of an agent's domains.
pub(super) fn group_of(runtime: &Path) -> String {
    format!("bulkhead{}", runtime.display().to_string().replace('/', "-"))
}

/// Returns the name of the group of an agent's workers, which is no group of domains, whatever the runtime directory.
pub(super) fn workers_of(runtime: &Path) -> String {
    format!("bulkhead.workers{}", runtime.display().to_string().replace('/', "-"))
}

/// Returns the name of the group in which each domain's workers have one.
pub(super) fn domain_workers_of(runtime: &Path) -> String {
    format!("bulkhead.workers.domains{}", runtime.display().to_string().replace('/', "-"))
}

fn enable_controllers(group: &Path) {
    for controller in CONTROLLERS {
        // Each by itself: one that the kernel lacks must not cost the others.
        if let Err(error) = write(&group.join("cgroup.subtree_control"), &format!("+{controller}"))
        {
            tracing::debug!(controller, "controller not enabled: {error}");
        }
    }
}

fn make(path: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => {
            Err(CgroupError::Refused { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn write(file: &Path, text: &str) -> Result<(), CgroupError> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(file)
        .and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    written.map_err(|source| CgroupError::Refused { path: file.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn under_systemd_the_groups_stand_beside_the_service_and_elsewhere_at_the_top() {
        let service = "0::/bulkhead.slice/bulkhead-agent.service\n";
        assert_eq!(slice(service), Some("bulkhead.slice".into()));
        assert_eq!(slice("0::/bulkhead-agent.service\n"), Some("".into()));
        assert_eq!(slice("0::/user.slice/session-3.scope\n"), None);
        assert_eq!(slice("1:cpu:/x\n0::/\n"), None);
        assert_eq!(group_of(Path::new("/run/bulkhead")), "bulkhead-run-bulkhead");
        assert_eq!(workers_of(Path::new("/run/bulkhead")), "bulkhead.workers-run-bulkhead");
    }

    #[test]
    fn workers_have_a_group_beside_the_domains_with_every_limit_and_it_goes_with_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        let (base, workers) = (dir.path().join("domains"), dir.path().join("workers"));
        fs::create_dir(&base).unwrap();
        let domain_workers = dir.path().join("domain-workers");
        let cgroups = Cgroups { base: base.clone(), workers: workers.clone(), domain_workers };
        fs::create_dir(&workers).unwrap();
        let files = ["cpu.weight", "cpu.max", "memory.max", SWAP_MAX, "pids.max"];
        for file in files {
            fs::write(workers.join(file), "").unwrap();
        }
        let (at, missing) = cgroups.workers(1 << 30).unwrap();
        assert_eq!((at, missing), (&*workers, vec![]));
        let values = files.map(|file| fs::read_to_string(workers.join(file)).unwrap());
        assert_eq!(values, ["50", "100000 100000", "1073741824", "0", "1"]);
        fs::remove_file(workers.join("cpu.max")).unwrap();
        assert_eq!(cgroups.workers(1 << 30).unwrap().1, ["cpu.max"]);
        // Nothing that an agent looks for guests in.
        assert!(cgroups.names().is_empty());
        for file in files {
            let _ = fs::remove_file(workers.join(file));
        }
        drop(cgroups);
        assert!(!workers.exists() && !base.exists());
    }

    #[test]
    fn each_domains_workers_have_a_group_of_their_own_beside_the_domains_and_it_goes_with_the_agent()
     {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (base, workers, domain_workers) = (at("domains"), at("workers"), at("domain-workers"));
        fs::create_dir(&base).unwrap();
        let cgroups = Cgroups { base, workers, domain_workers: domain_workers.clone() };
        let files = [WEIGHT, "cpu.max", "memory.max", SWAP_MAX, "pids.max", CPUSET];
        fs::create_dir(&domain_workers).unwrap();
        // What all of them weigh counts among the domains; what one of them does, among them.
        fs::write(domain_workers.join(WEIGHT), "").unwrap();
        for (name, cpus, kept) in [("clinical", Some("2-3"), "2-3"), ("internet", None, "\n")] {
            fs::create_dir_all(domain_workers.join(name)).unwrap();
            files
                .iter()
                .for_each(|file| fs::write(domain_workers.join(name).join(file), "").unwrap());
            let (path, missing) = cgroups.workers_of_domain(name, cpus).unwrap();
            assert_eq!((&path, missing), (&domain_workers.join(name), vec![]));
            let values = files.map(|file| fs::read_to_string(path.join(file)).unwrap());
            assert_eq!(values, ["50", "100000 100000", "268435456", "0", "128", kept]);
            files.iter().for_each(|file| fs::remove_file(path.join(file)).unwrap());
        }
        assert_eq!(fs::read_to_string(domain_workers.join(WEIGHT)).unwrap(), "25");
        fs::remove_file(domain_workers.join(WEIGHT)).unwrap();
        let lacks = cgroups.workers_of_domain("clinical", Some("2-3")).unwrap().1;
        assert!(lacks.contains(&WEIGHT) && lacks.contains(&CPUSET), "{lacks:?}");
        assert!(!cgroups.workers_of_domain("clinical", None).unwrap().1.contains(&CPUSET));
        assert!(cgroups.names().is_empty(), "no guest is looked for in there");
        drop(cgroups);
        assert!(!domain_workers.exists());
        let runtime = Path::new("/run/bulkhead");
        assert_eq!(domain_workers_of(runtime), "bulkhead.workers.domains-run-bulkhead");
    }

    #[test]
    fn the_hierarchy_is_found_among_those_of_version_one() {
        let mounts = "proc /proc proc rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_point(mounts), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_point("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn a_high_priority_domain_outweighs_a_normal_one_and_neither_exceeds_its_memory_or_is_swapped()
    {
        let memory = 4u64 << 30;
        let find = |high_priority, name| {
            let settings = settings(Limits { memory, high_priority });
            settings.into_iter().find(|(file, _)| *file == name).unwrap().1
        };
        assert_eq!(
            (find(true, "cpu.weight"), find(false, "cpu.weight")),
            ("1000".into(), "100".into())
        );
        assert_eq!(
            (find(true, "memory.low"), find(false, "memory.low")),
            (memory.to_string(), "0".into())
        );
        for file in [IO_WEIGHT, IO_BFQ_WEIGHT] {
            assert_eq!(
                (find(true, file), find(false, file)),
                ("default 1000".into(), "default 100".into())
            );
        }
        for high_priority in [true, false] {
            assert_eq!(find(high_priority, SWAP_MAX), "0", "guest memory is never swapped");
        }
        let ceiling: u64 = find(false, "memory.max").parse().unwrap();
        assert!(ceiling > memory && ceiling < memory + memory / 4);
    }

    #[test]
    fn a_weight_of_io_is_missing_only_where_the_kernel_has_neither_of_the_two() {
        assert_eq!(one_weight_suffices(vec![IO_WEIGHT, "memory.max"]), ["memory.max"]);
        assert_eq!(one_weight_suffices(vec![IO_BFQ_WEIGHT]), [""; 0]);
        assert_eq!(one_weight_suffices(vec![IO_WEIGHT, IO_BFQ_WEIGHT]), [IO_WEIGHT]);
    }

    #[test]
    fn a_groups_pressure_is_read_from_its_files_and_none_is_made_up() {
        let dir = tempfile::tempdir().unwrap();
        let group = DomainGroup { path: dir.path().to_owned() };
        fs::write(
            dir.path().join("cpu.pressure"),
            "some avg10=1.00 avg60=42.90 avg300=0.00 total=9\n",
        )
        .unwrap();
        fs::write(dir.path().join("io.pressure"), "").unwrap();
        assert_eq!(group.pressure(Resource::Processor).unwrap(), 42);
        assert_eq!(group.pressure(Resource::Disk).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(group.pressure(Resource::Memory).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
