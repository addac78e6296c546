//! `explain`: what would happen to something, by which rule and why; and how a device is described to it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::Policy;
use policy::decide::Paste;
use policy::language::MediaType;
use policy::request::{
    ClipboardRequest, Context, Request, UsbDescription, UsbFunction, UsbRequest,
};
use policy_tools::{Explanation, explain, explain_paste};
use serde_json::json;
use support::draft;

const DESIGN: &str = include_str!("corpus/warn/design.toml");

fn paste(bytes: u64) -> Request<'static> {
    let (from, to, media_type) = ("internet", "clinical", MediaType::TextPlain);
    Request::Clipboard(ClipboardRequest { from, to, media_type, bytes })
}

#[test]
fn explain_gives_verdict_rule_line_and_reason() {
    let policy = draft(DESIGN);
    let explained = explain(&policy, &paste(312), &Context::default());
    assert_eq!(
        serde_json::to_value(&explained).unwrap(),
        json!({
            "verdict": "allow",
            "rule": "reference-text-in",
            "line": 35,
            "reason": "rule `reference-text-in` allows text/plain of up to 4096 bytes from INTERNET to CLINICAL",
            "to": "clinical",
            "obligations": ["inspect", "audit"],
            "inspect": ["korean-rrn", "chart-number"],
            "nearly": [],
        })
    );
    assert_eq!(
        explained.to_string(),
        "verdict   allow\n\
         rule      reference-text-in, line 35\n\
         why       rule `reference-text-in` allows text/plain of up to 4096 bytes from INTERNET to CLINICAL\n\
         to        clinical\n\
         owed      inspect, audit\n\
         inspect   korean-rrn, chart-number (a hit denies)\n"
    );
}

#[test]
fn explain_says_what_stays_and_what_goes_of_a_keyboard_with_a_card_reader() {
    let policy = draft(DESIGN);
    let explained = |vendor: &str| {
        let text = format!("vendor={vendor},product=3437,interfaces=03/01/01+0b/00/00");
        let device: UsbDescription = text.parse().unwrap();
        let request = Request::Usb(UsbRequest { device: device.device(), to: None });
        let explained = explain(&policy, &request, &Context::default());
        assert_eq!(explained.verdict.word(), "deny", "as a whole");
        explained.reason
    };
    assert_eq!(
        explained("08e6"),
        "keyboards and mice never enter a domain, nor does a device with one in it as a whole; \
         its keyboard or mouse stays with the PC, the rest goes to CLINICAL: \
         rule `staff-card-reader` gives smart-card devices like this to CLINICAL"
    );
    let reason = explained("046a");
    assert!(reason.contains("stays with the PC, the rest is not used: no rule gives"), "{reason}");
}

#[test]
fn explain_of_a_denial_without_a_rule_names_the_rules_that_nearly_match() {
    let policy = draft(DESIGN);
    let explained =
        serde_json::to_value(explain(&policy, &paste(5000), &Context::default())).unwrap();
    assert_eq!(explained["verdict"], json!("deny"));
    assert_eq!((&explained["rule"], &explained["line"]), (&json!(null), &json!(null)));
    assert_eq!(
        explained["nearly"],
        json!([{ "rule": "reference-text-in", "line": 35, "but": "only up to 4096 bytes" }])
    );

    let reader: UsbDescription = "vendor=08e7,product=3437,interfaces=0b/00/00".parse().unwrap();
    let request = Request::Usb(UsbRequest { device: reader.device(), to: None });
    let explained = explain(&policy, &request, &Context::default());
    assert_eq!(explained.nearly.len(), 1);
    assert_eq!(explained.nearly[0].but, "only vendor 0x08e6");
}

