use std::collections::BTreeMap;
use std::fs;

use super::*;
use crate::class::Class;
use crate::testing::Tree;

const ETHERNET: u32 = 0x02_0000;
const PCI_BRIDGE: u32 = 0x06_0400;

/// kata-containers issue 6663.
const WITH_HOST_BRIDGE: &str = "
44 0000:40:03.0 060000 -
44 0000:40:03.1 060400 pcieport
44 0000:41:00.0 030200 vfio-pci";
const LENOVO_DASH: &str = "
11 0000:02:00.0 020000 r8169
11 0000:02:00.1 070002 serial
11 0000:02:00.2 070002 serial
11 0000:02:00.3 0c0701 -
11 0000:02:00.4 0c0320 ehci-pci";
const DELL_I219: &str = "
17 0000:00:1f.0 060100 -
17 0000:00:1f.4 0c0500 i801_smbus
17 0000:00:1f.5 0c8000 intel-spi
17 0000:00:1f.6 020000 e1000e";
const AM4_CHIPSET: &str = "
19 0000:06:08.0 060400 pcieport
19 0000:0b:00.0 028000 iwlwifi
19 0000:0c:00.0 020000 igc
19 0000:0f:00.0 010802 nvme
19 0000:10:00.0 0c0330 xhci_hcd
19 0000:11:00.0 010601 ahci";

#[test]
fn a_nic_alone_in_its_group_may_be_handed_over() {
    let tree = Tree::with_group("7 0000:00:05.0 020000 e1000e");
    assert_eq!(tree.inspect("0000:00:05.0").isolated(), Ok(7));
    assert_eq!(tree.inspect("0000:00:05.0").isolated_with(), Ok((7, Vec::new())));
}

#[test]
fn a_host_bridge_without_a_driver_and_a_port_do_not_keep_their_group_from_being_handed_over() {
    let tree = Tree::with_group(WITH_HOST_BRIDGE);
    let function = tree.inspect("0000:41:00.0");
    assert_eq!(function.isolated(), Ok(44));
    assert_eq!(function.isolated_with(), Ok((44, Vec::new())));
}

#[test]
fn bridges_on_the_way_to_a_function_may_be_in_its_group() {
    let tree = Tree::with_group("3 0000:00:1c.0 060400 pcieport\n3 0000:03:00.0 020000 vfio-pci");
    assert_eq!(tree.inspect("0000:03:00.0").isolated(), Ok(3));
}

#[test]
fn another_function_that_vfio_pci_or_no_driver_has_shares_the_group_and_does_no_harm() {
    for other in ["vfio-pci", "pci-stub", "mlx5_vfio_pci", "-"] {
        let group = format!("12 0000:03:00.0 020000 vfio-pci\n12 0000:03:00.1 020000 {other}");
        assert_eq!(Tree::with_group(&group).inspect("0000:03:00.0").isolated(), Ok(12), "{other}");
    }
}

#[test]
fn a_bridge_that_a_driver_of_the_host_uses_for_dma_keeps_its_group() {
    let tree = Tree::with_group("3 0000:00:1f.0 060100 lpc_ich\n3 0000:00:1f.6 020000 e1000e");
    let error = tree.inspect("0000:00:1f.6").isolated_with().unwrap_err().to_string();
    assert!(error.contains("0000:00:1f.0 (ISA bridge, 8086:10d3, driver lpc_ich)"), "{error}");
}

#[test]
fn a_shared_group_is_refused_and_names_each_device_in_use_with_its_driver() {
    let tree = Tree::with_group(
        "12 0000:03:00.0 020000 vfio-pci\n12 0000:03:00.1 010601 ahci\n12 0000:04:00.0 010802 -",
    );
    let text = tree.inspect("0000:03:00.0").isolated().unwrap_err().to_string();
    assert!(text.contains("0000:03:00.1 (disk controller, 8086:10d3, driver ahci)"), "{text}");
    assert!(!text.contains("0000:04:00.0"), "{text}");
    assert!(text.contains("another slot") && text.contains("ACS"), "{text}");
    assert!(!text.contains("allow_unsafe"), "{text}");
}

#[test]
fn a_nic_of_the_board_is_not_told_to_move_to_another_slot() {
    let error = Tree::with_group(DELL_I219).inspect("0000:00:1f.6").isolated_with().unwrap_err();
    let GroupRefusal::SharedGroup { others, onboard: true, .. } = &error else { panic!("{error}") };
    let names: Vec<_> = others.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["0000:00:1f.4", "0000:00:1f.5"]);
    let remedy = error.remedy();
    for words in ["cannot be moved", "USB network adapter", "firmware", "VLAN is not available"] {
        assert!(remedy.contains(words), "{remedy}");
    }
    // Behind the chipset it could be either, and is told both.
    let error = Tree::with_group(AM4_CHIPSET).inspect("0000:0c:00.0").isolated_with().unwrap_err();
    assert!(error.remedy().contains("another slot") && error.remedy().contains("soldered"));
    assert!(error.to_string().contains("0000:0f:00.0 (disk controller"), "{error}");
}

#[test]
fn the_further_functions_of_a_nic_go_with_it_and_nothing_else_of_the_pc_does() {
    let tree = Tree::with_group(LENOVO_DASH);
    let function = tree.inspect("0000:02:00.0");
    assert!(function.isolated().is_err(), "as it is now host drivers have them");
    let (group, with) = function.isolated_with().unwrap();
    let names: Vec<_> = with.iter().map(|member| member.name.as_str()).collect();
    let all = ["0000:02:00.1", "0000:02:00.2", "0000:02:00.3", "0000:02:00.4"];
    assert_eq!((group, names), (11, all.to_vec()));
    // The same controller in another device is one that a keyboard may be plugged into.
    let apart = LENOVO_DASH.replace("0000:02:00.4", "0000:03:00.4");
    assert!(Tree::with_group(&apart).inspect("0000:02:00.0").isolated_with().is_err());
}

