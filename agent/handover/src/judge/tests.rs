use super::*;
use crate::fake::FakePc;
use crate::host_use::Screen;
use crate::pins::Pins;

fn judge(pc: &FakePc, address: &str, role: Role, claims: &Claims) -> Result<Plan, HandoverRefusal> {
    let wanted = ClaimedFunction { address: address.parse().unwrap(), role, pins: Pins::default() };
    plan(&pc.sysfs(), &wanted, "clinical", claims, None)
}

fn refusal(pc: &FakePc, address: &str, role: Role) -> String {
    let claims = Claims { screen: Screen::First, ..Claims::default() };
    judge(pc, address, role, &claims).unwrap_err().to_string()
}

#[test]
fn each_reason_names_what_is_there_and_what_to_do() {
    let pc = FakePc::new();
    let disk = pc.add("0000:03:00.0", 0x01_0802, Some("nvme"), Some(1));
    pc.add_disk(disk, "nvme0n1", "259:0");
    pc.mounts("24 1 259:0 / / rw - ext4 /dev/nvme0n1 rw\n");
    let nic = refusal(&pc, "0000:03:00.0", Role::Nic);
    assert!(nic.contains("no network controller") && nic.contains("disk controller"), "{nic}");
    let device = refusal(&pc, "0000:03:00.0", Role::Device);
    assert!(device.contains("carries the disk mounted on /"), "{device}");
    assert!(device.contains("a card was added or moved"), "{device}");
    pc.add("0000:00:1f.0", 0x06_0100, None, Some(2));
    let bridge = refusal(&pc, "0000:00:1f.0", Role::Device);
    assert!(bridge.contains("the ISA bridge, a part of this PC"), "{bridge}");
}

#[test]
fn a_function_no_driver_could_work_with_is_refused_before_it_is_unbound() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 1);
    // An Intel 82557: memory, and a pin only.
    let mut config = [0; 256];
    config[..4].copy_from_slice(&[0x86, 0x80, 0x29, 0x12]);
    (config[0x06], config[0x34], config[0xdc], config[0x3d]) = (0x10, 0xdc, 0x01, 1);
    std::fs::write(pc.sysfs().pci_device(nic).join("config"), config).unwrap();
    let none = "0x0 0x0 0x0\n".repeat(5);
    let resource = format!("0xe4030000 0xe4030fff 0x40200\n{none}");
    std::fs::write(pc.sysfs().pci_device(nic).join("resource"), resource).unwrap();
    let error = refusal(&pc, "0000:03:00.0", Role::Nic);
    assert!(error.contains("INTx") && error.contains("0000:03:00.0"), "{error}");
}

#[test]
fn one_group_is_never_two_domains() {
    let pc = FakePc::new();
    pc.add_group("12 0000:03:00.0 020000 igb\n12 0000:03:00.1 020000 igb");
    let mut claims = Claims::default();
    let plan = judge(&pc, "0000:03:00.0", Role::Nic, &claims).unwrap();
    assert_eq!(plan.companions.len(), 1, "nobody names the second port");
    claims.domains.insert("0000:03:00.1".parse().unwrap(), "clinical".to_owned());
    let plan = judge(&pc, "0000:03:00.0", Role::Nic, &claims).unwrap();
    assert!(plan.companions.is_empty(), "the domain has it for itself");
    claims.domains.insert("0000:03:00.1".parse().unwrap(), "internet".to_owned());
    let error = judge(&pc, "0000:03:00.0", Role::Nic, &claims).unwrap_err().to_string();
    assert!(error.contains("which is internet's") && error.contains("0000:03:00.1"), "{error}");
}

#[test]
fn what_would_go_along_and_is_in_use_keeps_the_group() {
    let pc = FakePc::new();
    pc.add_group("11 0000:02:00.0 020000 r8169\n11 0000:02:00.4 0c0320 ehci-pci");
    judge(&pc, "0000:02:00.0", Role::Nic, &Claims::default()).unwrap();
    let usb = pc.sysfs().pci_device("0000:02:00.4".parse().unwrap());
    std::fs::create_dir_all(usb.join("usb3/3-0:1.0")).unwrap();
    judge(&pc, "0000:02:00.0", Role::Nic, &Claims::default()).unwrap();
    std::fs::create_dir_all(usb.join("usb3/3-1")).unwrap();
    let error = judge(&pc, "0000:02:00.0", Role::Nic, &Claims::default()).unwrap_err().to_string();
    assert!(error.contains("0000:02:00.4") && error.contains("a USB device"), "{error}");
}
