//! The images that are installed on a PC.
//!
//! | below the images' directory | what |
//! | --- | --- |
//! | `NAME/image.json` | the record ([`crate::record`]), replaced as a whole |
//! | `NAME/SERIAL/` | an image: `kernel`, `initrd`, `disk1` and on, `manifest.toml`, `manifest.toml.sig`; nobody writes in it any more |
//! | `NAME/.arriving/` | one that is being copied; what is there of an interrupted try is gone on with |
//! | `NAME/.installing`, `NAME/.record` | locks: one command installs or removes at a time, and one process changes the record |
//!
//! Whoever runs this owns the directory: root on a ward PC.

mod arrival;
mod error;
mod image;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base::durable;
use policy::signature::{ImageManifest, Signatures, TrustStore};

use crate::bundle::ApprovedBundle;
use crate::digest::Digest;
use crate::lock;
use crate::manifest::{ImageName, MANIFEST_MAX, Manifest, Version};
use crate::record::{Installed, NotSo, Record, Standing};
use arrival::{clear, copy_members, is_full, make_folder, prepare, room};
use error::{INSTALL_AGAIN, file_error};

pub use error::StoreError;
pub use image::Image;

/// Longest text of signatures in the store, in bytes: as long as a bundle has room for.
const SIGNATURES_MAX: u64 = 16 << 10;

/// What became of a bundle that was to be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It is installed.
    Installed,
    /// The same was installed before; nothing was done.
    WasThere,
}

/// How an image started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// It, verified.
    pub image: Image,
    /// Whether it came into force with this start.
    pub is_new: bool,
    /// In how many seconds its guest has to come up, if it has not yet since it is in force and ever says so.
    pub health: Option<u16>,
}

