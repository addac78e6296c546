//! The slow part of starting and stopping a domain, in background jobs: devices and disks.

use std::sync::Arc;

use printable::explain;

use base::layout::Layout;
use config::machine::VmHardware;
use handover::PciAddress;
use handover::handover::{FormerBinding, Handover};

use super::boot::{BootFiles, StartedImage};
use super::{Report, capture, disks};

/// What a background job needs to know of a domain to prepare or release its devices.
#[derive(Clone)]
pub struct Devices {
    pub domain: String,
    /// The PCI functions and disks that the domain has.
    pub hardware: VmHardware,
    /// Whether it forgets what it writes.
    pub discard: bool,
    /// The agent's directories, with the domain's own in them.
    pub layout: Layout,
    pub handover: Arc<Handover>,
}

impl Devices {
    /// Makes everything ready for a start of the domain, of which no VMM lives. What its last session left goes whether or not this start gets as far as
    /// its disks: it may be of a start that forgot what it wrote when the next one does not, or of one that a power cut ended.
    pub(crate) fn prepare(&self, report: &dyn Fn(Report)) -> Result<(), String> {
        let taken = self.take();
        // Before the removal, which may take a disk its time: other domains start when devices are where they belong.
        report(Report::DevicesDone);
        disks::forget(&self.domain, &self.layout);
        taken?;
        let log = self.layout.vmm_log(&self.domain);
        capture::remove(&log).map_err(|error| {
            format!("cannot remove the last VMM's log {}: {error}", log.display())
        })?;
        let found = self.find_boot_files().inspect_err(|_| report(Report::NoBoot))?;
        report(Report::Boot(Box::new(found)));
        self.make_disks()
    }

