//! The default directories and files, as `docs/it/agent.md` names them.

use std::path::Path;

/// Returns the path of the machine file.
#[must_use]
pub fn machine() -> &'static Path {
    Path::new("/etc/bulkhead/machine.toml")
}
/// Returns the path of the policy.
#[must_use]
pub fn policy() -> &'static Path {
    Path::new("/etc/bulkhead/policy.toml")
}
/// Returns the directory of the images.
#[must_use]
pub fn images() -> &'static Path {
    Path::new("/var/lib/bulkhead/images")
}
/// Returns the agent's state directory.
#[must_use]
pub fn state() -> &'static Path {
    Path::new("/var/lib/bulkhead")
}
/// Returns the agent's runtime directory.
#[must_use]
pub fn runtime() -> &'static Path {
    Path::new("/run/bulkhead")
}
