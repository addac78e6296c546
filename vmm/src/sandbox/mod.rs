//! The sandbox: closed after everything is open and before the guest's first instruction.
//!
//! | layer | what it takes away |
//! | --- | --- |
//! | descriptors | whatever the process was started with, besides standard streams and specification |
//! | namespaces | network, IPC, host name, mounts: the root directory is an empty read-only tmpfs |
//! | user and capabilities | an own user and group; no capability, none to be regained |
//! | limits | core dumps, files beyond a number, and files longer than the longest that it writes |
//! | Landlock | every file that could still be named; TCP; abstract sockets and processes of others |
//! | seccomp, per thread | every system call, every argument, and every ioctl, the thread has no use for |
//!
//! `docs/design/sandbox.md` lists each call with its reason, and what the escape tool (`machine::escape`) tries.
//!
//! Namespaces and user change need root; started by an ordinary user the VMM keeps that user and
//! closes the other layers. What cannot be closed is an error, except Landlock on kernels without.

mod filter;
mod identity;
mod seccomp;

use std::io;

pub use filter::Role;

use vmm_control::SandboxSpec;

/// Why the sandbox could not be closed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A system call of the set-up failed.
    #[error("could not {what}")]
    Step {
        /// What was attempted.
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

/// Closes the layers that belong to the whole process. Call with one thread only. No file is written
/// beyond `file_bytes_max` from here on: the limit is one for all of them.
pub fn enter(config: &SandboxSpec, file_bytes_max: u64) -> Result<(), SandboxError> {
    if !config.enabled {
        tracing::warn!("the sandbox is off: a guest that breaks out of the VMM has all its rights");
        return Ok(());
    }
    identity::no_new_privileges()?;
    if nix::unistd::geteuid().is_root() {
        identity::leave_namespaces()?;
        identity::empty_root()?;
        let (uid, gid) = config.ids.unwrap_or(identity::NOBODY);
        identity::become_user(uid, gid)?;
    }
    identity::limit_resources(file_bytes_max)?;
    close_files()
}

/// Loads the calling thread's system call filter.
pub fn filter_thread(config: &SandboxSpec, role: Role) -> Result<(), SandboxError> {
    if config.enabled {
        seccomp::load(role)?;
    }
    Ok(())
}

/// Loads a filter that allows these calls and ioctl requests on the calling thread, for the tests that
/// widen one.
#[cfg(test)]
pub(crate) fn load_lists(
    calls: impl Iterator<Item = crate::system_call::Call>,
    ioctls: impl Iterator<Item = libc::c_ulong>,
) -> Result<(), SandboxError> {
    Ok(seccomp::load_lists(calls, ioctls)?)
}

/// From here on no file can be opened, created, executed or removed, no TCP port used, and no abstract
/// socket connected to or process signalled that is not of this VMM: as far as the kernel's Landlock goes.
fn close_files() -> Result<(), SandboxError> {
    use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(ABI::V7))?
        .handle_access(AccessNet::from_all(ABI::V7))?
        .scope(Scope::from_all(ABI::V7))?
        .create()?
        .restrict_self()?;
    if status.ruleset == RulesetStatus::NotEnforced {
        tracing::warn!("this kernel has no Landlock; the other layers of the sandbox stand");
    }
    Ok(())
}
