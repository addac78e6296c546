//! Decisions: what the index finds is what reading the rules from the top finds.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

mod support;

use policy::Policy;
use policy::decide::{Decision, Obligation, Paste};
use policy::language::MediaType;
use policy::request::{
    ClipboardRequest, Context, HidUse, Request, UsbDescription, UsbDevice, UsbFunction, UsbRequest,
};
use proptest::prelude::*;
use support::{
    answer, clipboard_requests, devices, draft, naive, naive_tie, policy_text, usb_request, ways,
};

const DESIGN: &str = include_str!("../tools/tests/corpus/warn/design.toml");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_request_is_decided_as_by_reading_the_rules_from_the_top(text in policy_text()) {
        let policy = draft(&text);
        for request in clipboard_requests() {
            let request = Request::Clipboard(request);
            let context = Context::default();
            prop_assert_eq!(answer(&policy, &request, &context), naive(&policy, &request, &context), "{:?}", request);
        }
        for device in devices() {
            for (to, context) in ways() {
                let request = Request::Usb(usb_request(device, to));
                prop_assert_eq!(answer(&policy, &request, &context), naive(&policy, &request, &context), "{:?}", request);
            }
            let tie = policy.pinned_to(&device).map(|(_, rule)| rule.id.to_string());
            prop_assert_eq!(tie, naive_tie(&policy, &device));
        }
    }

    #[test]
    fn devices_of_several_functions_are_decided_as_by_reading_the_rules_from_the_top(
        text in policy_text(),
        classes in prop::collection::vec((prop::sample::select(vec![3u8, 8, 9, 11, 14]), 0u8..3), 0..4),
        vendor in 1u16..4,
    ) {
        let policy = draft(&text);
        let functions: Vec<UsbFunction> = classes
            .into_iter()
            .map(|(class, protocol)| UsbFunction { hid: HidUse::Other, ..UsbFunction::new(class, 0, protocol) })
            .collect();
        let device = UsbDevice { vendor, product: 1, serial: Some("A"), port: None, functions: &functions };
        for (to, context) in ways() {
            let request = Request::Usb(usb_request(device, to));
            prop_assert_eq!(answer(&policy, &request, &context), naive(&policy, &request, &context));
        }
    }
}

fn design() -> Policy {
    draft(DESIGN)
}

fn paste<'a>(from: &'a str, to: &'a str, bytes: u64) -> Request<'a> {
    Request::Clipboard(ClipboardRequest { from, to, media_type: MediaType::TextPlain, bytes })
}

fn plug(policy: &Policy, device: &str) -> (Decision, String) {
    let device: UsbDescription = device.parse().unwrap();
    let request = Request::Usb(UsbRequest { device: device.device(), to: None });
    let verdict = policy.decide(&request, &Context::default());
    (verdict.decision(), verdict.reason().to_string())
}

#[test]
fn what_no_rule_allows_is_denied() {
    let policy = design();
    let verdict = policy.decide(&paste("clinical", "internet", 1), &Context::default());
    assert_eq!(verdict.decision(), Decision::Deny);
    assert!(verdict.rule().is_none());
    assert!(!verdict.permits());
    let said = verdict.reason().to_string();
    assert!(!said.contains("of this size"), "none would do: {said}");
}

#[test]
fn an_allowed_paste_names_its_rule_and_line_and_owes_an_inspection() {
    let policy = design();
    let verdict = policy.decide(&paste("internet", "clinical", 4096), &Context::default());
    assert_eq!(verdict.decision(), Decision::Allow);
    let rule = verdict.rule().unwrap();
    assert_eq!((rule.id.as_str(), rule.line), ("reference-text-in", 35));
    assert!(
        matches!(verdict.obligations().next(), Some(Obligation::Inspect(detectors)) if detectors.len() == 2)
    );
    assert!(!verdict.permits(), "nothing may cross before it was looked into");

    let inspected = |text: &'static [u8]| {
        let (from, to, media_type) = ("internet", "clinical", MediaType::TextPlain);
        policy
            .decide_paste(&Paste { from, to, media_type, content: Some(text), size: None })
            .verdict
    };
    assert!(inspected(b"paracetamol 500 mg").permits());
    let hit = inspected("환자 900101-1234567".as_bytes());
    assert_eq!(hit.decision(), Decision::Deny);
    assert_eq!(hit.rule().unwrap().id.as_str(), "reference-text-in");
    assert_eq!(
        hit.reason().to_string(),
        "it contains what looks like a resident registration number"
    );
    assert_eq!(
        inspected(b"\xff\xfe").decision(),
        Decision::Deny,
        "what is no text cannot be looked into"
    );
}

#[test]
fn one_byte_more_than_the_rule_allows_is_denied() {
    let policy = design();
    let verdict = policy.decide(&paste("internet", "clinical", 4097), &Context::default());
    assert_eq!(verdict.decision(), Decision::Deny);
    assert!(verdict.reason().to_string().contains("of this size"));
}

#[test]
fn a_stick_that_is_also_a_keyboard_is_denied_and_a_plain_one_is_read_only() {
    let policy = design();
    let stick = "vendor=0781,product=5567,interfaces=08/06/50";
    assert_eq!(plug(&policy, stick).0, Decision::ReadOnly);
    let (decision, reason) = plug(&policy, &format!("{stick}+03/01/01"));
    assert_eq!(decision, Decision::Deny);
    assert!(reason.contains("keyboards and mice never"), "{reason}");
    assert_eq!(
        plug(&policy, "vendor=0781,product=5567,interfaces=08/06/50+09/00/00").0,
        Decision::Deny
    );
}

