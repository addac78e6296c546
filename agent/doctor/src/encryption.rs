//! Whether the disk with the state is of use to somebody who takes it out of the PC, and whether the PC opens it by itself.
//!
//! What opens a LUKS2 volume stands in its header, as JSON (LUKS2 On-Disk Format 1.1, sections 2 and 3).

mod tpm_policy;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base::layout::STATE_VOLUME;
use base::state_volume::{UNITS, mount_unit};
use nix::sys::stat::{major, minor};
use serde_json::Value;

use super::{Finding, SystemPaths, text, tpm};
use tpm_policy::PcrPolicy;

/// Block devices on block devices: a file system on LVM on encryption on RAID on a partition is five.
const DEPTH_MAX: usize = 8;
/// What the kernel's device mapper calls an encrypted volume begins so (`dm/uuid`), and so what is only checked.
const ENCRYPTED: &str = "CRYPT-";
const CHECKED: [&str; 2] = ["CRYPT-VERITY-", "CRYPT-INTEGRITY-"];
/// A header's magic, version, and the size of its binary part.
const MAGIC: &[u8] = b"LUKS\xba\xbe\0\x02";
const BINARY: usize = 4096;
/// The largest header that there is, in bytes.
const HEADER_MAX: u64 = 4 << 20;

/// Examines whether the disk under the state directory is of use to who takes it out of the PC.
pub(super) fn examine(system: &SystemPaths, state: &Path) -> Finding {
    let check = "encryption";
    // Where there is no state directory yet, its file system is that of the nearest folder above.
    let there = state.ancestors().find_map(|path| fs::metadata(path).ok());
    let Some(device) = there.map(|metadata| metadata.dev()) else {
        return Finding::warn(
            check,
            format!("not looked at: {} cannot be read", state.display()),
            "run this command as root",
        );
    };
    let device =
        system.sysfs.path("dev/block").join(format!("{}:{}", major(device), minor(device)));
    if !device.exists() {
        return Finding::warn(
            check,
            format!(
                "not looked at: the file system of {} names no disk, as btrfs and those in memory do",
                state.display()
            ),
            "`lsblk -f` shows whether there is a `crypto_LUKS` below it",
        );
    }
    let encrypted = encrypted(&device, DEPTH_MAX);
    let is_away = encrypted.as_deref().and_then(|device| text(&device.join("dm/name"))).as_deref()
        != Some(STATE_VOLUME);
    let has_tpm = tpm::is_there(system);
    if is_away && unit(system, state).exists() {
        let slots = volume(system).and_then(|node| Slots::of(&node));
        let why = slots.and_then(|slots| slots.closed_for(system, has_tpm));
        let why = why.map(|why| format!("; {why}")).unwrap_or_default();
        return Finding::fail(
            check,
            format!(
                "the encrypted volume with the state is not mounted at {}, and without it the agent does not start: its audit log would begin anew{why}",
                state.display()
            ),
            format!(
                "`bulkhead setup` mounts it, and goes on with a move that was cut short; `systemctl status systemd-cryptsetup@{STATE_VOLUME}` says why it does not open, and the recovery key opens it where it asks"
            ),
        );
    }
    if is_away && has_volume(system) {
        return Finding::warn(
            check,
            format!(
                "a move of {} onto an encrypted volume was cut short: /etc/crypttab names the volume, and the state is still where it was, unencrypted",
                state.display()
            ),
            "`bulkhead setup --encrypt-state VOLUME --erase VOLUME` begins with the volume anew; `bulkhead setup --undo` takes back what is left of it",
        );
    }
    if let Some(device) = encrypted {
        return what_opens(system, state, &device, has_tpm);
    }
    let unlock = if has_tpm {
        "this PC has a TPM 2.0, which then unlocks it at each start"
    } else {
        "this PC shows no TPM 2.0, so somebody types a passphrase at each start"
    };
    Finding::warn(
        check,
        format!(
            "{} is on a disk that is not encrypted: who takes it out reads what is there, the key that signs the audit log among it, and guests' disks unless they lie elsewhere",
            state.display()
        ),
        format!(
            "`bulkhead setup --encrypt-state VOLUME` moves state and images onto an encrypted volume of its own (setup.md); {unlock}"
        ),
    )
}

/// Returns the mount unit that says that a volume has the state.
fn unit(system: &SystemPaths, state: &Path) -> PathBuf {
    let state = std::path::absolute(state).unwrap_or_else(|_| state.to_owned());
    system.root.join(UNITS).join(mount_unit(&state))
}

