//! What sysfs says about a PCI function, and whether it can be handed to a guest.
//!
//! Reads only: nothing is opened, bound or changed, so it can be asked about any PC at any time.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::address::Address;

/// The driver a function must be bound to.
pub const DRIVER: &str = "vfio-pci";

/// Most members of an IOMMU group that are looked at; real groups have a few dozen at the worst.
const MEMBERS_MAX: usize = 256;

/// Class code of bridges: base class 6 (PCI Code and ID Assignment 1.11, section 1.7).
const BRIDGES: Range<u32> = 0x06_0000..0x07_0000;
/// PCI-to-PCI bridges, which include PCI Express ports.
const PCI_BRIDGES: Range<u32> = 0x06_0400..0x06_0500;
/// Network controllers.
const NETWORK_CONTROLLERS: Range<u32> = 0x02_0000..0x03_0000;

/// Why sysfs could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No such function.
    #[error("{}", not_found(*address, networks))]
    NotFound {
        /// What was asked for.
        address: Address,
        /// Network controllers that are there.
        networks: Vec<Address>,
    },
    /// A file of sysfs cannot be read.
    #[error("could not read {path}: run this where sysfs is mounted on /sys and readable", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A file of sysfs says something nobody can make sense of.
    #[error("{path} holds something unexpected, `{text}`: the kernel is too old, or this is not sysfs", path = path.display())]
    Unexpected {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

fn not_found(address: Address, networks: &[Address]) -> String {
    let mut text = format!("there is no PCI function {address} in this PC");
    if networks.is_empty() {
        text.push_str(": `lspci -D` lists those there are");
    } else {
        let list: Vec<_> = networks.iter().map(Address::to_string).collect();
        text.push_str(&format!("; its network controllers are {}", list.join(", ")));
    }
    text
}

/// Why a function cannot be handed to a guest now, and what IT can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A bridge is part of the PC, not a device.
    #[error("{address} is a PCI bridge: name the device behind it instead")]
    Bridge {
        /// The function.
        address: Address,
    },
    /// The PC has no working IOMMU.
    #[error(
        "the IOMMU is off, and without it {address} could reach all memory: turn on VT-d (Intel) or AMD-Vi (AMD) in the firmware setup, and on Intel add intel_iommu=on to the kernel command line"
    )]
    IommuOff {
        /// The function.
        address: Address,
    },
    /// The IOMMU leaves this function out.
    #[error(
        "{address} is not behind the IOMMU, so its memory accesses cannot be confined: use another slot or another card"
    )]
    NoGroup {
        /// The function.
        address: Address,
    },
    /// The IOMMU cannot tell it from others.
    #[error("{}", shared(*address, *group, others))]
    SharedGroup {
        /// The function.
        address: Address,
        /// Its IOMMU group.
        group: u32,
        /// What else is in it, bridges left out.
        others: Vec<Member>,
    },
    /// The administrator turned a protection off.
    #[error(
        "the module vfio_iommu_type1 was loaded with allow_unsafe_interrupts, so that a guest could forge interrupts: remove that option, reboot, and turn on interrupt remapping in the firmware setup if it is off"
    )]
    UnsafeInterrupts,
    /// No driver, or the wrong one.
    #[error("{}", not_bound(*address, driver.as_deref()))]
    NotBound {
        /// The function.
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
    },
}

fn shared(address: Address, group: u32, others: &[Member]) -> String {
    let list: Vec<_> = others.iter().map(Member::to_string).collect();
    format!(
        "{address} shares IOMMU group {group} with {}; what shares a group can reach each other's memory: move the card to another slot, or turn on ACS (often next to VT-d or SR-IOV) in the firmware setup",
        list.join(", ")
    )
}

fn not_bound(address: Address, driver: Option<&str>) -> String {
    let now = match driver {
        Some(driver) => format!("{address} is in use by this PC's driver {driver}"),
        None => format!("{address} has no driver"),
    };
    format!(
        "{now}, not {DRIVER}: the agent hands it over when a domain names it; by hand, `driverctl set-override {address} {DRIVER}`"
    )
}

/// Another member of an IOMMU group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name in sysfs: a PCI address, or a platform device's name.
    pub name: String,
    /// The driver that has it.
    pub driver: Option<String>,
    /// A PCI-to-PCI bridge: part of the path, which VFIO tolerates in a group.
    pub bridge: bool,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.driver {
            Some(driver) => write!(f, "{} (driver {driver})", self.name),
            None => write!(f, "{} (no driver)", self.name),
        }
    }
}

/// What sysfs says about one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// The function.
    pub address: Address,
    /// PCI vendor.
    pub vendor: u16,
    /// PCI device.
    pub device: u16,
    /// Class code: base class, subclass, programming interface (0x020000: Ethernet).
    pub class: u32,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// The other members of that group.
    pub others: Vec<Member>,
    /// Whether any IOMMU is on in this PC.
    pub iommu: bool,
    /// Whether VFIO was told to do without interrupt remapping.
    pub unsafe_interrupts: bool,
    /// Whether the kernel knows a way to reset this function alone. VFIO may still manage a reset
    /// of the whole bus, so this is a hint.
    pub resettable: bool,
}

