//! The volume is made: LUKS2, a recovery key, and what opens it at each start.
//!
//! It begins under a random key that lies in memory alone, and that is taken off the volume before it gets its first file. Where the power goes
//! before the state is moved, nobody needs what is on it: the next run makes it anew.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use base::layout::STATE_VOLUME as NAME;

use super::device::{self, Node};
use super::recovery::OTHERS;
use super::{
    MAPPER, PCRS, UnlockBy, VolumeError, VolumeRequest, WORK, moving, recovery, refused, text,
};
use crate::Pc;
use crate::effects::{Attributes, Effects};

/// Bytes of the key that the volume begins under.
const KEY: usize = 64;
/// KiB that opening it with a passphrase or a key file takes, for the time of that: each PC that runs Bulkhead has them before a desktop starts.
const PBKDF_MEMORY: &str = "262144";
/// Passes over that memory.
const PBKDF_PASSES: &str = "4";
/// Largest list of file systems, in bytes: one has a dozen lines.
const FSTAB_MAX: u64 = 1 << 20;
/// Where the recovery key lies while it is tried, in the folder where setup works.
const TRIED: &str = "recovery";
/// The packages that have a file: on Debian 12, and on Debian 13.
type Packages = (&'static str, &'static str);
/// Programs, and their packages.
const PROGRAMS: [(&str, Packages); 5] = [
    ("usr/sbin/cryptsetup", ("cryptsetup-bin", "cryptsetup-bin")),
    ("usr/bin/systemd-cryptenroll", ("systemd", "systemd-cryptsetup")),
    (SYSTEMD_CRYPTSETUP, ("systemd", "systemd-cryptsetup")),
    ("usr/sbin/mkfs.ext4", ("e2fsprogs", "e2fsprogs")),
    ("usr/bin/diff", ("diffutils", "diffutils")),
];
const SYSTEMD_CRYPTSETUP: &str = "usr/lib/systemd/systemd-cryptsetup";
/// Libraries that systemd loads to speak with a TPM, and their packages.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const TPM_LIBRARIES: [(&str, Packages); 4] = [
    ("libtss2-esys.so.0", ("libtss2-esys-3.0.2-0", "libtss2-esys-3.0.2-0t64")),
    ("libtss2-mu.so.0", ("libtss2-mu0", "libtss2-mu-4.0.1-0t64")),
    ("libtss2-rc.so.0", ("libtss2-rc0", "libtss2-rc0t64")),
    ("libtss2-tcti-device.so.0", ("libtss2-tcti-device0", "libtss2-tcti-device0t64")),
];

/// What opens the volume at each start, besides the recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Unlock {
    Tpm2 { pcrs: Vec<u8> },
    Passphrase,
    KeyFile { path: PathBuf },
}

impl Unlock {
    /// Returns the third field of `/etc/crypttab`.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Tpm2 { .. } | Self::Passphrase => "none".to_owned(),
            Self::KeyFile { path } => path.display().to_string(),
        }
    }

    /// Returns its fourth. No `discard`: which blocks are in use would be seen from outside.
    pub(crate) fn options(&self) -> String {
        let own = match self {
            Self::Tpm2 { .. } => ",tpm2-device=auto",
            Self::Passphrase => "",
            // A stick may be late; then the recovery key is asked for.
            Self::KeyFile { .. } => ",keyfile-timeout=30s",
        };
        format!("luks,nofail,tries=0{own}")
    }
}

/// A volume is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Volume {
    /// By the name that somebody gave it.
    pub(crate) device: PathBuf,
    /// What that led to. Nothing but this is written.
    pub(crate) node: Node,
    pub(crate) uuid: String,
    pub(crate) unlock: Unlock,
    /// Where the recovery key is written, if not to the terminal.
    pub(crate) recovery_key_file: Option<PathBuf>,
    /// What the volume holds now and loses, as blkid(8) names it.
    pub(crate) holds: Option<String>,
}

