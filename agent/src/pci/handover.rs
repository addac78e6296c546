//! The hand-over of a PCI function from its host driver to vfio-pci, and back.
//!
//! ```text
//!  host driver --unbind--> none --driver_override=vfio-pci, bind--> vfio-pci --> the domain's VMM
//!       ^                                                              |
//!       +-- bind <-- driver_override as it was <-- unbind <-- reset <--+
//! ```
//! Before the first change the former driver is written to the record (`<state>/handover.json`,
//! synced), so that whatever happens to the agent, the next one can give the function back.
//!
//! The kernel may hold a write to `unbind` for as long as the driver pleases. Each such write has
//! a thread of its own and a deadline; a function whose driver still holds one is not touched again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use clock::Moment;

use serde::{Deserialize, Serialize};

use super::PciAddress;
use super::inspect::{InspectError, PciFunction};
use super::sysfs::Sysfs;
use crate::durable;

/// The driver that hands functions to processes.
pub const VFIO_PCI: &str = "vfio-pci";
/// How long a driver may take to let go, or to take hold.
pub const DRIVER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a driver link is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// The only version of the record.
const RECORD_VERSION: u32 = 1;

/// Why a function could not change hands. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// It could not be looked at.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// No IOMMU stands between it and memory.
    #[error(
        "PCI device {0} is in no IOMMU group, so nothing would keep its DMA inside the guest: switch the IOMMU on in the BIOS and on the kernel command line (`bulkhead doctor` says how for this PC)"
    )]
    NoIommu(PciAddress),
    /// The IOMMU cannot tell it from another.
    #[error(
        "PCI device {address} shares IOMMU group {group} with {others}, and the IOMMU cannot keep them apart: move the card to another slot, or hand over a device that has a group of its own"
    )]
    SharedGroup {
        /// The device.
        address: PciAddress,
        /// The group.
        group: u32,
        /// Who else is in it, described.
        others: String,
    },
    /// vfio-pci is not there.
    #[error(
        "the kernel module vfio-pci cannot be loaded: install the kernel's own modules (on Debian: linux-image-amd64), or `modprobe vfio-pci` and read its message"
    )]
    NoVfioPci(#[source] io::Error),
    /// A driver did not let go in time.
    #[error("driver {driver} does not let go of PCI device {address} (waited {} s): take down whatever uses the device (`ip link set {uses} down`, unmount, stop its service); if it stays, restart the PC", DRIVER_DEADLINE.as_secs())]
    WontLetGo {
        /// The device.
        address: PciAddress,
        /// Its driver.
        driver: String,
        /// What it carries on the host.
        uses: String,
    },
    /// A driver did not take the function.
    #[error("driver {driver} did not take PCI device {address}: see `dmesg` for its reason")]
    NotBound {
        /// The device.
        address: PciAddress,
        /// The driver.
        driver: String,
    },
    /// The kernel refused a change.
    #[error(
        "the kernel refused to change `{attribute}` of PCI device {address}: is the agent run as root?"
    )]
    Write {
        /// The device.
        address: PciAddress,
        /// The attribute.
        attribute: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not reset, so what the guest left in it is still there.
    #[error(
        "PCI device {address} did not reset after use and is kept from the host: switch the PC off and on again (a restart may not be enough)"
    )]
    NotReset {
        /// The device.
        address: PciAddress,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The record could not be written, so nothing was changed.
    #[error("cannot write {}: make room on its disk, or correct its rights", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is known of a function that was handed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// The domain it was handed to.
    pub domain: String,
    /// The driver it had.
    pub driver: Option<String>,
    /// The `driver_override` it had.
    pub driver_override: Option<String>,
}

/// How a function came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Returned {
    /// Whether it was reset first. A function without a way to reset comes back as the guest left it.
    pub reset: bool,
    /// The driver it has again.
    pub driver: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    devices: BTreeMap<String, Former>,
}