/// Returns whether `/etc/crypttab` names the volume that setup makes.
fn has_volume(system: &SystemPaths) -> bool {
    let crypttab = text(&system.root.join("etc/crypttab")).unwrap_or_default();
    crypttab.lines().any(|line| line.split_ascii_whitespace().next() == Some(STATE_VOLUME))
}

/// Returns the volume that `/etc/crypttab` names for the state.
fn volume(system: &SystemPaths) -> Option<PathBuf> {
    let crypttab = text(&system.root.join("etc/crypttab"))?;
    let mut lines = crypttab.lines().map(str::split_ascii_whitespace);
    let named = lines.find_map(|mut words| {
        (words.next() == Some(STATE_VOLUME)).then(|| words.next()).flatten()
    })?;
    match named.strip_prefix("UUID=") {
        Some(uuid) => Some(system.dev.join("disk/by-uuid").join(uuid)),
        None => named.strip_prefix("/dev/").map(|below| system.dev.join(below)),
    }
}

/// Says what opens the encrypted volume below the state.
fn what_opens(system: &SystemPaths, state: &Path, device: &Path, has_tpm: bool) -> Finding {
    let check = "encryption";
    let is = format!("the disk with {} is encrypted", state.display());
    let below = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten().next();
    let node = below.map(|entry| system.dev.join(entry.file_name()));
    let Some((node, slots)) = node.and_then(|node| Some((node.clone(), Slots::of(&node)?))) else {
        return Finding::ok(check, is);
    };
    let (node, opened) = (node.display(), slots.said());
    if has_tpm && !slots.tpm {
        return Finding::warn(
            check,
            format!(
                "{is} ({opened}), and this PC's TPM does not open it: somebody does at each start"
            ),
            format!(
                "`systemd-cryptenroll --tpm2-device=auto --tpm2-pcrs=7 {node}`, and `tpm2-device=auto` among its options in /etc/crypttab"
            ),
        );
    }
    if slots.tpm && !has_tpm {
        return Finding::warn(
            check,
            format!(
                "{is} ({opened}), and this PC shows no TPM 2.0: somebody types a key at each start"
            ),
            format!(
                "switch the TPM on in the BIOS (fTPM, PTT); after a new board, `systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs={} {node}`",
                slots.pcrs_by("+")
            ),
        );
    }
    if let Some(why) = slots.closed_for(system, has_tpm) {
        return Finding::warn(
            check,
            format!("{is} ({opened}), and at the next start somebody types a key: {why}"),
            format!(
                "if that was meant, `systemd-cryptenroll --wipe-slot=tpm2 --tpm2-device=auto --tpm2-pcrs={} {node}` has the next start do without; if not, find out who started what on this PC",
                slots.pcrs_by("+")
            ),
        );
    }
    if !slots.recovery && slots.others == 0 {
        return Finding::warn(
            check,
            format!(
                "{is} ({opened}), and nothing else opens it: what is on it is lost with the TPM, or with a change of Secure Boot's keys"
            ),
            format!(
                "`systemd-cryptenroll --recovery-key {node}`, and keep what it prints away from this PC"
            ),
        );
    }
    Finding::ok(check, format!("{is} ({opened})"))
}

/// What opens a volume.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slots {
    tpm: bool,
    /// The PCRs that the TPM's key is bound to.
    pcrs: Vec<u64>,
    /// The same with their values, of each of the TPM's keys that is bound to nothing else.
    policies: Vec<Option<PcrPolicy>>,
    recovery: bool,
    /// Passphrases and key files, which a header does not tell apart.
    others: usize,
}

impl Slots {
    /// Reads the header of a volume; `None` if it is none of LUKS2's, or cannot be read.
    fn of(node: &Path) -> Option<Self> {
        let mut header = vec![0; BINARY];
        let mut file = File::open(node).ok()?;
        file.read_exact(&mut header).ok()?;
        let size = u64::from_be_bytes(header.get(8..16)?.try_into().ok()?);
        let size = size.min(HEADER_MAX).checked_sub(u64::try_from(BINARY).ok()?)?;
        if header.get(..MAGIC.len()) != Some(MAGIC) {
            return None;
        }
        let mut json = Vec::new();
        file.take(size).read_to_end(&mut json).ok()?;
        Self::parse(json.split(|byte| *byte == 0).next()?)
    }

