//! Numbers of virtio 1.2 section 4.1 and our layout of BAR 0.

/// PCI vendor of virtio devices (section 4.1.2).
pub(crate) const VENDOR: u16 = 0x1af4;
/// PCI device ID of virtio device type 0 (section 4.1.2).
pub(crate) const DEVICE_BASE: u16 = 0x1040;
/// Modern devices have revision 1 or higher.
pub(crate) const REVISION: u8 = 1;

/// Bytes of BAR 0.
pub(crate) const BAR_SIZE: u64 = 0x4000;
pub(crate) const COMMON: u64 = 0x0000;
pub(crate) const COMMON_SIZE: u64 = 0x40;
pub(crate) const ISR: u64 = 0x0100;
pub(crate) const ISR_SIZE: u64 = 1;
pub(crate) const DEVICE: u64 = 0x0200;
pub(crate) const DEVICE_SIZE: u64 = 0x0e00;
pub(crate) const NOTIFY: u64 = 0x1000;
pub(crate) const NOTIFY_SIZE: u64 = 0x1000;
pub(crate) const TABLE: u64 = 0x2000;
pub(crate) const PBA: u64 = 0x3000;

/// Bytes between two queues' notification addresses.
pub(crate) const NOTIFY_MULTIPLIER: u32 = 4;
/// Most queues of a device: a vector each and one for configuration changes fit the table's page.
pub(crate) const QUEUES_MAX: usize = 128;

/// Vendor capability and its kinds (section 4.1.4).
pub(crate) const CAPABILITY_VENDOR: u8 = 0x09;
pub(crate) mod capability {
    pub(crate) const COMMON: u8 = 1;
    pub(crate) const NOTIFY: u8 = 2;
    pub(crate) const ISR: u8 = 3;
    pub(crate) const DEVICE: u8 = 4;
    pub(crate) const PCI: u8 = 5;
}

/// No vector (section 4.1.5.1.2).
pub(crate) const NO_VECTOR: u16 = 0xffff;
/// `VIRTIO_F_VERSION_1` (section 6).
pub(crate) const VERSION_1: u64 = 1 << 32;

/// Device status bits (section 2.1).
pub(crate) mod status {
    pub(crate) const DRIVER_OK: u8 = 4;
    pub(crate) const FEATURES_OK: u8 = 8;
    pub(crate) const NEEDS_RESET: u8 = 64;
    pub(crate) const FAILED: u8 = 128;
}

/// Returns the PCI class of a virtio device type: base class, subclass, interface.
pub(crate) fn class(device_type: u32) -> [u8; 3] {
    match device_type {
        1 => [0x02, 0x00, 0x00],  // network
        2 => [0x01, 0x80, 0x00],  // mass storage
        3 => [0x07, 0x80, 0x00],  // communication
        16 => [0x03, 0x80, 0x00], // display
        18 => [0x09, 0x80, 0x00], // input
        _ => [0x00, 0xff, 0x00],
    }
}
