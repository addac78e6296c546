//! The file that a bundle is, whatever is in it: members, a manifest that says what they are, and the signatures of officers over that.
//!
//! | bytes | what |
//! | --- | --- |
//! | 16 | `BULKHEAD BUNDLE` and a newline |
//! | 4 | the format of what follows, 1 |
//! | 4 | the manifest's length |
//! | 4 | the length of the signatures' text |
//! | 4 | zero |
//! | 16384 | the signatures' text, as `policy.toml.sig` has it with the `purpose` of what it is of, then zeros |
//! | | the manifest, which is of a type of its own for each purpose ([`Described`]) |
//! | | the members, one after the other, in the manifest's order |
//!
//! Numbers are little-endian. The signatures have a place of fixed size, so that an officer's is added without writing the rest anew, and
//! stand before what they are over, so that nothing of the members is read before somebody trusted has signed for it. Nothing follows the
//! last member.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use form::diagnostic::Diagnostics;
use policy::SERIAL_MAX;
use policy::signature::{Approval, Refusal, Signable, Signatures, TrustStore};

use crate::digest::Digest;

/// Longest manifest, in bytes: a kernel, an initrd and sixteen disks take less than 6 KiB.
pub const MANIFEST_MAX: u32 = 64 << 10;

/// Bundles that must be able to follow one without a warning: a lifetime's.
const FOLLOWING_MIN: u64 = 100_000;
/// What a bundle begins with.
const MAGIC: &[u8; 16] = b"BULKHEAD BUNDLE\n";
/// The only format there is.
const FORMAT: u32 = 1;
/// Bytes before the signatures.
const HEADER: usize = 32;
/// Where the length of the signatures' text stands.
const SIGNED_AT: usize = 24;
/// Bytes that are kept for the signatures' text: more than 64 officers' take.
const SIGNATURES: usize = 16 << 10;
/// Where the manifest begins.
const MANIFEST_AT: usize = HEADER + SIGNATURES;
/// Bytes of the longest head: everything before the members.
const HEAD_MAX: usize = MANIFEST_AT + MANIFEST_MAX as usize;

/// A file in a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<P> {
    /// Which part of the content the file is.
    pub part: P,
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of all its bytes.
    pub sha256: Digest,
}

/// What a bundle says of itself, as a type: one for each purpose that bundles are signed for.
pub trait Described: Clone + fmt::Debug + PartialEq {
    /// What signatures of it are for.
    type Signed: Signable + Clone + PartialEq;
    /// What a member is.
    type Part: Copy + fmt::Debug + PartialEq + fmt::Display + 'static;

    /// Reads the text that officers sign.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    fn parse(source_name: &str, text: &str) -> Result<Self, Diagnostics>;

    /// Returns that text, which reads back as the same.
    fn text(&self) -> String;

    /// Returns the serial, which only grows.
    fn serial(&self) -> u64;

    /// Returns the members, in the order of the bundle.
    fn members(&self) -> &[Member<Self::Part>];

    /// Returns the members of one that is being made, for their digests.
    fn members_mut(&mut self) -> &mut [Member<Self::Part>];

    /// Checks that the bytes of a member, from `begin` on in the file, are of its kind. Called by who makes and who signs a bundle.
    ///
    /// # Errors
    /// They are not, or cannot be read.
    fn check(part: Self::Part, file: &File, begin: u64, size: u64) -> Result<(), BundleError>;

    /// Returns how many bundles can follow, if they are few: a serial only grows.
    fn few_can_follow(&self) -> Option<u64> {
        Some(SERIAL_MAX.saturating_sub(self.serial())).filter(|left| *left < FOLLOWING_MIN)
    }
}

/// Why a bundle is not taken. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The file cannot be read.
    #[error("it cannot be read{}", is_there(.0))]
    Read(#[source] io::Error),
    /// The file does not begin as a bundle does.
    #[error(
        "it is not a bundle: name a file that `bulkhead images pack` or `bulkhead program pack` made"
    )]
    NotABundle,
    /// The bundle is of a later format; its number.
    #[error("it is of format {0}, for a newer Bulkhead: update this one")]
    Newer(u32),
    /// The head's lengths or offsets contradict each other; which.
    #[error("its head is damaged ({0}): copy the bundle again")]
    Head(&'static str),
    /// Bytes are missing at its end.
    #[error("it is cut off: {found} of {whole} bytes are there; copy the bundle again")]
    Short {
        /// Bytes that its head says it has.
        whole: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// So many bytes follow the end of the bundle.
    #[error("{0} bytes follow its end: copy the bundle again, and alone")]
    Long(u64),
    /// The manifest cannot be used.
    #[error("its manifest cannot be used: {0}")]
    Manifest(Diagnostics),
    /// The manifest is written otherwise than by this program.
    #[error(
        "its manifest is not written as this program writes it: have it packed by `bulkhead images pack` or `bulkhead program pack`"
    )]
    NotPlain,
    /// The signatures cannot be used.
    #[error("its signatures cannot be used: {0}")]
    Signatures(Diagnostics),
    /// Too few of the officers who may sign it have signed it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The kernel is none that a domain can start from; why.
    #[error(
        "its kernel is not one that a domain can start from: {0}; have it packed with a bzImage (vmlinuz) or a PVH ELF file (vmlinux)"
    )]
    NotAKernel(&'static str),
    /// A file in it is not the one that was signed.
    #[error("its {0} is not the one that was signed: the bundle is damaged, copy it again")]
    Damaged(String),
}

