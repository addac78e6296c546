//! Which changes lead to a state on an encrypted volume, and what is seen to before anything is read or changed where there is one.

use std::fs;
use std::path::{Path, PathBuf};

use base::layout::{Layout, STATE_VOLUME};
use control::setup_report::{SetupChange, SetupReport, SetupResult};

use crate::answers::Answers;
use crate::change::{Change, FileChange, FileError, current};
use crate::dialogue::Dialogue;
use crate::effects::Effects;
use crate::journal::{Journal, JournalError};
use crate::plan;
use crate::volume::device::{Node, UsableDevice};
use crate::volume::{
    FormerCopies, MARKER, Move, StateLocation, UNITS, Unlock, UnlockBy, Volume, VolumeError,
    VolumeRequest, can_be_moved, device, in_root, making, mount, no_room_back, recovery, refused,
    standing, unit_file, unit_text, used_below, users, uuid,
};
use crate::{Options, Pc, Stop, agreed};

/// The firmware's variable: four bytes of attributes, and 1 where it is on (UEFI 2.10, section 3.3).
const SECURE_BOOT: &str = "firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
const CRYPTTAB: &str = "etc/crypttab";
/// The services that write into the state directory: none of them may begin an empty one where the volume is not.
const SERVICES: [&str; 3] = ["bulkhead-agent", "bulkhead-rescue", "bulkhead-update"];
/// How long systemd waits for the opened volume. Its generator lifts the limit of a device (systemd.unit(5), `JobRunningTimeoutSec=`: 90 s) only for a
/// line of crypttab without `nofail`; whoever types the recovery key later than that would have an open volume, no mount and no agent.
const WAITS: &str = "# Written by `bulkhead setup --encrypt-state`: a key that is typed late still mounts the volume and starts the agent.\n\
    [Unit]\nJobRunningTimeoutSec=infinity\n";

/// Why there is no way there.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EncryptionError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Adds what leads to a state on an encrypted volume, if one is asked for, and returns what a person has to know of it.
pub(crate) fn add(
    pc: &Pc,
    options: &Options,
    answers: &Answers,
    guests: &[PathBuf],
    effects: &mut dyn Effects,
    changes: &mut Vec<Change>,
) -> Result<Vec<String>, EncryptionError> {
    let wish = wish(options, answers);
    let moving = planned(pc, &options.state, &wish, guests, effects)?;
    let notes = notes(pc, &options.images, &options.state, &moving);
    // The agent is to start at a boot only where its state is in its place.
    let last = changes.iter().position(|change| *change == Change::Service);
    let at = last.unwrap_or(changes.len());
    changes.splice(at..at, moving);
    Ok(notes)
}

/// Refuses a volume that is named wrongly, before this PC is looked at: whoever typed it can put that right at once.
pub(crate) fn is_named_rightly(
    pc: &Pc,
    options: &Options,
    answers: &Answers,
) -> Result<(), EncryptionError> {
    let wish = wish(options, answers);
    // What is said of a volume that was made counts for nothing more, whoever made it: the same answers are given again.
    if standing(pc, &options.state) == StateLocation::Mounted {
        return Ok(());
    }
    if let Some(why) = means_nothing(&wish) {
        return Err(refused(why).into());
    }
    if let Some(volume) = &wish.volume {
        device::named(pc, volume, wish.erase.as_deref())?;
    }
    Ok(())
}

