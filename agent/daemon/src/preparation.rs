//! Start-up checks and recovery.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use audit::DirectoryLock;
use clock::Moment;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};

use super::DaemonError;
use super::mediators::Mediators;
use base::layout::{Layout, SOCKET_PATH_MAX};
use config::machine::{Kind, Machine};
use domains::{Supervisor, capture, leftovers};
use handover::PciAddress;
use handover::handover::Handover;
use handover::sysfs::Sysfs;
use printable::explain;

pub(super) fn check_socket_paths(machine: &Machine, layout: &Layout) -> Result<(), DaemonError> {
    let mut paths = vec![layout.control_socket()];
    for domain in &machine.domains {
        paths.push(layout.vmm_socket(&domain.name));
        if let Kind::Vm(vm) = &domain.kind {
            paths.extend(vm.ports.iter().map(|port| layout.port_socket(&domain.name, port)));
        }
        paths.extend(Mediators::sockets(layout, domain));
    }
    match paths.into_iter().find(|path| path.as_os_str().len() > SOCKET_PATH_MAX) {
        Some(path) => Err(DaemonError::SocketPath(path)),
        None => Ok(()),
    }
}

/// One agent for each runtime directory; the kernel lets go of the lock however the agent ends. Nobody else may open its file: whoever
/// can read a file can lock it, and no desktop would start.
///
/// The lock's file says when its agent last ran, too.
pub(super) struct AgentLock {
    file: File,
    /// When an agent before this one was last known to run.
    pub(super) before: Option<SystemTime>,
    /// When its file was last told that this agent runs.
    told: Option<Moment>,
}

/// How often the lock's file is told that its agent runs.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

impl AgentLock {
    /// Notes that this agent runs.
    pub(super) fn alive(&mut self) {
        let now = Moment::now();
        if self.told.is_none_or(|told| now >= told + ALIVE_EVERY) {
            self.told = Some(now);
            // It is for the length of a gap alone, which is then not known.
            let _ = self.file.set_modified(SystemTime::now());
        }
    }
}

/// Takes the lock.
pub(super) fn lock(layout: &Layout) -> Result<AgentLock, DaemonError> {
    let path = layout.lock();
    let failed = |source| DaemonError::Lock { path: path.clone(), source };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = fileopen::regular_with(&path, &mut options).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(16).read_to_string(&mut pid);
            return Err(DaemonError::AnotherAgent { pid: pid.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    // One that was just made says nothing of an agent before.
    let before = file.metadata().ok().filter(|metadata| metadata.len() > 0);
    let before = before.and_then(|metadata| metadata.modified().ok());
    // While no agent ran, a VMM that was taken over may have taken all the room there is.
    cut_logs(layout);
    if let Err(error) = write_pid(&file, before) {
        tracing::warn!("{} does not say which agent runs: {error}", path.display());
    }
    Ok(AgentLock { file, before, told: None })
}

/// Writes for people who holds the lock. What was there is overwritten and not made anew: that takes no room. The time at which an agent
/// last ran stays as it was: an agent that fails before it looks at its guests has not shortened the time in which nobody did.
fn write_pid(mut file: &File, before: Option<SystemTime>) -> io::Result<()> {
    let pid = std::process::id().to_string();
    file.rewind()?;
    file.write_all(pid.as_bytes())?;
    file.set_len(pid.len().try_into().unwrap_or_default())?;
    before.map_or(Ok(()), |before| file.set_modified(before))
}

/// Cuts what VMMs said to the length that an agent would have held it to.
fn cut_logs(layout: &Layout) {
    for entry in fs::read_dir(&layout.runtime).into_iter().flatten().flatten() {
        let Ok(domain) = entry.file_name().into_string() else { continue };
        match capture::cut(&layout.vmm_log(&domain)) {
            Ok(0) => {}
            Ok(cut) => tracing::warn!(
                domain,
                "its VMM said more than its log may hold while no agent ran: {cut} bytes are cut off"
            ),
            Err(error) => tracing::warn!(domain, "its VMM's log cannot be cut: {error}"),
        }
    }
}

/// Raises the limit of locked memory: a VMM with a passed-through device locks its guest's whole memory.
pub(super) fn raise_memlock(machine: &Machine) {
    let passes_through =
        |kind: &Kind| matches!(kind, Kind::Vm(vm) if vm.pci_functions().next().is_some());
    if machine.domains.iter().any(|domain| passes_through(&domain.kind))
        && let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY)
    {
        tracing::warn!(
            "cannot raise the limit on locked memory ({error}); `bulkhead doctor` says whether it suffices"
        );
    }
}

/// Makes the state's directories and takes them for this agent alone. On a disk that is full or read-only care goes on: the audit log
/// says then why nothing crosses.
pub(super) fn take_state(layout: &Layout) -> Result<Option<DirectoryLock>, DaemonError> {
    // Locked before anything in it is changed; what is not there is nobody else's.
    let existed = layout.state.is_dir();
    if !existed && let Err(error) = layout.create_state() {
        tracing::error!("{}", explain(&error));
        return Ok(None);
    }
    let lock = match DirectoryLock::take(&layout.state) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(DaemonError::StateInUse(layout.state.clone())),
        Err(source) => return Err(DaemonError::Lock { path: layout.state.clone(), source }),
    };
    if let Err(error) = layout.create_state() {
        tracing::error!("{}", explain(&error));
    }
    Ok(Some(lock))
}

