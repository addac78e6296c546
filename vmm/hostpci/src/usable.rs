//! Whether a guest's driver can work with a function at all. Guests get memory BARs, MSI and MSI-X;
//! interrupts by pin (INTx) and I/O ports are not given (docs/design/decisions/0017).

use crate::class::Class;
use crate::snapshot::{BarKind, Snapshot, id};

/// Why no driver in a guest could work with a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what(), self.remedy())]
pub enum Unusable {
    /// It has neither MSI nor MSI-X, and a guest gets no interrupt pin.
    PinOnly,
    /// It has BARs of I/O ports and none of memory, and a guest gets no ports of the host's.
    PortsOnly,
    /// It has no BAR at all.
    NoRegisters,
}

impl Unusable {
    /// Returns what is the matter.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::PinOnly => {
                "it has neither MSI nor MSI-X and interrupts by pin (INTx) only, which is not given to guests"
            }
            Self::PortsOnly => {
                "its registers are I/O ports only (no memory BAR), which are not given to guests"
            }
            Self::NoRegisters => "it has no registers that a guest could reach (no BAR)",
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::PinOnly | Self::PortsOnly => {
                "no driver could work with it; use a PCI Express device that has MSI or MSI-X and a memory BAR (`lspci -vv` shows them), or a USB one"
            }
            Self::NoRegisters => {
                "no driver could work with it; if it should have some, firmware gave it no room: `dmesg` says so"
            }
        }
    }
}

/// Returns whether a guest's driver can work with the function.
pub fn check(function: &Snapshot) -> Result<(), Unusable> {
    let bars = function.bars();
    let has = |wanted: fn(BarKind) -> bool| bars.iter().flatten().any(|bar| wanted(bar.kind));
    if !has(|kind| kind != BarKind::Io) {
        return Err(if has(|kind| kind == BarKind::Io) {
            Unusable::PortsOnly
        } else {
            Unusable::NoRegisters
        });
    }
    let signals =
        function.capabilities().iter().any(|one| matches!(one.id, id::MSI | id::MSIX) && one.whole);
    // One without a pin either has no interrupts, and nothing is taken from it.
    if signals || !function.has_pin() { Ok(()) } else { Err(Unusable::PinOnly) }
}

/// A Linux driver that interrupts by pin though its hardware has MSI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinDriver {
    pub driver: &'static str,
    /// What makes it use MSI; `None` if nothing does.
    pub remedy: Option<&'static str>,
}

/// Returns the driver of a function, if it is known to use the pin though there is MSI. From the
/// drivers' own sources in Linux: those that call `request_irq(pdev->irq)` without `pci_enable_msi`.
#[must_use]
pub fn pin_driver(vendor: u16, device: u16, class: Class) -> Option<PinDriver> {
    const ATHEROS: u16 = 0x168c;
    const BROADCOM: u16 = 0x14e4;
    const RALINK: u16 = 0x1814;
    const REALTEK: u16 = 0x10ec;
    let plain = |driver| Some(PinDriver { driver, remedy: None });
    let told = |driver, remedy| Some(PinDriver { driver, remedy: Some(remedy) });
    if class.sub() == 0x0805 {
        return plain("sdhci-pci");
    }
    if !class.is_network() {
        return None;
    }
    match (vendor, device) {
        (ATHEROS, 0x0023..=0x0037) => told(
            "ath9k",
            "ath9k.use_msi=1 on the guest's kernel command line (Linux 4.17 or later)",
        ),
        (ATHEROS, 0x0007..=0x001d) => plain("ath5k"),
        (RALINK, _) => plain("rt2x00 (rt2800pci, rt61pci, rt2500pci)"),
        (
            BROADCOM,
            0x0576
            | 0x4301..=0x4331
            | 0x4350..=0x4353
            | 0x4357..=0x4365
            | 0x43a0
            | 0x43a9
            | 0x43aa
            | 0x43b1
            | 0x4727
            | 0xa8d8..=0xa8dc,
        ) => plain("b43 or brcmsmac"),
        (REALTEK, 0x8171..=0x8174 | 0x8176..=0x8178 | 0x8191 | 0x8193) => {
            plain("rtl8192ce, rtl8192se or rtl8192de")
        }
        (REALTEK, 0x8723) => {
            told("rtl8723ae", "rtl8723ae.msi=1 on the guest's kernel command line")
        }
        (REALTEK, 0xb723) => {
            told("rtl8723be", "rtl8723be.msi=1 on the guest's kernel command line")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
