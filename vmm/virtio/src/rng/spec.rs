//! Numbers of virtio 1.2 section 5.4.

/// Section 5.4.1.
pub(super) const DEVICE_ID: u32 = 4;

/// Section 5.4.2.
pub(super) const REQUEST_QUEUE: usize = 0;

/// Ours to choose; Linux keeps one request in flight.
pub(super) const QUEUE_SIZES: [u16; 1] = [16];
