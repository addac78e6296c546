use std::collections::BTreeMap;

use super::*;
use crate::snapshot::{BARS, SIZE};

/// Reads lines of `lspci -x`, or of the cases.
fn dump(lines: &str, sizes: [u64; BARS]) -> Snapshot {
    let mut config = [0; SIZE as usize];
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (at, bytes) = line.split_once(": ").unwrap();
        let at = usize::from_str_radix(at, 16).unwrap();
        for (index, byte) in bytes.split_whitespace().enumerate() {
            config[at + index] = u8::from_str_radix(byte, 16).unwrap();
        }
    }
    Snapshot::new(config, sizes)
}

const INTEL_82557: &str = "
    00: 86 80 29 12 47 01 90 02 0d 00 00 02 00 4a 00 00
    10: 00 00 03 e4 01 ec 01 00 00 00 00 e4 00 00 00 00
    30: 00 00 02 e4 dc 00 00 00 00 00 00 00 75 01 08 38
    d0: 00 00 00 00 00 00 00 00 00 00 00 00 01 00 22 7e";
const EHCI: &str = "
    00: 86 80 34 12 00 00 10 00 00 30 03 0c 00 00 00 00
    10: 00 a0 51 f1
    30: 00 00 00 00 50 00 00 00 00 00 00 00 00 01 00 00
    50: 01 58 03 00 00 00 00 00 0a 98 00 00 00 00 00 00
    90: 00 00 00 00 00 00 00 00 13 00 00 00 00 00 00 00";
const QCA9565: &str = "
    00: 86 80 34 12 00 00 10 00 00 00 80 02 00 00 00 00
    10: 04 00 00 ef
    30: 00 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00
    40: 01 50 03 00 00 00 00 00 00 00 00 00 00 00 00 00
    50: 05 70 84 01 00 00 00 00 00 00 00 00 00 00 00 00
    70: 10 00 02 00";

#[test]
fn a_function_that_can_only_interrupt_by_pin_is_refused() {
    let nic = dump(INTEL_82557, [0x1000, 0x40, 0x20000, 0, 0, 0]);
    assert_eq!(check(&nic), Err(Unusable::PinOnly));
    assert_eq!(check(&dump(EHCI, [0x400, 0, 0, 0, 0, 0])), Err(Unusable::PinOnly));
    assert!(Unusable::PinOnly.to_string().contains("INTx"));
}

#[test]
fn a_function_of_io_ports_only_is_refused_and_one_with_msi_and_memory_is_not() {
    let good = dump(QCA9565, [0x80000, 0, 0, 0, 0, 0]);
    assert_eq!(check(&good), Ok(()));
    assert_eq!(check(&dump(QCA9565, [0; BARS])), Err(Unusable::NoRegisters));
    let ports = QCA9565.replace("10: 04 00 00 ef", "10: 01 ec 00 00");
    assert_eq!(check(&dump(&ports, [32, 0, 0, 0, 0, 0])), Err(Unusable::PortsOnly));
}

#[test]
fn a_function_that_has_no_interrupts_at_all_lacks_nothing() {
    let quiet = EHCI.replace("00 01 00 00\n    50", "00 00 00 00\n    50");
    assert_eq!(check(&dump(&quiet, [0x400, 0, 0, 0, 0, 0])), Ok(()));
}

#[test]
fn drivers_that_use_the_pin_though_there_is_msi_are_known_by_their_hardware() {
    let wifi = Class(0x02_8000);
    let ath9k = pin_driver(0x168c, 0x0036, wifi).unwrap();
    assert!(ath9k.remedy.unwrap().contains("ath9k.use_msi=1"));
    for (vendor, device, class) in
        [(0x1814, 0x0601, wifi), (0x14e4, 0x4727, wifi), (0x8086, 0x31cc, Class(0x08_0501))]
    {
        assert!(pin_driver(vendor, device, class).is_some(), "{vendor:04x}:{device:04x}");
    }
    for (vendor, device) in
        [(0x168c, 0x003e), (0x8086, 0x2725), (0x14e4, 0x43ec), (0x10ec, 0x8168), (0x14e4, 0x1687)]
    {
        assert_eq!(pin_driver(vendor, device, wifi), None, "{vendor:04x}:{device:04x}");
    }
}

/// Configuration spaces of real functions, where the file with all of them is.
#[test]
fn functions_of_real_pcs_are_usable_or_refused_for_a_reason() {
    let Some(text) = crate::testing::shared_data("pci-functions.tsv") else { return };
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut rows = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        rows += 1;
        let [_, name, _, sizes, hex] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .filter_map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok())
            .collect();
        let Ok(config) = <[u8; SIZE as usize]>::try_from(bytes) else { continue };
        let mut bars = [0; BARS];
        let sizes = sizes.trim_matches(['[', ']']).split(", ").filter_map(|size| size.parse().ok());
        bars.iter_mut().zip(sizes).for_each(|(bar, size)| *bar = size);
        let snapshot = Snapshot::new(config, bars);
        if snapshot.header_type() != 0 {
            continue;
        }
        let result = check(&snapshot);
        let signals = |wanted| snapshot.capabilities().iter().any(|one| one.id == wanted);
        if result.is_ok() && snapshot.has_pin() {
            assert!(signals(id::MSI) || signals(id::MSIX), "{name} opens and cannot interrupt");
        }
        *counts.entry(format!("{result:?}")).or_default() += 1;
    }
    eprintln!("ordinary functions: {counts:?}");
    // Of the rows that docs/it/hardware.md tells of.
    if rows == 380 {
        let told = ["Ok(())", "Err(NoRegisters)", "Err(PinOnly)", "Err(PortsOnly)"];
        let found = told.map(|what| counts.get(what).copied().unwrap_or_default());
        assert_eq!(found, [134, 68, 43, 12], "docs/it/hardware.md says otherwise");
    }
    assert!(counts.values().sum::<usize>() > 100);
}
