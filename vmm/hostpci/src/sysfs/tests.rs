use super::*;
use crate::testing::Tree;

const ETHERNET: u32 = 0x02_0000;

#[test]
fn what_sysfs_says_of_a_nic_is_read_whole() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("e1000e"), Some(7));
    let device = tree.path("bus/pci/devices/0000:00:05.0");
    fs::create_dir_all(device.join("net/enp0s5")).unwrap();
    fs::write(device.join("net/enp0s5/address"), "52:54:00:AB:cd:ef\n").unwrap();
    fs::write(device.join("driver_override"), "(null)\n").unwrap();
    fs::write(device.join("reset_method"), "flr bus\n").unwrap();
    fs::create_dir_all(tree.path("bus/pci/slots/2")).unwrap();
    fs::write(tree.path("bus/pci/slots/2/address"), "0000:00:05\n").unwrap();
    fs::create_dir_all(tree.path("bus/pci/slots/3")).unwrap();
    fs::write(tree.path("bus/pci/slots/3/address"), "0000:00:06\n").unwrap();
    let function = tree.inspect("00:05.0");
    assert_eq!((function.vendor, function.device, function.class.0), (0x8086, 0x10d3, ETHERNET));
    assert_eq!(function.driver.as_deref(), Some("e1000e"));
    assert_eq!(function.driver_override, None);
    assert_eq!(function.reset.as_deref(), Some("flr bus"));
    assert_eq!(function.group, Some(Group { number: 7, others: Vec::new() }));
    assert_eq!(function.interface_names(), ["enp0s5"]);
    assert_eq!(function.interfaces[0].mac.as_deref(), Some("52:54:00:ab:cd:ef"));
    assert_eq!(function.places, ["2"]);
    assert!(function.iommu && !function.unsafe_interrupts && !function.onboard);
    fs::write(device.join("label"), "Onboard LAN\n").unwrap();
    let function = tree.inspect("00:05.0");
    assert_eq!(function.places, ["2", "Onboard LAN"]);
    assert!(function.onboard);
}

#[test]
fn an_absent_function_is_reported_with_the_network_controllers_there_are() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, None);
    tree.function("0000:00:1f.2", 0x01_0601, None, None);
    let error = tree.try_inspect("0000:00:06.0").unwrap_err().to_string();
    let says = "there is no PCI function 0000:00:06.0 in this PC; its network controllers are 0000:00:05.0: correct";
    assert!(error.starts_with(says) && error.contains("lspci -D"), "{error}");
}

#[test]
fn nonsense_in_sysfs_is_an_error_that_names_the_file() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, Some(3));
    fs::write(tree.path("bus/pci/devices/0000:00:05.0/class"), "ethernet").unwrap();
    let text = tree.try_inspect("0000:00:05.0").unwrap_err().to_string();
    assert!(text.contains("0000:00:05.0/class holds something unexpected, `ethernet`"), "{text}");
}

#[test]
fn a_group_too_large_to_be_looked_at_whole_is_no_group_without_others() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, None, Some(3));
    for member in 0..=MEMBERS_MAX {
        fs::create_dir_all(tree.path(&format!("kernel/iommu_groups/3/devices/platform.{member}")))
            .unwrap();
    }
    assert!(tree.try_inspect("0000:00:05.0").is_err());
}
