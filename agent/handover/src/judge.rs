//! Whether a function may be handed to a domain. The hand-over asks before anything is unbound; the
//! doctor asks the same questions one by one.

use std::io;

use hostpci::{Function, GroupRefusal, InspectError, Member, Unusable, usable};

use super::host_use::HostUse;
use super::pins::{self, Mismatch};
use super::sysfs::HostSysfs;
use super::{ClaimedFunction, Claims, PciAddress, Role};

/// Why a function is not handed over. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HandoverRefusal {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A NIC that is none.
    #[error("{}: {}", self.what(), self.remedy())]
    NotANic {
        /// What is at the address instead of a NIC.
        function: Box<Function>,
    },
    /// Not the one that was meant.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
    /// The PC lives from it.
    #[error("{}: {}", self.what(), self.remedy())]
    InUse {
        /// The function's address and what it is, in words.
        function: String,
        uses: Vec<String>,
    },
    /// Nobody knows what the PC lives from.
    #[error(
        "cannot read what this PC has mounted and which devices it uses, so nobody knows which controllers it lives from"
    )]
    HostUnknown(#[source] io::Error),
    /// Hardware or firmware do not permit it, or it is no device.
    #[error(transparent)]
    Blocked(#[from] GroupRefusal),
    /// No driver could work with it.
    #[error("PCI device {address} cannot be used by a guest: {reason}")]
    Unusable { address: PciAddress, reason: Unusable },
    /// Another domain has a member of its group.
    #[error("{}: {}", self.what(), self.remedy())]
    OtherDomain { address: PciAddress, member: Box<Member>, domain: String, group: u32 },
}

impl HandoverRefusal {
    /// Returns what is the matter.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::NotANic { function } => format!(
                "the NIC of a domain is no network controller: {} is a {} (class {:06x})",
                function.describe(),
                function.class,
                function.class.0
            ),
            Self::Mismatch(mismatch) => mismatch.what.clone(),
            Self::InUse { function, uses } => {
                format!("PCI device {function} carries {}", uses.join(", "))
            }
            Self::Blocked(blocked) => blocked.what(),
            Self::Unusable { address, reason } => {
                format!("PCI device {address} cannot be used by a guest: {}", reason.what())
            }
            Self::OtherDomain { address, member, domain, group } => format!(
                "PCI device {address} shares IOMMU group {group} with {member}, which is {domain}'s; one group cannot be two domains'"
            ),
            Self::HostUnknown(error) => format!("{self}: {error}"),
            Self::Inspect(_) => self.to_string(),
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Inspect(_) => {
                "run `lspci -D`, find the device, and write its address into machine.toml"
            }
            Self::NotANic { .. } => {
                "write the address of a network controller into machine.toml (`lspci -D -d ::0200`); if the address was right once, a card was added or moved"
            }
            Self::Mismatch(_) => Mismatch::REMEDY,
            Self::InUse { .. } => {
                "it stays with this PC; write the right address into machine.toml: if this one was right once, a card was added or moved (`lspci -D` shows the new one)"
            }
            Self::HostUnknown(_) => {
                "mount /proc and /sys whole, and show process 1 to the agent (no hidepid on /proc, no ProtectProc= for its unit); `cat /proc/1/mountinfo` shows whether it can be read"
            }
            Self::Blocked(blocked) => blocked.remedy(),
            Self::Unusable { reason, .. } => reason.remedy(),
            Self::OtherDomain { .. } => {
                "give the two domains cards of their own in slots with groups of their own"
            }
        }
    }
}

/// A function that may be handed over, and what goes with it.
#[derive(Debug)]
pub struct Plan {
    pub function: Function,
    /// Members of its group that go to vfio-pci as well, and to nobody.
    pub companions: Vec<Function>,
}

