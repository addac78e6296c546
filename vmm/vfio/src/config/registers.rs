//! Registers of their own that cards have in configuration space, and that their drivers write.
//!
//! The kernel's vfio-pci passes every byte from 0x40 on that is in no capability, and the vendor-specific
//! capability whole, because "some devices hide registers between the gaps". Here what passes is named,
//! and only where the kernel would pass it: a register that lies in any other capability of this very
//! card does not. Each row was read in the driver that needs it; what each row can do is no more than the
//! card's own BARs, which the guest has anyway, and the IOMMU confines what comes of it
//! (docs/design/decisions/0017).

use std::ops::Range;

use hostpci::Class;
use hostpci::snapshot::{Capability, id};

use super::VirtualConfig;

/// Registers that one family of cards is worked by.
struct Family {
    /// Whether a card is one, by vendor, device and class.
    is_one: fn(u16, u16, Class) -> bool,
    registers: &'static [Register],
}

struct Register {
    at: Range<u16>,
    /// What it is called in the driver, and why it has to be written.
    #[cfg_attr(not(test), expect(dead_code, reason = "for whoever reads the table"))]
    reason: &'static str,
}

const fn register(at: Range<u16>, reason: &'static str) -> Register {
    Register { at, reason }
}

/// Returns whether it is one of Broadcom's LAN chips; SysKonnect, Altima, Apple and Fujitsu sold some under IDs of their own.
const fn is_broadcom_lan(vendor: u16, device: u16, class: Class) -> bool {
    class.is_ethernet()
        && matches!(
            (vendor, device),
            (0x14e4, _)
                | (0x1148, 0x4400 | 0x4500)
                | (0x173b, 0x03e8..=0x03eb)
                | (0x106b, 0x1645)
                | (0x10cf, 0x11a2)
        )
}

const fn is_wifi(class: Class) -> bool {
    class.is_network() && !class.is_ethernet()
}

const FAMILIES: &[Family] = &[
    // tg3 (tg3.h), bnx2 (BNX2_PCICFG_*), bnx2x (PCICFG_GRC_*).
    Family {
        is_one: is_broadcom_lan,
        registers: &[
            register(
                0x68..0x6c,
                "MISC_HOST_CTRL: byte order, indirect access, interrupt mask; written first of all, and after each chip reset",
            ),
            register(0x6c..0x70, "DMA_RW_CTRL: burst sizes, after each chip reset"),
            register(0x70..0x74, "PCISTATE: retries, bus mode; after each chip reset"),
            register(0x74..0x78, "CLOCK_CTRL: the core clock, before the chip is stopped"),
            register(0x78..0x7c, "REG_BASE_ADDR, GRC_ADDRESS: which register REG_DATA shows"),
            register(
                0x7c..0x80,
                "MEM_WIN_BASE_ADDR: which of the card's memory MEM_WIN_DATA shows",
            ),
            register(0x80..0x84, "REG_DATA, GRC_DATA: the register itself"),
            register(0x84..0x88, "MEM_WIN_DATA: the card's memory itself"),
        ],
    },
    // brcmfmac (pcie.c), bcma (bcma_driver_pci.h), ssb (ssb_regs.h).
    Family {
        is_one: |vendor, _, class| vendor == 0x14e4 && is_wifi(class),
        registers: &[
            register(0x70..0x74, "BAR0_WIN2 of PCIe cores of the second generation"),
            register(0x80..0x84, "BAR0_WIN: which core BAR 0 shows; at every change of core"),
            register(0x94..0x98, "IRQMASK: which cores may interrupt"),
            register(0xac..0xb0, "BAR0_WIN2: which core's wrapper BAR 0 shows"),
            register(
                0xb4..0xbc,
                "GPIO_OUT, GPIO_OUT_ENABLE: the card's crystal, before anything else",
            ),
        ],
    },
    // jme (jme.h).
    Family {
        is_one: |vendor, _, class| vendor == 0x197b && class.is_ethernet(),
        registers: &[register(0xe4..0xe8, "PE1: power of the PHY, at every open and close")],
    },
    // iwlwifi, ath9k, ath10k, bcma: RETRY_TIMEOUT.
    Family {
        is_one: |vendor, _, class| matches!(vendor, 0x8086 | 0x168c | 0x14e4) && is_wifi(class),
        registers: &[register(
            0x41..0x42,
            "RETRY_TIMEOUT: off, or retries keep the processor from sleeping deeply",
        )],
    },
];

/// Returns the registers of a card, in order.
fn of(vendor: u16, device: u16, class: Class) -> impl Iterator<Item = &'static Register> {
    FAMILIES
        .iter()
        .filter(move |family| (family.is_one)(vendor, device, class))
        .flat_map(|family| family.registers)
}

impl VirtualConfig {
    /// Passes writes to the card's own registers, where nothing else is there; reads then show what
    /// came of them.
    pub(super) fn show_passed_registers(&mut self, list: &[Capability]) {
        let (vendor, device, class) = self.identity();
        for register in of(vendor, device, class) {
            let at = &register.at;
            let in_vendors_own = list.iter().any(|one| {
                // Its ID, link and length stay as they are.
                one.id == id::VENDOR && one.at + 3 <= at.start && at.end <= one.end
            });
            let in_a_gap = self.live.iter().any(|gap| gap.start <= at.start && at.end <= gap.end);
            if in_vendors_own {
                self.live.push(at.clone());
            }
            if in_vendors_own || in_a_gap {
                self.passed.push(at.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests;