/// Opens the record of what is handed over. A record that cannot be read is put aside: a clinical desktop matters more than which driver a
/// NIC had.
pub(super) fn open_handover(layout: &Layout, machine: &Machine) -> Result<Handover, DaemonError> {
    let path = layout.handover_record();
    let open = || {
        Handover::open(Sysfs::system(), &path, &layout.handover_fallback())
            .map(|handover| handover.with_claims(machine.claims()))
    };
    let first = open();
    let Err(error) = first else { return Ok(first?) };
    let aside = path.with_extension("unreadable");
    tracing::error!("{}; it is put aside as {}", explain(&error), aside.display());
    if fs::rename(&path, &aside).is_err() {
        return Err(error.into());
    }
    Ok(open()?)
}

/// Cleans up after domains that an earlier agent had and this one has not: ends their VMMs, and gives what no domain has back to the host.
/// Both take time, which nobody waits for.
pub(super) fn clean_up_leftovers(
    layout: &Layout,
    handover: &Arc<Handover>,
    machine: &Machine,
    supervisor: &Supervisor,
) {
    let claimed: BTreeSet<PciAddress> = machine.claims().domains.into_keys().collect();
    let domains: Vec<String> =
        supervisor.domains().iter().map(|runtime| runtime.policy().name.clone()).collect();
    let (layout, handover) = (layout.clone(), handover.clone());
    let (cgroups, deadline) = (supervisor.cgroups(), machine.stop_deadline);
    let spawned = std::thread::Builder::new().name("give-back".to_owned()).spawn(move || {
        let left = leftovers::end_strays(&layout, cgroups.as_deref(), &domains, deadline);
        let kept = [domains, left].concat();
        leftovers::forget_others(&layout, &kept);
        for (address, domain) in ownerless(&handover, &kept, &claimed) {
            match handover.give_back(address, &domain) {
                Ok(_) => {
                    tracing::info!(%address, "no domain has it any more; given back to the host")
                }
                Err(error) => tracing::error!("{}", explain(&error)),
            }
        }
    });
    if let Err(error) = spawned {
        tracing::error!("cannot start a thread: {error}");
    }
}

