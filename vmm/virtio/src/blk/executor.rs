//! Carries requests out, each in pieces, between the chain's guest memory and the disk's file, for as many
//! threads as have one. Between two pieces it looks whether a reset waits.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::config::Config;
use super::disk::{Disk, ZERO_CHUNK};
use super::request::{Bounds, MAX_RANGES, Range, Request};
use super::spec::{HEADER_BYTES, ID_BYTES, RANGE_BYTES, STATUS_BYTES, Status, request};
use crate::chain::{Exhausted, Reader, Writer};
use crate::{Chain, Interrupt, QueueError};

/// Bytes moved by one system call. Between two the reset flag is looked at; Linux asks for no more in
/// a request than this, so it costs nothing.
pub(super) const PIECE_BYTES: usize = 1 << 20;

/// Bytes freed or zeroed by one system call, and the boundary pieces end at: a host may have to write
/// that many.
pub(super) const RANGE_PIECE_BYTES: u64 = 8 << 20;

/// Executes requests against one disk.
#[derive(Debug)]
pub(super) struct Executor {
    disk: Disk,
    cache: Arc<Config>,
    /// A flush failed. The kernel reports that once and then counts the pages as clean, so that the
    /// next `fdatasync` would succeed although what it promises is lost. For as long as the disk is
    /// open, whatever a guest resets: nobody can tell any more what is on it.
    ///
    /// Held while the kernel is asked for durability: of two threads that ask at once one alone would be told,
    /// and the other would promise what is lost.
    lost: Mutex<bool>,
}

/// Why a request was not done.
enum RequestError {
    /// To be told to the driver.
    Failed(Status),
    /// A reset came first, and the driver is told nothing.
    Stopped,
}

impl From<Status> for RequestError {
    fn from(status: Status) -> Self {
        Self::Failed(status)
    }
}

impl From<Exhausted> for RequestError {
    fn from(_: Exhausted) -> Self {
        Self::Failed(Status::IoErr)
    }
}

/// One request on its way.
struct Run<'a> {
    executor: &'a Executor,
    interrupt: &'a dyn Interrupt,
}

impl Executor {
    pub(super) fn new(disk: Disk, cache: Arc<Config>) -> Self {
        Self { disk, cache, lost: Mutex::new(false) }
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Executes the chain's request, writes its status, and returns the length of the used entry. The
    /// only errors are a chain that has no place for a status, and a reset that came first.
    pub(super) fn execute(
        &self,
        chain: &Chain,
        interrupt: &dyn Interrupt,
    ) -> Result<usize, QueueError> {
        let space = chain.writable_len();
        let no_status = QueueError::Request("a block request without a status byte");
        let Some(data_len) = space.checked_sub(STATUS_BYTES) else { return Err(no_status) };
        let Ok((mut data, mut status)) = chain.writer().split_at(data_len) else {
            return Err(no_status);
        };

        let run = Run { executor: self, interrupt };
        let code = match run.perform(chain.reader(), &mut data) {
            Ok(()) => Status::Ok,
            Err(RequestError::Failed(code)) => code,
            Err(RequestError::Stopped) => return Err(QueueError::Stopped),
        };
        status.write_all(&[code as u8]).map_err(|_| QueueError::Request("no status byte"))?;

        // The used length counts from the first writable byte without a gap (section 2.7.8.2), so
        // it includes the status only if all the data before it was written.
        Ok(if data.left() == 0 { space } else { data_len - data.left() })
    }

    fn check(result: io::Result<usize>, what: &str) -> Result<u64, Status> {
        match result {
            Ok(done) => Ok(done as u64),
            Err(error) => {
                tracing::warn!(%error, "{what}");
                Err(Status::IoErr)
            }
        }
    }

    /// Returns whether a request waits until something is on the disk itself: a flush, or a write without a cache.
    pub(super) fn waits_for_the_disk(&self, chain: &Chain) -> bool {
        // Whatever the driver makes of it meanwhile, this only says who carries it out.
        let kind = chain.reader().read_array::<4>().map_or(0, u32::from_le_bytes);
        kind == request::FLUSH || (kind == request::OUT && !self.cache.writeback())
    }

    /// Asks the kernel to make data durable, one thread at a time, if that could still be promised.
    fn durably(
        &self,
        interrupt: &dyn Interrupt,
        ask: impl FnOnce() -> io::Result<usize>,
    ) -> Result<u64, RequestError> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        // Others may have waited for the disk before.
        if interrupt.stopping() {
            return Err(RequestError::Stopped);
        }
        if *lost {
            return Err(Status::IoErr.into());
        }
        let result = ask();
        *lost = result.is_err();
        Self::check(
            result,
            "a disk did not keep what was written to it: until the VMM is started again no write to it counts as safe; look at the disk (dmesg, smartctl) before",
        )
        .map_err(RequestError::from)
    }