/// Returns what is to open the volume.
pub(crate) fn unlock(pc: &Pc, state: &Path, wish: &VolumeRequest) -> Result<Unlock, VolumeError> {
    let version = fs::read_to_string(pc.sysfs.path("class/tpm/tpm0/tpm_version_major"));
    let has_tpm = version.is_ok_and(|version| version.trim() == "2");
    let by = match wish.unlock {
        Some(by) => by,
        None if wish.key_file.is_some() => UnlockBy::KeyFile,
        None if has_tpm => UnlockBy::Tpm2,
        None => UnlockBy::Passphrase,
    };
    match by {
        UnlockBy::Tpm2 if !has_tpm => Err(refused(
            "this PC shows no TPM 2.0: switch it on in the BIOS (fTPM, PTT), or answer `unlock = \"passphrase\"` or `unlock = \"key-file\"` below [encrypted_state]",
        )),
        UnlockBy::Tpm2 => {
            let pcrs = wish.pcrs.clone().unwrap_or_else(|| PCRS.to_vec());
            match pcrs.is_empty() {
                true => Err(refused("`pcrs` names no PCR: [7] is Secure Boot")),
                false => Ok(Unlock::Tpm2 { pcrs }),
            }
        }
        UnlockBy::Passphrase => Ok(Unlock::Passphrase),
        UnlockBy::KeyFile => {
            let Some(path) = wish.key_file.clone() else {
                return Err(refused(
                    "`unlock = \"key-file\"` needs `key_file = \"...\"` beside it, a file that is there at each start",
                ));
            };
            key_file(state, &path)?;
            Ok(Unlock::KeyFile { path })
        }
    }
}

/// Refuses a key file that `/etc/crypttab` cannot name, that is not there when it is needed, or that others than root can read or change.
fn key_file(state: &Path, path: &Path) -> Result<(), VolumeError> {
    let said = path.display();
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'#' && byte != b':';
    let is_plain = path.as_os_str().as_encoded_bytes().iter().all(|byte| plain(*byte));
    let metadata = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file);
    let (Some(metadata), true, true) = (metadata, is_plain, path.is_absolute()) else {
        return Err(refused(format!(
            "the key file {said} is no file, or its name has a blank: make it (`head -c 64 /dev/urandom`, for root alone), where it is not beside the volume when that is stolen"
        )));
    };
    if path.starts_with(state) {
        return Err(refused(format!(
            "the key file {said} would lie on the volume that it opens: name one elsewhere"
        )));
    }
    if metadata.uid() != Uid::effective().as_raw() || metadata.mode() & OTHERS != 0 {
        return Err(refused(format!(
            "the key file {said} is not root's alone (owner {}, mode {:o}): `chown root {said}` and `chmod 600 {said}`, with a new key if somebody may have read it; a stick with FAT is mounted with `fmask=177,dmask=077`",
            metadata.uid(),
            metadata.mode() & 0o777
        )));
    }
    Ok(())
}

/// Returns where a file's file system is mounted, if nothing mounts it there at the next start.
pub(crate) fn not_mounted_at_a_start(pc: &Pc, path: &Path) -> Option<PathBuf> {
    let mounts = super::mounts(pc);
    let below = mounts.into_iter().map(|mount| mount.point).filter(|point| path.starts_with(point));
    let point = below.max_by_key(|point| point.as_os_str().len())?;
    let fstab = fileopen::read(&pc.root.join("etc/fstab"), FSTAB_MAX).unwrap_or_default();
    let fstab = String::from_utf8_lossy(&fstab);
    let in_root = super::in_root(pc, &point);
    let names = |line: &str| {
        let place = line.split_ascii_whitespace().nth(1).unwrap_or_default();
        !line.trim_start().starts_with('#') && Path::new(place) == in_root
    };
    let has_unit = super::unit_file(pc, &point).exists();
    let is_roots = point.parent().is_none();
    (!is_roots && !has_unit && !fstab.lines().any(names)).then_some(point)
}

