//! Where the agent keeps its files.
//!
//! | path | what | rights |
//! | --- | --- | --- |
//! | `<runtime>/control.sock` | the command line's way in | all may connect; see the crate `control` |
//! | `<runtime>/agent.lock`, `<state>/audit.lock` | one agent, one writer of the log, at a time | root alone |
//! | `<runtime>/seat.json` | which domain is in front and whether the screen is locked, for the next agent | root alone |
//! | `<runtime>/slept.json` | how long the PC slept since its boot, as far as an agent saw to it | root alone |
//! | `<runtime>/usb-switches.json` | the kernel's USB switches as they were; both are gone after a boot | |
//! | `<runtime>/<domain>/` | `vmm.sock`, `seat.sock` and the domain's port sockets | root alone |
//! | `<runtime>/<domain>/wanted.json` | whether somebody wants it to run, for the next agent | root alone |
//! | `<runtime>/<domain>/vmm.json`, `vmm.log` | which process the domain's VMM is, and what it says, for the next agent | root alone |
//! | `<runtime>/<domain>/usb-<n>.sock` | where a domain's VMM takes USB devices | root alone |
//! | `<runtime>/<domain>/vdagent.sock` | an external guest's SPICE agent | root, and the group `bulkhead-vm-<domain>` |
//! | `<state>/policy.json` | the last good policy, see the crate `config` | root alone |
//! | `<state>/trust.json` | the trust store whose changes have to be signed, see the crate `config` | root alone |
//! | `<state>/audit/` | the audit log and the public half of its key, see the crate `recorder` | root, and the group `bulkhead-auditor` |
//! | `<state>/keys/` | the audit log's key | root alone |
//! | `<state>/audit.head`, `<runtime>/audit.head`, and beside the policy | how far the audit log went | all may read |
//! | `<state>/handover.json` | former drivers of what is handed over; in `<runtime>` while the state cannot be written | root alone |
//! | `<state>/setup.json` | what `bulkhead setup` changed, with the former content, until it is undone | root alone |
//! | `/run/bulkhead-setup.lock` | one `bulkhead setup` at a time | root alone |
//! | `<state>/rescue-boots` | boots without Bulkhead, until they are in the audit log | root alone |
//! | `<state>/program/` | bundles of Bulkhead's package, and which is in force; see the crate `program` | root alone |
//! | `<state>/log/` | serial logs | root alone |
//! | `<state>/discard/<domain>/` | this start's copies of disks that forget | root alone |

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

/// Devices that a domain can have at once: `--usb` sockets of its VMM.
pub const DEVICES_PER_DOMAIN: usize = 4;

/// The port that distributions' SPICE agents open in the guest: the clipboard's.
pub const CLIPBOARD_PORT: &str = "com.redhat.spice.0";
/// The ports that each guest has without being given them: a row for each mediator that speaks with a program in the guests.
pub const MEDIATORS_PORTS: &[&str] = &[CLIPBOARD_PORT];
/// What the device mapper calls the encrypted volume that `bulkhead setup` makes for the state, while it is open.
pub const STATE_VOLUME: &str = "bulkhead_state";

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
#[error("cannot use the directory {}: check that its disk has room and is not read-only, or give another with --state or --runtime", path.display())]
pub struct LayoutError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Layout {
    /// Makes the directories without which nothing runs.
    pub fn create_runtime(&self, domains: &[&str]) -> Result<(), LayoutError> {
        directory(&self.runtime, 0o755)?;
        domains.iter().try_for_each(|name| directory(&self.domain(name), 0o700))
    }

    /// Makes the directories of the state. Without them nothing can be recorded and so nothing crosses, but desktops run.
    pub fn create_state(&self) -> Result<(), LayoutError> {
        state_directory(&self.state)?;
        directory(&self.log(), 0o700)
    }

    /// Returns the directory of a domain's sockets.
    #[must_use]
    pub fn domain(&self, name: &str) -> PathBuf {
        self.runtime.join(name)
    }

    /// Returns the control socket of a domain's VMM.
    #[must_use]
    pub fn vmm_socket(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vmm.sock")
    }

    /// Returns where a domain's VMM listens for the link of its screen, keyboard and pointer.
    #[must_use]
    pub fn seat_socket(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("seat.sock")
    }

    /// Returns the socket of a named console port.
    #[must_use]
    pub fn port_socket(&self, domain: &str, port: &str) -> PathBuf {
        self.domain(domain).join(format!("{port}.sock"))
    }

