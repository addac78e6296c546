//! The differentiated system description table: the devices ACPI has to tell Linux of.

use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, Device, EISAName, Equal, Field, FieldAccessType,
    FieldEntry, FieldLockRule, FieldUpdateRule, IO, If, Interrupt, Local, Memory32Fixed, Method,
    Name, Notify, ONE, OpRegion, OpRegionSpace, Package, Path, ResourceTemplate, Scope, Store,
    ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{Description, OEM_ID, OEM_REVISION, OEM_TABLE, SDT_HEADER, bytes};
use crate::layout::{self, gsi, port};
use crate::power;

/// Consumer of a resource, as opposed to a bridge that hands it on.
const CONSUMER: bool = true;
const EDGE: bool = true;
const ACTIVE_HIGH: bool = false;
const EXCLUSIVE: bool = false;
/// `_STA`: present, enabled, shown, working.
const STA_PRESENT: u8 = 0xf;
/// Notification "the button was pressed" (ACPI 6.5 section 4.8.3.1.1).
const NOTIFY_PRESSED: u8 = 0x80;

pub(super) fn build(description: Description) -> Vec<u8> {
    let mut table = Sdt::new(*b"DSDT", SDT_HEADER as u32, 6, OEM_ID, OEM_TABLE, OEM_REVISION);
    table.append_slice(&sleep_state());
    table.append_slice(&processors(description.cpus));
    table.append_slice(&pci_root(description.mmio64));
    table.append_slice(&serial());
    table.append_slice(&rtc());
    table.append_slice(&power_button());
    table.as_slice().to_vec()
}

/// Describes `\_S5`: the value that soft-off takes in the sleep control register.
fn sleep_state() -> Vec<u8> {
    let value = Package::new(vec![&power::SLEEP_TYPE_S5]);
    bytes(&Name::new("_S5_".into(), &value))
}

fn processors(count: u8) -> Vec<u8> {
    let mut all = Vec::new();
    for id in 0..count {
        let name = format!("C{id:03}");
        let hid = Name::new("_HID".into(), &"ACPI0007");
        let uid = Name::new("_UID".into(), &id);
        let device = Device::new(Path::new(&name), vec![&hid, &uid]);
        all.extend(bytes(&Scope::new("_SB_".into(), vec![&device])));
    }
    all
}

/// Returns the PCI Express root bridge and the windows it hands on (PCI Firmware 3.3 section 4.1).
fn pci_root((mmio64, mmio64_size): (u64, u64)) -> Vec<u8> {
    let hid_name = EISAName::new("PNP0A08");
    let cid_name = EISAName::new("PNP0A03");
    let hid = Name::new("_HID".into(), &hid_name);
    let cid = Name::new("_CID".into(), &cid_name);
    let uid = Name::new("_UID".into(), &ZERO);
    let segment = Name::new("_SEG".into(), &ZERO);
    let cca = Name::new("_CCA".into(), &ONE);
    let buses = AddressSpace::new_bus_number(0u16, 0u16);
    let config = IO::new(port::PCI_CONFIG, port::PCI_CONFIG, 1, 8);
    let memory32 = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        layout::MMIO32_START as u32,
        (layout::MMIO32_END - 1) as u32,
        None,
    );
    let memory64 = AddressSpace::new_memory(
        AddressSpaceCacheable::NotCacheable,
        true,
        mmio64,
        mmio64 + mmio64_size - 1,
        None,
    );
    let resources = ResourceTemplate::new(vec![&buses, &config, &memory32, &memory64]);
    let crs = Name::new("_CRS".into(), &resources);
    // Linux uses an ECAM window only where a motherboard device claims it.
    let board_hid_name = EISAName::new("PNP0C02");
    let board_hid = Name::new("_HID".into(), &board_hid_name);
    let ecam = Memory32Fixed::new(true, layout::ECAM_START as u32, layout::ECAM_SIZE as u32);
    let board_resources = ResourceTemplate::new(vec![&ecam]);
    let board_crs = Name::new("_CRS".into(), &board_resources);
    let board = Device::new("MBRD".into(), vec![&board_hid, &board_crs]);
    let root = Device::new("PCI0".into(), vec![&hid, &cid, &uid, &segment, &cca, &crs]);
    bytes(&Scope::new("_SB_".into(), vec![&root, &board]))
}

fn serial() -> Vec<u8> {
    let hid_name = EISAName::new("PNP0501");
    let hid = Name::new("_HID".into(), &hid_name);
    let uid = Name::new("_UID".into(), &ZERO);
    let io = IO::new(port::SERIAL, port::SERIAL, 1, 8);
    let irq = Interrupt::new(CONSUMER, EDGE, ACTIVE_HIGH, EXCLUSIVE, gsi::SERIAL);
    let resources = ResourceTemplate::new(vec![&irq, &io]);
    let crs = Name::new("_CRS".into(), &resources);
    let device = Device::new("COM1".into(), vec![&hid, &uid, &crs]);
    bytes(&Scope::new("_SB_".into(), vec![&device]))
}

fn rtc() -> Vec<u8> {
    let hid_name = EISAName::new("PNP0B00");
    let hid = Name::new("_HID".into(), &hid_name);
    let io = IO::new(port::RTC, port::RTC, 1, 2);
    let resources = ResourceTemplate::new(vec![&io]);
    let crs = Name::new("_CRS".into(), &resources);
    let device = Device::new("RTC_".into(), vec![&hid, &crs]);
    bytes(&Scope::new("_SB_".into(), vec![&device]))
}

/// Describes a control-method power button and the generic event device that speaks for it (ACPI
/// 6.5 sections 4.8.2.2.1.2 and 5.6.9).
fn power_button() -> Vec<u8> {
    let button_hid_name = EISAName::new("PNP0C0C");
    let button_hid = Name::new("_HID".into(), &button_hid_name);
    let button_status = Name::new("_STA".into(), &STA_PRESENT);
    let button = Device::new("PWRB".into(), vec![&button_hid, &button_status]);

    let events_port = port::POWER + power::offset::EVENTS;
    let one: u8 = 1;
    let region = OpRegion::new("EVRG".into(), OpRegionSpace::SystemIO, &events_port, &one);
    let field = Field::new(
        "EVRG".into(),
        FieldAccessType::Byte,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        vec![FieldEntry::Named(*b"EVTS", 8)],
    );
    let events = Path::new("EVTS");
    let seen = Local(0);
    // Reading clears: read once.
    let read = Store::new(&seen, &events);
    let masked = Local(1);
    let mask = And::new(&masked, &seen, &power::EVENT_POWER_BUTTON);
    let pressed = Equal::new(&masked, &power::EVENT_POWER_BUTTON);
    let button_path = Path::new("\\_SB_.PWRB");
    let notify = Notify::new(&button_path, &NOTIFY_PRESSED);
    let if_pressed = If::new(&pressed, vec![&notify]);
    let handler = Method::new("_EVT".into(), 1, true, vec![&read, &mask, &if_pressed]);

    let hid = Name::new("_HID".into(), &"ACPI0013");
    let uid = Name::new("_UID".into(), &ZERO);
    let irq = Interrupt::new(CONSUMER, EDGE, ACTIVE_HIGH, EXCLUSIVE, gsi::EVENTS);
    let resources = ResourceTemplate::new(vec![&irq]);
    let crs = Name::new("_CRS".into(), &resources);
    let device = Device::new("GED_".into(), vec![&hid, &uid, &crs, &region, &field, &handler]);
    bytes(&Scope::new("_SB_".into(), vec![&button, &device]))
}
