//! What this PC lives from: the controllers of disks in use, the seat's graphics card, and the
//! controllers that its keyboard and pointer hang on. Handed to a guest, the PC would stop, or its user
//! would see and type nothing; after a card was added that can be what a machine file's address names.
//!
//! ```text
//!   /proc/*/mountinfo, /proc/swaps, domains' disks --> block device --> slaves (LVM, RAID) --+
//!   /sys/class/drm, connectors ------------------------------------------------------------+--> PCI functions on
//!   /sys/class/input -----------------------------------------------------------------------+    its path in sysfs
//! ```
//! ZFS is not looked through: the kernel does not say which disks a pool is on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

pub use claims::Screen;

use super::PciAddress;
use super::sysfs::HostSysfs;

/// Block devices on block devices: a file system on LVM on RAID on a partition is four.
const DEPTH_MAX: usize = 8;
/// Block devices that are looked through for one PC.
const BLOCK_DEVICES_MAX: usize = 4096;
/// Characters of a device's name in a message.
const NAME_MAX: usize = 60;
/// Keys by which a keyboard and a pointer are known (`linux/input-event-codes.h`).
const KEY_A: usize = 30;
const BTN_LEFT: usize = 0x110;
const BTN_TOUCH: usize = 0x14a;

/// Something the host uses a function for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// A disk behind it is mounted there.
    Mounted(String),
    /// A disk behind it is swapped to.
    Swap(String),
    /// A disk behind it is a domain's.
    Disk(String),
    /// The seat's screen is on it.
    Screen(String),
    /// The seat's keyboard or pointer is on it.
    Input(String),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mounted(at) => write!(f, "the disk mounted on {at}"),
            Self::Swap(node) => write!(f, "the swap on {node}"),
            Self::Disk(path) => write!(f, "the disk {path} of a domain"),
            Self::Screen(card) => write!(f, "the seat's screen ({card})"),
            Self::Input(name) => write!(f, "the seat's keyboard or pointer ({name})"),
        }
    }
}

/// What each function is used for.
#[derive(Debug, Clone, Default)]
pub struct HostUse {
    uses: BTreeMap<PciAddress, BTreeSet<Use>>,
}