#[test]
fn explain_of_a_stick_without_a_serial_number_names_the_port_by_which_it_can_be_told_apart() {
    let policy = draft(&DESIGN.replace(
        "match = { class = \"smart-card\"",
        "match = { serial = \"A1\", class = \"smart-card\"",
    ));
    let but = |device: &str| {
        let device: UsbDescription = device.parse().unwrap();
        let request = Request::Usb(UsbRequest { device: device.device(), to: None });
        let nearly = explain(&policy, &request, &Context::default()).nearly;
        nearly.into_iter().map(|miss| miss.but).collect::<Vec<_>>().join("; ")
    };
    let reader = "vendor=08e6,product=3437,interfaces=0b/00/00";
    assert_eq!(but(&format!("{reader},serial=B2")), "only serial number \"A1\"");
    let none = "only serial number \"A1\", and this one has none: a rule can name its port";
    assert_eq!(but(reader), none);
    assert_eq!(but(&format!("{reader},port=1-4.2")), format!("{none}, 1-4.2"));
}

#[test]
fn explain_says_what_of_an_admitted_device_cannot_work_and_why() {
    let text = include_str!("corpus/warn/cameras.toml").to_owned()
        + "\n[[usb]]\nid = \"brother\"\nmatch = { vendor = 0x04f9 }\nto = \"clinical\"\naction = \"allow\"\n"
        + "\n[[usb]]\nid = \"sticks\"\nmatch = { class = \"mass-storage\" }\nto = \"clinical\"\naction = \"read-only\"\n";
    let policy = draft(&text);
    let limits = |device: &str| {
        let device: UsbDescription = device.parse().unwrap();
        let request = Request::Usb(UsbRequest { device: device.device(), to: None });
        let explained = explain(&policy, &request, &Context::default());
        let shown = explained.to_string();
        assert!(explained.limits.iter().all(|limit| shown.contains(limit)), "{shown}");
        let json = serde_json::to_value(&explained).unwrap();
        assert_eq!(json.get("limits").is_none(), explained.limits.is_empty());
        (explained.verdict.word(), explained.limits.join("; "))
    };
    let (verdict, why) =
        limits("vendor=046d,product=085e,interfaces=0e/01/00+0e/02/00+01/01/00+01/02/00");
    assert_eq!(verdict, "allow");
    assert!(why.contains("its picture cannot work") && why.contains("its sound cannot work"));
    assert!(why.contains("isochronous transfers, which this version does not carry"));
    let (_, why) = limits("vendor=04f9,product=02d0,interfaces=07/01/02+ff/ff/ff");
    assert!(why.contains("beside printer no vendor requests pass but those"), "{why}");
    let (verdict, why) = limits("vendor=152d,product=0567,interfaces=08/06/62");
    assert!(verdict == "read-only" && why.contains("USB Attached SCSI"), "{why}");
    let (_, why) = limits("vendor=057b,product=0000,interfaces=08/04/00");
    assert!(why.contains("its writes cannot be told apart"), "{why}");
    for works in [
        "vendor=152d,product=0567,interfaces=08/06/50+08/06/62",
        "vendor=04f9,product=0002,interfaces=07/01/02",
        "vendor=04f9,product=0403,interfaces=ff/ff/ff",
        // A musical instrument; one that is denied.
        "vendor=0499,product=1000,interfaces=01/01/00+01/03/00",
        "vendor=1209,product=0042,interfaces=0b/00/00+01/02/00",
    ] {
        assert_eq!(limits(works).1, "", "{works}");
    }
}

#[test]
fn explain_with_content_says_what_the_detectors_say() {
    let policy = draft(DESIGN);
    let hit = explain_text(&policy, b"MRN 1234-5678");
    assert_eq!(hit.verdict.word(), "deny");
    assert_eq!(hit.rule.as_deref(), Some("reference-text-in"));
    assert_eq!(hit.reason, "it contains what looks like a `chart-number`");
    let clean = explain_text(&policy, b"clean");
    assert_eq!((clean.verdict.word(), clean.inspect.len()), ("allow", 0));
}

fn explain_text(policy: &Policy, text: &[u8]) -> Explanation {
    explain_paste(
        policy,
        &Paste {
            from: "internet",
            to: "clinical",
            media_type: MediaType::TextPlain,
            content: Some(text),
            size: None,
        },
    )
}

