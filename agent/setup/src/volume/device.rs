//! Whether a block device may be made the volume: nothing that anybody uses is taken, and nothing is erased without the word for it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use base::layout::STATE_VOLUME;
use base::state_volume::Mount;
use nix::sys::stat::{major, minor};
use serde::{Deserialize, Serialize};

use super::{VolumeError, WORK, mounts, refused};
use crate::Pc;
use crate::effects::Effects;

/// What LUKS2 and the file system keep for themselves, and what state and images grow by, in bytes.
const RESERVE: u64 = 256 << 20;
/// The least that is taken, in bytes: an audit log and an image that is installed beside the one in force.
const LEAST: u64 = 512 << 20;
/// Block devices on block devices: a file system on LVM on encryption on RAID on a partition is five.
const DEPTH_MAX: usize = 8;
/// Bytes of a sector, as the kernel counts sizes.
const SECTOR: u64 = 512;
/// Folders of `/dev` whose names for a device stay the same from one start to the next, and when it is erased.
const STABLE: [&str; 4] = ["disk/by-id", "disk/by-partuuid", "disk/by-path", "disk/by-partlabel"];
/// Those whose names are made from what is on a device, which whoever writes there chooses and erasing takes away; and those that are counted anew at each start.
const PASSING: [&str; 4] = ["disk/by-uuid", "disk/by-label", "disk/by-diskseq", "block"];
/// How such a name in `disk/by-id` begins.
const BY_CONTENT: &str = "lvm-pv-uuid-";

/// The device that a name led to when it was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Node {
    pub(crate) path: PathBuf,
    /// `major:minor`.
    number: String,
    /// Which disk it is since the start of the PC: the kernel never counts two alike. None before Linux 5.15.
    diskseq: Option<String>,
}

/// A device that may be had, and what is on it.
pub(crate) struct UsableDevice {
    pub(crate) node: Node,
    pub(crate) holds: Option<String>,
}

/// Returns the room that so many bytes need, with what they grow by.
pub(crate) fn with_reserve(used: u64) -> u64 {
    used.saturating_add(used / 8).saturating_add(RESERVE)
}

/// Returns how large a volume has to be for so many bytes of state and images.
pub(crate) fn room_for(used: u64) -> u64 {
    with_reserve(used).max(LEAST)
}

/// Returns the device that a name leads to, now and after the next start, with its folder in `/sys`.
pub(crate) fn named(
    pc: &Pc,
    device: &Path,
    erase: Option<&Path>,
) -> Result<(Node, PathBuf), VolumeError> {
    if erase.is_some_and(|erase| erase != device) {
        return Err(refused(format!(
            "what is to be erased is not the volume: name {} once more, letter by letter, or leave it out",
            device.display()
        )));
    }
    let (node, sys) = resolved(pc, device)?;
    if !stays(pc, device, &node.path) {
        return Err(unstable(pc, device, &node.path));
    }
    Ok((node, sys))
}

