//! Reading sysfs. The documents are the kernel's `Documentation/ABI/testing/sysfs-bus-pci` and
//! `sysfs-kernel-iommu_groups`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::address::Address;
use crate::class::Class;
use crate::function::{Function, Group, Interface, Member};
use crate::snapshot::Snapshot;

/// Most members of an IOMMU group that are looked at. A larger one is refused: what is not looked at
/// could do harm.
const MEMBERS_MAX: usize = 256;
/// Names kept of one device; a real function has one or two.
const INTERFACES_MAX: usize = 16;
/// Slots of one PC.
const SLOTS_MAX: usize = 256;
/// Network controllers named to help whoever mistyped an address.
const NETWORKS_MAX: usize = 8;

/// Why sysfs could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// No function has this address.
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
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A file of sysfs says something nobody can make sense of.
    #[error("{path} holds something unexpected, `{text}`: the kernel is too old, or this is not sysfs", path = path.display())]
    Unexpected {
        path: PathBuf,
        /// What the file holds.
        text: String,
    },
}

impl InspectError {
    /// Returns whether there is no such function.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

fn not_found(address: Address, networks: &[Address]) -> String {
    let there = if networks.is_empty() {
        String::new()
    } else {
        let list: Vec<_> = networks.iter().map(Address::to_string).collect();
        format!("; its network controllers are {}", list.join(", "))
    };
    format!(
        "there is no PCI function {address} in this PC{there}: correct the address (`lspci -D` lists them all; after a firmware update, or when a card is added or moved, they change)"
    )
}

/// A tree of sysfs: the system's own, or a test's.
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
    /// Makes the tree at `root`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns a path below the root.
    #[must_use]
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// Returns the directory of a PCI function.
    #[must_use]
    pub fn pci_device(&self, address: Address) -> PathBuf {
        self.path("bus/pci/devices").join(address.to_string())
    }

    /// Returns the directory of a PCI driver.
    #[must_use]
    pub fn pci_driver(&self, name: &str) -> PathBuf {
        self.path("bus/pci/drivers").join(name)
    }

    /// Reads what there is to know about `address`.
    pub fn inspect(&self, address: Address) -> Result<Function, InspectError> {
        let dir = self.pci_device(address);
        if !dir.exists() {
            return Err(InspectError::NotFound { address, networks: self.networks() });
        }
        let group = match link_name(&dir.join("iommu_group"))? {
            Some(name) => {
                let number = name.parse().map_err(|_| InspectError::Unexpected {
                    path: dir.join("iommu_group"),
                    text: name,
                })?;
                Some(Group { number, others: self.others(&dir, address)? })
            }
            None => None,
        };
        let mut places = self.slots(address);
        let label = attribute(&dir.join("label"));
        let onboard = label.is_some() || dir.join("acpi_index").exists();
        places.extend(label);
        Ok(Function {
            address,
            vendor: id(&dir.join("vendor"))?,
            device: id(&dir.join("device"))?,
            class: Class(number(&dir.join("class"))?),
            driver: link_name(&dir.join("driver"))?,
            driver_override: attribute(&dir.join("driver_override"))
                .filter(|text| text != "(null)" && !text.is_empty()),
            group,
            reset: reset(&dir),
            interfaces: interfaces(&dir),
            places,
            onboard,
            iommu: self.has_iommu(),
            unsafe_interrupts: self.unsafe_interrupts(),
        })
    }

    /// Returns the driver that has `address` now; `None` also where there is no such function.
    #[must_use]
    pub fn driver(&self, address: Address) -> Option<String> {
        link_name(&self.pci_device(address).join("driver")).ok().flatten()
    }

    /// Returns the function's configuration space and BARs; `None` where it cannot be read whole,
    /// which takes root.
    #[must_use]
    pub fn snapshot(&self, address: Address) -> Option<Snapshot> {
        let dir = self.pci_device(address);
        let config = fs::read(dir.join("config")).ok()?;
        let resources = fs::read_to_string(dir.join("resource")).ok()?;
        Snapshot::from_sysfs(&config, &resources)
    }

