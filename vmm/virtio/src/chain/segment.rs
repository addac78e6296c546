//! A run of guest memory as the host has it mapped, and the system calls on lists of them.
//!
//! Unsafe code is here because the kernel takes addresses, and because a chain outlives the borrow
//! under which its addresses were looked up. What makes it sound is the invariant of [`Chain`]:
//! each segment was cut out of a mapped region whose mapping the chain's `Arc` holds.
//!
//! [`Chain`]: super::Chain
#![allow(unsafe_code, reason = "system calls on guest memory, and nothing else")]

use std::io;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use vm_memory::VolatileSlice;

use super::MAX_DESCRIPTORS;

/// The kernel's limit on vectors in one call (`UIO_MAXIOV`).
const IOV_MAX: usize = 1024;

// One system call carries a whole chain, as long as no buffer straddles two memory regions.
const _: () = assert!(MAX_DESCRIPTORS <= IOV_MAX);

/// A run of bytes of guest memory, mapped at one host address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    base: *mut u8,
    len: usize,
}

// SAFETY: the address is that of guest memory, which any thread may touch; all access to it is
// volatile or by the kernel.
unsafe impl Send for Segment {}
// SAFETY: as above; a shared segment allows nothing that an owned one does not.
unsafe impl Sync for Segment {}

impl Segment {
    pub(super) fn new(slice: &VolatileSlice<'_>) -> Self {
        Self { base: slice.ptr_guard_mut().as_ptr(), len: slice.len() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns `len` bytes from `skip` on; fewer if the segment has fewer.
    pub(super) fn part(self, skip: usize, len: usize) -> Self {
        let skip = skip.min(self.len);
        // SAFETY: `skip` is at most the length of the run that starts at `base`.
        let base = unsafe { self.base.add(skip) };
        Self { base, len: len.min(self.len - skip) }
    }

    /// Returns the bytes, for copying.
    ///
    /// `&'a self` borrows from a list that a chain owns, and with it the mapping.
    pub(super) fn slice(&self) -> VolatileSlice<'_> {
        // SAFETY: the chain this segment belongs to keeps `len` bytes from `base` mapped, and what
        // is made here does not outlive the borrow of it; access through it is volatile.
        unsafe { VolatileSlice::new(self.base, self.len) }
    }

    fn iovec(self) -> libc::iovec {
        libc::iovec { iov_base: self.base.cast(), iov_len: self.len }
    }
}

/// The kernel writes to what the vectors name.
pub(super) enum Fill {}

/// The kernel only reads what the vectors name.
pub(super) enum Drain {}

/// A list of vectors on the stack, for one system call in one `Direction`. It is filled in place and
/// never moved: it has 16 KiB, of which a call mostly uses a few dozen bytes.
pub(super) struct Vectors<'a, Direction> {
    filled: usize,
    vectors: [MaybeUninit<libc::iovec>; IOV_MAX],
    /// Borrows the segments, and the host's bytes beside them.
    borrows: PhantomData<(&'a mut [u8], Direction)>,
}

impl<Direction> Vectors<'_, Direction> {
    pub(super) fn new() -> Self {
        let vectors = [const { MaybeUninit::uninit() }; IOV_MAX];
        Self { filled: 0, vectors, borrows: PhantomData }
    }

    /// Adds as many of `segments` as one call takes.
    pub(super) fn add(&mut self, segments: impl Iterator<Item = Segment>) {
        segments.map(Segment::iovec).take_while(|&vector| self.push(vector)).for_each(drop);
    }

    fn push(&mut self, vector: libc::iovec) -> bool {
        let Some(place) = self.vectors.get_mut(self.filled) else { return false };
        place.write(vector);
        self.filled += 1;
        true
    }

    fn ptr(&self) -> *const libc::iovec {
        self.vectors.as_ptr().cast()
    }

    fn count(&self) -> libc::c_int {
        libc::c_int::try_from(self.filled).unwrap_or(0)
    }
}

impl<'a> Vectors<'a, Fill> {
    /// Adds room of the host's.
    pub(super) fn add_room(&mut self, room: &'a mut [u8]) {
        self.push(libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: room.len() });
    }

    /// Reads from the file at `offset` into guest memory, by `preadv(2)`.
    pub(super) fn pread(&self, fd: BorrowedFd<'_>, offset: i64) -> io::Result<usize> {
        retry(|| {
            // SAFETY: `ptr` heads `count` vectors, each over memory the chain keeps mapped
            // or the borrow keeps alive.
            unsafe { libc::preadv(fd.as_raw_fd(), self.ptr(), self.count(), offset) }
        })
    }

    /// Reads from `fd` into the guest's memory, by one `readv(2)`; returns the bytes read.
    pub(super) fn read(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        retry(|| {
            // SAFETY: `ptr` heads `count` vectors, each over memory the chain keeps mapped
            // or the borrow keeps alive.
            unsafe { libc::readv(fd.as_raw_fd(), self.ptr(), self.count()) }
        })
    }
}

impl<'a> Vectors<'a, Drain> {
    /// Adds bytes of the host's.
    pub(super) fn add_bytes(&mut self, bytes: &'a [u8]) {
        let iov_base = bytes.as_ptr().cast_mut().cast();
        self.push(libc::iovec { iov_base, iov_len: bytes.len() });
    }

    /// Writes from guest memory into the file at `offset`; `flags` are `RWF_*`.
    pub(super) fn pwrite(&self, fd: BorrowedFd<'_>, offset: i64, flags: i32) -> io::Result<usize> {
        retry(|| {
            // SAFETY: `ptr` heads `count` vectors, each over memory the chain keeps mapped
            // or the borrow keeps alive.
            unsafe { libc::pwritev2(fd.as_raw_fd(), self.ptr(), self.count(), offset, flags) }
        })
    }

    /// Writes from the guest's memory to `fd`, by one `writev(2)`; returns the bytes written.
    pub(super) fn write(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        retry(|| {
            // SAFETY: `ptr` heads `count` vectors, each over memory the chain keeps mapped
            // or the borrow keeps alive.
            unsafe { libc::writev(fd.as_raw_fd(), self.ptr(), self.count()) }
        })
    }
}

/// Calls again while a signal gets in the way.
fn retry(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<usize> {
    loop {
        match usize::try_from(call()) {
            Ok(done) => return Ok(done),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}
