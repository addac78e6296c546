//! Bundles are made, and signed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base::durable;
use policy::signature::{PublicKey, SecretKey, Signatures};

use crate::bundle::{Bundle, BundleError, Head, is_there};
use crate::digest::{Digest, Running, pieces};
use crate::kernel;
use crate::lock;
use crate::manifest::{ImageName, Manifest, Member, Needs, Part};
use crate::store::{free, is_full};

/// What a bundle is made of.
#[derive(Debug)]
pub struct Contents {
    /// What `machine.toml` calls the image.
    pub name: ImageName,
    /// Its serial, as in [`Manifest::serial`].
    pub serial: u64,
    /// The floor that it brings, as in [`Manifest::floor`].
    pub floor: u64,
    /// The kernel command line.
    pub cmdline: String,
    /// The root hash in the command line.
    pub verity: Option<Digest>,
    /// In how many seconds its guest says that it is up, as in [`Manifest::health`].
    pub health: Option<u16>,
    /// What it needs of the PC.
    pub needs: Needs,
    /// The files, in the order of the bundle.
    pub files: Vec<(Part, PathBuf)>,
}

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
    #[error("{} has {size} bytes, and a {} has from 1 to {}: name the right file", path.display(), part.word(), part.largest())]
    Size {
        /// The path of the file.
        path: PathBuf,
        /// What it was to be to the guest.
        part: Part,
        /// How many bytes the file has.
        size: u64,
    },
    /// The kernel is none.
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
    Kept(&'static str),
    /// No other could follow.
    #[error(
        "no bundle can follow one with the serial {0}, as a serial only grows: pack it with the serial after that of the one before"
    )]
    LastSerial(u64),
    /// The bundle cannot be written.
    #[error("cannot write {}", path.display())]
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

/// Makes a bundle at `out`, in the place of one that is there; `done` is told how many bytes at each step. Whatever goes wrong, `out` has
/// its former content.
///
/// # Errors
/// A file cannot be read, is too long or was changed meanwhile; the bundle cannot be written; or what it would say is not right.
pub fn pack(
    contents: &Contents,
    key: Option<&SecretKey>,
    out: &Path,
    mut done: impl FnMut(u64),
) -> Result<Manifest, PackError> {
    let mut members = Vec::new();
    let mut files = Vec::new();
    for (part, path) in &contents.files {
        let (part, path) = (*part, path.clone());
        let read = || fileopen::regular(&path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (size, file) =
            read().map_err(|source| PackError::Read { path: path.clone(), source })?;
        if size == 0 || size > part.largest() {
            return Err(PackError::Size { path, part, size });
        }
        if part == Part::Kernel {
            let checked = kernel::check(&file, 0, size);
            let checked =
                checked.map_err(|source| PackError::Read { path: path.clone(), source })?;
            checked.map_err(|why| PackError::NotAKernel { path: path.clone(), why })?;
        }
        members.push(Member { part, size, sha256: Digest::of(&[]) });
        files.push((path, file));
    }
    let mut manifest = Manifest {
        name: contents.name.clone(),
        serial: contents.serial,
        floor: contents.floor,
        cmdline: contents.cmdline.clone(),
        verity: contents.verity,
        health: contents.health,
        needs: contents.needs,
        members,
    };
    may_follow(&manifest)?;
    may_replace(out, &files)?;
    // Before minutes of copying; its length does not change with the digests.
    let begin = checked(&manifest)?.begin();
    let failed = |source| PackError::Write { path: out.to_owned(), source };
    let fresh = durable::fresh(out);
    let made = (|| {
        let _ = fs::remove_file(&fresh);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let bundle = fileopen::regular_with(&fresh, &mut options).map_err(failed)?;
        let mut at = begin;
        for (member, (path, file)) in manifest.members.iter_mut().zip(&files) {
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
        no_room(error, out, begin.saturating_add(manifest.total()))
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
fn checked(manifest: &Manifest) -> Result<Head, BundleError> {
    let text = manifest.text();
    Manifest::parse("the manifest", &text).map_err(BundleError::Manifest)?;
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
    let (mut running, mut at, mut unwritten) = (Running::default(), at, None);
    let read = pieces(file, 0, size, done, |piece| {
        running.update(piece);
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
        Ok(now) if now == size => Ok(running.finish()),
        Err(source) if source.kind() != io::ErrorKind::UnexpectedEof => {
            Err(PackError::Read { path: path.to_owned(), source })
        }
        _ => Err(PackError::Changed(path.to_owned())),
    }
}

/// What a bundle holds once somebody signed it.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// How many signatures it has now.
    pub count: usize,
    /// The keys whose signatures did not fit it, and are not there any more.
    pub dropped: Vec<PublicKey>,
}

/// A bundle that an officer looks at, and then signs: what was looked at is what is signed, whatever takes the file's place.
#[derive(Debug)]
pub struct Signing {
    path: PathBuf,
    bundle: Bundle,
}

impl Signing {
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
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Adds an officer's signature, in the place of an earlier one of theirs. A signature that does not fit
    /// the bundle goes. Of the file the place of the signatures is written, and nothing else.
    ///
    /// # Errors
    /// The bundle cannot be written, or is another by now.
    pub fn sign(self, key: &SecretKey) -> Result<Signed, PackError> {
        let Self { path, bundle } = self;
        let failed = |source| PackError::Write { path: path.clone(), source };
        let file = || bundle.file().try_clone().map_err(failed);
        // Another officer may sign the same file now.
        let _lock = lock::hold(file()?, lock::PATIENCE).map_err(failed)?;
        let now = Bundle::of(file()?)?;
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
        Ok(Signed { count, dropped })
    }
}

/// Checks that a bundle may take the place of what is at `out`: nothing that goes into it, nothing else than a bundle, and no signature of anybody's.
fn may_replace(out: &Path, files: &[(PathBuf, File)]) -> Result<(), PackError> {
    let Ok(there) = fs::metadata(out) else { return Ok(()) };
    let kept = |why| Err(PackError::Kept(why));
    let same = |file: &File| {
        file.metadata().is_ok_and(|file| (file.dev(), file.ino()) == (there.dev(), there.ino()))
    };
    if files.iter().any(|(_, file)| same(file)) {
        return kept(
            "is one of the files that go into the bundle: name another file for the bundle, as the last word",
        );
    }
    match Bundle::open(out) {
        Ok(bundle) if bundle.head().signatures.count() == 0 => Ok(()),
        Ok(_) => kept(
            "is a bundle that somebody has signed, and the signatures would be lost: move it away first, or name another file",
        ),
        Err(_) => {
            kept("is there, and is no bundle: name another file for the bundle, as the last word")
        }
    }
}

/// Checks that another bundle of this name can follow.
fn may_follow(manifest: &Manifest) -> Result<(), PackError> {
    match manifest.few_can_follow() {
        Some(0) => Err(PackError::LastSerial(manifest.serial)),
        _ => Ok(()),
    }
}
