//! Wire constants: PCI Express 5.0 chapter 7, PCI Local Bus 3.0 chapter 6, PCI Power Management 1.2.

/// Bytes of configuration space that every function has.
pub(super) const CONVENTIONAL: u16 = hostpci::snapshot::SIZE;
/// Bytes that a PCI Express function has.
pub(super) const EXPRESS: u16 = 4096;

/// Cache line size, which firmware sets and hardware on PCI Express ignores.
pub(super) const CACHE_LINE: u16 = 0x0c;
/// Interrupt line: a note from firmware to the operating system.
pub(super) const INTERRUPT_LINE: u16 = 0x3c;

/// Status: there is a capability list (bit 4).
pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Command: I/O decoding, which is never given.
pub(crate) const COMMAND_IO: u16 = 1;

/// Power management: capabilities at 2, control and status at 4.
pub(super) mod power {
    pub(crate) const CAPABILITIES: u16 = 2;
    pub(crate) const CONTROL: u16 = 4;
    /// Version and "needs device-specific initialisation"; no D1, D2, PME or auxiliary power.
    pub(crate) const CAPABILITIES_SHOWN: u16 = 0x0027;
    pub(crate) const STATE: u16 = 0b11;
    /// The function keeps its state from D3hot to D0: true, since it never goes there.
    pub(crate) const NO_SOFT_RESET: u16 = 1 << 3;
}

/// PCI Express capability (section 7.5.3).
pub(crate) mod express {
    pub(crate) const FLAGS: u16 = 0x02;
    pub(crate) const DEVICE_CAPABILITIES: u16 = 0x04;
    pub(crate) const DEVICE_CONTROL: u16 = 0x08;
    pub(crate) const DEVICE_CAPABILITIES_2: u16 = 0x24;
    pub(crate) const DEVICE_CONTROL_2: u16 = 0x28;
    pub(crate) const VERSION: u16 = 0xf;
    /// Capability version and interrupt message number.
    pub(crate) const FLAGS_SHOWN: u16 = VERSION | 0x3e00;
    /// Device/port type, bits 7:4: root complex integrated endpoint.
    pub(crate) const INTEGRATED_ENDPOINT: u16 = 9 << 4;
    /// Payload sizes, extended tags, acceptable latencies, role-based errors. Not: phantom
    /// functions, slot power, function-level reset (bit 28).
    pub(crate) const DEVICE_CAPABILITIES_SHOWN: u32 = 0x0000_8fe7;
    /// Everything but "start a function-level reset" (bit 15).
    pub(crate) const DEVICE_CONTROL_WRITABLE: u16 = 0x7fff;
    /// Completion time-outs only: no LTR, OBFF, atomics, TLP prefixes.
    pub(crate) const DEVICE_CAPABILITIES_2_SHOWN: u32 = 0x1f;
    pub(crate) const DEVICE_CONTROL_2_SHOWN: u16 = 0x1f;
    /// Device control: largest read request, 128 bytes << value; 6 and 7 are reserved.
    pub(crate) const READ_REQUEST: u16 = 0b111 << 12;
    /// Device control: non-fatal and fatal errors are reported.
    pub(crate) const REPORT_ERRORS: u16 = 0x0006;
    pub(crate) const READ_REQUEST_MAX: u16 = 5 << 12;
}

/// MSI (section 7.7.1). Where address, data and mask lie depends on two bits of control.
pub(crate) mod msi {
    pub(crate) const CONTROL: u16 = 2;
    pub(crate) const ADDRESS: u16 = 4;
    pub(crate) const ENABLE: u16 = 1;
    pub(crate) const CAPABLE_SHIFT: u16 = 1;
    pub(crate) const CAPABLE: u16 = 0b111 << CAPABLE_SHIFT;
    pub(crate) const ENABLED: u16 = 0b111 << 4;
    pub(crate) const WIDE: u16 = 1 << 7;
    pub(crate) const MASKABLE: u16 = 1 << 8;
}

/// MSI-X (section 7.7.2).
pub(crate) mod msix {
    pub(crate) const LENGTH: u16 = 12;
    pub(crate) const CONTROL: u16 = 2;
    pub(crate) const TABLE: u16 = 4;
    pub(crate) const PBA: u16 = 8;
    pub(crate) const COUNT: u16 = 0x7ff;
    pub(crate) const ENABLE: u16 = 1 << 15;
    pub(crate) const BAR: u32 = 0b111;
}

/// Extended capabilities (section 7.6.3): the device serial number is the one shown.
pub(super) mod extended {
    pub(crate) const FIRST: u16 = 0x100;
    pub(crate) const SERIAL_NUMBER: u16 = 0x0003;
    pub(crate) const SERIAL_NUMBER_LENGTH: usize = 12;
    /// A space of 4096 bytes has room for this many; a chain that is longer is a loop.
    pub(crate) const CHAIN_MAX: usize = (4096 - 256) / 8;
}
