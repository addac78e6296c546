//! Where the agent keeps its files.
//!
//! | path | what | rights |
//! | --- | --- | --- |
//! | `<runtime>/control.sock` | the command line's way in | all may connect; see [`crate::control::roles`] |
//! | `<runtime>/agent.lock` | one agent at a time | |
//! | `<runtime>/vmms.json` | the VMMs that run, for the next agent | |
//! | `<runtime>/usb-switches.json` | the kernel's USB switches as they were; both are gone after a boot | |
//! | `<runtime>/<domain>/` | `vmm.sock` and the domain's port sockets | root alone |
//! | `<runtime>/<domain>/usb-<n>.sock` | where a domain's VMM takes USB devices | root alone |
//! | `<runtime>/<domain>/vdagent.sock` | an external guest's SPICE agent | root, and the group `bulkhead-external` |
//! | `<state>/policy.json` | the last good policy, see [`crate::policy_store`] | root alone |
//! | `<state>/audit/`, `<state>/keys/` | the audit log and its key, see [`crate::recorder`] | root alone |
//! | `<state>/handover.json` | former drivers of what is handed over | root alone |
//! | `<state>/log/` | serial logs | root alone |
//! | `<state>/discard/<domain>/` | this start's copies of disks that forget | root alone |

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::usb::DEVICES_PER_DOMAIN;

/// Longest path of a Unix socket, in bytes: `sun_path` less its terminator.
pub const SOCKET_PATH_MAX: usize = 107;

/// The three directories of an agent.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Where relative images lie.
    pub images: PathBuf,
    /// What outlives a restart of the PC.
    pub state: PathBuf,
    /// What does not outlive it.
    pub runtime: PathBuf,
}

/// A directory that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the directory {}: create it, or give another with --state or --runtime", path.display())]
pub struct LayoutError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Layout {
    /// Makes the directories, with the rights they need.
    pub fn create(&self, domains: &[&str]) -> Result<(), LayoutError> {
        directory(&self.runtime, 0o755)?;
        directory(&self.state, 0o700)?;
        directory(&self.log(), 0o700)?;
        domains.iter().try_for_each(|name| directory(&self.domain(name), 0o700))
    }

    /// A domain's sockets.
    #[must_use]
    pub fn domain(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// The control socket of a domain's VMM.
    #[must_use]
    pub fn vmm_socket(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vmm.sock")
    }

    /// The socket of a named console port.
    #[must_use]
    pub fn port_socket(&self, domain: &str, port: &str) -> PathBuf {
        self.domain(domain).join(format!("{port}.sock"))
    }

    /// Where an external domain's SPICE agent is connected.
    #[must_use]
    pub fn vdagent_socket(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vdagent.sock")
    }

    /// Where a domain's VMM listens for USB devices.
    pub fn usb_sockets(&self, domain: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let directory = self.domain(domain);
        (1..=DEVICES_PER_DOMAIN).map(move |number| directory.join(format!("usb-{number}.sock")))
    }

    /// What the kernel's switches for USB were before the agent took them. They last until the next boot, as this does.
    #[must_use]
    pub fn usb_switches(&self) -> PathBuf {
        self.runtime.join("usb-switches.json")
    }

    /// The agent's control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.runtime)
    }

    /// The lock that one agent holds.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("agent.lock")
    }

    /// The VMMs that run.
    #[must_use]
    pub fn vmm_record(&self) -> PathBuf {
        self.runtime.join("vmms.json")
    }

    /// What is handed over.
    #[must_use]
    pub fn handover_record(&self) -> PathBuf {
        self.state.join("handover.json")
    }

    /// Serial logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// A domain's disks that forget.
    #[must_use]
    pub fn discard(&self, domain: &str) -> PathBuf {
        self.state.join("discard").join(domain)
    }
}

/// The control socket in a runtime directory.
#[must_use]
pub fn control_socket(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// Makes one directory and its parents, the last with `mode`.
pub(crate) fn directory(path: &Path, mode: u32) -> Result<(), LayoutError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)))
        .map_err(|source| LayoutError { path: path.to_owned(), source })
}
