//! A sysfs tree that tests fill, and the data of real PCs that lie beside the project.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::{Address, Function, InspectError, Sysfs};

/// Reads a file of real PCs' data, `shared/data` beside the project. Without it a sweep is skipped, with words.
pub(crate) fn shared_data(name: &str) -> Option<String> {
    let folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let text = folders
        .map(|folder| folder.join("shared/data").join(name))
        .find_map(|file| fs::read_to_string(file).ok());
    if text.is_none() {
        eprintln!("skipped: there is no shared/data/{name} beside the project");
    }
    text
}

pub(crate) struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    pub(crate) fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.path("bus/pci/devices")).unwrap();
        fs::create_dir_all(tree.path("class/iommu/dmar0")).unwrap();
        tree
    }

    /// Reads functions as the kernel logs of the cases write groups: `group address class driver`, a dash for none.
    pub(crate) fn with_group(lines: &str) -> Self {
        let tree = Self::new();
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let [group, address, class, driver, ..] =
                line.split_whitespace().collect::<Vec<_>>()[..]
            else {
                panic!("{line}")
            };
            let driver = (driver != "-").then_some(driver);
            let class = u32::from_str_radix(class, 16).unwrap();
            tree.function(address, class, driver, Some(group.parse().unwrap()));
        }
        tree
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn function(
        &self,
        name: &str,
        class: u32,
        driver: Option<&str>,
        group: Option<u32>,
    ) {
        let device = self.path("bus/pci/devices").join(name);
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("vendor"), "0x8086\n").unwrap();
        fs::write(device.join("device"), "0x10d3\n").unwrap();
        fs::write(device.join("class"), format!("{class:#08x}\n")).unwrap();
        fs::write(device.join("reset"), "").unwrap();
        if let Some(driver) = driver {
            let folder = self.path("bus/pci/drivers").join(driver);
            fs::create_dir_all(&folder).unwrap();
            symlink(folder, device.join("driver")).unwrap();
        }
        if let Some(group) = group {
            let folder = self.path(&format!("kernel/iommu_groups/{group}"));
            fs::create_dir_all(folder.join("devices")).unwrap();
            symlink(&folder, device.join("iommu_group")).unwrap();
            symlink(&device, folder.join("devices").join(name)).unwrap();
        }
    }

    pub(crate) fn sysfs(&self) -> Sysfs {
        Sysfs::at(self.folder.path())
    }

    pub(crate) fn try_inspect(&self, address: &str) -> Result<Function, InspectError> {
        self.sysfs().inspect(address.parse::<Address>().unwrap())
    }

    pub(crate) fn inspect(&self, address: &str) -> Function {
        self.try_inspect(address).unwrap()
    }
}
