//! A process of the workers' program.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ExitStatus, Stdio};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use worker_link::{ENVIRONMENT, NO_JOB, Role};

use super::program::Program;

/// A process of the workers' program. It is killed when this is dropped; its exit status is taken then, or when somebody asks for it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Readable when it has ended.
    pidfd: OwnedFd,
}

impl Process {
    /// Starts `program` in this role, with these two descriptors as standard input and output and no other but standard error, to which it says what
    /// keeps it from closing its sandbox. `user` is the number that it becomes, if this process is root.
    ///
    /// # Errors
    /// There is no memory, process or descriptor for it, or this PC does not run the program.
    pub fn start(
        program: &Program,
        role: Role,
        user: u32,
        stdin: OwnedFd,
        stdout: OwnedFd,
    ) -> io::Result<Self> {
        let child = program
            .command(role, user)
            .arg0("bulkhead-worker")
            .env_clear()
            .envs(ENVIRONMENT)
            .current_dir("/")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::inherit())
            .process_group(0)
            .spawn()?;
        Self::over(child, open)
    }

    /// Makes one of a child that has just been started. Where no descriptor tells of its end nothing is left of it.
    fn over(
        mut child: Child,
        open: impl FnOnce(&Child) -> io::Result<OwnedFd>,
    ) -> io::Result<Self> {
        match open(&child) {
            Ok(pidfd) => Ok(Self { child, pidfd }),
            Err(error) => {
                // It has opened nothing yet that the kernel could keep it for, and asked for at once it would mostly not have ended.
                if child.kill().is_ok() {
                    let _ = child.wait();
                }
                Err(error)
            }
        }
    }

    /// Returns its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns what becomes readable when it has ended.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Returns whether its first thread waits in the kernel for what no signal ends (state `D`, proc_pid_stat(5)); not if that cannot be told.
    #[must_use]
    pub fn is_held(&self) -> bool {
        let stat = fs::read(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        waits_for_no_signal(&stat)
    }

    /// Returns how it ended, once it has: `Some(None)` if the kernel does not say.
    pub fn ended(&mut self) -> Option<Option<ExitStatus>> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(Some(status)),
            Err(_) => Some(None),
        }
    }

    /// Kills it; `true` if it is gone already.
    pub fn end(&mut self) -> bool {
        // What has ended by itself cannot be killed.
        let _ = self.child.kill();
        self.is_gone()
    }

    /// Returns whether nothing is left of it.
    pub fn is_gone(&mut self) -> bool {
        self.ended().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns whether a line of `/proc/PID/stat` has the state `D`. The name before it is in parentheses, and may hold anything.
fn waits_for_no_signal(stat: &[u8]) -> bool {
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    name_end.and_then(|end| stat.get(end..)).is_some_and(|rest| rest.starts_with(b") D "))
}

/// Says how a worker ended that did not end well.
#[must_use]
pub fn words(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) if code == i32::from(NO_JOB) => {
            "it does not know its job: it is of another version than bulkhead-agent; install both of one version and restart the agent".to_owned()
        }
        Some((Some(code), _)) => format!("it ended with status {code}"),
        Some((None, Some(signal))) => format!("it was ended by signal {signal}"),
        _ => "it ended in an unknown way".to_owned(),
    }
}

fn open(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn a_worker_has_its_environment_and_nothing_of_the_agents() {
        let dir = tempfile::tempdir().unwrap();
        let (mut said, theirs) = io::pipe().unwrap();
        let stdin = fs::File::open("/dev/null").unwrap().into();
        // As the kernel has it: a shell adds to its own.
        let program = Program::shell(dir.path(), "tr '\\0' '\\n' < /proc/$$/environ");
        let _process = Process::start(&program, Role::Usb, 7, stdin, theirs.into()).unwrap();
        let mut text = String::new();
        said.read_to_string(&mut text).unwrap();
        assert_eq!(text, "MALLOC_ARENA_MAX=1\n");
    }

    #[test]
    fn nothing_is_left_of_a_process_whose_end_nobody_would_hear_of() {
        for _ in 0..8 {
            let child = std::process::Command::new("/bin/sleep").arg("100").spawn().unwrap();
            let pid = child.id();
            let refused = Process::over(child, |_| Err(io::ErrorKind::Other.into()));
            assert!(refused.is_err());
            // A zombie has its folder there until somebody has asked how it ended.
            assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} is left");
        }
    }

    #[test]
    fn a_worker_of_another_version_is_named_so() {
        let said = words(Some(ExitStatus::from_raw(i32::from(NO_JOB) << 8)));
        assert!(said.contains("another version"), "{said}");
        assert_eq!(words(Some(ExitStatus::from_raw(9))), "it was ended by signal 9");
    }

    #[test]
    fn only_a_process_that_no_signal_ends_is_held_whatever_its_name_is() {
        for (stat, is_held) in [
            (&b"7 (bulkhead-worker) D 1 7 7"[..], true),
            (b"7 (bulkhead-worker) S 1 7 7", false),
            (b"7 (a) D 1 (b) S 1 7 7", false),
            (b"7 (a) S 1 (b) D 1 7 7", true),
            (b"7 (\xff) D 1 7 7", true),
            (b"7 D 1 7 7", false),
            (b"", false),
        ] {
            assert_eq!(waits_for_no_signal(stat), is_held, "{}", stat.escape_ascii());
        }
    }
}
