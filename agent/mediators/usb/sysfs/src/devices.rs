//! `/sys/bus/usb/devices`: the devices, as the kernel has read them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use usbdescriptors::{PinnedDescriptor, Share, kind};

use crate::bus_id::BusId;

/// Devices that are looked at: 16 controllers with every port taken.
const DEVICES_MAX: usize = 2048;
/// Longest text of a device's that is kept, in characters.
const TEXT_MAX: usize = 80;
/// Longest `descriptors` file that is read, in bytes: eight configurations of 4 KiB.
const DESCRIPTORS_MAX: usize = 32 * 1024;

/// A device that is plugged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSnapshot {
    pub bus_id: BusId,
    /// The number of its bus, `busnum`.
    pub bus: u8,
    /// Its address there; another each time it is plugged in.
    pub address: u8,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// Megabits a second, as the kernel writes it: `1.5`, `12`, `480`, `5000`.
    pub speed: String,
    /// What it calls itself, cleaned and cut; empty before it is authorised.
    pub name: String,
    /// `iSerialNumber`, cleaned and cut.
    pub serial: Option<String>,
    /// The device descriptor and those of its configurations, one after the other.
    pub descriptors: Vec<u8>,
    /// Whether the kernel may use it.
    pub authorised: bool,
    /// Drivers of the host that have one of its interfaces.
    pub drivers: Vec<String>,
}

/// A device that is plugged in, as far as the kernel tells it at any time. All else waits until nobody does anything with the device,
/// which may be never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugged {
    pub bus_id: BusId,
    /// Its address on the bus; another each time it is plugged in. `None` while the kernel resets it: it shows 0 then, for as long as the
    /// device takes to answer.
    pub address: Option<u8>,
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
}

/// Which interfaces of a device, of those that are there, drivers of the host's have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Driven {
    /// At least one.
    pub any: bool,
    /// All, and some are there.
    pub all: bool,
}

/// The folder of devices; another in tests.
#[derive(Clone, Debug)]
pub struct UsbDevices {
    devices: PathBuf,
}

impl Default for UsbDevices {
    fn default() -> Self {
        Self { devices: PathBuf::from("/sys/bus/usb/devices") }
    }
}

impl UsbDevices {
    /// Makes one of another folder than the kernel's.
    #[must_use]
    pub fn at(devices: &Path) -> Self {
        Self { devices: devices.to_owned() }
    }

