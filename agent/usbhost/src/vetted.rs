//! A device whose descriptors were read whole, by a total reader, before anybody trusts them.

use usbdescriptors::{DescriptorError, Device, Pinned, PinnedDescriptor};

use crate::sysfs::{Found, clean};

/// Proof that a device's descriptors are such that a library may be given them, and what they are. Only of such a device is the
/// node opened, and only if what it says then is the same, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vetted {
    found: Found,
    pinned: Pinned,
    device: Device,
}

/// The texts that a device gave the kernel and those it gave the agent are not the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has another serial number each time it is asked")]
pub struct TwoFaced;

impl Vetted {
    /// Reads what the kernel has read of it.
    ///
    /// # Errors
    /// It makes no sense: the device is not to be touched.
    pub fn new(found: Found) -> Result<Self, DescriptorError> {
        let pinned = Pinned::from_sysfs(&found.descriptors)?;
        let device = Device::read(&pinned)?;
        Ok(Self { found, pinned, device })
    }

    /// With whatever else it says, see [`read_descriptors`](crate::export::read_descriptors).
    ///
    /// # Errors
    /// The serial number that the kernel was told, and that the policy is asked about, is not the one that is pinned.
    pub fn with(mut self, others: Vec<PinnedDescriptor>) -> Result<Self, TwoFaced> {
        self.pinned.others = others;
        let pinned = self.pinned.serial().map(|text| clean(&text)).filter(|text| !text.is_empty());
        let kernels = self.found.serial.clone().filter(|text| !text.is_empty());
        // The kernel may have asked in vain, or was not yet to ask; then it is what the agent was told.
        if kernels.is_some() && kernels != pinned {
            return Err(TwoFaced);
        }
        self.found.serial = pinned;
        Ok(self)
    }

    /// Where it is, and what the kernel knows of it.
    #[must_use]
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// What it said, byte for byte.
    #[must_use]
    pub fn pinned(&self) -> &Pinned {
        &self.pinned
    }

    /// What that means.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }
}