impl HostUse {
    /// Looks at the PC as it is now.
    ///
    /// # Errors
    /// What is mounted, or what the kernel says of devices, cannot be read, so nobody knows what the host lives from.
    pub fn look(sysfs: &HostSysfs, screen: &Screen, disks: &[PathBuf]) -> io::Result<Self> {
        let mut this = Self::default();
        let mut devices = BlockDevices { sysfs, left: BLOCK_DEVICES_MAX, known: BTreeMap::new() };
        // The agent may have been started with mounts of its own.
        let own = text(&sysfs.proc("self/mountinfo"))?;
        let first = text_if_there(&sysfs.proc("1/mountinfo"))?;
        if first.is_empty() && own.lines().any(hides_processes) {
            return Err(io::Error::other("/proc is mounted with hidepid and hides process 1"));
        }
        for (device, at) in own.lines().chain(first.lines()).filter_map(mount) {
            match device {
                Device::Number(number) => {
                    this.add(devices.by_number(number)?, &Use::Mounted(at.to_owned()));
                }
                // bcachefs names all its disks, with colons between. A name may have a colon of its own (/dev/disk/by-path).
                Device::Nodes(nodes) => {
                    let parts = nodes.split(':').filter(|part| !part.is_empty() && *part != nodes);
                    for node in parts.chain([nodes]) {
                        this.add(devices.by_node(Path::new(node))?, &Use::Mounted(at.to_owned()));
                    }
                }
            }
        }
        for device in devices.btrfs()? {
            this.add(device, &Use::Mounted("a btrfs file system".to_owned()));
        }
        // The first line is a heading. A kernel without swap has no such file.
        let swaps = text_if_there(&sysfs.proc("swaps"))?;
        for node in swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next()) {
            this.add(devices.by_node(Path::new(node))?, &Use::Swap(node.to_owned()));
        }
        for disk in disks {
            let is_device = fs::metadata(disk).is_ok_and(|meta| meta.file_type().is_block_device());
            if is_device {
                this.add(devices.by_node(disk)?, &Use::Disk(disk.display().to_string()));
            }
        }
        if *screen != Screen::None {
            this.screens(sysfs, screen)?;
            this.inputs(sysfs)?;
        }
        if devices.left == 0 {
            let words =
                format!("more than {BLOCK_DEVICES_MAX} disks and parts of disks are in use");
            return Err(io::Error::other(words));
        }
        Ok(this)
    }

    /// Returns what the host uses a function for; empty if for nothing that it lives from.
    #[must_use]
    pub fn of(&self, address: PciAddress) -> Vec<String> {
        self.uses.get(&address).into_iter().flatten().map(Use::to_string).collect()
    }

    fn add(&mut self, functions: BTreeSet<PciAddress>, what: &Use) {
        for address in functions {
            self.uses.entry(address).or_default().insert(what.clone());
        }
    }

    fn screens(&mut self, sysfs: &HostSysfs, screen: &Screen) -> io::Result<()> {
        let folder = sysfs.path("class/drm");
        let names = names(&folder)?;
        let is_card = |name: &&String| {
            name.strip_prefix("card").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()))
        };
        let shows = |card: &str| {
            let connector = format!("{card}-");
            names.iter().filter(|name| name.starts_with(&connector)).any(|name| {
                fs::read_to_string(folder.join(name).join("status"))
                    .is_ok_and(|status| status.trim() == "connected")
            })
        };
        let boots = |card: &str| {
            fs::read_to_string(folder.join(card).join("device/boot_vga"))
                .is_ok_and(|text| text.trim() == "1")
        };
        let named = match screen {
            // A link such as by-path/... leads to the card.
            Screen::Card(node) => fs::canonicalize(node).unwrap_or_else(|_| node.clone()),
            Screen::None | Screen::First => PathBuf::new(),
        };
        for card in names.iter().filter(is_card) {
            let seats = match screen {
                Screen::Card(_) => named.file_name().is_some_and(|name| name == card.as_str()),
                Screen::First => shows(card) || boots(card),
                Screen::None => false,
            };
            if seats {
                let functions = functions_on(&folder.join(card).join("device"));
                self.add(functions, &Use::Screen(card.clone()));
            }
        }
        Ok(())
    }

    fn inputs(&mut self, sysfs: &HostSysfs) -> io::Result<()> {
        let folder = sysfs.path("class/input");
        for name in names(&folder)?.into_iter().filter(|name| name.starts_with("event")) {
            let device = folder.join(name).join("device");
            let read = |file: &str| fs::read_to_string(device.join(file)).unwrap_or_default();
            let keys = read("capabilities/key");
            // Sound cards and power buttons are input devices too.
            if [KEY_A, BTN_LEFT, BTN_TOUCH].into_iter().any(|key| has_bit(&keys, key)) {
                let name = read("name");
                let words = printable::line(name.trim()).up_to(NAME_MAX).to_string();
                self.add(functions_on(&device), &Use::Input(words));
            }
        }
        // One that no driver has at the moment has no input device: it may be the seat's all the same.
        let usb = sysfs.path("bus/usb/devices");
        for interface in names(&usb)?.into_iter().filter(|name| name.contains(':')) {
            let class = fs::read_to_string(usb.join(&interface).join("bInterfaceClass"));
            if class.is_ok_and(|class| class.trim() == "03") {
                let words = format!("a HID device, USB interface {interface}");
                self.add(functions_on(&usb.join(&interface)), &Use::Input(words));
            }
        }
        Ok(())
    }
}

