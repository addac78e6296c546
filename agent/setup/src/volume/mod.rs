//! State and images on an encrypted volume: `bulkhead setup --encrypt-state VOLUME`.
//!
//! ```text
//!  device: may it be had? --> making: LUKS2, recovery key, TPM --> /etc/crypttab --> moving: copied, compared, mount unit, mounted --> former copies removed
//! ```
//!
//! The mount unit is what counts. Before it is there the state is where it was, and another run begins with the volume anew; once it is there the
//! volume has the state, and another run removes what is left of the former copies.
//!
//! The journal of setup lies in the state directory and is copied with it, after the move is on record. So each of the two says what is to be
//! taken back as long as it is the one that counts.

pub(crate) mod device;
pub(crate) mod making;
mod moving;
pub(crate) mod recovery;
pub(crate) mod users;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::layout::STATE_VOLUME as NAME;
use base::state_volume::{self, Mount};
use nix::sys::statvfs::statvfs;

use crate::Pc;
use crate::effects::Effects;

pub(crate) use base::state_volume::{StateLocation, UNITS};
pub(crate) use making::{Unlock, Volume};
pub(crate) use moving::{FormerCopies, Move};

const MAPPER: &str = "dev/mapper/bulkhead_state";
/// What has to be mounted where setup works.
const WORK: &str = "run/bulkhead-setup";
/// Says, on the volume, that the former copies below it are still there.
pub(crate) const MARKER: &str = ".bulkhead-former";
/// PCR that the TPM's key is bound to: Secure Boot, its keys included. A newer kernel or boot loader leaves it as it is.
const PCRS: [u8; 1] = [7];
/// Files that are looked through for the room they need: a PC has some ten thousand.
const ENTRIES_MAX: usize = 1 << 20;

/// How the volume is to be opened, as an answer file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlockBy {
    Tpm2,
    Passphrase,
    KeyFile,
}

/// What was asked for: options go before the answer file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeRequest {
    pub(crate) volume: Option<PathBuf>,
    /// The volume once more, whose content may be lost.
    pub(crate) erase: Option<PathBuf>,
    pub(crate) unlock: Option<UnlockBy>,
    pub(crate) pcrs: Option<Vec<u8>>,
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) recovery_key_file: Option<PathBuf>,
}

/// Why the state cannot be put there. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    #[error("{0}")]
    Refused(String),
    #[error("cannot look at {path}: {source}", path = .0.display(), source = .1)]
    Unread(PathBuf, io::Error),
}

pub(crate) fn refused(why: impl Into<String>) -> VolumeError {
    VolumeError::Refused(why.into())
}

/// Returns where the state is.
pub(crate) fn standing(pc: &Pc, state: &Path) -> StateLocation {
    state_volume::standing(&unit_file(pc, state), &mounts(pc), state)
}

/// Mounts the volume that has the state; whoever has to type its passphrase is asked by systemd.
pub(crate) fn mount(pc: &Pc, state: &Path, effects: &mut dyn Effects) -> io::Result<()> {
    let unit = unit_name(pc, state);
    effects.run("systemctl", &["daemon-reload"])?;
    // A run that was cut short may have written the unit and no more.
    effects.run("systemctl", &["enable", &unit])?;
    effects.run("systemctl", &["start", &unit])
}

/// Returns why the state cannot be copied back: there is no room.
pub(crate) fn no_room_back(state: &Path) -> Result<Option<String>, VolumeError> {
    let used = used_below(state)?;
    let parent = state.parent().unwrap_or(state);
    let free =
        statvfs(parent).map_err(|error| VolumeError::Unread(parent.to_owned(), error.into()))?;
    let free = free.blocks_available() * free.fragment_size();
    Ok((free < device::with_reserve(used)).then(|| {
        format!(
            "state and images on the encrypted volume take {} MiB, and {} has {} MiB free for them: remove images that nobody needs (`bulkhead images remove`) or make room there, and run this again; nothing was taken back",
            used >> 20,
            parent.display(),
            free >> 20
        )
    }))
}

/// Returns what is mounted at a place, the last if several are.
fn mounted_from(pc: &Pc, place: &Path) -> Option<String> {
    state_volume::mounted_from(&mounts(pc), place)
}

