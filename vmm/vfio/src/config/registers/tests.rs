use std::sync::Arc;

use pci::Function;
use pci::testing::Recorder;

use super::*;
use crate::config::VirtualConfig;
use crate::function::VfioFunction;
use crate::testing::{Event, FakeNic, address};

/// Makes the NIC of the tests with another identity, and with something in its configuration space.
fn card(vendor: u16, class: u16, parts: &[(usize, &[u8])]) -> FakeNic {
    let nic = FakeNic::new();
    nic.with(|state| {
        state.config[0..2].copy_from_slice(&vendor.to_le_bytes());
        state.config[0x0a..0x0c].copy_from_slice(&class.to_le_bytes());
        for (at, bytes) in parts {
            state.config[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    });
    nic
}

/// Returns what reaches the hardware of a guest's write.
fn written(nic: &FakeNic, at: u16, data: &[u8]) -> Vec<Event> {
    let mut function =
        VfioFunction::new(nic.boxed(), address(), &Recorder::default(), Arc::new(nic.clone()))
            .unwrap();
    nic.events();
    function.config_write(at, data);
    let events = nic.events();
    let mut read = vec![0; data.len()];
    function.config_read(at, &mut read);
    if !events.is_empty() {
        assert_eq!(read, data, "what was written is what is read");
    }
    events
}

/// `[58] Vendor Specific Information: Len=78`, as the real chips have it: the registers are inside.
const VENDOR_CAPABILITY: (usize, &[u8]) = (0x58, &[0x09, 0xc8, 0x48, 0]);

#[test]
fn the_registers_that_broadcom_lan_is_worked_by_reach_it() {
    let value = [1, 2, 3, 4];
    for nic in
        [card(0x14e4, 0x0200, &[]), card(0x14e4, 0x0200, &[(0x34, &[0x58]), VENDOR_CAPABILITY])]
    {
        for at in [0x68, 0x6c, 0x70, 0x74, 0x78, 0x7c, 0x80, 0x84] {
            assert_eq!(written(&nic, at, &value), [Event::ConfigWrite(at, value.to_vec())]);
        }
        assert_eq!(written(&nic, 0x88, &value), [], "and no other");
    }
}

/// A NetXtreme as the linux-pci list shows one (<20240319162334.GA1230451@bhelgaas>): power management,
/// vital product data, MSI in front of the registers, MSI-X and PCI Express behind them.
#[test]
fn the_registers_of_a_real_netxtreme_lie_between_its_capabilities_and_pass() {
    let nic = card(
        0x14e4,
        0x0200,
        &[
            (0x34, &[0x48]),
            (0x48, &[0x01, 0x50, 0x03, 0, 0, 0, 0, 0]),
            (0x50, &[0x03, 0x58, 0, 0, 0, 0, 0, 0]),
            (0x58, &[0x05, 0xa0, 0x86, 0]),
            (0xa0, &[0x11, 0xac, 0x10, 0, 0x03, 0, 0, 0, 0x03, 0x20, 0, 0]),
            (0xac, &[0x10, 0, 0x02, 0, 0, 0, 0, 0x10, 0, 0]),
        ],
    );
    let (misc_host_ctrl, pcistate, data) = ([0x98, 0, 1, 0], [0x32, 0x13, 0, 0], [1, 0, 0, 0]);
    for (at, value) in [(0x68, misc_host_ctrl), (0x70, pcistate), (0x78, data), (0x80, data)] {
        assert_eq!(written(&nic, at, &value), [Event::ConfigWrite(at, value.to_vec())]);
    }
    assert_eq!(written(&nic, 0x64, &[1, 2]), [], "MSI's message is not the guest's to write there");
}

#[test]
fn the_window_of_broadcom_wifi_reaches_it() {
    let nic = card(0x14e4, 0x0280, &[]);
    for at in [0x70, 0x80, 0x94] {
        assert_eq!(written(&nic, at, &[0, 0, 0, 0x18]).len(), 1, "{at:#x}");
    }
    assert_eq!(written(&nic, 0x88, &[0x10, 0, 0, 0]), [], "the card's EEPROM is not to be written");
    assert_eq!(written(&nic, 0x68, &[0; 4]), [], "that is a LAN chip's register");
}

#[test]
fn a_register_passes_only_where_this_card_has_no_other_capability() {
    // Chips whose PCI Express capability is at 0xac have no window there.
    let express: &[u8] = &[0x10, 0, 0x01, 0, 0xc1, 0x8c, 0, 0x10];
    let nic = card(0x14e4, 0x0280, &[(0xe1, &[0xac]), (0xac, express), (0xc9, &[0xd0])]);
    nic.with(|state| state.config[0xe0] = 0x03);
    nic.with(|state| state.config[0xd1] = 0xac);
    nic.with(|state| state.config[0xad] = 0xa0);
    nic.with(|state| state.config[0x34] = 0xc8);
    let config = VirtualConfig::new(&nic).unwrap();
    assert_eq!(config.passed(0xac, &[0; 4]).count(), 0);
    assert_eq!(config.passed(0x80, &[0; 4]).count(), 1);
    // Power management at 0x40, as Atheros has it: 0x41 is its link.
    let atheros = [(0x34, &[0x40][..]), (0x40, &[0x01, 0xd0, 0x03, 0])];
    assert_eq!(written(&card(0x168c, 0x0280, &atheros), 0x40, &[1, 0, 3, 0]), []);
}

#[test]
fn of_a_write_across_a_registers_edge_only_what_is_in_it_passes() {
    let nic = card(0x8086, 0x0280, &[]);
    let config = VirtualConfig::new(&nic).unwrap();
    let passed: Vec<_> = config.passed(0x40, &[1, 2, 3, 4]).collect();
    assert_eq!(passed, [(0x41, &[2u8][..])]);
    assert_eq!(config.passed(0x42, &[1, 2]).count(), 0);
    assert_eq!(config.passed(0x3c, &[1, 2, 3, 4]).count(), 0);
}

#[test]
fn other_vendors_cards_get_nothing_of_it() {
    for (vendor, class) in [(0x8086, 0x0200), (0x10ec, 0x0200), (0x14e4, 0x0104), (0x106b, 0x0200)]
    {
        let nic = card(vendor, class, &[]);
        for at in (0x40..0xa0).step_by(4) {
            assert_eq!(written(&nic, at, &[0xff; 4]), [], "{vendor:04x} {at:#x}");
        }
    }
}

#[test]
fn no_row_reaches_the_header_or_leaves_configuration_space_and_each_has_its_reason() {
    for family in FAMILIES {
        for register in family.registers {
            let Range { start, end } = register.at.clone();
            assert!((0x40..0x100).contains(&start) && start < end && end <= 0x100);
            assert!(register.reason.len() > 20, "{start:#x}");
        }
    }
}
