//! VMM processes: started in a process group and, by root, a PID namespace of their own, signalled, waited for, and recognised
//! again by an agent that did not start them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::lifecycle::Exit;

/// A VMM could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program cannot be run.
    #[error("cannot start {}: install bulkhead-vmm beside bulkhead-agent, or name it with --vmm", program.display())]
    Program {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel, or the unit that the agent runs in, lets it make no PID namespace.
    #[error(
        "cannot start a VMM in a PID namespace of its own: `pid` has to be in RestrictNamespaces= of bulkhead-agent.service and its drop-ins (`systemctl cat bulkhead-agent`), and /proc/sys/user/max_pid_namespaces above 0"
    )]
    Namespace(#[source] io::Error),
}

/// A VMM: this agent's child, or one of an earlier agent, which is nobody's any more.
#[derive(Debug)]
pub struct VmmProcess {
    child: Option<Child>,
    /// Reaches this process and no other, whoever its parent is.
    pidfd: OwnedFd,
    identity: Identity,
    signalled: bool,
}

/// What tells a process from every other one of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub pid: i32,
    /// When it started, in clock ticks since the boot (proc(5), `stat` field 22).
    pub start: u64,
}

/// Clock ticks a second, as Linux tells them to programs on x86 (proc(5)).
const TICKS: u64 = 100;

impl Identity {
    /// Returns how long after the boot it started.
    #[must_use]
    pub fn started(self) -> Duration {
        Duration::from_millis(self.start.saturating_mul(1000 / TICKS))
    }
}

/// What tells a file from every other one, whatever its path is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileId {
    /// The device it lies on.
    pub device: u64,
    /// Its inode number on that device.
    pub inode: u64,
}

impl VmmProcess {
    /// Starts `program` in a process group of its own, with nothing of the agent's but `log` as its standard output and error; by root as the
    /// first process of a PID namespace, in which it sees and names no other. It reads its specification from its standard input, whose other end comes back: until that is written the process does nothing.
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        log: File,
    ) -> Result<(Self, PipeWriter), SpawnError> {
        let cannot = |source| SpawnError::Program { program: program.to_owned(), source };
        let start = || -> io::Result<Result<(Self, PipeWriter), SpawnError>> {
            let (input, specification) = io::pipe()?;
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env_clear()
                .current_dir("/")
                .stdin(input)
                .stdout(log.try_clone()?)
                .stderr(log)
                .process_group(0);
            let mut child = match spawn_apart(&mut command)? {
                Ok(child) => child,
                Err(refused) => return Ok(Err(SpawnError::Namespace(refused))),
            };
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            // A child that nobody waited for keeps its number.
            let pidfd = match open(pid) {
                Ok(pidfd) => pidfd,
                Err(error) => {
                    // Without it nobody could look after the child; that it has ended already changes nothing.
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(error);
                }
            };
            // A child nobody waited for keeps its entry, so this fails only without /proc.
            let start = start_time(pid).unwrap_or(0);
            let identity = Identity { pid, start };
            Ok(Ok((Self { child: Some(child), pidfd, identity, signalled: false }, specification)))
        };
        start().map_err(cannot)?
    }

    /// Finds a process that this agent did not start, if any of its threads still runs.
    #[must_use]
    pub fn find(identity: Identity) -> Option<Self> {
        // In this order: what the descriptor stands for had this number when it was opened, and the process that is meant has it
        // since earlier.
        let pidfd = open(identity.pid).ok()?;
        let found = start_time(identity.pid) == Some(identity.start);
        let found = found.then_some(Self { child: None, pidfd, identity, signalled: false });
        found.filter(Self::is_alive)
    }

    /// Returns who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Becomes readable when the process has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns whether any of its threads still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.fd(), PollFlags::POLLIN)];
        // What cannot be asked is taken for running: it would otherwise be started twice.
        !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
    }

    /// Returns how it ended, if it did. Nobody but its parent is told that, so of a process that this agent did not start it is what its log says
    /// last.
    pub fn ended(&mut self, says: impl FnOnce() -> Exit) -> Option<Exit> {
        let Some(child) = &mut self.child else {
            return (!self.is_alive()).then(says);
        };
        match child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(exit(status)),
            Err(error) => Some(Exit::Failed(format!("the VMM cannot be waited for: {error}"))),
        }
    }

    /// Returns whether this agent did not start it.
    #[must_use]
    pub fn is_adopted(&self) -> bool {
        self.child.is_none()
    }

    /// Presses the power button by signal (SIGTERM), once: a second one would end the VMM.
    pub fn press_power_button(&mut self) {
        if !self.signalled {
            self.signalled = true;
            self.signal(Signal::SIGTERM);
        }
    }

    /// Tells the VMM to end (SIGINT).
    pub fn end(&self) {
        self.signal(Signal::SIGINT);
    }

    /// Kills it. What it may have started is in its cgroup, which its owner kills.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// Sends a signal; a process that has ended gets none, and no other process does.
    pub fn signal(&self, signal: Signal) {
        let Some(number) = rustix::process::Signal::from_named_raw(signal as i32) else { return };
        match pidfd_send_signal(&self.pidfd, number) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(pid = self.identity.pid, "cannot send {signal} to the VMM: {error}");
            }
        }
    }

    /// Returns the cgroup it is in, as the kernel names it.
    #[must_use]
    pub fn cgroup(&self) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", self.identity.pid)).ok()?;
        Some(text.lines().find_map(|line| line.strip_prefix("0::"))?.to_owned())
    }

    /// Returns the program it runs, whatever lies at that path now; `None` where the kernel does not let this agent see it.
    #[must_use]
    pub fn executable(&self) -> Option<FileId> {
        let file = fs::metadata(format!("/proc/{}/exe", self.identity.pid)).ok()?;
        Some(FileId { device: file.dev(), inode: file.ino() })
    }
}

