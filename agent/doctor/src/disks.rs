//! Which file systems and disks carry root, state and images, below LVM, encryption and RAID too.
//!
//! ```text
//!  a path --/proc/self/mountinfo--> FileSystem --/sys/dev/block, /sys/fs/btrfs--> block devices --slaves--> disks
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use config::machine::{Kind, Machine};
use nix::sys::stat::{major, minor};

use super::{InputFiles, SystemPaths};

/// Block devices on block devices: a file system on LVM on encryption on RAID on a partition is five.
const DEPTH_MAX: usize = 8;
/// Block devices that are looked at for one image or file system, and disks that are named.
pub(super) const DISKS_MAX: usize = 64;
/// Where a btrfs lists the devices that it is made of.
const BTRFS: &str = "fs/btrfs";

/// Returns the number of the block device that a file is on, or is, as the kernel writes it (`8:0`). A file that is not there is the
/// finding `image`.
pub(super) fn number(path: &Path) -> Option<String> {
    let metadata = fs::metadata(path).ok()?;
    let is_device = metadata.file_type().is_block_device();
    let number = if is_device { metadata.rdev() } else { metadata.dev() };
    Some(format!("{}:{}", major(number), minor(number)))
}

/// The disks below a block device: itself, the one that it is a part of, or those that it is made of. What is on no block device (a file
/// system in memory) has none.
#[derive(Default)]
pub(super) struct Disks {
    pub(super) names: BTreeSet<String>,
    /// The folders in `/sys` of every block device on the way.
    pub(super) seen: BTreeSet<PathBuf>,
}

impl Disks {
    /// Looks below a block device, by its folder in `/sys`.
    pub(super) fn below(device: &Path) -> Self {
        let mut disks = Self::default();
        disks.look_below(device, DEPTH_MAX);
        disks
    }

    fn look_below(&mut self, device: &Path, depth: usize) {
        let (Ok(device), Some(depth)) = (fs::canonicalize(device), depth.checked_sub(1)) else {
            return;
        };
        if self.seen.len() >= DISKS_MAX || !self.seen.insert(device.clone()) {
            return;
        }
        if device.join("partition").exists() {
            // The disk that it is a part of may be a RAID.
            return device.parent().map_or((), |disk| self.look_below(disk, depth));
        }
        let slaves = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
        let slaves: Vec<PathBuf> = slaves.map(|entry| entry.path()).take(DISKS_MAX).collect();
        if !slaves.is_empty() {
            return slaves.iter().for_each(|slave| self.look_below(slave, depth));
        }
        let name = device.file_name().and_then(|name| name.to_str());
        self.names.extend(name.map(str::to_owned));
    }
}

/// A file system that is mounted, by its line in `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Its device: `major:minor`, of one on no block device a number of its own.
    pub(super) number: String,
    pub(super) point: PathBuf,
    pub(super) kind: String,
    source: PathBuf,
    /// How the file system itself is mounted, whatever this mount adds: `rw,errors=remount-ro`.
    pub(super) options: String,
}

impl FileSystem {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(2);
        let (number, _, point) = (left.next()?, left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, source, options) = (right.next()?, right.next()?, right.next()?);
        Some(Self {
            number: number.to_owned(),
            point: unescaped(point),
            kind: kind.to_owned(),
            source: unescaped(source),
            options: options.to_owned(),
        })
    }

    /// Returns whether one of its options is this word.
    pub(super) fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|word| word == option)
    }

    /// Returns the folders in `/sys` of the block devices that it is made of; none if it is on no block device.
    fn devices(&self, system: &SystemPaths) -> Vec<PathBuf> {
        let device = system.sysfs.path("dev/block").join(&self.number);
        if device.exists() {
            return vec![device];
        }
        if self.kind != "btrfs" {
            return Vec::new();
        }
        let Some(folder) = self.btrfs(system) else { return Vec::new() };
        let devices = fs::read_dir(folder.join("devices")).into_iter().flatten().flatten();
        let mut devices: Vec<PathBuf> = devices.map(|entry| entry.path()).take(DISKS_MAX).collect();
        devices.sort_unstable();
        devices
    }

    /// Returns the folder of a btrfs in `/sys`: the one that has the device it was mounted by.
    pub(super) fn btrfs(&self, system: &SystemPaths) -> Option<PathBuf> {
        // What is mounted by a link (`/dev/mapper/root`) is listed by what that leads to.
        let below = self.source.strip_prefix("/dev").ok()?;
        let node = fs::canonicalize(system.dev.join(below)).unwrap_or_else(|_| self.source.clone());
        let name = node.file_name()?;
        let volumes = fs::read_dir(system.sysfs.path(BTRFS)).ok()?.flatten();
        let mut volumes = volumes.map(|entry| entry.path()).take(DISKS_MAX);
        volumes.find(|volume| volume.join("devices").join(name).exists())
    }
}

