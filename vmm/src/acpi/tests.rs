use super::*;
use vm_memory::GuestMemoryBackend;

fn written(cpus: u8) -> GuestMemory {
    let memory = crate::memory::allocate("64M".parse().unwrap(), false).unwrap();
    let at = write(&memory, Description { cpus, mmio64: (4 << 30, layout::MMIO64_SIZE) }).unwrap();
    assert_eq!(at, low::ACPI);
    memory
}

fn read(memory: &GuestMemory, at: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    memory.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// Reads a table by its address, its length and checksum verified.
fn table(memory: &GuestMemory, at: u64) -> Vec<u8> {
    assert!(memory.check_range(GuestAddress(at), SDT_HEADER));
    let header = read(memory, at, SDT_HEADER);
    let length = u32::from_le_bytes(header[4..8].try_into().unwrap());
    let bytes = read(memory, at, length as usize);
    assert_eq!(bytes.iter().fold(0u8, |sum, b| sum.wrapping_add(*b)), 0, "checksum");
    bytes
}

fn address(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}

fn tables(memory: &GuestMemory) -> Vec<Vec<u8>> {
    let rsdp = read(memory, low::ACPI, 36);
    assert_eq!(&rsdp[..8], b"RSD PTR ");
    let xsdt = table(memory, address(&rsdp[24..32]));
    assert_eq!(&xsdt[..4], b"XSDT");
    xsdt[SDT_HEADER..].chunks(8).map(|entry| table(memory, address(entry))).collect()
}

#[test]
fn every_table_is_reachable_and_its_checksum_is_right() {
    for cpus in [1, 16] {
        let tables = tables(&written(cpus));
        let names: Vec<_> = tables.iter().map(|t| &t[..4]).collect();
        assert_eq!(names, [b"FACP", b"APIC", b"MCFG"]);
        let madt = &tables[1];
        assert_eq!(madt.len(), 44 + 8 * usize::from(cpus) + 12);
        let ecam = &tables[2][44..];
        assert_eq!(address(&ecam[..8]), layout::ECAM_START);
    }
}

#[test]
fn the_fixed_description_says_hardware_reduced_and_names_the_dsdt() {
    let memory = written(2);
    let fadt = &tables(&memory)[0];
    let flags = u32::from_le_bytes(fadt[112..116].try_into().unwrap());
    assert_ne!(flags & (1 << 20), 0, "hardware reduced");
    assert_ne!(flags & (1 << 10), 0, "reset register");
    assert_eq!(fadt[128], power::RESET_VALUE);
    assert_eq!(address(&fadt[120..128]), u64::from(port::POWER));
    let dsdt = table(&memory, address(&fadt[140..148]));
    assert_eq!(&dsdt[..4], b"DSDT");
    for name in [b"C001", b"PCI0", b"COM1", b"PWRB", b"GED_"] {
        assert!(dsdt.windows(4).any(|w| w == name), "{}", String::from_utf8_lossy(name));
    }
}
