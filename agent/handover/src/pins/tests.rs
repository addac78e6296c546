use super::*;
use crate::fake::FakePc;

fn pins(id: Option<&str>, mac: Option<&str>, slot: Option<&str>) -> Pins {
    let own = |text: Option<&str>| text.map(str::to_owned);
    Pins { id: own(id), mac: own(mac), slot: own(slot) }
}

#[test]
fn what_is_written_for_a_function_fits_it_and_says_all_that_is_known() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 7);
    pc.add_interface(nic, "enp3s0", "52:54:00:AB:00:01");
    let slot = pc.sysfs().path("bus/pci/slots/2");
    std::fs::create_dir_all(&slot).unwrap();
    std::fs::write(slot.join("address"), "0000:03:00\n").unwrap();
    let function = pc.sysfs().inspect(nic).unwrap();
    assert_eq!(
        pinned(&function),
        r#"{ address = "0000:03:00.0", id = "8086:10d3", mac = "52:54:00:ab:00:01", slot = "2" }"#
    );
    let all = pins(Some("8086:10d3"), Some("52:54:00:ab:00:01"), Some("2"));
    assert_eq!(check(&all, &pc.sysfs(), &function, None), Ok(()));
    assert_eq!(check(&Pins::default(), &pc.sysfs(), &function, None), Ok(()));
}

#[test]
fn each_difference_is_said_in_words_with_what_is_and_what_should_be() {
    let pc = FakePc::new();
    let nic = pc.add_nic("0000:03:00.0", 7);
    pc.add_interface(nic, "enp3s0", "52:54:00:ab:00:01");
    let function = pc.sysfs().inspect(nic).unwrap();
    for (pins, words) in [
        (pins(Some("14e4:1687"), None, None), ["8086:10d3", "14e4:1687"]),
        (pins(None, Some("52:54:00:ab:00:02"), None), ["52:54:00:ab:00:01", "52:54:00:ab:00:02"]),
        (pins(None, None, Some("3")), ["no slot that has a name", "slot `3`"]),
    ] {
        let error = check(&pins, &pc.sysfs(), &function, None).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(error.contains("was probably added, moved or exchanged"), "{error}");
    }
}

#[test]
fn a_mac_address_that_nobody_can_see_is_no_match() {
    let pc = FakePc::new();
    let nic = pc.add("0000:03:00.0", 0x02_0000, Some("vfio-pci"), Some(7));
    let function = pc.sysfs().inspect(nic).unwrap();
    let mac = pins(None, Some("52:54:00:ab:00:01"), None);
    let error = check(&mac, &pc.sysfs(), &function, None).unwrap_err().to_string();
    assert!(error.contains("cannot be compared"), "{error}");
    assert_eq!(check(&mac, &pc.sysfs(), &function, Some("52:54:00:ab:00:01")), Ok(()));
}