#[test]
fn explain_and_promises_decide_on_the_text_that_would_be_pasted() {
    let policy = draft(DESIGN);
    // 4096 bytes once the line ends are what they will be.
    let long = "x\r\n".repeat(2048);
    let explained = explain_text(&policy, long.as_bytes());
    assert_eq!(explained.verdict.word(), "allow");
    assert_eq!(explained.cleaned.as_deref(), Some("2048 line ends changed"));
    assert_eq!(explain_text(&policy, &[&long, "y"].concat().into_bytes()).verdict.word(), "deny");
    let no_text = explain_text(&policy, b"caf\xe9");
    assert_eq!(
        (no_text.verdict.word(), no_text.rule.as_deref()),
        ("deny", Some("reference-text-in"))
    );
    assert_eq!(no_text.reason, "it is not readable text");

    for (text, verdict) in
        [(long.escape_default().to_string(), "allow"), ("900101-1\\u0007234567".to_owned(), "deny")]
    {
        let promise = format!(
            "{DESIGN}\n[[expect]]\nclipboard = {{ from = \"internet\", to = \"clinical\", type = \"text/plain\", text = \"{text}\" }}\nverdict = \"{verdict}\"\n"
        );
        assert!(Policy::parse("policy.toml", &promise).is_ok(), "{verdict}");
    }
}

#[test]
fn what_was_found_out_about_an_input_device_is_part_of_its_description() {
    for text in [
        "vendor=1050,product=0407,interfaces=03/00/00:no-keyboard",
        "vendor=1050,product=0407,interfaces=03/00/00:keyboard-or-mouse+0b/00/00",
    ] {
        let described: UsbDescription = text.parse().unwrap();
        let functions: Vec<String> = described.functions.iter().map(ToString::to_string).collect();
        assert!(text.ends_with(&functions.join("+")), "{functions:?}");
    }
    for wrong in ["08/06/50:no-keyboard", "03/00/00:", "03/00/00:mouse"] {
        UsbFunction::list(wrong).unwrap_err();
    }
    let policy = draft(
        &DESIGN
            .replace("class = \"mass-storage\"", "class = \"hid\"")
            .replace("\"read-only\"", "\"allow\""),
    );
    let verdict = |found: &str| {
        let device: UsbDescription =
            format!("vendor=1050,product=0407,interfaces=03/00/00{found}").parse().unwrap();
        policy
            .decide(
                &Request::Usb(UsbRequest { device: device.device(), to: None }),
                &Context::default(),
            )
            .settled()
            .decision()
            .word()
    };
    assert_eq!(verdict(":no-keyboard"), "allow");
    assert_eq!(verdict(":keyboard-or-mouse"), "deny");
    assert_eq!(verdict(""), "deny", "what does not say what it is may be one");
}

#[test]
fn a_device_description_is_read_as_the_command_line_writes_it() {
    let reader: UsbDescription =
        "vendor=08e6,product=3437,serial=A1,port=1-4,interfaces=08/06/50+03/01/01".parse().unwrap();
    let device = reader.device();
    assert_eq!(
        (device.vendor, device.product, device.serial, device.port),
        (0x08e6, 0x3437, Some("A1"), Some("1-4"))
    );
    let functions: Vec<String> = device.functions.iter().map(ToString::to_string).collect();
    assert_eq!(functions, ["08/06/50", "03/01/01"]);
    for wrong in [
        "",
        "vendor=08e6",
        "vendor=8g,product=1,interfaces=00/00/00",
        "vendor=1,product=1,interfaces=00/00",
        "vendor=1,vendor=2,product=1,interfaces=00/00/00",
        "vendor=1,produkt=1,interfaces=00/00/00",
    ] {
        assert!(!wrong.parse::<UsbDescription>().unwrap_err().help.is_empty(), "{wrong}");
    }
}
