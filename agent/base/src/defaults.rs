//! The default directories and files, as `docs/it/agent.md` names them.

use std::path::Path;

/// Returns the machine file.
#[must_use]
pub fn machine() -> &'static Path {
    Path::new("/etc/bulkhead/machine.toml")
}
#[must_use]
pub fn policy() -> &'static Path {
    Path::new("/etc/bulkhead/policy.toml")
}
/// Images.
#[must_use]
pub fn images() -> &'static Path {
    Path::new("/var/lib/bulkhead/images")
}
/// State.
#[must_use]
pub fn state() -> &'static Path {
    Path::new("/var/lib/bulkhead")
}
/// Runtime.
#[must_use]
pub fn runtime() -> &'static Path {
    Path::new("/run/bulkhead")
}
