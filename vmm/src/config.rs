//! What to run: the command line after it has been checked, before anything is opened.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::layout;

/// Most vCPUs of one guest.
pub const CPUS_MAX: u8 = 16;

/// Size of guest RAM in bytes, a whole number of MiB, written as [`notation`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(u64);

impl MemorySize {
    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// RAM below the 32-bit device hole, in bytes.
    pub fn low(self) -> u64 {
        self.0.min(layout::LOW_RAM_END)
    }

    /// RAM from 4 GiB up, in bytes.
    pub fn high(self) -> u64 {
        self.0.saturating_sub(layout::LOW_RAM_END)
    }

    /// First guest-physical address of the window for 64-bit BARs.
    pub fn mmio64_start(self) -> u64 {
        (layout::HIGH_RAM_START + self.high()).next_multiple_of(layout::MMIO64_ALIGN)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}M", self.0 >> 20)
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        notation::memory(text).map(Self).map_err(|mistake| mistake.to_string())
    }
}

/// One `--disk`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Raw image or block device.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub readonly: bool,
    /// Serial number shown to the guest (`/dev/disk/by-id/virtio-ID`), at most 20 bytes.
    pub id: Option<String>,
}

/// One `--net`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Name of an existing or creatable tap interface.
    pub tap: String,
    /// The guest's MAC address; one is derived from the tap's name otherwise.
    pub mac: Option<virtio::net::Mac>,
}

/// One `--port`: a named byte stream into the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The name the guest sees under /dev/virtio-ports/.
    pub name: String,
    /// Unix socket this VMM listens on.
    pub socket: PathBuf,
}

/// Where the first serial port goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SerialConfig {
    /// The terminal this VMM runs in, raw while it runs.
    #[default]
    Stdio,
    /// Nowhere.
    Null,
    /// Appended to a file of bounded size.
    File(PathBuf),
}

/// Whose rights the VMM keeps once it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxConfig {
    /// Whether to close the sandbox at all.
    pub enabled: bool,
    /// User and group to become, when started as root.
    pub ids: Option<(u32, u32)>,
}

/// Everything `bulkhead-vmm run` was told.
#[derive(Clone, Debug)]
pub struct VmConfig {
    /// bzImage or PVH ELF.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub cmdline: String,
    /// RAM.
    pub memory: MemorySize,
    /// Whether RAM comes from the host's huge-page pool.
    pub hugepages: bool,
    /// vCPUs, 1 to [`CPUS_MAX`].
    pub cpus: u8,
    /// Disks, in the order the guest sees them.
    pub disks: Vec<DiskConfig>,
    /// Network interfaces on taps.
    pub nets: Vec<NetConfig>,
    /// Passed-through PCI functions.
    pub vfio: Vec<vfio::Address>,
    /// The serial port.
    pub serial: SerialConfig,
    /// Named console ports.
    pub ports: Vec<PortConfig>,
    /// Unix sockets this VMM listens on for USB devices.
    pub usb: Vec<PathBuf>,
    /// Control socket.
    pub api_socket: Option<PathBuf>,
    /// How long the guest has to shut down after SIGTERM.
    pub stop_timeout: Duration,
    /// What a guest reset does: start the guest anew, or end the VMM.
    pub exit_on_reset: bool,
    /// Whether standard input is a link to an agent, and the guest has screen, keyboard and pointer.
    pub seat: bool,
    /// The sandbox.
    pub sandbox: SandboxConfig,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_split_around_the_hole() {
        let size: MemorySize = "5G".parse().unwrap();
        assert_eq!((size.low(), size.high()), (3 << 30, 2 << 30));
        assert_eq!(size.mmio64_start(), 6 << 30);
        let size: MemorySize = "512MiB".parse().unwrap();
        assert_eq!((size.low(), size.high(), size.mmio64_start()), (512 << 20, 0, 4 << 30));
    }
}
