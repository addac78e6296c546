//! Frame memory: made by the agent, filled by one VMM, and copied here before it is looked at.
//!
//! ```text
//!  VMM --writes--> frame memory --read by a thread of the frame's own--> copy --> compose
//!                                      ^                |
//!  seat's thread: fetch(part) ---------'                '--> fetched()
//! ```
//! To touch a page that another process has too can mean to wait for that process. While it punches a hole into the memory, as whoever may write by
//! a descriptor can, a page fault there waits until it is done (`shmem_fault` in the kernel's `mm/shmem.c`); and a page that it has
//! locked is waited for by everybody. No signal ends such a wait, and the other process is at it for as long as its own threads keep
//! each other from a processor. So the seat's thread never touches this memory, and the agent has it nowhere mapped: whoever faults may wait with a lock
//! without which no thread of the process maps anything. `pread` has none of the agent's locks while it waits.
//!
//! The seal against holes and writes (`F_SEAL_FUTURE_WRITE`) is no remedy: the VMM has to map the memory before it is set, and to set it takes the
//! lock that a hole is punched under.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::mpsc::{self, TryRecvError};
use std::thread;

use base::mailbox::{Heartbeat, Liveness, STACK};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use seat_link::{PIXEL_BYTES, Rect, Size};
use vm_memory::{FileOffset, MmapRegion, VolatileMemory};

/// Bytes read by one call. An agent that is to end waits for the pages of one; at this size the calls cost little beside the copying.
const BAND: usize = 32 << 10;

/// The picture of one domain's screen, XRGB8888 without gaps between rows. The VMM may change its memory at any
/// moment; what is looked at is the copy, which holds what was fetched.
pub struct Frame {
    // The first two go before `wanted`, at whose end the thread ends: the pages are given back by it, and not by the seat's thread.
    memory: File,
    copy: Arc<MmapRegion>,
    wanted: mpsc::Sender<Rect>,
    done: mpsc::Receiver<io::Result<()>>,
    reader: Liveness,
    size: Size,
}

impl Frame {
    /// Makes black memory for a screen of this size, sealed so that no read of it comes to an end before its time.
    ///
    /// # Errors
    /// The size is no screen's, memory is short, or the process has no thread left.
    pub fn new(size: Size) -> io::Result<Self> {
        let memory = memory("bulkhead-frame", size)?;
        let source = memory.try_clone()?;
        Self::with_source(memory, source, size)
    }

    /// Makes the frame whose VMM has `memory`, and whose pixels are read from `source`.
    fn with_source<S>(memory: File, source: S, size: Size) -> io::Result<Self>
    where
        S: FileExt + Send + 'static,
    {
        let copy = Arc::new(copy(size)?);
        let (wanted, parts) = mpsc::channel();
        let (results, done) = mpsc::channel();
        let (liveness, seat) = Liveness::new()?;
        let reader = Reader { source, copy: Arc::clone(&copy), size, results, seat };
        // At the priority of the thread that starts it, the seat's, on which these bytes were copied before: a picture is no later than it was.
        let thread = thread::Builder::new().name("frame".to_owned()).stack_size(STACK);
        // Nobody waits for its end, which a VMM can put off.
        thread.spawn(move || reader.run(&parts))?;
        Ok(Self { memory, copy, wanted, done, reader: liveness, size })
    }

    /// Returns the pixels across and down.
    #[must_use]
    pub fn size(&self) -> Size {
        self.size
    }

    /// Returns what the VMM is given.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Has this part read into the copy; [`Self::fetched`] says when it is there. One part at a time.
    pub fn fetch(&self, part: Rect) {
        // A thread that has died is told by `fetched`.
        let _ = self.wanted.send(part);
    }

    /// Becomes readable when [`Self::fetched`] has something to say.
    #[must_use]
    pub fn fetched_fd(&self) -> BorrowedFd<'_> {
        self.reader.fd()
    }

    /// Returns whether the part that was fetched is in the copy now; `None` while it is on its way.
    pub fn fetched(&self) -> Option<io::Result<()>> {
        // Whose thread has died stays readable: that is an answer to whatever is fetched then.
        if !self.reader.has_ended() {
            self.reader.take_wakeup();
        }
        match self.done.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                Some(Err(io::Error::other("the thread that reads it has failed")))
            }
        }
    }

    /// Copies `width` pixels from (`x`, `y`) on, as they were fetched; those beyond the frame stay as they are.
    pub fn copy_row(&self, x: u32, y: u32, to: &mut [u8]) {
        let row = Rect { x, y, width: u32::try_from(to.len() / 4).unwrap_or(0), height: 1 };
        let row = row.within(self.size);
        let at = (row.y as usize * self.size.width as usize + row.x as usize) * 4;
        let bytes = row.width as usize * 4;
        if let (Ok(from), Some(to)) = (self.copy.get_slice(at, bytes), to.get_mut(..bytes))
            && row.height == 1
        {
            from.copy_to(to);
        }
    }
}

/// What the thread of a frame has. The results go before the wake-up, which thus finds them gone.
struct Reader<S> {
    source: S,
    copy: Arc<MmapRegion>,
    size: Size,
    results: mpsc::Sender<io::Result<()>>,
    seat: Heartbeat,
}

impl<S: FileExt> Reader<S> {
    /// Reads each part that is wanted, until nobody wants any.
    fn run(self, parts: &mpsc::Receiver<Rect>) {
        let mut band = vec![0; BAND];
        while let Ok(part) = parts.recv() {
            if self.results.send(self.read(part, &mut band)).is_err() {
                return;
            }
            self.seat.wake_daemon();
        }
    }

    fn read(&self, part: Rect, band: &mut [u8]) -> io::Result<()> {
        let part = part.within(self.size);
        let pixel = PIXEL_BYTES as usize;
        let (stride, width) = (self.size.width as usize * pixel, part.width as usize * pixel);
        // Whole rows lie one after the other.
        let (rows, bytes) = match part.height as usize {
            height if width == stride => (1, width * height),
            height => (height, width),
        };
        let first = part.y as usize * stride + part.x as usize * pixel;
        for start in (0..rows).map(|row| first + row * stride) {
            let end = start + bytes;
            for at in (start..end).step_by(BAND) {
                // A frame that nobody has any more is read no further, however long its VMM draws that out.
                if Arc::strong_count(&self.copy) == 1 {
                    return Ok(());
                }
                let length = BAND.min(end - at);
                let band = band.get_mut(..length).unwrap_or_default();
                self.source.read_exact_at(band, at as u64)?;
                self.copy.get_slice(at, length).map_err(io::Error::other)?.copy_from(band);
            }
        }
        Ok(())
    }
}

/// Makes black memory for the pixels of a screen, whose length nobody changes.
fn memory(name: &str, size: Size) -> io::Result<File> {
    let bytes = size.frame_bytes();
    if bytes == 0 {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(name, flags)?);
    file.set_len(bytes as u64)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Maps memory for the copy. It has a name, so that who measures the agent can tell guests' pictures from what it needs itself.
fn copy(size: Size) -> io::Result<MmapRegion> {
    let file = memory("bulkhead-frame-copy", size)?;
    MmapRegion::build(
        Some(FileOffset::new(file, 0)),
        size.frame_bytes(),
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | libc::MAP_NORESERVE,
    )
    .map_err(io::Error::other)
}

#[cfg(test)]
pub(crate) mod tests;
