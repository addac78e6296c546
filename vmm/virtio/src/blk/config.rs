//! The configuration space (virtio 1.2 section 5.2.4).

use std::sync::atomic::{AtomicBool, Ordering};

use super::disk::Disk;
use super::request::{MAX_RANGE_SECTORS, MAX_RANGES};
use super::spec::{SECTOR, config};
use super::{SEG_MAX, SIZE_MAX};
use crate::DeviceConfig;
use crate::device::read_bytes;

/// The space; all but the write cache is what the disk is.
#[derive(Debug)]
pub(super) struct Config {
    fixed: [u8; config::LEN],
    /// Writes may wait for a flush.
    writeback: AtomicBool,
    /// The driver negotiated that it may change that.
    changeable: AtomicBool,
}

impl Config {
    pub(super) fn new(disk: &Disk) -> Self {
        let changeable = AtomicBool::new(false);
        Self { fixed: bytes(disk), writeback: AtomicBool::new(true), changeable }
    }

    pub(super) fn writeback(&self) -> bool {
        self.writeback.load(Ordering::Acquire)
    }

    /// Sets what was negotiated: whether writes are cached, and whether the driver may change that.
    pub(super) fn set(&self, writeback: bool, changeable: bool) {
        self.writeback.store(writeback, Ordering::Release);
        self.changeable.store(changeable, Ordering::Release);
    }
}

impl DeviceConfig for Config {
    fn read(&self, offset: usize, data: &mut [u8]) {
        let mut space = Space(self.fixed);
        space.put(config::WRITEBACK, &[self.writeback().into()]);
        read_bytes(&space.0, offset, data);
    }

    fn write(&self, offset: usize, data: &[u8]) {
        // Section 5.2.5: 0 or 1, by a driver that negotiated it.
        let changeable = self.changeable.load(Ordering::Acquire);
        if let (true, config::WRITEBACK, &[value @ (0 | 1)]) = (changeable, offset, data) {
            self.writeback.store(value == 1, Ordering::Release);
        }
    }

    fn reset(&self) {
        self.set(true, false);
    }
}

fn bytes(disk: &Disk) -> [u8; config::LEN] {
    let blocks = disk.blocks();
    let physical_per_logical = blocks.physical / blocks.logical;
    let exponent = u8::try_from(physical_per_logical.ilog2()).unwrap_or(0);
    let min_io = u16::try_from(physical_per_logical).unwrap_or(1);

    let mut space = Space([0; config::LEN]);
    space.put(config::CAPACITY, &disk.sectors().to_le_bytes());
    space.put(config::SIZE_MAX, &SIZE_MAX.to_le_bytes());
    space.put(config::SEG_MAX, &SEG_MAX.to_le_bytes());
    space.put(config::BLK_SIZE, &blocks.logical.to_le_bytes());
    space.put(config::PHYSICAL_BLOCK_EXP, &[exponent]);
    space.put(config::MIN_IO_SIZE, &min_io.to_le_bytes());
    space.put(config::OPT_IO_SIZE, &0_u32.to_le_bytes());
    space.put(config::NUM_QUEUES, &1_u16.to_le_bytes());
    if disk.bounds().discard {
        // The host frees whole physical blocks; what sticks out is zeroed.
        let alignment = u64::from(blocks.physical) / SECTOR;
        let alignment = u32::try_from(alignment).unwrap_or(1);
        let ranges = u32::try_from(MAX_RANGES).unwrap_or(1);
        space.put(config::MAX_DISCARD_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        space.put(config::MAX_DISCARD_SEG, &ranges.to_le_bytes());
        space.put(config::DISCARD_SECTOR_ALIGNMENT, &alignment.to_le_bytes());
        space.put(config::MAX_WRITE_ZEROES_SECTORS, &MAX_RANGE_SECTORS.to_le_bytes());
        space.put(config::MAX_WRITE_ZEROES_SEG, &ranges.to_le_bytes());
        space.put(config::WRITE_ZEROES_MAY_UNMAP, &[1]);
    }
    space.0
}

struct Space([u8; config::LEN]);

impl Space {
    fn put(&mut self, offset: usize, value: &[u8]) {
        if let Some(place) = self.0.get_mut(offset..offset + value.len()) {
            place.copy_from_slice(value);
        }
    }
}