/// Returns what is said beside nothing that it could be for, in words.
fn means_nothing(wish: &VolumeRequest) -> Option<String> {
    let VolumeRequest { volume, erase, unlock, pcrs, key_file, recovery_key_file } = wish;
    if volume.is_none() {
        let said = [
            ("erase", erase.is_some()),
            ("unlock", unlock.is_some()),
            ("pcrs", pcrs.is_some()),
            ("key_file", key_file.is_some()),
            ("recovery_key_file", recovery_key_file.is_some()),
        ];
        let (key, _) = said.into_iter().find(|(_, is_said)| *is_said)?;
        return Some(format!(
            "`{key}` of an encrypted state means nothing, as no volume is named: name it below [encrypted_state] (`volume`) or by --encrypt-state, or leave `{key}` out"
        ));
    }
    let (beside, key, is_said) = match unlock {
        Some(UnlockBy::Tpm2) => ("unlock = \"tpm2\"", "key_file", key_file.is_some()),
        Some(UnlockBy::Passphrase) if key_file.is_some() => {
            ("unlock = \"passphrase\"", "key_file", true)
        }
        Some(UnlockBy::Passphrase) => ("unlock = \"passphrase\"", "pcrs", pcrs.is_some()),
        Some(UnlockBy::KeyFile) => ("unlock = \"key-file\"", "pcrs", pcrs.is_some()),
        None => ("key_file", "pcrs", key_file.is_some() && pcrs.is_some()),
    };
    is_said.then(|| {
        format!("`{key}` below [encrypted_state] means nothing beside `{beside}`: leave out one of the two")
    })
}

/// Returns what is asked for: the command line goes before the answer file.
fn wish(options: &Options, answers: &Answers) -> VolumeRequest {
    let mut wish = answers.encrypted_state.clone();
    if let Some(volume) = &options.encrypt_state {
        wish.volume = Some(volume.clone());
        wish.erase = None;
    }
    wish.erase = options.erase.clone().or(wish.erase);
    wish
}

/// Returns whether taking these changes back brings the state back, for which there has to be room.
pub(crate) fn comes_back(pc: &Pc, options: &Options, changes: &[Change]) -> Result<bool, Stop> {
    let comes_back = changes.iter().any(|change| matches!(change, Change::Move(_)))
        && standing(pc, &options.state) == StateLocation::Mounted;
    if !comes_back {
        return Ok(false);
    }
    match no_room_back(&options.state) {
        Ok(None) => Ok(true),
        Ok(Some(why)) => Err(Stop::refused(why)),
        Err(error) => Err(Stop::refused(format!("nothing was taken back: {error}"))),
    }
}

/// Has the volume mounted on which the state is, before anything is read there: what lies below it does not count.
pub(crate) fn mounted(
    pc: &Pc,
    options: &Options,
    dialogue: &mut dyn Dialogue,
    effects: &mut dyn Effects,
) -> Result<(), Stop> {
    if standing(pc, &options.state) != StateLocation::Away {
        return Ok(());
    }
    let state = options.state.display();
    if options.dry_run {
        return Err(Stop::refused(format!(
            "the encrypted volume with {state} is not mounted, so nothing can be seen of it: run this without --dry-run, which mounts it first"
        )));
    }
    let what = format!("mount the encrypted volume with {state}");
    let report = SetupReport {
        changes: vec![SetupChange { what, diff: None }],
        ..SetupReport::of(SetupResult::Changed, "")
    };
    agreed(&report, "Mount it?", options, dialogue)?;
    mount(pc, &options.state, effects).map_err(|error| {
        Stop::refused(format!(
            "{error}: `systemctl status systemd-cryptsetup@bulkhead_state` says why the volume does not open; with the recovery key, `cryptsetup open` on the volume that /etc/crypttab names, as bulkhead_state, does"
        ))
    })
}

/// Refuses to move a state that somebody is writing.
pub(crate) fn is_moved_by_nobody_else(
    pc: &Pc,
    options: &Options,
    changes: &[Change],
) -> Result<(), Stop> {
    let moves = changes.iter().any(|change| matches!(change, Change::Move(_)));
    match moves.then(|| users::of(pc, &options.state)).flatten() {
        Some(why) => Err(Stop::refused(format!("nothing was changed: {why}"))),
        None => Ok(()),
    }
}

