//! The common configuration structure (virtio 1.2 section 4.1.4.3), as a pure register machine.

use std::sync::Arc;

use virtio::GuestMemory;
use virtio_queue::{Queue, QueueT};
use vm_memory::{GuestAddress, GuestMemoryBackend};

use crate::line::IrqLine;
use crate::spec::{VERSION_1, status};

/// Offsets of the registers.
mod offset {
    pub(super) const DEVICE_FEATURE_SELECT: u64 = 0;
    pub(super) const DEVICE_FEATURE: u64 = 4;
    pub(super) const DRIVER_FEATURE_SELECT: u64 = 8;
    pub(super) const DRIVER_FEATURE: u64 = 12;
    pub(super) const CONFIG_VECTOR: u64 = 16;
    pub(super) const NUM_QUEUES: u64 = 18;
    pub(super) const STATUS: u64 = 20;
    pub(super) const GENERATION: u64 = 21;
    pub(super) const QUEUE_SELECT: u64 = 22;
    pub(super) const QUEUE_SIZE: u64 = 24;
    pub(super) const QUEUE_VECTOR: u64 = 26;
    pub(super) const QUEUE_ENABLE: u64 = 28;
    pub(super) const QUEUE_NOTIFY_OFF: u64 = 30;
    pub(super) const QUEUE_DESC: u64 = 32;
    pub(super) const QUEUE_DRIVER: u64 = 40;
    pub(super) const QUEUE_DEVICE: u64 = 48;
}

/// What the driver said of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct QueueSetup {
    max: u16,
    size: u16,
    enabled: bool,
    /// Guest-physical addresses of descriptor table, driver area and device area.
    areas: [u64; 3],
}

/// Why a queue that the driver enabled cannot be used. The driver is to blame for each of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum QueueSetupError {
    /// The size is not a power of two within the maximum (virtio 1.2 sections 2.7 and 4.1.4.3.2).
    #[error("its size {0} is no power of two or more than the device offers")]
    Size(u16),
    /// An area does not have the alignment of section 2.7.
    #[error("its {0} is at {1:#x}, which is no multiple of {2}")]
    Misaligned(&'static str, u64, u64),
    /// An area is not in RAM from its first byte to its last.
    #[error("its {0} at {1:#x} lies outside the guest's memory")]
    OutsideMemory(&'static str, u64),
}

/// What a status write leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transition {
    /// Nothing outside the registers.
    None,
    /// The driver is ready.
    Activate,
    /// The driver wants a reset.
    Reset,
}

/// The registers of the common configuration (virtio 1.2 section 4.1.4.3).
pub(crate) struct Common {
    offered: u64,
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    status: u8,
    queue_select: u16,
    queues: Vec<QueueSetup>,
    line: Arc<IrqLine>,
}

impl Common {
    pub(crate) fn new(features: u64, queue_sizes: &[u16], line: Arc<IrqLine>) -> Self {
        let queue = |&max| QueueSetup { max, size: max, ..QueueSetup::default() };
        Self {
            offered: features | VERSION_1,
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            status: 0,
            queue_select: 0,
            queues: queue_sizes.iter().map(queue).collect(),
            line,
        }
    }

    pub(crate) fn features(&self) -> u64 {
        self.driver_features
    }

    pub(crate) fn reset(&mut self) {
        self.line.reset();
        (self.device_feature_select, self.driver_feature_select) = (0, 0);
        (self.driver_features, self.status, self.queue_select) = (0, 0, 0);
        for queue in &mut self.queues {
            *queue = QueueSetup { max: queue.max, size: queue.max, ..QueueSetup::default() };
        }
    }