/// Asks everything that must hold before a function is taken from the host.
pub fn plan(
    sysfs: &HostSysfs,
    wanted: &ClaimedFunction,
    domain: &str,
    claims: &Claims,
    known_mac: Option<&str>,
) -> Result<Plan, HandoverRefusal> {
    let function = sysfs.inspect(wanted.address)?;
    pins::check(&wanted.pins, sysfs, &function, known_mac)?;
    kind(&function, wanted.role)?;
    let host_use = HostUse::look(sysfs, &claims.screen, &claims.disks)
        .map_err(HandoverRefusal::HostUnknown)?;
    not_in_use(&function, &host_use)?;
    usable(sysfs, &function)?;
    let companions = isolated(sysfs, &function, domain, claims, &host_use)?;
    Ok(Plan { function, companions })
}

/// Checks that it is a device, and of the kind it is wanted as.
pub fn kind(function: &Function, role: Role) -> Result<(), HandoverRefusal> {
    function.is_a_device()?;
    if role == Role::Nic && !function.class.is_network() {
        return Err(HandoverRefusal::NotANic { function: Box::new(function.clone()) });
    }
    Ok(())
}

/// Checks that the host does not live from it.
pub fn not_in_use(function: &Function, host_use: &HostUse) -> Result<(), HandoverRefusal> {
    let uses = host_use.of(function.address);
    if uses.is_empty() {
        Ok(())
    } else {
        Err(HandoverRefusal::InUse { function: function.describe(), uses })
    }
}

/// Checks that a driver could work with it. What cannot be read is left to the VMM to find out.
pub fn usable(sysfs: &HostSysfs, function: &Function) -> Result<(), HandoverRefusal> {
    let Some(snapshot) = sysfs.snapshot(function.address) else { return Ok(()) };
    let unusable = |reason| HandoverRefusal::Unusable { address: function.address, reason };
    usable::check(&snapshot).map_err(unusable)
}

/// Checks that its group may be given away; returns the members that have to go to vfio-pci with it.
pub fn isolated(
    sysfs: &HostSysfs,
    function: &Function,
    domain: &str,
    claims: &Claims,
    host_use: &HostUse,
) -> Result<Vec<Function>, HandoverRefusal> {
    let (group, members) = function.isolated_with()?;
    let others = function.group.iter().flat_map(|group| &group.others);
    for member in others {
        let owner = member.address.and_then(|address| claims.domains.get(&address));
        if let Some(owner) = owner.filter(|owner| owner.as_str() != domain) {
            return Err(HandoverRefusal::OtherDomain {
                address: function.address,
                member: Box::new(member.clone()),
                domain: owner.clone(),
                group,
            });
        }
    }
    let mut companions = Vec::new();
    for address in members.iter().filter_map(|member| member.address) {
        // What the domain names itself is handed over for itself.
        if claims.domains.contains_key(&address) {
            continue;
        }
        let companion = sysfs.inspect(address)?;
        let mut uses = host_use.of(address);
        if companion.class.is_usb() && has_usb_device(sysfs, address) {
            uses.push("a USB device".to_owned());
        }
        if !uses.is_empty() {
            return Err(HandoverRefusal::InUse { function: companion.describe(), uses });
        }
        companions.push(companion);
    }
    Ok(companions)
}

/// Returns whether anything but the root hubs is on a USB controller: `usb1/1-4` below it.
fn has_usb_device(sysfs: &HostSysfs, address: PciAddress) -> bool {
    let Ok(entries) = std::fs::read_dir(sysfs.pci_device(address)) else { return false };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("usb"))
        .filter_map(|hub| std::fs::read_dir(hub.path()).ok())
        .flatten()
        .flatten()
        .any(|device| {
            let name = device.file_name();
            let name = name.to_string_lossy();
            // Interfaces have a colon: `1-0:1.0` is the root hub's own.
            name.starts_with(|c: char| c.is_ascii_digit()) && !name.contains(':')
        })
}

#[cfg(test)]
mod tests;
