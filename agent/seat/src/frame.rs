//! Frame memory: made by the agent, filled by one VMM, only read here.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use seat_link::{Rect, Size};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// The picture of one domain's screen, XRGB8888 without gaps between rows. The VMM may change it at any
/// moment; it is never looked at but copied.
#[derive(Debug)]
pub struct Frame {
    size: Size,
    file: File,
    region: MmapRegion,
}

impl Frame {
    /// Makes black memory for a screen of this size, sealed so that its other user cannot shrink it under us.
    ///
    /// # Errors
    /// The size is no screen's, or memory is short.
    pub fn new(size: Size) -> io::Result<Self> {
        let bytes = size.frame_bytes();
        if bytes == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("bulkhead-frame", flags)?);
        file.set_len(bytes as u64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let region = MmapRegion::build(
            Some(FileOffset::new(file.try_clone()?, 0)),
            bytes,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
        )
        .map_err(io::Error::other)?;
        Ok(Self { size, file, region })
    }

    /// Returns the pixels across and down.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns what the VMM is given.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Copies `width` pixels from (`x`, `y`) on; those beyond the frame stay as they are.
    pub fn copy_row(&self, x: u32, y: u32, to: &mut [u8]) {
        let row = Rect { x, y, width: u32::try_from(to.len() / 4).unwrap_or(0), height: 1 };
        let row = row.within(self.size);
        let at = (row.y as usize * self.size.width as usize + row.x as usize) * 4;
        let bytes = row.width as usize * 4;
        if let (Ok(from), Some(to)) = (self.region.get_slice(at, bytes), to.get_mut(..bytes))
            && row.height == 1
        {
            from.copy_to(to);
        }
    }
}
