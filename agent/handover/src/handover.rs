//! The hand-over of a PCI function from its host driver to vfio-pci, and back.
//!
//! ```text
//!  host driver --unbind--> none --driver_override=vfio-pci, bind--> vfio-pci --> the domain's VMM
//!       ^                                                              |
//!       +-- bind <-- driver_override as it was <-- unbind <-- reset <--+
//! ```
//! Whether it may be handed over at all is asked first ([`super::judge`]). Before the first change the former driver is written to the record (`<state>/handover.json`,
//! synced), so that whatever happens to the agent, the next one can give the function back.
//!
//! The kernel may hold a write to `unbind` for as long as the driver pleases. Each such write has
//! a thread of its own and a deadline; a function whose driver still holds one is not touched again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use clock::Moment;
use hostpci::Function;
use serde::{Deserialize, Serialize};

use super::judge;
use super::sysfs::HostSysfs;
use super::{ClaimedFunction, Claims, PciAddress};
use base::durable;
use function_locks::FunctionLocks;

mod drivers;
mod error;
mod former;
mod function_locks;
mod unreadable;

pub use error::HandoverError;
pub use former::FormerBinding;
pub use hostpci::VFIO_PCI;

/// How long a driver may take to let go, or to take hold.
pub const DRIVER_DEADLINE: Duration = Duration::from_secs(10);
/// How often a driver link is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// The only version of the record.
const RECORD_VERSION: u32 = 1;

/// What became of a function that came back from a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReturnOutcome {
    /// Whether it was reset first. A function without a way to reset comes back as the guest left it.
    pub reset: bool,
    /// The driver it has again.
    pub driver: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    devices: BTreeMap<String, FormerBinding>,
}

/// The hand-over of functions to domains, and back. It is shared by the worker threads; every call returns
/// within a few [`DRIVER_DEADLINE`]s.
pub struct Handover {
    sysfs: HostSysfs,
    record_path: PathBuf,
    /// Where the record is while its own place cannot be written.
    fallback: PathBuf,
    record: Mutex<BTreeMap<PciAddress, FormerBinding>>,
    /// Functions with a write the kernel has not come back from.
    held: Arc<Mutex<Vec<PciAddress>>>,
    locks: FunctionLocks,
    deadline: Duration,
    claims: Claims,
}

