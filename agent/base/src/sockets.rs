//! The Unix sockets between the agent and VMMs. None is ever waited for: a VMM is hostile, and one that accepts nobody must not hold
//! up the thread that others wait for.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::unistd::{Gid, chown};

use crate::accounts::Accounts;

/// Returns the group whose members may connect the guest of an external domain: one for each domain, as whoever runs one guest has no
/// business in another's. Without it, root alone may.
#[must_use]
pub fn external_group(domain: &str) -> String {
    format!("bulkhead-vm-{domain}")
}

/// Longest name of a group that groupadd(8) makes, in bytes.
const GROUP_NAME_MAX: usize = 32;

/// Returns why an external domain can have no group of its own, and what to do; `None` if it can.
#[must_use]
pub fn without_group(domain: &str) -> Option<(String, String)> {
    let group = external_group(domain);
    let room = GROUP_NAME_MAX.saturating_sub(external_group("").len());
    (group.len() > GROUP_NAME_MAX).then(|| {
        let why = format!(
            "the name of its group, {group}, has {} characters, and a group's has at most {GROUP_NAME_MAX}: root alone reaches the sockets of this domain",
            group.len()
        );
        (why, format!("have the domain called something of at most {room} characters, in the policy and in the machine file"))
    })
}

/// The socket by which the agent reaches a domain's VMM, and which of the two connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketEndpoint {
    /// The VMM listens at this path: the agent connects.
    Connect(PathBuf),
    /// Whoever runs the guest connects: the agent listens at this path.
    Listen(PathBuf),
}

/// Connects to a VMM that listens at `path`, without waiting: `UnixStream::connect` waits while the listener's backlog is full.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(fd.into())
}

/// Listens at `path` for the guest of an external domain. The agent's lock is held, so a socket that is there is dead.
pub fn listen(path: &Path, domain: &str) -> io::Result<UnixListener> {
    listen_among(&Accounts::host(), path, domain)
}

fn listen_among(accounts: &Accounts, path: &Path, domain: &str) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    let group = accounts.group(&external_group(domain)).ok().flatten();
    match group.map(Gid::from_raw) {
        Some(group) => {
            share(path, group, 0o660)?;
            path.parent().map_or(Ok(()), |directory| share(directory, group, 0o750))?;
        }
        None => fs::set_permissions(path, fs::Permissions::from_mode(0o600))?,
    }
    Ok(listener)
}

fn share(path: &Path, group: Gid, mode: u32) -> io::Result<()> {
    chown(path, None, Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use nix::sys::socket::{Backlog, bind, listen as begin};
    use nix::unistd::{Uid, getgid};

    use super::*;

    #[test]
    fn a_listener_that_accepts_nobody_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmm.sock");
        let full = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(full.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        begin(&full, Backlog::new(1).unwrap()).unwrap();
        let attempts: Vec<_> = (0..8).map(|_| connect(&path)).collect();
        let refused = attempts.iter().filter_map(|one| one.as_ref().err()).next();
        assert_eq!(refused.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_sockets_of_one_external_domain_are_not_another_ones() {
        let dir = tempfile::tempdir().unwrap();
        // Root can give a socket to any group, anybody else to their own.
        let groups = if Uid::effective().is_root() { [4001, 4002] } else { [getgid().as_raw(); 2] };
        let text = format!("bulkhead-vm-lab:x:{}:\nbulkhead-vm-ward:x:{}:\n", groups[0], groups[1]);
        fs::write(dir.path().join("group"), text).unwrap();
        let accounts = Accounts::in_directory(dir.path());
        let whose = |domain: &str| {
            let path = dir.path().join(domain).join("vdagent.sock");
            fs::create_dir(dir.path().join(domain)).unwrap();
            let _listener = listen_among(&accounts, &path, domain).unwrap();
            [&*path, path.parent().unwrap()].map(|path| {
                let metadata = fs::metadata(path).unwrap();
                (metadata.gid(), metadata.permissions().mode() & 0o777)
            })
        };
        assert_eq!(whose("lab"), [(groups[0], 0o660), (groups[0], 0o750)]);
        assert_eq!(whose("ward"), [(groups[1], 0o660), (groups[1], 0o750)]);
        assert_eq!(whose("other")[0].1, 0o600, "nobody's but root's without the group");
    }
}
