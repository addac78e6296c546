//! The virtual machine to run.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hostpci::Address;
use notation::Mac;
use serde::{Deserialize, Serialize};

use crate::limits::{
    CMDLINE_MAX, CPUS_MAX, DISK_ID_MAX, DISKS_MAX, INTERFACE_NAME_MAX, PASSTHROUGH_MAX,
    PORT_NAME_MAX, PORTS_MAX, SPEC_MAX, USB_MAX, is_disk_id, is_port_name,
};
use crate::memory::MemorySize;
use crate::text;

/// One virtual machine: what `bulkhead-vmm run` is told, by its command line or as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmSpec {
    /// bzImage or PVH ELF.
    pub kernel: PathBuf,
    /// The initial RAM disk, if the guest boots with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, at most [`CMDLINE_MAX`] bytes.
    pub cmdline: String,
    /// The size of the guest's RAM.
    #[serde(with = "text")]
    pub memory: MemorySize,
    /// Whether RAM comes from the host's huge-page pool.
    #[serde(default)]
    pub hugepages: bool,
    /// vCPUs, 1 to [`CPUS_MAX`].
    pub cpus: u8,
    /// Disks, in the order the guest sees them.
    #[serde(default)]
    pub disks: Vec<DiskSpec>,
    /// Network interfaces on taps.
    #[serde(default)]
    pub nets: Vec<NetSpec>,
    /// PCI functions of the host that are passed through whole, at most [`PASSTHROUGH_MAX`].
    #[serde(default, with = "text::list")]
    pub vfio: Vec<Address>,
    /// Where the guest's serial port goes.
    #[serde(default)]
    pub serial: SerialSpec,
    /// Console ports, each with its name and its socket.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Unix sockets the VMM listens on for USB devices.
    #[serde(default)]
    pub usb: Vec<PathBuf>,
    /// Control socket, see [`crate::command`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_socket: Option<PathBuf>,
    /// Unix socket (`SOCK_SEQPACKET`) the VMM listens on for the link of screen, keyboard and pointer, which the guest then has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seat_socket: Option<PathBuf>,
    /// How long the guest has to shut down after SIGTERM.
    #[serde(with = "text::duration")]
    pub stop_timeout: Duration,
    /// What a guest reset does: end the VMM, or start the guest anew.
    #[serde(default)]
    pub exit_on_reset: bool,
    /// What the sandbox is made of.
    #[serde(default)]
    pub sandbox: SandboxSpec,
}

/// One virtio disk, by the file that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskSpec {
    /// Raw image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    #[serde(default)]
    pub readonly: bool,
    /// Serial number shown to the guest (`/dev/disk/by-id/virtio-ID`), at most [`DISK_ID_MAX`] bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// A network interface on a tap.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetSpec {
    /// Name of an existing or creatable tap interface.
    pub tap: String,
    /// The guest's MAC address; one is derived from the tap's name otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "text::option")]
    pub mac: Option<Mac>,
}

/// A named byte stream into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSpec {
    /// The name the guest sees under /dev/virtio-ports/.
    pub name: String,
    /// Unix socket the VMM listens on.
    pub socket: PathBuf,
}

/// Where the first serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SerialSpec {
    /// The terminal the VMM runs in, raw while it runs. Not for a specification on standard input.
    Stdio,
    /// Nothing reads the serial port.
    #[default]
    Null,
    /// Appended to a file of bounded size.
    File(PathBuf),
}

/// Whose rights the VMM keeps once it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandboxSpec {
    /// Whether to close the sandbox at all.
    pub enabled: bool,
    /// User and group to become, when started as root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<(u32, u32)>,
}

impl Default for SandboxSpec {
    fn default() -> Self {
        Self { enabled: true, ids: None }
    }
}

/// A specification that is none, or asks for what there is not. The text says what to write.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// The descriptor cannot be read.
    #[error("the specification cannot be read")]
    Read(#[source] io::Error),
    /// The JSON is longer than [`SPEC_MAX`].
    #[error("the specification is longer than {SPEC_MAX} bytes")]
    TooLong,
    /// It is not JSON, or not a specification.
    #[error("the specification is not one: {0}")]
    Json(#[from] serde_json::Error),
    /// A list has more entries than a guest can have.
    #[error("`{list}` has {count} entries; at most {most} fit into one guest")]
    TooMany {
        /// The name of the list.
        list: &'static str,
        /// So many it has.
        count: usize,
        /// So many there may be.
        most: usize,
    },
    /// The number of vCPUs is out of range.
    #[error("cpus = {0} is out of range; a guest has 1 to {CPUS_MAX}")]
    Cpus(u8),
    /// The kernel command line is too long; its length in bytes.
    #[error("the kernel command line has {0} bytes; Linux takes at most {CMDLINE_MAX}: shorten it")]
    Cmdline(usize),
    /// A disk's identifier has no characters, too many, or others than ASCII.
    #[error("`{0}` is no identifier of a disk: it takes 1 to {DISK_ID_MAX} ASCII characters")]
    DiskId(String),
    /// A name that no network interface can have.
    #[error(
        "`{0}` is not the name of a network interface: 1 to {INTERFACE_NAME_MAX} bytes without slash or space"
    )]
    Tap(String),
    /// A name that no console port can have.
    #[error(
        "`{0}` is not a port name: letters, digits, dots, dashes and underscores, at most {PORT_NAME_MAX}"
    )]
    PortName(String),
    /// Two ports have one name.
    #[error("port `{0}` is named twice; remove one of them")]
    PortTwice(String),
    /// Two things have one socket.
    #[error("the socket {} is named twice; give each its own", .0.display())]
    SocketTwice(PathBuf),
    /// A path is empty.
    #[error("an empty path names no file; write the file's name")]
    EmptyPath,
}

