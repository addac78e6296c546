//! What sysfs says of one PCI function. Reads only; the documents are the kernel's
//! `Documentation/ABI/testing/sysfs-bus-pci` and `sysfs-kernel-iommu_groups`.

use std::fs;
use std::io;
use std::path::Path;

use super::PciAddress;
use super::sysfs::Sysfs;

/// Names kept of one device; a real function has one or two.
const INTERFACES_MAX: usize = 16;

/// One PCI function at the moment it was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PciFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Vendor identifier.
    pub vendor: u16,
    /// Device identifier.
    pub device: u16,
    /// Class code: base class, subclass, programming interface (24 bits).
    pub class: u32,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// `driver_override`, if one is set.
    pub driver_override: Option<String>,
    /// Its IOMMU group; `None` when no IOMMU translates for it.
    pub group: Option<IommuGroup>,
    /// How the kernel can reset it; `None` when it knows no way.
    pub reset: Option<String>,
    /// The host network interfaces it carries.
    pub interfaces: Vec<String>,
}

/// An IOMMU group: what the IOMMU cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IommuGroup {
    /// Its number.
    pub number: u32,
    /// Every other function in it that could act for the device (bridges, which the kernel's VFIO
    /// allows beside it, are left out).
    pub others: Vec<PciAddress>,
}

/// Why a function could not be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// There is nothing at the address.
    #[error(
        "there is no PCI device at {0}: run `lspci -D` for the addresses of this PC and correct machine.toml; after a BIOS update or a moved card they change"
    )]
    Absent(PciAddress),
    /// sysfs would not be read.
    #[error("cannot read {attribute} of PCI device {address}: is /sys mounted?")]
    Read {
        /// The device.
        address: PciAddress,
        /// The attribute.
        attribute: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PciFunction {
    /// Looks at the function at `address`.
    pub fn inspect(sysfs: &Sysfs, address: PciAddress) -> Result<Self, InspectError> {
        let dir = sysfs.pci_device(address);
        if !dir.exists() {
            return Err(InspectError::Absent(address));
        }
        let hex = |attribute: &'static str| {
            let read = || -> io::Result<u32> {
                let text = fs::read_to_string(dir.join(attribute))?;
                u32::from_str_radix(text.trim().trim_start_matches("0x"), 16)
                    .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
            };
            read().map_err(|source| InspectError::Read { address, attribute, source })
        };
        let id = |attribute| hex(attribute).map(|v| u16::try_from(v).unwrap_or(u16::MAX));
        Ok(Self {
            address,
            vendor: id("vendor")?,
            device: id("device")?,
            class: hex("class")?,
            driver: link_name(&dir.join("driver")),
            driver_override: attribute(&dir.join("driver_override")).filter(|t| t != "(null)"),
            group: group(sysfs, &dir, address)?,
            reset: reset(&dir),
            interfaces: interfaces(&dir),
        })
    }

    /// Whether it is a PCI bridge (base class 06h), which VFIO needs not own.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        is_bridge(self.class)
    }

    /// Whether it is a network controller (base class 02h).
    #[must_use]
    pub fn is_network(&self) -> bool {
        self.class >> 16 == 0x02
    }

    /// A few words for a person: address, identifiers, driver.
    #[must_use]
    pub fn describe(&self) -> String {
        let driver = self.driver.as_deref().unwrap_or("no driver");
        format!("{} ({:04x}:{:04x}, {driver})", self.address, self.vendor, self.device)
    }
}

fn is_bridge(class: u32) -> bool {
    class >> 16 == 0x06
}

fn group(
    sysfs: &Sysfs,
    dir: &Path,
    address: PciAddress,
) -> Result<Option<IommuGroup>, InspectError> {
    let link = dir.join("iommu_group");
    let Some(number) = link_name(&link).and_then(|name| name.parse().ok()) else {
        return Ok(None);
    };
    let members = fs::read_dir(link.join("devices")).map_err(|source| InspectError::Read {
        address,
        attribute: "iommu_group/devices",
        source,
    })?;
    let mut others: Vec<PciAddress> = members
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|other| *other != address)
        .filter(|other| {
            // What cannot be read counts as a device that can do harm.
            let class = attribute(&sysfs.pci_device(*other).join("class"))
                .and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
            !class.is_some_and(is_bridge)
        })
        .collect();
    others.sort_unstable();
    Ok(Some(IommuGroup { number, others }))
}

/// `reset_method` names the ways (kernel 5.15); before that, that `reset` exists says there is one.
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

fn interfaces(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.join("net")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .take(INTERFACES_MAX)
        .collect();
    names.sort_unstable();
    names
}

fn link_name(link: &Path) -> Option<String> {
    fs::read_link(link).ok()?.file_name()?.to_str().map(str::to_owned)
}

fn attribute(file: &Path) -> Option<String> {
    fs::read_to_string(file).ok().map(|text| text.trim().to_owned())
}
