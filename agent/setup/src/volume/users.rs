//! Who uses the state now: an agent, a guest without one, or anybody who has a file of it open.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::Pc;

const STOP: &str = "shut the desktops down (`systemctl stop bulkhead-agent`), and run this again";
/// Folders of cgroups in which each domain has one, as the unit or an agent by hand makes them; and where there are two versions, the second's.
const CGROUPS: [&str; 4] = [
    "fs/cgroup/bulkhead.slice/bulkhead-run-bulkhead",
    "fs/cgroup/bulkhead-run-bulkhead",
    "fs/cgroup/unified/bulkhead.slice/bulkhead-run-bulkhead",
    "fs/cgroup/unified/bulkhead-run-bulkhead",
];
/// Where the agent notes which process a domain's VMM is.
const RUNTIME: &str = "run/bulkhead";
const VMM: &str = "bulkhead-vmm";
/// Largest of those notes, in bytes.
const RECORD_MAX: u64 = 64 << 10;

/// Returns why the state cannot be moved or copied now.
pub(crate) fn of(pc: &Pc, state: &Path) -> Option<String> {
    if agent_runs(state) {
        return Some(format!("bulkhead-agent runs and writes into {}: {STOP}", state.display()));
    }
    guest(pc).or_else(|| opener(pc, state, |_| true))
}

/// Returns why what lies below the mounted volume cannot be removed: somebody writes there still. Whoever uses the volume is no obstacle.
pub(super) fn of_former(pc: &Pc, state: &Path) -> Option<String> {
    let volume = fs::metadata(state).ok()?.dev();
    let is_former = |file: &Path| fs::metadata(file).is_ok_and(|file| file.dev() != volume);
    // An agent that runs now started on the volume, and so did its guests: the state is not moved while there are any.
    let guest = if agent_runs(state) { None } else { guest(pc) };
    guest.or_else(|| opener(pc, state, is_former))
}

fn agent_runs(state: &Path) -> bool {
    let Ok(directory) = fileopen::directory(state) else { return false };
    let locked = directory.try_lock();
    // A process that is being started has a copy of this descriptor, and with it the lock.
    let _ = directory.unlock();
    matches!(locked, Err(fs::TryLockError::WouldBlock))
}

/// Finds a guest, whose disks are open in a file system of its VMM's own.
fn guest(pc: &Pc) -> Option<String> {
    let in_cgroup = CGROUPS.iter().find_map(|folder| {
        let folder = pc.sysfs.path(folder);
        crate::names_in(&folder).into_iter().find_map(|domain| {
            let processes = fs::read_to_string(folder.join(domain).join("cgroup.procs")).ok()?;
            processes.lines().find(|line| !line.trim().is_empty()).map(str::to_owned)
        })
    });
    let on_record = || {
        let runtime = pc.root.join(RUNTIME);
        crate::names_in(&runtime).into_iter().find_map(|domain| {
            let record = fileopen::read(&runtime.join(domain).join("vmm.json"), RECORD_MAX).ok()?;
            let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
            let process = record.get("identity")?.get("pid")?.as_u64()?.to_string();
            // The process of that number may be another one by now.
            let program = fs::read_link(pc.sysfs.proc(&format!("{process}/exe"))).ok()?;
            let name = program.file_name()?.to_str()?.trim_end_matches(" (deleted)");
            (name == VMM).then_some(process)
        })
    };
    let process = in_cgroup.or_else(on_record)?;
    Some(format!(
        "a guest runs without an agent (process {}): `systemctl start bulkhead-agent` brings its screen back; then {STOP}",
        printable::line(&process)
    ))
}

/// Finds a process that has one of those files open.
fn opener(pc: &Pc, state: &Path, counts: impl Fn(&Path) -> bool) -> Option<String> {
    let own = std::process::id().to_string();
    let is_process = |name: &String| name.bytes().all(|byte| byte.is_ascii_digit()) && *name != own;
    let processes = crate::names_in(&pc.sysfs.proc("")).into_iter().filter(is_process);
    processes.into_iter().find_map(|process| {
        let folder = pc.sysfs.proc(&format!("{process}/fd"));
        let files = crate::names_in(&folder).into_iter().map(|file| folder.join(file));
        let open = |file: PathBuf| {
            let open = fs::read_link(&file).ok()?;
            (open.starts_with(state) && counts(&file)).then_some(open)
        };
        let open = files.into_iter().find_map(open)?;
        let program = pc.proc_text(&format!("{process}/comm"));
        Some(format!(
            "{} ({process}) has {} open: {STOP}",
            printable::line(program.trim()),
            open.display()
        ))
    })
}
