//! Who the process is once its sandbox is closed: nobody, nowhere.

use std::io;
use std::os::unix::fs::chroot;

use caps::CapSet;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, chdir, pivot_root, setgroups, setresgid, setresuid};

use super::{SandboxError, step};

/// User and group when none were given: those that own nothing.
pub(super) const NOBODY: (u32, u32) = (65534, 65534);

/// What a process may use; none is raised again.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Length that no file is written beyond, in bytes: one limit for all of them. Block devices have their size.
    pub file_bytes: u64,
    /// How many file descriptors may be open.
    pub files: u64,
    /// Address space, in bytes, if it is limited.
    pub memory: Option<u64>,
    /// Processor time, in seconds, if it is limited: who uses more is killed.
    pub processor_time: Option<u64>,
    /// How many threads its user may have, in all of its processes, if that is limited: of a process that was started by root, whose user is not others'.
    pub threads: Option<u64>,
}

pub(super) fn no_new_privileges() -> Result<(), SandboxError> {
    prctl::set_no_new_privs().map_err(step("give up gaining privileges"))?;
    // No core dump, no ptrace by others of the same user.
    prctl::set_dumpable(false).map_err(step("switch core dumps off"))
}

pub(super) fn leave_namespaces() -> Result<(), SandboxError> {
    let flags = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(flags).map_err(step("leave the host's namespaces"))
}

/// Makes an empty, read-only directory the root of this process.
pub(super) fn empty_root() -> Result<(), SandboxError> {
    const NONE: Option<&str> = None;
    // Any directory that is surely there will do: it is covered in this mount namespace only.
    const PLACE: &str = "/proc";
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)
        .map_err(step("make the mounts private"))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("none"), PLACE, Some("tmpfs"), flags, Some("size=4k,mode=0555"))
        .map_err(step("mount an empty root"))?;
    chdir(PLACE).map_err(step("enter the empty root"))?;
    match pivot_root(".", ".") {
        Ok(()) => {
            umount2(".", MntFlags::MNT_DETACH).map_err(step("leave the host's file system"))?;
        }
        // An initramfs cannot be pivoted away from.
        Err(nix::Error::EINVAL) => chroot(".")
            .map_err(|source| SandboxError::Step { what: "change the root directory", source })?,
        Err(e) => return Err(step("change the root directory")(e)),
    }
    chdir("/").map_err(step("enter the empty root"))
}

/// Becomes an ordinary user, without capabilities: going from root to another user drops those in
/// effect, and an empty bounding set keeps any from coming back.
pub(super) fn become_user(uid: u32, gid: u32) -> Result<(), SandboxError> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    for capability in caps::runtime::thread_all_supported() {
        caps::drop(None, CapSet::Bounding, capability).map_err(|error| SandboxError::Step {
            what: "give up a capability for good",
            source: io::Error::other(error),
        })?;
    }
    setgroups(&[]).map_err(step("leave all groups"))?;
    setresgid(gid, gid, gid).map_err(step("change the group"))?;
    setresuid(uid, uid, uid).map_err(step("change the user"))?;
    // Changing the user makes the process dumpable again on some kernels.
    prctl::set_dumpable(false).map_err(step("switch core dumps off"))
}

/// Limits how many threads the user has that the process has become: nothing else counts there. Without capabilities, or it would not hold.
pub(super) fn limit_threads(limits: &Limits) -> Result<(), SandboxError> {
    let Some(most) = limits.threads else { return Ok(()) };
    setrlimit(Resource::RLIMIT_NPROC, most, most).map_err(step("limit the number of threads"))
}

pub(super) fn limit_resources(limits: &Limits) -> Result<(), SandboxError> {
    let limit = |resource, most: u64, what| setrlimit(resource, most, most).map_err(step(what));
    limit(Resource::RLIMIT_FSIZE, limits.file_bytes, "limit the length of files")?;
    limit(Resource::RLIMIT_CORE, 0, "limit core dumps")?;
    limit(Resource::RLIMIT_NOFILE, limits.files, "limit the number of open files")?;
    if let Some(seconds) = limits.processor_time {
        limit(Resource::RLIMIT_CPU, seconds, "limit the processor time")?;
    }
    match limits.memory {
        Some(bytes) => limit(Resource::RLIMIT_AS, bytes, "limit the memory"),
        None => Ok(()),
    }
}
