//! The sandbox that a process closes around itself before it reads what is hostile: a VMM, and each worker of the agent's.
//!
//! | layer | what it takes away |
//! | --- | --- |
//! | descriptors | whatever the process was started with, besides standard streams and what it is to keep |
//! | namespaces | network, IPC, host name, mounts: the root directory is an empty read-only tmpfs |
//! | user and capabilities | an own user and group; no capability, none to be regained |
//! | limits | core dumps, files beyond a number and a length; where asked for memory and processor time |
//! | Landlock | every file that could still be named; TCP; abstract sockets and processes of others |
//! | seccomp, per thread | every system call, every argument, and every ioctl, the thread has no use for |
//!
//! Namespaces and user change need root; a process that an ordinary user started keeps that user and
//! closes the other layers. What cannot be closed is an error, except Landlock on kernels without.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![deny(unsafe_code)]

#[cfg(feature = "testing")]
mod attempt;
#[cfg(feature = "testing")]
pub mod document;
mod identity;
mod inherited;
mod seccomp;
mod system_call;
pub mod values;

use std::io;

#[cfg(feature = "testing")]
pub use attempt::{attempt, attempt_ioctl};
pub use identity::Limits;
pub use inherited::close_others;
pub use seccomp::{load, refuse};
pub use system_call::{Call, Only};

/// The numbers of system calls, for the expansion of [`call!`].
#[doc(hidden)]
pub use libc;

/// Why the sandbox could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call of the set-up failed.
    #[error("could not {what}")]
    Step {
        /// The step that failed, as it reads behind "could not".
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The filter could not be made or loaded.
    #[error("could not load the system call filter")]
    Seccomp(#[from] seccompiler::Error),
    /// Landlock is there but would not take the rules.
    #[error("could not close the file system with Landlock")]
    Landlock(#[from] landlock::RulesetError),
}

/// Names the step that an errno belongs to.
fn step(what: &'static str) -> impl FnOnce(nix::Error) -> SandboxError {
    move |e| SandboxError::Step { what, source: e.into() }
}

/// Whether the kernel has Landlock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Landlock {
    /// Its rules hold, as far as this kernel knows them.
    Enforced,
    /// This kernel has none; the other layers stand.
    Missing,
}

/// Closes the layers that belong to the whole process, all but seccomp ([`load`]). Call with one thread only. Started by root it becomes `ids`,
/// user and group, or nobody.
///
/// # Errors
/// A layer cannot be closed: the process must read nothing.
pub fn enter(ids: Option<(u32, u32)>, limits: &Limits) -> Result<Landlock, SandboxError> {
    identity::no_new_privileges()?;
    if nix::unistd::geteuid().is_root() {
        identity::leave_namespaces()?;
        identity::empty_root()?;
        let (uid, gid) = ids.unwrap_or(identity::NOBODY);
        identity::become_user(uid, gid)?;
        identity::limit_threads(limits)?;
    }
    identity::limit_resources(limits)?;
    close_files()
}

/// Closes the file system: from here on no file can be opened, created, executed or removed, no TCP port used,
/// and no abstract socket connected to or process signalled that is not of this process: as far as the
/// kernel's Landlock goes.
fn close_files() -> Result<Landlock, SandboxError> {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V7))?
        .handle_access(AccessNet::from_all(ABI::V7))?
        .scope(Scope::from_all(ABI::V7))?
        .create()?
        .restrict_self()?;
    Ok(match status.ruleset {
        RulesetStatus::NotEnforced => Landlock::Missing,
        _ => Landlock::Enforced,
    })
}
