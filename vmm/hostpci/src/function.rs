//! One PCI function at the moment it was looked at.

use crate::address::Address;
use crate::class::Class;

/// What sysfs says about one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its address on the bus.
    pub address: Address,
    /// The PCI vendor ID.
    pub vendor: u16,
    /// The PCI device ID.
    pub device: u16,
    /// The class code: base class, subclass, programming interface.
    pub class: Class,
    /// The driver that has it.
    pub driver: Option<String>,
    /// `driver_override`, if one is set.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None` when no IOMMU translates for it.
    pub group: Option<Group>,
    /// How the kernel can reset it alone; `None` when it knows no way. VFIO may still manage a reset
    /// of the whole bus, so this is a hint.
    pub reset: Option<String>,
    /// The host's network interfaces that it carries.
    pub interfaces: Vec<Interface>,
    /// What the slot it is in is called, and what firmware calls it if it is part of the board.
    pub places: Vec<String>,
    /// Whether firmware says that it is part of the board.
    pub onboard: bool,
    /// Whether any IOMMU is on in this PC.
    pub iommu: bool,
    /// Whether VFIO was told to do without interrupt remapping.
    pub unsafe_interrupts: bool,
}

/// A network interface of the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interface {
    pub name: String,
    /// Its MAC address, in lower case.
    pub mac: Option<String>,
}

/// An IOMMU group: what the IOMMU cannot tell apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub number: u32,
    /// The members besides the function itself.
    pub others: Vec<Member>,
}

/// Another member of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in sysfs: a PCI address, or a platform device's name.
    pub name: String,
    /// Its address, if it is a PCI function.
    pub address: Option<Address>,
    /// Vendor and device, `8086:10d3`, if it is a PCI function.
    pub id: Option<String>,
    /// What it is, if that can be read.
    pub class: Option<Class>,
    /// The driver that has it.
    pub driver: Option<String>,
}

impl Function {
    /// Returns a few words for a person: address, identifiers, driver.
    #[must_use]
    pub fn describe(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("no driver");
        format!("{} ({}, {driver})", self.address, self.id())
    }

    /// Returns vendor and device, as `lspci -nn` writes them: `8086:10d3`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:04x}:{:04x}", self.vendor, self.device)
    }

    /// Returns names of the host's interfaces.
    #[must_use]
    pub fn interface_names(&self) -> Vec<String> {
        self.interfaces.iter().map(|interface| interface.name.clone()).collect()
    }
}
