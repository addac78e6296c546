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

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use usbdescriptors::Share;

use usbsysfs::BusId;
use usbsysfs::UsbDevices;

const SWITCHES: [&str; 2] = ["authorized_default", "interface_authorized_default"];
/// Largest file read back, in bytes: two switches of more controllers than a PC can have.
const KEPT_MAX: u64 = 1 << 20;
/// Stands for the kernel's module beside the controllers: what it does with those that come.
const MODULE: &str = "usbcore";

/// A switch that cannot be set.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: run the agent as root, on a kernel with USB authorisation", path.display())]
pub struct SwitchError {
    path: PathBuf,
    #[source]
    source: io::Error,
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
        let kept = fileopen::read(&file, KEPT_MAX).ok();
        let before: Before =
            kept.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let anew = before.0.is_empty();
        let mut this = Self { sysfs, file, before };
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

    /// Sets those of controllers that came since.
    ///
    /// # Errors
    /// A switch cannot be set.
    pub fn apply_to_new_controllers(&mut self) -> Result<(), SwitchError> {
        let roots = self.sysfs.roots().unwrap_or_default();
        let mut all = vec![(MODULE.to_owned(), SWITCHES[0])];
        all.extend(roots.iter().flat_map(|root| SWITCHES.map(|switch| (root.to_string(), switch))));
        // A controller that came since has 0 from the module: what it would have had by itself. -1 is 1 but for wireless USB.
        let module = self.before.0.get(MODULE).and_then(|switches| switches.get(SWITCHES[0]));
        let by_itself =
            module.map(|value| if value == "-1" { "1".to_owned() } else { value.clone() });
        let mut new = false;
        for (whose, switch) in &all {
            if self.before.0.get(whose).is_some_and(|known| known.contains_key(*switch)) {
                continue;
            }
            let Ok(now) = fs::read_to_string(self.place(whose, switch)) else { continue };
            new = true;
            let value = by_itself.clone().filter(|_| *switch == SWITCHES[0]);
            let value = value.unwrap_or_else(|| now.trim().to_owned());
            let known = self.before.0.entry(whose.clone()).or_default();
            known.insert((*switch).to_owned(), value);
        }
        if new {
            // Written before anything is changed.
            let text = serde_json::to_vec_pretty(&self.before).unwrap_or_default();
            keep(&self.file, &text)
                .map_err(|source| SwitchError { path: self.file.clone(), source })?;
        }
        for (whose, switch) in &all {
            let path = self.place(whose, switch);
            if fs::read_to_string(&path).is_ok_and(|now| now.trim() != "0") {
                write(path, "0")?;
            }
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
            let _ = if found.authorised { Ok(()) } else { grants.authorize(&found.bus_id) };
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
    /// It is gone, or draws more than its port gives.
    pub fn authorize(&self, id: &BusId) -> Result<(), SwitchError> {
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

fn keep(file: &Path, text: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    fileopen::regular_with(file, &mut options)?.write_all(text)
}

fn write(path: PathBuf, text: &str) -> Result<(), SwitchError> {
    fs::write(&path, text).map_err(|source| SwitchError { path, source })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use usbsysfs::devices::testing::tree;

    fn read(sysfs: &UsbDevices, file: &str) -> String {
        fs::read_to_string(sysfs.folder().join(file)).unwrap().trim().to_owned()
    }

    #[test]
    fn the_switches_are_taken_and_put_back_as_they_were() {
        let (dir, sysfs) = tree();
        let file = dir.path().join("before.json");
        let authorization = UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap();
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
        assert_eq!(read(&sysfs, "usb1/interface_authorized_default"), "0");
        let id: BusId = "1-4".parse().unwrap();
        authorization.grants().authorize(&id).unwrap();
        assert_eq!(
            (read(&sysfs, "1-4/authorized"), read(&sysfs, "1-4:1.0/authorized")),
            ("1".into(), "0".into())
        );
        admit(&sysfs, &id, &Share::Whole).unwrap();
        assert_eq!(read(&sysfs, "1-4:1.0/authorized"), "1");
        authorization.grants().deauthorize(&id).unwrap();
        assert_eq!(read(&sysfs, "1-4/authorized"), "0");
        authorization.restore();
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "1");
        assert_eq!(read(&sysfs, "usb1/interface_authorized_default"), "1");
        assert_eq!(read(&sysfs, "1-4/authorized"), "1", "the host has it again");
        assert!(!file.exists());
    }

    #[test]
    fn of_a_keyboard_with_a_card_reader_the_host_gets_the_keyboard_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (devices, probe) = (dir.path().join("devices"), dir.path().join("drivers_probe"));
        for (name, authorised) in [("1-4.2", "1"), ("1-4.2:1.0", "0"), ("1-4.2:1.1", "0")] {
            fs::create_dir_all(devices.join(name)).unwrap();
            fs::write(devices.join(name).join("authorized"), authorised).unwrap();
        }
        let sysfs = UsbDevices::at(&devices);
        let (grants, id) = (Grants(sysfs.clone()), "1-4.2".parse::<BusId>().unwrap());
        let part = |numbers: [u8; 1]| Share::Interfaces(numbers.into());
        let both =
            || ["1-4.2:1.0", "1-4.2:1.1"].map(|name| read(&sysfs, &format!("{name}/authorized")));
        grants.give_to_host(&id, &part([0])).unwrap();
        assert_eq!(both(), ["1", "0"]);
        assert_eq!(fs::read_to_string(&probe).unwrap(), "1-4.2:1.0");
        // The reader is admitted for usbfs, and let go.
        admit(&sysfs, &id, &part([1])).unwrap();
        assert_eq!(both(), ["1", "1"]);
        withdraw(&sysfs, &id, &part([1])).unwrap();
        assert_eq!(both(), ["1", "0"]);
        assert!(!sysfs.are_driven(&id, &part([0])));
        let driver = dir.path().join("drivers/usbhid");
        fs::create_dir_all(&driver).unwrap();
        std::os::unix::fs::symlink(&driver, devices.join("1-4.2:1.0/driver")).unwrap();
        assert!(sysfs.are_driven(&id, &part([0])) && !sysfs.are_driven(&id, &Share::Whole));
    }

    #[test]
    fn after_a_killed_agent_the_next_one_knows_what_they_were_before_it() {
        let (dir, sysfs) = tree();
        let file = dir.path().join("before.json");
        std::mem::forget(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
        UsbAuthorization::acquire(sysfs.clone(), file).unwrap().restore();
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "1");
    }

    #[test]
    fn what_ends_without_a_word_leaves_no_device_to_the_hosts_drivers() {
        let (dir, sysfs) = tree();
        let file = dir.path().join("before.json");
        drop(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
        assert_eq!(read(&sysfs, "1-4/authorized"), "0");
        assert!(file.exists(), "the next agent knows");
    }

    #[test]
    fn an_agent_that_cannot_take_a_switch_puts_back_its_own_and_no_earlier_ones() {
        for earlier in [false, true] {
            let (dir, sysfs) = tree();
            let file = dir.path().join("before.json");
            if earlier {
                drop(UsbAuthorization::acquire(sysfs.clone(), file.clone()).unwrap());
            }
            // A switch that can be read and not written.
            fs::create_dir(dir.path().join("usb2")).unwrap();
            let switch = dir.path().join("usb2/authorized_default");
            std::os::unix::fs::symlink("/proc/self/statm", &switch).unwrap();
            UsbAuthorization::acquire(sysfs.clone(), file).unwrap_err();
            let expected = if earlier { "0" } else { "1" };
            assert_eq!(read(&sysfs, "usb1/authorized_default"), expected);
        }
    }

    #[test]
    fn a_broker_that_fails_leaves_no_device_to_the_hosts_drivers() {
        let (dir, sysfs) = tree();
        let file = dir.path().join("before.json");
        let (ours, kept) = (sysfs.clone(), file.clone());
        let died = std::thread::spawn(move || {
            let _authorization = UsbAuthorization::acquire(ours, kept).unwrap();
            panic!("a fault of ours");
        });
        died.join().unwrap_err();
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "0");
        assert_eq!(read(&sysfs, "1-4/authorized"), "0");
        UsbAuthorization::acquire(sysfs.clone(), file).unwrap().restore();
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "1", "the next agent knows");
    }

    #[test]
    fn a_controller_that_comes_later_has_no_moment_without() {
        let dir = tempfile::tempdir().unwrap();
        let (devices, module) =
            (dir.path().join("bus/usb/devices"), dir.path().join("module/usbcore/parameters"));
        for folder in [&devices.join("usb1"), &module] {
            fs::create_dir_all(folder).unwrap();
        }
        let write = |path: PathBuf, text: &str| fs::write(path, text).unwrap();
        write(module.join("authorized_default"), "-1\n");
        write(devices.join("usb1/authorized_default"), "2\n");
        let sysfs = UsbDevices::at(&devices);
        let parameter = || fs::read_to_string(module.join("authorized_default")).unwrap();
        let mut authorization =
            UsbAuthorization::acquire(sysfs.clone(), dir.path().join("before.json")).unwrap();
        assert_eq!(parameter(), "0");
        // The kernel has given it what the module says.
        fs::create_dir(devices.join("usb2")).unwrap();
        write(devices.join("usb2/authorized_default"), "0\n");
        authorization.apply_to_new_controllers().unwrap();
        authorization.restore();
        assert_eq!(parameter(), "-1");
        assert_eq!(read(&sysfs, "usb1/authorized_default"), "2");
        assert_eq!(read(&sysfs, "usb2/authorized_default"), "1", "as it would have come by itself");
    }

    #[test]
    fn a_controller_that_comes_later_is_taken_too() {
        let (dir, sysfs) = tree();
        let mut authorization =
            UsbAuthorization::acquire(sysfs.clone(), dir.path().join("before.json")).unwrap();
        fs::create_dir(dir.path().join("usb2")).unwrap();
        fs::write(dir.path().join("usb2/authorized_default"), "1\n").unwrap();
        authorization.apply_to_new_controllers().unwrap();
        assert_eq!(read(&sysfs, "usb2/authorized_default"), "0");
        authorization.restore();
        assert_eq!(read(&sysfs, "usb2/authorized_default"), "1");
    }
}