/// How a mounted file system says what it is on.
enum Device<'a> {
    Number(&'a str),
    Nodes(&'a str),
}

/// Returns the device and the place of a line of mountinfo (`proc_pid_mountinfo(5)`).
fn mount(line: &str) -> Option<(Device<'_>, &str)> {
    let (fields, rest) = line.split_once(" - ")?;
    let mut fields = fields.split(' ');
    let number = fields.nth(2)?;
    let at = fields.nth(1)?;
    if !number.starts_with("0:") {
        return Some((Device::Number(number), at));
    }
    // A number of its own: btrfs, overlays, and what is on no disk.
    let source = rest.split(' ').nth(1)?;
    Path::new(source).is_absolute().then_some((Device::Nodes(source), at))
}

/// Returns whether a line of mountinfo is of a /proc that shows not everybody every process (`hidepid`, proc(5)).
fn hides_processes(line: &str) -> bool {
    let behind = line.split_once(" - ").map(|(_, behind)| behind).unwrap_or_default();
    behind.starts_with("proc ") && behind.contains("hidepid=")
}

/// Reads a file of /proc. The kernel writes names of mount points as they are, in whatever bytes.
fn text(path: &Path) -> io::Result<String> {
    let bytes = fs::read(path).map_err(|error| unread(path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads a file of /proc that need not be there; one that is there and cannot be read is not nothing.
fn text_if_there(path: &Path) -> io::Result<String> {
    text(path).or_else(|error| match error.kind() {
        io::ErrorKind::NotFound => Ok(String::new()),
        _ => Err(error),
    })
}

fn unread(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// The block devices of this PC, and the functions that each is behind, as far as it was looked up.
struct BlockDevices<'a> {
    sysfs: &'a HostSysfs,
    /// Block devices that may still be looked at.
    left: usize,
    /// What those are behind that were looked at: whoever may mount (a FUSE file system) says as often as he likes what he mounts from.
    known: BTreeMap<PathBuf, BTreeSet<PciAddress>>,
}

impl BlockDevices<'_> {
    fn by_number(&mut self, number: &str) -> io::Result<BTreeSet<PciAddress>> {
        self.functions_behind(&self.sysfs.path("dev/block").join(number), DEPTH_MAX)
    }

    fn by_node(&mut self, node: &Path) -> io::Result<BTreeSet<PciAddress>> {
        match fs::metadata(node) {
            Ok(meta) if meta.file_type().is_block_device() => {
                let device = meta.rdev();
                let number =
                    format!("{}:{}", nix::sys::stat::major(device), nix::sys::stat::minor(device));
                self.by_number(&number)
            }
            // A file lies on what is mounted; a node that is gone may still be known by its name.
            _ => match node.file_name() {
                Some(name) => {
                    self.functions_behind(&self.sysfs.path("class/block").join(name), DEPTH_MAX)
                }
                None => Ok(BTreeSet::new()),
            },
        }
    }

    fn btrfs(&mut self) -> io::Result<Vec<BTreeSet<PciAddress>>> {
        let folder = self.sysfs.path("fs/btrfs");
        let mut devices = Vec::new();
        for system in names(&folder)? {
            let folder = folder.join(system).join("devices");
            for name in names(&folder)? {
                devices.push(self.functions_behind(&folder.join(name), DEPTH_MAX)?);
            }
        }
        Ok(devices)
    }

    /// Returns the functions that a block device, or what it is made of, is behind.
    fn functions_behind(
        &mut self,
        device: &Path,
        depth: usize,
    ) -> io::Result<BTreeSet<PciAddress>> {
        let Ok(device) = fs::canonicalize(device) else { return Ok(BTreeSet::new()) };
        if let Some(known) = self.known.get(&device) {
            return Ok(known.clone());
        }
        if depth == 0 || self.left == 0 {
            return Ok(BTreeSet::new());
        }
        self.left -= 1;
        let mut functions = functions_on(&device);
        // Of a partition the whole disk knows what it is made of.
        let whole = device.parent().filter(|_| device.join("partition").exists());
        for folder in [Some(device.as_path()), whole].into_iter().flatten() {
            let slaves = folder.join("slaves");
            for slave in names(&slaves)? {
                functions.extend(self.functions_behind(&slaves.join(slave), depth - 1)?);
            }
        }
        // An NVMe disk with several paths belongs to a subsystem, which knows its controllers.
        let subsystem = device.ancestors().find(|folder| {
            folder.file_name().is_some_and(|n| n.to_string_lossy().starts_with("nvme-subsys"))
        });
        if let Some(subsystem) = subsystem {
            for controller in names(subsystem)?.iter().filter(|name| name.starts_with("nvme")) {
                functions.extend(functions_on(&subsystem.join(controller)));
            }
        }
        self.known.insert(device, functions.clone());
        Ok(functions)
    }
}

/// Returns the PCI functions on a device's path: its controller, and the bridges before it.
fn functions_on(device: &Path) -> BTreeSet<PciAddress> {
    let Ok(device) = fs::canonicalize(device) else { return BTreeSet::new() };
    device
        .components()
        .filter_map(|part| PciAddress::from_full(part.as_os_str().to_str()?).ok())
        .collect()
}

/// Returns the names in a folder of sysfs, none if it is not there.
fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        // A device that has no such folder, or was pulled this moment.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unread(folder, &error)),
    };
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort_unstable();
    Ok(names)
}

/// Returns whether a bit is set in what sysfs writes as words of 64 bits, the highest first.
fn has_bit(words: &str, bit: usize) -> bool {
    let word = words.split_whitespace().rev().nth(bit / 64);
    word.and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (bit % 64) & 1 == 1)
}

#[cfg(test)]
mod tests;
