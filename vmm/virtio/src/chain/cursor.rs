//! Moving through the readable and the writable part of a chain.

use std::io;
use std::os::fd::BorrowedFd;

use vm_memory::VolatileSlice;

use super::segment::{Drain, Fill, Segment, Vectors};

/// Fewer bytes are left than were asked for. Nothing was moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} bytes wanted, {left} left in the descriptor chain")]
pub struct Exhausted {
    /// How many bytes were asked for.
    pub wanted: usize,
    /// How many there are.
    pub left: usize,
}

/// A reader of the part of a chain that the device may read, front to back.
#[derive(Clone, Debug)]
pub struct Reader<'a>(Cursor<'a>);

/// A writer into the part of a chain that the device may write, front to back.
#[derive(Debug)]
pub struct Writer<'a>(Cursor<'a>);

impl<'a> Reader<'a> {
    pub(super) fn new(segments: &'a [Segment], len: usize) -> Self {
        Self(Cursor { segments, skip: 0, left: len })
    }

    /// Returns how many bytes are left to read.
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Copies the next `data.len()` bytes out of guest memory.
    pub fn read_exact(&mut self, data: &mut [u8]) -> Result<(), Exhausted> {
        self.0.has(data.len())?;
        let mut rest = data;
        self.0.advance(rest.len(), |slice| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(slice.len());
            slice.copy_to(now);
            rest = later;
        });
        Ok(())
    }

    /// Copies the next `N` bytes out of guest memory.
    pub fn read_array<const N: usize>(&mut self) -> Result<[u8; N], Exhausted> {
        let mut data = [0; N];
        self.read_exact(&mut data)?;
        Ok(data)
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: usize) -> Result<(), Exhausted> {
        self.0.has(len)?;
        self.0.advance(len, |_| ());
        Ok(())
    }

    /// Parts what is left into its first `at` bytes and the rest.
    pub fn split_at(self, at: usize) -> Result<(Self, Self), Exhausted> {
        let (front, back) = self.0.split_at(at)?;
        Ok((Self(front), Self(back)))
    }

    /// Lets the kernel write what is left, `most` bytes at most, to `file` at `offset` bytes
    /// (`pwritev2`, `RWF_*` flags), and moves on by as much as it took: the returned number of bytes.
    pub fn pwrite_to(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        most: usize,
        flags: i32,
    ) -> io::Result<usize> {
        let mut vectors = Vectors::<Drain>::new();
        vectors.add(self.0.next(most));
        let done = vectors.pwrite(file, file_offset(offset)?, flags)?;
        Ok(self.0.moved(done))
    }

    /// Lets the kernel write `header` and what is left to `file` in one `writev`; returns how many
    /// bytes it took of both. For a file that takes all or nothing, as a tap does.
    pub fn write_behind(self, header: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
        let mut vectors = Vectors::<Drain>::new();
        vectors.add_bytes(header);
        vectors.add(self.0.rest());
        vectors.write(file)
    }

    /// Lets the kernel send what is left over `socket` (`writev`, which hands no file descriptor over),
    /// and moves on by as much as it took. A socket whose peer has gone is an error where `SIGPIPE` is
    /// ignored, as in every Rust program that does not say otherwise.
    pub fn send_to(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut vectors = Vectors::<Drain>::new();
        vectors.add(self.0.rest());
        let done = vectors.write(socket)?;
        Ok(self.0.moved(done))
    }
}

impl<'a> Writer<'a> {
    pub(super) fn new(segments: &'a [Segment], len: usize) -> Self {
        Self(Cursor { segments, skip: 0, left: len })
    }

    /// Returns how many bytes are left to write.
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// Copies `data` into guest memory.
    pub fn write_all(&mut self, data: &[u8]) -> Result<(), Exhausted> {
        self.0.has(data.len())?;
        let mut rest = data;
        self.0.advance(rest.len(), |slice| {
            let (now, later) = rest.split_at(slice.len());
            slice.copy_from(now);
            rest = later;
        });
        Ok(())
    }

