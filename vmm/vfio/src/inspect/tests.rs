use std::os::unix::fs::symlink;

use super::*;

/// A sysfs tree that tests fill.
struct Tree {
    folder: tempfile::TempDir,
}

impl Tree {
    fn new() -> Self {
        let tree = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(tree.path("bus/pci/devices")).unwrap();
        fs::create_dir_all(tree.path("class/iommu/dmar0")).unwrap();
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn function(&self, name: &str, class: u32, driver: Option<&str>, group: Option<u32>) {
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

    fn inspect(&self, address: &str) -> Result<Inspection, InspectError> {
        Sysfs::at(self.folder.path()).inspect(address.parse().unwrap())
    }

    fn refusal(&self, address: &str) -> Refusal {
        self.inspect(address).unwrap().ready().unwrap_err()
    }
}

const ETHERNET: u32 = 0x02_0000;
const PCI_BRIDGE: u32 = 0x06_0400;

#[test]
fn a_nic_alone_in_its_group_and_bound_to_vfio_pci_is_ready() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), Some(7));
    let inspection = tree.inspect("00:05.0").unwrap();
    assert_eq!(inspection.ready(), Ok(7));
    assert_eq!((inspection.vendor, inspection.device), (0x8086, 0x10d3));
    assert_eq!(inspection.class, ETHERNET);
    assert!(inspection.resettable);
}

#[test]
fn an_absent_function_is_reported_with_the_network_controllers_there_are() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, None);
    tree.function("0000:00:1f.2", 0x01_0601, None, None);
    let error = tree.inspect("0000:00:06.0").unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no PCI function 0000:00:06.0 in this PC; its network controllers are 0000:00:05.0"
    );
}

#[test]
fn without_any_iommu_the_remedy_is_the_firmware_and_the_kernel_command_line() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.path("class/iommu")).unwrap();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), None);
    let text = tree.refusal("0000:00:05.0").to_string();
    assert!(text.contains("VT-d") && text.contains("intel_iommu=on"), "{text}");
}

#[test]
fn a_function_the_iommu_leaves_out_is_refused() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), None);
    assert!(matches!(tree.refusal("0000:00:05.0"), Refusal::NoGroup { .. }));
}

#[test]
fn a_shared_group_is_refused_and_names_each_other_device_with_its_driver() {
    let tree = Tree::new();
    tree.function("0000:03:00.0", ETHERNET, Some("vfio-pci"), Some(12));
    tree.function("0000:03:00.1", ETHERNET, Some("e1000e"), Some(12));
    tree.function("0000:04:00.0", 0x01_0802, None, Some(12));
    let text = tree.refusal("0000:03:00.0").to_string();
    assert!(text.contains("0000:03:00.1 (driver e1000e), 0000:04:00.0 (no driver)"), "{text}");
    assert!(text.contains("another slot") && text.contains("ACS"), "{text}");
    assert!(!text.contains("allow_unsafe"), "{text}");
}

#[test]
fn another_function_bound_to_vfio_pci_shares_the_group_all_the_same() {
    let tree = Tree::new();
    tree.function("0000:03:00.0", ETHERNET, Some("vfio-pci"), Some(12));
    tree.function("0000:03:00.1", ETHERNET, Some("vfio-pci"), Some(12));
    assert!(matches!(tree.refusal("0000:03:00.0"), Refusal::SharedGroup { group: 12, .. }));
}

#[test]
fn bridges_on_the_way_to_a_function_may_be_in_its_group() {
    let tree = Tree::new();
    tree.function("0000:00:1c.0", PCI_BRIDGE, Some("pcieport"), Some(3));
    tree.function("0000:03:00.0", ETHERNET, Some("vfio-pci"), Some(3));
    assert_eq!(tree.inspect("0000:03:00.0").unwrap().ready(), Ok(3));
}

#[test]
fn a_group_member_that_cannot_be_identified_is_not_taken_for_a_bridge() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), Some(3));
    fs::create_dir_all(tree.path("kernel/iommu_groups/3/devices/MSFT8000:00")).unwrap();
    let text = tree.refusal("0000:00:05.0").to_string();
    assert!(text.contains("MSFT8000:00 (no driver)"), "{text}");
}

#[test]
fn a_bridge_itself_is_refused() {
    let tree = Tree::new();
    tree.function("0000:00:1c.0", PCI_BRIDGE, Some("vfio-pci"), Some(3));
    assert!(matches!(tree.refusal("0000:00:1c.0"), Refusal::Bridge { .. }));
}

#[test]
fn a_function_another_driver_has_is_refused_and_the_driver_named() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("e1000e"), Some(3));
    let inspection = tree.inspect("0000:00:05.0").unwrap();
    assert_eq!(inspection.isolated(), Ok(3));
    let text = inspection.ready().unwrap_err().to_string();
    assert!(text.contains("driver e1000e, not vfio-pci"), "{text}");
}

#[test]
fn a_function_without_a_driver_is_refused() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, Some(3));
    let text = tree.refusal("0000:00:05.0").to_string();
    assert!(text.contains("has no driver, not vfio-pci"), "{text}");
}

#[test]
fn a_pc_told_to_allow_unsafe_interrupts_is_refused() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), Some(3));
    let parameters = tree.path("module/vfio_iommu_type1/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("allow_unsafe_interrupts"), "N\n").unwrap();
    assert_eq!(tree.inspect("0000:00:05.0").unwrap().ready(), Ok(3));
    fs::write(parameters.join("allow_unsafe_interrupts"), "Y\n").unwrap();
    assert_eq!(tree.refusal("0000:00:05.0"), Refusal::UnsafeInterrupts);
}

#[test]
fn nonsense_in_sysfs_is_an_error_that_names_the_file() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, Some(3));
    fs::write(tree.path("bus/pci/devices/0000:00:05.0/class"), "ethernet").unwrap();
    let text = tree.inspect("0000:00:05.0").unwrap_err().to_string();
    assert!(text.contains("0000:00:05.0/class holds something unexpected, `ethernet`"), "{text}");
}