/// Reads a name in which blanks, tabs, line ends and backslashes are written as three octal digits.
fn unescaped(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut name = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let sign = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (sign, part.get(3..)) {
            (Some(sign), Some(rest)) if sign.is_ascii() => {
                name.push(char::from(sign));
                name.push_str(rest);
            }
            _ => {
                name.push('\\');
                name.push_str(part);
            }
        }
    }
    PathBuf::from(name)
}

/// A file system on block devices, with what of Bulkhead's or of the host's lies on it.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) system: FileSystem,
    /// The folders in `/sys` of its block devices, at least one.
    pub(super) devices: Vec<PathBuf>,
    /// The places that were asked for: `/`, the state directory, the images' directory, a domain's disk.
    pub(super) holds: BTreeSet<PathBuf>,
}

/// What root, state and images lie on.
#[derive(Debug, Default)]
pub(super) struct Storage {
    pub(super) file_systems: Vec<Carrier>,
    /// The disks, each with what it holds or holds a part of.
    pub(super) disks: BTreeMap<String, BTreeSet<PathBuf>>,
    /// The folders in `/sys` of all block devices between file systems and disks, both among them.
    pub(super) block_devices: BTreeSet<PathBuf>,
}

impl Storage {
    pub(super) fn look(
        system: &SystemPaths,
        inputs: &InputFiles,
        machine: Option<&Machine>,
    ) -> Self {
        let text = fs::read(system.proc.join("self/mountinfo")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mounted: Vec<FileSystem> = text.lines().filter_map(FileSystem::parse).collect();
        let mut found = Self::default();
        for place in [&system.root, &inputs.state, &inputs.images] {
            found.add(system, &mounted, place);
        }
        for disk in disks_of(machine) {
            // One that is not there is the finding `image`.
            let Some(number) = number(disk) else { continue };
            match fs::metadata(disk).is_ok_and(|it| it.file_type().is_block_device()) {
                true => {
                    let device = system.sysfs.path("dev/block").join(number);
                    found.add_device(system, &device, disk);
                }
                false => found.add(system, &mounted, disk),
            }
        }
        found.file_systems.retain(|carrier| !carrier.devices.is_empty());
        found
    }

    /// Adds what carries a place; of one that is not there yet, what carries the nearest folder above it.
    fn add(&mut self, system: &SystemPaths, mounted: &[FileSystem], place: &Path) {
        let Some(real) = place.ancestors().find_map(|path| fs::canonicalize(path).ok()) else {
            return;
        };
        // Of two mounts at one place the later one is seen.
        let over = mounted.iter().filter(|it| real.starts_with(&it.point));
        let Some(found) = over.max_by_key(|it| it.point.components().count()) else { return };
        let known = self.file_systems.iter().position(|it| it.system.number == found.number);
        let at = known.unwrap_or_else(|| {
            let (devices, holds) = (found.devices(system), BTreeSet::new());
            self.file_systems.push(Carrier { system: found.clone(), devices, holds });
            self.file_systems.len().saturating_sub(1)
        });
        let Some(carrier) = self.file_systems.get_mut(at) else { return };
        hold(&mut carrier.holds, &system.root, place);
        for device in carrier.devices.clone() {
            self.add_device(system, &device, place);
        }
    }

    fn add_device(&mut self, system: &SystemPaths, device: &Path, place: &Path) {
        let below = Disks::below(device);
        for disk in below.names {
            if self.disks.len() < DISKS_MAX || self.disks.contains_key(&disk) {
                hold(self.disks.entry(disk).or_default(), &system.root, place);
            }
        }
        self.block_devices.extend(below.seen);
    }
}

/// Adds a place to those that something holds, unless it is in one of them; all are in the root.
fn hold(holds: &mut BTreeSet<PathBuf>, root: &Path, place: &Path) {
    if !holds.iter().any(|held| held != root && place.starts_with(held)) {
        holds.insert(place.to_owned());
    }
}

/// Returns the disks that the machine file gives to domains.
fn disks_of(machine: Option<&Machine>) -> impl Iterator<Item = &Path> {
    let domains = machine.into_iter().flat_map(|machine| &machine.domains);
    let disks = domains.filter_map(|domain| match &domain.kind {
        Kind::Vm(vm) => Some(vm.disks.iter().map(|disk| disk.path.as_path())),
        Kind::External => None,
    });
    disks.flatten()
}

/// Returns places in words: `/ and /var/lib/bulkhead`.
pub(super) fn listed(places: &BTreeSet<PathBuf>) -> String {
    /// Places that are named; the rest is counted.
    const NAMED_MAX: usize = 4;
    let mut named: Vec<String> =
        places.iter().take(NAMED_MAX).map(|place| place.display().to_string()).collect();
    if places.len() > NAMED_MAX {
        named.push(format!("{} more", places.len() - NAMED_MAX));
    }
    printable::line(&named.join(", ")).to_string()
}
