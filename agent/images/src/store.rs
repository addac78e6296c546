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
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base::durable;
use nix::sys::statvfs::fstatvfs;
use policy::signature::TrustStore;

pub use arrival::{Arrival, RESERVE};
pub use error::StoreError;
pub(crate) use error::is_full;
pub use image::Image;

use crate::digest::Digest;
use crate::lock;
use crate::manifest::{ImageName, MANIFEST_MAX, Manifest};
use crate::notes::{self, now};
use crate::record::{ImageEvent, ImageState, Occurrence, Record, RefusedStart, Rejection};

/// Returns how many bytes are free where a directory is.
pub(crate) fn free(directory: &Path) -> io::Result<u64> {
    let space = fileopen::directory(directory).and_then(|it| Ok(fstatvfs(&it)?))?;
    Ok(space.blocks_available().saturating_mul(space.fragment_size()))
}

/// What has to be done about an installed image that is not what was signed.
const INSTALL_AGAIN: &str = "install its bundle again with `bulkhead images install`, which puts it right, or roll back to the image before";

/// How often a start begins anew as commands change what it is to start from.
const STARTS_MAX: u32 = 4;

/// How an image started.
#[derive(Debug)]
pub struct ImageStart {
    /// The image that the domain gets, verified.
    pub image: Image,
    /// Whether it came into force with this start.
    pub is_new: bool,
    /// In how many seconds its guest has to come up, if it has not yet since it is in force and ever says so.
    pub health: Option<u16>,
    /// The image that was to come into force and cannot.
    pub refused: Option<RefusedImage>,
}

