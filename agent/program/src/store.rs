//! The folder in which a PC keeps the bundles of its package, and the record of them: `/var/lib/bulkhead/program`, root's alone.

use std::ffi::CStr;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use base::durable;
use images::container::BundleError;
use images::digest::Digest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, Flock, FlockArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use policy::signature::TrustStore;
use serde_json::Value;

use crate::manifest::{ApprovedBundle, Bundle, Manifest};
use crate::record::{AdmissionRefusal, FORMAT, KeptPackage, Record};

/// Bytes that are copied at once.
const PIECE: usize = 1 << 20;
const MEMORY_NAME: &CStr = c"bulkhead.deb";

/// Why something cannot be done with the store. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file of the store cannot be read or written.
    #[error("{}{}", path.display(), remedy(source))]
    File {
        /// The path of the file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Its record is a later version's.
    #[error("{} is of format {format}, by a newer Bulkhead: this one changes nothing there; install the newer package again", path.display())]
    Newer {
        /// The path of the record.
        path: PathBuf,
        /// The format that the record has.
        format: u64,
    },
    /// Its record cannot be used.
    #[error("{} cannot be used ({why}): put it back from a backup, or move the folder away and install the bundle of the version that runs; the floor is lost with it", path.display())]
    Record {
        /// The path of the record.
        path: PathBuf,
        /// What is wrong with it, in words.
        why: String,
    },
    /// Somebody else is at work.
    #[error("an update is at work: wait for it; `bulkhead program status` says how far it is")]
    Busy,
    /// It is not begun with now, and nothing is lost by that.
    #[error(
        "{0}; the update waits: `systemctl start bulkhead-update` goes on with it, and so does the next start of the agent"
    )]
    NotNow(String),
    /// What is kept is not what was signed, or not by enough any more.
    #[error("the bundle with the serial {serial} that this PC keeps cannot be used")]
    StoredBundle {
        /// The serial of the bundle.
        serial: u64,
        /// What is wrong with it.
        #[source]
        source: Box<BundleError>,
    },
    /// Another bundle lies in its place.
    #[error(
        "the bundle with the serial {0} that this PC keeps is another than the record says: install the bundle again"
    )]
    Another(u64),
    /// The record forbids it.
    #[error(transparent)]
    NotAdmitted(#[from] AdmissionRefusal),
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => ": run this as root",
        io::ErrorKind::StorageFull => ": make room there (`bulkhead images remove`, logs)",
        _ => "",
    }
}

