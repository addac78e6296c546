//! What the machine file says of this PC's PCI functions: which domain each is for, and what it must be. Plain data: who reads the machine file needs nothing of
//! who hands functions over.
//!
//! A [`ClaimedFunction`] is one function by its address, for what a domain wants it ([`Role`]) and what it must be ([`Pins`]): a card in another slot, or another card in
//! this one, is handed to nobody. Addresses are `DDDD:BB:DD.F`, as the kernel writes them (sysfs, `bus/pci/devices`). `agent/config` makes claims of the machine file;
//! `agent/handover` looks whether each holds, and hands over; `doctor` says what would not.
#![deny(clippy::print_stderr, clippy::print_stdout)]
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use hostpci::{Address as PciAddress, AddressError};

/// What a domain wants a function for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Nic,
    /// A PCI function that is no NIC of the domain's.
    Device,
}

impl Role {
    /// Returns the role's name in messages.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nic => "NIC",
            Self::Device => "device",
        }
    }
}

/// A function that the machine file gives to a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimedFunction {
    /// The function's address on the bus.
    pub address: PciAddress,
    pub role: Role,
    /// The properties that the function must have.
    pub pins: Pins,
}

/// What is said of a function beside its address; what is not said is not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// Vendor and device: `8086:10d3`.
    pub id: Option<String>,
    /// MAC address of its interface, in lower case.
    pub mac: Option<String>,
    /// Name of the slot it is in, or what firmware calls it if it is on the board.
    pub slot: Option<String>,
}

impl Pins {
    /// Returns whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Which graphics card the seat needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Screen {
    /// There is no seat.
    #[default]
    None,
    /// The first card that has a screen.
    First,
    /// The card whose device node this is.
    Card(PathBuf),
}

/// What the machine file says of this PC as far as handing functions over depends on it.
#[derive(Debug, Clone, Default)]
pub struct Claims {
    /// Which domain each function is for.
    pub domains: BTreeMap<PciAddress, String>,
    /// The screen that the seat needs, which stays with the host.
    pub screen: Screen,
    /// Disks of the domains, which are the host's to serve.
    pub disks: Vec<PathBuf>,
}
