//! The slow part of starting and stopping a domain, for worker threads: devices and disks.

use std::sync::Arc;

use printable::explain;

use base::layout::Layout;
use config::machine::VmHardware;
use handover::handover::Handover;

use super::disks;

/// What a worker needs to know of a domain.
#[derive(Clone)]
pub struct Devices {
    /// The domain.
    pub domain: String,
    /// What it has.
    pub hardware: VmHardware,
    /// Whether it forgets what it writes.
    pub discard: bool,
    /// Where things lie.
    pub layout: Layout,
    /// The hand-over.
    pub handover: Arc<Handover>,
}

impl Devices {
    /// Hands the domain its functions. What was handed over before a failure stays so: the next
    /// attempt goes on from there, and a release takes it all back.
    pub fn take(&self) -> Result<(), String> {
        for wanted in self.hardware.pci_devices() {
            let companions = self.handover.take(wanted, &self.domain).map_err(|e| explain(&e))?;
            let address = wanted.address;
            tracing::info!(domain = self.domain, %address, "handed over to vfio-pci");
            for companion in companions {
                tracing::info!(
                    domain = self.domain,
                    address = %companion,
                    "bound to vfio-pci with {address}, whose IOMMU group it is in; nobody uses it"
                );
            }
        }
        Ok(())
    }

    /// Makes its disks ready.
    pub fn make_disks(&self) -> Result<(), String> {
        disks::prepare(&self.domain, &self.hardware.disks, self.discard, &self.layout)
            .map_err(|e| explain(&e))
    }

    /// Resets its functions and gives them back, each whatever became of the others.
    pub fn release(&self) -> Result<(), String> {
        disks::forget(&self.domain, &self.layout);
        let mut problems = Vec::new();
        for address in self.hardware.pci_functions() {
            match self.handover.give_back(address) {
                Ok(returned) => {
                    let driver = returned.driver.as_deref().unwrap_or("none");
                    tracing::info!(domain = self.domain, %address, driver, reset = returned.reset, "given back to the host");
                }
                Err(error) => problems.push(explain(&error)),
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}
