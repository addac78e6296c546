//! The sandbox of every worker, closed before it reads anything.
//!
//! | what | how |
//! | --- | --- |
//! | user | a number that nothing else on the host has, and no other domain's workers; no capability, none to be regained |
//! | files | an empty, read-only root, Landlock, no call that opens one; the descriptors that it was given |
//! | network, IPC, host name, cgroups | namespaces of its own with nothing in them |
//! | other processes | not dumpable, no call that signals, traces, makes or asks for one, nor reads its processor time, which is a clock by its number. It has no namespace of its own for their numbers: its own, and those of threads that it starts, say how many the host has started meanwhile |
//! | memory, time | its role's, and those of the cgroup that the agent names; the first to end when the PC has no memory left; ends with its agent |
//! | system calls | those of its role, each with its reason; any other is its end |

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, dup2_stderr, geteuid, getppid};
use sandboxing::{Call, Limits, libc};
use worker_link::{Role, USER, USER_FIRST};

use super::{WorkerError, step};

/// Threads of all the workers of a domain, which have one user: two for each of its four USB devices, one for its clipboard, as many again for those that are
/// ending while others begin, and room. One that was taken over takes no more than these, from its own domain. Those that decode pictures have one each, and a user too.
pub(super) const THREADS_MAX: u64 = 32;
/// How much less than an ordinary process's is the share of the processor of one that lives on, where no cgroup holds it.
const NICE: i32 = 10;

/// What the agent says when it starts a worker.
pub(super) struct Arguments {
    pub(super) role: Role,
    user: u32,
    /// Its agent says who it is: one that has ended by now has left the worker to somebody else already.
    agent: Pid,
    group: Option<PathBuf>,
}

impl Arguments {
    /// Reads them; `None` if these are none.
    pub(super) fn read(mut words: impl Iterator<Item = OsString>) -> Option<Self> {
        let mut word = || words.next()?.into_string().ok();
        let role = Role::of(&word()?)?;
        let user = word()?.parse().ok().filter(|user| (USER_FIRST..=USER).contains(user))?;
        let agent = Pid::from_raw(word()?.parse().ok()?);
        Some(Self { role, user, agent, group: words.next().map(PathBuf::from) })
    }
}

/// A worker in its sandbox, all but the filter, which has read nothing.
pub(super) struct Enclosed {
    pub(super) input: OwnedFd,
    pub(super) output: OwnedFd,
    /// What standard error is to be.
    null: File,
}

impl Enclosed {
    /// Closes the sandbox with these limits, all but the filter.
    pub(super) fn enter(arguments: &Arguments, limits: &Limits) -> Result<Self, WorkerError> {
        if let Some(group) = &arguments.group {
            // Before all else: whatever it takes counts there. Nobody waits for the kernel to move it.
            let place = group.join("cgroup.procs");
            let entered = OpenOptions::new()
                .write(true)
                .open(place)
                .and_then(|mut file| file.write_all(b"0"));
            entered.map_err(step("enter its cgroup"))?;
        }
        // It is started by the number of a descriptor.
        prctl::set_name(c"bulkhead-worker").map_err(step("take its name"))?;
        sandboxing::close_others(None).map_err(step("close what it was started with"))?;
        // Before the agent, whose own place it would have: that is never the first.
        let first_to_end = fs::write("/proc/self/oom_score_adj", "1000");
        if geteuid().is_root() {
            first_to_end.map_err(step("be the first to end when memory is short"))?;
        }
        for resource in [Resource::RLIMIT_MEMLOCK, Resource::RLIMIT_NICE, Resource::RLIMIT_RTPRIO] {
            setrlimit(resource, 0, 0).map_err(step("give up locked memory and priority"))?;
        }
        if limits.processor_time.is_none() {
            rustix::process::nice(NICE).map_err(step("step back behind others"))?;
        }
        let input = io::stdin().as_fd().try_clone_to_owned().map_err(step("take its input"))?;
        let output = io::stdout().as_fd().try_clone_to_owned().map_err(step("take its output"))?;
        let null = OpenOptions::new().write(true).open("/dev/null");
        let null = null.map_err(step("open /dev/null"))?;
        // The agent's kernel has Landlock, or every VMM's log says that it has not.
        let _ = sandboxing::enter(Some((arguments.user, arguments.user)), limits)?;
        // After the change of user, which takes this back.
        prctl::set_pdeathsig(Signal::SIGKILL).map_err(step("end with its agent"))?;
        if getppid() != arguments.agent {
            return Err(WorkerError::Orphan);
        }
        Ok(Self { input, output, null })
    }

    /// Falls silent, and closes the rest: from here on these calls are all that it may ask for, with these requests of `ioctl`. What it reads next may be hostile.
    pub(super) fn filter(
        self,
        calls: &[Call],
        ioctls: &[libc::c_ulong],
    ) -> Result<(OwnedFd, OwnedFd), WorkerError> {
        dup2_stderr(&self.null).map_err(step("fall silent"))?;
        drop(self.null);
        sandboxing::load(calls.iter().copied(), ioctls.iter().copied())?;
        Ok((self.input, self.output))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Option<(Role, u32, i32, Option<PathBuf>)> {
        let read = Arguments::read(words.iter().map(OsString::from))?;
        Some((read.role, read.user, read.agent.as_raw(), read.group))
    }

    #[test]
    fn what_the_agent_says_is_read_and_nothing_like_it() {
        let picture = Some((Role::Picture, 63_999, 12, None));
        assert_eq!(read(&["picture", "63999", "12"]), picture);
        let usb = Some((Role::Usb, 63_998, 12, Some("/sys/fs/cgroup/x".into())));
        assert_eq!(read(&["usb", "63998", "12", "/sys/fs/cgroup/x"]), usb);
        for words in [
            &[][..],
            &["picture"],
            &["picture", "63999"],
            &["paint", "63999", "12"],
            &["picture", "0", "12"],
            &["picture", "64000", "12"],
            &["picture", "63999", "init"],
        ] {
            assert_eq!(read(words), None, "{words:?}");
        }
    }
}