fn mounts(pc: &Pc) -> Vec<Mount> {
    state_volume::mounts(&pc.proc_text("self/mountinfo"))
}

/// Refuses a state directory that a mount could not take the place of.
pub(crate) fn can_be_moved(pc: &Pc, state: &Path) -> Result<(), VolumeError> {
    let name = state.display();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if !state.as_os_str().as_encoded_bytes().iter().all(|byte| plain(*byte)) {
        return Err(refused(format!(
            "{name} is no name that a mount unit can have: choose another --state"
        )));
    }
    match fs::symlink_metadata(state) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => return Err(refused(format!("{name} is no folder: put one in its place"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused(format!(
                "{name} is not there: install Bulkhead's package (`apt install ./bulkhead_*.deb`), and run this again"
            )));
        }
        Err(error) => return Err(VolumeError::Unread(state.to_owned(), error)),
    }
    match mounts(pc).into_iter().find(|mount| mount.point.starts_with(state)) {
        Some(mount) => Err(refused(format!(
            "{} is mounted at {}: setup moves a state that lies on one file system. Unmount it, put its files below {name}, take it out of /etc/fstab, and run this again",
            mount.source,
            mount.point.display()
        ))),
        None => Ok(()),
    }
}

/// Returns how many bytes the files below a folder take on its file system.
pub(crate) fn used_below(folder: &Path) -> Result<u64, VolumeError> {
    use std::os::unix::fs::MetadataExt as _;
    let unread = |path: &Path| {
        let path = path.to_owned();
        move |error| VolumeError::Unread(path, error)
    };
    let (mut used, mut seen, mut left) = (0u64, 0usize, vec![folder.to_owned()]);
    while let Some(path) = left.pop() {
        seen += 1;
        if seen > ENTRIES_MAX {
            return Err(refused(format!(
                "{} holds more than {ENTRIES_MAX} files, which Bulkhead never writes: take out what is not its own",
                folder.display()
            )));
        }
        let metadata = fs::symlink_metadata(&path).map_err(unread(&path))?;
        used = used.saturating_add(metadata.blocks().saturating_mul(512));
        if metadata.is_dir() {
            for entry in fs::read_dir(&path).map_err(unread(&path))? {
                left.push(entry.map_err(unread(&path))?.path());
            }
        }
    }
    Ok(used)
}

/// Returns a new name for the volume, by which it is found at each start.
pub(crate) fn uuid(pc: &Pc) -> Result<String, VolumeError> {
    let text = pc.proc_text("sys/kernel/random/uuid");
    match text.trim() {
        "" => Err(refused("the kernel gives no UUID: mount /proc, and run this again")),
        uuid => Ok(uuid.to_owned()),
    }
}

/// Returns a path as the PC has it.
pub(crate) fn in_root(pc: &Pc, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(&pc.root).unwrap_or(path))
}

fn unit_name(pc: &Pc, state: &Path) -> String {
    state_volume::mount_unit(&in_root(pc, state))
}

pub(crate) fn unit_file(pc: &Pc, state: &Path) -> PathBuf {
    pc.root.join(UNITS).join(unit_name(pc, state))
}

pub(crate) fn unit_text(pc: &Pc, state: &Path) -> String {
    format!(
        "# Written by `bulkhead setup --encrypt-state`; `bulkhead setup --undo` removes it.\n\
         [Unit]\n\
         Description=State and images of Bulkhead on an encrypted volume\n\
         Requires=systemd-fsck@dev-mapper-{NAME}.service\n\
         After=systemd-fsck@dev-mapper-{NAME}.service\n\n\
         [Mount]\n\
         What=/{MAPPER}\n\
         Where={}\n\
         Type=ext4\n\
         # A PC whose volume does not open starts all the same, without its desktops: somebody can look why.\n\
         Options=nodev,nosuid,nofail\n\n\
         [Install]\n\
         WantedBy=local-fs.target\n",
        in_root(pc, state).display()
    )
}

/// Returns a path as an argument.
fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| io::Error::other("the name of a file is no text"))
}