impl Handover {
    /// Opens the record at `record_path`, or at `fallback` if that is where it was last written, and learns what an earlier agent
    /// left handed over. A desktop needs its NIC on a PC whose state cannot be written too.
    pub fn open(
        sysfs: HostSysfs,
        record_path: &Path,
        fallback: &Path,
    ) -> Result<Self, HandoverError> {
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
            locks: FunctionLocks::default(),
            deadline: DRIVER_DEADLINE,
            claims: Claims::default(),
        })
    }

    /// Waits shorter (or longer) for drivers than [`DRIVER_DEADLINE`].
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Lets it know what the machine file says of the whole PC.
    #[must_use]
    pub fn with_claims(mut self, claims: Claims) -> Self {
        self.claims = claims;
        self
    }

    /// Returns what is handed over, by the record.
    #[must_use]
    pub fn handed_over(&self) -> BTreeMap<PciAddress, FormerBinding> {
        self.lock().clone()
    }

    /// Returns the sysfs it works on.
    #[must_use]
    pub fn sysfs(&self) -> &HostSysfs {
        &self.sysfs
    }

    /// Gives the function to vfio-pci for `domain`, and with it what its IOMMU group makes it take along:
    /// those, which nobody gets. Idempotent. A refusal comes before anything is touched; after a failure
    /// everything is as before, as far as the drivers permit. What another domain still has is refused.
    pub fn take(
        &self,
        wanted: &ClaimedFunction,
        domain: &str,
    ) -> Result<Vec<PciAddress>, HandoverError> {
        let _turn = self.locks.wait(wanted.address, self.deadline)?;
        self.await_interface(wanted);
        let known = self.lock().get(&wanted.address).cloned();
        let now = self.sysfs.inspect(wanted.address).ok();
        let is_it = |former: &&FormerBinding| {
            now.as_ref().is_some_and(|now| former.still_has(now, self.sysfs.boot().as_deref()))
        };
        let mac = known.as_ref().filter(is_it).and_then(|former| former.mac.as_deref());
        let plan = judge::plan(&self.sysfs, wanted, domain, &self.claims, mac)?;
        let functions: Vec<&Function> = plan.companions.iter().chain([&plan.function]).collect();
        for function in &functions {
            self.refuse_if_held(function)?;
            self.refuse_if_anothers(function, domain)?;
        }
        self.ensure_vfio_pci()?;
        let mut begun: Vec<(&Function, FormerBinding)> = Vec::new();
        for function in functions {
            let with = (function.address != wanted.address).then_some(wanted.address);
            let former = self.former(function, domain, with);
            let mut result = self.remember(function.address, Some(former.clone()));
            if result.is_ok() && function.driver.as_deref() != Some(VFIO_PCI) {
                result = self.bind_vfio_pci(function);
                begun.push((function, former));
            }
            if let Err(error) = result {
                for (function, former) in begun.iter().rev() {
                    self.undo(function, former);
                }
                return Err(error);
            }
        }
        Ok(plan.companions.iter().map(|companion| companion.address).collect())
    }

    /// Waits for the network interface: a driver that has just got its function back may need a moment.
    fn await_interface(&self, wanted: &ClaimedFunction) {
        if wanted.pins.mac.is_none() {
            return;
        }
        let until = Moment::now() + self.deadline;
        while let Ok(function) = self.sysfs.inspect(wanted.address) {
            let driver = function.driver.as_deref();
            let shown = !function.interfaces.is_empty();
            if shown || matches!(driver, None | Some(VFIO_PCI)) || Moment::now() >= until {
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Resets the function and gives it back to the driver the record names, and then what went with it.
    /// Idempotent; does nothing to a function that was not handed over to `domain`.
    pub fn give_back(
        &self,
        address: PciAddress,
        domain: &str,
    ) -> Result<ReturnOutcome, HandoverError> {
        let _turn = self.locks.wait(address, self.deadline)?;
        let returned = self.give_one_back(address, domain)?;
        let companions: Vec<PciAddress> = self
            .lock()
            .iter()
            .filter(|(_, former)| former.companion_of() == Some(address))
            .map(|(companion, _)| *companion)
            .collect();
        for companion in companions {
            self.give_one_back(companion, domain)?;
        }
        Ok(returned)
    }

    /// Gives one function back to the driver it had, unless another domain has it.
    fn give_one_back(
        &self,
        address: PciAddress,
        domain: &str,
    ) -> Result<ReturnOutcome, HandoverError> {
        let former = self.lock().get(&address).filter(|former| former.domain == domain).cloned();
        let function = match self.sysfs.inspect(address) {
            Ok(function) => function,
            Err(error) if error.is_not_found() => {
                // It was pulled: there is nothing to give back.
                if former.is_some() {
                    self.remember(address, None)?;
                }
                return Ok(ReturnOutcome { reset: false, driver: None });
            }
            Err(error) => return Err(error.into()),
        };
        let Some(former) = former else {
            return Ok(ReturnOutcome { reset: false, driver: function.driver });
        };
        if former.id.as_ref().is_some_and(|id| *id != function.id()) {
            tracing::warn!(
                %address,
                "what was handed over is not there any more, and {} is; it is left as it is",
                function.describe()
            );
            self.remember(address, None)?;
            return Ok(ReturnOutcome { reset: false, driver: function.driver });
        }
        self.refuse_if_held(&function)?;
        let mut reset = false;
        if function.driver.as_deref() == Some(VFIO_PCI) {
            reset = self.reset(&function)?;
            self.unbind(&function)?;
        }
        self.set_override(address, former.driver_override.as_deref())?;
        let mut driver = self.bind_former(address, &former)?;
        if driver.is_none() {
            driver = self.let_any_driver_take(address);
        }
        self.remember(address, None)?;
        Ok(ReturnOutcome { reset, driver })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PciAddress, FormerBinding>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what to write down before the function is touched: what it has now, unless that is already
    /// the agent's doing, of which the record knows what was before.
    fn former(&self, function: &Function, domain: &str, with: Option<PciAddress>) -> FormerBinding {
        let id = function.id();
        let known = self.lock().get(&function.address).cloned();
        // An older record does not say which card it means.
        let known = known.filter(|known| known.id.as_ref().is_none_or(|known| *known == id));
        let not_ours = |text: &Option<String>| text.clone().filter(|text| text != VFIO_PCI);
        let boot = self.sysfs.boot();
        let mac =
            function.interfaces.iter().find_map(|interface| interface.mac.clone()).or_else(|| {
                let known =
                    known.as_ref().filter(|known| known.still_has(function, boot.as_deref()));
                known.and_then(|known| known.mac.clone())
            });
        FormerBinding {
            domain: domain.to_owned(),
            driver: not_ours(&function.driver)
                .or_else(|| known.as_ref().and_then(|known| known.driver.clone())),
            driver_override: not_ours(&function.driver_override)
                .or_else(|| known.as_ref().and_then(|known| known.driver_override.clone())),
            id: Some(id),
            mac,
            boot,
            goes_with: with.map(|with| with.to_string()),
        }
    }

    /// Changes the record on the disk, then in memory.
    fn remember(
        &self,
        address: PciAddress,
        former: Option<FormerBinding>,
    ) -> Result<(), HandoverError> {
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

    fn bind_vfio_pci(&self, function: &Function) -> Result<(), HandoverError> {
        let address = function.address;
        self.set_override(address, Some(VFIO_PCI))?;
        if function.driver.is_some() {
            self.unbind(function)?;
        }
        self.bind(address, VFIO_PCI)
    }

    /// Takes a failed hand-over back as far as possible; what fails here is left to the record.
    fn undo(&self, function: &Function, former: &FormerBinding) {
        let address = function.address;
        let undone = self
            .set_override(address, former.driver_override.as_deref())
            .and_then(|()| self.refuse_if_held(function))
            .and_then(|()| match self.sysfs.driver(address).as_deref() {
                Some(VFIO_PCI) => self.unbind(function),
                _ => Ok(()),
            })
            .and_then(|()| self.bind_former(address, former))
            .and_then(|_| self.remember(address, None));
        if let Err(error) = undone {
            tracing::warn!(%address, "the device is not back with its former driver: {error}");
        }
    }

    fn bind_former(
        &self,
        address: PciAddress,
        former: &FormerBinding,
    ) -> Result<Option<String>, HandoverError> {
        let current = || Ok(self.sysfs.inspect(address)?.driver);
        let Some(driver) = &former.driver else { return current() };
        if current()?.as_ref() == Some(driver) {
            return Ok(Some(driver.clone()));
        }
        if !self.sysfs.pci_driver(driver).exists()
            && let Err(error) = self.sysfs.kernel.load_module(driver)
        {
            // In its service the agent may load none.
            tracing::warn!(%address, "the former driver {driver} is not loaded, and the agent cannot load it: run `modprobe {driver}`, or restart the PC: {error}");
        }
        self.bind(address, driver)?;
        Ok(Some(driver.clone()))
    }

    /// Refuses a function that a VMM of another domain may have: the agent that handed it over may not be the one that runs.
    fn refuse_if_anothers(&self, function: &Function, domain: &str) -> Result<(), HandoverError> {
        let (record, boot) = (self.lock(), self.sysfs.boot());
        let former = record.get(&function.address).filter(|former| former.domain != domain);
        match former.filter(|former| former.still_has(function, boot.as_deref())) {
            Some(former) => Err(HandoverError::Anothers {
                address: function.address,
                domain: former.domain.clone(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
