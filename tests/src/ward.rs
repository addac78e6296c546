//! The ward PC that most tests and the demo use: two NICs on two networks that must not touch.

use tempfile::TempDir;

use crate::wardpc::Hardware;
use crate::{Network, Outcome, WardPc};

/// MAC address of the clinical NIC.
pub const CLINICAL_MAC: &str = "52:54:00:0a:01:05";
/// MAC address of the Internet NIC.
pub const INTERNET_MAC: &str = "52:54:00:0a:02:06";
/// Where the clinical NIC is.
pub const CLINICAL_NIC: &str = "0000:00:05.0";
/// Where the Internet NIC is.
pub const INTERNET_NIC: &str = "0000:00:06.0";

/// A PCI Express slot, empty: QEMU's name of it. A card that is plugged in reports its errors to the PC, as cards on the root bus do not.
pub const SLOT: &str = "pluggable";

/// The PC and what its NICs are plugged into.
pub struct Ward {
    pub pc: WardPc,
    /// The hospital's network, its server at 10.1.0.1.
    pub clinical: Network,
    /// The outside, its server at 10.2.0.1.
    pub internet: Network,
    _dir: TempDir,
}

/// How wide the physical addresses of the PC's processors are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// As QEMU has them.
    Ordinary,
    /// As in small PCs: what a guest is given has to fit below 512 GiB.
    Bits39,
}

impl Ward {
    /// Powers a ward PC on and waits for its agent.
    pub fn start(addresses: Addresses) -> Outcome<Self> {
        Self::start_with(addresses, &[])
    }

    /// Powers on, with more arguments for QEMU.
    pub fn start_with(addresses: Addresses, extra: &[String]) -> Outcome<Self> {
        let dir = tempfile::tempdir()?;
        let clinical = Network::start(dir.path(), "clinical", [10, 1, 0, 1])?;
        let internet = Network::start(dir.path(), "internet", [10, 2, 0, 1])?;
        let hardware = Hardware {
            // A 5 GiB guest fits beside the PC itself.
            memory_mib: 8192,
            nics: vec![(5, CLINICAL_MAC, &clinical), (6, INTERNET_MAC, &internet)],
            extra: [crate::seat::hardware(dir.path()).as_slice(), &slot(), extra].concat(),
            address_bits: (addresses == Addresses::Bits39).then_some(39),
            ..Hardware::default()
        };
        let pc = WardPc::start(dir.path(), &hardware)?;
        Ok(Self { pc, clinical, internet, _dir: dir })
    }
}

fn slot() -> [String; 2] {
    ["-device".to_owned(), format!("pcie-root-port,id={SLOT},chassis=1,slot=1,addr=1c")]
}
