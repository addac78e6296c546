//! VMM processes: started in a process group of their own, signalled, waited for, and recognised
//! again by an agent that did not start them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::capture::Capture;
use super::domain::Exit;

/// A VMM could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: install bulkhead-vmm beside bulkhead-agent, or name it with --vmm", program.display())]
pub struct SpawnError {
    program: PathBuf,
    #[source]
    source: io::Error,
}

/// A VMM this agent started.
pub struct VmmProcess {
    child: Child,
    identity: Identity,
    signalled: bool,
}

/// What tells a process from every other one of this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process identifier.
    pub pid: i32,
    /// When it started, in clock ticks since the boot (proc(5), `stat` field 22).
    pub start: u64,
}

impl VmmProcess {
    /// Starts `program` with nothing of the agent's but its standard error, which comes back as a
    /// [`Capture`], and `input` as its standard input.
    pub fn start(
        program: &Path,
        arguments: &[OsString],
        input: Option<File>,
    ) -> Result<(Self, Capture), SpawnError> {
        let start = move || -> io::Result<(Self, Capture)> {
            let (capture, writer) = Capture::pair()?;
            let child = Command::new(program)
                .args(arguments)
                .env_clear()
                .current_dir("/")
                .stdin(input.map_or_else(Stdio::null, Stdio::from))
                .stdout(writer.try_clone()?)
                .stderr(writer)
                .process_group(0)
                .spawn()?;
            let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
            // A child nobody waited for keeps its entry, so this fails only without /proc.
            let start = start_time(pid).unwrap_or(0);
            Ok((Self { child, identity: Identity { pid, start }, signalled: false }, capture))
        };
        start().map_err(|source| SpawnError { program: program.to_owned(), source })
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<Exit> {
        match self.child.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(exit(status)),
            Err(error) => Some(Exit::Failed(format!("the VMM cannot be waited for: {error}"))),
        }
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

    /// Kills its whole process group.
    pub fn kill(&self) {
        if let Err(error) = killpg(Pid::from_raw(self.identity.pid), Signal::SIGKILL) {
            tracing::warn!(pid = self.identity.pid, "cannot kill the VMM: {error}");
        }
    }

    /// A child that was not waited for yet keeps its pid, so this reaches no other process.
    fn signal(&self, signal: Signal) {
        if let Err(error) = kill(Pid::from_raw(self.identity.pid), signal) {
            tracing::warn!(pid = self.identity.pid, "cannot send {signal} to the VMM: {error}");
        }
    }
}

impl Identity {
    /// Whether this very process still runs.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }

    /// Signals it if it still runs.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive()
            && let Err(error) = kill(Pid::from_raw(self.pid), signal)
        {
            tracing::warn!(pid = self.pid, "cannot send {signal}: {error}");
        }
    }
}

/// When a running process started; `None` if there is none, or only its corpse, or it is a thread
/// of the kernel (KVM keeps one for each guest, in the guest's cgroup).
#[must_use]
pub fn start_time(pid: i32) -> Option<u64> {
    /// `PF_KTHREAD` (the kernel's `include/linux/sched.h`).
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name, in parentheses, and may hold anything; the third is the state,
    // the ninth the flags, the 22nd the start.
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?;
    let flags: u32 = fields.nth(5)?.parse().ok()?;
    if matches!(state, "Z" | "X") || flags & KERNEL_THREAD != 0 {
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

    fn run(script: &str) -> Exit {
        let (mut process, mut capture) =
            VmmProcess::start(Path::new("/bin/sh"), &["-c".into(), script.into()], None).unwrap();
        loop {
            capture.turn(Default::default());
            if let Some(exit) = process.ended() {
                return exit;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn status_zero_is_a_guest_that_powered_off_and_anything_else_a_failure() {
        assert_eq!(run("exit 0"), Exit::PoweredOff);
        assert!(matches!(run("exit 1"), Exit::Failed(text) if text.contains("status 1")));
        assert!(matches!(run("kill -SEGV $$"), Exit::Failed(text) if text.contains("SIGSEGV")));
    }

    #[test]
    fn a_vmm_gets_a_process_group_of_its_own_and_no_environment() {
        assert_eq!(
            run(r#"[ "$(ps -o pgid= -p $$ | tr -d ' ')" = $$ ] && [ -z "$HOME" ]"#),
            Exit::PoweredOff
        );
    }

    #[test]
    fn a_program_that_is_not_there_says_what_to_do() {
        let Err(error) = VmmProcess::start(Path::new("/nonexistent/vmm"), &[], None) else {
            panic!()
        };
        assert!(error.to_string().contains("--vmm"), "{error}");
    }

    #[test]
    fn a_pid_alone_does_not_make_a_process_ours() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start = start_time(pid).unwrap();
        assert!(Identity { pid, start }.is_alive());
        assert!(!Identity { pid, start: start + 1 }.is_alive());
        assert_eq!(start_time(i32::MAX), None);
    }
}
