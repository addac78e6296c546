//! Which device it is, and where it is plugged in.

use super::*;

fn device() -> Description {
    Description {
        name: "scanner".into(),
        vendor: 0x05e0,
        product: 0x1200,
        serial: None,
        port: Some("1-4.2".to_owned()),
        abilities: InputRoles { keyboard: true, pointer: false },
    }
}

#[test]
fn a_usb_socket_is_read_off_a_devices_place() {
    let place = "/sys/devices/pci0000:00/0000:00:04.0/usb1/1-4/1-4.2/1-4.2:1.0/0003:05E0:1200.0001/input/input7/event7";
    assert_eq!(port_in(Path::new(place)).as_deref(), Some("1-4.2"));
    assert_eq!(port_in(Path::new("/sys/devices/platform/i8042/serio0/input/input0")), None);
}

#[test]
fn a_policy_ties_a_scanner_by_vendor_and_product() {
    let text = format!(
        "{}\n[[input]]\nid = \"scanner\"\nmatch = {{ vendor = 0x05e0, product = 0x1200 }}\nto = \"clinical\"\n",
        include_str!("../../../../../policy/tests/fixtures/two-domains.toml")
    );
    let policy = Policy::parse("policy.toml", &text).unwrap();
    assert_eq!(device().pinned_to(&policy), Some("clinical"));
    let other = Description { product: 1, ..device() };
    assert_eq!(other.pinned_to(&policy), None);
}
