//! The capability lists: which a guest sees, and how much of each.
//!
//! What is shown stays where the hardware has it, because some drivers know the place by heart.

use std::ops::Range;

use hostpci::Snapshot;
use hostpci::snapshot::{Capability, id};
use pci::BarIndex;
use pci::config::register;

use super::spec::{self, express, extended, msi, msix, power};
use super::{MSIX_VECTORS_MAX, MsiPlace, MsixPlace, VirtualConfig};
use crate::hardware::Hardware;

impl VirtualConfig {
    pub(super) fn add_capabilities(&mut self, real: &Snapshot) {
        let list = real.capabilities();
        let mut link = register::CAPABILITIES;
        for capability in &list {
            if !self.add_capability(real, *capability) {
                continue;
            }
            let [place, _] = capability.at.to_le_bytes();
            self.space.set(link, &[place]);
            self.space.set(capability.at, &[capability.id, 0]);
            link = capability.at + 1;
        }
        if link != register::CAPABILITIES {
            self.space.set(register::STATUS, &spec::STATUS_CAPABILITIES.to_le_bytes());
        }
        self.live = gaps(&list);
        self.show_passed_registers(&list);
    }

    /// Shows a capability, or leaves it out.
    fn add_capability(&mut self, real: &Snapshot, capability: Capability) -> bool {
        let Capability { id, at, whole, .. } = capability;
        if !whole && id != id::VENDOR {
            return false;
        }
        match id {
            id::POWER => {
                let capabilities = real.word(at + power::CAPABILITIES) & power::CAPABILITIES_SHOWN;
                self.space.set(at + power::CAPABILITIES, &capabilities.to_le_bytes());
                self.space.set(at + power::CONTROL, &power::NO_SOFT_RESET.to_le_bytes());
                self.space.set_writable(at + power::CONTROL, &power::STATE.to_le_bytes());
                true
            }
            id::EXPRESS if self.express.is_none() => {
                self.add_express(real, at);
                true
            }
            id::MSI if self.msi.is_none() => {
                self.add_msi(real, at);
                true
            }
            id::MSIX if self.msix.is_none() => self.add_msix(real, at),
            id::VENDOR => {
                self.space.set(at + 2, real.bytes(at + 2..capability.end));
                true
            }
            _ => false,
        }
    }

    /// Adds the capability of PCI Express. An endpoint on the root bus is an integrated one, which has no link (section 7.5.3.2).
    fn add_express(&mut self, real: &Snapshot, at: u16) {
        let flags = real.word(at + express::FLAGS) & express::FLAGS_SHOWN;
        let control = real.word(at + express::DEVICE_CONTROL) & express::DEVICE_CONTROL_WRITABLE;
        let capabilities =
            real.long(at + express::DEVICE_CAPABILITIES) & express::DEVICE_CAPABILITIES_SHOWN;
        let space = &mut self.space;
        space.set(at + express::FLAGS, &(flags | express::INTEGRATED_ENDPOINT).to_le_bytes());
        space.set(at + express::DEVICE_CAPABILITIES, &capabilities.to_le_bytes());
        space.set(at + express::DEVICE_CONTROL, &control.to_le_bytes());
        space.set_writable(
            at + express::DEVICE_CONTROL,
            &express::DEVICE_CONTROL_WRITABLE.to_le_bytes(),
        );
        if flags & express::VERSION >= 2 {
            let capabilities = real.long(at + express::DEVICE_CAPABILITIES_2)
                & express::DEVICE_CAPABILITIES_2_SHOWN;
            let control =
                real.word(at + express::DEVICE_CONTROL_2) & express::DEVICE_CONTROL_2_SHOWN;
            space.set(at + express::DEVICE_CAPABILITIES_2, &capabilities.to_le_bytes());
            space.set(at + express::DEVICE_CONTROL_2, &control.to_le_bytes());
        }
        self.express = Some(at);
    }