/// The images below one directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Returns the store in the images' directory, which need not be there.
    #[must_use]
    pub fn at(images: &Path) -> Self {
        Self { root: images.to_owned() }
    }

    fn folder(&self, name: &ImageName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn record_file(&self, name: &ImageName) -> PathBuf {
        self.folder(name).join("image.json")
    }

    /// Returns the names of which images were installed, in order.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn names(&self) -> Result<Vec<ImageName>, StoreError> {
        let failed = |source| StoreError::File { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<ImageName>().ok();
        let mut names: Vec<_> = entries.flatten().filter_map(name).collect();
        // Folders of images that were laid down by hand have no record.
        names.retain(|name| self.record_file(name).symlink_metadata().is_ok());
        names.sort();
        Ok(names)
    }

    /// Returns what is written down of a name; `None` if nothing is.
    ///
    /// # Errors
    /// The record cannot be read or is none.
    pub fn record(&self, name: &ImageName) -> Result<Option<Record>, StoreError> {
        let path = self.record_file(name);
        match durable::read::<Record>(&path) {
            Ok(Some(record)) if !record.is_sound() => Err(StoreError::Record { path }),
            Ok(record) => Ok(record),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(StoreError::Record { path })
            }
            Err(source) => Err(StoreError::File { path, source }),
        }
    }

    /// Changes the record of a name that has one, or of any with `begin`.
    fn change<T>(
        &self,
        name: &ImageName,
        begin: bool,
        change: impl FnOnce(&mut Record) -> Result<T, NotSo>,
    ) -> Result<T, StoreError> {
        let before = || match (self.record(name)?, begin) {
            (None, false) => Err(StoreError::Unknown(name.clone())),
            (record, _) => Ok(record.unwrap_or_default()),
        };
        // Without a folder there is nothing to lock.
        before()?;
        let _lock = self.lock(name, ".record", lock::PATIENCE)?;
        let before = before()?;
        let mut record = before.clone();
        let changed =
            change(&mut record).map_err(|why| StoreError::NotSo { name: name.clone(), why })?;
        if record != before {
            let path = self.record_file(name);
            durable::write(&path, &record).map_err(|source| StoreError::File { path, source })?;
        }
        Ok(changed)
    }

    fn lock(&self, name: &ImageName, file: &str, tries: u32) -> Result<impl Drop, StoreError> {
        let path = self.folder(name).join(file);
        lock::take(&path, tries).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy(name.clone()),
            _ => StoreError::File { path, source },
        })
    }

    /// Copies a bundle into the store; `done` is told how many bytes are right at each step. Whatever interrupts it, what was installed and in force
    /// before is as it was; what was copied is gone on with the next time.
    ///
    /// # Errors
    /// The image may not arrive, is damaged or for a newer Bulkhead, there is no room, or files cannot be written.
    pub fn install(
        &self,
        approved: &ApprovedBundle,
        mut done: impl FnMut(u64),
    ) -> Result<Arrival, StoreError> {
        let bundle = approved.bundle();
        let (manifest, text) = (&bundle.head().manifest, &bundle.head().text);
        let (name, digest) = (&manifest.name, Digest::of(text.as_bytes()));
        if let Some(needed) = manifest.needs.bulkhead.filter(|needed| *needed > Version::own()) {
            return Err(StoreError::NeedsNewer { name: name.clone(), needed });
        }
        let not_so = |why| StoreError::NotSo { name: name.clone(), why };
        let admits = || {
            self.record(name)?.unwrap_or_default().admits(manifest.serial, digest).map_err(not_so)
        };
        if admits()? {
            return Ok(Arrival::WasThere);
        }
        let folder = self.folder(name);
        make_folder(&folder)?;
        let _lock = self.lock(name, ".installing", 1)?;
        if admits()? {
            return Ok(Arrival::WasThere);
        }
        let arriving = folder.join(".arriving");
        let (place, failed) = (folder.join(manifest.serial.to_string()), file_error(&folder));
        // Left by one that ended between its last two steps, or by a removal that did.
        if place.symlink_metadata().is_ok() {
            clear(&arriving)?;
            fs::rename(&place, &arriving).map_err(&failed)?;
        }
        prepare(&arriving, digest)?;
        let copied = room(&folder, &arriving, manifest)
            .and_then(|()| copy_members(bundle, &arriving, &mut done));
        match copied {
            Err(StoreError::File { source, .. }) if is_full(&source) => {
                // What it took is needed by whatever else is on this disk.
                clear(&arriving)?;
                let needed = manifest.total() >> 20;
                return Err(StoreError::NoRoom { path: folder, free: 0, needed });
            }
            Err(error @ (StoreError::Damaged { .. } | StoreError::NoRoom { .. })) => {
                clear(&arriving)?;
                return Err(error);
            }
            copied => copied?,
        }
        for (file, content) in [
            ("manifest.toml", text.clone()),
            ("manifest.toml.sig", bundle.head().signatures.text()),
        ] {
            let path = arriving.join(file);
            durable::replace(&path, content.as_bytes(), 0o644).map_err(file_error(&path))?;
        }
        let sync = |path: &Path| fileopen::directory(path).and_then(|it| it.sync_all());
        sync(&arriving).map_err(&failed)?;
        fs::rename(&arriving, &place).map_err(&failed)?;
        sync(&folder).map_err(&failed)?;
        let entry = Installed {
            manifest: digest,
            size: manifest.total(),
            signers: approved.signers().to_vec(),
        };
        self.change(name, true, |record| record.arrive(manifest.serial, manifest.floor, entry))?;
        Ok(Arrival::Installed)
    }

    /// Lets an image come into force at the next start of its domains: this serial, or the newest. Returns the serial.
    ///
    /// # Errors
    /// It may not, or the record cannot be written.
    pub fn activate(&self, name: &ImageName, serial: Option<u64>) -> Result<u64, StoreError> {
        self.change(name, false, |record| record.activate(serial))
    }

    /// Takes back the last activation; see [`Record::roll_back`].
    ///
    /// # Errors
    /// There is nothing to go back to, or the record cannot be written.
    pub fn roll_back(&self, name: &ImageName) -> Result<u64, StoreError> {
        self.change(name, false, Record::roll_back)
    }

    /// Removes an image that is neither in force nor to come, nor used by a VMM.
    ///
    /// # Errors
    /// It is, or cannot be removed.
    pub fn remove(&self, name: &ImageName, serial: u64) -> Result<(), StoreError> {
        if self.record(name)?.is_none() {
            return Err(StoreError::Unknown(name.clone()));
        }
        let _lock = self.lock(name, ".installing", 1)?;
        if self.image(name, serial).is_ok_and(|image| image.is_in_use()) {
            return Err(StoreError::InUse { name: name.clone(), serial });
        }
        self.change(name, false, |record| record.remove(serial))?;
        clear(&self.folder(name).join(serial.to_string()))
    }

    /// Returns an installed image.
    ///
    /// # Errors
    /// It is not installed, or its manifest is not the one that was.
    pub fn image(&self, name: &ImageName, serial: u64) -> Result<Image, StoreError> {
        let record = self.record(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))?;
        let not_so = |why| StoreError::NotSo { name: name.clone(), why };
        let digest = record.entry(serial).map_err(not_so)?.manifest;
        let folder = self.folder(name).join(serial.to_string());
        let path = folder.join("manifest.toml");
        let bytes = fileopen::read(&path, MANIFEST_MAX.into()).map_err(file_error(&path))?;
        let damaged = || StoreError::Damaged { path: path.clone(), remedy: INSTALL_AGAIN };
        if Digest::of(&bytes) != digest {
            return Err(damaged());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let manifest = Manifest::parse(&path.display().to_string(), text).map_err(|_| damaged())?;
        Ok(Image { manifest, folder })
    }

    /// Returns the image that a domain gets that starts now. Nothing is changed, and of its files nothing is verified.
    ///
    /// # Errors
    /// None is activated, or it cannot be read.
    pub fn next(&self, name: &ImageName) -> Result<Image, StoreError> {
        let record = self.record(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))?;
        let serial = record.next().ok_or_else(|| StoreError::NotActivated(name.clone()))?;
        self.image(name, serial)
    }

    /// Returns the image that a domain gets that starts now, verified as [`Image::check`] does. That it comes into force with this start is
    /// written down.
    ///
    /// # Errors
    /// None is activated, it is not what was signed, or the record cannot be written.
    pub fn start(&self, name: &ImageName) -> Result<Started, StoreError> {
        let image = self.next(name)?;
        image.check(false, |_| ())?;
        let serial = image.manifest.serial;
        let says = image.manifest.health;
        let (started, is_new, health) = self
            .change(name, false, |record| {
                let Some((started, is_new)) = record.start() else { return Ok(None) };
                if says.is_none() {
                    record.came_up(serial);
                }
                Ok(Some((started, is_new, says.filter(|_| record.is_on_trial(serial)))))
            })?
            .ok_or_else(|| StoreError::NotActivated(name.clone()))?;
        // Another command came in between: what it wants comes with the next try.
        if started != serial {
            return Err(StoreError::Busy(name.clone()));
        }
        Ok(Started { image, is_new, health })
    }

    /// Returns the serial in force and the seconds in which its guest has to come up, if it is on trial: for a guest that runs on.
    #[must_use]
    pub fn on_trial(&self, name: &ImageName) -> Option<(u64, u16)> {
        let record = self.record(name).ok().flatten()?;
        let serial = record.current().filter(|serial| record.is_on_trial(*serial))?;
        Some((serial, self.image(name, serial).ok()?.manifest.health?))
    }

    /// Writes down that the guest of an image came up.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn came_up(&self, name: &ImageName, serial: u64) -> Result<(), StoreError> {
        self.change(name, false, |record| {
            record.came_up(serial);
            Ok(())
        })
    }

    /// Puts the image before in force again, as the guest of this one did not come up. Returns its serial, or why this one stays.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn give_up(&self, name: &ImageName, serial: u64) -> Result<Result<u64, NotSo>, StoreError> {
        self.change(name, false, |record| Ok(record.give_up(serial)))
    }

    /// Checks everything of an installed image: its signatures by this trust store, and every byte of its files; `done` is told how many at each
    /// step. Returns who signed it.
    ///
    /// # Errors
    /// It is not what was signed, or not by enough officers.
    pub fn verify(
        &self,
        name: &ImageName,
        serial: u64,
        trust: &TrustStore,
        done: impl FnMut(u64),
    ) -> Result<Vec<String>, StoreError> {
        let image = self.image(name, serial)?;
        let path = image.folder.join("manifest.toml.sig");
        let bytes = fileopen::read(&path, SIGNATURES_MAX).map_err(file_error(&path))?;
        let damaged = || StoreError::Damaged { path: path.clone(), remedy: INSTALL_AGAIN };
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let signatures = Signatures::<ImageManifest>::parse(&path.display().to_string(), text)
            .map_err(|_| damaged())?;
        let signed = trust.approve(&image.manifest.text(), &signatures);
        let refused = |why| StoreError::Refused { name: name.clone(), serial, why: Box::new(why) };
        let signers = signed.map_err(refused)?.signers().to_vec();
        image.check(true, done)?;
        Ok(signers)
    }
}

/// Returns where an image stands, in words.
#[must_use]
pub const fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::InForce => "in force",
        Standing::Pending => "at the next start",
        Standing::Previous => "previous",
        Standing::Installed => "installed",
        Standing::BelowFloor => "below the floor",
    }
}