    /// Reads one register, or a half of a 64-bit one; anything else is zero.
    pub(crate) fn read(&self, at: u64, data: &mut [u8]) {
        let queue = self.queues.get(usize::from(self.queue_select)).copied().unwrap_or_default();
        let [desc, driver, device] = queue.areas;
        let selected = usize::from(self.queue_select);
        let half = |value: u64, base: u64| value >> (8 * (at - base));
        let value = match at {
            offset::DEVICE_FEATURE_SELECT => self.device_feature_select.into(),
            offset::DEVICE_FEATURE => word(self.offered, self.device_feature_select),
            offset::DRIVER_FEATURE_SELECT => self.driver_feature_select.into(),
            offset::DRIVER_FEATURE => word(self.driver_features, self.driver_feature_select),
            offset::CONFIG_VECTOR => self.line.config_vector().into(),
            offset::NUM_QUEUES => self.queues.len() as u64,
            offset::STATUS => (self.status | self.line.device_status()).into(),
            offset::GENERATION => self.line.generation().into(),
            offset::QUEUE_SELECT => self.queue_select.into(),
            // Zero for a queue that does not exist (section 4.1.5.1.3).
            offset::QUEUE_SIZE => queue.size.into(),
            offset::QUEUE_VECTOR => self.line.queue_vector(selected).into(),
            offset::QUEUE_ENABLE => queue.enabled.into(),
            offset::QUEUE_NOTIFY_OFF => self.queue_select.into(),
            offset::QUEUE_DESC | 36 => half(desc, offset::QUEUE_DESC),
            offset::QUEUE_DRIVER | 44 => half(driver, offset::QUEUE_DRIVER),
            offset::QUEUE_DEVICE | 52 => half(device, offset::QUEUE_DEVICE),
            _ => 0,
        };
        for (byte, from) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = from;
        }
    }

    /// Writes one register, or a half of a 64-bit one; anything else is dropped.
    pub(crate) fn write(&mut self, at: u64, data: &[u8]) -> Transition {
        let mut value = [0; 8];
        for (to, from) in value.iter_mut().zip(data) {
            *to = *from;
        }
        let value = u64::from_le_bytes(value);
        let (low32, low16) = (value as u32, value as u16);
        let selected = usize::from(self.queue_select);
        match (at, data.len()) {
            (offset::DEVICE_FEATURE_SELECT, 4) => self.device_feature_select = low32,
            (offset::DRIVER_FEATURE_SELECT, 4) => self.driver_feature_select = low32,
            (offset::DRIVER_FEATURE, 4) => self.set_driver_features(low32),
            (offset::CONFIG_VECTOR, 2) => self.line.set_config_vector(low16),
            (offset::STATUS, 1) => return self.set_status(value as u8),
            (offset::QUEUE_SELECT, 2) => self.queue_select = low16,
            (offset::QUEUE_VECTOR, 2) => self.line.set_queue_vector(selected, low16),
            // Kept as written: a driver that lays its rings out for a size that cannot be is refused
            // when it says that it is ready, not given rings of another size.
            (offset::QUEUE_SIZE, 2) => self.set_up(|queue| queue.size = low16),
            (offset::QUEUE_ENABLE, 2) if low16 == 1 => self.set_up(|queue| queue.enabled = true),
            (offset::QUEUE_DESC..56, 4 | 8) => {
                let area = ((at - offset::QUEUE_DESC) / 8) as usize;
                let shift = 8 * (at % 8);
                let mask = if data.len() == 8 { u64::MAX } else { 0xffff_ffff };
                // A half register at its place, or a whole one.
                if shift == 0 || (shift == 32 && data.len() == 4) {
                    self.set_up(|queue| {
                        if let Some(area) = queue.areas.get_mut(area) {
                            *area = (*area & !(mask << shift)) | (value & mask) << shift;
                        }
                    });
                }
            }
            _ => {}
        }
        Transition::None
    }

    /// Returns the queues as the driver set them up; `None` for those it did not enable. The first
    /// enabled one that cannot be used is an error, with its number.
    pub(crate) fn queues(
        &self,
        memory: &GuestMemory,
    ) -> Result<Vec<Option<Queue>>, (usize, QueueSetupError)> {
        self.queues
            .iter()
            .enumerate()
            .map(|(index, setup)| {
                let build = || setup.build(memory).map_err(|error| (index, error));
                setup.enabled.then(build).transpose()
            })
            .collect()
    }

    /// Tells the driver that the device cannot go on.
    pub(crate) fn fail(&mut self) {
        use virtio::Interrupt;
        self.line.needs_reset();
    }

    /// Queues may change only before the driver is ready.
    fn set_up(&mut self, change: impl FnOnce(&mut QueueSetup)) {
        if self.status & status::DRIVER_OK != 0 {
            return;
        }
        if let Some(queue) = self.queues.get_mut(usize::from(self.queue_select)) {
            change(queue);
        }
    }

    fn set_driver_features(&mut self, value: u32) {
        if self.status & status::FEATURES_OK != 0 {
            return;
        }
        let shift = match self.driver_feature_select {
            0 => 0,
            1 => 32,
            _ => return,
        };
        let kept = self.driver_features & !(0xffff_ffff << shift);
        self.driver_features = kept | u64::from(value) << shift;
    }

    fn set_status(&mut self, value: u8) -> Transition {
        if value == 0 {
            return Transition::Reset;
        }
        // A driver only ever adds bits (section 2.1.1); what is ours it cannot set.
        let mut added = value & !self.status & !status::NEEDS_RESET;
        if added & status::FEATURES_OK != 0 && !self.features_acceptable() {
            added &= !status::FEATURES_OK;
        }
        let ready = (self.status | added) & status::FEATURES_OK != 0;
        if added & status::DRIVER_OK != 0 && !ready {
            added &= !status::DRIVER_OK;
        }
        self.status |= added;
        if added & status::DRIVER_OK != 0 && self.status & status::FAILED == 0 {
            Transition::Activate
        } else {
            Transition::None
        }
    }

    fn features_acceptable(&self) -> bool {
        self.driver_features & !self.offered == 0 && self.driver_features & VERSION_1 != 0
    }
}

impl QueueSetup {
    /// Builds the queue, if it is one that virtio 1.2 section 2.7 allows and all of it is in `memory`.
    fn build(&self, memory: &GuestMemory) -> Result<Queue, QueueSetupError> {
        if !self.size.is_power_of_two() || self.size > self.max {
            return Err(QueueSetupError::Size(self.size));
        }
        let size = u64::from(self.size);
        // Alignment and length in bytes (section 2.7); the rings' lengths with their event fields.
        let parts = [
            ("descriptor table", 16, 16 * size),
            ("driver area", 2, 6 + 2 * size),
            ("device area", 4, 6 + 8 * size),
        ];
        for (&address, (name, alignment, length)) in self.areas.iter().zip(parts) {
            if !address.is_multiple_of(alignment) {
                return Err(QueueSetupError::Misaligned(name, address, alignment));
            }
            if !memory.check_range(GuestAddress(address), length as usize) {
                return Err(QueueSetupError::OutsideMemory(name, address));
            }
        }
        let refused = |_| QueueSetupError::Size(self.max);
        let mut queue = Queue::new(self.max).map_err(refused)?;
        queue.set_size(self.size);
        let [desc, driver, device] = self.areas.map(|a| (Some(a as u32), Some((a >> 32) as u32)));
        queue.set_desc_table_address(desc.0, desc.1);
        queue.set_avail_ring_address(driver.0, driver.1);
        queue.set_used_ring_address(device.0, device.1);
        queue.set_ready(true);
        Ok(queue)
    }
}

/// Returns a 32-bit word of a 64-bit feature set; words beyond the second are zero.
fn word(features: u64, select: u32) -> u64 {
    match select {
        0 => features & 0xffff_ffff,
        1 => features >> 32,
        _ => 0,
    }
}
