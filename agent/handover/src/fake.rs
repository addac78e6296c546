//! A PC of files and links, and a kernel that moves them as the real one does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::new_without_default,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    missing_docs,
    reason = "a stand-in for tests"
)]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::PciAddress;
use super::sysfs::{HostSysfs, Kernel};

pub struct FakePc {
    pub dir: tempfile::TempDir,
    pub kernel: Arc<FakeKernel>,
}

#[derive(Default)]
pub struct FakeKernel {
    root: PathBuf,
    /// The driver that holds on to its devices for now.
    stubborn: Mutex<Option<String>>,
    /// Drivers that refuse to bind.
    refusing: Mutex<HashSet<String>>,
    reset_fails: Mutex<bool>,
    modules: Mutex<HashSet<String>>,
    /// The driver that says it is for a device, as the kernel finds it by itself.
    natural: Mutex<HashMap<PciAddress, String>>,
    /// Every write, in order: `attribute=text`.
    pub writes: Mutex<Vec<String>>,
}

impl FakePc {
    /// Makes a PC without devices, with vfio-pci installed and not loaded.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sys");
        fs::create_dir_all(root.join("bus/pci/devices")).unwrap();
        fs::create_dir_all(root.join("bus/pci/drivers")).unwrap();
        fs::create_dir_all(root.join("kernel/iommu_groups")).unwrap();
        fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        fs::write(dir.path().join("proc/self/mountinfo"), "").unwrap();
        fs::create_dir_all(dir.path().join("proc/sys/kernel/random")).unwrap();
        fs::write(dir.path().join("proc/sys/kernel/random/boot_id"), "first\n").unwrap();
        let modules = Mutex::new(HashSet::from(["vfio-pci".to_owned()]));
        let kernel = Arc::new(FakeKernel { root, modules, ..FakeKernel::default() });
        Self { dir, kernel }
    }

    pub fn sysfs(&self) -> HostSysfs {
        HostSysfs::at(self.kernel.root.clone(), self.kernel.clone())
    }

    /// Adds a device, bound to `driver` if there is one, in `group` if there is one.
    pub fn add(
        &self,
        address: &str,
        class: u32,
        driver: Option<&str>,
        group: Option<u32>,
    ) -> PciAddress {
        let address: PciAddress = address.parse().unwrap();
        let device = self.sysfs().pci_device(address);
        fs::create_dir(&device).unwrap();
        let write = |name: &str, text: &str| fs::write(device.join(name), text).unwrap();
        write("vendor", "0x8086\n");
        write("device", "0x10d3\n");
        write("class", &format!("0x{class:06x}\n"));
        write("driver_override", "(null)\n");
        write("reset", "");
        write("reset_method", "flr bus\n");
        if let Some(driver) = driver {
            self.kernel.add_driver(driver);
            symlink(self.sysfs().pci_driver(driver), device.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let group = self.sysfs().path(format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(group.join("devices")).unwrap();
            symlink(&device, group.join("devices").join(address.to_string())).unwrap();
            symlink(&group, device.join("iommu_group")).unwrap();
        }
        address
    }

    /// Adds an e1000e with group `group` to itself.
    pub fn add_nic(&self, address: &str, group: u32) -> PciAddress {
        self.add(address, 0x02_0000, Some("e1000e"), Some(group))
    }

    /// Adds groups as kernel logs show them: `group address class driver`, a dash for none.
    pub fn add_group(&self, lines: &str) {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let [group, address, class, driver, ..] =
                line.split_whitespace().collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            let driver = (driver != "-").then_some(driver);
            let class = u32::from_str_radix(class, 16).unwrap();
            self.add(address, class, driver, Some(group.parse().unwrap()));
        }
    }

    /// Adds a network interface of a device.
    pub fn add_interface(&self, address: PciAddress, name: &str, mac: &str) {
        let interface = self.sysfs().pci_device(address).join("net").join(name);
        fs::create_dir_all(&interface).unwrap();
        fs::write(interface.join("address"), format!("{mac}\n")).unwrap();
    }

    /// Adds a disk or partition (`below` its controller, `sda/sda1`) with its device number.
    pub fn add_disk(&self, address: PciAddress, below: &str, number: &str) -> PathBuf {
        let device = self.sysfs().pci_device(address).join("host0/block").join(below);
        self.add_block_device(&device, number);
        device
    }

    /// Adds a block device that is no controller's (LVM, RAID), made of others.
    pub fn add_virtual_disk(&self, name: &str, number: &str, of: &[&Path]) -> PathBuf {
        let device = self.sysfs().path("devices/virtual/block").join(name);
        self.add_block_device(&device, number);
        fs::create_dir_all(device.join("slaves")).unwrap();
        for slave in of {
            symlink(slave, device.join("slaves").join(slave.file_name().unwrap())).unwrap();
        }
        device
    }

    fn add_block_device(&self, device: &Path, number: &str) {
        fs::create_dir_all(device).unwrap();
        for (folder, name) in
            [("dev/block", number), ("class/block", device.file_name().unwrap().to_str().unwrap())]
        {
            let folder = self.sysfs().path(folder);
            fs::create_dir_all(&folder).unwrap();
            symlink(device, folder.join(name)).unwrap();
        }
    }

    /// Replaces `/proc/self/mountinfo` by these lines.
    pub fn mounts(&self, lines: &str) {
        fs::write(self.sysfs().proc("self/mountinfo"), lines).unwrap();
    }

    /// Adds a graphics card of a device, with a connector.
    pub fn add_card(&self, address: PciAddress, card: &str, status: &str) {
        let folder = self.sysfs().path("class/drm");
        fs::create_dir_all(folder.join(card)).unwrap();
        symlink(self.sysfs().pci_device(address), folder.join(card).join("device")).unwrap();
        let connector = folder.join(format!("{card}-HDMI-A-1"));
        fs::create_dir_all(&connector).unwrap();
        fs::write(connector.join("status"), format!("{status}\n")).unwrap();
    }

    /// Adds an input device on a device, with the keys it has as sysfs writes them.
    pub fn add_input(&self, address: PciAddress, event: &str, name: &str, keys: &str) {
        let input = self.sysfs().pci_device(address).join("usb1/1-4/input/input7");
        fs::create_dir_all(input.join("capabilities")).unwrap();
        fs::write(input.join("capabilities/key"), format!("{keys}\n")).unwrap();
        fs::write(input.join("name"), format!("{name}\n")).unwrap();
        let folder = self.sysfs().path("class/input").join(event);
        fs::create_dir_all(&folder).unwrap();
        symlink(&input, folder.join("device")).unwrap();
    }

    /// Changes an attribute of a device; `None` removes it.
    pub fn set(&self, address: PciAddress, attribute: &str, text: Option<&str>) {
        let file = self.sysfs().pci_device(address).join(attribute);
        match text {
            Some(text) => fs::write(file, text).unwrap(),
            None => fs::remove_file(file).unwrap(),
        }
    }

    pub fn driver(&self, address: PciAddress) -> Option<String> {
        self.kernel.driver(address)
    }

    pub fn holds_on(&self, driver: &str) {
        *self.kernel.stubborn.lock().unwrap() = Some(driver.to_owned());
    }

    pub fn lets_go(&self) {
        *self.kernel.stubborn.lock().unwrap() = None;
    }

    pub fn refuses(&self, driver: &str) {
        self.kernel.refusing.lock().unwrap().insert(driver.to_owned());
    }

    /// Loads a driver of the host's for a device: it takes the device when the kernel next looks for one.
    pub fn has_driver_for(&self, address: PciAddress, driver: &str) {
        self.kernel.add_driver(driver);
        self.kernel.natural.lock().unwrap().insert(address, driver.to_owned());
    }

    pub fn does_not_reset(&self) {
        *self.kernel.reset_fails.lock().unwrap() = true;
    }

    pub fn has_no_modules(&self) {
        self.kernel.modules.lock().unwrap().clear();
    }
}

