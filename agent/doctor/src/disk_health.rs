//! Whether the disks with root, state and images are about to fail: what the kernel has counted, and what the disks say of themselves.
//!
//! | looked at | where |
//! | --- | --- |
//! | errors in a file system | ext4: `/sys/fs/ext4/NAME/errors_count`; btrfs: `/sys/fs/btrfs/UUID/devinfo/ID/error_stats` (kernel 5.14). XFS tells none there |
//! | a file system that was made read-only | `/proc/self/mountinfo`, against `/etc/fstab` |
//! | RAID that lacks a disk | `md/degraded` |
//! | commands that failed or timed out | SCSI and ATA: `device/ioerr_cnt`, `device/iotmo_cnt` |
//! | a controller that is gone | NVMe: `device/state` |
//! | wear | eMMC: `device/pre_eol_info`, `device/life_time` (JEDEC JESD84-B51, section 7.4) |
//! | what the disk says of itself | [`super::smart`] |

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::disks::{Carrier, DISKS_MAX, FileSystem, Storage, listed};
use super::smart::Answer;
use super::{Finding, SystemPaths, text};

const CHECK: &str = "disk-health";
/// Commands that failed count from so many on, and from one in so many: the kernel counts those too by which it, or `smartctl`, finds out what a disk can.
const FAILED_MIN: u64 = 100;
const FAILED_ONE_IN: u64 = 100;
/// File systems that nobody can write to.
const NEVER_WRITTEN: [&str; 4] = ["squashfs", "erofs", "iso9660", "cramfs"];
/// What ext4 says of one that it has stopped writing to since kernel 6.15, and of one that was shut down.
const STOPPED: [&str; 2] = ["emergency_ro", "shutdown"];
/// A day, in seconds.
const DAY: u64 = 24 * 60 * 60;
const EXCHANGE: &str =
    "save what is on it (home disks, the audit log: `bulkhead audit export`), and exchange it";

/// Asks disks, by their names and nodes, what they say of themselves; a test stands in for it.
pub(super) type Ask<'a> = dyn Fn(BTreeMap<String, PathBuf>) -> BTreeMap<String, Answer> + 'a;

/// Examines what root, state and images lie on.
pub(super) fn examine(
    system: &SystemPaths,
    storage: &Storage,
    ask: &Ask<'_>,
    now: SystemTime,
) -> Vec<Finding> {
    if storage.disks.is_empty() {
        return vec![Finding::warn(
            CHECK,
            "not looked at: the kernel names no disk that root, state or images are on, as it does of those in memory and in a network",
            "`findmnt` shows what they are on",
        )];
    }
    let mut findings = Vec::new();
    for carrier in &storage.file_systems {
        findings.extend(file_system(system, carrier, now));
    }
    for device in &storage.block_devices {
        findings.extend(raid(system, device));
    }
    let asked = storage.disks.keys().filter(|disk| can_be_asked(system, disk));
    let answers = ask(asked.map(|disk| (disk.clone(), system.dev.join(disk))).collect());
    for (disk, holds) in &storage.disks {
        let mut found: Vec<Finding> = Vec::new();
        let block = system.sysfs.path("block").join(disk);
        found.extend(commands(&block));
        found.extend(nvme(&block));
        found.extend(emmc(&block));
        let answer = answers.get(disk);
        found.extend(answer.and_then(|answer| smart_finding(answer, &system.dev.join(disk))));
        if found.is_empty() {
            let what =
                format!("with {}: the kernel counts no errors{}", listed(holds), and(answer));
            found.push(Finding::ok(CHECK, what));
        }
        findings.extend(found.into_iter().map(|finding| finding.of(disk)));
    }
    findings
}

/// Returns whether a disk may be asked for its own word: a SATA, SAS or NVMe disk, and none behind a USB bridge, which may hang on the question.
fn can_be_asked(system: &SystemPaths, disk: &str) -> bool {
    let is_usb = |part: &std::ffi::OsStr| {
        let number = part.to_str().and_then(|part| part.strip_prefix("usb"));
        number.is_some_and(|it| !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit()))
    };
    let place = fs::canonicalize(system.sysfs.path("block").join(disk));
    let is_usb = place.is_ok_and(|place| place.iter().any(is_usb));
    !is_usb && (disk.starts_with("sd") || disk.starts_with("nvme"))
}