#[test]
fn of_a_keyboard_with_a_card_reader_the_reader_goes_by_rule_and_the_keyboard_stays() {
    let policy = design();
    let rest = |interfaces: &str| {
        let text = format!("vendor=08e6,product=3437,interfaces={interfaces}");
        assert_eq!(plug(&policy, &text).0, Decision::Deny, "{interfaces}: as a whole");
        let device: UsbDescription = text.parse().unwrap();
        let request = UsbRequest { device: device.device(), to: None };
        let rest = policy.decide_rest(&request, &Context::default()).unwrap();
        let given: Vec<String> = rest.functions.iter().map(ToString::to_string).collect();
        (rest.verdict.decision(), given.join("+"), rest.to_string())
    };
    // Alone; with media keys, that are part of the keyboard; with a security key that no rule names, and one that nobody looked into;
    // with storage.
    for beside in [
        "03/01/01",
        "03/01/01+03/00/00:keyboard-or-mouse",
        "03/01/01+03/00/00:no-keyboard",
        "03/01/01+03/00/00",
        "03/01/02+08/06/50",
    ] {
        let (decision, given, words) = rest(&format!("{beside}+0b/00/00"));
        assert_eq!((decision, &*given), (Decision::Allow, "0b/00/00"), "{beside}");
        let expected = "its keyboard or mouse stays with the PC, the rest goes to CLINICAL: ";
        assert!(words.starts_with(expected), "{words}");
    }
    for (interfaces, why) in [
        ("03/01/01+08/06/50", "storage with a keyboard or mouse in it never enters a domain"),
        ("03/01/01+02/02/01", "no rule gives"),
        ("03/01/01+03/00/00", "no rule gives"),
        ("03/01/01+0b/00/00+09/00/00", "hubs never enter a domain"),
    ] {
        let (decision, given, words) = rest(interfaces);
        assert_eq!((decision, &*given), (Decision::Deny, ""), "{interfaces}");
        let expected = "its keyboard or mouse stays with the PC, the rest is not used: ";
        assert!(words.starts_with(expected) && words.contains(why), "{words}");
    }
    // Without a keyboard in it, or with nothing else, there is no rest.
    for interfaces in ["03/00/00:no-keyboard+0b/00/00", "03/01/01+03/00/00:keyboard-or-mouse"] {
        let text = format!("vendor=08e6,product=3437,interfaces={interfaces}");
        let device: UsbDescription = text.parse().unwrap();
        let request = UsbRequest { device: device.device(), to: None };
        assert!(policy.decide_rest(&request, &Context::default()).is_none(), "{interfaces}");
    }
}

#[test]
fn a_device_is_admitted_only_if_every_function_is() {
    let policy = design();
    assert_eq!(plug(&policy, "vendor=08e6,product=3437,interfaces=0b/00/00").0, Decision::Allow);
    assert_eq!(
        plug(&policy, "vendor=08e6,product=3437,interfaces=0b/00/00+08/06/50").0,
        Decision::ReadOnly
    );
    assert_eq!(
        plug(&policy, "vendor=08e6,product=3437,interfaces=0b/00/00+02/02/01").0,
        Decision::Deny
    );
    assert_eq!(plug(&policy, "vendor=08e7,product=3437,interfaces=0b/00/00").0, Decision::Deny);
}

#[test]
fn a_hid_function_that_nobody_looked_into_owes_the_proof_that_it_is_no_keyboard() {
    let text = DESIGN
        .replace("class = \"mass-storage\"", "class = \"hid\"")
        .replace("\"read-only\"", "\"allow\"");
    let policy = draft(&text);
    let pedal = |hid| [UsbFunction { hid, ..UsbFunction::new(3, 0, 0) }];
    let decide = |hid| {
        let functions = pedal(hid);
        let device =
            UsbDevice { vendor: 1, product: 1, serial: None, port: None, functions: &functions };
        let verdict =
            policy.decide(&Request::Usb(UsbRequest { device, to: None }), &Context::default());
        (verdict.decision(), verdict.permits())
    };
    assert_eq!(decide(HidUse::Unknown), (Decision::Allow, false));
    assert_eq!(decide(HidUse::Other), (Decision::Allow, true));
    assert_eq!(decide(HidUse::KeyboardOrMouse), (Decision::Deny, false));
}

#[test]
fn a_break_glass_rule_counts_only_while_break_glass_is_open() {
    let rule = "[[usb]]\nid = \"patient-media-writable\"\nmatch = { class = \"mass-storage\" }\nto = \"clinical\"\n\
                action = \"allow\"\nbreak_glass = true\n\n[[usb]]\nid = \"patient-media\"";
    let policy = draft(&DESIGN.replace("[[usb]]\nid = \"patient-media\"", rule));
    let stick: UsbDescription = "vendor=0781,product=5567,interfaces=08/06/50".parse().unwrap();
    let decide = |break_glass| {
        let request = Request::Usb(UsbRequest { device: stick.device(), to: Some("clinical") });
        policy.decide(&request, &Context { break_glass }).decision()
    };
    assert_eq!(decide(false), Decision::ReadOnly);
    assert_eq!(decide(true), Decision::Allow);
}

#[test]
fn a_scanner_is_tied_to_its_domain_and_another_one_is_not() {
    let policy = design();
    let scanner =
        |product| UsbDevice { vendor: 0x05e0, product, serial: None, port: None, functions: &[] };
    let (domain, rule) = policy.pinned_to(&scanner(0x1200)).unwrap();
    assert_eq!((domain.name.as_str(), rule.id.as_str()), ("clinical", "wristband-scanner"));
    assert!(policy.pinned_to(&scanner(0x1201)).is_none());
}