#[test]
fn a_platform_device_with_a_driver_keeps_the_group_and_one_without_does_not() {
    let tree = Tree::with_group("3 0000:00:05.0 020000 e1000e");
    let device = tree.path("kernel/iommu_groups/3/devices/MSFT8000:00");
    fs::create_dir_all(&device).unwrap();
    assert_eq!(tree.inspect("0000:00:05.0").isolated(), Ok(3));
    std::os::unix::fs::symlink(tree.path("bus/platform/drivers/some"), device.join("driver"))
        .unwrap();
    let text = tree.inspect("0000:00:05.0").isolated_with().unwrap_err().to_string();
    assert!(text.contains("MSFT8000:00 (driver some)"), "{text}");
}

#[test]
fn what_the_pc_itself_is_made_of_is_refused_whatever_has_it() {
    for (class, word) in [
        (0x06_0000, "host bridge"),
        (0x06_0100, "ISA bridge"),
        (PCI_BRIDGE, "PCI bridge"),
        (0x06_8000, "bridge"),
        (0x08_0600, "IOMMU"),
        (0x08_0020, "interrupt controller"),
        (0x0c_0500, "SMBus"),
        (0x0c_8000, "firmware's flash"),
        (0x05_0000, "memory"),
        (0x0b_4000, "processor"),
    ] {
        let tree = Tree::new();
        tree.function("0000:00:1c.0", class, Some("vfio-pci"), Some(3));
        let error = tree.inspect("0000:00:1c.0").isolated().unwrap_err();
        assert!(matches!(error, GroupRefusal::PartOfThePc { .. }), "{class:06x}");
        assert!(error.to_string().contains(word), "{error}");
    }
    for class in [ETHERNET, 0x02_8000, 0x01_0802, 0x03_0000, 0x0c_0330, 0x08_0501, 0x04_0300] {
        assert_eq!(Class(class).part_of_the_pc(), None, "{class:06x}");
    }
}

#[test]
fn without_any_iommu_the_remedy_is_the_firmware_and_the_kernel_command_line() {
    let tree = Tree::new();
    fs::remove_dir_all(tree.path("class/iommu")).unwrap();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), None);
    let text = tree.inspect("0000:00:05.0").isolated().unwrap_err().to_string();
    assert!(text.contains("VT-d") && text.contains("intel_iommu=on"), "{text}");
}

#[test]
fn a_function_the_iommu_leaves_out_is_refused() {
    let tree = Tree::new();
    tree.function("0000:00:05.0", ETHERNET, Some("vfio-pci"), None);
    let error = tree.inspect("0000:00:05.0").isolated().unwrap_err();
    assert!(matches!(error, GroupRefusal::NoGroup { .. }), "{error}");
}

#[test]
fn a_pc_told_to_allow_unsafe_interrupts_is_refused() {
    let tree = Tree::with_group("3 0000:00:05.0 020000 vfio-pci");
    let parameters = tree.path("module/vfio_iommu_type1/parameters");
    fs::create_dir_all(&parameters).unwrap();
    fs::write(parameters.join("allow_unsafe_interrupts"), "N\n").unwrap();
    assert_eq!(tree.inspect("0000:00:05.0").isolated(), Ok(3));
    fs::write(parameters.join("allow_unsafe_interrupts"), "Y\n").unwrap();
    assert_eq!(tree.inspect("0000:00:05.0").isolated(), Err(GroupRefusal::UnsafeInterrupts));
}

/// Groups of real PCs' kernel logs, where the file with all of them is: no bridge in use, disk or
/// graphics card is ever taken along, and what is refused names what stands in the way.
#[test]
fn in_groups_of_real_pcs_nothing_the_host_needs_is_taken_along() {
    let Some(text) = crate::testing::shared_data("iommu-groups.txt") else { return };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for group in text.split("\n\n") {
        let lines: String =
            group.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
        let tree = Tree::with_group(&lines);
        let starred = lines.lines().filter(|line| line.ends_with('*'));
        for line in starred {
            let Some(name) = line.split_whitespace().nth(1) else { continue };
            let function = tree.inspect(name);
            if !function.class.is_network() {
                continue;
            }
            *counts
                .entry(match function.isolated_with() {
                    Ok((_, with)) => {
                        for member in &with {
                            let base = member.class.unwrap().base();
                            assert!(![0x01, 0x03, 0x05, 0x06, 0x08].contains(&base), "{member}");
                        }
                        if with.is_empty() { "alone" } else { "with others" }
                    }
                    Err(error) => {
                        assert!(!error.remedy().is_empty());
                        "refused"
                    }
                })
                .or_default() += 1;
        }
    }
    eprintln!("network functions: {counts:?}");
    // Of the groups that docs/it/hardware.md tells of.
    if text.split("\n\n").count() == 88 {
        let found = ["alone", "with others", "refused"].map(|what| counts.get(what).copied());
        assert_eq!(found, [Some(12), Some(4), Some(3)], "docs/it/hardware.md says otherwise");
    }
    assert!(counts.values().sum::<usize>() >= 10, "{counts:?}");
}