/// Hands functions over and takes them back. Shared by the worker threads; every call returns
/// within a few [`DRIVER_DEADLINE`]s.
pub struct Handover {
    sysfs: Sysfs,
    record_path: PathBuf,
    /// Where the record is while its own place cannot be written.
    fallback: PathBuf,
    record: Mutex<BTreeMap<PciAddress, Former>>,
    /// Functions with a write the kernel has not come back from.
    held: Arc<Mutex<Vec<PciAddress>>>,
    deadline: Duration,
}

impl Handover {
    /// Opens the record at `record_path`, or at `fallback` if that is where it was last written, and learns what an earlier agent
    /// left handed over. A desktop needs its NIC on a PC whose state cannot be written too.
    pub fn open(sysfs: Sysfs, record_path: &Path, fallback: &Path) -> Result<Self, HandoverError> {
        let failed = |source| HandoverError::Record { path: record_path.to_owned(), source };
        let record: Option<Record> = match durable::read(fallback).ok().flatten() {
            Some(record) => Some(record),
            None => durable::read(record_path).map_err(failed)?,
        };
        let devices = record.map(|record| record.devices).unwrap_or_default();
        let record = devices
            .into_iter()
            .filter_map(|(address, former)| Some((address.parse().ok()?, former)))
            .collect();
        Ok(Self {
            sysfs,
            record_path: record_path.to_owned(),
            fallback: fallback.to_owned(),
            record: Mutex::new(record),
            held: Arc::default(),
            deadline: DRIVER_DEADLINE,
        })
    }

    /// Waits shorter (or longer) for drivers than [`DRIVER_DEADLINE`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What is handed over, by the record.
    #[must_use]
    pub fn handed_over(&self) -> BTreeMap<PciAddress, Former> {
        self.lock().clone()
    }

    /// The sysfs it works on.
    #[must_use]
    pub fn sysfs(&self) -> &Sysfs {
        &self.sysfs
    }

    /// Gives the function to vfio-pci for `domain`. Idempotent. On failure everything is as before,
    /// as far as the driver permits.
    pub fn take(&self, address: PciAddress, domain: &str) -> Result<(), HandoverError> {
        let function = PciFunction::inspect(&self.sysfs, address)?;
        self.check_isolation(&function)?;
        self.refuse_if_held(&function)?;
        self.ensure_vfio_pci()?;
        let bound_already = function.driver.as_deref() == Some(VFIO_PCI);
        let former = self.former(&function, domain);
        self.remember(address, Some(former.clone()))?;
        if bound_already {
            return Ok(());
        }
        let bound = self.bind_vfio_pci(&function);
        if bound.is_err() {
            self.undo(&function, &former);
        }
        bound
    }