/// Returns a device that may be erased, with what is on it.
pub(crate) fn look(
    pc: &Pc,
    device: &Path,
    erase: Option<&Path>,
    need: u64,
    guests: &[PathBuf],
    effects: &mut dyn Effects,
) -> Result<UsableDevice, VolumeError> {
    let said = device.display();
    let (node, sys) = named(pc, device, erase)?;
    if let Some(guests) = guests.iter().find(|guests| shares(pc, &sys, guests)) {
        return Err(refused(format!(
            "{said} is, or is part of, {}, which machine.toml gives a domain as a disk: name another, or take it out there",
            guests.display()
        )));
    }
    let number = |file: &str| {
        let text = fs::read_to_string(sys.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    if disks_below(&sys, DEPTH_MAX).iter().any(|disk| can_be_pulled(disk)) {
        return Err(refused(format!(
            "{said} can be pulled out of this PC while it is in use: name a partition, a logical volume or a disk that is built in"
        )));
    }
    if number("ro") != 0 {
        return Err(refused(format!(
            "{said} is read-only (`lsblk -o NAME,RO`): `blockdev --setrw` may do, or name another"
        )));
    }
    for part in parts(&sys) {
        unused(pc, &said.to_string(), &part, part == sys)?;
    }
    let size = number("size").saturating_mul(SECTOR);
    if size < need {
        return Err(refused(format!(
            "{said} has {} MiB, and state and images need {} MiB: name a larger one, or make it larger (`lvextend`)",
            size >> 20,
            need >> 20
        )));
    }
    let holds = content(&node.path, effects)
        .map_err(|error| VolumeError::Unread(device.to_owned(), error))?;
    if let (Some(holds), None) = (&holds, erase) {
        return Err(refused(format!(
            "{said} holds something already ({holds}), which would be lost: look at it (`lsblk -f {said}`), and if nobody needs it run this again with `--erase {said}`, or with `erase = \"{said}\"` in the answer file"
        )));
    }
    Ok(UsableDevice { node, holds })
}

/// Looks at a device once more, directly before it is erased: it is the one that was shown, with what was shown on it, and nobody uses it.
pub(super) fn look_again(
    pc: &Pc,
    device: &Path,
    node: &Node,
    holds: Option<&str>,
    effects: &mut dyn Effects,
) -> io::Result<()> {
    let (now, sys) = resolved(pc, device).map_err(io::Error::other)?;
    let other = |what: &str| {
        let said = device.display();
        Err(io::Error::other(format!(
            "{said} {what} since it was shown, and nothing was erased: run this again"
        )))
    };
    if now != *node {
        return other("has become another device");
    }
    for part in parts(&sys) {
        unused(pc, &device.display().to_string(), &part, part == sys).map_err(io::Error::other)?;
    }
    match content(&node.path, effects)?.as_deref() == holds {
        true => Ok(()),
        false => other("was written by somebody"),
    }
}

/// Finds the device that a name leads to, and its folder of the kernel's.
fn resolved(pc: &Pc, device: &Path) -> Result<(Node, PathBuf), VolumeError> {
    let said = device.display();
    let path = fs::canonicalize(device).map_err(|error| {
        refused(format!("there is no {said} ({error}): `lsblk -o NAME,SIZE,FSTYPE,MOUNTPOINTS` lists what there is, and `ls -l /dev/disk/by-*` by which names"))
    })?;
    let sys = pc.sysfs.path("class/block").join(path.file_name().unwrap_or_default());
    let Ok(sys) = fs::canonicalize(&sys) else {
        return Err(refused(format!(
            "{said} is no block device: name a partition, a logical volume or a disk"
        )));
    };
    let line = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned());
    let number = line(sys.join("dev")).unwrap_or_default();
    let diskseq = line(disk(&sys).join("diskseq")).ok();
    Ok((Node { path, number, diskseq }, sys))
}

/// Returns the disk that a partition is of, or the device itself.
fn disk(sys: &Path) -> &Path {
    if sys.join("partition").exists() { sys.parent().unwrap_or(sys) } else { sys }
}

/// Returns the disks that a block device is, or is made of.
fn disks_below(sys: &Path, depth: usize) -> Vec<PathBuf> {
    let (Ok(sys), Some(depth)) = (fs::canonicalize(sys), depth.checked_sub(1)) else {
        return Vec::new();
    };
    let slaves = sys.join("slaves");
    let below = crate::names_in(&slaves);
    match below.is_empty() {
        true => vec![disk(&sys).to_owned()],
        false => below.iter().flat_map(|name| disks_below(&slaves.join(name), depth)).collect(),
    }
}

fn can_be_pulled(disk: &Path) -> bool {
    let removable = fs::read_to_string(disk.join("removable")).unwrap_or_default();
    let is_usb = |part: Component<'_>| part.as_os_str().as_encoded_bytes().starts_with(b"usb");
    removable.trim() == "1" || disk.components().any(is_usb)
}

/// Returns whether a disk of a guest's is a device, a part of it, or what it is a part of.
fn shares(pc: &Pc, sys: &Path, guests: &Path) -> bool {
    let Ok((_, other)) = resolved(pc, guests) else { return false };
    other.starts_with(sys) || sys.starts_with(&other)
}

/// Returns whether a file that is to be written lies on a disk that another path lies on too.
pub(crate) fn is_on_disk_of(pc: &Pc, file: &Path, other: &Path) -> bool {
    let number = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.dev());
    let folder = file.parent().unwrap_or(file);
    let (Some(own), Some(other)) = (number(folder), number(other)) else { return false };
    let disks = |number: u64| {
        let name = format!("{}:{}", major(number), minor(number));
        disks_below(&pc.sysfs.path("dev/block").join(name), DEPTH_MAX)
    };
    own == other || disks(own).iter().any(|disk| disks(other).contains(disk))
}

