//! One agent at a time: the locks of the runtime directory and of the state directory, and when an agent before this one last ran.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use audit::DirectoryLock;
use clock::Moment;

use super::capture;
use base::layout::Layout;
use printable::explain;

/// Why this agent is not the one that runs here. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another agent has the runtime directory.
    #[error(
        "another bulkhead-agent runs here (pid {pid}): stop it first, or give this one directories of its own with --runtime and --state"
    )]
    AnotherAgent {
        /// The process ID that the other wrote into its lock, or what else stands there.
        pid: String,
    },
    /// Another agent, with other sockets, has the state directory.
    #[error(
        "another bulkhead-agent uses the state directory {}, and two would fork its audit log: stop it first, or give this one a --state of its own", .0.display()
    )]
    StateInUse(PathBuf),
    #[error("cannot lock {}: check the rights of its directory", path.display())]
    Lock {
        /// The file that cannot be locked.
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// One agent for each runtime directory; the kernel lets go of the lock however the agent ends. Nobody else may open its file: whoever
/// can read a file can lock it, and no desktop would start.
///
/// The lock's file says when its agent last ran, too.
pub struct AgentLock {
    file: File,
    /// When an agent before this one was last known to run.
    pub before: Option<SystemTime>,
    /// When the lock's file was last written, which says that this agent runs.
    told: Option<Moment>,
}

impl Drop for AgentLock {
    fn drop(&mut self) {
        // Said and not left to closing: a process that is being started has the file open too, until it runs another program.
        let _ = self.file.unlock();
    }
}

/// How often the lock's file is told that its agent runs.
const ALIVE_EVERY: Duration = Duration::from_secs(5);

impl AgentLock {
    /// Notes that this agent runs.
    pub fn alive(&mut self, now: Moment) {
        if self.told.is_none_or(|told| now >= told + ALIVE_EVERY) {
            self.told = Some(now);
            // It is for the length of a gap alone, which is then not known.
            let _ = self.file.set_modified(SystemTime::now());
        }
    }
}

/// Takes the lock.
///
/// # Errors
/// Another agent has it, or its file cannot be used.
pub fn lock(layout: &Layout) -> Result<AgentLock, LockError> {
    let path = layout.lock();
    let failed = |source| LockError::Lock { path: path.clone(), source };
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = fileopen::regular_with(&path, &mut options).map_err(failed)?;
    file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = (&file).take(16).read_to_string(&mut pid);
            return Err(LockError::AnotherAgent { pid: pid.trim().to_owned() });
        }
        Err(fs::TryLockError::Error(source)) => return Err(failed(source)),
    }
    // One that was just made says nothing of an agent before.
    let before = file.metadata().ok().filter(|metadata| metadata.len() > 0);
    let before = before.and_then(|metadata| metadata.modified().ok());
    // While no agent ran, a VMM that was taken over may have taken all the room there is. It may hold its log, too, which is not waited for: an agent that takes the
    // VMM up sees to it as its event loop does ([`capture`]), and what comes until then needs no room.
    cut_logs(layout, capture::cut);
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

/// Has what VMMs said cut to the length that an agent would have held it to, each on a thread of its own: one that holds its log holds up no other's.
fn cut_logs(layout: &Layout, cut: fn(&Path) -> io::Result<u64>) {
    for entry in fs::read_dir(&layout.runtime).into_iter().flatten().flatten() {
        let Ok(domain) = entry.file_name().into_string() else { continue };
        // Only a folder may have one. This asks what the directory says of it, and not the file.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let (log, name) = (layout.vmm_log(&domain), domain.clone());
        let thread = thread::Builder::new().name("vmm-log".to_owned());
        if let Err(error) = thread.spawn(move || say_cut(&name, cut(&log))) {
            tracing::warn!(domain, "nobody can cut its VMM's log: {error}");
        }
    }
}

fn say_cut(domain: &str, cut: io::Result<u64>) {
    match cut {
        Ok(0) => {}
        Ok(cut) => tracing::warn!(
            domain,
            "its VMM said more than its log may hold while no agent ran: {cut} bytes are cut off"
        ),
        Err(error) => tracing::warn!(domain, "its VMM's log cannot be cut: {error}"),
    }
}