/// Finds what leads to a state on an encrypted volume.
fn planned(
    pc: &Pc,
    state: &Path,
    wish: &VolumeRequest,
    guests: &[PathBuf],
    effects: &mut dyn Effects,
) -> Result<Vec<Change>, EncryptionError> {
    let mut changes = Vec::new();
    if standing(pc, state) == StateLocation::Mounted {
        if let Some(volume) = &wish.volume {
            is_the_same(pc, volume)?;
        }
        if state.join(MARKER).exists() {
            changes.push(Change::Former(FormerCopies { state: state.to_owned() }));
        }
        waits(pc, &mut changes)?;
        services(pc, state, &mut changes)?;
        return Ok(changes);
    }
    let Some(device) = &wish.volume else { return Ok(changes) };
    can_be_moved(pc, state)?;
    let need = device::room_for(used_below(state)?);
    let UsableDevice { node, holds } =
        device::look(pc, device, wish.erase.as_deref(), need, guests, effects)?;
    let unlock = making::unlock(pc, state, wish)?;
    making::programs(pc, &unlock)?;
    let recovery_key_file =
        recovery::file(state, wish, &unfinished(state, wish, holds.as_deref(), &node, effects)?)?;
    let uuid = uuid(pc)?;
    let crypttab = crypttab(pc, &uuid, &unlock)?;
    let volume = Volume { device: device.clone(), node, uuid, unlock, recovery_key_file, holds };
    changes.push(Change::Volume(volume));
    changes.push(Change::File(crypttab));
    waits(pc, &mut changes)?;
    changes.push(Change::Move(Move {
        state: state.to_owned(),
        unit: unit_file(pc, state),
        content: unit_text(pc, state),
    }));
    changes.push(Change::Former(FormerCopies { state: state.to_owned() }));
    services(pc, state, &mut changes)?;
    Ok(changes)
}

/// Returns the UUIDs of volumes that a run before this one began and did not finish, and of the one that is erased: nobody needs their recovery keys.
fn unfinished(
    state: &Path,
    wish: &VolumeRequest,
    holds: Option<&str>,
    node: &Node,
    effects: &mut dyn Effects,
) -> Result<Vec<String>, EncryptionError> {
    let journal = Journal::read(&Layout::setup_journal(state))?;
    let uuid = |change: &Change| match change {
        Change::Volume(volume) => Some(volume.uuid.clone()),
        _ => None,
    };
    let mut uuids: Vec<String> = journal.changes().iter().filter_map(uuid).collect();
    let named = wish.recovery_key_file.as_deref().and_then(recovery::uuid_in);
    let is_luks = holds.is_some_and(|holds| holds.contains("crypto_LUKS"));
    if named.is_some_and(|named| !uuids.contains(&named)) && is_luks {
        let node = node.path.to_string_lossy();
        let on_it = effects
            .output("cryptsetup", &["luksUUID", "--", &node])
            .map_err(|error| VolumeError::Unread(node.as_ref().into(), error))?;
        uuids.push(on_it.trim().to_owned());
    }
    Ok(uuids)
}

/// Returns what a person has to know of these changes.
fn notes(pc: &Pc, images: &Path, state: &Path, changes: &[Change]) -> Vec<String> {
    let Some(volume) = changes.iter().find_map(|change| match change {
        Change::Volume(volume) => Some(volume),
        _ => None,
    }) else {
        return Vec::new();
    };
    let lost = "whoever has lost it, when nothing else opens the volume any more, has lost state and images";
    let mut notes = vec![
        match &volume.recovery_key_file {
            Some(path) if device::is_on_disk_of(pc, path, &pc.root) => format!(
                "THE RECOVERY KEY LIES ON THIS PC'S OWN DISK, IN {0}: as long as it is there, whoever steals the PC or the disk has it, and the encryption is of no use. Take it off this PC, or name a file on a medium that goes with you, or below /run and fetch it before the PC is restarted; {lost}",
                path.display()
            ),
            Some(path) => format!(
                "THE RECOVERY KEY LIES IN {}: take it off this PC, and keep it; {lost}",
                path.display()
            ),
            None => {
                format!("THE RECOVERY KEY IS SHOWN ONCE, and is kept nowhere on this PC: {lost}")
            }
        },
        format!(
            "what is removed from {} can still be read on an SSD by somebody who takes it out: have what was secret there made anew, or erase the disk when the PC goes",
            state.display()
        ),
    ];
    if let Unlock::Passphrase = volume.unlock {
        notes.push("SOMEBODY TYPES THE RECOVERY KEY AT EACH START of this PC, or a passphrase that `systemd-cryptenroll --password` adds: without it no desktop comes up".to_owned());
    }
    let secure_boot = fs::read(pc.sysfs.path(SECURE_BOOT)).unwrap_or_default();
    if let Unlock::Tpm2 { .. } = volume.unlock
        && !matches!(secure_boot.as_slice(), [_, _, _, _, 1])
    {
        notes.push("SECURE BOOT IS OFF, or the firmware does not say that it is on: PCR 7 is then the same for whatever system is started on this PC, and the TPM opens the volume for it. The encryption guards a disk that is taken out, and not a PC that is carried away".to_owned());
    }
    if let Unlock::KeyFile { path } = &volume.unlock
        && let Some(point) = making::not_mounted_at_a_start(pc, path)
    {
        notes.push(format!(
            "THE KEY FILE {} IS NOT THERE AT THE NEXT START: nothing in /etc/fstab mounts {}, so somebody types the recovery key at each start; name its file system there, by its UUID and with `nofail`",
            path.display(),
            point.display()
        ));
    }
    if !images.starts_with(state) {
        notes.push(format!(
            "the images lie in {}, which is not below {}: they stay where they are, unencrypted",
            images.display(),
            state.display()
        ));
    }
    if let Some(why) = users::of(pc, state) {
        notes.push(format!("NOT YET: {why}"));
    }
    notes
}