    fn parse(json: &[u8]) -> Option<Self> {
        let header: Value = serde_json::from_slice(json).ok()?;
        let tokens = header.get("tokens").and_then(Value::as_object);
        let mut slots = Self::default();
        let mut named = Vec::new();
        for token in tokens.into_iter().flat_map(serde_json::Map::values) {
            match token.get("type").and_then(Value::as_str) {
                Some("systemd-tpm2") => {
                    slots.tpm = true;
                    slots.policies.push(PcrPolicy::of(token));
                    let pcrs = token.get("tpm2-pcrs").and_then(Value::as_array);
                    slots.pcrs.extend(pcrs.into_iter().flatten().filter_map(Value::as_u64));
                }
                Some("systemd-recovery") => slots.recovery = true,
                _ => continue,
            }
            named.extend(token.get("keyslots").and_then(Value::as_array).into_iter().flatten());
        }
        let keys = header.get("keyslots").and_then(Value::as_object)?.keys();
        slots.others =
            keys.filter(|key| !named.iter().any(|named| named.as_str() == Some(key))).count();
        Some(slots)
    }

    /// Returns why this PC's TPM does not give its key, if that is known.
    fn closed_for(&self, system: &SystemPaths, has_tpm: bool) -> Option<String> {
        if !self.tpm {
            return None;
        }
        if !has_tpm {
            return Some("the TPM 2.0 that opens it is not seen on this PC".to_owned());
        }
        // A TPM that has not answered is not asked for the next.
        let answers = Cell::new(true);
        let pcr = |number: u8| {
            let said = answers.get().then(|| tpm::pcr(system, number)).flatten();
            answers.set(said.is_some());
            tpm_policy::value(&said?)
        };
        let is_other =
            |policy: &Option<PcrPolicy>| policy.as_ref()?.is_met(pcr).map(|is_met| !is_met);
        let are_all = self.policies.iter().all(|policy| is_other(policy) == Some(true));
        are_all.then(|| {
            format!(
                "the TPM keeps its key, as PCR {} is not what it was when the key was made (PCR 7 is Secure Boot with its keys): that was changed, or something else was started on this PC",
                self.pcrs_by(", ")
            )
        })
    }

    /// Returns the PCRs, 7 where the header names none.
    fn pcrs_by(&self, between: &str) -> String {
        let pcrs: Vec<String> = self.pcrs.iter().map(u64::to_string).collect();
        if pcrs.is_empty() { "7".to_owned() } else { pcrs.join(between) }
    }

    fn said(&self) -> String {
        let others = u64::try_from(self.others).unwrap_or(u64::MAX);
        let others =
            printable::counted(others, "passphrase or key file", "passphrases or key files");
        let opened = [
            self.tpm.then(|| match self.pcrs.is_empty() {
                true => "the TPM".to_owned(),
                false => format!("the TPM (PCR {})", self.pcrs_by(", ")),
            }),
            self.recovery.then(|| "a recovery key".to_owned()),
            (self.others > 0).then_some(others),
        ];
        let opened: Vec<String> = opened.into_iter().flatten().collect();
        format!("LUKS2, opened by {}", opened.join(", "))
    }
}