/// Starts a program as the first process of a PID namespace; one whose agent is not root in this agent's own.
///
/// Whoever leaves a PID namespace stays in it, and its children do not: a thread that does nothing else leaves it, so that all other children
/// of the agent's are where they were. Signals that the first process of a namespace neither blocks nor handles are not delivered to it, save
/// SIGKILL and SIGSTOP from outside (pid_namespaces(7)); faults, and what a system call filter forbids, end it as any other.
///
/// # Errors
/// The program cannot be run. The inner error says that the namespace was refused.
fn spawn_apart(command: &mut Command) -> io::Result<io::Result<Child>> {
    if !geteuid().is_root() {
        return command.spawn().map(Ok);
    }
    thread::scope(|scope| {
        let spawner = thread::Builder::new().name("spawn".to_owned());
        let spawner = spawner.spawn_scoped(scope, || match unshare(CloneFlags::CLONE_NEWPID) {
            Ok(()) => command.spawn().map(Ok),
            Err(refused) => Ok(Err(refused.into())),
        })?;
        spawner
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")))
    })
}

/// Opens a descriptor for a process by its number.
fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Returns when a process started; `None` if there is none, or it is a thread of the kernel (KVM keeps one for each guest, in the guest's
/// cgroup). Its state does not count: a process whose first thread has ended looks like a corpse there while its others run on, and
/// with them its guest.
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    /// `PF_KTHREAD` (the kernel's `include/linux/sched.h`).
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in parentheses, and may hold anything; the ninth is the flags, the 22nd the start.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let flags: u32 = fields.nth(6)?.parse().ok()?;
    if flags & KERNEL_THREAD != 0 {
        return None;
    }
    fields.nth(12)?.parse().ok()
}