fn file_system(system: &SystemPaths, carrier: &Carrier, now: SystemTime) -> Vec<Finding> {
    let mounted = &carrier.system;
    let mut findings = Vec::new();
    let mut names = carrier.devices.iter().filter_map(|device| {
        Some(fs::canonicalize(device).ok()?.file_name()?.to_str()?.to_owned())
    });
    let name = names.next().unwrap_or_default();
    let point = printable::line(&mounted.point.display().to_string()).to_string();
    let node = system.dev.join(&name);
    let errors = ext4(system, &name, mounted);
    if let Some((count, last)) = errors {
        let ago = last.map(|last| since(now, last)).unwrap_or_default();
        let count = printable::counted(count, "error", "errors");
        findings.push(Finding::warn(
            CHECK,
            format!("the kernel has found {count} in the file system of {point} ({}){ago}", mounted.kind),
            "save what is on it; then start the PC once with fsck.mode=force on the kernel command line (`e` in the boot menu), which mends it and sets the count to 0; if errors come again, exchange the disk",
        ));
    }
    if let Some(count) = btrfs(system, mounted) {
        findings.push(Finding::warn(
            CHECK,
            format!("the kernel has counted {} of {point} (btrfs)", printable::counted(count, "error", "errors")),
            format!("`btrfs device stats {point}` says which; save what is on it, `btrfs scrub start -B {point}`, and `btrfs device stats --reset {point}` once it finds nothing; if errors come again, exchange the disk"),
        ));
    }
    if let Some(why) = stopped(system, mounted, errors.is_some()) {
        findings.push(Finding::fail(
            CHECK,
            format!("{point} is read-only: {why}"),
            format!("`dmesg | grep -i {name}` says more; save what is on it, and restart the PC, which checks it; if it comes again, exchange the disk of {}", node.display()),
        ));
    }
    findings.into_iter().map(|finding| finding.of(&name)).collect()
}

/// Returns how many errors ext4 has found, if any, and when the last one was, in seconds since 1970.
fn ext4(system: &SystemPaths, name: &str, mounted: &FileSystem) -> Option<(u64, Option<u64>)> {
    if mounted.kind != "ext4" {
        return None;
    }
    let number = |file: &str| -> Option<u64> {
        system.sys_text(&format!("fs/ext4/{name}/{file}"))?.parse().ok()
    };
    let count = number("errors_count").filter(|count| *count > 0)?;
    Some((count, number("last_error_time").filter(|time| *time > 0)))
}

/// Says how long ago something was; nothing if the clock does not have it behind itself.
fn since(now: SystemTime, seconds: u64) -> String {
    let then = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    match then.and_then(|then| now.duration_since(then).ok()).map(|it| it.as_secs() / DAY) {
        None => String::new(),
        Some(0) => ", the last within a day".to_owned(),
        Some(days) => format!(", the last {} ago", printable::counted(days, "day", "days")),
    }
}

/// Returns how many errors a btrfs has counted on all its devices, if any.
fn btrfs(system: &SystemPaths, mounted: &FileSystem) -> Option<u64> {
    if mounted.kind != "btrfs" {
        return None;
    }
    let devices = fs::read_dir(mounted.btrfs(system)?.join("devinfo")).ok()?.flatten();
    let stats =
        devices.take(DISKS_MAX).filter_map(|device| text(&device.path().join("error_stats")));
    let count = |stats: String| {
        let numbers =
            stats.lines().filter_map(|line| line.split_once(' ')?.1.trim().parse::<u64>().ok());
        numbers.fold(0, u64::saturating_add)
    };
    Some(stats.map(count).fold(0, u64::saturating_add)).filter(|count| *count > 0)
}

/// Returns why a file system is read-only that nobody mounted so.
fn stopped(system: &SystemPaths, mounted: &FileSystem, has_errors: bool) -> Option<String> {
    if STOPPED.iter().any(|word| mounted.has(word)) {
        return Some("the kernel has stopped writing to it after an error".to_owned());
    }
    if !mounted.has("ro") || NEVER_WRITTEN.contains(&mounted.kind.as_str()) {
        return None;
    }
    if has_errors {
        return Some("the kernel has made it so after an error".to_owned());
    }
    let fstab = text(&system.root.join("etc/fstab")).unwrap_or_default();
    let mut lines = fstab.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let is_to_be_written = lines.any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let point = fields.next();
        let options = fields.nth(1).unwrap_or_default();
        point.map(Path::new) == Some(&mounted.point) && options.split(',').all(|word| word != "ro")
    });
    is_to_be_written.then(|| {
        "/etc/fstab has it mounted for writing, and the kernel or somebody has changed that"
            .to_owned()
    })
}

/// Examines a block device that may be a RAID of the kernel's.
fn raid(system: &SystemPaths, device: &Path) -> Option<Finding> {
    let missing: u64 = text(&device.join("md/degraded"))?.parse().ok()?;
    let name = device.file_name()?.to_str()?;
    (missing > 0).then(|| {
        let finding = Finding::warn(
            CHECK,
            format!("the RAID lacks {}: with the next one all that is on it may be lost", printable::counted(missing, "disk", "disks")),
            format!("`cat /proc/mdstat` and `mdadm --detail {0}` say which; exchange it, and `mdadm {0} --add DISK`", system.dev.join(name).display()),
        );
        finding.of(name)
    })
}

