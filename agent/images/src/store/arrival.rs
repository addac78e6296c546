//! How an image arrives in the store: beside what is there, whole, and then in its place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base::durable;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::{Store, StoreError, clear, file_error, free, make_folder};
use crate::bundle::{ApprovedBundle, Bundle};
use crate::digest::{Digest, Hasher, pieces};
use crate::manifest::{ImageName, Manifest, Member, Version};
use crate::record::{Installed, Record};

/// Bytes that an installation leaves free: the audit log, the guests' disks and the agent's records grow on the same disk.
pub const RESERVE: u64 = 1 << 30;
/// What has to be done about a bundle with another content than was signed.
const COPY_AGAIN: &str = "the bundle is damaged, copy it again; nothing was installed";

/// The file that says of which manifest the files beside it are.
const MARK: &str = "manifest.sha256";

/// What becomes of a bundle that is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The image was not there, and is now.
    Installed,
    /// It was there, and damaged or with other signatures: it is as the bundle has it. Guests that run keep what they have open.
    Repaired,
    /// The same was there whole; nothing is done.
    WasThere,
}

/// The folders that an image passes on its arrival.
struct ArrivalFolders {
    /// The folder of all images of its name.
    folder: PathBuf,
    /// The folder that it is copied into.
    arriving: PathBuf,
    /// The folder that domains start it from.
    place: PathBuf,
}

impl Store {
    /// Copies a bundle into the store; `done` is told how many bytes are right at each step, and `note` what comes of it, before it does.
    /// Whatever interrupts it, what was installed and in force before is as it was; what was copied is gone on with the next time.
    ///
    /// # Errors
    /// The image may not arrive, is damaged or for a newer Bulkhead, there is no room, files cannot be written, or `note` fails.
    pub fn install(
        &self,
        approved: &ApprovedBundle,
        mut done: impl FnMut(u64),
        note: impl FnOnce(Arrival) -> io::Result<()>,
    ) -> Result<Arrival, StoreError> {
        let bundle = approved.bundle();
        let (manifest, digest) = (&bundle.head().manifest, bundle.head().digest());
        let name = &manifest.name;
        if let Some(needed) = manifest.needs.bulkhead.filter(|needed| *needed > Version::own()) {
            return Err(StoreError::NeedsNewer { name: name.clone(), needed });
        }
        let rejected = |why| StoreError::Rejected { name: name.clone(), why };
        let admits = || {
            self.record(name)?.unwrap_or_default().admits(manifest.serial, digest).map_err(rejected)
        };
        // Before anything is made.
        admits()?;
        let folder = self.folder(name);
        make_folder(&folder)?;
        // The folder is there after a crash, too.
        sync(&self.root)?;
        let _lock = self.lock(name, ".installing", 1)?;
        let is_there = admits()?;
        if is_there && self.is_as_in(bundle) {
            return Ok(Arrival::WasThere);
        }
        let arrival = if is_there { Arrival::Repaired } else { Arrival::Installed };
        let places = ArrivalFolders {
            arriving: folder.join(".arriving"),
            place: folder.join(manifest.serial.to_string()),
            folder,
        };
        let arrived = self.arrive(approved, digest, &places, arrival, &mut done, || note(arrival));
        let Err(error) = arrived else { return Ok(arrival) };
        let is_full = error.is_full();
        // Before what was copied goes.
        let no_room = is_full.then(|| room(&places.folder, &places.arriving, manifest));
        if is_full || matches!(error, StoreError::Damaged { .. } | StoreError::NoRoom { .. }) {
            // What it took is needed by whatever else is on this disk.
            clear(&places.arriving)?;
            if is_full && !is_there && places.place.join(MARK).symlink_metadata().is_ok() {
                clear(&places.place)?;
            }
        }
        match no_room {
            None => Err(error),
            Some(Err(no_room)) => Err(no_room),
            Some(Ok(free)) => Err(StoreError::NoFiles { path: places.folder, free: free >> 20 }),
        }
    }

    /// Returns whether the image of this bundle is installed and whole, with the signatures that the bundle has.
    fn is_as_in(&self, bundle: &Bundle) -> bool {
        let Manifest { name, serial, .. } = &bundle.head().manifest;
        self.image(name, *serial).is_ok_and(|image| {
            let signed = image.signatures().is_ok_and(|it| it == bundle.head().signatures);
            signed && image.check(true, |_| ()).is_ok()
        })
    }

