//! Bundles are written and signed, whatever is in them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base::durable;
use policy::signature::{PublicKey, SecretKey, Signatures};

use crate::container::{Bundle, BundleError, Described, Head, is_there};
use crate::digest::{Digest, Hasher, pieces};
use crate::lock;
use crate::store::{free, is_full};

/// Why no bundle was made or signed. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A file that was to go into it.
    #[error("cannot read {}{}", path.display(), is_there(source))]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// Why it cannot be read.
        #[source]
        source: io::Error,
    },
    /// A file has another size than one of its kind.
    #[error("{} has {size} bytes, and a {part} has from 1 to {largest}: name the right file", path.display())]
    Size {
        /// The path of the file.
        path: PathBuf,
        /// What it was to be.
        part: &'static str,
        /// The largest that one may be, in bytes.
        largest: u64,
        /// How many bytes the file has.
        size: u64,
    },
    /// The kernel is none that a domain can start from.
    #[error("{} is not a kernel that a domain can start from: {why}; name a bzImage (vmlinuz) or a PVH ELF file (vmlinux)", path.display())]
    NotAKernel {
        /// The path of the file that was to be the kernel.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file was changed meanwhile.
    #[error("{} was changed while it was packed: pack again once nobody writes it", .0.display())]
    Changed(PathBuf),
    /// The bundle is another than the one that was looked at.
    #[error("{} was changed or replaced since it was looked at, and nothing was signed: look at it and sign again", .0.display())]
    Replaced(PathBuf),
    /// The bundle would take the place of a file that is to be kept.
    #[error("it {0}")]
    NotReplaceable(&'static str),
    /// The serial is the highest that there is, so that no bundle could follow.
    #[error(
        "no bundle can follow one with the serial {0}, as a serial only grows: pack it with the serial after that of the one before"
    )]
    LastSerial(u64),
    /// The bundle cannot be written.
    #[error("cannot write {}{}", path.display(), in_no_folder(path, source))]
    Write {
        /// The path of the bundle.
        path: PathBuf,
        /// Why it cannot be written.
        #[source]
        source: io::Error,
    },
    /// There is not enough room for it.
    #[error("{} has room for {free} MiB, and the bundle takes {needed}: make room there, or name a file elsewhere", path.display())]
    NoRoom {
        /// The directory that was to hold the bundle.
        path: PathBuf,
        /// MiB that are free.
        free: u64,
        /// MiB that it takes.
        needed: u64,
    },
    /// What it would say of itself.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

/// Says of a file that cannot be written that its folder is not there, if that is so.
fn in_no_folder(path: &Path, error: &io::Error) -> String {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        Some(folder) if error.kind() == io::ErrorKind::NotFound => {
            format!(", as there is no folder {}: make it, or name another", folder.display())
        }
        _ => String::new(),
    }
}

/// Opens a file that is to go into a bundle; returns it with its size.
///
/// # Errors
/// It cannot be read, or has another size than one of its kind.
pub fn source(path: &Path, part: &'static str, largest: u64) -> Result<(File, u64), PackError> {
    let read = || fileopen::regular(path).and_then(|file| Ok((file.metadata()?.len(), file)));
    let (size, file) =
        read().map_err(|source| PackError::Read { path: path.to_owned(), source })?;
    if size == 0 || size > largest {
        return Err(PackError::Size { path: path.to_owned(), part, largest, size });
    }
    Ok((file, size))
}

/// Writes a bundle to `out`, in the place of one that is there; `done` is told how many bytes at each step. Whatever goes wrong, `out` has
/// its former content. The digests in `manifest` are those of `files` afterwards, which are its members in their order.
///
/// # Errors
/// A file cannot be read or was changed meanwhile; the bundle cannot be written; or what it would say is not right.
pub fn write<M: Described>(
    mut manifest: M,
    files: &[(PathBuf, File)],
    key: Option<&SecretKey>,
    out: &Path,
    mut done: impl FnMut(u64),
) -> Result<M, PackError> {
    may_follow(&manifest)?;
    may_replace::<M>(out, files)?;
    // Before minutes of copying; its length does not change with the digests.
    let head = checked(&manifest)?;
    let (begin, total) = (head.begin(), head.total());
    let failed = |source| PackError::Write { path: out.to_owned(), source };
    let fresh = durable::fresh(out);
    let made = (|| {
        let _ = fs::remove_file(&fresh);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let bundle = fileopen::regular_with(&fresh, &mut options).map_err(failed)?;
        let mut at = begin;
        for (member, (path, file)) in manifest.members_mut().iter_mut().zip(files) {
            member.sha256 = copy(path, file, member.size, (&bundle, at), &mut done, &failed)?;
            at = at.saturating_add(member.size);
        }
        let mut head = checked(&manifest)?;
        if let Some(key) = key {
            head.signatures.sign(&head.text, key);
        }
        bundle.write_all_at(&head.bytes()?, 0).map_err(failed)?;
        bundle.sync_all().map_err(failed)?;
        fs::rename(&fresh, out).map_err(failed)?;
        fileopen::directory(durable::directory(out)).and_then(|it| it.sync_all()).map_err(failed)
    })();
    made.map_err(|error| {
        // That it cannot be removed either changes nothing about the error.
        let _ = fs::remove_file(&fresh);
        no_room(error, out, begin.saturating_add(total))
    })?;
    Ok(manifest)
}

/// Says how much room there is, if that was it.
fn no_room(error: PackError, out: &Path, needed: u64) -> PackError {
    let PackError::Write { source, .. } = &error else { return error };
    let path = durable::directory(out);
    match (is_full(source), free(path)) {
        (true, Ok(free)) => PackError::NoRoom {
            path: path.to_owned(),
            free: free >> 20,
            needed: needed.div_ceil(1 << 20),
        },
        _ => error,
    }
}