/// Returns what is seen on a device.
fn content(node: &Path, effects: &mut dyn Effects) -> io::Result<Option<String>> {
    let shown = node.to_string_lossy();
    let found = effects.output("wipefs", &["--noheadings", "--output", "TYPE", "--", &shown])?;
    let found: Vec<&str> = found.split_whitespace().collect();
    Ok((!found.is_empty()).then(|| printable::line(&found.join(", ")).to_string()))
}

/// Returns whether a name below `/dev` is the same device's at the next start, whatever is written to it.
fn stays(pc: &Pc, device: &Path, node: &Path) -> bool {
    let Ok(below) = device.strip_prefix(pc.root.join("dev")) else { return false };
    let name = below.file_name().unwrap_or_default().as_encoded_bytes();
    node != device
        && below.components().all(|part| matches!(part, Component::Normal(_)))
        && !PASSING.iter().any(|folder| below.starts_with(folder))
        && !name.starts_with(BY_CONTENT.as_bytes())
}

/// Refuses a name that may be another device's at the next start, and says which are not.
fn unstable(pc: &Pc, device: &Path, node: &Path) -> VolumeError {
    let mut better: Vec<String> = Vec::new();
    for folder in STABLE {
        let folder = pc.root.join("dev").join(folder);
        let names = crate::names_in(&folder).into_iter().map(|name| folder.join(name));
        let same = |path: &PathBuf| {
            stays(pc, path, node) && fs::canonicalize(path).is_ok_and(|target| target == *node)
        };
        better.extend(names.filter(same).map(|path| path.display().to_string()));
    }
    let better = match better.is_empty() {
        true => "it has none: give its partition a label, or make it a logical volume".to_owned(),
        false => format!("it is {}", better.join(", ")),
    };
    refused(format!(
        "{} may be another device after the next start: name the volume by a name below /dev that stays, and that is not made from what is on it; {better}",
        device.display()
    ))
}

/// Returns the device and its partitions.
fn parts(sys: &Path) -> Vec<PathBuf> {
    let mut parts = vec![sys.to_owned()];
    let below = crate::names_in(sys).into_iter().map(|name| sys.join(name));
    parts.extend(below.filter(|part| part.join("partition").exists()));
    parts
}

/// Refuses a device that is mounted, swapped to, or part of another.
fn unused(pc: &Pc, said: &str, sys: &Path, is_whole: bool) -> Result<(), VolumeError> {
    let name = sys.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let what = if is_whole { said.to_owned() } else { format!("{name}, a partition of {said},") };
    let number = fs::read_to_string(sys.join("dev")).unwrap_or_default();
    let work = pc.root.join(WORK);
    // What setup itself mounted, in a run that was killed, it unmounts.
    let is_used = |mount: &Mount| mount.number == number.trim() && !mount.point.starts_with(&work);
    if let Some(mount) = mounts(pc).into_iter().find(is_used) {
        return Err(refused(format!(
            "{what} is mounted at {}: name another, or unmount it and take it out of /etc/fstab",
            mount.point.display()
        )));
    }
    let mut holders = crate::names_in(&sys.join("holders"));
    if let [holder] = holders.as_slice() {
        let block = pc.sysfs.path("class/block").join(holder);
        let its_name = fs::read_to_string(block.join("dm/name")).unwrap_or_default();
        // A run that was cut short has left it open, or crypttab has opened it since. It is closed before anything is erased; where it is used, it is not ours.
        if its_name.trim() == STATE_VOLUME {
            unused(pc, &format!("{STATE_VOLUME}, which is open on {said},"), &block, true)?;
            holders.clear();
        }
    }
    if !holders.is_empty() {
        return Err(refused(format!(
            "{what} is part of {} (LVM, RAID or encryption): name another, or a logical volume of it (`lvcreate`)",
            holders.join(", ")
        )));
    }
    let swaps = pc.proc_text("swaps");
    let is_swap = |line: &str| {
        let path = Path::new(line.split_ascii_whitespace().next().unwrap_or_default());
        path.file_name().is_some_and(|file| file == name.as_str())
    };
    if swaps.lines().skip(1).any(is_swap) {
        return Err(refused(format!(
            "{what} is swapped to: name another, or `swapoff` it and take it out of /etc/fstab"
        )));
    }
    Ok(())
}
