//! Numbers and layouts of virtio 1.2 section 5.2.

/// Section 5.2.1.
pub(super) const DEVICE_ID: u32 = 2;

/// Section 5.2.2.
pub(super) const REQUEST_QUEUE: usize = 0;

/// A sector in bytes, whatever the block size says (section 5.2.4).
pub const SECTOR: u64 = 512;

/// Feature bits, section 5.2.3.
pub(super) mod feature {
    pub(in super::super) const SIZE_MAX: u64 = 1 << 1;
    pub(in super::super) const SEG_MAX: u64 = 1 << 2;
    pub(in super::super) const RO: u64 = 1 << 5;
    pub(in super::super) const BLK_SIZE: u64 = 1 << 6;
    pub(in super::super) const FLUSH: u64 = 1 << 9;
    pub(in super::super) const TOPOLOGY: u64 = 1 << 10;
    pub(in super::super) const CONFIG_WCE: u64 = 1 << 11;
    pub(in super::super) const DISCARD: u64 = 1 << 13;
    pub(in super::super) const WRITE_ZEROES: u64 = 1 << 14;
}

/// `virtio_blk_config`, section 5.2.4: offsets and length in bytes.
pub(super) mod config {
    pub(in super::super) const CAPACITY: usize = 0;
    pub(in super::super) const SIZE_MAX: usize = 8;
    pub(in super::super) const SEG_MAX: usize = 12;
    pub(in super::super) const BLK_SIZE: usize = 20;
    pub(in super::super) const PHYSICAL_BLOCK_EXP: usize = 24;
    pub(in super::super) const MIN_IO_SIZE: usize = 26;
    pub(in super::super) const OPT_IO_SIZE: usize = 28;
    pub(in super::super) const WRITEBACK: usize = 32;
    pub(in super::super) const NUM_QUEUES: usize = 34;
    pub(in super::super) const MAX_DISCARD_SECTORS: usize = 36;
    pub(in super::super) const MAX_DISCARD_SEG: usize = 40;
    pub(in super::super) const DISCARD_SECTOR_ALIGNMENT: usize = 44;
    pub(in super::super) const MAX_WRITE_ZEROES_SECTORS: usize = 48;
    pub(in super::super) const MAX_WRITE_ZEROES_SEG: usize = 52;
    pub(in super::super) const WRITE_ZEROES_MAY_UNMAP: usize = 56;
    /// With the fields of secure erase, which is not offered.
    pub(in super::super) const LEN: usize = 72;
}

/// Request types, section 5.2.6.
pub(super) mod request {
    pub(in super::super) const IN: u32 = 0;
    pub(in super::super) const OUT: u32 = 1;
    pub(in super::super) const FLUSH: u32 = 4;
    pub(in super::super) const GET_ID: u32 = 8;
    pub(in super::super) const DISCARD: u32 = 11;
    pub(in super::super) const WRITE_ZEROES: u32 = 13;
}

/// `virtio_blk_req` up to the data: type, reserved, sector.
pub(super) const HEADER_BYTES: usize = 16;

/// The status byte at the end of the writable part.
pub(super) const STATUS_BYTES: usize = 1;

/// `virtio_blk_discard_write_zeroes`: sector, number of sectors, flags.
pub(super) const RANGE_BYTES: usize = 16;

/// The one flag of a range: the blocks may be deallocated.
pub(super) const RANGE_UNMAP: u32 = 1;

/// What GET_ID answers with.
pub(super) const ID_BYTES: usize = 20;

/// The last byte of a request, section 5.2.6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The request was carried out.
    Ok = 0,
    /// Not done: a host error, a range beyond the end, a write to a read-only disk.
    IoErr = 1,
    /// A request or flag this device does not know.
    Unsupported = 2,
}