/// Returns what a bundle with this manifest begins with, without a signature, if the manifest is one that would be read again.
fn checked<M: Described>(manifest: &M) -> Result<Head<M>, BundleError> {
    let text = manifest.text();
    M::parse("the manifest", &text).map_err(BundleError::Manifest)?;
    Ok(Head { manifest: manifest.clone(), text, signatures: Signatures::default() })
}

fn copy(
    path: &Path,
    file: &File,
    size: u64,
    (to, at): (&File, u64),
    done: &mut impl FnMut(u64),
    failed: &impl Fn(io::Error) -> PackError,
) -> Result<Digest, PackError> {
    let (mut hasher, mut at, mut unwritten) = (Hasher::default(), at, None);
    let read = pieces(file, 0, size, done, |piece| {
        hasher.update(piece);
        to.write_all_at(piece, at).map_err(|error| {
            let kind = error.kind();
            unwritten = Some(error);
            io::Error::from(kind)
        })?;
        at = at.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Ok(())
    });
    if let Some(error) = unwritten {
        return Err(failed(error));
    }
    let now = read.and_then(|()| Ok(file.metadata()?.len()));
    match now {
        Ok(now) if now == size => Ok(hasher.finish()),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(PackError::Read { path: path.to_owned(), source })
        }
        _ => Err(PackError::Changed(path.to_owned())),
    }
}

/// What a bundle holds once somebody signed it.
#[derive(Debug, PartialEq, Eq)]
pub struct SigningOutcome {
    /// How many signatures it has now.
    pub count: usize,
    /// The keys whose signatures did not fit it, and are not there any more.
    pub dropped: Vec<PublicKey>,
}

/// A bundle that an officer looks at, and then signs: what was looked at is what is signed, whatever takes the file's place.
#[derive(Debug)]
pub struct Signing<M: Described> {
    path: PathBuf,
    bundle: Bundle<M>,
}

impl<M: Described> Signing<M> {
    /// Opens a bundle to be signed.
    ///
    /// # Errors
    /// It cannot be read or written, is none, or is the last that its serials allow.
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let mut options = OpenOptions::new();
        let file = fileopen::regular_with(path, options.read(true).write(true))
            .map_err(|source| PackError::Read { path: path.to_owned(), source })?;
        let bundle = Bundle::of(file)?;
        may_follow(&bundle.head().manifest)?;
        Ok(Self { path: path.to_owned(), bundle })
    }

    /// Returns the bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle<M> {
        &self.bundle
    }

    /// Adds an officer's signature, in the place of an earlier one of theirs. A signature that does not fit
    /// the bundle goes. Of the file the place of the signatures is written, and nothing else.
    ///
    /// # Errors
    /// The bundle cannot be written, or is another by now.
    pub fn sign(self, key: &SecretKey) -> Result<SigningOutcome, PackError> {
        let Self { path, bundle } = self;
        let failed = |source| PackError::Write { path: path.clone(), source };
        let file = || bundle.file().try_clone().map_err(failed);
        // Another officer may sign the same file now.
        let _lock = lock::hold(file()?, lock::PATIENCE).map_err(failed)?;
        let now = Bundle::<M>::of(file()?)?;
        let Head { manifest, text, signatures } = now.head();
        let is_other = |there: &File| -> io::Result<bool> {
            let (there, own) = (there.metadata()?, bundle.file().metadata()?);
            Ok((there.dev(), there.ino()) != (own.dev(), own.ino()))
        };
        let gone = fileopen::regular(&path).and_then(|there| is_other(&there)).unwrap_or(true);
        if gone || *text != bundle.head().text {
            return Err(PackError::Replaced(path));
        }
        let (dropped, own) = (signatures.misfits(text), key.public());
        let dropped = dropped.into_iter().filter(|other| *other != own).collect();
        let mut signatures = signatures.clone().fitting(text);
        signatures.sign(text, key);
        let count = signatures.count();
        let head = Head { manifest: manifest.clone(), text: text.clone(), signatures };
        let (at, bytes) = head.signed_bytes()?;
        bundle.file().write_all_at(&bytes, at).map_err(failed)?;
        bundle.file().sync_all().map_err(failed)?;
        Ok(SigningOutcome { count, dropped })
    }
}

/// Checks that a bundle may take the place of what is at `out`: nothing that goes into it, nothing else than a bundle, and no signature of anybody's.
fn may_replace<M: Described>(out: &Path, files: &[(PathBuf, File)]) -> Result<(), PackError> {
    let Ok(there) = fs::metadata(out) else { return Ok(()) };
    let refused = |why| Err(PackError::NotReplaceable(why));
    let same = |file: &File| {
        file.metadata().is_ok_and(|file| (file.dev(), file.ino()) == (there.dev(), there.ino()))
    };
    if files.iter().any(|(_, file)| same(file)) {
        return refused(
            "is one of the files that go into the bundle: name another file for the bundle, as the last word",
        );
    }
    match Bundle::<M>::open(out) {
        Ok(bundle) if bundle.head().signatures.count() == 0 => Ok(()),
        Ok(_) => refused(
            "is a bundle that somebody has signed, and the signatures would be lost: move it away first, or name another file",
        ),
        Err(_) => refused(
            "is there, and is no bundle: name another file for the bundle, as the last word",
        ),
    }
}

/// Checks that another bundle of this name can follow.
fn may_follow<M: Described>(manifest: &M) -> Result<(), PackError> {
    match manifest.few_can_follow() {
        Some(0) => Err(PackError::LastSerial(manifest.serial())),
        _ => Ok(()),
    }
}
