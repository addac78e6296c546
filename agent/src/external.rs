//! Sockets for guests that another VMM runs.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::unistd::{Gid, chown};

use crate::accounts::Accounts;

/// Members of this group may connect external guests; without it, root alone.
pub const EXTERNAL_GROUP: &str = "bulkhead-external";

/// Listens at `path`. The agent's lock is held, so a socket that is there is dead.
pub(crate) fn listen(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    match Accounts::host().group(EXTERNAL_GROUP).ok().flatten().map(Gid::from_raw) {
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