    /// Parts what is left into its first `at` bytes and the rest.
    pub fn split_at(self, at: usize) -> Result<(Self, Self), Exhausted> {
        let (front, back) = self.0.split_at(at)?;
        Ok((Self(front), Self(back)))
    }

    /// Lets the kernel fill what is left, `most` bytes at most, from `file` at `offset` bytes
    /// (`preadv`), and moves on by as much as it gave: the returned number of bytes, 0 at the end of
    /// the file.
    pub fn pread_from(
        &mut self,
        file: BorrowedFd<'_>,
        offset: u64,
        most: usize,
    ) -> io::Result<usize> {
        let mut vectors = Vectors::<Fill>::new();
        vectors.add(self.0.next(most));
        let done = vectors.pread(file, file_offset(offset)?)?;
        Ok(self.0.moved(done))
    }

    /// Lets the kernel fill what is left from `file` (`readv`), and then `spill`; returns how many
    /// bytes came in all. For a file that loses what does not fit, as a tap does.
    pub fn read_spilling(&mut self, file: BorrowedFd<'_>, spill: &mut [u8]) -> io::Result<usize> {
        let mut vectors = Vectors::<Fill>::new();
        vectors.add(self.0.rest());
        vectors.add_room(spill);
        let done = vectors.read(file)?;
        self.0.moved(done.min(self.0.left));
        Ok(done)
    }

    /// Lets the kernel fill what is left from `file` (`readv`), and moves on by as much as it gave:
    /// 0 at the end.
    pub fn read_from(&mut self, file: BorrowedFd<'_>) -> io::Result<usize> {
        let mut vectors = Vectors::<Fill>::new();
        vectors.add(self.0.rest());
        let done = vectors.read(file)?;
        Ok(self.0.moved(done))
    }
}

/// A place in a list of segments, and how far it goes from there.
#[derive(Clone, Debug)]
struct Cursor<'a> {
    segments: &'a [Segment],
    /// Bytes of the first segment that are done.
    skip: usize,
    /// Bytes left; never more than `segments` have after `skip`.
    left: usize,
}

impl Cursor<'_> {
    fn has(&self, wanted: usize) -> Result<(), Exhausted> {
        if wanted <= self.left { Ok(()) } else { Err(Exhausted { wanted, left: self.left }) }
    }

    /// Moves `len` bytes on, and shows what it passes.
    fn advance(&mut self, len: usize, mut pass: impl FnMut(VolatileSlice<'_>)) {
        let mut len = len.min(self.left);
        while len > 0
            && let Some((first, rest)) = self.segments.split_first()
        {
            let part = first.part(self.skip, len);
            pass(part.slice());
            len -= part.len();
            self.left -= part.len();
            self.skip += part.len();
            if self.skip == first.len() {
                self.segments = rest;
                self.skip = 0;
            }
        }
    }

    fn moved(&mut self, len: usize) -> usize {
        self.advance(len, |_| ());
        len
    }

    fn split_at(self, at: usize) -> Result<(Self, Self), Exhausted> {
        self.has(at)?;
        let front = Self { left: at, ..self.clone() };
        let mut back = self;
        back.advance(at, |_| ());
        Ok((front, back))
    }

    fn rest(&self) -> impl Iterator<Item = Segment> {
        self.next(usize::MAX)
    }

    /// Takes the next `most` bytes; fewer if fewer are left.
    fn next(&self, most: usize) -> impl Iterator<Item = Segment> {
        let (mut skip, mut left) = (self.skip, self.left.min(most));
        self.segments.iter().map_while(move |segment| {
            let part = segment.part(skip, left);
            skip = 0;
            left -= part.len();
            (part.len() > 0).then_some(part)
        })
    }
}

fn file_offset(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