fn exit(status: ExitStatus) -> Exit {
    if status.success() {
        return Exit::PoweredOff;
    }
    Exit::Failed(match (status.code(), status.signal()) {
        (Some(code), _) => format!("the VMM failed with status {code}"),
        (None, Some(number)) => {
            let name = Signal::try_from(number).map_or("unknown", Signal::as_str);
            format!("the VMM was ended by signal {number} ({name})")
        }
        (None, None) => "the VMM ended in an unknown way".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> File {
        fs::OpenOptions::new().write(true).open("/dev/null").unwrap()
    }

    fn shell(script: &str) -> (VmmProcess, PipeWriter) {
        let arguments = ["-c".into(), script.into()];
        VmmProcess::start(Path::new("/bin/sh"), &arguments, null()).unwrap()
    }

    fn run(script: &str) -> Exit {
        let (mut process, _specification) = shell(script);
        loop {
            if let Some(exit) = process.ended(|| unreachable!("it is a child")) {
                return exit;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn status_zero_is_a_guest_that_powered_off_and_anything_else_a_failure() {
        assert_eq!(run("exit 0"), Exit::PoweredOff);
        assert!(matches!(run("exit 1"), Exit::Failed(text) if text.contains("status 1")));
        assert!(matches!(run(FAULT), Exit::Failed(text) if text.contains("SIGSEGV")));
    }

    #[test]
    fn a_vmm_gets_a_process_group_of_its_own_and_no_environment() {
        assert_eq!(
            run(
                r#"read -r pid _ _ _ group _ < /proc/self/stat && [ $pid = $group ] && [ -z "$HOME" ]"#
            ),
            Exit::PoweredOff
        );
    }

    /// What a program does that reads where nothing is.
    const FAULT: &str = "exec python3 -c 'import ctypes; ctypes.string_at(0)'";

    /// As root, which CI is.
    #[test]
    fn a_vmm_is_the_first_process_of_a_namespace_and_whatever_is_to_end_it_does() {
        if !geteuid().is_root() {
            return;
        }
        assert_eq!(run("[ $$ = 1 ] && ! kill -0 2"), Exit::PoweredOff);
        // A second thread shows that it is the process that ends.
        let python = |does: &str| {
            format!(
                "exec python3 -c '\nimport ctypes, os, signal, struct, threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n{does}\ntime.sleep(600)'"
            )
        };
        // abort(3): its signal is not delivered, and the instruction that it ends with faults.
        let aborted = run(&python("os.abort()"));
        assert!(matches!(&aborted, Exit::Failed(text) if text.contains("SIGSEGV")), "{aborted:?}");
        // A filter of one instruction: every call kills the process (seccomp(2)).
        let filtered = run(&python(
            "code = ctypes.create_string_buffer(struct.pack(\"HBBI\", 6, 0, 0, 0x80000000))\n\
             program = struct.pack(\"HxxxxxxQ\", 1, ctypes.addressof(code))\n\
             libc = ctypes.CDLL(None)\nlibc.prctl(38, 1, 0, 0, 0)\nlibc.prctl(22, 2, program)",
        ));
        assert!(matches!(&filtered, Exit::Failed(text) if text.contains("SIGSYS")), "{filtered:?}");
        // As a VMM does: blocked, and read as an event.
        let log = tempfile::NamedTempFile::new().unwrap();
        let waits = python(
            "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\nprint(\"ready\", flush=True)\nos._exit(7 if signal.sigwait({signal.SIGTERM}) else 1)",
        );
        let arguments = ["-c".into(), waits.into()];
        let (mut process, _specification) =
            VmmProcess::start(Path::new("/bin/sh"), &arguments, log.reopen().unwrap()).unwrap();
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while fs::read_to_string(log.path()).unwrap() != "ready\n" {
            assert!(std::time::Instant::now() < until, "it does not get so far");
            thread::sleep(Duration::from_millis(5));
        }
        process.press_power_button();
        let exit = loop {
            match process.ended(|| unreachable!("it is a child")) {
                Some(exit) => break exit,
                None => thread::sleep(Duration::from_millis(5)),
            }
            assert!(std::time::Instant::now() < until, "SIGTERM does not end it");
        };
        assert!(matches!(&exit, Exit::Failed(text) if text.contains("status 7")), "{exit:?}");
    }

    #[test]
    fn a_program_that_is_not_there_says_what_to_do() {
        let Err(error) = VmmProcess::start(Path::new("/nonexistent/vmm"), &[], null()) else {
            panic!()
        };
        assert!(error.to_string().contains("--vmm"), "{error}");
    }

    #[test]
    fn a_vmm_does_nothing_before_its_specification_is_written_and_ends_if_its_agent_dies_before() {
        let (mut process, specification) = shell("read line && [ \"$line\" = told ]");
        thread::sleep(Duration::from_millis(50));
        assert!(process.is_alive());
        drop(specification);
        while process.is_alive() {
            thread::sleep(Duration::from_millis(5));
        }
        let exit = process.ended(|| unreachable!("it is a child"));
        assert!(matches!(exit, Some(Exit::Failed(_))), "{exit:?}");
    }

    #[test]
    fn a_pid_alone_does_not_make_a_process_ours() {
        let (started, _specification) = shell("read line");
        let identity = started.identity();
        let found = VmmProcess::find(identity).unwrap();
        assert!(found.is_alive() && found.is_adopted());
        assert_eq!(found.executable(), started.executable());
        assert!(found.executable().is_some() && found.cgroup() == started.cgroup());
        assert!(VmmProcess::find(Identity { start: identity.start + 1, ..identity }).is_none());
        assert!(VmmProcess::find(Identity { pid: i32::MAX, ..identity }).is_none());
        assert_eq!(start_time(i32::MAX), None);
    }

    /// A process whose first thread has ended, and whose second has not.
    const LEADERLESS: &str = r#"exec python3 -c '
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(600,)).start()
ctypes.CDLL(None).syscall(60, 0)'"#;

    #[test]
    fn a_process_runs_on_though_its_first_thread_has_ended_and_a_corpse_does_not() {
        let (mut started, _specification) = shell(LEADERLESS);
        let identity = started.identity();
        let stat = || fs::read_to_string(format!("/proc/{}/stat", identity.pid)).unwrap();
        while !stat().contains(") Z ") {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(started.ended(|| unreachable!("it is a child")), None);
        let found = VmmProcess::find(identity).unwrap();
        assert!(found.is_alive());
        found.kill();
        while found.is_alive() {
            thread::sleep(Duration::from_millis(5));
        }
        // Nobody has waited for it yet.
        assert!(stat().contains(") Z ") && VmmProcess::find(identity).is_none());
        assert!(started.ended(|| unreachable!("it is a child")).is_some());
    }

    #[test]
    fn how_a_process_ended_that_is_nobodys_child_is_what_it_said_last() {
        let (mut started, _specification) = shell("read line");
        let mut found = VmmProcess::find(started.identity()).unwrap();
        assert_eq!(found.ended(|| Exit::PoweredOff), None);
        found.kill();
        while found.is_alive() {
            thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(found.ended(|| Exit::PoweredOff), Some(Exit::PoweredOff));
        // Nobody is signalled any more, whoever has its number.
        found.kill();
        let exit = started.ended(|| unreachable!("it is a child"));
        assert!(matches!(exit, Some(Exit::Failed(how)) if how.contains("SIGKILL")));
    }
}