/// Refuses a PC on which a program is missing, before anything is changed.
pub(crate) fn programs(pc: &Pc, unlock: &Unlock) -> Result<(), VolumeError> {
    let tpm = match unlock {
        Unlock::Tpm2 { .. } => TPM_LIBRARIES.as_slice(),
        Unlock::Passphrase | Unlock::KeyFile { .. } => &[],
    };
    let libraries = tpm.iter().map(|(file, packages)| (format!("{LIBRARIES}/{file}"), *packages));
    let all =
        PROGRAMS.iter().map(|(file, packages)| ((*file).to_owned(), *packages)).chain(libraries);
    let missing: Vec<(String, Packages)> =
        all.filter(|(file, _)| !is_installed(pc, file)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let install = |mut packages: Vec<&str>| {
        packages.sort_unstable();
        packages.dedup();
        format!("`apt install {}`", packages.join(" "))
    };
    let on_12 = install(missing.iter().map(|(_, (package, _))| *package).collect());
    let on_13 = install(missing.iter().map(|(_, (_, package))| *package).collect());
    let commands = match on_12 == on_13 {
        true => on_12,
        false => format!("on Debian 12 {on_12}, on Debian 13 {on_13}"),
    };
    let files: Vec<&str> = missing.iter().map(|(file, _)| file.as_str()).collect();
    Err(refused(format!(
        "an encrypted volume needs what is not installed ({}): {commands}, and run this again",
        files.join(", ")
    )))
}

fn is_installed(pc: &Pc, file: &str) -> bool {
    // /usr may not be merged with the root yet.
    let without = file.strip_prefix("usr/").unwrap_or(file);
    pc.root.join(file).exists() || pc.root.join(without).exists()
}

impl Volume {
    pub(crate) fn shown(&self) -> String {
        let Self { device, unlock, recovery_key_file, holds, .. } = self;
        let lost = match holds {
            Some(holds) => format!("ERASE what is on {} ({holds}) and ", device.display()),
            None => String::new(),
        };
        let by = match unlock {
            Unlock::Tpm2 { pcrs } => {
                let pcrs: Vec<String> = pcrs.iter().map(u8::to_string).collect();
                format!("this PC's TPM (PCR {})", pcrs.join(", "))
            }
            Unlock::Passphrase => "a passphrase that somebody types".to_owned(),
            Unlock::KeyFile { path } => format!("the key file {}", path.display()),
        };
        let shown = match recovery_key_file {
            Some(path) => format!("written to {}", path.display()),
            None => "shown once on this terminal".to_owned(),
        };
        format!(
            "{lost}make an encrypted volume of {} (LUKS2), opened at each start by {by}; a recovery key is {shown}",
            device.display()
        )
    }

    pub(crate) fn shown_back(&self) -> String {
        format!("close the encrypted volume {}; what is on it is not erased", self.device.display())
    }

    pub(crate) fn make(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        if self.recovery_key_file.is_none() && !effects.has_terminal() {
            return Err(io::Error::other(
                "the recovery key is shown on a terminal, and there is none: run this in one, or name a file for it (`recovery_key_file` below [encrypted_state] of the answer file)",
            ));
        }
        moving::clear(pc, effects)?;
        close(pc, effects)?;
        if let Some(path) = &self.recovery_key_file {
            recovery::reserve(pc, path, &self.uuid, effects)?;
        }
        let work = moving::folder(pc, WORK, effects)?;
        let key_file = work.join("key");
        let key = text(&key_file)?;
        let device = text(&self.node.path)?;
        let mut random = Zeroizing::new([0u8; KEY]);
        getrandom::fill(random.as_mut_slice()).map_err(io::Error::other)?;
        effects.replace(&key_file, random.as_slice(), Attributes::new(0o600))?;
        device::look_again(pc, &self.device, &self.node, self.holds.as_deref(), effects)?;
        if self.holds.is_some() {
            effects.run("wipefs", &["--all", "--quiet", "--", device])?;
        }
        let pbkdf = [
            "--pbkdf",
            "argon2id",
            "--pbkdf-memory",
            PBKDF_MEMORY,
            "--pbkdf-force-iterations",
            PBKDF_PASSES,
        ];
        let uuid = self.uuid.as_str();
        let mut format = vec![
            "luksFormat",
            "--type",
            "luks2",
            "--batch-mode",
            "--uuid",
            uuid,
            "--label",
            "bulkhead-state",
            "--key-file",
            key,
        ];
        format.extend(pbkdf);
        format.push(device);
        effects.run("cryptsetup", &format)?;
        let by_key = format!("--unlock-key-file={key}");
        let recovery =
            effects.output("systemd-cryptenroll", &[&by_key, "--recovery-key", device])?;
        let recovery = recovery.trim();
        self.hand_over(pc, recovery, effects)?;
        match &self.unlock {
            Unlock::Tpm2 { pcrs } => {
                let pcrs: Vec<String> = pcrs.iter().map(u8::to_string).collect();
                let pcrs = format!("--tpm2-pcrs={}", pcrs.join("+"));
                effects
                    .run("systemd-cryptenroll", &[&by_key, "--tpm2-device=auto", &pcrs, device])?;
            }
            Unlock::Passphrase => {}
            Unlock::KeyFile { path } => {
                let mut add = vec!["luksAddKey", "--batch-mode", "--key-file", key];
                add.extend(pbkdf);
                add.extend([device, text(path)?]);
                effects.run("cryptsetup", &add)?;
            }
        }
        effects.run("cryptsetup", &["open", "--type", "luks2", "--key-file", key, device, NAME])?;
        let mapper = pc.root.join(MAPPER);
        effects.run("mkfs.ext4", &["-q", "-L", "bulkhead-state", text(&mapper)?])?;
        if self.unlock != Unlock::Passphrase {
            // As at the next start: what does not open it now would not then.
            effects.run("cryptsetup", &["close", NAME])?;
            let program = pc.root.join(SYSTEMD_CRYPTSETUP);
            let options = format!("{},headless=true", self.unlock.options());
            effects
                .run(text(&program)?, &["attach", NAME, device, &self.unlock.key(), &options])?;
        }
        // What was shown or written is all that opens it when the TPM or the key file does not.
        let tried_file = work.join(TRIED);
        let tried = text(&tried_file)?;
        effects.replace(&tried_file, recovery.as_bytes(), Attributes::new(0o600))?;
        let try_it = ["open", "--type", "luks2", "--test-passphrase", "--key-file", tried, device];
        effects.run("cryptsetup", &try_it)?;
        effects.remove(&tried_file)?;
        effects.run("cryptsetup", &["luksKillSlot", "--batch-mode", device, "0"])?;
        effects.remove(&key_file)
    }

    fn hand_over(&self, pc: &Pc, recovery: &str, effects: &mut dyn Effects) -> io::Result<()> {
        if recovery.len() != recovery::KEY {
            return Err(io::Error::other("systemd-cryptenroll has printed no recovery key"));
        }
        match &self.recovery_key_file {
            Some(path) => recovery::write(pc, path, recovery, &self.uuid, effects),
            None => effects.show_once(&Zeroizing::new(format!(
                "\nThe recovery key of {}, which opens the volume when nothing else does. It is shown this once: write it down, and keep it away from this PC.\n\n    {recovery}\n\n",
                self.device.display()
            ))),
        }
    }

    /// Closes the volume; what is on it stays.
    pub(crate) fn revert(&self, pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
        moving::clear(pc, effects)?;
        for file in ["key", TRIED] {
            effects.remove(&pc.root.join(WORK).join(file))?;
        }
        if let Some(path) = &self.recovery_key_file {
            recovery::release(path, &self.uuid, effects)?;
        }
        close(pc, effects)
    }
}

/// Closes the volume, at once or when the last who has a file of it open lets go: setup itself may.
fn close(pc: &Pc, effects: &mut dyn Effects) -> io::Result<()> {
    match fs::symlink_metadata(pc.root.join(MAPPER)) {
        Ok(_) => effects.run("cryptsetup", &["close", "--deferred", NAME]),
        Err(_) => Ok(()),
    }
}