/// Returns what a person is to do about a file that cannot be opened, as the end of a message; nothing if there is nothing to say.
pub(crate) fn is_there(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => {
            ", as it is not there: correct its name, or see that the stick or share that has it is mounted"
        }
        io::ErrorKind::PermissionDenied => ": run this as a user who may",
        _ => "",
    }
}

/// What a bundle says of itself: nobody has vouched for it.
#[derive(Debug)]
pub struct Head<M: Described> {
    /// What the bundle says of itself.
    pub manifest: M,
    /// The same, as it is signed.
    pub text: String,
    /// Who is said to have signed it.
    pub signatures: Signatures<M::Signed>,
}

impl<M: Described> Head<M> {
    /// Reads the beginning of a bundle that has `length` bytes in all. More bytes than the head has do no harm.
    ///
    /// # Errors
    /// It is not a bundle, or a damaged one.
    pub fn parse(bytes: &[u8], length: u64) -> Result<Self, BundleError> {
        let (magic, rest) = bytes.split_first_chunk::<16>().ok_or(BundleError::NotABundle)?;
        if magic != MAGIC {
            return Err(BundleError::NotABundle);
        }
        let cut_off = || BundleError::Short { whole: length.max(HEAD_LEAST) + 1, found: length };
        let mut numbers =
            rest.chunks_exact(4).map(|number| number.try_into().map_or(0, u32::from_le_bytes));
        let mut number = || numbers.next().ok_or(BundleError::Head("it ends within its header"));
        let (format, manifest, signatures, zero) = (number()?, number()?, number()?, number()?);
        if format != FORMAT {
            return Err(BundleError::Newer(format));
        }
        if zero != 0 {
            return Err(BundleError::Head("its header does not end with zero"));
        }
        if manifest > MANIFEST_MAX {
            return Err(BundleError::Head("its manifest is too long"));
        }
        let place = bytes.get(HEADER..MANIFEST_AT).ok_or_else(cut_off)?;
        let signatures =
            usize::try_from(signatures).ok().and_then(|end| place.split_at_checked(end));
        let (signatures, padding) =
            signatures.ok_or(BundleError::Head("its signatures are too long"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(BundleError::Head("something follows its signatures"));
        }
        let end = usize::try_from(manifest).ok().and_then(|length| MANIFEST_AT.checked_add(length));
        let manifest = end.and_then(|end| bytes.get(MANIFEST_AT..end)).ok_or_else(cut_off)?;
        let text = |bytes, what| std::str::from_utf8(bytes).map_err(|_| BundleError::Head(what));
        let signatures = text(signatures, "its signatures are no text")?;
        let manifest = text(manifest, "its manifest is no text")?;
        // First: a bundle of another purpose has the signatures of that, and is told by what it is.
        let read = M::parse("the manifest", manifest).map_err(BundleError::Manifest)?;
        let signatures = match signatures {
            "" => Signatures::default(),
            text => Signatures::parse("the signatures", text).map_err(BundleError::Signatures)?,
        };
        // Officers sign what they are shown, and that is what was read: nothing else is in the text.
        if read.text() != manifest {
            return Err(BundleError::NotPlain);
        }
        let this = Self { manifest: read, text: manifest.to_owned(), signatures };
        let whole = this.begin().saturating_add(this.total());
        match length.checked_sub(whole) {
            Some(0) => Ok(this),
            Some(more) => Err(BundleError::Long(more)),
            None => Err(BundleError::Short { whole, found: length }),
        }
    }

    /// Returns everything before the members, as it is written.
    ///
    /// # Errors
    /// Manifest or signatures are too long.
    pub(crate) fn bytes(&self) -> Result<Vec<u8>, BundleError> {
        let signatures = match self.signatures.count() {
            0 => String::new(),
            _ => self.signatures.text(),
        };
        let long = |_| BundleError::Head("its manifest is too long");
        let manifest = u32::try_from(self.text.len()).map_err(long)?;
        let signed =
            u32::try_from(signatures.len()).ok().filter(|_| signatures.len() <= SIGNATURES);
        let signed = signed.ok_or(BundleError::Head("its signatures are too long"))?;
        if manifest > MANIFEST_MAX {
            return Err(BundleError::Head("its manifest is too long"));
        }
        let mut bytes = MAGIC.to_vec();
        for number in [FORMAT, manifest, signed, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(signatures.as_bytes());
        bytes.resize(MANIFEST_AT, 0);
        bytes.extend_from_slice(self.text.as_bytes());
        Ok(bytes)
    }

    /// Returns what of that changes when somebody signs, and where it begins: the signatures with their length.
    ///
    /// # Errors
    /// The signatures are too long.
    pub(crate) fn signed_bytes(&self) -> Result<(u64, Vec<u8>), BundleError> {
        let mut bytes = self.bytes()?;
        bytes.truncate(MANIFEST_AT);
        Ok((SIGNED_AT as u64, bytes.split_off(SIGNED_AT)))
    }

    /// Returns the SHA-256 digest of the manifest's text, by which people tell one bundle from another.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(self.text.as_bytes())
    }

    /// Returns the bytes of all members together.
    #[must_use]
    pub fn total(&self) -> u64 {
        // A few sizes with caps of their own stay far below the end of the numbers.
        self.manifest.members().iter().fold(0, |sum, member| sum.saturating_add(member.size))
    }

    /// Returns where the members begin, in bytes.
    #[must_use]
    pub fn begin(&self) -> u64 {
        u64::try_from(MANIFEST_AT.saturating_add(self.text.len())).unwrap_or(u64::MAX)
    }

    /// Returns each member with where it begins, in bytes.
    pub fn members(&self) -> impl Iterator<Item = (u64, &Member<M::Part>)> {
        self.manifest.members().iter().scan(self.begin(), |at, member| {
            let begin = *at;
            *at = at.saturating_add(member.size);
            Some((begin, member))
        })
    }
}

/// Bytes of the shortest head.
const HEAD_LEAST: u64 = MANIFEST_AT as u64;

/// A bundle that is open. Everything is read from this one descriptor, so that what was looked at is what is used, whatever takes the
/// file's place.
#[derive(Debug)]
pub struct Bundle<M: Described> {
    file: File,
    head: Head<M>,
}

impl<M: Described> Bundle<M> {
    /// Opens a bundle. Nothing that stands in its place is waited for.
    ///
    /// # Errors
    /// It cannot be read, or is no bundle, or a damaged one as far as its head tells.
    pub fn open(path: &Path) -> Result<Self, BundleError> {
        Self::of(fileopen::regular(path).map_err(BundleError::Read)?)
    }