/// Examines what a SCSI or ATA disk was asked for and did not do.
fn commands(block: &Path) -> Vec<Finding> {
    let count = |file: &str| {
        let text = text(&block.join("device").join(file))?;
        u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
    };
    let mut findings = Vec::new();
    if let Some(late) = count("iotmo_cnt").filter(|count| *count > 0) {
        findings.push(Finding::warn(
            CHECK,
            format!(
                "since the start of the PC it has not answered {} in time",
                printable::counted(late, "command", "commands")
            ),
            format!(
                "`dmesg` says which; see to its cable and its power; if it comes again, {EXCHANGE}"
            ),
        ));
    }
    let (failed, all) = (count("ioerr_cnt").unwrap_or(0), count("iorequest_cnt").unwrap_or(0));
    if failed >= FAILED_MIN && failed.saturating_mul(FAILED_ONE_IN) >= all {
        findings.push(Finding::warn(
            CHECK,
            format!("since the start of the PC {failed} of {all} commands to it have failed"),
            format!("`dmesg` says which (`I/O error`, `medium error`); {EXCHANGE}"),
        ));
    }
    findings
}

/// Examines the controllers of an NVMe disk.
fn nvme(block: &Path) -> Vec<Finding> {
    let device = block.join("device");
    // A disk that may have several controllers stands below its subsystem, and they beside it.
    let beside = fs::read_dir(&device).into_iter().flatten().flatten().map(|it| it.path());
    let beside = beside.filter(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let number = name.strip_prefix("nvme").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    let is_nvme = block.file_name().is_some_and(|name| name.to_string_lossy().starts_with("nvme"));
    let controllers = beside.chain([device.clone()]).take(DISKS_MAX).filter(|_| is_nvme);
    let states = controllers.filter_map(|controller| text(&controller.join("state")));
    let finding = |state: String| {
        let restart = format!(
            "`dmesg | grep nvme` says why; switch the PC off and on; if it comes again, {EXCHANGE}"
        );
        match state.as_str() {
            "live" => None,
            "dead" => Some(Finding::fail(
                CHECK,
                "its controller is dead: nothing on it can be read or written",
                restart,
            )),
            // Words of the kernel's, of which there may be more.
            state => Some(Finding::warn(
                CHECK,
                format!(
                    "its controller is {}: what is read and written waits",
                    printable::line(state).up_to(40)
                ),
                restart,
            )),
        }
    };
    states.filter_map(finding).collect()
}

/// Examines how far an eMMC is worn.
fn emmc(block: &Path) -> Vec<Finding> {
    let number = |word: &str| u8::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let device = block.join("device");
    let mut findings = Vec::new();
    match text(&device.join("pre_eol_info")).as_deref().and_then(number) {
        Some(2) => findings.push(Finding::warn(
            CHECK,
            "it says that four fifths of its spare blocks are used up",
            EXCHANGE,
        )),
        Some(3) => findings.push(Finding::fail(
            CHECK,
            "it says that its spare blocks are all but used up",
            EXCHANGE,
        )),
        _ => {}
    }
    let life = text(&device.join("life_time")).unwrap_or_default();
    match life.split_ascii_whitespace().filter_map(number).max() {
        Some(0x0a) => findings.push(Finding::warn(
            CHECK,
            "it says that nine tenths of its life are over",
            EXCHANGE,
        )),
        Some(0x0b) => findings.push(Finding::warn(
            CHECK,
            "it says that it is older than it was made for",
            EXCHANGE,
        )),
        _ => {}
    }
    findings
}

/// Makes a finding of what a disk says of itself, or why it was not asked.
fn smart_finding(answer: &Answer, node: &Path) -> Option<Finding> {
    let node = node.display();
    match answer {
        Answer::Well | Answer::Silent | Answer::NotInstalled => None,
        Answer::Failing(what) => {
            let what = if what.is_empty() { "it fails".to_owned() } else { what.join(", ") };
            Some(Finding::fail(
                CHECK,
                format!("the disk says of itself that {what} (SMART)"),
                format!("`smartctl --all {node}` says more; {EXCHANGE} at once"),
            ))
        }
        Answer::Hot => Some(Finding::warn(
            CHECK,
            "the disk says of itself that it is too hot (SMART)",
            format!(
                "see to the PC's fans and to the air around it; `smartctl --all {node}` has its temperature"
            ),
        )),
        Answer::Late => Some(Finding::warn(
            CHECK,
            "not looked at what the disk says of itself: it does not answer within a second",
            format!(
                "`smartctl --health {node}` asks it again; one that does not answer then may be failing: `dmesg`"
            ),
        )),
        Answer::NotRoot => Some(Finding::warn(
            CHECK,
            "not looked at what the disk says of itself",
            "run this command as root",
        )),
        Answer::Failed(why) => Some(Finding::warn(
            CHECK,
            format!("not looked at what the disk says of itself: {why}"),
            format!("`smartctl --health {node}` says more"),
        )),
    }
}

/// Says of a disk that is well what it says of itself.
const fn and(answer: Option<&Answer>) -> &'static str {
    match answer {
        Some(Answer::Well) => ", and it says that it is well (SMART)",
        Some(Answer::Silent) => ", and it has no word of its own (SMART)",
        Some(Answer::NotInstalled) => {
            "; it is asked itself once smartctl is there (`apt install smartmontools`)"
        }
        _ => "",
    }
}
