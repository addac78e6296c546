//! ACPI tables (ACPI 6.5), hardware-reduced: RSDP, XSDT, FADT, DSDT, MADT, MCFG.
//!
//! ```text
//!  RSDP -> XSDT -> FADT -> DSDT: CPUs, PCI root, COM1, RTC, power button behind a generic event device
//!               -> MADT: one local APIC a vCPU, one I/O APIC
//!               -> MCFG: the ECAM window
//! ```
//! No SCI, no PM timer, no PIC, no i8042, no VGA: the FADT says so and Linux then does not look.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::xsdt::XSDT;
use virtio::GuestMemory;
use vm_memory::{Bytes, GuestAddress};

use crate::layout::{self, low, port};
use crate::power;

const OEM_ID: [u8; 6] = *b"BLKHD ";
const OEM_TABLE: [u8; 8] = *b"BULKHEAD";
const OEM_REVISION: u32 = 1;

/// `IAPC_BOOT_ARCH` bit 2: no VGA (ACPI 6.5 table 5.11).
const BOOT_NO_VGA: u16 = 1 << 2;
/// `IAPC_BOOT_ARCH` bit 4: leave PCIe link power management alone.
const BOOT_NO_ASPM: u16 = 1 << 4;
/// Signature, length, revision, checksum, OEM fields.
const SDT_HEADER: usize = 36;

/// What the tables depend on.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Number of vCPUs; APIC IDs count from zero.
    pub cpus: u8,
    /// Window for 64-bit BARs: first address and length in bytes.
    pub mmio64: (u64, u64),
}

/// Why the tables could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AcpiError {
    /// They outgrew the BIOS area.
    #[error("the ACPI tables do not fit the BIOS area")]
    Room,
    /// A write to guest memory failed.
    #[error("could not write the ACPI tables to guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
}

/// Writes all tables; returns the address of the RSDP.
pub fn write(memory: &GuestMemory, description: Description) -> Result<u64, AcpiError> {
    let mut writer = Writer { memory, next: low::ACPI + 64 };
    let dsdt = writer.put(&dsdt::build(description))?;

    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    fadt.iapc_boot_arch = (BOOT_NO_VGA | BOOT_NO_ASPM).into();
    fadt.reset_reg = register(power::offset::RESET);
    fadt.reset_value = power::RESET_VALUE;
    fadt.sleep_control_reg = register(power::offset::SLEEP_CONTROL);
    fadt.sleep_status_reg = register(power::offset::SLEEP_STATUS);
    let fadt = writer.put(&bytes(&fadt.finalize()))?;

    let controller = LocalInterruptController::Address(layout::LAPIC);
    let mut madt = MADT::new(OEM_ID, OEM_TABLE, OEM_REVISION, controller);
    for id in 0..description.cpus {
        madt.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    madt.add_structure(IoApic::new(0, layout::IOAPIC, 0));
    let madt = writer.put(&bytes(&madt))?;

    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM_START, 0, 0, 0);
    let mcfg = writer.put(&bytes(&mcfg))?;

    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE, OEM_REVISION);
    for table in [fadt, madt, mcfg] {
        xsdt.add_entry(table);
    }
    let xsdt = writer.put(&bytes(&xsdt))?;
    memory.write_slice(&bytes(&Rsdp::new(OEM_ID, xsdt)), GuestAddress(low::ACPI))?;
    Ok(low::ACPI)
}

fn register(offset: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port::POWER + offset))
}

fn bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

struct Writer<'a> {
    memory: &'a GuestMemory,
    next: u64,
}

impl Writer<'_> {
    fn put(&mut self, table: &[u8]) -> Result<u64, AcpiError> {
        debug_assert!(table.len() >= SDT_HEADER);
        let at = self.next;
        let end = at + table.len() as u64;
        if end > low::ACPI_END {
            return Err(AcpiError::Room);
        }
        self.memory.write_slice(table, GuestAddress(at))?;
        self.next = end.next_multiple_of(16);
        Ok(at)
    }
}

#[cfg(test)]
mod tests;
