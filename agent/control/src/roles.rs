//! Who may do what over the control socket. The kernel says who is at the other end
//! (`SO_PEERCRED`); the host's groups say what they are.
//!
//! Anybody without a role is refused. What each role may ask for is in [`super::commands`]. The groups are those of `/etc/group`: see
//! [`base::accounts`].

use std::fmt;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::Uid;

use super::protocol::{APPLY_MAX, REQUEST_MAX};
use base::accounts::Accounts;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The role of uid 0, which may do everything.
    Root,
    User,
    /// The department that runs the PCs.
    It,
    /// The security office, which writes and signs policies.
    Officer,
}

/// What it takes to ask for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Privilege {
    /// What somebody without it may not do, in words.
    pub what: &'static str,
    /// Whoever has one of these roles may, and root.
    pub roles: &'static [Role],
}

/// A user may not ask for something: what the user lacks, and who gives it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "user {uid} may not {what}: it takes root or the group {}; IT adds a user with `usermod -aG {} NAME`",
    groups.join(" or "),
    groups.first().copied().unwrap_or_default()
)]
pub struct NotAllowed {
    pub uid: u32,
    /// What was asked for, in words.
    pub what: &'static str,
    /// The groups whose members may.
    pub groups: Vec<&'static str>,
}

/// The groups that give roles.
pub const GROUPS: [(&str, Role); 3] =
    [(USER_GROUP, Role::User), (IT_GROUP, Role::It), (OFFICER_GROUP, Role::Officer)];
pub const USER_GROUP: &str = "bulkhead-user";
/// The host's group whose members are IT.
pub const IT_GROUP: &str = "bulkhead-it";
/// The host's group whose members are officers of the security office.
pub const OFFICER_GROUP: &str = "bulkhead-officer";

/// The user and the process at the other end of the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    /// Its process, when it connected.
    pub pid: i32,
    /// The name of its account; a directory service's has none here.
    pub account: Option<String>,
    roles: Vec<Role>,
}

/// The other end could not be identified.
#[derive(Debug, thiserror::Error)]
#[error("cannot tell who is at the other end of the control socket")]
pub struct UnknownPeer(#[from] nix::Error);

/// What the kernel says of the other end of a connection. Nothing was read to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
    primary_group: u32,
    pid: i32,
}

impl Peer {
    pub(crate) fn of(stream: &UnixStream) -> Result<Self, UnknownPeer> {
        let credentials = getsockopt(stream, PeerCredentials)?;
        let (uid, primary_group) = (credentials.uid(), credentials.gid());
        Ok(Self { uid, primary_group, pid: credentials.pid() })
    }

    /// Returns whether it is root, or the agent itself: what keeps users from each other is not for them.
    pub(crate) fn is_trusted(&self) -> bool {
        is_root(self.uid)
    }

    /// Makes somebody without a role.
    #[cfg(test)]
    pub(crate) fn without_role(uid: u32) -> Self {
        Self { uid, primary_group: uid, pid: 1 }
    }
}

impl Caller {
    /// Identifies the peer of a connection.
    ///
    /// # Errors
    /// The kernel does not name the peer.
    pub fn identify(stream: &UnixStream) -> Result<Self, UnknownPeer> {
        Ok(Self::of(Peer::of(stream)?))
    }

    /// Finds out who that is, for which the host's accounts are read.
    pub(crate) fn of(Peer { uid, primary_group, pid }: Peer) -> Self {
        let accounts = Accounts::host();
        let roles = roles_of(&accounts, uid, primary_group);
        // Without the file it is known by its number, and has no role but root's.
        let account = accounts.name(uid).ok().flatten();
        Self { uid, pid, account, roles }
    }

    /// Makes a user without any role, who may do nothing.
    #[cfg(test)]
    pub(crate) fn without_role(uid: u32) -> Self {
        Self { uid, pid: 1, account: None, roles: Vec::new() }
    }

    /// Makes a caller of one role.
    #[cfg(test)]
    pub(crate) fn of_role(role: Role) -> Self {
        Self { roles: vec![role], ..Self::without_role(1000) }
    }

    /// Returns the longest request it may make, in bytes.
    #[must_use]
    pub fn request_max(&self) -> usize {
        let applies = self.roles.iter().any(|role| matches!(role, Role::Root | Role::Officer));
        if applies { APPLY_MAX } else { REQUEST_MAX }
    }

    /// Checks whether it may ask for that.
    ///
    /// # Errors
    /// It may not.
    pub fn may(&self, privilege: &Privilege) -> Result<(), NotAllowed> {
        let Privilege { what, roles: allowed } = privilege;
        let may = |role: &Role| *role == Role::Root || allowed.contains(role);
        if self.roles.iter().any(may) {
            return Ok(());
        }
        let groups = GROUPS.iter().filter(|(_, role)| allowed.contains(role));
        Err(NotAllowed { uid: self.uid, what, groups: groups.map(|(name, _)| *name).collect() })
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.account {
            Some(account) => write!(f, "{account} (uid {}, pid {})", self.uid, self.pid),
            None => write!(f, "uid {} (pid {})", self.uid, self.pid),
        }
    }
}

/// Returns whether a user may do everything. The agent's own, when it does not run as root, is a developer on a machine of theirs.
fn is_root(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

fn roles_of(accounts: &Accounts, uid: u32, primary: u32) -> Vec<Role> {
    if is_root(uid) {
        return vec![Role::Root];
    }
    let names = GROUPS.map(|(name, _)| name);
    let groups = accounts.member_of(uid, primary, names).unwrap_or_else(|error| {
        tracing::error!(
            "cannot read the host's accounts, so that nobody but root has a role: {error}"
        );
        Vec::new()
    });
    GROUPS.iter().filter(|(name, _)| groups.contains(name)).map(|(_, role)| *role).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_without_the_role_is_refused_and_told_the_groups() {
        let privilege = Privilege { what: "stop a domain", roles: &[Role::It, Role::Officer] };
        for caller in [Caller::without_role(1000), Caller::of_role(Role::User)] {
            assert_eq!(
                caller.may(&privilege).unwrap_err().to_string(),
                "user 1000 may not stop a domain: it takes root or the group bulkhead-it or bulkhead-officer; IT adds a user with `usermod -aG bulkhead-it NAME`"
            );
        }
        for role in [Role::It, Role::Officer, Role::Root] {
            Caller::of_role(role).may(&privilege).unwrap();
        }
    }
}
