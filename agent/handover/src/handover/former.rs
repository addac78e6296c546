//! What is written down of a function that was handed over.

use hostpci::{Function, VFIO_PCI};
use serde::{Deserialize, Serialize};

use super::PciAddress;

/// What is known of a function that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerBinding {
    /// The domain it was handed to.
    pub domain: String,
    /// The driver it had.
    pub driver: Option<String>,
    /// The `driver_override` it had.
    pub driver_override: Option<String>,
    /// Vendor and device, so that another card that is there later is not taken for it.
    #[serde(default)]
    pub id: Option<String>,
    /// The MAC address its interface had.
    #[serde(default)]
    pub mac: Option<String>,
    /// The boot in which that was (`/proc/sys/kernel/random/boot_id`): since then no card was changed.
    #[serde(default)]
    pub boot: Option<String>,
    /// The function it went to vfio-pci with, for nobody to use, because it is in its IOMMU group.
    #[serde(default)]
    pub goes_with: Option<String>,
}

impl FormerBinding {
    /// Returns whether the function is the card that was handed over, still with vfio-pci since then: what was
    /// seen of it before goes on to hold. A card may have been changed for another like it between two boots.
    pub(super) fn still_has(&self, function: &Function, boot: Option<&str>) -> bool {
        function.driver.as_deref() == Some(VFIO_PCI)
            && self.id.as_ref().is_some_and(|id| *id == function.id())
            && boot.is_some()
            && self.boot.as_deref() == boot
    }

    /// Returns the function it goes with.
    #[must_use]
    pub fn companion_of(&self) -> Option<PciAddress> {
        self.goes_with.as_ref()?.parse().ok()
    }
}