/// An image that was to come into force with a start and cannot.
#[derive(Debug)]
pub struct RefusedImage {
    /// The serial of the image.
    pub serial: u64,
    /// Why it cannot come into force.
    pub why: Box<StoreError>,
    /// What there is to record, if its record could not take that.
    pub unwritten: Option<ImageEvent>,
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
        let mut names = self.folders()?;
        // Folders of images that were laid down by hand have no record.
        names.retain(|name| self.record_file(name).symlink_metadata().is_ok());
        names.sort();
        Ok(names)
    }

    /// Returns the folders whose names are those of images.
    fn folders(&self) -> Result<Vec<ImageName>, StoreError> {
        let failed = |source| StoreError::File { path: self.root.clone(), source };
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<ImageName>().ok();
        Ok(entries.flatten().filter_map(name).collect())
    }

    /// Returns the names of which something lies in the store that a command began to install or remove, and did not end; with where it lies. A
    /// command that is at it just now is among them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn interrupted(&self) -> Result<Vec<(ImageName, PathBuf)>, StoreError> {
        let mut found = Vec::new();
        for name in self.folders()? {
            // What is written down of a damaged record nobody knows.
            let Ok(record) = self.record(&name) else { continue };
            found.extend(
                self.unknown(&name, &record.unwrap_or_default()).map(|it| (name.clone(), it)),
            );
        }
        found.sort();
        Ok(found)
    }

    /// Returns what is written down of a name; `None` if nothing is.
    ///
    /// # Errors
    /// The record cannot be read or is none.
    pub fn record(&self, name: &ImageName) -> Result<Option<Record>, StoreError> {
        let path = self.record_file(name);
        match durable::read::<Record>(&path) {
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
        change: impl FnOnce(&mut Record) -> Result<T, Rejection>,
    ) -> Result<T, StoreError> {
        self.change_in(lock::PATIENCE, name, begin, change)
    }

    /// Changes a record as [`Self::change`] does, in so many tries for its lock.
    fn change_in<T>(
        &self,
        tries: u32,
        name: &ImageName,
        begin: bool,
        change: impl FnOnce(&mut Record) -> Result<T, Rejection>,
    ) -> Result<T, StoreError> {
        let before = || match (self.record(name)?, begin) {
            (None, false) => Err(StoreError::Unknown(name.clone())),
            (record, _) => Ok(record.unwrap_or_default()),
        };
        // Without a folder there is nothing to lock.
        before()?;
        let _lock = self.lock(name, ".record", tries)?;
        let before = before()?;
        let mut record = before.clone();
        let changed =
            change(&mut record).map_err(|why| StoreError::Rejected { name: name.clone(), why })?;
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

    /// Lets an image come into force at the next start of its domains: this serial, or the newest. Returns the serial.
    ///
    /// # Errors
    /// It may not, or the record cannot be written.
    pub fn activate(&self, name: &ImageName, serial: Option<u64>) -> Result<u64, StoreError> {
        self.change(name, false, |record| record.activate(serial))
    }

    /// Takes back the last activation, if that leads to this serial, or to none; see [`Record::roll_back`].
    ///
    /// # Errors
    /// There is nothing to go back to, or something else by now, or the record cannot be written.
    pub fn roll_back(
        &self,
        name: &ImageName,
        serial: Option<u64>,
    ) -> Result<Option<u64>, StoreError> {
        self.change(name, false, |record| match record.roll_back()? {
            next if next == serial => Ok(next),
            _ => Err(Rejection::ChangedMeanwhile),
        })
    }

    /// Removes an image that is neither in force nor to come, nor used by a VMM; and what an interrupted installation left.
    ///
    /// # Errors
    /// It is, or cannot be removed.
    pub fn remove(&self, name: &ImageName, serial: u64) -> Result<(), StoreError> {
        if self.record(name)?.is_none() {
            return Err(StoreError::Unknown(name.clone()));
        }
        let _lock = self.lock(name, ".installing", 1)?;
        // Whoever removes something wants room.
        self.tidy(name)?;
        if self.image(name, serial).is_ok_and(|image| image.is_in_use()) {
            return Err(StoreError::InUse { name: name.clone(), serial });
        }
        self.change(name, false, |record| record.remove(serial))?;
        // What is left of it if this is interrupted is known by its place.
        let (folder, failed) = (self.folder(name), file_error(&self.folder(name)));
        let (place, arriving) = (folder.join(serial.to_string()), folder.join(".arriving"));
        match fs::rename(&place, &arriving) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => clear(&arriving),
        }
    }

    /// Returns an installed image.
    ///
    /// # Errors
    /// It is not installed, or its manifest is not the one that was.
    pub fn image(&self, name: &ImageName, serial: u64) -> Result<Image, StoreError> {
        let record = self.record(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))?;
        let rejected = |why| StoreError::Rejected { name: name.clone(), why };
        let digest = record.entry(serial).map_err(rejected)?.manifest;
        let folder = self.folder(name).join(serial.to_string());
        let path = folder.join("manifest.toml");
        let bytes = fileopen::read(&path, MANIFEST_MAX.into()).map_err(file_error(&path))?;
        let damaged = || StoreError::Damaged { path: path.clone(), remedy: INSTALL_AGAIN };
        if Digest::of(&bytes) != digest {
            return Err(damaged());
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| damaged())?;
        let manifest = Manifest::parse(&path.display().to_string(), text).map_err(|_| damaged())?;
        Ok(Image { manifest, text: text.to_owned(), folder })
    }

    /// Returns the image that this domain gets if it starts now. Nothing is changed, and of its files nothing is verified.
    ///
    /// # Errors
    /// None is activated, or it cannot be read.
    pub fn next(&self, name: &ImageName, domain: &str) -> Result<Image, StoreError> {
        let record = self.record(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))?;
        let serial = record.next(domain).ok_or_else(|| StoreError::NotActivated(name.clone()))?;
        self.image(name, serial)
    }

    /// Returns the image that a domain gets that starts now: verified as [`Image::check`] does, and one that the domain can run, as `fits`
    /// says. That it comes into force with this start is written down. One that was to come into force and cannot leaves the one in force
    /// where it is, and stays to come.
    ///
    /// # Errors
    /// None is activated; or the one in force is not what was signed or cannot be run, or there is none.
    pub fn start(
        &self,
        name: &ImageName,
        domain: &str,
        fits: impl Fn(&Manifest) -> Result<(), String>,
    ) -> Result<ImageStart, StoreError> {
        self.start_telling(name, domain, fits, |_| ())
    }

    /// Starts an image as [`Self::start`] does; `hashed` is told how many bytes at each step.
    pub(crate) fn start_telling(
        &self,
        name: &ImageName,
        domain: &str,
        fits: impl Fn(&Manifest) -> Result<(), String>,
        mut hashed: impl FnMut(u64),
    ) -> Result<ImageStart, StoreError> {
        // A start reads an image once, whatever commands do meanwhile.
        let mut verified: Vec<Image> = Vec::new();
        let mut usable = |serial| {
            if let Some(image) = verified.iter().find(|image| image.manifest.serial == serial) {
                return Ok(image.clone());
            }
            let image = self.image(name, serial)?;
            fits(&image.manifest).map_err(StoreError::Unfit)?;
            image.check(false, &mut hashed)?;
            verified.push(image.clone());
            Ok(image)
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let record = self.record(name)?.ok_or_else(|| StoreError::Unknown(name.clone()))?;
            let next = record.next(domain).ok_or_else(|| StoreError::NotActivated(name.clone()))?;
            let begun = usable(next).and_then(|image| self.begin(name, domain, image));
            let (why, current) = match (begun, record.in_force_in(domain)) {
                // Another command came in between, and something else is to start.
                (Err(StoreError::Rejected { why: Rejection::ChangedMeanwhile, .. }), _)
                    if tries < STARTS_MAX =>
                {
                    continue;
                }
                (Err(why), Some(current)) if current != next => (why, current),
                (begun, _) => return begun,
            };
            // A desktop that starts helps more than one that is new.
            let Ok(image) = usable(current) else { return Err(why) };
            let unwritten = self.refused(name, domain, next, &why);
            let health = image.manifest.health.filter(|_| record.is_on_trial(current, domain));
            let refused = Some(RefusedImage { serial: next, why: Box::new(why), unwritten });
            return Ok(ImageStart { image, is_new: false, health, refused });
        }
    }

    /// Writes down why an image that is to come into force cannot with this start. The start goes on without that. Returns what there is to record,
    /// if the record cannot take it.
    fn refused(
        &self,
        name: &ImageName,
        domain: &str,
        serial: u64,
        why: &StoreError,
    ) -> Option<ImageEvent> {
        let (at, why) = (now(), notes::cut(printable::explain(why)));
        let refused = RefusedStart { serial, domain: domain.to_owned(), why: why.clone() };
        let waits = self.change(name, false, |record| {
            Ok(record.pending() == Some(serial) && record.refuse(refused, &at))
        });
        let (domain, what) = (domain.to_owned(), Occurrence::Refused { why });
        (!waits.unwrap_or(false)).then_some(ImageEvent { at: Some(at), serial, domain, what })
    }

    /// Writes down that a domain starts with an image.
    fn begin(
        &self,
        name: &ImageName,
        domain: &str,
        image: Image,
    ) -> Result<ImageStart, StoreError> {
        let (serial, says) = (image.manifest.serial, image.manifest.health);
        let (is_new, health) = self
            .change(name, false, |record| {
                let Some((started, is_new)) = record.start(domain, &now())? else {
                    return Ok(None);
                };
                if started != serial {
                    // Another command came in between: what it wants comes with the next try.
                    return Err(Rejection::ChangedMeanwhile);
                }
                if says.is_none() {
                    record.came_up(serial, domain);
                }
                Ok(Some((is_new, says.filter(|_| record.is_on_trial(serial, domain)))))
            })?
            .ok_or_else(|| StoreError::NotActivated(name.clone()))?;
        Ok(ImageStart { image, is_new, health, refused: None })
    }

    /// Returns the seconds in which the guest of an image has to come up in a domain, if it is on trial there: for a guest that runs on.
    #[must_use]
    pub fn on_trial(&self, name: &ImageName, serial: u64, domain: &str) -> Option<u16> {
        let record = self.record(name).ok().flatten()?;
        if !record.is_on_trial(serial, domain) {
            return None;
        }
        self.image(name, serial).ok()?.manifest.health
    }

    /// Returns what happened with images and is not in the audit log for certain. What cannot be read is not among it.
    #[must_use]
    pub fn outboxes(&self) -> Vec<(ImageName, Vec<ImageEvent>)> {
        let outbox = |name: ImageName| {
            let events = self.record(&name).ok().flatten()?.events().to_vec();
            (!events.is_empty()).then_some((name, events))
        };
        self.names().unwrap_or_default().into_iter().filter_map(outbox).collect()
    }

    /// Takes out of the outbox of a name what the audit log has. Waits for nobody.
    ///
    /// # Errors
    /// The record cannot be written just now.
    pub fn recorded(&self, name: &ImageName, events: &[ImageEvent]) -> Result<(), StoreError> {
        self.change_in(1, name, false, |record| {
            record.recorded(events);
            Ok(())
        })
    }

    /// Writes down that the guest of an image came up in a domain.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn came_up(&self, name: &ImageName, serial: u64, domain: &str) -> Result<(), StoreError> {
        self.change(name, false, |record| {
            record.came_up(serial, domain);
            Ok(())
        })
    }

    /// Puts the image before in force again, as the guest of this one did not come up in a domain. Returns its serial, or why this one stays.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn give_up(
        &self,
        name: &ImageName,
        serial: u64,
        domain: &str,
    ) -> Result<Result<u64, Rejection>, StoreError> {
        self.change(name, false, |record| Ok(record.give_up(serial, domain, &now())))
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
        let signers = Self::signers(&image, trust)?;
        image.check(true, done)?;
        Ok(signers)
    }

    /// Checks the signatures of an installed image by this trust store, and nothing else. Returns who signed it.
    ///
    /// # Errors
    /// Not enough officers did, or they cannot be read.
    pub fn signers(image: &Image, trust: &TrustStore) -> Result<Vec<String>, StoreError> {
        let Manifest { name, serial, .. } = &image.manifest;
        let signed = trust.approve(&image.text, &image.signatures()?);
        let refused =
            |why| StoreError::Refused { name: name.clone(), serial: *serial, why: Box::new(why) };
        Ok(signed.map_err(refused)?.signers().to_vec())
    }
}

/// Returns where an image stands, in words.
#[must_use]
pub const fn standing(standing: ImageState) -> &'static str {
    match standing {
        ImageState::InForce => "in force",
        ImageState::Pending => "at the next start",
        ImageState::Previous => "previous",
        ImageState::Installed => "installed",
        ImageState::BelowFloor => "below the floor",
    }
}

fn file_error(path: &Path) -> impl Fn(io::Error) -> StoreError + use<> {
    let path = path.to_owned();
    move |source| StoreError::File { path: path.clone(), source }
}

fn make_folder(path: &Path) -> Result<(), StoreError> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(file_error(path))
}

/// Removes a folder, if it is there.
fn clear(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error(path)(error)),
        _ => Ok(()),
    }
}