    /// Returns every PCI function of this PC.
    #[must_use]
    pub fn functions(&self) -> Vec<Address> {
        let names = names(&self.path("bus/pci/devices")).unwrap_or_default();
        names.iter().filter_map(|name| Address::from_full(name).ok()).collect()
    }

    /// Finds those that are network controllers.
    #[must_use]
    pub fn network_controllers(&self) -> Vec<Address> {
        let is_network = |address: &Address| {
            number(&self.pci_device(*address).join("class"))
                .is_ok_and(|class| Class(class).is_network())
        };
        self.functions().into_iter().filter(is_network).collect()
    }

    fn others(&self, function: &Path, address: Address) -> Result<Vec<Member>, InspectError> {
        let folder = function.join("iommu_group/devices");
        let own = address.to_string();
        let names = names(&folder)?;
        if names.len() > MEMBERS_MAX {
            return Err(InspectError::Unexpected {
                path: folder,
                text: format!("{} members", names.len()),
            });
        }
        let mut others = Vec::new();
        for name in names.into_iter().filter(|name| *name != own) {
            let member = folder.join(&name);
            let ids = id(&member.join("vendor")).ok().zip(id(&member.join("device")).ok());
            others.push(Member {
                address: Address::from_full(&name).ok(),
                id: ids.map(|(vendor, device)| format!("{vendor:04x}:{device:04x}")),
                class: number(&member.join("class")).ok().map(Class),
                driver: link_name(&member.join("driver"))?,
                name,
            });
        }
        Ok(others)
    }

    /// Returns names of the slots that hold the device, which is in one if the bus has slots.
    fn slots(&self, address: Address) -> Vec<String> {
        let folder = self.path("bus/pci/slots");
        let here = address.device();
        let names = names(&folder).unwrap_or_default();
        let holds = |name: &String| {
            attribute(&folder.join(name).join("address")).is_some_and(|text| text == here)
        };
        names.into_iter().take(SLOTS_MAX).filter(holds).collect()
    }

    fn has_iommu(&self) -> bool {
        names(&self.path("class/iommu")).is_ok_and(|names| !names.is_empty())
    }

    fn unsafe_interrupts(&self) -> bool {
        let parameter = "module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
        fs::read_to_string(self.path(parameter)).is_ok_and(|text| text.starts_with('Y'))
    }

    fn networks(&self) -> Vec<Address> {
        let mut networks = self.network_controllers();
        networks.truncate(NETWORKS_MAX);
        networks
    }
}

/// Returns how the kernel can reset a function: `reset_method` names the ways (kernel 5.15); before that, that `reset` exists says there is one.
fn reset(dir: &Path) -> Option<String> {
    if !dir.join("reset").exists() {
        return None;
    }
    match attribute(&dir.join("reset_method")) {
        Some(methods) if methods.is_empty() => None,
        Some(methods) => Some(methods),
        None => Some("unnamed".to_owned()),
    }
}

fn interfaces(dir: &Path) -> Vec<Interface> {
    let folder = dir.join("net");
    let names = names(&folder).unwrap_or_default();
    let interface = |name: String| Interface {
        mac: attribute(&folder.join(&name).join("address")).map(|mac| mac.to_ascii_lowercase()),
        name,
    };
    names.into_iter().take(INTERFACES_MAX).map(interface).collect()
}

fn attribute(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}

/// Returns the last part of where a link points; `None` if there is no link.
fn link_name(path: &Path) -> Result<Option<String>, InspectError> {
    match fs::read_link(path) {
        Ok(target) => Ok(target.file_name().map(|name| name.to_string_lossy().into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(InspectError::Read { path: path.to_owned(), source }),
    }
}

/// Returns names in a folder, sorted.
fn names(folder: &Path) -> Result<Vec<String>, InspectError> {
    let read = |source| InspectError::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        names.push(entry.map_err(read)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Reads a number as sysfs writes it: `0x020000`.
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

/// Reads a vendor or device ID.
fn id(path: &Path) -> Result<u16, InspectError> {
    let number = number(path)?;
    u16::try_from(number).map_err(|_| InspectError::Unexpected {
        path: path.to_owned(),
        text: format!("{number:#x}"),
    })
}

#[cfg(test)]
mod tests;