    /// Resets the function and gives it back to the driver the record names. Idempotent; does
    /// nothing to a function that was not handed over.
    pub fn give_back(&self, address: PciAddress) -> Result<Returned, HandoverError> {
        let former = self.lock().get(&address).cloned();
        let function = match PciFunction::inspect(&self.sysfs, address) {
            Ok(function) => function,
            Err(InspectError::Absent(_)) => {
                // It was pulled: there is nothing to give back.
                self.remember(address, None)?;
                return Ok(Returned { reset: false, driver: None });
            }
            Err(error) => return Err(error.into()),
        };
        let Some(former) = former else {
            return Ok(Returned { reset: false, driver: function.driver });
        };
        self.refuse_if_held(&function)?;
        let mut reset = false;
        if function.driver.as_deref() == Some(VFIO_PCI) {
            reset = self.reset(&function)?;
            self.unbind(&function)?;
        }
        self.set_override(address, former.driver_override.as_deref())?;
        let driver = self.bind_former(address, &former)?;
        self.remember(address, None)?;
        Ok(Returned { reset, driver })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PciAddress, Former>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to write down before the function is touched: what it has now, unless that is already
    /// the agent's doing, of which the record knows what was before.
    fn former(&self, function: &PciFunction, domain: &str) -> Former {
        let known = self.lock().get(&function.address).cloned();
        let not_ours = |text: &Option<String>| text.clone().filter(|text| text != VFIO_PCI);
        Former {
            domain: domain.to_owned(),
            driver: not_ours(&function.driver)
                .or_else(|| known.as_ref().and_then(|known| known.driver.clone())),
            driver_override: not_ours(&function.driver_override)
                .or_else(|| known.and_then(|known| known.driver_override)),
        }
    }

    /// Changes the record on the disk, then in memory.
    fn remember(&self, address: PciAddress, former: Option<Former>) -> Result<(), HandoverError> {
        let mut record = self.lock();
        if record.get(&address) == former.as_ref() {
            return Ok(());
        }
        let mut next = record.clone();
        match former {
            Some(former) => next.insert(address, former),
            None => next.remove(&address),
        };
        let devices = next.iter().map(|(address, f)| (address.to_string(), f.clone())).collect();
        self.write_record(&Record { version: RECORD_VERSION, devices })?;
        *record = next;
        Ok(())
    }

    fn write_record(&self, record: &Record) -> Result<(), HandoverError> {
        match durable::write(&self.record_path, record) {
            Ok(()) => match std::fs::remove_file(&self.fallback) {
                // Left there it would be taken for the newer one.
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    Err(HandoverError::Record { path: self.fallback.clone(), source })
                }
                _ => Ok(()),
            },
            Err(source) => durable::write(&self.fallback, record)
                .map_err(|_| HandoverError::Record { path: self.record_path.clone(), source }),
        }
    }

    fn check_isolation(&self, function: &PciFunction) -> Result<(), HandoverError> {
        let address = function.address;
        let group = function.group.as_ref().ok_or(HandoverError::NoIommu(address))?;
        if group.others.is_empty() {
            return Ok(());
        }
        let describe = |other: &PciAddress| {
            PciFunction::inspect(&self.sysfs, *other)
                .map_or_else(|_| other.to_string(), |function| function.describe())
        };
        let others = group.others.iter().map(describe).collect::<Vec<_>>().join(", ");
        Err(HandoverError::SharedGroup { address, group: group.number, others })
    }

    fn ensure_vfio_pci(&self) -> Result<(), HandoverError> {
        if self.sysfs.pci_driver(VFIO_PCI).exists() {
            return Ok(());
        }
        self.sysfs.kernel.load_module(VFIO_PCI).map_err(HandoverError::NoVfioPci)?;
        if self.sysfs.pci_driver(VFIO_PCI).exists() {
            return Ok(());
        }
        Err(HandoverError::NoVfioPci(io::Error::other("the module is loaded but offers no driver")))
    }

    fn bind_vfio_pci(&self, function: &PciFunction) -> Result<(), HandoverError> {
        let address = function.address;
        self.set_override(address, Some(VFIO_PCI))?;
        if function.driver.is_some() {
            self.unbind(function)?;
        }
        self.bind(address, VFIO_PCI)
    }

    /// Best effort after a failed hand-over; what fails here is left to the record.
    fn undo(&self, function: &PciFunction, former: &Former) {
        let address = function.address;
        let undone = self
            .set_override(address, former.driver_override.as_deref())
            .and_then(|()| self.refuse_if_held(function))
            .and_then(|()| self.bind_former(address, former))
            .and_then(|_| self.remember(address, None));
        if let Err(error) = undone {
            tracing::warn!(%address, "the device is not back with its former driver: {error}");
        }
    }

    fn bind_former(
        &self,
        address: PciAddress,
        former: &Former,
    ) -> Result<Option<String>, HandoverError> {
        let current = || Ok(PciFunction::inspect(&self.sysfs, address)?.driver);
        let Some(driver) = &former.driver else { return current() };
        if current()?.as_ref() == Some(driver) {
            return Ok(Some(driver.clone()));
        }
        if !self.sysfs.pci_driver(driver).exists()
            && let Err(error) = self.sysfs.kernel.load_module(driver)
        {
            tracing::warn!(%address, "cannot load the former driver {driver}: {error}");
        }
        self.bind(address, driver)?;
        Ok(Some(driver.clone()))
    }

