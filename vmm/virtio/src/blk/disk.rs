//! The file or block device behind a disk: opening it, keeping other VMMs away, and what it can do.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, fallocate, fcntl};

use super::request::{Bounds, Range};
use super::spec::{ID_BYTES, SECTOR};

/// Zeroes are written this many bytes at a time where the host cannot zero a range itself.
pub(super) const ZERO_CHUNK: u64 = ZEROES.len() as u64;

static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// Why a disk could not be opened; the text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("disk {}: no such file; check the path, or create the image first", .0.display())]
    Missing(PathBuf),
    /// The path is a directory.
    #[error("disk {}: is a directory; name the image file in it", .0.display())]
    Directory(PathBuf),
    /// The path is a socket, a pipe or a character device.
    #[error("disk {}: neither a file nor a block device; name a raw image or a block device", .0.display())]
    NotADisk(PathBuf),
    /// There is not even one sector.
    #[error("disk {path}: only {bytes} bytes long, and a disk has at least one sector of 512; \
             size it first (truncate -s SIZE)", path = .path.display())]
    Empty {
        /// The disk's file or device.
        path: PathBuf,
        /// Its length in bytes.
        bytes: u64,
    },
    /// The process may not open it in the way asked for.
    #[error("disk {path}: not permitted to {access}; give this user access to the file{hint}",
            path = .path.display())]
    NotPermitted {
        /// The disk's file or device.
        path: PathBuf,
        /// What was not permitted.
        access: &'static str,
        /// What else helps, to be added to the message; may be empty.
        hint: &'static str,
    },
    /// It lies on a read-only file system or is a write-protected device.
    #[error("disk {}: lies on something that cannot be written; add ',readonly'", .0.display())]
    ReadOnlyMedium(PathBuf),
    /// Another process uses it in a way that does not go together with this one.
    #[error("disk {path}: in use by another VMM; {remedy}", path = .path.display())]
    InUse {
        /// The disk's file or device.
        path: PathBuf,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The id does not fit into what a guest can be told.
    #[error("disk {path}: the id '{id}' is longer than 20 bytes; choose a shorter one",
            path = .path.display())]
    IdTooLong {
        /// The disk's file or device.
        path: PathBuf,
        /// The identifier that was asked for.
        id: String,
    },
    /// The file cannot be opened for another reason.
    #[error("disk {}: cannot be opened", path.display())]
    Host {
        /// The disk's file or device.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An open and locked raw disk. The lock lasts as long as this value.
#[derive(Debug)]
pub struct Disk {
    file: File,
    sectors: u64,
    read_only: bool,
    block_device: bool,
    discard: bool,
    id: [u8; ID_BYTES],
    /// Logical and physical block size in bytes, powers of two of at least 512.
    blocks: BlockSizes,
}

/// What a disk says about its blocks, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockSizes {
    pub(super) logical: u32,
    pub(super) physical: u32,
}

impl Disk {
    /// Opens a raw image or a block device. A writable disk is locked against every other user, a
    /// read-only one against writers (open file description locks: they end with the process).
    ///
    /// `id` is what the guest can ask for (`/dev/disk/by-id/virtio-ID`), at most 20 bytes.
    pub fn open(path: &Path, read_only: bool, id: &str) -> Result<Self, DiskError> {
        let file = OpenOptions::new()
            .read(true)
            .write(!read_only)
            // A pipe must not block us before we have seen that it is one.
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .map_err(|error| open_error(path, read_only, error))?;
        Self::from_file(file, path, read_only, id)
    }

    /// Opens a disk as [`Disk::open`] does, for a file that somebody else opened; `path` only names it in messages.
    pub fn from_file(
        mut file: File,
        path: &Path,
        read_only: bool,
        id: &str,
    ) -> Result<Self, DiskError> {
        let host = |source| DiskError::Host { path: path.to_owned(), source };
        let id = id_bytes(id)
            .ok_or_else(|| DiskError::IdTooLong { path: path.to_owned(), id: id.to_owned() })?;
        let metadata = file.metadata().map_err(host)?;
        check_type(&metadata, path)?;
        lock(&file, path, read_only)?;

        let bytes = file.seek(SeekFrom::End(0)).map_err(host)?;
        if bytes < SECTOR {
            return Err(DiskError::Empty { path: path.to_owned(), bytes });
        }
        if !bytes.is_multiple_of(SECTOR) {
            tracing::warn!(
                path = %path.display(),
                bytes,
                "the disk's length is not a multiple of 512: the guest does not see the last {} bytes",
                bytes % SECTOR
            );
        }

        let block_device = metadata.file_type().is_block_device();
        let discard = !read_only && (block_device || can_punch(&file, bytes));
        let blocks = if block_device { block_sizes::of_device(&file) } else { FILE_BLOCKS };
        Ok(Self { file, sectors: bytes / SECTOR, read_only, block_device, discard, id, blocks })
    }