    fn flush(&self, interrupt: &dyn Interrupt) -> Result<(), RequestError> {
        self.durably(interrupt, || self.disk.flush().map(|()| 0)).map(|_| ())
    }
}

impl Run<'_> {
    fn perform(&self, mut input: Reader<'_>, data: &mut Writer<'_>) -> Result<(), RequestError> {
        let header = input.read_array::<HEADER_BYTES>()?;
        let bounds = self.executor.disk.bounds();
        match Request::parse(header, input.left(), data.left(), bounds)? {
            Request::Read { offset } => self.read(data, offset),
            Request::Write { offset } => self.write(&mut input, offset),
            Request::Flush => self.executor.flush(self.interrupt),
            Request::GetId => {
                let id = self.executor.disk.id();
                let id = id.get(..data.left().min(ID_BYTES)).unwrap_or_default();
                Ok(data.write_all(id)?)
            }
            Request::Discard { ranges } => self.ranges(input, ranges, true, bounds),
            Request::WriteZeroes { ranges } => self.ranges(input, ranges, false, bounds),
        }
    }

    /// Is called between any two pieces of work.
    fn go_on(&self) -> Result<(), RequestError> {
        if self.interrupt.stopping() { Err(RequestError::Stopped) } else { Ok(()) }
    }

    fn read(&self, data: &mut Writer<'_>, mut offset: u64) -> Result<(), RequestError> {
        while data.left() > 0 {
            self.go_on()?;
            let file = self.executor.disk.file().as_fd();
            let result = match data.pread_from(file, offset, PIECE_BYTES) {
                // Someone made the file shorter than it was.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            offset += Executor::check(result, "a disk cannot be read")?;
        }
        Ok(())
    }

    fn write(&self, data: &mut Reader<'_>, mut offset: u64) -> Result<(), RequestError> {
        let write_through = !self.executor.cache.writeback();
        let flags = if write_through { libc::RWF_DSYNC } else { 0 };
        while data.left() > 0 {
            self.go_on()?;
            let file = self.executor.disk.file().as_fd();
            let mut piece = || match data.pwrite_to(file, offset, PIECE_BYTES, flags) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            offset += if write_through {
                self.executor.durably(self.interrupt, piece)?
            } else {
                Executor::check(piece(), "a disk cannot be written")?
            };
        }
        Ok(())
    }

    /// Checks all ranges before it touches the first.
    fn ranges(
        &self,
        mut input: Reader<'_>,
        count: usize,
        discard: bool,
        bounds: Bounds,
    ) -> Result<(), RequestError> {
        let mut ranges = [Range::default(); MAX_RANGES];
        let ranges = ranges.get_mut(..count).ok_or(Status::IoErr)?;
        for range in &mut *ranges {
            let raw = input.read_array::<RANGE_BYTES>()?;
            *range = Range::parse(raw, discard, bounds)?;
        }
        for piece in ranges.iter().flat_map(|range| range.pieces(RANGE_PIECE_BYTES)) {
            self.go_on()?;
            if discard || piece.unmap {
                self.unmap(&piece, discard)?;
            } else {
                self.zero(&piece)?;
            }
        }
        if self.executor.cache.writeback() { Ok(()) } else { self.executor.flush(self.interrupt) }
    }

    fn unmap(&self, range: &Range, discard: bool) -> Result<(), RequestError> {
        match self.executor.disk.punch(range) {
            Err(error) if is_unsupported(&error) && discard => Err(Status::Unsupported.into()),
            Err(error) if is_unsupported(&error) => self.zero(range),
            other => {
                Executor::check(other.map(|()| 0), "a disk's blocks cannot be freed")?;
                Ok(())
            }
        }
    }

    fn zero(&self, range: &Range) -> Result<(), RequestError> {
        let failed = "a disk's blocks cannot be zeroed";
        match self.executor.disk.zero(range) {
            Err(error) if is_unsupported(&error) => {}
            other => {
                Executor::check(other.map(|()| 0), failed)?;
                return Ok(());
            }
        }
        // Where the host has no quicker way.
        for chunk in range.pieces(ZERO_CHUNK) {
            self.go_on()?;
            let written = self.executor.disk.write_zero_chunk(chunk.offset, chunk.len);
            Executor::check(written.map(|()| 0), failed)?;
        }
        Ok(())
    }
}

/// Returns whether an operation is not supported: EINVAL is what a block device says to a range it cannot do whole blocks of.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}