/// Refuses another volume than the one that has the state.
fn is_the_same(pc: &Pc, volume: &Path) -> Result<(), EncryptionError> {
    let text = current(&pc.root.join(CRYPTTAB))?.map(|former| former.content).unwrap_or_default();
    let source = text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(STATE_VOLUME)).then(|| words.next().unwrap_or_default().to_owned())
    });
    let own = match source.as_deref().and_then(|source| source.strip_prefix("UUID=")) {
        Some(uuid) => pc.root.join("dev/disk/by-uuid").join(uuid),
        None => PathBuf::from(source.unwrap_or_default()),
    };
    match (fs::canonicalize(&own), fs::canonicalize(volume)) {
        (Ok(own), Ok(asked)) if own == asked => Ok(()),
        _ => Err(EncryptionError::from(refused(format!(
            "the state is on an encrypted volume already, {}, and not on {}: to move it, take it back first (`bulkhead setup --undo`), and run this again",
            own.display(),
            volume.display()
        )))),
    }
}

/// Plans the line of `/etc/crypttab` by which systemd opens the volume at each start.
fn crypttab(pc: &Pc, uuid: &str, unlock: &Unlock) -> Result<FileChange, EncryptionError> {
    let path = pc.root.join(CRYPTTAB);
    let former = current(&path)?;
    let mut content = String::new();
    for line in former.as_ref().map(|former| former.content.lines()).into_iter().flatten() {
        // What a run that did not come to its end left.
        if line.split_ascii_whitespace().next() != Some(STATE_VOLUME) {
            content.push_str(line);
            content.push('\n');
        }
    }
    let (key, options) = (unlock.key(), unlock.options());
    content.push_str(&format!("{STATE_VOLUME} UUID={uuid} {key} {options}\n"));
    Ok(FileChange { path, former, content, boot_menu: false })
}

/// Plans that mount and agent wait for the volume for as long as nobody has typed its key.
fn waits(pc: &Pc, changes: &mut Vec<Change>) -> Result<(), FileError> {
    let folder = pc.root.join(UNITS).join(format!("dev-mapper-{STATE_VOLUME}.device.d"));
    plan::folder(pc, Some(&folder), changes);
    plan::file(&folder.join("timeout.conf"), WAITS.to_owned(), changes)
}

/// Plans that no service begins a state of its own where the volume is not mounted.
fn services(pc: &Pc, state: &Path, changes: &mut Vec<Change>) -> Result<(), FileError> {
    let content = format!(
        "# Written by `bulkhead setup --encrypt-state`: an audit log never begins anew because its volume is not there.\n\
         [Unit]\nAssertPathIsMountPoint={}\n",
        in_root(pc, state).display()
    );
    for service in SERVICES {
        let folder = pc.root.join(UNITS).join(format!("{service}.service.d"));
        let path = folder.join("state-volume.conf");
        plan::folder(pc, Some(&folder), changes);
        plan::file(&path, content.clone(), changes)?;
    }
    Ok(())
}
