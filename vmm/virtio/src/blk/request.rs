//! From the bytes of a request to what it asks for; no I/O.

use super::spec::{RANGE_UNMAP, SECTOR, Status, request};

/// The most ranges in one discard or write-zeroes request.
pub const MAX_RANGES: usize = 32;

/// The most sectors (1 GiB) in one range: bounds how long one request keeps the disk busy.
pub const MAX_RANGE_SECTORS: u32 = 1 << 21;

/// What requests are held against.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Sectors the disk has.
    pub sectors: u64,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether discard and write-zeroes were offered.
    pub discard: bool,
}

/// A request whose range, if it has one, lies on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Fill the writable data from byte `offset` of the disk.
    Read {
        /// The offset on the disk, in bytes.
        offset: u64,
    },
    /// Write the readable data to byte `offset` of the disk.
    Write {
        /// The offset on the disk, in bytes.
        offset: u64,
    },
    /// Make everything that was completed durable.
    Flush,
    /// Tell the disk's name.
    GetId,
    /// Deallocate this many ranges, which follow.
    Discard {
        /// How many ranges follow, 1 to [`MAX_RANGES`].
        ranges: usize,
    },
    /// Zero this many ranges, which follow.
    WriteZeroes {
        /// How many ranges follow, 1 to [`MAX_RANGES`].
        ranges: usize,
    },
}

/// A range of the disk to discard or zero; it lies on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// The offset of the first byte on the disk.
    pub offset: u64,
    /// Bytes, possibly 0.
    pub len: u64,
    /// The blocks may be deallocated.
    pub unmap: bool,
}

impl Request {
    /// Parses `virtio_blk_req`: the header, the number of readable data bytes after it, and the
    /// number of writable data bytes before the status. The error is the status to answer with.
    pub fn parse(
        header: [u8; 16],
        readable: usize,
        writable: usize,
        bounds: Bounds,
    ) -> Result<Self, Status> {
        let [t0, t1, t2, t3, _, _, _, _, sector @ ..] = header;
        let sector = u64::from_le_bytes(sector);
        match u32::from_le_bytes([t0, t1, t2, t3]) {
            request::IN => Ok(Self::Read { offset: bounds.data(sector, writable)? }),
            request::OUT => {
                bounds.writable()?;
                Ok(Self::Write { offset: bounds.data(sector, readable)? })
            }
            request::FLUSH => Ok(Self::Flush),
            request::GET_ID => Ok(Self::GetId),
            request::DISCARD if bounds.discard => {
                bounds.writable()?;
                Ok(Self::Discard { ranges: ranges(readable)? })
            }
            request::WRITE_ZEROES if bounds.discard => {
                bounds.writable()?;
                Ok(Self::WriteZeroes { ranges: ranges(readable)? })
            }
            _ => Err(Status::Unsupported),
        }
    }
}

impl Range {
    /// Parses `virtio_blk_discard_write_zeroes`; `discard` says of which request it is part.
    pub fn parse(raw: [u8; 16], discard: bool, bounds: Bounds) -> Result<Self, Status> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = raw;
        let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let sectors = u32::from_le_bytes([n0, n1, n2, n3]);
        let flags = u32::from_le_bytes(flags);
        // Section 5.2.6.2: unknown flags, and unmap on a discard, are unsupported.
        if flags & !RANGE_UNMAP != 0 || (discard && flags != 0) {
            return Err(Status::Unsupported);
        }
        if sectors > MAX_RANGE_SECTORS {
            return Err(Status::IoErr);
        }
        let len = u64::from(sectors) * SECTOR;
        let offset = bounds.range(sector, len)?;
        Ok(Self { offset, len, unmap: flags & RANGE_UNMAP != 0 })
    }

    /// Returns the range in parts that end at multiples of `size` bytes; none if it is empty.
    pub(super) fn pieces(&self, size: u64) -> impl Iterator<Item = Self> {
        let Self { offset, len, unmap } = *self;
        let end = offset.saturating_add(len);
        let next = move |from: u64| {
            let to = from.saturating_add(1).next_multiple_of(size.max(1)).min(end);
            (from < end).then_some(Self { offset: from, len: to - from, unmap })
        };
        std::iter::successors(next(offset), move |piece| next(piece.offset + piece.len))
    }
}

impl Bounds {
    fn writable(self) -> Result<(), Status> {
        if self.read_only { Err(Status::IoErr) } else { Ok(()) }
    }

    /// Returns the byte offset of `len` bytes of data from `sector` on: whole sectors, all on the disk.
    fn data(self, sector: u64, len: usize) -> Result<u64, Status> {
        let len = u64::try_from(len).map_err(|_| Status::IoErr)?;
        if !len.is_multiple_of(SECTOR) {
            return Err(Status::IoErr);
        }
        self.range(sector, len)
    }

    fn range(self, sector: u64, len: u64) -> Result<u64, Status> {
        let end = sector.checked_add(len / SECTOR).ok_or(Status::IoErr)?;
        if end > self.sectors {
            return Err(Status::IoErr);
        }
        // No overflow: the disk's length in bytes is one the host has.
        sector.checked_mul(SECTOR).ok_or(Status::IoErr)
    }
}

fn ranges(readable: usize) -> Result<usize, Status> {
    let count = readable / super::spec::RANGE_BYTES;
    let whole = readable.is_multiple_of(super::spec::RANGE_BYTES);
    if whole && (1..=MAX_RANGES).contains(&count) { Ok(count) } else { Err(Status::IoErr) }
}
