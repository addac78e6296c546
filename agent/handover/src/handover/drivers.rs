//! How a function gets from one driver to another: what is written to the kernel, and what is waited for.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use clock::Moment;
use hostpci::Function;

use super::{Handover, HandoverError, POLL};
use crate::PciAddress;

impl Handover {
    /// Asks the kernel for any driver, where none is known that had the function before: one that was reserved at the boot had none yet.
    /// There may be none, so that this cannot fail.
    pub(super) fn let_any_driver_take(&self, address: PciAddress) -> Option<String> {
        let file = self.sysfs.path("bus/pci/drivers_probe");
        if let Err(error) = self.write(address, file, &address.to_string()) {
            tracing::warn!(%address, "the host has no driver for it until the PC is restarted: {error}");
        }
        self.sysfs.driver(address)
    }

    /// Resets the function; returns false when the kernel knows no way to.
    pub(super) fn reset(&self, function: &Function) -> Result<bool, HandoverError> {
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

    pub(super) fn set_override(
        &self,
        address: PciAddress,
        driver: Option<&str>,
    ) -> Result<(), HandoverError> {
        let attribute = "driver_override";
        // An empty line clears it.
        let text = format!("{}\n", driver.unwrap_or_default());
        self.write(address, self.sysfs.pci_device(address).join(attribute), &text)
            .map_err(|source| HandoverError::Write { address, attribute, source })
    }

    pub(super) fn unbind(&self, function: &Function) -> Result<(), HandoverError> {
        let address = function.address;
        let attribute = "driver/unbind";
        let file = self.sysfs.pci_device(address).join(attribute);
        match self.write(address, file, &address.to_string()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(not_released(function));
            }
            Err(source) => return Err(HandoverError::Write { address, attribute, source }),
        }
        if self.wait_for(address, |driver| driver.is_none()) {
            Ok(())
        } else {
            Err(not_released(function))
        }
    }

    pub(super) fn bind(&self, address: PciAddress, driver: &str) -> Result<(), HandoverError> {
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
            if holds(self.sysfs.driver(address).as_deref()) {
                return true;
            }
            if Moment::now() >= until {
                return false;
            }
            thread::sleep(POLL);
        }
    }

    pub(super) fn refuse_if_held(&self, function: &Function) -> Result<(), HandoverError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.contains(&function.address) { Err(not_released(function)) } else { Ok(()) }
    }

    /// Writes to a file of the kernel, with a deadline. On `TimedOut` the write goes on by itself.
    pub(super) fn write(&self, address: PciAddress, file: PathBuf, text: &str) -> io::Result<()> {
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

fn not_released(function: &Function) -> HandoverError {
    HandoverError::WontLetGo {
        address: function.address,
        driver: function.driver.clone().unwrap_or_else(|| "of an unknown name".to_owned()),
        uses: function
            .interface_names()
            .first()
            .cloned()
            .unwrap_or_else(|| "its interface".to_owned()),
    }
}