    /// Returns where an external domain's SPICE agent is connected.
    #[must_use]
    pub fn vdagent_socket(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vdagent.sock")
    }

    /// Returns where a domain's VMM listens for USB devices.
    pub fn usb_sockets(&self, domain: &str) -> impl Iterator<Item = PathBuf> + use<> {
        let directory = self.domain(domain);
        (1..=DEVICES_PER_DOMAIN).map(move |number| directory.join(format!("usb-{number}.sock")))
    }

    /// Returns what the kernel's switches for USB were before the agent took them. They last until the next boot, as this does.
    #[must_use]
    pub fn usb_switches(&self) -> PathBuf {
        self.runtime.join("usb-switches.json")
    }

    /// Returns the agent's control socket.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        control_socket(&self.runtime)
    }

    /// Returns the path of the lock that one agent holds.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.runtime.join("agent.lock")
    }

    /// Returns the path of the record which process a domain's VMM is.
    #[must_use]
    pub fn vmm_record(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vmm.json")
    }

    /// Returns the path of the record whether a domain is to run.
    #[must_use]
    pub fn wanted(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("wanted.json")
    }

    /// Returns what a domain's VMM says.
    #[must_use]
    pub fn vmm_log(&self, domain: &str) -> PathBuf {
        self.domain(domain).join("vmm.log")
    }

    /// Returns how the seat was left.
    #[must_use]
    pub fn seat_state(&self) -> PathBuf {
        self.runtime.join("seat.json")
    }

    /// Returns how long the PC slept, as far as an agent saw to it.
    #[must_use]
    pub fn slept(&self) -> PathBuf {
        self.runtime.join("slept.json")
    }

    /// Returns what is handed over.
    #[must_use]
    pub fn handover_record(&self) -> PathBuf {
        self.state.join("handover.json")
    }

    /// Returns the same while the state cannot be written. No driver outlives a restart of the PC, and this does not either.
    #[must_use]
    pub fn handover_fallback(&self) -> PathBuf {
        self.runtime.join("handover.json")
    }

    /// Returns where `bulkhead setup` notes what it changes.
    #[must_use]
    pub fn setup_journal(state: &Path) -> PathBuf {
        state.join("setup.json")
    }

    /// Returns the file that one `bulkhead setup` has while it runs, and no other: not in the state directory, which setup may put another file system in the place of.
    #[must_use]
    pub fn setup_lock(root: &Path) -> PathBuf {
        root.join("run/bulkhead-setup.lock")
    }

    /// Returns the store of Bulkhead's own package.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        programs(&self.state)
    }

    /// Returns what `bulkhead-rescue.service` notes.
    #[must_use]
    pub fn rescue_boots(&self) -> PathBuf {
        self.state.join("rescue-boots")
    }

    /// Returns the directory of the serial logs.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state.join("log")
    }

    /// Returns the directory of a domain's disks that discard what is written.
    #[must_use]
    pub fn discard(&self, domain: &str) -> PathBuf {
        self.discards().join(domain)
    }

    /// Returns the directory of those of all domains.
    #[must_use]
    pub fn discards(&self) -> PathBuf {
        self.state.join("discard")
    }
}

/// Returns the store of Bulkhead's own package in a state directory.
#[must_use]
pub fn programs(state: &Path) -> PathBuf {
    state.join("program")
}

/// Returns the control socket in a runtime directory.
#[must_use]
pub fn control_socket(runtime: &Path) -> PathBuf {
    runtime.join("control.sock")
}

/// Makes one directory and its parents, the last with `mode`.
pub fn directory(path: &Path, mode: u32) -> Result<(), LayoutError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .and_then(|()| set_mode(path, mode))
        .map_err(|source| LayoutError { path: path.to_owned(), source })
}

/// Makes the state directory. That auditors may pass through one that is there stays as it is.
pub fn state_directory(path: &Path) -> Result<(), LayoutError> {
    let mode = fs::metadata(path).map_or(0o700, |metadata| metadata.permissions().mode());
    directory(path, 0o700 | mode & 0o010)
}

/// Lets a group pass through a directory to what it may read in it.
pub fn share(path: &Path, group: u32) -> Result<(), LayoutError> {
    chown(path, None, Some(group))
        .and_then(|()| set_mode(path, 0o710))
        .map_err(|source| LayoutError { path: path.to_owned(), source })
}

/// Changes the mode where it is another, so that a read-only directory that is as it should be is no error.
fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    if fs::metadata(path)?.permissions().mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
