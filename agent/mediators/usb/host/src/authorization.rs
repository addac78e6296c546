//! USB authorisation by the kernel: its own drivers get no device that nobody has admitted.
//!
//! The kernel's switches (Documentation/usb/authorization.rst), and what this makes of them:
//!
//! | file | here |
//! | --- | --- |
//! | `usbN/authorized_default` | 0: a device that is plugged in is not configured |
//! | `/sys/module/usbcore/parameters/authorized_default` | 0: nor is one at a controller that comes later, as in a dock |
//! | `usbN/interface_authorized_default` | 0: when it is, no driver may have its interfaces |
//! | `DEVICE/authorized` | 1 to read what it is; 0 to de-authorise it again |
//! | `INTERFACE/authorized` | 1 lets usbfs claim it; drivers are not asked by that. 0 as soon as nobody has it |
//! | `/sys/bus/usb/drivers_probe` | asks the drivers: for the seat's keyboards and mice, and hubs |
//!
//! Interfaces are authorised one by one: of a device with a keyboard and something besides the seat's driver has the keyboard, and no driver the rest.
//!
//! So a stick is never a block device of the host, not even for a moment. While a device's interfaces are authorised, its port is
//! [ours](usbport::Claim) too: the kernel asks drivers again when it resets a device of its own accord. What the switches were before is kept in a file until they
//! are put back, which is done only when no guest runs any more: an agent that leaves its guests running, or was killed, leaves them to the next one.
//! It is replaced as a whole: half a file would have the next one take the zeros of this one for what was before.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use base::durable;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use usbdescriptors::Share;

use usbsysfs::BusId;
use usbsysfs::UsbDevices;

const SWITCHES: [&str; 2] = ["authorized_default", "interface_authorized_default"];
/// Largest file read back, in bytes: two switches of more controllers than a PC can have.
const KEPT_MAX: u64 = 1 << 20;
/// Stands for the kernel's module beside the controllers: what it does with those that come.
const MODULE: &str = "usbcore";

/// A switch that cannot be set, or whose value cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The kernel does not take it.
    #[error("cannot write {}: run the agent as root, on a kernel with USB authorisation", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What it is, or which there are, cannot be seen.
    #[error("cannot read {}: restart the agent if that lasts", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What the switches were cannot be written down: whoever came after this agent would not know.
    #[error("cannot keep in {} what the kernel's USB switches were: make room there", path.display())]
    Keep {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The kernel would ask its own drivers about each interface of a device that is authorised there.
    #[error("{0} would give its interfaces to the PC's own drivers: plug the device in again")]
    Open(BusId),
}

/// What the switches were, by controller (or [`MODULE`]) and name.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Before(BTreeMap<String, BTreeMap<String, String>>);

/// Keeps the host's drivers off devices until the switches are [restored](Self::restore), which its owner decides: when it is
/// dropped the switches stay, as guests may run on that had devices. The next agent restores what the file says.
#[derive(Debug)]
pub struct UsbAuthorization {
    sysfs: UsbDevices,
    file: PathBuf,
    before: Before,
    /// The file says all of that.
    is_kept: bool,
}

/// Authorises single devices, now that the switches are set. The kernel does each of these only when nobody does anything
/// else with the device: not for a thread that others wait for.
#[derive(Clone, Debug)]
pub struct Grants(UsbDevices);

impl UsbAuthorization {
    /// Sets the switches of every controller to 0; `file` keeps what they were.
    ///
    /// # Errors
    /// A switch cannot be set. Those that were are put back, unless they were an earlier agent's, whose guests may run.
    pub fn acquire(sysfs: UsbDevices, file: PathBuf) -> Result<Self, SwitchError> {
        let before = match fileopen::read(&file, KEPT_MAX) {
            Ok(kept) => serde_json::from_slice(&kept).unwrap_or_else(|error| {
                tracing::error!("{} is nothing that an agent has written: {error}", file.display());
                Before::default()
            }),
            Err(source) if source.kind() == ErrorKind::NotFound => Before::default(),
            // Without it the zeros of an earlier agent would be taken for what was before.
            Err(source) => return Err(SwitchError::Read { path: file, source }),
        };
        let anew = before.0.is_empty();
        let mut this = Self { sysfs, file, before, is_kept: true };
        let all = this.switches()?;
        this.learn(&all)?;
        // Nothing was changed yet that would have to be put back.
        this.keep()?;
        match this.apply_to_new_controllers() {
            Ok(()) => Ok(this),
            Err(error) => {
                if anew {
                    this.restore();
                }
                Err(error)
            }
        }
    }

