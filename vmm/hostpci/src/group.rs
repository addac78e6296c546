//! IOMMU groups: whom the IOMMU cannot keep apart from a function, and what that means for it.
//!
//! The rule is the kernel's own (`iommu_group_claim_dma_owner` since Linux 5.19, the "viable" group
//! before): a group may be given to a process when no member of it has a driver that uses DMA for the
//! host. vfio-pci and pci-stub use none, nor does the driver of PCI Express ports; a member without a
//! driver does nothing by itself, and gets none while the group is given away.

use std::fmt;

use crate::VFIO_PCI;
use crate::address::Address;
use crate::function::{Function, Group, Member};

/// Host drivers that leave DMA alone (`driver_managed_dma` in the kernel).
const WITHOUT_DMA: [&str; 3] = [VFIO_PCI, "pci-stub", "pcieport"];
/// How the kernel's further VFIO drivers end, of one device each (`mlx5_vfio_pci`).
const VFIO_SUFFIX: [&str; 2] = ["vfio-pci", "vfio_pci"];

/// What a member means to handing over another function of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberStatus {
    /// The kernel's VFIO tolerates it as it is.
    Tolerated,
    /// A host driver has it, and the host can do without: it could go to vfio-pci, and to nobody.
    Spare,
    /// A host driver has it, and has to keep it.
    Needed,
}

impl Member {
    /// Returns what it means to handing over `function`.
    #[must_use]
    pub fn standing(&self, function: Address) -> MemberStatus {
        let Some(driver) = self.driver.as_deref() else { return MemberStatus::Tolerated };
        if WITHOUT_DMA.contains(&driver) || VFIO_SUFFIX.iter().any(|end| driver.ends_with(end)) {
            return MemberStatus::Tolerated;
        }
        match (self.address, self.class) {
            (Some(address), Some(class)) if class.is_spare(address.same_device(function)) => {
                MemberStatus::Spare
            }
            _ => MemberStatus::Needed,
        }
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        f.write_str(" (")?;
        if let Some(class) = self.class {
            write!(f, "{class}, ")?;
        }
        if let Some(id) = &self.id {
            write!(f, "{id}, ")?;
        }
        match &self.driver {
            Some(driver) => write!(f, "driver {driver})"),
            None => f.write_str("no driver)"),
        }
    }
}

/// Why a function cannot be handed to a guest, whoever has it now, and what IT can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {}", self.what(), self.remedy())]
pub enum GroupRefusal {
    /// A part of the PC, not a device.
    PartOfThePc { address: Address, what: &'static str },
    /// The PC has no working IOMMU.
    IommuOff { address: Address },
    /// The IOMMU leaves this function out.
    NoGroup { address: Address },
    /// Other members of its group are in use by the host.
    SharedGroup {
        address: Address,
        /// The number of the IOMMU group.
        group: u32,
        /// Members that host drivers have.
        others: Vec<Member>,
        /// Whether it is part of the board, as far as can be told.
        onboard: bool,
    },
    /// The administrator turned a protection off.
    UnsafeInterrupts,
}

impl GroupRefusal {
    /// Returns what is the matter.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::PartOfThePc { address, what } => {
                format!("{address} is {what}, a part of this PC and no device for a guest")
            }
            Self::IommuOff { address } => {
                format!("{address} is in no IOMMU group: the IOMMU is off, and without it {address} could reach all memory")
            }
            Self::NoGroup { address } => {
                format!("{address} is in no IOMMU group: it is not behind the IOMMU, so its memory accesses cannot be confined")
            }
            Self::SharedGroup { address, group, others, .. } => {
                let list: Vec<_> = others.iter().map(Member::to_string).collect();
                format!(
                    "{address} shares IOMMU group {group} with what this PC itself uses, {}; what shares a group can reach each other's memory",
                    list.join(", ")
                )
            }
            Self::UnsafeInterrupts => {
                "the module vfio_iommu_type1 was loaded with allow_unsafe_interrupts, so that a guest could forge interrupts".to_owned()
            }
        }
    }

    /// Returns what to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::PartOfThePc { .. } => {
                "name the device itself; if the address was right once, a card was added or moved: `lspci -D` shows the new one"
            }
            Self::IommuOff { .. } => {
                "turn on VT-d (Intel) or AMD-Vi (AMD) in the firmware setup, and on Intel add intel_iommu=on to the kernel command line (`bulkhead doctor` says how for this PC)"
            }
            Self::NoGroup { .. } => "use another slot or another card",
            Self::SharedGroup { onboard: true, .. } => ONBOARD_REMEDY,
            Self::SharedGroup { onboard: false, .. } => CARD_REMEDY,
            Self::UnsafeInterrupts => {
                "remove that option, reboot, and turn on interrupt remapping in the firmware setup if it is off"
            }
        }
    }
}