impl Inspection {
    /// Whether the hardware allows handing this function over, whoever has it now: its group.
    pub fn isolated(&self) -> Result<u32, Refusal> {
        let address = self.address;
        if BRIDGES.contains(&self.class) {
            return Err(Refusal::Bridge { address });
        }
        let group = match self.group {
            Some(group) => group,
            None if self.iommu => return Err(Refusal::NoGroup { address }),
            None => return Err(Refusal::IommuOff { address }),
        };
        let others: Vec<_> = self.others.iter().filter(|m| !m.bridge).cloned().collect();
        if !others.is_empty() {
            return Err(Refusal::SharedGroup { address, group, others });
        }
        if self.unsafe_interrupts {
            return Err(Refusal::UnsafeInterrupts);
        }
        Ok(group)
    }

    /// Whether it can be opened now: its group.
    pub fn ready(&self) -> Result<u32, Refusal> {
        let group = self.isolated()?;
        if self.driver.as_deref() != Some(DRIVER) {
            return Err(Refusal::NotBound { address: self.address, driver: self.driver.clone() });
        }
        Ok(group)
    }
}

/// A sysfs tree.
#[derive(Clone, Debug)]
pub struct Sysfs {
    root: PathBuf,
}

impl Default for Sysfs {
    fn default() -> Self {
        Self::at("/sys")
    }
}

impl Sysfs {
    /// The tree at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Reads what there is to know about `address`.
    pub fn inspect(&self, address: Address) -> Result<Inspection, InspectError> {
        let function = self.root.join("bus/pci/devices").join(address.to_string());
        if !function.exists() {
            return Err(InspectError::NotFound { address, networks: self.networks() });
        }
        let group = match link_name(&function.join("iommu_group"))? {
            Some(name) => Some(name.parse().map_err(|_| InspectError::Unexpected {
                path: function.join("iommu_group"),
                text: name,
            })?),
            None => None,
        };
        Ok(Inspection {
            address,
            vendor: id(&function.join("vendor"))?,
            device: id(&function.join("device"))?,
            class: number(&function.join("class"))?,
            driver: link_name(&function.join("driver"))?,
            group,
            others: if group.is_some() { self.others(&function, address)? } else { Vec::new() },
            iommu: self.has_iommu(),
            unsafe_interrupts: self.unsafe_interrupts(),
            resettable: function.join("reset").exists(),
        })
    }

    fn others(&self, function: &Path, address: Address) -> Result<Vec<Member>, InspectError> {
        let folder = function.join("iommu_group/devices");
        let own = address.to_string();
        let mut others = Vec::new();
        for name in names(&folder)?.into_iter().take(MEMBERS_MAX) {
            if name == own {
                continue;
            }
            let member = folder.join(&name);
            let class = number(&member.join("class")).unwrap_or(0);
            others.push(Member {
                driver: link_name(&member.join("driver"))?,
                bridge: PCI_BRIDGES.contains(&class),
                name,
            });
        }
        Ok(others)
    }

    fn has_iommu(&self) -> bool {
        names(&self.root.join("class/iommu")).is_ok_and(|names| !names.is_empty())
    }

    fn unsafe_interrupts(&self) -> bool {
        let parameter = "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
        fs::read_to_string(self.root.join(parameter)).is_ok_and(|text| text.starts_with('Y'))
    }

    /// Network controllers of this PC, to help whoever mistyped an address.
    fn networks(&self) -> Vec<Address> {
        let folder = self.root.join("bus/pci/devices");
        let is_network = |name: &String| {
            number(&folder.join(name).join("class"))
                .is_ok_and(|class| NETWORK_CONTROLLERS.contains(&class))
        };
        let names = names(&folder).unwrap_or_default();
        names
            .iter()
            .filter(|name| is_network(name))
            .filter_map(|n| n.parse().ok())
            .take(8)
            .collect()
    }
}

/// The last part of where a link points; `None` if there is no link.
fn link_name(path: &Path) -> Result<Option<String>, InspectError> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InspectError::Read { path: path.to_owned(), source }),
    }
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>, InspectError> {
    let read = |source| InspectError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        names.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A number as sysfs writes it: `0x020000`.
fn number(path: &Path) -> Result<u32, InspectError> {
    let text = fs::read_to_string(path)
        .map_err(|source| InspectError::Read { path: path.to_owned(), source })?;
    let text = text.trim();
    text.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok()).ok_or_else(
        || InspectError::Unexpected {
            path: path.to_owned(),
            text: text.chars().take(40).collect(),
        },
    )
}

/// A vendor or device ID.
fn id(path: &Path) -> Result<u16, InspectError> {
    let number = number(path)?;
    u16::try_from(number).map_err(|_| InspectError::Unexpected {
        path: path.to_owned(),
        text: format!("{number:#x}"),
    })
}

#[cfg(test)]
mod tests;
