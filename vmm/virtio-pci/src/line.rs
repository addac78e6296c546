//! The interrupt line from a device to its driver: MSI-X vectors, and the state that the registers show.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pci::Msix;
use virtio::Interrupt;

use crate::spec::{NO_VECTOR, status};

/// Shared between the registers (vCPU threads) and the device (its I/O thread).
pub(crate) struct IrqLine {
    msix: Mutex<Msix>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    generation: AtomicU8,
    needs_reset: AtomicBool,
    /// Whether the driver is ready and the device works.
    active: AtomicBool,
    /// Whether a reset waits for the device.
    stopping: AtomicBool,
}

impl IrqLine {
    pub(crate) fn new(msix: Msix, queues: usize) -> Self {
        Self {
            msix: Mutex::new(msix),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            generation: AtomicU8::new(0),
            needs_reset: AtomicBool::new(false),
            active: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    pub(crate) fn msix(&self) -> MutexGuard<'_, Msix> {
        self.msix.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn config_vector(&self) -> u16 {
        self.config_vector.load(Ordering::Acquire)
    }

    pub(crate) fn queue_vector(&self, queue: usize) -> u16 {
        self.queue_vectors.get(queue).map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire))
    }

    /// Returns the vector to be kept: one that the function does not have reads back as none (section 4.1.5.1.2).
    fn checked(&self, vector: u16) -> u16 {
        if vector < self.msix().count() { vector } else { NO_VECTOR }
    }

    pub(crate) fn set_config_vector(&self, vector: u16) {
        self.config_vector.store(self.checked(vector), Ordering::Release);
    }

    pub(crate) fn set_queue_vector(&self, queue: usize, vector: u16) {
        let vector = self.checked(vector);
        if let Some(slot) = self.queue_vectors.get(queue) {
            slot.store(vector, Ordering::Release);
        }
    }

    pub(crate) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    /// Returns the status bits that the device, not the driver, sets.
    pub(crate) fn device_status(&self) -> u8 {
        if self.needs_reset.load(Ordering::Acquire) { status::NEEDS_RESET } else { 0 }
    }

    pub(crate) fn active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Stops the device, as a reset is wanted: from now on the device says nothing, and soon lets go.
    pub(crate) fn stop(&self) {
        self.active.store(false, Ordering::Release);
        self.stopping.store(true, Ordering::Release);
    }

    /// Settles what was wanted of the device, which is done: it works now, or it has let go.
    pub(crate) fn settle(&self, active: bool) {
        self.active.store(active, Ordering::Release);
        self.stopping.store(false, Ordering::Release);
    }

    /// Goes back to the state of reset, when the device has let go; MSI-X belongs to the function and stays.
    pub(crate) fn reset(&self) {
        self.needs_reset.store(false, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
    }

    /// Goes back to the state of a new machine: what belongs to the function, not to the device, as well.
    pub(crate) fn renew(&self) {
        self.generation.store(0, Ordering::Release);
        self.msix().reset();
    }

    fn trigger(&self, vector: u16) {
        if vector != NO_VECTOR && !self.stopping() {
            self.msix().trigger(vector);
        }
    }
}

impl Interrupt for IrqLine {
    fn used(&self, index: usize) {
        self.trigger(self.queue_vector(index));
    }

    fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.trigger(self.config_vector());
    }

    fn needs_reset(&self) {
        self.active.store(false, Ordering::Release);
        self.needs_reset.store(true, Ordering::Release);
        self.trigger(self.config_vector());
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