/// Makes the state's directories and takes them for this agent alone. On a disk that is full or read-only care goes on: the audit log
/// says then why nothing crosses.
///
/// # Errors
/// Another agent has it, or it cannot be locked.
pub fn take_state(layout: &Layout) -> Result<Option<DirectoryLock>, LockError> {
    // Locked before anything in it is changed; what is not there is nobody else's.
    let existed = layout.state.is_dir();
    if !existed && let Err(error) = layout.create_state() {
        tracing::error!("{}", explain(&error));
        return Ok(None);
    }
    let lock = match DirectoryLock::take(&layout.state) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(LockError::StateInUse(layout.state.clone())),
        Err(source) => return Err(LockError::Lock { path: layout.state.clone(), source }),
    };
    if let Err(error) = layout.create_state() {
        tracing::error!("{}", explain(&error));
    }
    Ok(Some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
        assert!(matches!(lock(&layout), Err(LockError::AnotherAgent { .. })));
        drop(held);
        lock(&layout).unwrap();
    }

    #[test]
    fn a_vmm_that_holds_its_log_holds_no_agent_up_that_starts_nor_keeps_others_logs_long() {
        static MAY_RETURN: AtomicBool = AtomicBool::new(false);
        static CUT: AtomicU64 = AtomicU64::new(0);
        let dir = tempfile::tempdir().unwrap();
        let layout = within(dir.path());
        layout.create_runtime(&["clinical", "internet"]).unwrap();
        cut_logs(&layout, |log| {
            while log.parent().unwrap().ends_with("clinical") && !MAY_RETURN.load(Ordering::SeqCst)
            {
                thread::sleep(Duration::from_millis(5));
            }
            Ok(CUT.fetch_add(1, Ordering::SeqCst) + 1)
        });
        let cut = |count: u64| {
            while CUT.load(Ordering::SeqCst) < count {
                thread::sleep(Duration::from_millis(5));
            }
        };
        cut(1);
        MAY_RETURN.store(true, Ordering::SeqCst);
        cut(2);
    }

    /// A layout in a directory.
    fn within(dir: &Path) -> Layout {
        let path = |name: &str| dir.join(name);
        Layout { images: path("images"), state: path("state"), runtime: path("run") }
    }

    #[test]
    fn an_agent_that_fails_at_its_start_does_not_shorten_the_time_in_which_none_ran() {
        let dir = tempfile::tempdir().unwrap();
        let layout = within(dir.path());
        layout.create_runtime(&[]).unwrap();
        lock(&layout).unwrap().alive(Moment::now());
        let hours = Duration::from_secs(2 * 3600);
        let ended = SystemTime::now() - hours;
        File::options().write(true).open(layout.lock()).unwrap().set_modified(ended).unwrap();
        for _ in 0..2 {
            // As it is told only by its event loop.
            let held = lock(&layout).unwrap();
            assert!(held.before.unwrap().elapsed().unwrap() >= hours);
        }
        lock(&layout).unwrap().alive(Moment::now());
        let since = lock(&layout).unwrap().before.unwrap().elapsed().unwrap();
        assert!(since < hours / 2, "{since:?}");
    }

    #[test]
    fn an_agent_starts_though_a_vmm_has_taken_all_the_room_of_the_runtime_directory() {
        let dir = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let script = format!(
            "mount -t tmpfs -o size=4m none '{0}'; RUN='{0}' exec '{1}' --ignored --exact agent_lock::tests::within_a_directory_of_4_mib",
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
        let layout = within(Path::new(&std::env::var_os("RUN").unwrap()));
        layout.create_runtime(&["clinical"]).unwrap();
        let fill = |path: &Path| {
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            while file.write(&[b'x'; 4096]).is_ok() {}
        };
        for first in [true, false] {
            fill(&layout.vmm_log("clinical"));
            assert!(fs::write(layout.runtime.join("more"), [0; 4096]).is_err());
            let held = lock(&layout).unwrap();
            assert_eq!(held.before.is_none(), first);
            let until = Moment::now() + Duration::from_secs(60);
            while fs::metadata(layout.vmm_log("clinical")).unwrap().len() > 0 {
                assert!(Moment::now() < until, "its log is not cut");
                thread::sleep(Duration::from_millis(5));
            }
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
