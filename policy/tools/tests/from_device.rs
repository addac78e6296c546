//! The rule for a device that is plugged in: whatever it is, the rule reads, and admits it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::decide::Decision;
use policy::request::{Context, Request, UsbDescription, UsbRequest};
use policy_tools::from_device::{NoRule, rule_for};
use policy_tools::{STARTER, check};
use proptest::prelude::*;
use support::draft;

fn verdict(rule: &str, device: &UsbDescription) -> (Decision, Option<String>) {
    let policy = draft(&format!("{STARTER}\n{rule}"));
    let request = Request::Usb(UsbRequest { device: device.device(), to: None });
    let verdict = policy.decide(&request, &Context::default());
    (verdict.decision(), verdict.to().map(|domain| domain.name.to_string()))
}

#[test]
fn a_stick_is_given_without_writing_and_a_card_reader_as_it_is() {
    let stick: UsbDescription =
        "vendor=0781,product=5567,serial=4C53,port=1-4,interfaces=08/06/50".parse().unwrap();
    let rule = rule_for(&stick, "SanDisk Cruzer Blade", "clinical").unwrap();
    assert_eq!(
        rule,
        "# SanDisk Cruzer Blade: 08/06/50\n[[usb]]\nid = \"sandisk-cruzer-blade\"\n\
         match = { class = \"mass-storage\", vendor = 0x0781, product = 0x5567, serial = \"4C53\" }\n\
         to = \"clinical\"\naction = \"read-only\"    # read-only | allow | deny\n"
    );
    assert_eq!(verdict(&rule, &stick), (Decision::ReadOnly, Some("clinical".to_owned())));

    let reader: UsbDescription =
        "vendor=08e6,product=3437,port=1-4,interfaces=0b/00/00".parse().unwrap();
    let rule = rule_for(&reader, "", "clinical").unwrap();
    assert!(
        rule.contains("id = \"device-08e6-3437\"") && rule.contains("`port = \"1-4\"`"),
        "{rule}"
    );
    assert_eq!(verdict(&rule, &reader), (Decision::Allow, Some("clinical".to_owned())));
}

#[test]
fn storage_with_something_besides_is_given_without_writing_too() {
    for (interfaces, others) in [
        ("08/06/50+ff/00/00", &["vendor-specific"][..]),
        ("0b/00/00+13/00/00+08/06/62+0b/01/00", &["smart-card", "bulk-display"]),
        ("fd/00/00+08/06/50", &["0xfd"]),
        ("03/01/01+08/06/50", &[]),
    ] {
        let text = format!("vendor=1209,product=0001,serial=A1,interfaces={interfaces}");
        let device: UsbDescription = text.parse().unwrap();
        let rule = rule_for(&device, "Modem", "clinical").unwrap();
        assert_eq!(rule.matches("action = \"allow\"").count(), others.len(), "{rule}");
        assert_eq!(rule.matches("action = \"read-only\"").count(), 1, "{rule}");
        assert!(others.iter().all(|class| rule.contains(class)), "{rule}");
        // A keyboard in it is the seat's: what is asked about is the rest.
        let rest = device.functions.iter().filter(|function| !function.is_the_seats()).copied();
        let rest = UsbDescription { functions: rest.collect(), ..device.clone() };
        let given = (Decision::ReadOnly, Some("clinical".to_owned()));
        assert_eq!(verdict(&rule, &rest), given, "{rule}");
        let storage = rest.functions.iter().filter(|function| function.class.0 == 0x08).copied();
        let storage = UsbDescription { functions: storage.collect(), ..rest };
        assert_eq!(verdict(&rule, &storage), given, "{rule}");
    }
}

#[test]
fn the_rule_for_a_device_as_it_is_reported_is_about_that_device() {
    for serial in ["A,B", "A,port=9-9,interfaces=0b/00/00", "50%,%2c%25", ",", "A=B,"] {
        let device = UsbDescription {
            vendor: 0x08e6,
            product: 0x3437,
            serial: Some(serial.to_owned()),
            port: Some("1-4".to_owned()),
            functions: policy::request::UsbFunction::list("0b/00/00").unwrap(),
        };
        let reported: UsbDescription = device.to_string().parse().unwrap();
        let rule = rule_for(&reported, "Reader", "clinical").unwrap();
        let given = (Decision::Allow, Some("clinical".to_owned()));
        assert_eq!(verdict(&rule, &device), given, "{rule}");
    }
}

#[test]
fn a_scanner_that_types_is_tied_and_a_hub_gets_no_rule() {
    let scanner: UsbDescription = "vendor=05e0,product=1200,interfaces=03/01/01".parse().unwrap();
    let rule = rule_for(&scanner, "Symbol Scanner", "clinical").unwrap();
    let policy = draft(&format!("{STARTER}\n{rule}"));
    let (domain, _) = policy.pinned_to(&scanner.device()).unwrap();
    assert_eq!(domain.name.value.as_str(), "clinical");
    let hub: UsbDescription = "vendor=05e3,product=0608,interfaces=09/00/00".parse().unwrap();
    assert_eq!(rule_for(&hub, "Hub", "clinical"), Err(NoRule::Hub));
}

proptest! {
    #[test]
    fn whatever_a_device_says_of_itself_the_rule_is_a_piece_of_a_policy_that_decides_on_it(
        vendor: u16,
        product: u16,
        serial in proptest::option::of("\\PC{0,12}|[\\x00-\\x7f]{0,12}"),
        called in "\\PC{0,60}|[\\x00-\\x7f]{0,60}",
        classes in proptest::collection::vec(prop_oneof![Just(0x08u8), Just(0x0b), Just(0x03), Just(0x0e), any::<u8>()], 1..4),
    ) {
        let functions: Vec<String> = classes.iter().map(|class| format!("{class:02x}/06/50")).collect();
        let functions = policy::request::UsbFunction::list(&functions.join("+")).unwrap();
        let device = UsbDescription { vendor, product, serial, port: Some("1-4".to_owned()), functions };
        let Ok(rule) = rule_for(&device, &called, "clinical") else {
            prop_assert!(classes.contains(&0x09));
            return Ok(());
        };
        let report = check("policy.toml", &format!("{STARTER}\n{rule}"));
        prop_assert!(report.ok, "{}", report.render(false));
        if !classes.contains(&0x03) {
            let (decision, to) = verdict(&rule, &device);
            let storage = classes.contains(&0x08);
            prop_assert_eq!(decision == Decision::ReadOnly, storage, "{}", rule);
            prop_assert!(decision != Decision::Deny && to.as_deref() == Some("clinical"), "{}", rule);
        }
    }
}
