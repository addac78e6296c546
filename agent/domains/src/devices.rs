//! The slow part of starting and stopping a domain, for worker threads: devices and disks.

use std::sync::Arc;

use printable::explain;

use base::layout::Layout;
use config::machine::VmHardware;
use handover::PciAddress;
use handover::handover::Handover;

use super::disks;

/// What a worker needs to know of a domain.
#[derive(Clone)]
pub struct Devices {
    pub domain: String,
    /// What it has.
    pub hardware: VmHardware,
    /// What a VMM of an earlier agent had besides.
    pub former: Vec<PciAddress>,
    /// Whether it forgets what it writes.
    pub discard: bool,
    /// Where things lie.
    pub layout: Layout,
    pub handover: Arc<Handover>,
}

impl Devices {
    /// Hands the domain its functions. What was handed over before a failure stays so: the next
    /// attempt goes on from there, and a release takes it all back.
    pub fn take(&self) -> Result<(), String> {
        let problems = self.give_back(self.former());
        problems.iter().for_each(|problem| tracing::error!(domain = self.domain, "{problem}"));
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
        let problems = self.give_back(self.hardware.pci_functions().chain(self.former()));
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// What is still this domain's of what it had: another one may have it by now.
    fn former(&self) -> impl Iterator<Item = PciAddress> {
        let handed_over = self.handover.handed_over();
        let own = move |address: &PciAddress| {
            handed_over.get(address).is_some_and(|former| former.domain == self.domain)
        };
        self.former.iter().copied().filter(own)
    }

    /// Why some could not be.
    fn give_back(&self, functions: impl Iterator<Item = PciAddress>) -> Vec<String> {
        let mut problems = Vec::new();
        for address in functions {
            match self.handover.give_back(address) {
                Ok(returned) => {
                    let driver = returned.driver.as_deref().unwrap_or("none");
                    tracing::info!(domain = self.domain, %address, driver, reset = returned.reset, "given back to the host");
                }
                Err(error) => problems.push(explain(&error)),
            }
        }
        problems
    }
}