    fn add_msi(&mut self, real: &Snapshot, at: u16) {
        let place = msi_place(real, at);
        let control = real.word(at + msi::CONTROL) & !(msi::ENABLE | msi::ENABLED | msi::CAPABLE)
            | u16::from(place.log2) << msi::CAPABLE_SHIFT;
        self.space.set(at + msi::CONTROL, &control.to_le_bytes());
        self.space.set_writable(at + msi::CONTROL, &(msi::ENABLE | msi::ENABLED).to_le_bytes());
        self.space.set_writable(at + msi::ADDRESS, &0xffff_fffcu32.to_le_bytes());
        if place.wide {
            self.space.set_writable(at + msi::ADDRESS + 4, &u32::MAX.to_le_bytes());
        }
        self.space.set_writable(place.data(), &u16::MAX.to_le_bytes());
        if place.maskable {
            self.space.set_writable(place.mask(), &u32::MAX.to_le_bytes());
        }
        self.msi = Some(place);
    }

    /// Adds MSI-X; left out if its table would be where the guest cannot reach it.
    fn add_msix(&mut self, real: &Snapshot, at: u16) -> bool {
        let hardware_count = (real.word(at + msix::CONTROL) & msix::COUNT) + 1;
        let place = |register: u16| {
            let bits = real.long(at + register);
            let bar = BarIndex::new((bits & msix::BAR) as usize)?;
            let (size, _) = self.space.bars().get(bar.index()).copied().flatten()?;
            let offset = u64::from(bits & !msix::BAR);
            (offset < size).then_some((bar, offset))
        };
        let (Some(table), Some(pba)) = (place(msix::TABLE), place(msix::PBA)) else {
            return false;
        };
        let count = hardware_count.min(MSIX_VECTORS_MAX);
        self.space.set(at + msix::CONTROL, &(count - 1).to_le_bytes());
        let writable = pci::msix::CONTROL_WRITABLE.to_le_bytes();
        self.space.set_writable(at + msix::CONTROL, &writable);
        self.space.set(at + msix::TABLE, real.bytes(at + msix::TABLE..at + msix::LENGTH));
        self.msix = Some(MsixPlace { at, hardware_count, table, pba });
        true
    }
}

fn msi_place(real: &Snapshot, at: u16) -> MsiPlace {
    let control = real.word(at + msi::CONTROL);
    let log2 = ((control & msi::CAPABLE) >> msi::CAPABLE_SHIFT) as u8;
    MsiPlace {
        at,
        log2: log2.min(pci::msi::VECTORS_LOG2_MAX),
        wide: control & msi::WIDE != 0,
        maskable: control & msi::MASKABLE != 0,
    }
}

/// Returns what lies between capabilities. After one of unknown length, or of less than its length, nothing is
/// shown up to the next.
fn gaps(list: &[Capability]) -> Vec<Range<u16>> {
    let mut sorted = list.to_vec();
    sorted.sort_by_key(|capability| capability.at);
    let known = [id::POWER, id::VPD, id::AF, id::MSI, id::MSIX, id::VENDOR, id::EXPRESS];
    let mut gaps = Vec::new();
    let mut start = Some(register::HEADER_END);
    for capability in sorted {
        if let Some(start) = start
            && start < capability.at
        {
            gaps.push(start..capability.at);
        }
        start = (known.contains(&capability.id) && capability.whole).then_some(capability.end);
    }
    if let Some(start) = start.filter(|start| *start < spec::CONVENTIONAL) {
        gaps.push(start..spec::CONVENTIONAL);
    }
    gaps
}

/// Describes the device serial number as the only extended capability: header, then eight bytes.
pub(super) fn serial_number(
    hardware: &dyn Hardware,
) -> Option<[u8; extended::SERIAL_NUMBER_LENGTH]> {
    let mut at = extended::FIRST;
    for _ in 0..extended::CHAIN_MAX {
        let mut header = [0; 4];
        hardware.config_read(at, &mut header).ok()?;
        let header = u32::from_le_bytes(header);
        if (header & 0xffff) as u16 == extended::SERIAL_NUMBER {
            let mut capability = [0; extended::SERIAL_NUMBER_LENGTH];
            hardware.config_read(at, &mut capability).ok()?;
            // Version stays, the link to the next one goes.
            let [.., version, next] = capability.get_mut(..4)? else { return None };
            (*version, *next) = (*version & 0x0f, 0);
            return Some(capability);
        }
        at = (header >> 20) as u16 & !3;
        if !(extended::FIRST..spec::EXPRESS).contains(&at) {
            return None;
        }
    }
    None
}