/// The store of one PC.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Returns the store in a folder, which need not be there.
    #[must_use]
    pub fn at(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn record_file(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    fn bundle_file(&self, serial: u64) -> PathBuf {
        self.folder.join(format!("{serial}.bundle"))
    }

    /// Returns an error with the path of the file that it is about.
    fn file_error(path: &Path) -> impl Fn(io::Error) -> StoreError {
        |source| StoreError::File { path: path.to_owned(), source }
    }

    /// Reads the record. Without one nothing is known yet.
    ///
    /// # Errors
    /// It cannot be read, or is none of this version's.
    pub fn record(&self) -> Result<Record, StoreError> {
        let path = self.record_file();
        let bad = |why: String| StoreError::Record { path: path.clone(), why };
        let read = durable::read::<Value>(&path).map_err(|source| match source.kind() {
            io::ErrorKind::InvalidData => bad(source.to_string()),
            _ => StoreError::File { path: path.clone(), source },
        })?;
        let Some(value) = read else { return Ok(Record::default()) };
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(format) => return Err(StoreError::Newer { path, format }),
            None => return Err(bad("it does not say of what format it is".to_owned())),
        }
        serde_json::from_value(value).map_err(|error| bad(error.to_string()))
    }

    /// Replaces the record. When this returns, it is on the disk.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn write(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.record_file();
        durable::write(&path, record).map_err(Self::file_error(&path))
    }

    /// Makes the folder, and keeps other processes from changing what is in it.
    ///
    /// # Errors
    /// It cannot be made, or another one changes it.
    pub fn lock(&self) -> Result<Lock, StoreError> {
        let at_folder = Self::file_error(&self.folder);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(at_folder)?;
        let path = self.lock_file();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = fileopen::regular_with(&path, &mut options).map_err(Self::file_error(&path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Lock(lock)),
            Err((_, Errno::EAGAIN)) => Err(StoreError::Busy),
            Err((_, error)) => Err(Self::file_error(&path)(error.into())),
        }
    }

    /// Copies a bundle into the store, from the descriptor that was looked at, and looks at the copy: that one is installed later.
    ///
    /// # Errors
    /// It cannot be written, or what was copied is not what was signed.
    pub fn keep(
        &self,
        bundle: &ApprovedBundle,
        trust: &TrustStore,
        _: &Lock,
    ) -> Result<(), StoreError> {
        let serial = bundle.bundle().head().manifest.serial;
        let path = self.bundle_file(serial);
        let fresh = durable::fresh(&path);
        let at_file = Self::file_error(&fresh);
        let wrong = |source| StoreError::StoredBundle { serial, source: Box::new(source) };
        let copied = (|| {
            let _ = fs::remove_file(&fresh);
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600);
            let copy = fileopen::regular_with(&fresh, &mut options).map_err(&at_file)?;
            let head = bundle.bundle().head();
            let whole = head.begin().saturating_add(head.total());
            pieces(bundle.bundle().file(), 0, whole, |at, piece| copy.write_all_at(piece, at))
                .map_err(&at_file)?;
            copy.sync_all().map_err(&at_file)?;
            let copy = Bundle::of(copy).map_err(wrong)?;
            copy.check_members(|_| ()).map_err(wrong)?;
            if copy.head().digest() != head.digest() {
                return Err(StoreError::Another(serial));
            }
            copy.approve(trust).map_err(wrong)?;
            fs::rename(&fresh, &path).map_err(&at_file)?;
            let folder = fileopen::directory(&self.folder).and_then(|folder| folder.sync_all());
            folder.map_err(Self::file_error(&self.folder))
        })();
        copied.inspect_err(|_| {
            // That it cannot be removed either changes nothing about the error.
            let _ = fs::remove_file(&fresh);
        })
    }

    /// Returns a package that is kept, in memory that nobody can change any more, once its bundle was verified from its first byte to its last, by the trust
    /// store of now.
    ///
    /// # Errors
    /// It cannot be read, is another, or was not signed by enough.
    pub fn package(&self, kept: &KeptPackage, trust: &TrustStore) -> Result<File, StoreError> {
        let serial = kept.serial;
        let wrong = |source| StoreError::StoredBundle { serial, source: Box::new(source) };
        let bundle = Bundle::open(&self.bundle_file(serial)).map_err(wrong)?;
        if bundle.head().digest() != kept.manifest {
            return Err(StoreError::Another(serial));
        }
        sealed(&bundle.approve(trust).map_err(wrong)?).map_err(wrong)
    }

    /// Deletes the bundles that the record does not name any more, and what was left half copied.
    pub(crate) fn tidy(&self, record: &Record) {
        for path in self.unnamed(record) {
            // What stays takes room, and nothing else.
            let _ = fs::remove_file(path);
        }
    }

    /// Returns the same, for somebody who only looks. Whoever changes the store at this moment has some of them in hand.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn left_over(&self) -> Result<Vec<PathBuf>, StoreError> {
        let record = self.record()?;
        let mut paths: Vec<PathBuf> = self.unnamed(&record).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// Returns where the lock of the store lies ([`Self::lock`]).
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.folder.join(".lock")
    }

    fn unnamed(&self, record: &Record) -> impl Iterator<Item = PathBuf> + use<> {
        let kept: Vec<PathBuf> =
            record.kept().into_iter().map(|serial| self.bundle_file(serial)).collect();
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(move |path| {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            let is_bundle = name.ends_with(".bundle") || name.ends_with(".bundle.new");
            is_bundle && !kept.contains(path)
        })
    }
}

/// Other processes do not change the store while this is there.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is held")] Flock<File>);

/// Copies the package of a bundle into memory, seals that, and holds it against what was signed.
///
/// # Errors
/// It cannot be read, or is not what was signed.
pub fn sealed(bundle: &ApprovedBundle) -> Result<File, BundleError> {
    let file = bundle.bundle().file();
    let Manifest { package, .. } = &bundle.bundle().head().manifest;
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let memory =
        memfd_create(MEMORY_NAME, flags).map_err(|error| BundleError::Read(error.into()))?;
    let mut memory = File::from(memory);
    let begin = bundle.bundle().head().begin();
    pieces(file, begin, package.size, |_, piece| memory.write_all(piece))
        .map_err(BundleError::Read)?;
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals))
        .map_err(|error| BundleError::Read(error.into()))?;
    let found = Digest::of_file(&memory, 0, package.size, |_| ()).map_err(BundleError::Read)?;
    if found != package.sha256 {
        return Err(BundleError::Damaged(package.part.to_string()));
    }
    Ok(memory)
}

/// Gives `length` bytes of a file from `begin` on to `take`, piece by piece, each with how many came before.
fn pieces(
    file: &File,
    begin: u64,
    length: u64,
    mut take: impl FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = 0_u64;
    while at < length {
        let wanted = usize::try_from(length - at).map_or(PIECE, |left| left.min(PIECE));
        let place = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(place, begin.saturating_add(at))?;
        take(at, place)?;
        at = at.saturating_add(u64::try_from(wanted).unwrap_or(u64::MAX));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_interrupted_copy_left_is_named_and_what_is_no_bundle_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::at(dir.path());
        assert!(Store::at(&dir.path().join("none")).left_over().unwrap().is_empty());
        let file = |name: &str| dir.path().join(name);
        for name in ["8.bundle.new", "7.bundle", ".lock", "notes.json"] {
            fs::write(file(name), "").unwrap();
        }
        assert_eq!(store.left_over().unwrap(), [file("7.bundle"), file("8.bundle.new")]);
        store.tidy(&Record::default());
        assert!(store.left_over().unwrap().is_empty() && file("notes.json").exists());
    }
}