impl FakeKernel {
    fn add_driver(&self, name: &str) {
        let driver = self.root.join("bus/pci/drivers").join(name);
        fs::create_dir_all(&driver).unwrap();
        fs::write(driver.join("bind"), "").unwrap();
        fs::write(driver.join("unbind"), "").unwrap();
    }

    fn driver(&self, address: PciAddress) -> Option<String> {
        let link = self.root.join("bus/pci/devices").join(address.to_string()).join("driver");
        Some(fs::read_link(link).ok()?.file_name()?.to_str()?.to_owned())
    }
}

impl Kernel for FakeKernel {
    fn write(&self, attribute: &Path, text: &str) -> io::Result<()> {
        let name = attribute.file_name().unwrap().to_str().unwrap();
        self.writes.lock().unwrap().push(format!("{name}={}", text.trim()));
        let bus = self.root.join("bus/pci");
        match name {
            "unbind" => {
                let address: PciAddress = text.parse().unwrap();
                while self.driver(address) == *self.stubborn.lock().unwrap() {
                    thread::sleep(Duration::from_millis(1));
                }
                fs::remove_file(bus.join("devices").join(text).join("driver"))
            }
            "bind" => {
                let driver = attribute.parent().unwrap();
                let driver_name = driver.file_name().unwrap().to_str().unwrap();
                if self.refusing.lock().unwrap().contains(driver_name) {
                    return Err(io::Error::from_raw_os_error(19));
                }
                let device = bus.join("devices").join(text);
                let wanted = fs::read_to_string(device.join("driver_override"))?;
                // The kernel binds vfio-pci only to what names it.
                if driver_name == "vfio-pci" && wanted.trim() != "vfio-pci" {
                    return Err(io::Error::from_raw_os_error(19));
                }
                symlink(driver, device.join("driver"))
            }
            "drivers_probe" => {
                let device = bus.join("devices").join(text);
                let wanted = fs::read_to_string(device.join("driver_override"))?;
                let natural = self.natural.lock().unwrap();
                let driver = match wanted.trim() {
                    "(null)" => natural.get(&text.parse().unwrap()).cloned(),
                    wanted => Some(wanted.to_owned()),
                };
                let driver = driver.map(|driver| bus.join("drivers").join(driver));
                match driver.filter(|driver| driver.exists() && !device.join("driver").exists()) {
                    Some(driver) => symlink(driver, device.join("driver")),
                    // No driver takes it, which is no error.
                    None => Ok(()),
                }
            }
            "driver_override" => {
                let set = if text.trim().is_empty() { "(null)\n" } else { text };
                fs::write(attribute, set)
            }
            "reset" if *self.reset_fails.lock().unwrap() => Err(io::Error::from_raw_os_error(25)),
            "reset" => Ok(()),
            other => panic!("nothing writes {other}"),
        }
    }

    fn load_module(&self, name: &str) -> io::Result<()> {
        if !self.modules.lock().unwrap().contains(name) {
            return Err(io::Error::other(format!("modprobe: FATAL: Module {name} not found")));
        }
        self.add_driver(name);
        Ok(())
    }
}
