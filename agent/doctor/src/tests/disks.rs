//! Disks: which root, state and images are on, and whether these are well.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::disks::{FileSystem, Storage};
use crate::fake::Pc;
use crate::smart::Answer;

/// A PC whose root, state and images are on file systems that this test names.
struct PcWithDisks {
    pc: Pc,
    inputs: InputFiles,
    mounts: Vec<String>,
}

impl PcWithDisks {
    /// With root and all else on `/dev/sda2` (ext4).
    fn new() -> Self {
        let pc = Pc::new();
        let inputs = inputs(&pc.system.root.join("var/lib"));
        fs::create_dir_all(&inputs.images).unwrap();
        fs::create_dir_all(&inputs.state).unwrap();
        let mut it = Self { pc, inputs, mounts: Vec::new() };
        it.disk("sda", "8:0");
        let part = it.sys("block/sda/sda2");
        fs::write(part.join("partition"), "2\n").unwrap();
        it.number("8:2", &part);
        let root = it.pc.system.root.clone();
        it.mount("8:2", &root, "ext4 /dev/sda2 rw,errors=remount-ro");
        it
    }

    fn sys(&self, below: &str) -> PathBuf {
        let path = self.pc.system.sysfs.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn disk(&self, name: &str, number: &str) -> PathBuf {
        let disk = self.sys(&format!("block/{name}"));
        self.number(number, &disk);
        disk
    }

    fn number(&self, number: &str, device: &Path) {
        symlink(device, self.sys("dev/block").join(number)).unwrap();
    }

    /// `what` is kind, source and options.
    fn mount(&mut self, number: &str, point: &Path, what: &str) {
        let point = point.display().to_string().replace(' ', "\\040");
        self.mounts.push(format!("22 1 {number} / {point} rw,relatime shared:1 - {what}\n"));
        fs::write(self.pc.system.proc.join("self/mountinfo"), self.mounts.concat()).unwrap();
    }

    fn storage(&self) -> Storage {
        Storage::look(&self.pc.system, &self.inputs, None)
    }

    /// What is found where each disk that is asked says this of itself.
    fn found(&self, answer: Answer) -> Vec<Finding> {
        let ask = |disks: BTreeMap<String, PathBuf>| {
            disks.into_keys().map(|disk| (disk, answer.clone())).collect()
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        disk_health::examine(&self.pc.system, &self.storage(), &ask, now)
    }

    fn well(&self) -> Vec<(Level, String)> {
        let found = self.found(Answer::Well).into_iter();
        found.map(|found| (found.level, found.subject.unwrap_or_default())).collect()
    }
}

fn is(finding: &Finding, level: Level, subject: &str, says: &str, remedy: &str) {
    let help = finding.remedy.clone().unwrap_or_default();
    assert_eq!((finding.level, finding.subject.as_deref()), (level, Some(subject)), "{finding:?}");
    assert!(finding.message.contains(says) && help.contains(remedy), "{finding:?}");
}

#[test]
fn the_disks_below_a_volume_on_encryption_on_a_raid_of_two_are_found_with_what_is_on_them() {
    let mut pc = PcWithDisks::new();
    let (volume, crypt, raid) =
        (pc.disk("dm-1", "253:1"), pc.disk("dm-0", "253:0"), pc.disk("md0", "9:0"));
    let disks = [pc.disk("sdb", "8:16"), pc.disk("nvme0n1", "259:0")];
    let part = pc.sys("block/md0/md0p1");
    fs::write(part.join("partition"), "1\n").unwrap();
    for (device, below) in
        [(&volume, vec![&crypt]), (&crypt, vec![&part]), (&raid, disks.iter().collect())]
    {
        fs::create_dir_all(device.join("slaves")).unwrap();
        for below in below {
            symlink(below, device.join("slaves").join(below.file_name().unwrap())).unwrap();
        }
    }
    let state = pc.inputs.state.clone();
    pc.mount("253:1", &state, "ext4 /dev/mapper/bulkhead_state rw");
    let storage = pc.storage();
    let disks: Vec<&str> = storage.disks.keys().map(String::as_str).collect();
    assert_eq!(disks, ["nvme0n1", "sda", "sdb"]);
    assert!(storage.disks["sdb"].contains(&state) && !storage.disks["sda"].contains(&state));
    assert_eq!(storage.file_systems.len(), 2);
    // One of the RAID's disks has gone.
    fs::create_dir_all(raid.join("md")).unwrap();
    fs::write(raid.join("md/degraded"), "1\n").unwrap();
    let found = pc.found(Answer::Well);
    is(&found[0], Level::Warn, "md0", "lacks 1 disk", "mdadm");
    fs::write(raid.join("md/degraded"), "0\n").unwrap();
    assert!(pc.well().iter().all(|(level, _)| *level == Level::Ok));
}

#[test]
fn a_btrfs_is_on_all_its_devices_and_its_errors_are_counted_on_each() {
    let mut pc = PcWithDisks::new();
    let images = pc.inputs.images.clone();
    for name in ["sdb", "sdc"] {
        let disk = pc.disk(name, if name == "sdb" { "8:16" } else { "8:32" });
        symlink(disk, pc.sys("fs/btrfs/0123/devices").join(name)).unwrap();
    }
    pc.mount("0:25", &images, "btrfs /dev/sdb rw");
    let found: Vec<String> = pc.well().into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["sda", "sdb", "sdc"]);
    let stats = "write_errs 0\nread_errs 2\nflush_errs 0\ncorruption_errs 1\ngeneration_errs x\n";
    for (device, stats) in [("1", "write_errs 0\n"), ("2", stats)] {
        fs::write(pc.sys(&format!("fs/btrfs/0123/devinfo/{device}")).join("error_stats"), stats)
            .unwrap();
    }
    is(&pc.found(Answer::Well)[0], Level::Warn, "sdb", "3 errors", "btrfs scrub");
}

#[test]
fn errors_in_a_file_system_are_said_with_their_number_and_the_last_ones_time() {
    let pc = PcWithDisks::new();
    let errors = pc.sys("fs/ext4/sda2");
    fs::write(errors.join("errors_count"), "0\n").unwrap();
    fs::write(errors.join("last_error_time"), "0\n").unwrap();
    assert_eq!(pc.well(), [(Level::Ok, "sda".to_owned())]);
    fs::write(errors.join("errors_count"), "7\n").unwrap();
    let found = pc.found(Answer::Well);
    is(&found[0], Level::Warn, "sda2", "7 errors", "fsck.mode=force");
    assert!(!found[0].message.contains("the last"), "{found:?}");
    let time = (1_800_000_000_u64 - 3 * 24 * 3600).to_string();
    fs::write(errors.join("last_error_time"), time).unwrap();
    is(&pc.found(Answer::Well)[0], Level::Warn, "sda2", "the last 3 days ago", "");
    // By a clock that was put back.
    fs::write(errors.join("last_error_time"), "1900000000\n").unwrap();
    assert!(!pc.found(Answer::Well)[0].message.contains("the last"));
    fs::write(errors.join("errors_count"), "-1 of them\n").unwrap();
    assert_eq!(pc.well().len(), 1);
}

#[test]
fn a_file_system_that_became_read_only_fails_and_one_that_somebody_mounted_so_does_not() {
    let root_mounted = |what: &str, fstab: &str| {
        let mut pc = PcWithDisks::new();
        pc.mounts.clear();
        let root = pc.pc.system.root.clone();
        pc.mount("8:2", &root, what);
        pc.pc.root("etc/fstab", fstab.replace("ROOT", &root.display().to_string()));
        pc
    };
    let written = "# the root\nUUID=01 ROOT ext4 errors=remount-ro 0 1\n";
    for (what, fstab) in [
        ("ext4 /dev/sda2 ro", written),
        ("ext4 /dev/sda2 rw,emergency_ro", ""),
        ("ext4 /dev/sda2 ro,shutdown", ""),
    ] {
        let found = root_mounted(what, fstab).found(Answer::Well);
        is(&found[0], Level::Fail, "sda2", "is read-only", "dmesg | grep -i sda2");
    }
    for (what, fstab) in [
        ("ext4 /dev/sda2 ro", "UUID=01 ROOT ext4 defaults,ro 0 1\n"),
        ("ext4 /dev/sda2 ro", "#UUID=01 ROOT ext4 defaults 0 1\n"),
        ("squashfs /dev/sda2 ro", written),
        ("ext4 /dev/sda2 rw,errors=remount-ro", written),
    ] {
        let pc = root_mounted(what, fstab);
        assert_eq!(pc.well(), [(Level::Ok, "sda".to_owned())], "{what} {fstab}");
    }
    // With errors nobody mounted it so.
    let pc = root_mounted("ext4 /dev/sda2 ro", "");
    fs::write(pc.sys("fs/ext4/sda2").join("errors_count"), "1\n").unwrap();
    is(&pc.found(Answer::Well)[1], Level::Fail, "sda2", "after an error", "");
}

#[test]
fn what_a_disk_did_not_do_counts_where_it_is_no_question_what_the_disk_can() {
    let pc = PcWithDisks::new();
    let device = pc.sys("block/sda/device");
    let counts = |failed: &str, all: &str, late: &str| {
        for (file, text) in [("ioerr_cnt", failed), ("iorequest_cnt", all), ("iotmo_cnt", late)] {
            fs::write(device.join(file), text).unwrap();
        }
        pc.found(Answer::Well)
    };
    for (failed, all) in [("0x5", "0x9"), ("0x1000", "0x1000000"), ("junk", ""), ("0x", "0x1")] {
        assert_eq!(counts(failed, all, "0x0\n")[0].level, Level::Ok, "{failed} {all}");
    }
    is(&counts("0x100", "0x1000", "0x0")[0], Level::Warn, "sda", "256 of 4096", "exchange");
    is(&counts("0x0", "0x1000", "0x2\n")[0], Level::Warn, "sda", "2 commands in time", "cable");
}

#[test]
fn an_nvme_controller_is_found_beside_its_disk_and_above_it_and_a_worn_emmc_says_so() {
    let mut pc = PcWithDisks::new();
    let (disk, card) = (pc.disk("nvme0n1", "259:0"), pc.disk("mmcblk0", "179:0"));
    let (state, images) = (pc.inputs.state.clone(), pc.inputs.images.clone());
    pc.mount("259:0", &state, "ext4 /dev/nvme0n1 rw");
    pc.mount("179:0", &images, "ext4 /dev/mmcblk0 rw");
    fs::create_dir_all(disk.join("device/nvme0")).unwrap();
    fs::create_dir_all(card.join("device")).unwrap();
    let of = |name: &str| {
        let found = pc.found(Answer::Well).into_iter();
        found.filter(|it| it.subject.as_deref() == Some(name)).collect::<Vec<_>>()
    };
    for place in ["device/state", "device/nvme0/state"] {
        for (state, level) in
            [("live\n", Level::Ok), ("dead\n", Level::Fail), ("connecting\n", Level::Warn)]
        {
            fs::write(disk.join(place), state).unwrap();
            assert_eq!(of("nvme0n1")[0].level, level, "{place} {state}");
        }
        fs::remove_file(disk.join(place)).unwrap();
    }
    assert_eq!(of("mmcblk0")[0].level, Level::Ok);
    for (file, text, level) in [
        ("pre_eol_info", "0x01\n", Level::Ok),
        ("pre_eol_info", "0x02\n", Level::Warn),
        ("pre_eol_info", "0x03\n", Level::Fail),
        ("pre_eol_info", "\n", Level::Ok),
        ("life_time", "0x01 0x09\n", Level::Ok),
        ("life_time", "0x0a 0x01\n", Level::Warn),
        ("life_time", "0x01 0x0b\n", Level::Warn),
        ("life_time", "0xzz\n", Level::Ok),
    ] {
        fs::write(card.join("device").join(file), text).unwrap();
        assert_eq!(of("mmcblk0")[0].level, level, "{file} {text}");
    }
}

#[test]
fn what_a_disk_says_of_itself_is_asked_where_that_does_no_harm() {
    let mut pc = PcWithDisks::new();
    for (answer, level, says) in [
        (Answer::Well, Level::Ok, "says that it is well"),
        (Answer::Silent, Level::Ok, "no word of its own"),
        (Answer::NotInstalled, Level::Ok, "apt install smartmontools"),
        (Answer::Hot, Level::Warn, "too hot"),
        (Answer::Failing(Vec::new()), Level::Fail, "it fails"),
        (Answer::Failing(vec!["it takes no writes any more"]), Level::Fail, "takes no writes"),
        (Answer::Late, Level::Warn, "not looked at what the disk says"),
        (Answer::NotRoot, Level::Warn, "not looked at"),
        (Answer::Failed("why".to_owned()), Level::Warn, "of itself: why"),
    ] {
        let found = pc.found(answer);
        assert_eq!(found.len(), 1, "{found:?}");
        is(&found[0], level, "sda", says, "");
        assert_eq!(found[0].remedy.is_none(), level == Level::Ok, "{found:?}");
    }
    // A stick is not asked, and neither is what a virtual PC has for a disk.
    let stick = pc.sys("devices/pci0000:00/usb2/2-1/block/sdb");
    symlink(&stick, pc.pc.system.sysfs.path("block/sdb")).unwrap();
    pc.number("8:16", &stick);
    pc.disk("vda", "254:0");
    let (state, images) = (pc.inputs.state.clone(), pc.inputs.images.clone());
    pc.mount("8:16", &state, "ext4 /dev/sdb rw");
    pc.mount("254:0", &images, "ext4 /dev/vda rw");
    let failing: Vec<_> = pc.found(Answer::Failing(Vec::new())).into_iter().collect();
    let failing = failing.iter().filter(|it| it.level == Level::Fail);
    assert_eq!(failing.map(|it| it.subject.as_deref()).collect::<Vec<_>>(), [Some("sda")]);
}

#[test]
fn what_is_on_no_disk_is_not_looked_at_and_no_failure() {
    let mut pc = PcWithDisks::new();
    pc.mounts.clear();
    let root = pc.pc.system.root.clone();
    pc.mount("0:30", &root, "tmpfs tmpfs rw");
    let found = pc.found(Answer::Well);
    assert_eq!((found.len(), found[0].level), (1, Level::Warn));
    assert!(found[0].message.starts_with("not looked at"));
    let layout = layout::Layout {
        images: pc.inputs.images.clone(),
        state: pc.inputs.state.clone(),
        runtime: pc.inputs.runtime.clone(),
    };
    let found = disk_space::examine(&pc.storage(), &layout, &root, None);
    assert_eq!((found.len(), found[0].level), (1, Level::Warn));
}

#[test]
fn the_mounts_of_any_form_are_read_without_an_end() {
    let mut pc = PcWithDisks::new();
    pc.mounts.push("x\n1 2\n - \n1 2 3:4 / \\999\\04 rw - ext4\n\\ \\ \\ - - -\n".to_owned());
    let blank = pc.pc.system.root.join("var/a b");
    fs::create_dir_all(&blank).unwrap();
    pc.inputs.images = blank.clone();
    pc.disk("sdb", "8:16");
    pc.mount("8:16", &blank, "ext4 /dev/sdb rw");
    let storage = pc.storage();
    let found: Vec<&FileSystem> = storage.file_systems.iter().map(|it| &it.system).collect();
    assert_eq!(
        found.iter().map(|it| it.point.as_path()).collect::<Vec<_>>(),
        [&*pc.pc.system.root, &*blank]
    );
}

#[test]
fn what_disks_of_domains_may_grow_by_is_found_in_their_files_and_in_the_copies_of_those_that_forget()
 {
    let pc = PcWithDisks::new();
    let images = &pc.inputs.images;
    let text = "format = 1\n[domain.clinical]\nkernel = \"k\"\ndisks = [ { path = \"home.img\" }, { path = \"root.img\", readonly = true } ]\n";
    let context = Context { images, domain_policies: None };
    let machine = Machine::parse("machine.toml", text, context).unwrap();
    let sparse = |path: &Path, mib: u64| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().set_len(mib << 20).unwrap();
        // What the file system keeps of it does not count.
        (mib << 20) - fs::metadata(path).unwrap().blocks() * 512
    };
    sparse(&images.join("home.img"), 1 << 23);
    sparse(&images.join("root.img"), 1 << 23);
    let layout = layout::Layout {
        images: images.clone(),
        state: pc.inputs.state.clone(),
        runtime: pc.inputs.runtime.clone(),
    };
    let found = || {
        let storage = pc.storage();
        let found = disk_space::examine(&storage, &layout, &pc.pc.system.root, Some(&machine));
        assert_eq!(found.len(), 1, "{found:?}");
        found.into_iter().next().unwrap()
    };
    let kept = found();
    assert_eq!(kept.level, Level::Warn);
    assert!(kept.message.contains("may grow by 8388608 MiB"), "{kept:?}");
    sparse(&layout.discard("clinical").join("disk0.img"), 1 << 22);
    assert!(found().message.contains("may grow by 4194304 MiB"));
}