/// Returns what is handed over and is no domain's, with the domain it was handed to: in this boot, what none of these domains has, each of
/// which gives back what it has itself; of what is left of an earlier boot, what nobody is to have.
fn ownerless(
    handover: &Handover,
    domains: &[String],
    claimed: &BTreeSet<PciAddress>,
) -> Vec<(PciAddress, String)> {
    let boot = handover.sysfs().boot();
    let mut handed_over = handover.handed_over();
    handed_over.retain(|address, former| match boot.is_some() && former.boot == boot {
        true => !domains.contains(&former.domain),
        // What goes with a function goes back with it.
        false => !claimed.contains(&former.companion_of().unwrap_or(*address)),
    });
    handed_over.into_iter().map(|(address, former)| (address, former.domain)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_may_open_the_file_that_an_agent_locks() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let layout =
            Layout { images: path("images"), state: path("state"), runtime: dir.path().to_owned() };
        // One that an earlier agent left for all to read.
        fs::write(layout.lock(), "1").unwrap();
        fs::set_permissions(layout.lock(), fs::Permissions::from_mode(0o644)).unwrap();
        let held = lock(&layout).unwrap();
        assert!(held.before.is_some());
        let mode = fs::metadata(layout.lock()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(lock(&layout), Err(DaemonError::AnotherAgent { .. })));
        drop(held);
        lock(&layout).unwrap();
    }

    /// A layout in a directory.
    fn within(dir: &std::path::Path) -> Layout {
        let path = |name: &str| dir.join(name);
        Layout { images: path("images"), state: path("state"), runtime: path("run") }
    }

    #[test]
    fn an_agent_that_fails_at_its_start_does_not_shorten_the_time_in_which_none_ran() {
        let dir = tempfile::tempdir().unwrap();
        let layout = within(dir.path());
        layout.create_runtime(&[]).unwrap();
        lock(&layout).unwrap().alive();
        let hours = Duration::from_secs(2 * 3600);
        let ended = SystemTime::now() - hours;
        File::options().write(true).open(layout.lock()).unwrap().set_modified(ended).unwrap();
        for _ in 0..2 {
            // As it is told only by its event loop.
            let held = lock(&layout).unwrap();
            assert!(held.before.unwrap().elapsed().unwrap() >= hours);
        }
        lock(&layout).unwrap().alive();
        let since = lock(&layout).unwrap().before.unwrap().elapsed().unwrap();
        assert!(since < hours / 2, "{since:?}");
    }

    #[test]
    fn an_agent_starts_though_a_vmm_has_taken_all_the_room_of_the_runtime_directory() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=4m none '{0}'; RUN='{0}' exec '{1}' --ignored --exact preparation::tests::within_a_directory_of_4_mib",
            dir.path().display(),
            own.display(),
        );
        let mut inside = std::process::Command::new("unshare");
        let ran = inside.args(["--map-root-user", "--mount", "sh", "-ec", &script]).output();
        let ran = ran.unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
    }

    #[test]
    #[ignore = "started by another test, in a file system of its own"]
    fn within_a_directory_of_4_mib() {
        let layout = within(std::path::Path::new(&std::env::var_os("RUN").unwrap()));
        layout.create_runtime(&["clinical"]).unwrap();
        let fill = |path: &std::path::Path| {
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            while file.write(&[b'x'; 4096]).is_ok() {}
        };
        for first in [true, false] {
            fill(&layout.vmm_log("clinical"));
            assert!(fs::write(layout.runtime.join("more"), [0; 4096]).is_err());
            let held = lock(&layout).unwrap();
            assert_eq!(held.before.is_none(), first);
            assert_eq!(fs::metadata(layout.vmm_log("clinical")).unwrap().len(), 0);
            drop(held);
            let ballast = layout.runtime.join("ballast");
            fill(&ballast);
            if first {
                // Nothing was left of its content either.
                fs::remove_file(layout.lock()).unwrap();
                fill(&ballast);
            }
            lock(&layout).unwrap();
            fs::remove_file(ballast).unwrap();
            fs::remove_file(layout.runtime.join("more")).unwrap();
            if first {
                lock(&layout).unwrap();
            }
        }
    }
}