    /// Returns the folder that is read.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.devices
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Self::names_in(&self.devices)
    }

    fn names_in(folder: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)?.take(DEVICES_MAX) {
            names.extend(entry?.file_name().into_string());
        }
        names.sort();
        Ok(names)
    }

    /// Returns the root hubs.
    ///
    /// # Errors
    /// The folder cannot be read: there is no USB in this kernel.
    pub fn roots(&self) -> io::Result<Vec<BusId>> {
        let all = self.names()?.into_iter().filter_map(|name| name.parse::<BusId>().ok());
        Ok(all.filter(BusId::is_root).collect())
    }

    /// Returns all devices, root hubs left out. One that cannot be read is going or gone, and left out too.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn list(&self) -> io::Result<Vec<DeviceSnapshot>> {
        let all = self.names()?.into_iter().filter_map(|name| name.parse::<BusId>().ok());
        Ok(all.filter(|id| !id.is_root()).filter_map(|id| self.find(&id)).collect())
    }

    /// Lists all devices, root hubs left out, without waiting for any: only files that the kernel shows without the device's lock. One that went meanwhile is left
    /// out.
    ///
    /// # Errors
    /// The folder, or what the kernel says of a device that is there, cannot be read: nothing is known of which are plugged in.
    pub fn plugged(&self) -> io::Result<Vec<Plugged>> {
        let all = self.names()?.into_iter().filter_map(|name| name.parse::<BusId>().ok());
        let mut plugged = Vec::new();
        for bus_id in all.filter(|id| !id.is_root()) {
            plugged.extend(self.plugged_at(bus_id)?);
        }
        Ok(plugged)
    }

    fn plugged_at(&self, bus_id: BusId) -> io::Result<Option<Plugged>> {
        let (address, vendor, product) = (
            self.try_read(&bus_id, "devnum")?,
            self.try_read(&bus_id, "idVendor")?,
            self.try_read(&bus_id, "idProduct")?,
        );
        let hex = |text: Option<String>| u16::from_str_radix(&text?, 16).ok();
        let made = || {
            let address = Some(address?.parse().ok()?).filter(|address| *address != 0);
            let (vendor, product) = (hex(vendor)?, hex(product)?);
            Some(Plugged { address, vendor, product, bus_id })
        };
        Ok(made())
    }

    /// Finds the device at a place. May wait for whatever is done with it: not for a thread that others wait for.
    #[must_use]
    pub fn find(&self, id: &BusId) -> Option<DeviceSnapshot> {
        let text = |name: &str| self.read(id, name);
        let hex = |name: &str| u16::from_str_radix(&text(name)?, 16).ok();
        let number = |name: &str| text(name)?.parse::<u8>().ok();
        let mut descriptors = fs::read(self.path(id, "descriptors")).ok()?;
        descriptors.truncate(DESCRIPTORS_MAX);
        let words = [text("manufacturer"), text("product")];
        // What the kernel writes in place of texts it has not asked for.
        let told = |text: &String| !text.is_empty() && text != "n/a (unauthorized)";
        let words: Vec<String> = words.into_iter().flatten().filter(told).collect();
        Some(DeviceSnapshot {
            bus_id: id.clone(),
            bus: number("busnum")?,
            address: self.address(id)?,
            vendor: hex("idVendor")?,
            product: hex("idProduct")?,
            speed: text("speed").unwrap_or_default(),
            name: words.join(" "),
            serial: text("serial").filter(told),
            descriptors,
            authorised: text("authorized").as_deref() == Some("1"),
            drivers: self
                .interfaces(id, &Share::Whole)
                .iter()
                .filter_map(|name| self.driver(id, name))
                .collect(),
        })
    }

    /// Returns the `bConfigurationValue` of the configuration that the kernel has put a device in. May wait, as [`Self::find`].
    #[must_use]
    pub fn configuration(&self, id: &BusId) -> Option<u8> {
        self.read(id, "bConfigurationValue")?.parse().ok()
    }

    /// Returns whether the host itself runs from it: one of its disks is mounted, swapped to, or part of another. Such a device is left alone;
    /// `mounts` is the text of `/proc/mounts` and `/proc/swaps`.
    #[must_use]
    pub fn host_needs(&self, id: &BusId, mounts: &str) -> bool {
        let mut disks = Vec::new();
        block_devices(&self.devices.join(id.as_str()), 0, &mut disks);
        disks.iter().any(|disk| {
            let name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let node = format!("/dev/{name}");
            let held = |path: &Path| {
                fs::read_dir(path.join("holders")).is_ok_and(|mut d| d.next().is_some())
            };
            let parts = fs::read_dir(disk).into_iter().flatten().flatten();
            mounts.lines().any(|line| line.starts_with(&node))
                || held(disk)
                || parts.map(|part| part.path()).any(|part| held(&part))
        })
    }

    /// Returns a device's or hub's node in usbfs.
    pub fn node(&self, id: &BusId) -> Option<PathBuf> {
        let bus = self.read(id, "busnum")?.parse::<u8>().ok()?;
        Some(PathBuf::from(format!("/dev/bus/usb/{bus:03}/{:03}", self.address(id)?)))
    }

    /// Returns a device's address, after its reset if it is being reset. May wait, as [`Self::find`].
    #[must_use]
    pub fn address(&self, id: &BusId) -> Option<u8> {
        let number = || self.read(id, "devnum")?.parse::<u8>().ok();
        let address = number()?;
        if address != 0 {
            return Some(address);
        }
        // Who reads this file waits for the reset.
        let _ = self.configuration(id);
        number().filter(|address| *address != 0)
    }

    /// Returns the path of a file of a device.
    #[must_use]
    pub fn path(&self, id: &BusId, name: &str) -> PathBuf {
        self.devices.join(id.as_str()).join(name)
    }

    fn read(&self, id: &BusId, name: &str) -> Option<String> {
        self.try_read(id, name).ok().flatten()
    }

    /// Reads a file of a device's; nothing if the device is gone, which is not the same as that it cannot be read.
    fn try_read(&self, id: &BusId, name: &str) -> io::Result<Option<String>> {
        let bytes = match fs::read(self.path(id, name)) {
            Ok(bytes) => bytes,
            Err(error) if is_gone(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text = String::from_utf8_lossy(bytes.get(..512).unwrap_or(&bytes)).into_owned();
        Ok(Some(clean(&text)))
    }

    /// Returns names of its interfaces' folders, such as `1-4.2:1.0`: those that are meant, in the configuration it is in. None of what cannot be read.
    pub fn interfaces(&self, id: &BusId, share: &Share) -> Vec<String> {
        self.try_interfaces(id, share).unwrap_or_default()
    }

    fn try_interfaces(&self, id: &BusId, share: &Share) -> io::Result<Vec<String>> {
        let start = format!("{id}:");
        let meant = |name: &String| {
            let place = name.strip_prefix(&start)?;
            let number = place.rsplit_once('.').and_then(|(_, number)| number.parse().ok());
            (share.is_whole() || share.has(number?)).then_some(())
        };
        let of = |folder: &Path| -> io::Result<Vec<String>> {
            let names = match Self::names_in(folder) {
                Err(error) if is_gone(&error) => Vec::new(),
                names => names?,
            };
            Ok(names.into_iter().filter(|name| meant(name).is_some()).collect())
        };
        match of(&self.devices)? {
            none if none.is_empty() => of(&self.devices.join(id.as_str())),
            beside => Ok(beside),
        }
    }

    /// Returns an interface's folder: it lies in its device's, and where the kernel lists all devices there is a link to it beside those.
    pub fn interface(&self, id: &BusId, name: &str) -> PathBuf {
        let beside = self.devices.join(name);
        if beside.exists() { beside } else { self.path(id, name) }
    }

    /// Returns the report descriptors of its HID interfaces, as far as the host's drivers have read them. The device is asked nothing.
    #[must_use]
    pub fn report_descriptors(&self, id: &BusId) -> Vec<PinnedDescriptor> {
        let mut found = Vec::new();
        for name in self.interfaces(id, &Share::Whole) {
            let place = name.rsplit_once(':').and_then(|(_, place)| place.split_once('.'));
            let place = place.and_then(|(configuration, interface)| {
                Some((configuration.parse::<u8>().ok()?, interface.parse::<u8>().ok()?))
            });
            let Some((configuration, interface)) = place else { continue };
            let folders = fs::read_dir(self.interface(id, &name)).into_iter().flatten().flatten();
            for folder in folders.take(256) {
                let Ok(mut bytes) = fs::read(folder.path().join("report_descriptor")) else {
                    continue;
                };
                bytes.truncate(DESCRIPTORS_MAX);
                found.push(PinnedDescriptor {
                    configuration: Some(configuration),
                    kind: kind::REPORT,
                    index: 0,
                    target: interface.into(),
                    bytes,
                });
            }
        }
        found
    }

    /// Returns whether the host's drivers have these interfaces of a device. Waits for nothing.
    ///
    /// # Errors
    /// Which interfaces there are cannot be read.
    pub fn drivers(&self, id: &BusId, share: &Share) -> io::Result<Driven> {
        let interfaces = self.try_interfaces(id, share)?;
        let driven = interfaces.iter().filter(|name| self.driver(id, name).is_some()).count();
        Ok(Driven { any: driven > 0, all: driven > 0 && driven == interfaces.len() })
    }

    fn driver(&self, id: &BusId, interface: &str) -> Option<String> {
        let link = fs::read_link(self.interface(id, interface).join("driver")).ok()?;
        Some(link.file_name()?.to_string_lossy().into_owned())
    }
}

/// Returns whether what a file was of is there no more, as the kernel says it of one that goes while it is read (`ENODEV`, which has no kind of its own).
fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ENODEV)
}