/// Returns the encrypted volume that a block device is, or is made of; `None` if any part of it is not encrypted.
fn encrypted(device: &Path, depth: usize) -> Option<PathBuf> {
    let (device, depth) = (fs::canonicalize(device).ok()?, depth.checked_sub(1)?);
    let is_cipher = |uuid: String| {
        uuid.starts_with(ENCRYPTED) && !CHECKED.iter().any(|checked| uuid.starts_with(checked))
    };
    if text(&device.join("dm/uuid")).is_some_and(is_cipher) {
        return Some(device);
    }
    let below = fs::read_dir(device.join("slaves")).into_iter().flatten().flatten();
    let mut below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
    if device.join("partition").exists() {
        below.extend(device.parent().map(Path::to_owned));
    }
    let found: Option<Vec<PathBuf>> = below.iter().map(|device| encrypted(device, depth)).collect();
    found?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use control::findings::Level;

    use super::*;
    use crate::fake::Pc;

    #[test]
    fn a_state_directory_below_lvm_on_an_encrypted_partition_is_encrypted() {
        let pc = Pc::new();
        let state = pc.files.dir.path().join("state/not/there");
        assert!(examine(&pc.system, &state).message.starts_with("not looked at"));
        let number = fs::metadata(pc.files.dir.path()).unwrap().dev();
        let volume = pc.system.sysfs.path("devices/virtual/block/dm-1");
        let luks = pc.system.sysfs.path("devices/virtual/block/dm-0");
        fs::create_dir_all(volume.join("slaves")).unwrap();
        fs::create_dir_all(&luks).unwrap();
        symlink(&luks, volume.join("slaves/dm-0")).unwrap();
        let named = pc.system.sysfs.path("dev/block");
        fs::create_dir_all(&named).unwrap();
        symlink(&volume, named.join(format!("{}:{}", major(number), minor(number)))).unwrap();
        let found = examine(&pc.system, &state);
        assert_eq!(found.level, Level::Warn);
        assert!(found.remedy.unwrap().contains("passphrase"));
        pc.sys("class/tpm/tpm0/tpm_version_major", "2\n");
        assert!(examine(&pc.system, &state).remedy.unwrap().contains("TPM 2.0"));
        pc.sys("devices/virtual/block/dm-0/dm/uuid", "CRYPT-INTEGRITY-0123\n");
        assert_eq!(examine(&pc.system, &state).level, Level::Warn);
        pc.sys("devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-root_crypt\n");
        assert_eq!(examine(&pc.system, &state).level, Level::Ok);
    }

    /// A header with these tokens and key slots.
    fn header(json: &str) -> Vec<u8> {
        let mut header = [MAGIC, &16384u64.to_be_bytes()].concat();
        header.resize(BINARY, 0);
        header.extend(json.as_bytes());
        header.resize(16384, 0);
        header
    }

    #[test]
    fn a_volume_is_said_with_what_opens_it_and_warned_of_where_that_is_too_little() {
        let pc = Pc::new();
        let number = fs::metadata(pc.files.dir.path()).unwrap().dev();
        let state = pc.files.dir.path().join("state");
        let luks = pc.system.sysfs.path("devices/virtual/block/dm-0");
        fs::create_dir_all(luks.join("slaves/vdb")).unwrap();
        pc.sys("devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-bulkhead_state\n");
        let named = pc.system.sysfs.path("dev/block");
        fs::create_dir_all(&named).unwrap();
        symlink(&luks, named.join(format!("{}:{}", major(number), minor(number)))).unwrap();
        let has = |json: &str| {
            fs::write(pc.system.dev.join("vdb"), header(json)).unwrap();
            examine(&pc.system, &state)
        };
        let tpm = r#""0":{"type":"systemd-tpm2","keyslots":["2"],"tpm2-pcrs":[0,7]}"#;
        let recovery = r#""1":{"type":"systemd-recovery","keyslots":["1"]}"#;
        let both = format!(r#"{{"keyslots":{{"1":{{}},"2":{{}}}},"tokens":{{{tpm},{recovery}}}}}"#);
        let lone = format!(r#"{{"keyslots":{{"2":{{}}}},"tokens":{{{tpm}}}}}"#);
        let typed = r#"{"keyslots":{"0":{},"1":{}},"tokens":{"1":{"type":"systemd-recovery","keyslots":["1"]}}}"#;
        let found = has(typed);
        assert_eq!(found.level, Level::Ok, "{}", found.message);
        assert!(
            found.message.contains("a recovery key, 1 passphrase or key file"),
            "{}",
            found.message
        );
        let found = has(&both);
        assert_eq!(found.level, Level::Warn);
        assert!(found.message.contains("no TPM 2.0"), "{}", found.message);
        let remedy = found.remedy.unwrap();
        assert!(remedy.contains("--tpm2-pcrs=0+7 /"), "{remedy}");
        pc.sys("class/tpm/tpm0/tpm_version_major", "2\n");
        let found = has(&both);
        assert_eq!(found.level, Level::Ok, "{}", found.message);
        assert!(found.message.contains("the TPM (PCR 0, 7), a recovery key"), "{}", found.message);
        let found = has(typed);
        assert!(found.remedy.unwrap().contains("--tpm2-device=auto"), "{}", found.message);
        assert!(has(&lone).remedy.unwrap().contains("--recovery-key"));
        // A header that is none says nothing, and is no reason to say that the disk is not encrypted.
        for odd in ["", "[]", "{\"keyslots\":7}", "{\"keyslots\":{\"0\":1},\"tokens\":[1]"] {
            assert_eq!(has(odd).level, Level::Ok, "{odd}");
        }
        fs::write(pc.system.dev.join("vdb"), "LUKS").unwrap();
        assert_eq!(examine(&pc.system, &state).level, Level::Ok);
    }

    #[test]
    fn a_volume_that_is_not_mounted_is_a_failure_as_no_agent_starts() {
        let pc = Pc::new();
        let state = pc.files.dir.path().join("state");
        let number = fs::metadata(pc.files.dir.path()).unwrap().dev();
        let disk =
            pc.system.sysfs.path("dev/block").join(format!("{}:{}", major(number), minor(number)));
        fs::create_dir_all(disk).unwrap();
        let crypttab = pc.system.root.join("etc/crypttab");
        fs::write(&crypttab, "home UUID=1 none luks\n").unwrap();
        assert_eq!(examine(&pc.system, &state).level, Level::Warn);
        fs::write(&crypttab, "bulkhead_state UUID=1 none luks\n").unwrap();
        // The state is where it was, and an agent starts.
        let found = examine(&pc.system, &state);
        assert_eq!(found.level, Level::Warn);
        assert!(found.message.contains("cut short"), "{}", found.message);
        fs::create_dir_all(pc.system.root.join(UNITS)).unwrap();
        fs::write(unit(&pc.system, &state), "").unwrap();
        let found = examine(&pc.system, &state);
        assert_eq!(found.level, Level::Fail);
        assert!(found.message.contains("the agent does not start"), "{}", found.message);
    }

    #[test]
    fn a_tpm_that_keeps_its_key_is_told_with_why_before_the_key_is_asked_for_and_when_it_is() {
        let pc = Pc::new();
        let state = pc.files.dir.path().join("state");
        let number = fs::metadata(pc.files.dir.path()).unwrap().dev();
        let luks = pc.system.sysfs.path("devices/virtual/block/dm-0");
        fs::create_dir_all(luks.join("slaves/vdb")).unwrap();
        pc.sys("devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-0123-bulkhead_state\n");
        pc.sys("devices/virtual/block/dm-0/dm/name", "bulkhead_state\n");
        let named = pc.system.sysfs.path("dev/block");
        fs::create_dir_all(&named).unwrap();
        symlink(&luks, named.join(format!("{}:{}", major(number), minor(number)))).unwrap();
        fs::create_dir_all(pc.system.root.join(UNITS)).unwrap();
        fs::write(unit(&pc.system, &state), "").unwrap();
        fs::write(pc.system.root.join("etc/crypttab"), "bulkhead_state UUID=01-23 none luks\n")
            .unwrap();
        fs::create_dir_all(pc.system.dev.join("disk/by-uuid")).unwrap();
        symlink("../../vdb", pc.system.dev.join("disk/by-uuid/01-23")).unwrap();
        // What systemd-cryptenroll wrote for a TPM whose PCR 7 was this.
        let seven = "7F85193790DE75E46B70BFEC3614098F47332A6993DABAC6E38AD35F47DF5DA4\n";
        let json = r#"{"keyslots":{"1":{},"2":{}},"tokens":{"0":{"type":"systemd-tpm2","keyslots":["2"],"tpm2-pcrs":[7],"tpm2-pcr-bank":"sha256",
            "tpm2-policy-hash":"49be4b8b1836b776d40f9e35074980b0d79705c03c02be6f34aa64aa15db08be","tpm2-pin":false},
            "1":{"type":"systemd-recovery","keyslots":["1"]}}}"#;
        fs::write(pc.system.dev.join("vdb"), header(json)).unwrap();
        pc.sys("class/tpm/tpm0/tpm_version_major", "2\n");
        assert_eq!(examine(&pc.system, &state).level, Level::Ok, "its PCR cannot be read");
        pc.sys("class/tpm/tpm0/pcr-sha256/7", seven);
        assert_eq!(examine(&pc.system, &state).level, Level::Ok);
        pc.sys("class/tpm/tpm0/pcr-sha256/7", seven.replace("7F", "00"));
        let found = examine(&pc.system, &state);
        assert_eq!(found.level, Level::Warn);
        assert!(found.message.contains("at the next start somebody types a key: the TPM keeps"));
        assert!(found.remedy.unwrap().contains("--wipe-slot=tpm2"));

        // It was not opened.
        pc.sys("devices/virtual/block/dm-0/dm/name", "other\n");
        let found = examine(&pc.system, &state);
        assert_eq!(found.level, Level::Fail);
        assert!(found.message.contains("PCR 7 is not what it was"), "{}", found.message);
        pc.sys("class/tpm/tpm0/pcr-sha256/7", seven);
        assert!(!examine(&pc.system, &state).message.contains("PCR"));
        fs::remove_file(pc.system.sysfs.path("class/tpm/tpm0/tpm_version_major")).unwrap();
        let found = examine(&pc.system, &state);
        assert!(found.message.contains("is not seen on this PC"), "{}", found.message);
    }
}