impl VmSpec {
    /// Reads a specification to its end, and checks it.
    ///
    /// # Errors
    /// It cannot be read, is longer than [`SPEC_MAX`], is no specification, or asks for what there is not.
    pub fn read(from: impl Read) -> Result<Self, SpecError> {
        let mut text = Vec::new();
        from.take(SPEC_MAX as u64 + 1).read_to_end(&mut text).map_err(SpecError::Read)?;
        if text.len() > SPEC_MAX {
            return Err(SpecError::TooLong);
        }
        let spec: Self = serde_json::from_slice(&text)?;
        spec.check()?;
        Ok(spec)
    }

    /// Returns the specification as JSON.
    ///
    /// # Errors
    /// A path in it is not UTF-8, or it is longer than [`SPEC_MAX`].
    pub fn to_json(&self) -> Result<Vec<u8>, SpecError> {
        let text = serde_json::to_vec(self)?;
        if text.len() > SPEC_MAX { Err(SpecError::TooLong) } else { Ok(text) }
    }

    /// Checks what its types leave open, before anything is opened.
    ///
    /// # Errors
    /// What is wrong, and what to write.
    pub fn check(&self) -> Result<(), SpecError> {
        for (list, count, most) in [
            ("disks", self.disks.len(), DISKS_MAX),
            ("nets", self.nets.len(), DISKS_MAX),
            ("vfio", self.vfio.len(), PASSTHROUGH_MAX),
            ("ports", self.ports.len(), PORTS_MAX),
            ("usb", self.usb.len(), USB_MAX),
        ] {
            if count > most {
                return Err(SpecError::TooMany { list, count, most });
            }
        }
        if !(1..=CPUS_MAX).contains(&self.cpus) {
            return Err(SpecError::Cpus(self.cpus));
        }
        if self.cmdline.len() > CMDLINE_MAX {
            return Err(SpecError::Cmdline(self.cmdline.len()));
        }
        for id in self.disks.iter().filter_map(|disk| disk.id.as_deref()) {
            if !is_disk_id(id) {
                return Err(SpecError::DiskId(id.to_owned()));
            }
        }
        for net in &self.nets {
            check_tap(&net.tap)?;
        }
        for (index, port) in self.ports.iter().enumerate() {
            if !is_port_name(&port.name) {
                return Err(SpecError::PortName(port.name.clone()));
            }
            if self.ports.iter().take(index).any(|other| other.name == port.name) {
                return Err(SpecError::PortTwice(port.name.clone()));
            }
        }
        let files = self.disks.iter().map(|disk| disk.path.as_path());
        let files = files.chain(self.initrd.as_deref()).chain([self.kernel.as_path()]);
        if files.chain(self.sockets()).any(|path| path.as_os_str().is_empty()) {
            return Err(SpecError::EmptyPath);
        }
        let sockets: Vec<&Path> = self.sockets().collect();
        for (index, socket) in sockets.iter().enumerate() {
            if sockets.iter().take(index).any(|other| other == socket) {
                return Err(SpecError::SocketTwice((*socket).to_owned()));
            }
        }
        Ok(())
    }

    /// Returns all sockets the VMM listens on.
    pub fn sockets(&self) -> impl Iterator<Item = &Path> {
        let ports = self.ports.iter().map(|port| port.socket.as_path());
        let usb = self.usb.iter().map(PathBuf::as_path);
        let own =
            [&self.control_socket, &self.seat_socket].into_iter().filter_map(Option::as_deref);
        ports.chain(usb).chain(own)
    }
}

/// Checks the name of a network interface (`dev_valid_name` of the kernel's `net/core/dev.c`).
///
/// # Errors
/// It is none.
pub fn check_tap(name: &str) -> Result<(), SpecError> {
    let legal = |byte: u8| byte != b'/' && byte != b':' && !byte.is_ascii_whitespace() && byte != 0;
    let dots = [OsStr::new("."), OsStr::new("..")].contains(&OsStr::new(name));
    if (1..=INTERFACE_NAME_MAX).contains(&name.len()) && name.bytes().all(legal) && !dots {
        Ok(())
    } else {
        Err(SpecError::Tap(name.to_owned()))
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
