//! The few ways the agent touches sysfs. Reads go to a root directory (`/sys`); writes, whose
//! effects are the kernel's, go through [`Kernel`], so that a test can play the kernel.

use std::fs;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

/// What the agent asks the kernel to do. Called from worker threads; may block for as long as a
/// driver takes to let go, so never from the event loop.
pub trait Kernel: Send + Sync {
    /// Writes `text` to an existing sysfs attribute.
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()>;
    /// Loads a kernel module by name.
    fn load_module(&self, name: &str) -> io::Result<()>;
}

/// The sysfs of the kernel that this runs on.
#[derive(Debug)]
pub struct RunningKernel;

impl Kernel for RunningKernel {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        fs::OpenOptions::new().write(true).open(attribute)?.write_all(text.as_bytes())
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        let output = Command::new("modprobe")
            .arg(name)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(format!("modprobe {name}: {}", said.trim())))
    }
}

/// A sysfs tree, read through `hostpci`, and the kernel behind it.
#[derive(Clone)]
pub struct HostSysfs {
    tree: hostpci::Sysfs,
    pub(crate) kernel: Arc<dyn Kernel>,
}

impl HostSysfs {
    /// Makes that of the running system.
    #[must_use]
    pub fn system() -> Self {
        Self::at("/sys", Arc::new(RunningKernel))
    }

    /// Makes a tree somewhere else, with something else playing the kernel.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>, kernel: Arc<dyn Kernel>) -> Self {
        Self { tree: hostpci::Sysfs::at(root), kernel }
    }

    /// Returns a path below `/proc`, which lies beside it.
    #[must_use]
    pub fn proc(&self, below: &str) -> PathBuf {
        self.tree.path("../proc").join(below)
    }

    /// Returns the running boot's name for itself.
    #[must_use]
    pub fn boot(&self) -> Option<String> {
        let text = fs::read_to_string(self.proc("sys/kernel/random/boot_id")).ok()?;
        Some(text.trim().to_owned()).filter(|boot| !boot.is_empty())
    }
}

impl Deref for HostSysfs {
    type Target = hostpci::Sysfs;

    fn deref(&self) -> &hostpci::Sysfs {
        &self.tree
    }
}
