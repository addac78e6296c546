//! What an agent writes down of a VMM, for the next agent: which process it is, and as what it was started.
//!
//! A record lies in its domain's directory, beside the sockets on which the VMM listens, and is on the disk before the VMM is told what to
//! run: a VMM without one does nothing. It is completed when the VMM first answers, and goes when the VMM has ended.

use std::fs;
use std::io;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::boot::ImageSerial;
use super::process::{FileId, Identity, VmmProcess};
use base::durable;
use base::layout::Layout;

/// The form of the record.
const FORMAT: u32 = 1;

/// One VMM. Fields that another version adds are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmRecord {
    format: u32,
    /// The boot it belongs to; process numbers of another mean nothing.
    boot: String,
    domain: String,
    pub identity: Identity,
    /// The cgroup it was put into.
    pub cgroup: Option<String>,
    /// The program it runs, once it has answered; `None` also where this agent may not see it.
    pub executable: Option<FileId>,
    /// Whether it has answered on its control socket: it is what it was started as, and its guest runs.
    pub answered: bool,
    /// The version of the seat's link that it speaks.
    pub link: u32,
    /// SHA-256 of its specification, as hexadecimal digits.
    pub spec: String,
    /// The user and group it became.
    pub sandbox_id: Option<u32>,
    /// The PCI functions it has.
    pub functions: Vec<String>,
    /// The image that its guest was started from, if it was from one.
    #[serde(default)]
    pub image: Option<ImageSerial>,
    /// Its guest has said that it came up, also if the image's record does not have that yet.
    #[serde(default)]
    pub came_up: bool,
}

/// What a VMM was started as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRecord {
    /// [`digest`] of its specification.
    pub spec: String,
    /// The user and group it becomes.
    pub sandbox_id: Option<u32>,
    /// The PCI functions it has.
    pub functions: Vec<String>,
    /// The image that its guest starts from, if it is from one.
    pub image: Option<ImageSerial>,
}

impl VmmRecord {
    /// Makes the record of a VMM that was just started, and was put into its cgroup.
    #[must_use]
    pub fn new(domain: &str, vmm: &VmmProcess, started: LaunchRecord) -> Self {
        let LaunchRecord { spec, sandbox_id, functions, image } = started;
        Self {
            format: FORMAT,
            boot: boot_id(),
            domain: domain.to_owned(),
            identity: vmm.identity(),
            cgroup: vmm.cgroup(),
            executable: None,
            answered: false,
            link: seat_link::VERSION,
            spec,
            sandbox_id,
            functions,
            image,
            came_up: false,
        }
    }

    /// Returns whose VMM it is.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Completes the record of a VMM that has answered.
    pub fn complete(&mut self, vmm: &VmmProcess) {
        self.answered = true;
        self.executable = vmm.executable();
    }

    /// Writes it; when this returns it is on the disk.
    ///
    /// # Errors
    /// It is not.
    pub fn write(&self, layout: &Layout) -> io::Result<()> {
        durable::write(&layout.vmm_record(&self.domain), self)
    }

    /// Reads the record of a domain's VMM of this boot; `None` if there is none.
    ///
    /// # Errors
    /// There is something that is no record of it.
    pub fn read(layout: &Layout, domain: &str) -> io::Result<Option<Self>> {
        let found: Option<Self> = durable::read(&layout.vmm_record(domain))?;
        match found {
            Some(record) if record.format != FORMAT || record.domain != domain => Err(
                io::Error::new(io::ErrorKind::InvalidData, "it is of another version or domain"),
            ),
            found => Ok(found.filter(|record| record.boot == boot_id())),
        }
    }

    /// Reads every record of this boot that can be read, also of domains that there are not any more.
    #[must_use]
    pub fn all(layout: &Layout) -> Vec<Self> {
        let entries = fs::read_dir(&layout.runtime).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names.filter_map(|name| Self::read(layout, &name).ok().flatten()).collect()
    }

    /// Forgets a domain's VMM.
    ///
    /// # Errors
    /// The file is still there.
    pub fn remove(layout: &Layout, domain: &str) -> io::Result<()> {
        durable::remove(&layout.vmm_record(domain))
    }

    /// Returns whether a process is the one of this record, and runs what it ran then, where it ran then.
    #[must_use]
    pub fn is_of(&self, vmm: &VmmProcess) -> bool {
        self.is_where_it_was(vmm) && (!self.answered || vmm.executable() == self.executable)
    }

    /// Returns whether a process is the one of this record, of which cannot be seen what it runs: one whose first thread has ended shows no
    /// program, and its guest runs on.
    #[must_use]
    pub fn may_be_of(&self, vmm: &VmmProcess) -> bool {
        self.is_where_it_was(vmm) && vmm.executable().is_none()
    }

    fn is_where_it_was(&self, vmm: &VmmProcess) -> bool {
        vmm.identity() == self.identity && vmm.cgroup() == self.cgroup
    }
}

/// Returns the SHA-256 of a specification, as hexadecimal digits.
#[must_use]
pub fn digest(spec: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(spec).iter().fold(String::new(), |mut text, byte| {
        // A string takes everything.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Returns which start of the PC this is.
#[must_use]
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
