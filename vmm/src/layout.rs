//! Where everything lies in the guest's physical address space, in bytes.
//!
//! ```text
//!  0            640K   1M                    3G        3.5G             4G             4G + high RAM
//!  | low RAM    |ROM   | RAM ...             | BARs32  | ECAM  APICs    | high RAM     | BARs64
//! ```

use std::ops::Range;

use vmm_control::MemorySize;

/// Start of the hole for 32-bit devices: low RAM ends here at the latest.
pub const LOW_RAM_END: u64 = 0xc000_0000;
/// First address above 4 GiB, where the rest of RAM continues.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// 32-bit BARs are placed from here ...
pub const MMIO32_START: u64 = LOW_RAM_END;
/// ... up to here (exclusive).
pub const MMIO32_END: u64 = ECAM_START;

/// PCI Express enhanced configuration access: one bus, 1 MiB (PCIe 5.0 section 7.2.2).
pub const ECAM_START: u64 = 0xe000_0000;
/// Length of the ECAM window.
pub const ECAM_SIZE: u64 = 1 << 20;

/// I/O APIC registers; KVM's in-kernel I/O APIC sits here.
pub const IOAPIC: u32 = 0xfec0_0000;
/// Local APIC registers.
pub const LAPIC: u32 = 0xfee0_0000;
/// Four pages that KVM needs on Intel for its real-mode task state; never RAM, never a device.
pub const KVM_TSS: usize = 0xfffb_d000;

/// 64-bit BARs are placed in a window above all RAM, of this size where the processor's address
/// bits allow ([`mmio64_window`]).
pub const MMIO64_SIZE: u64 = 1 << 36;
/// A window smaller than this has room for no passed-through function and hardly for ours.
pub const MMIO64_SIZE_MIN: u64 = 1 << 30;
/// Alignment of that window.
pub const MMIO64_ALIGN: u64 = 1 << 30;

/// Returns the RAM below the 32-bit device hole, in bytes.
pub fn low_ram(memory: MemorySize) -> u64 {
    memory.bytes().min(LOW_RAM_END)
}

/// Returns the RAM from 4 GiB up, in bytes.
pub fn high_ram(memory: MemorySize) -> u64 {
    memory.bytes().saturating_sub(LOW_RAM_END)
}

/// Returns the first guest-physical address of the window for 64-bit BARs.
pub fn mmio64_start(memory: MemorySize) -> u64 {
    (HIGH_RAM_START + high_ram(memory)).next_multiple_of(MMIO64_ALIGN)
}

/// Returns the window for 64-bit BARs of a guest whose RAM ends at or below `start`, on a host that
/// can map `bits` address bits; `None` if there is no room for it. A BAR beyond those bits would be
/// memory that the guest's page tables cannot even name.
pub fn mmio64_window(start: u64, bits: u32) -> Option<Range<u64>> {
    let end = start.checked_add(MMIO64_SIZE)?.min(1u64.checked_shl(bits).unwrap_or(u64::MAX));
    (end.checked_sub(start)? >= MMIO64_SIZE_MIN).then_some(start..end)
}

/// Below 1 MiB: what the boot protocols need, in one place so that nothing overlaps.
pub mod low {
    /// Global descriptor table of the boot vCPU.
    pub const GDT: u64 = 0x500;
    /// PVH start information (struct hvm_start_info).
    pub const PVH_START_INFO: u64 = 0x6000;
    /// PVH module list and memory map follow it.
    pub const PVH_MODULES: u64 = 0x6040;
    /// The PVH memory map (struct hvm_memmap_table_entry), behind [`PVH_MODULES`].
    pub const PVH_MEMORY_MAP: u64 = 0x7000;
    /// Linux boot parameters ("zero page").
    pub const ZERO_PAGE: u64 = 0x8000;
    /// Page tables for the 64-bit entry point: one PML4, one PDPT, four page directories.
    pub const PAGE_TABLES: u64 = 0x9000;
    /// The kernel command line.
    pub const CMDLINE: u64 = 0x2_0000;
    /// End of conventional RAM: here the extended BIOS data area would start.
    pub const RAM_END: u64 = 0x9_fc00;
    /// ACPI tables, in what was the BIOS ROM.
    pub const ACPI: u64 = 0xe_0000;
    /// End of the ACPI tables' room.
    pub const ACPI_END: u64 = RESET_VECTOR;
    /// Where a processor in real mode starts the BIOS: F000:FFF0.
    pub const RESET_VECTOR: u64 = 0xf_fff0;
}

/// Start of RAM above the legacy area.
pub const RAM_1M: u64 = 0x10_0000;

/// x86 I/O ports.
pub mod port {
    /// Keyboard controller command and status.
    pub const KEYBOARD: u16 = 0x64;
    /// CMOS real-time clock: index and data.
    pub const RTC: u16 = 0x70;
    /// First serial port, 8 registers.
    pub const SERIAL: u16 = 0x3f8;
    /// Our ACPI reset, sleep and event registers.
    pub const POWER: u16 = 0x600;
    /// PCI configuration mechanism 1: address and data.
    pub const PCI_CONFIG: u16 = 0xcf8;
}

/// Interrupt lines of the I/O APIC (GSI = pin), edge-triggered.
pub mod gsi {
    /// First serial port.
    pub const SERIAL: u32 = 4;
    /// ACPI generic event device: the power button.
    pub const EVENTS: u32 = 5;
    /// Number of I/O APIC pins of KVM's in-kernel irqchip.
    pub const IOAPIC_PINS: u32 = 24;
}

#[cfg(test)]
mod tests {
    use super::*;
    use notation::MEMORY_MAX;

    #[test]
    fn bars_lie_above_ram_and_within_the_address_bits_of_every_host() {
        for bits in 32..=64 {
            for gib in [1, 3, 4, 5, 31, 60, 62, 63, 448, 500, MEMORY_MAX >> 30] {
                let size: MemorySize = format!("{gib}G").parse().unwrap();
                let ram_end = HIGH_RAM_START + high_ram(size);
                match mmio64_window(mmio64_start(size), bits) {
                    Some(window) => {
                        assert!(window.start >= ram_end && window.start % MMIO64_ALIGN == 0);
                        assert!(window.end - window.start >= MMIO64_SIZE_MIN);
                        assert!(bits == 64 || window.end <= 1 << bits, "{gib}G, {bits} bits");
                    }
                    None => assert!(ram_end + 2 * MMIO64_ALIGN > 1 << bits, "{gib}G, {bits} bits"),
                }
            }
        }
    }

    #[test]
    fn memory_is_split_around_the_hole() {
        let size: MemorySize = "5G".parse().unwrap();
        assert_eq!((low_ram(size), high_ram(size)), (3 << 30, 2 << 30));
        assert_eq!(mmio64_start(size), 6 << 30);
        let size: MemorySize = "512MiB".parse().unwrap();
        assert_eq!((low_ram(size), high_ram(size), mmio64_start(size)), (512 << 20, 0, 4 << 30));
    }

    #[test]
    fn an_ordinary_guest_has_the_whole_window_on_a_host_with_39_bits() {
        assert_eq!(mmio64_window(4 << 30, 39), Some(4 << 30..(4 << 30) + MMIO64_SIZE));
        assert_eq!(mmio64_window(510 << 30, 39), Some(510 << 30..512 << 30));
        assert_eq!(mmio64_window(512 << 30, 39), None);
    }
}
