//! Carries requests out, one at a time, between the chain's guest memory and the disk's file.

use std::io;
use std::os::fd::AsFd;

use super::disk::{Disk, ZERO_CHUNK};
use super::request::{Bounds, MAX_RANGES, Range, Request};
use super::spec::{HEADER_BYTES, ID_BYTES, RANGE_BYTES, STATUS_BYTES, Status};
use crate::chain::{Reader, Writer};
use crate::complaints::Complaints;
use crate::{Chain, QueueError};

/// Executes requests against one disk.
#[derive(Debug)]
pub(super) struct Executor {
    disk: Disk,
    /// Every write is durable before it completes.
    pub(super) write_through: bool,
    /// For what goes wrong on the host.
    pub(super) complaints: Complaints,
}

impl Executor {
    pub(super) fn new(disk: Disk) -> Self {
        Self { disk, write_through: false, complaints: Complaints::new("virtio-blk") }
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// Does what the chain asks, writes its status, and returns the length of the used entry. The
    /// only error is a chain that has no place for a status.
    pub(super) fn execute(&mut self, chain: &Chain) -> Result<usize, QueueError> {
        let space = chain.writable_len();
        let no_status = QueueError::Request("a block request without a status byte");
        let Some(data_len) = space.checked_sub(STATUS_BYTES) else { return Err(no_status) };
        let Ok((mut data, mut status)) = chain.writer().split_at(data_len) else {
            return Err(no_status);
        };

        let result = self.perform(chain.reader(), &mut data);
        let code = match result {
            Ok(()) => Status::Ok,
            Err(code) => code,
        };
        status.write_all(&[code as u8]).map_err(|_| QueueError::Request("no status byte"))?;

        // The used length counts from the first writable byte without a gap (section 2.7.8.2), so
        // it includes the status only if all the data before it was written.
        Ok(if data.left() == 0 { space } else { data_len - data.left() })
    }

    fn perform(&mut self, mut input: Reader<'_>, data: &mut Writer<'_>) -> Result<(), Status> {
        let header = input.read_array::<HEADER_BYTES>().map_err(|_| Status::IoErr)?;
        let bounds = self.disk.bounds();
        match Request::parse(header, input.left(), data.left(), bounds)? {
            Request::Read { offset } => self.read(data, offset),
            Request::Write { offset } => self.write(&mut input, offset),
            Request::Flush => self.flush(),
            Request::GetId => {
                let id = self.disk.id();
                let id = id.get(..data.left().min(ID_BYTES)).unwrap_or_default();
                data.write_all(id).map_err(|_| Status::IoErr)
            }
            Request::Discard { ranges } => self.ranges(input, ranges, true, bounds),
            Request::WriteZeroes { ranges } => self.ranges(input, ranges, false, bounds),
        }
    }

    fn read(&mut self, data: &mut Writer<'_>, mut offset: u64) -> Result<(), Status> {
        while data.left() > 0 {
            let result = match data.pread_from(self.disk.file().as_fd(), offset) {
                // Someone made the file shorter than it was.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                other => other,
            };
            offset += self.check(result, "a disk cannot be read")?;
        }
        Ok(())
    }

    fn write(&mut self, data: &mut Reader<'_>, mut offset: u64) -> Result<(), Status> {
        let flags = if self.write_through { libc::RWF_DSYNC } else { 0 };
        while data.left() > 0 {
            let result = match data.pwrite_to(self.disk.file().as_fd(), offset, flags) {
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                other => other,
            };
            offset += self.check(result, "a disk cannot be written")?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Status> {
        let result = self.disk.flush().map(|()| 0);
        self.check(result, "a disk cannot be flushed").map(|_| ())
    }

    /// Checks all ranges before it touches the first.
    fn ranges(
        &mut self,
        mut input: Reader<'_>,
        count: usize,
        discard: bool,
        bounds: Bounds,
    ) -> Result<(), Status> {
        let mut ranges = [Range::default(); MAX_RANGES];
        let ranges = ranges.get_mut(..count).ok_or(Status::IoErr)?;
        for range in &mut *ranges {
            let raw = input.read_array::<RANGE_BYTES>().map_err(|_| Status::IoErr)?;
            *range = Range::parse(raw, discard, bounds)?;
        }
        for range in ranges.iter().filter(|range| range.len > 0) {
            if discard || range.unmap {
                self.unmap(range, discard)?;
            } else {
                self.zero(range)?;
            }
        }
        if self.write_through { self.flush() } else { Ok(()) }
    }

    fn unmap(&mut self, range: &Range, discard: bool) -> Result<(), Status> {
        match self.disk.punch(range) {
            Err(error) if is_unsupported(&error) && discard => Err(Status::Unsupported),
            Err(error) if is_unsupported(&error) => self.zero(range),
            other => self.check(other.map(|()| 0), "a disk's blocks cannot be freed").map(|_| ()),
        }
    }

    fn zero(&mut self, range: &Range) -> Result<(), Status> {
        let result = match self.disk.zero(range) {
            Err(error) if is_unsupported(&error) => self.write_zeroes(range),
            other => other,
        };
        self.check(result.map(|()| 0), "a disk's blocks cannot be zeroed").map(|_| ())
    }

    /// Where the host has no quicker way.
    fn write_zeroes(&self, range: &Range) -> io::Result<()> {
        let mut done = 0;
        while done < range.len {
            let chunk = (range.len - done).min(ZERO_CHUNK);
            self.disk.write_zero_chunk(range.offset + done, chunk)?;
            done += chunk;
        }
        Ok(())
    }

    fn check(&mut self, result: io::Result<usize>, what: &str) -> Result<u64, Status> {
        match result {
            Ok(done) => Ok(done as u64),
            Err(error) => {
                self.complaints.host(&error, what);
                Err(Status::IoErr)
            }
        }
    }
}

/// EINVAL is what a block device says to a range it cannot do whole blocks of.
fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL))
}