    fn arrive(
        &self,
        approved: &ApprovedBundle,
        digest: Digest,
        places: &ArrivalFolders,
        arrival: Arrival,
        done: &mut impl FnMut(u64),
        note: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let ArrivalFolders { folder, arriving, place } = places;
        let head = approved.bundle().head();
        let failed = file_error(folder);
        let there = place.symlink_metadata().is_ok();
        // Left by one that ended between its last two steps, or by a removal that did.
        if there && arrival == Arrival::Installed {
            if place.join(MARK).symlink_metadata().is_err() {
                return Err(StoreError::InTheWay(place.clone()));
            }
            clear(arriving)?;
            fs::rename(place, arriving).map_err(&failed)?;
        }
        prepare(arriving, digest)?;
        room(folder, arriving, &head.manifest)?;
        copy_members(approved.bundle(), arriving, done)?;
        for (file, content) in
            [("manifest.toml", head.text.clone()), ("manifest.toml.sig", head.signatures.text())]
        {
            let path = arriving.join(file);
            durable::replace(&path, content.as_bytes(), 0o644).map_err(file_error(&path))?;
        }
        sync(arriving)?;
        note().map_err(|source| StoreError::NotNoted { source })?;
        if there && arrival == Arrival::Repaired {
            // In one step: a domain that starts now finds the one or the other.
            renameat2(AT_FDCWD, arriving, AT_FDCWD, place, RenameFlags::RENAME_EXCHANGE)
                .map_err(|error| failed(error.into()))?;
        } else {
            fs::rename(arriving, place).map_err(&failed)?;
        }
        sync(folder)?;
        let entry = Installed {
            manifest: digest,
            size: head.manifest.total(),
            signers: approved.signers().to_vec(),
            keys: approved.keys().to_vec(),
            trust: approved.trust_serial(),
        };
        let (serial, floor) = (head.manifest.serial, head.manifest.floor);
        self.change(&head.manifest.name, true, |record| record.arrive(serial, floor, entry))?;
        // What was damaged.
        clear(arriving)
    }

    /// Removes what no record knows: what an installation left that was interrupted. For whoever has the lock of installations.
    pub(super) fn tidy(&self, name: &ImageName) -> Result<(), StoreError> {
        clear(&self.folder(name).join(".arriving"))?;
        let record = self.record(name)?.unwrap_or_default();
        self.unknown(name, &record).try_for_each(|place| clear(&place))
    }

    /// Returns what lies in the folder of a name, was begun to be installed, and is in no record.
    pub(super) fn unknown<'a>(
        &self,
        name: &ImageName,
        record: &'a Record,
    ) -> impl Iterator<Item = PathBuf> + use<'a> {
        let entries = fs::read_dir(self.folder(name)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| {
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let serial = file.parse::<u64>();
            let is_unknown = serial.is_ok_and(|serial| record.entry(serial).is_err());
            // Without the mark it is nothing that was to be installed.
            let is_ours = path.join(MARK).symlink_metadata().is_ok();
            is_ours && (is_unknown || file == ".arriving")
        })
    }
}

fn sync(path: &Path) -> Result<(), StoreError> {
    fileopen::directory(path).and_then(|it| it.sync_all()).map_err(file_error(path))
}

/// Makes the folder in which an image arrives. What is there of another one goes.
fn prepare(arriving: &Path, manifest: Digest) -> Result<(), StoreError> {
    let (mark, text) = (arriving.join(MARK), format!("{manifest}\n"));
    let same = fileopen::read(&mark, 128).is_ok_and(|there| there == text.as_bytes());
    if !same {
        clear(arriving)?;
        make_folder(arriving)?;
        durable::replace(&mark, text.as_bytes(), 0o644).map_err(file_error(&mark))?;
    }
    Ok(())
}

/// Says before minutes of copying that there is no room. Returns how many bytes are free.
fn room(folder: &Path, arriving: &Path, manifest: &Manifest) -> Result<u64, StoreError> {
    let there = |member: &Member| {
        fs::metadata(arriving.join(member.part.to_string())).map_or(0, |file| file.len())
    };
    let there = manifest.members.iter().fold(0, |sum: u64, it| sum.saturating_add(there(it)));
    let needed = manifest.total().saturating_sub(there).saturating_add(RESERVE);
    let free = free(folder).map_err(file_error(folder))?;
    if free < needed {
        let path = folder.to_owned();
        return Err(StoreError::NoRoom {
            path,
            free: free >> 20,
            needed: needed.div_ceil(1 << 20),
        });
    }
    Ok(free)
}

fn copy_members(
    bundle: &Bundle,
    arriving: &Path,
    done: &mut impl FnMut(u64),
) -> Result<(), StoreError> {
    for (begin, member) in bundle.head().members() {
        let path = arriving.join(member.part.to_string());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o644);
        let failed = file_error(&path);
        let file = fileopen::regular_with(&path, &mut options).map_err(&failed)?;
        let there = file.metadata().map_err(&failed)?.len();
        let kept = if there <= member.size { there } else { 0 };
        let mut right = copy(bundle.file(), begin, member, (&file, kept), done).map_err(&failed)?;
        if !right && there > 0 {
            // What an interrupted try left is not what it read: all of it anew.
            right = copy(bundle.file(), begin, member, (&file, 0), done).map_err(&failed)?;
        }
        if !right {
            return Err(StoreError::Damaged { path, remedy: COPY_AGAIN });
        }
    }
    Ok(())
}

/// Copies what is missing of a member behind what is kept, and returns whether the whole is what was signed.
fn copy(
    from: &File,
    begin: u64,
    member: &Member,
    (to, kept): (&File, u64),
    done: &mut impl FnMut(u64),
) -> io::Result<bool> {
    to.set_len(kept)?;
    let mut hasher = Hasher::default();
    pieces(to, 0, kept, &mut *done, |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    let mut at = kept;
    pieces(from, begin.saturating_add(kept), member.size.saturating_sub(kept), done, |piece| {
        hasher.update(piece);
        to.write_all_at(piece, at)?;
        at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(())
    })?;
    to.sync_all()?;
    Ok(hasher.finish() == member.sha256)
}