/// Returns a device's text as it is kept and shown.
pub fn clean(text: &str) -> String {
    text.trim()
        .chars()
        .map(|c| if printable::is_shown(c) { c } else { '?' })
        .take(TEXT_MAX)
        .collect()
}

/// Collects the block devices below a device's folder.
fn block_devices(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    /// An interface, a SCSI host, a target, a unit, and the folder `block`.
    const DEPTH_MAX: usize = 8;
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().take(256);
    for entry in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        if entry.file_name() == "block" {
            found.extend(
                fs::read_dir(entry.path()).into_iter().flatten().flatten().map(|d| d.path()),
            );
        } else if depth < DEPTH_MAX {
            block_devices(&entry.path(), depth + 1, found);
        }
    }
}

/// A folder like sysfs, for tests.
#[cfg(any(test, feature = "testing"))]
pub mod testing {
    #![allow(clippy::unwrap_used, reason = "a test says by panicking what it did not expect")]

    use std::fs;

    use super::UsbDevices;

    /// Makes a folder with a controller and a stick.
    #[must_use]
    pub fn tree() -> (tempfile::TempDir, UsbDevices) {
        let dir = tempfile::tempdir().unwrap();
        let sysfs = UsbDevices::at(dir.path());
        for (device, files) in [
            ("usb1", &[("authorized_default", "1"), ("interface_authorized_default", "1")][..]),
            (
                "1-4",
                &[
                    ("busnum", "1"),
                    ("devnum", "7"),
                    ("idVendor", "0781"),
                    ("idProduct", "5567"),
                    ("speed", "480"),
                    ("manufacturer", "San\u{202e}Disk"),
                    ("product", "Cruzer"),
                    ("serial", "A1"),
                    ("authorized", "0"),
                    ("descriptors", "\u{12}\u{1}"),
                ],
            ),
            ("1-4:1.0", &[("authorized", "0")]),
        ] {
            fs::create_dir(dir.path().join(device)).unwrap();
            for (name, text) in files {
                fs::write(dir.path().join(device).join(name), format!("{text}\n")).unwrap();
            }
        }
        (dir, sysfs)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::os::unix::fs::symlink;

    use proptest::prelude::*;

    use super::testing::tree;
    use super::*;

    #[test]
    fn a_device_is_found_with_its_texts_cleaned() {
        let (dir, sysfs) = tree();
        let found = sysfs.list().unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].name, "San?Disk Cruzer");
        assert_eq!((found[0].vendor, found[0].address, found[0].authorised), (0x0781, 7, false));
        assert_eq!(sysfs.roots().unwrap(), ["usb1".parse().unwrap()]);
        let plugged = sysfs.plugged().unwrap();
        assert_eq!((plugged[0].bus_id.as_str(), plugged[0].address), ("1-4", Some(7)));
        symlink("../../drivers/usb-storage", dir.path().join("1-4:1.0/driver")).unwrap();
        assert_eq!(sysfs.list().unwrap()[0].drivers, ["usb-storage"]);
        fs::remove_file(dir.path().join("1-4/devnum")).unwrap();
        assert!(sysfs.list().unwrap().is_empty(), "it is going");
    }

    #[test]
    fn a_devices_interfaces_are_found_beside_it_and_in_its_own_folder() {
        let (dir, sysfs) = tree();
        let id = "1-4".parse().unwrap();
        let seen = || {
            let reports = sysfs.report_descriptors(&id).into_iter().map(|one| one.bytes);
            let drivers = sysfs.find(&id).unwrap().drivers;
            (sysfs.interfaces(&id, &Share::Whole), drivers, reports.collect::<Vec<_>>())
        };
        let beside = dir.path().join("1-4:1.0");
        symlink("../../drivers/usbhid", beside.join("driver")).unwrap();
        fs::create_dir(beside.join("0003:0781:5567.0001")).unwrap();
        fs::write(beside.join("0003:0781:5567.0001/report_descriptor"), [5, 1]).unwrap();
        let listed = seen();
        assert_eq!(listed.0, ["1-4:1.0"]);
        assert_eq!(
            (listed.1.as_slice(), &listed.2),
            (&["usbhid".to_owned()][..], &vec![vec![5, 1]])
        );
        // As below /sys/devices: the interface lies in the device.
        fs::rename(&beside, dir.path().join("1-4/1-4:1.0")).unwrap();
        assert_eq!(seen(), listed);
    }

    #[test]
    fn a_device_that_is_being_reset_is_there_all_the_same() {
        let (dir, sysfs) = tree();
        fs::write(dir.path().join("1-4/devnum"), "0\n").unwrap();
        let plugged = sysfs.plugged().unwrap();
        assert_eq!((plugged[0].bus_id.as_str(), plugged[0].address), ("1-4", None));
    }

    #[test]
    fn what_cannot_be_read_of_a_device_that_is_there_does_not_make_it_one_that_is_gone() {
        for file in ["devnum", "idVendor", "idProduct"] {
            let (dir, sysfs) = tree();
            let file = dir.path().join("1-4").join(file);
            fs::remove_file(&file).unwrap();
            assert_eq!(sysfs.plugged().unwrap(), [], "it went meanwhile");
            // As one for which there is no descriptor: it is there, and cannot be read.
            fs::create_dir(&file).unwrap();
            sysfs.plugged().unwrap_err();
        }
        let (dir, sysfs) = tree();
        let id: BusId = "1-4".parse().unwrap();
        let none = Driven { any: false, all: false };
        assert_eq!(sysfs.drivers(&id, &Share::Whole).unwrap(), none);
        fs::remove_dir_all(dir.path().join("1-4:1.0")).unwrap();
        fs::remove_dir_all(dir.path().join("1-4")).unwrap();
        fs::write(dir.path().join("1-4"), "no folder").unwrap();
        sysfs.drivers(&id, &Share::Whole).unwrap_err();
    }

    #[test]
    fn a_stick_the_host_runs_from_is_known() {
        let (dir, sysfs) = tree();
        let disk = dir.path().join("1-4/1-4:1.0/host0/target0:0:0/0:0:0:0/block/sdb");
        fs::create_dir_all(disk.join("sdb1")).unwrap();
        let id = "1-4".parse().unwrap();
        assert!(!sysfs.host_needs(&id, "/dev/sda1 / ext4 rw 0 0\n"));
        assert!(sysfs.host_needs(&id, "/dev/sda1 / ext4\n/dev/sdb1 /boot vfat rw 0 0\n"));
        fs::create_dir_all(disk.join("sdb1/holders/dm-0")).unwrap();
        assert!(sysfs.host_needs(&id, ""));
    }

    #[test]
    fn a_devices_node_is_found_by_its_bus_and_its_address() {
        let (_dir, sysfs) = tree();
        assert_eq!(sysfs.node(&"1-4".parse().unwrap()), Some("/dev/bus/usb/001/007".into()));
        assert_eq!(sysfs.node(&"1-5".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn whatever_the_files_hold_a_device_is_read_or_left_out(
            file in prop::sample::select(vec!["busnum", "idVendor", "product", "serial", "descriptors", "authorized"]),
            bytes in prop::collection::vec(any::<u8>(), 0..2000),
        ) {
            let (dir, sysfs) = tree();
            fs::write(dir.path().join("1-4").join(file), &bytes).unwrap();
            for found in sysfs.list().unwrap() {
                prop_assert!(found.name.chars().count() <= 2 * TEXT_MAX + 1);
                prop_assert!(found.name.chars().all(printable::is_shown));
            }
        }
    }
}