/// What is on the board has no other slot.
const ONBOARD_REMEDY: &str = "it is part of the board and cannot be moved; use a NIC on a card in a slot directly at the processor (`bulkhead doctor` lists the NICs of this PC that can be handed over), or a USB network adapter that a USB rule of the policy gives to the domain; a firmware setup that can switch off management (AMT, DASH, serial over LAN) or switch on ACS may take the others out of the group; sharing one NIC by VLAN is not available yet";
/// What is in a slot can be moved.
const CARD_REMEDY: &str = "move the card to another slot (one directly at the processor is best), or turn on ACS (often next to VT-d or SR-IOV) in the firmware setup; if it is soldered to the board, use a NIC on a card of its own (`bulkhead doctor` lists the NICs of this PC that can be handed over) or a USB network adapter that a USB rule of the policy gives to the domain";

impl Function {
    /// Returns whether it is a device at all, and no part of the PC.
    pub fn is_a_device(&self) -> Result<(), GroupRefusal> {
        match self.class.part_of_the_pc() {
            Some(what) => Err(GroupRefusal::PartOfThePc { address: self.address, what }),
            None => Ok(()),
        }
    }

    /// Returns its group, if the kernel's VFIO would give it away as it is now.
    pub fn isolated(&self) -> Result<u32, GroupRefusal> {
        self.confined(|standing| standing != MemberStatus::Tolerated).map(|group| group.number)
    }

    /// Returns its group, if the kernel's VFIO would give it away once what the host can do without is
    /// bound to vfio-pci as well: those members. The card's own further functions go with it though no
    /// driver has them: without function-level reset the card is reset whole or not at all.
    pub fn isolated_with(&self) -> Result<(u32, Vec<Member>), GroupRefusal> {
        let group = self.confined(|standing| standing == MemberStatus::Needed)?;
        let goes_too = |member: &&Member| match member.standing(self.address) {
            MemberStatus::Spare => true,
            MemberStatus::Needed => false,
            MemberStatus::Tolerated => {
                member.driver.is_none()
                    && member.address.is_some_and(|other| other.same_device(self.address))
                    && member.class.is_some_and(|class| class.is_spare(true))
            }
        };
        Ok((group.number, group.others.iter().filter(goes_too).cloned().collect()))
    }

    fn confined(&self, blocks: impl Fn(MemberStatus) -> bool) -> Result<&Group, GroupRefusal> {
        let address = self.address;
        self.is_a_device()?;
        let group = match &self.group {
            Some(group) => group,
            None if self.iommu => return Err(GroupRefusal::NoGroup { address }),
            None => return Err(GroupRefusal::IommuOff { address }),
        };
        if group.others.iter().any(|member| blocks(member.standing(address))) {
            let in_use = |member: &&Member| member.standing(address) != MemberStatus::Tolerated;
            return Err(GroupRefusal::SharedGroup {
                address,
                group: group.number,
                others: group.others.iter().filter(in_use).cloned().collect(),
                onboard: self.onboard || address.on_root_bus(),
            });
        }
        if self.unsafe_interrupts {
            return Err(GroupRefusal::UnsafeInterrupts);
        }
        Ok(group)
    }
}

#[cfg(test)]
mod tests;