    /// Reads the beginning of a file that is open.
    ///
    /// # Errors
    /// As [`Bundle::open`].
    pub fn of(file: File) -> Result<Self, BundleError> {
        let length = file.metadata().map_err(BundleError::Read)?.len();
        let most = usize::try_from(length).map_or(HEAD_MAX, |length| length.min(HEAD_MAX));
        let mut bytes = vec![0; most];
        file.read_exact_at(&mut bytes, 0).map_err(BundleError::Read)?;
        let head = Head::parse(&bytes, length)?;
        Ok(Self { file, head })
    }

    /// Returns what it says of itself.
    #[must_use]
    pub fn head(&self) -> &Head<M> {
        &self.head
    }

    /// Returns the file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Checks that enough officers signed it who may sign for its purpose.
    ///
    /// # Errors
    /// Too few did.
    pub fn approve(self, trust: &TrustStore) -> Result<ApprovedBundle<M>, BundleError> {
        let approval = trust.approve(&self.head.text, &self.head.signatures)?;
        let key = |name: &String| {
            let officer = trust.officers().iter().find(|officer| officer.name == *name);
            officer.map_or_else(String::new, |officer| officer.key.to_string())
        };
        let keys = approval.signers().iter().map(key).collect();
        Ok(ApprovedBundle { bundle: self, approval, keys, trust_serial: trust.serial() })
    }

    /// Reads every member and checks that it is what the manifest says, and of its kind; `done` is told how many bytes at each step.
    ///
    /// # Errors
    /// One is not, or cannot be read.
    pub fn check_members(&self, mut done: impl FnMut(u64)) -> Result<(), BundleError> {
        for (begin, member) in self.head.members() {
            let found = Digest::of_file(&self.file, begin, member.size, &mut done)
                .map_err(BundleError::Read)?;
            if found != member.sha256 {
                return Err(BundleError::Damaged(member.part.to_string()));
            }
            M::check(member.part, &self.file, begin, member.size)?;
        }
        Ok(())
    }
}

/// A bundle whose manifest enough officers signed. Its members are held against that as they are copied.
#[derive(Debug)]
pub struct ApprovedBundle<M: Described> {
    bundle: Bundle<M>,
    approval: Approval<M::Signed>,
    keys: Vec<String>,
    trust_serial: Option<u64>,
}

impl<M: Described> ApprovedBundle<M> {
    /// Returns the bundle.
    #[must_use]
    pub fn bundle(&self) -> &Bundle<M> {
        &self.bundle
    }

    /// Returns who signed it.
    #[must_use]
    pub fn signers(&self) -> &[String] {
        self.approval.signers()
    }

    /// Returns their public keys, in the same order.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns the serial of the trust store by which it is approved; one of the first format has none.
    #[must_use]
    pub fn trust_serial(&self) -> Option<u64> {
        self.trust_serial
    }
}
