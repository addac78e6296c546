//! Whether a block device may be made the volume: nothing that anybody uses is taken, and nothing is erased without the word for it.

use std::fs;
use std::path::{Path, PathBuf};

use base::layout::STATE_VOLUME;
use base::state_volume::Mount;

use super::{VolumeError, WORK, mounts, refused};
use crate::Pc;
use crate::effects::Effects;

/// What LUKS2 and the file system keep for themselves, and what state and images grow by, in bytes.
const RESERVE: u64 = 256 << 20;
/// The least that is taken, in bytes: an audit log and an image that is installed beside the one in force.
const LEAST: u64 = 512 << 20;
/// Bytes of a sector, as the kernel counts sizes.
const SECTOR: u64 = 512;
/// Folders whose names for a device stay the same from one start to the next.
const STABLE: [&str; 5] =
    ["disk/by-id", "disk/by-partuuid", "disk/by-path", "disk/by-partlabel", "disk/by-uuid"];

/// Returns the room that so many bytes need, with what they grow by.
pub(crate) fn with_reserve(used: u64) -> u64 {
    used.saturating_add(used / 8).saturating_add(RESERVE)
}

/// Returns how large a volume has to be for so many bytes of state and images.
pub(crate) fn room_for(used: u64) -> u64 {
    with_reserve(used).max(LEAST)
}

/// Returns what is on a device that is to be erased, `None` if nothing is seen.
pub(crate) fn look(
    pc: &Pc,
    device: &Path,
    erase: Option<&Path>,
    need: u64,
    effects: &mut dyn Effects,
) -> Result<Option<String>, VolumeError> {
    let said = device.display();
    if erase.is_some_and(|erase| erase != device) {
        return Err(refused(format!(
            "what is to be erased is not the volume: name {said} once more, letter by letter, or leave it out"
        )));
    }
    let node = fs::canonicalize(device).map_err(|error| {
        refused(format!("there is no {said} ({error}): `lsblk -o NAME,SIZE,FSTYPE,MOUNTPOINTS` lists what there is, and `ls -l /dev/disk/by-*` by which names"))
    })?;
    let name = node.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let sys = pc.sysfs.path("class/block").join(&name);
    let Ok(sys) = fs::canonicalize(&sys) else {
        return Err(refused(format!(
            "{said} is no block device: name a partition, a logical volume or a disk"
        )));
    };
    if node == device {
        return Err(unstable(pc, device, &node));
    }
    let number = |file: &str| {
        let text = fs::read_to_string(sys.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let disk = if sys.join("partition").exists() { sys.parent().unwrap_or(&sys) } else { &sys };
    let removable = fs::read_to_string(disk.join("removable")).unwrap_or_default();
    let on_usb =
        sys.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"usb"));
    if removable.trim() == "1" || on_usb {
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
    let shown = device.to_string_lossy();
    let found = effects
        .output("wipefs", &["--noheadings", "--output", "TYPE", "--", &shown])
        .map_err(|error| VolumeError::Unread(device.to_owned(), error))?;
    let found: Vec<&str> = found.split_whitespace().collect();
    if found.is_empty() {
        return Ok(None);
    }
    let found = printable::line(&found.join(", ")).to_string();
    if erase.is_none() {
        return Err(refused(format!(
            "{said} holds something already ({found}), which would be lost: look at it (`lsblk -f {said}`), and if nobody needs it run this again with `--erase {said}`, or with `erase = \"{said}\"` in the answer file"
        )));
    }
    Ok(Some(found))
}

/// Refuses a name that may be another device's at the next start, and says which are not.
fn unstable(pc: &Pc, device: &Path, node: &Path) -> VolumeError {
    let mut better: Vec<String> = Vec::new();
    for folder in STABLE {
        let folder = pc.root.join("dev").join(folder);
        let names = crate::names_in(&folder).into_iter().map(|name| folder.join(name));
        let same = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|target| target == *node);
        better.extend(names.filter(same).map(|path| path.display().to_string()));
    }
    let better = match better.is_empty() {
        true => "it has none: give its partition a label, or make it a logical volume".to_owned(),
        false => format!("it is {}", better.join(", ")),
    };
    refused(format!(
        "{} may be another device after the next start: name the volume by a name that stays; {better}",
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