    /// Hands the domain its functions, and gives those back that it had and that are not its own any more. What was handed over before
    /// a failure stays so: the next attempt goes on from there, and a release takes it all back.
    fn take(&self) -> Result<(), String> {
        let mut former = self.held();
        former.retain(|address| !self.hardware.pci_functions().any(|own| own == *address));
        let problems = self.give_back(&former);
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

    /// Finds what its guest starts from, and verifies an image.
    fn find_boot_files(&self) -> Result<(BootFiles, Option<StartedImage>), String> {
        BootFiles::verified(&self.domain, &self.hardware, &self.layout)
    }

    /// Makes its disks ready.
    fn make_disks(&self) -> Result<(), String> {
        disks::prepare(&self.domain, &self.hardware.disks, self.discard, &self.layout)
            .map_err(|e| explain(&e))
    }

    /// Resets its functions and gives them back, each whatever became of the others. One that another domain has stays with that, whatever
    /// the machine file says.
    pub fn release(&self) -> Result<(), String> {
        disks::forget(&self.domain, &self.layout);
        let problems = self.give_back(&self.held());
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Returns what is handed over to this domain, by an earlier agent too. What goes with a function goes back with it, and what is left of an
    /// earlier boot is nobody's unless the machine file says so.
    fn held(&self) -> Vec<PciAddress> {
        let (boot, handed_over) = (self.handover.sysfs().boot(), self.handover.handed_over());
        let is_own = |former: &FormerBinding| former.domain == self.domain;
        let own = handed_over.iter().filter(|(address, former)| {
            let given = self.hardware.pci_functions().any(|own| own == **address);
            let with = former.companion_of().and_then(|with| handed_over.get(&with));
            is_own(former)
                && !with.is_some_and(is_own)
                && (given || boot.is_some() && former.boot == boot)
        });
        own.map(|(address, _)| *address).collect()
    }

    /// Gives functions back to the host, and returns why some could not be.
    fn give_back(&self, functions: &[PciAddress]) -> Vec<String> {
        let mut problems = Vec::new();
        for &address in functions {
            match self.handover.give_back(address, &self.domain) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use config::machine::{Boot, Serial};
    use handover::fake::FakePc;
    use handover::pins::Pins;
    use handover::{ClaimedFunction, Role};

    fn handover(pc: &FakePc) -> Arc<Handover> {
        let record = pc.dir.path().join("handover.json");
        Arc::new(Handover::open(pc.sysfs(), &record, &record.with_extension("fallback")).unwrap())
    }

    fn devices(handover: &Arc<Handover>, domain: &str, nics: &[PciAddress]) -> Devices {
        let dir = std::path::PathBuf::from("/nonexistent");
        let nic = |address: &PciAddress| ClaimedFunction {
            address: *address,
            role: Role::Nic,
            pins: Pins::default(),
        };
        Devices {
            domain: domain.to_owned(),
            hardware: VmHardware {
                memory: vmm_control::MemorySize::DOMAIN_DEFAULT,
                cpus: 1,
                cores: None,
                boot: Boot::Files { kernel: dir.clone(), initrd: None, cmdline: String::new() },
                disks: Vec::new(),
                nic: None,
                passthrough: nics.iter().map(nic).collect(),
                serial: Serial::Null,
                ports: Vec::new(),
            },
            discard: false,
            layout: Layout { images: dir.clone(), state: dir.clone(), runtime: dir },
            handover: handover.clone(),
        }
    }

    #[test]
    fn a_nic_that_moved_to_another_domain_stays_with_the_vmm_that_has_it_until_that_is_started_anew()
     {
        let pc = FakePc::new();
        let nic = pc.add_nic("0000:00:05.0", 7);
        let first = handover(&pc);
        devices(&first, "clinical", &[nic]).take().unwrap();
        // Another agent, another machine file: clinical's guest runs on.
        let next = handover(&pc);
        let clinical = devices(&next, "clinical", &[]);
        let internet = devices(&next, "internet", &[nic]);
        pc.kernel.writes.lock().unwrap().clear();
        assert!(internet.take().unwrap_err().contains("is still clinical's"));
        internet.release().unwrap();
        assert!(pc.kernel.writes.lock().unwrap().is_empty(), "not even reset");
        assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
        // Its VMM has ended.
        clinical.take().unwrap();
        assert_eq!(pc.driver(nic).as_deref(), Some("e1000e"));
        internet.take().unwrap();
        clinical.release().unwrap();
        assert_eq!(next.handed_over()[&nic].domain, "internet");
        internet.release().unwrap();
        assert!(next.handed_over().is_empty());
    }

    #[test]
    fn what_a_session_wrote_and_said_is_gone_before_the_next_start_gets_anywhere() {
        let pc = FakePc::new();
        let handover = handover(&pc);
        let at = |name: &str| pc.dir.path().join(name);
        let layout = Layout { images: at("images"), state: at("state"), runtime: at("run") };
        layout.create_runtime(&["internet"]).unwrap();
        let left = || {
            let copies = layout.discard("internet");
            std::fs::create_dir_all(&copies).unwrap();
            std::fs::write(copies.join("disk0.img"), "of a patient").unwrap();
            std::fs::write(layout.vmm_log("internet"), "of its VMM").unwrap();
            copies
        };
        let missing: PciAddress = "0000:00:1f.7".parse().unwrap();
        // It keeps what it writes by now; it forgets, and its card is not there.
        for (discard, nics) in [(false, vec![]), (true, vec![missing])] {
            let copies = left();
            let mut devices = devices(&handover, "internet", &nics);
            (devices.discard, devices.layout) = (discard, layout.clone());
            // No other domain waits for the disk.
            let told = std::cell::Cell::new(false);
            let report = |report| {
                if matches!(report, Report::DevicesDone) {
                    assert!(copies.exists(), "the removal comes first");
                    told.set(true);
                }
            };
            assert_eq!(devices.prepare(&report).is_ok(), nics.is_empty());
            assert!(told.get());
            assert!(!copies.exists(), "forgets: {discard}");
            assert_eq!(layout.vmm_log("internet").exists(), !nics.is_empty());
        }
    }

    #[test]
    fn what_could_not_be_given_back_is_tried_again_the_next_time() {
        let pc = FakePc::new();
        let nic = pc.add_nic("0000:00:05.0", 7);
        let handover = handover(&pc);
        devices(&handover, "clinical", &[nic]).take().unwrap();
        let without = devices(&handover, "clinical", &[]);
        pc.refuses("e1000e");
        assert!(without.release().is_err());
        assert!(without.release().is_err());
        assert_eq!(handover.handed_over()[&nic].domain, "clinical");
    }

    #[test]
    fn what_is_left_of_an_earlier_boot_is_whose_the_machine_file_says_it_is() {
        let pc = FakePc::new();
        let nic = pc.add_nic("0000:00:05.0", 7);
        devices(&handover(&pc), "clinical", &[nic]).take().unwrap();
        let boot = pc.dir.path().join("proc/sys/kernel/random/boot_id");
        std::fs::write(boot, "second\n").unwrap();
        let next = handover(&pc);
        devices(&next, "internet", &[nic]).take().unwrap();
        devices(&next, "clinical", &[]).take().unwrap();
        assert_eq!(pc.driver(nic).as_deref(), Some("vfio-pci"));
        assert_eq!(next.handed_over()[&nic].domain, "internet");
    }
}