    /// Returns how many sectors of 512 bytes the guest sees.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Returns how many bytes that are.
    pub fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR)
    }

    /// Returns the bytes of the file that it writes; none for a disk that is not written, or that is no file: a
    /// block device has its size.
    pub fn writable_file_bytes(&self) -> u64 {
        if self.read_only || self.block_device { 0 } else { self.bytes() }
    }

    /// Returns whether writing is refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds { sectors: self.sectors, read_only: self.read_only, discard: self.discard }
    }

    pub(super) fn blocks(&self) -> BlockSizes {
        self.blocks
    }

    pub(super) fn id(&self) -> [u8; ID_BYTES] {
        self.id
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns when everything written is on stable storage.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Frees a range's blocks; it reads as zeroes afterwards.
    pub(super) fn punch(&self, range: &Range) -> io::Result<()> {
        let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        self.allocate(mode, range)
    }

    /// Zeroes a range and keeps its blocks. The range lies inside of the disk; the mode that could take
    /// blocks beyond its end (`FALLOC_FL_KEEP_SIZE`) is one that the VMM's sandbox forbids.
    pub(super) fn zero(&self, range: &Range) -> io::Result<()> {
        self.allocate(FallocateFlags::FALLOC_FL_ZERO_RANGE, range)
    }

    pub(super) fn write_zero_chunk(&self, offset: u64, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(ZEROES.len());
        self.file.write_all_at(ZEROES.get(..len).unwrap_or_default(), offset)
    }

    fn allocate(&self, mode: FallocateFlags, range: &Range) -> io::Result<()> {
        let offset = i64::try_from(range.offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let len = i64::try_from(range.len).map_err(|_| io::ErrorKind::InvalidInput)?;
        fallocate(&self.file, mode, offset, len).map_err(io::Error::from)
    }
}

/// Files: guests may do 512-byte I/O, and are told that 4096 is what suits the host.
const FILE_BLOCKS: BlockSizes = BlockSizes { logical: 512, physical: 4096 };

fn id_bytes(id: &str) -> Option<[u8; ID_BYTES]> {
    let mut bytes = [0; ID_BYTES];
    bytes.get_mut(..id.len())?.copy_from_slice(id.as_bytes());
    Some(bytes)
}

fn open_error(path: &Path, read_only: bool, error: io::Error) -> DiskError {
    let path = path.to_owned();
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENOTDIR) => DiskError::Missing(path),
        Some(Errno::EISDIR) => DiskError::Directory(path),
        Some(Errno::ENXIO | Errno::ENODEV) => DiskError::NotADisk(path),
        Some(Errno::EROFS) => DiskError::ReadOnlyMedium(path),
        Some(Errno::EACCES | Errno::EPERM) if read_only => {
            DiskError::NotPermitted { path, access: "read it", hint: "" }
        }
        Some(Errno::EACCES | Errno::EPERM) => DiskError::NotPermitted {
            path,
            access: "read and write it",
            hint: ", or add ',readonly'",
        },
        _ => DiskError::Host { path, source: error },
    }
}

fn check_type(metadata: &Metadata, path: &Path) -> Result<(), DiskError> {
    let kind = metadata.file_type();
    if kind.is_dir() {
        Err(DiskError::Directory(path.to_owned()))
    } else if kind.is_file() || kind.is_block_device() {
        Ok(())
    } else {
        Err(DiskError::NotADisk(path.to_owned()))
    }
}

fn lock(file: &File, path: &Path, read_only: bool) -> Result<(), DiskError> {
    let kind = if read_only { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole_file = libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0, // SEEK_SET
        l_start: 0,
        l_len: 0, // to the end, wherever that will be
        l_pid: 0, // required of open file description locks
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file)) {
        Ok(_) => Ok(()),
        Err(Errno::EAGAIN | Errno::EACCES) => Err(DiskError::InUse {
            path: path.to_owned(),
            remedy: if read_only {
                "stop the one that writes to it"
            } else {
                "stop the other one, or add ',readonly' in both"
            },
        }),
        Err(error) => Err(DiskError::Host { path: path.to_owned(), source: error.into() }),
    }
}

/// Returns whether the file system can free blocks: asked by freeing none, beyond the end.
fn can_punch(file: &File, bytes: u64) -> bool {
    let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    i64::try_from(bytes).is_ok_and(|end| fallocate(file, mode, end, 4096).is_ok())
}

mod block_sizes {
    //! Block sizes of a block device.
    #![allow(unsafe_code, reason = "two ioctls")]

    use super::{AsRawFd, BlockSizes, File};

    nix::ioctl_read_bad!(logical_size, libc::BLKSSZGET, libc::c_int);
    nix::ioctl_read_bad!(physical_size, libc::BLKPBSZGET, libc::c_uint);

    /// Asks the device for its block size; 512 where the device does not say, or says what cannot be.
    pub(super) fn of_device(file: &File) -> BlockSizes {
        let (mut logical, mut physical) = (0, 0);
        // SAFETY: the descriptor is open, and the kernel writes one integer to the place given.
        let _ = unsafe { logical_size(file.as_raw_fd(), &mut logical) };
        // SAFETY: as above.
        let _ = unsafe { physical_size(file.as_raw_fd(), &mut physical) };
        let sane = |size: u32| if size.is_power_of_two() { size.max(512) } else { 512 };
        let logical = sane(u32::try_from(logical).unwrap_or(0));
        BlockSizes { logical, physical: sane(physical).max(logical) }
    }
}