    /// `Ok(false)` when the kernel knows no way to reset it.
    fn reset(&self, function: &PciFunction) -> Result<bool, HandoverError> {
        let address = function.address;
        if function.reset.is_none() {
            return Ok(false);
        }
        let file = self.sysfs.pci_device(address).join("reset");
        match self.write(address, file, "1") {
            Ok(()) => Ok(true),
            Err(source) => Err(HandoverError::NotReset { address, source }),
        }
    }

    fn set_override(&self, address: PciAddress, driver: Option<&str>) -> Result<(), HandoverError> {
        let attribute = "driver_override";
        // An empty line clears it.
        let text = format!("{}\n", driver.unwrap_or_default());
        self.write(address, self.sysfs.pci_device(address).join(attribute), &text)
            .map_err(|source| HandoverError::Write { address, attribute, source })
    }

    fn unbind(&self, function: &PciFunction) -> Result<(), HandoverError> {
        let address = function.address;
        let attribute = "driver/unbind";
        let file = self.sysfs.pci_device(address).join(attribute);
        match self.write(address, file, &address.to_string()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(wont_let_go(function));
            }
            Err(source) => return Err(HandoverError::Write { address, attribute, source }),
        }
        if self.wait_for(address, |driver| driver.is_none()) {
            Ok(())
        } else {
            Err(wont_let_go(function))
        }
    }

    fn bind(&self, address: PciAddress, driver: &str) -> Result<(), HandoverError> {
        let attribute = "driver/bind";
        let file = self.sysfs.pci_driver(driver).join("bind");
        self.write(address, file, &address.to_string()).map_err(|source| HandoverError::Write {
            address,
            attribute,
            source,
        })?;
        if self.wait_for(address, |bound| bound == Some(driver)) {
            return Ok(());
        }
        Err(HandoverError::NotBound { address, driver: driver.to_owned() })
    }

    fn wait_for(&self, address: PciAddress, holds: impl Fn(Option<&str>) -> bool) -> bool {
        let until = Moment::now() + self.deadline;
        loop {
            let function = PciFunction::inspect(&self.sysfs, address);
            if function.is_ok_and(|function| holds(function.driver.as_deref())) {
                return true;
            }
            if Moment::now() >= until {
                return false;
            }
            thread::sleep(POLL);
        }
    }

    fn refuse_if_held(&self, function: &PciFunction) -> Result<(), HandoverError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains(&function.address) { Err(wont_let_go(function)) } else { Ok(()) }
    }

    /// A write to the kernel with a deadline. On `TimedOut` the write goes on by itself.
    fn write(&self, address: PciAddress, file: PathBuf, text: &str) -> io::Result<()> {
        let (done, result) = mpsc::channel();
        let (kernel, held, text) = (self.sysfs.kernel.clone(), self.held.clone(), text.to_owned());
        // One entry a write: a later one that returns must not hide an earlier one that does not.
        let forget = move |held: &Mutex<Vec<PciAddress>>| {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(index) = held.iter().position(|a| *a == address) {
                held.swap_remove(index);
            }
        };
        held.lock().unwrap_or_else(PoisonError::into_inner).push(address);
        let spawned = thread::Builder::new().name("sysfs-write".to_owned()).spawn({
            let held = held.clone();
            move || {
                let outcome = kernel.write(&file, &text);
                forget(&held);
                // Nobody listens any more after the deadline.
                let _ = done.send(outcome);
            }
        });
        if let Err(error) = spawned {
            forget(&held);
            return Err(error);
        }
        match result.recv_timeout(self.deadline) {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut)),
        }
    }
}

fn wont_let_go(function: &PciFunction) -> HandoverError {
    HandoverError::WontLetGo {
        address: function.address,
        driver: function.driver.clone().unwrap_or_else(|| "of an unknown name".to_owned()),
        uses: function.interfaces.first().cloned().unwrap_or_else(|| "its interface".to_owned()),
    }
}

#[cfg(test)]
mod tests;