    /// Sets those of controllers that came since, all that can be set. A controller that went meanwhile has none.
    ///
    /// # Errors
    /// The first thing that went wrong. What is not done is done by the next call; until then no device [may be taken up](Self::keeps_drivers_off)
    /// where a switch is not set.
    pub fn apply_to_new_controllers(&mut self) -> Result<(), SwitchError> {
        let all = self.switches()?;
        let learnt = self.learn(&all);
        // Written before anything is changed. Where that fails a switch that stays open would be worse than one that is not put back.
        let mut done = learnt.and(self.keep());
        for (whose, switch) in &all {
            let path = self.place(whose, switch);
            let set = match read(&path) {
                Ok(Some(now)) if now != "0" => write(path, "0"),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            match set {
                Err(SwitchError::Write { source, .. }) if is_gone(&source) => {}
                set => done = done.and(set),
            }
        }
        done
    }

    /// Returns whether the kernel asks no driver of its own about a device that is authorised at this place. Of a controller that is gone, and of a kernel without the
    /// switch, it says that there is nothing to set.
    #[must_use]
    pub fn keeps_drivers_off(&self, id: &BusId) -> bool {
        keeps_drivers_off(&self.sysfs, id)
    }

    /// Returns every switch there is: whose it is, and its name.
    fn switches(&self) -> Result<Vec<(String, &'static str)>, SwitchError> {
        let mut all = vec![(MODULE.to_owned(), SWITCHES[0])];
        match self.sysfs.roots() {
            Ok(roots) => all.extend(
                roots.iter().flat_map(|root| SWITCHES.map(|switch| (root.to_string(), switch))),
            ),
            // A kernel without USB.
            Err(error) if is_gone(&error) => {}
            Err(source) => {
                return Err(SwitchError::Read { path: self.sysfs.folder().to_owned(), source });
            }
        }
        Ok(all)
    }

    /// Remembers what those were that are seen for the first time.
    fn learn(&mut self, all: &[(String, &'static str)]) -> Result<(), SwitchError> {
        let mut learnt = Ok(());
        // A controller that came since has 0 from the module: what it would have had by itself. -1 is 1 but for wireless USB.
        let module = self.before.0.get(MODULE).and_then(|switches| switches.get(SWITCHES[0]));
        let by_itself =
            module.map(|value| if value == "-1" { "1".to_owned() } else { value.clone() });
        for (whose, switch) in all {
            if self.before.0.get(whose).is_some_and(|known| known.contains_key(*switch)) {
                continue;
            }
            let now = match read(&self.place(whose, switch)) {
                Ok(Some(now)) => now,
                Ok(None) => continue,
                Err(error) => {
                    learnt = learnt.and(Err(error));
                    continue;
                }
            };
            let value = by_itself.clone().filter(|_| *switch == SWITCHES[0]).unwrap_or(now);
            let known = self.before.0.entry(whose.clone()).or_default();
            known.insert((*switch).to_owned(), value);
            self.is_kept = false;
        }
        learnt
    }

    /// Has the file say what they were, if it does not yet.
    fn keep(&mut self) -> Result<(), SwitchError> {
        if !self.is_kept {
            durable::write(&self.file, &self.before)
                .map_err(|source| SwitchError::Keep { path: self.file.clone(), source })?;
            self.is_kept = true;
        }
        Ok(())
    }

    /// Returns the path of a switch.
    fn place(&self, whose: &str, switch: &str) -> PathBuf {
        if whose == MODULE {
            return self.sysfs.folder().join("../../../module/usbcore/parameters").join(switch);
        }
        self.sysfs.folder().join(whose).join(switch)
    }

    /// Returns what authorises single devices.
    #[must_use]
    pub fn grants(&self) -> Grants {
        Grants(self.sysfs.clone())
    }

    /// Restores the switches as they were, and gives every device to the host's drivers. Only for when no guest runs any more.
    pub fn restore(mut self) {
        let before = std::mem::take(&mut self.before);
        let mut failed = false;
        // Only what has such a name was ever written; a file that was changed leads nowhere else.
        let ours = |whose: &str| whose == MODULE || whose.parse::<BusId>().is_ok();
        for (whose, switches) in before.0.iter().filter(|(whose, _)| ours(whose)) {
            for (switch, value) in switches {
                if !SWITCHES.contains(&switch.as_str()) {
                    continue;
                }
                let path = self.place(whose, switch);
                if path.exists()
                    && let Err(error) = write(path, value)
                {
                    failed = true;
                    tracing::error!("{error}");
                }
            }
        }
        let grants = self.grants();
        for found in self.sysfs.list().unwrap_or_default() {
            // One that went meanwhile needs nothing.
            if !found.authorised {
                // Its interfaces come to drivers by that, as they are to now.
                let _ = write(self.sysfs.path(&found.bus_id, "authorized"), "1");
            }
            let _ = grants.give_to_host(&found.bus_id, &Share::Whole);
        }
        if !failed {
            let _ = fs::remove_file(&self.file);
        }
    }
}

impl Grants {
    /// Authorises the device for the kernel to read what it is: it is configured, and no driver has it.
    ///
    /// # Errors
    /// It is gone, draws more than its port gives, or its controller came anew and would give it to drivers.
    pub fn authorize(&self, id: &BusId) -> Result<(), SwitchError> {
        if !keeps_drivers_off(&self.0, id) {
            return Err(SwitchError::Open(id.root()));
        }
        write(self.0.path(id, "authorized"), "1")
    }

    /// Takes its interfaces from whoever has them: a device that was there before this.
    ///
    /// # Errors
    /// It is gone.
    pub fn withdraw(&self, id: &BusId, share: &Share) -> Result<(), SwitchError> {
        withdraw(&self.0, id, share)
    }

    /// Gives it to the host's own drivers: a hub, or a keyboard or mouse of the seat. The port must be nobody's then.
    ///
    /// # Errors
    /// It is gone.
    pub fn give_to_host(&self, id: &BusId, share: &Share) -> Result<(), SwitchError> {
        admit(&self.0, id, share)?;
        let probe = self.0.folder().join("../drivers_probe");
        for interface in self.0.interfaces(id, share) {
            // An interface that no driver wants is no failure.
            let _ = fs::write(&probe, &interface);
        }
        Ok(())
    }

    /// De-authorises the device (`authorized = 0`): it has no configuration, and no driver has it.
    ///
    /// # Errors
    /// It is gone.
    pub fn deauthorize(&self, id: &BusId) -> Result<(), SwitchError> {
        write(self.0.path(id, "authorized"), "0")
    }
}

/// Lets a driver, or usbfs, claim a device's interfaces. Interfaces come anew with each configuration.
pub(crate) fn admit(sysfs: &UsbDevices, id: &BusId, share: &Share) -> Result<(), SwitchError> {
    set(sysfs, id, share, "1")
}

/// Takes a device's interfaces from whoever has them.
pub(crate) fn withdraw(sysfs: &UsbDevices, id: &BusId, share: &Share) -> Result<(), SwitchError> {
    set(sysfs, id, share, "0")
}

fn set(sysfs: &UsbDevices, id: &BusId, share: &Share, value: &str) -> Result<(), SwitchError> {
    for interface in sysfs.interfaces(id, share) {
        write(sysfs.interface(id, &interface).join("authorized"), value)?;
    }
    Ok(())
}

fn keeps_drivers_off(sysfs: &UsbDevices, id: &BusId) -> bool {
    let switch = sysfs.path(&id.root(), SWITCHES[1]);
    read(&switch).is_ok_and(|now| now.is_none_or(|now| now == "0"))
}

/// Returns whether what a file was of is there no more.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(Errno::ENODEV as i32)
}

/// Reads a switch; nothing if it is not there.
fn read(path: &Path) -> Result<Option<String>, SwitchError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(source) => Err(SwitchError::Read { path: path.to_owned(), source }),
    }
}

/// Writes to a file that is there: one of a controller or device that has gone is none of ours to make.
fn write(path: PathBuf, text: &str) -> Result<(), SwitchError> {
    let file = fs::OpenOptions::new().write(true).truncate(true).open(&path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| SwitchError::Write { path, source })
}

#[cfg(test)]
mod tests;
