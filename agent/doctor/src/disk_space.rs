//! Whether there is room where root, state and images lie. What the audit log needs on its own disk is the finding `audit-disk`, and is not said twice.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base::layout::Layout;
use config::machine::{Kind, Machine};
use images::store::RESERVE;
use nix::sys::statvfs::{FsFlags, statvfs};
use recorder::directory;

use super::Finding;
use super::disks::{Carrier, Storage, listed, number};

const CHECK: &str = "disk-space";
/// The host does not work with less than this, in bytes: neither a configuration nor a log is written.
const HOST_MIN: u64 = 64 << 20;
/// What Debian's packages take while they are installed, a kernel among them, in bytes.
const PACKAGES: u64 = 512 << 20;
/// Files that may still be made on a file system before somebody should look.
const FILES_MIN: u64 = 1000;
/// Files of one domain's disks that are counted.
const FILES_MAX: usize = 64;
const MAKE_ROOM: &str = "make room there: images that nobody needs (`bulkhead images list`, `bulkhead images remove`), packages (`apt clean`), the system's journal (`journalctl --vacuum-size=100M`)";

/// Examines the file systems with root, state and images.
pub(super) fn examine(
    storage: &Storage,
    layout: &Layout,
    root: &Path,
    machine: Option<&Machine>,
) -> Vec<Finding> {
    let log = directory(&layout.state);
    let log = log.ancestors().find_map(number);
    let images = layout.images.ancestors().find_map(number);
    let mut findings = Vec::new();
    for carrier in &storage.file_systems {
        let Some(place) = carrier.holds.iter().find(|place| place.exists()) else { continue };
        let Ok(room) = statvfs(place) else { continue };
        // One that nobody can write to is the finding `disk-health`, or meant.
        if room.flags().contains(FsFlags::ST_RDONLY) || room.blocks() == 0 {
            continue;
        }
        let here = number(place);
        let files = (room.files() > 0).then(|| room.files_available());
        let room = Room {
            holds: &carrier.holds,
            free: room.blocks_available().saturating_mul(room.fragment_size()),
            files,
            growth: growth(carrier, machine, layout),
            has_log: here == log,
            has_images: here == images,
            has_root: carrier.holds.contains(root),
        };
        let point = printable::line(&carrier.system.point.display().to_string()).to_string();
        findings.push(judge(&room).of(point));
    }
    if findings.is_empty() {
        findings.push(Finding::warn(
            CHECK,
            "not looked at: the kernel names no disk that can be written to below root, state or images",
            "`df -h` shows what they are on, and its room",
        ));
    }
    findings
}

/// What is known of the room on one file system, in bytes.
struct Room<'a> {
    holds: &'a BTreeSet<PathBuf>,
    free: u64,
    /// How many files may still be made, where they are numbered.
    files: Option<u64>,
    /// What the disks of domains that are there may still grow by.
    growth: u64,
    /// Which of the host's and Bulkhead's things are there.
    has_log: bool,
    has_images: bool,
    has_root: bool,
}

fn judge(room: &Room<'_>) -> Finding {
    let at = listed(room.holds);
    let (free, growth) = (room.free >> 20, room.growth >> 20);
    if !room.has_log && room.free < HOST_MIN {
        return Finding::fail(
            CHECK,
            format!("{free} MiB are left (with {at}): soon nothing can be written there"),
            MAKE_ROOM,
        );
    }
    if let Some(files) = room.files.filter(|files| *files < FILES_MIN) {
        return Finding::warn(
            CHECK,
            format!(
                "only {} may still be made there (with {at}), however much room is left",
                printable::counted(files, "file", "files")
            ),
            "find the folder with the many files (`du --inodes -x / | sort -n | tail`), and empty it",
        );
    }
    if room.free < room.growth {
        return Finding::warn(
            CHECK,
            format!(
                "{free} MiB are left (with {at}), and the disks of domains there may grow by {growth} MiB: a desktop that needs more than is left gets write errors"
            ),
            MAKE_ROOM,
        );
    }
    if room.has_images && room.free < RESERVE {
        return Finding::warn(
            CHECK,
            format!(
                "{free} MiB are left (with {at}): no image can be installed, which leaves {} MiB free",
                RESERVE >> 20
            ),
            MAKE_ROOM,
        );
    }
    if room.has_root && room.free < PACKAGES {
        return Finding::warn(
            CHECK,
            format!(
                "{free} MiB are left (with {at}): an update of Debian's packages may not find room"
            ),
            MAKE_ROOM,
        );
    }
    let grow = match growth {
        0 => String::new(),
        growth => format!("; the disks of domains there may grow by {growth} MiB"),
    };
    Finding::ok(CHECK, format!("{free} MiB are left (with {at}){grow}"))
}

/// Returns by how many bytes files with disks of domains on a file system may still grow: what is a hole in them yet. Of a domain whose disks forget, and which runs,
/// it is the copies that grow.
fn growth(carrier: &Carrier, machine: Option<&Machine>, layout: &Layout) -> u64 {
    let mut files = BTreeSet::new();
    for domain in machine.into_iter().flat_map(|machine| &machine.domains) {
        let Kind::Vm(vm) = &domain.kind else { continue };
        let copies = fs::read_dir(layout.discard(&domain.name)).into_iter().flatten().flatten();
        let copies: Vec<PathBuf> = copies.map(|entry| entry.path()).take(FILES_MAX).collect();
        if copies.is_empty() {
            let written = vm.disks.iter().filter(|disk| !disk.readonly);
            files.extend(written.map(|disk| disk.path.clone()));
        }
        files.extend(copies);
    }
    let grows = files.iter().filter_map(|path| {
        let file = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        let is_here = carrier.holds.iter().find_map(|place| number(place)) == number(path);
        is_here.then(|| file.len().saturating_sub(file.blocks().saturating_mul(512)))
    });
    grows.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use control::findings::Level;

    use super::*;

    #[test]
    fn room_is_held_against_what_grows_there_and_what_the_log_needs_is_said_once() {
        let holds = BTreeSet::from([PathBuf::from("/"), PathBuf::from("/var/lib/bulkhead")]);
        let room = |free: u64, growth: u64| Room {
            holds: &holds,
            free: free << 20,
            files: Some(1_000_000),
            growth: growth << 20,
            has_log: false,
            has_images: false,
            has_root: true,
        };
        let is = |room: Room<'_>, level: Level, says: &str| {
            let found = judge(&room);
            assert_eq!(found.level, level, "{found:?}");
            assert!(found.message.contains(says), "{found:?}");
            assert_eq!(found.remedy.is_none(), level == Level::Ok, "{found:?}");
        };
        is(room(4000, 0), Level::Ok, "4000 MiB are left (with /, /var/lib/bulkhead)");
        is(room(4000, 3000), Level::Ok, "may grow by 3000 MiB");
        is(room(4000, 5000), Level::Warn, "may grow by 5000 MiB");
        is(room(400, 0), Level::Warn, "packages");
        is(Room { has_root: false, ..room(400, 0) }, Level::Ok, "400 MiB");
        is(Room { has_images: true, ..room(1000, 0) }, Level::Warn, "no image can be installed");
        is(room(63, 0), Level::Fail, "soon nothing can be written");
        // `audit-disk` fails.
        is(Room { has_log: true, ..room(63, 0) }, Level::Warn, "packages");
        is(Room { files: Some(999), ..room(4000, 0) }, Level::Warn, "999 files");
        is(Room { files: None, ..room(4000, 0) }, Level::Ok, "4000 MiB");
    }
}
