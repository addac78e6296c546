//! The officer's tools: what they print, for people and for machines.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

mod support;

use policy::Policy;
use policy::decide::Paste;
use policy::language::MediaType;
use policy::officer::{Explanation, check, check_for};
use policy::request::{
    ClipboardRequest, Context, Request, UsbDescription, UsbFunction, UsbRequest,
};
use policy::version::Version;
use serde_json::json;
use support::draft;

const DESIGN: &str = include_str!("corpus/warn/design.toml");

fn paste(bytes: u64) -> Request<'static> {
    let (from, to, media_type) = ("internet", "clinical", MediaType::TextPlain);
    Request::Clipboard(ClipboardRequest { from, to, media_type, bytes })
}

#[test]
fn check_lists_errors_and_warnings_with_line_column_message_and_help() {
    let report =
        serde_json::to_value(check("policy.toml", &DESIGN.replace("\"allow\"  ", "\"alow\"  ")))
            .unwrap();
    assert_eq!(report["ok"], json!(false));
    let error = &report["errors"][0];
    assert_eq!((&error["line"], &error["column"]), (&json!(41), &json!(10)));
    assert_eq!(error["text"], json!("\"alow\""));
    assert_eq!(error["message"], json!("\"alow\" is not an action on the clipboard"));
    assert_eq!(error["help"], json!("did you mean \"allow\"?"));

    let report = serde_json::to_value(check("policy.toml", DESIGN)).unwrap();
    assert_eq!(report["ok"], json!(true));
    assert_eq!(report["errors"], json!([]));
    assert_eq!(
        (&report["warnings"][1]["line"], &report["warnings"][1]["column"]),
        (&json!(20), &json!(10))
    );
    let lines: Vec<&serde_json::Value> =
        report["warnings"].as_array().unwrap().iter().map(|found| &found["line"]).collect();
    assert_eq!(lines, [14, 20, 61, 64]);
}

#[test]
fn a_break_glass_that_nobody_at_the_seat_can_open_is_warned_of() {
    let warned = |text: &str| {
        let report = check("policy.toml", text);
        report.warnings.iter().any(|found| found.message.contains("nobody at the seat can open"))
    };
    assert!(warned(DESIGN));
    assert!(!warned(&DESIGN.replace("reason_required = true", "reason_required = false")));
    let reasons = "reason_required = true\nreasons = [\"의식 없는 환자\"]";
    assert!(!warned(&DESIGN.replace("reason_required = true", reasons)));
    assert!(
        !warned(
            &DESIGN
                .replace("[break_glass]", "")
                .replace("max_duration", "# ")
                .replace("reason_required", "# ")
                .replace("allow_usb", "# ")
        ),
        "there is none to open"
    );
}

#[test]
fn a_key_that_an_older_version_does_not_know_is_an_error_of_a_check_for_that_version() {
    let text = DESIGN.replace("reason_required = true", "reasons = [\"system down\"]");
    let checked = |version: &str, text: &str| {
        check_for(version.parse::<Version>().unwrap(), "policy.toml", text)
    };
    let refused = checked("0.1.0", &text);
    assert!(!refused.ok);
    let error = &refused.errors[0];
    assert_eq!((error.line, error.text.as_str()), (63, "reasons"));
    assert!(error.help.contains("the last one it took"), "{}", error.help);
    assert!(checked("0.2.0", &text).ok);
    assert!(check("policy.toml", &text).ok);
    assert!(checked("0.1.0", DESIGN).ok, "what it does not use, no PC refuses it for");
    for wrong in ["", "1", "0.1", "0.1.0.0", "0.1.x", "0.+1.0", "99999999999.0.0"] {
        assert!(wrong.parse::<Version>().is_err(), "{wrong}");
    }
}

#[test]
fn an_expectation_written_as_0_1_0_cannot_read_it_is_refused() {
    let written = |interfaces: &str| {
        let expect = format!(
            "{DESIGN}\n[[expect]]\nusb = {{ vendor = 0x0781, product = 0x5567, interfaces = \"{interfaces}\" }}\nverdict = \"deny\"\n"
        );
        check("policy.toml", &expect)
    };
    for read in ["08/06/50", "0x08/6/50+3/0/0:no-keyboard", "0A/00/00"] {
        let report = written(read);
        let about = |found: &policy::diagnostic::Located| found.message.contains("interfaces");
        assert!(!report.errors.iter().any(about), "{}", report.render(false));
    }
    for refused in [
        "0X08/06/50",
        "08/06/50\\t",
        "08/06/50+",
        " 08/06/50",
        "03/00/00:no-keyboard\\t",
        "08:06:50",
        "08/06/ 50",
    ] {
        let report = written(refused);
        assert!(!report.ok, "{refused}");
        assert!(report.errors[0].message.contains("interface"), "{}", report.render(false));
    }
}

#[test]
fn the_sum_of_a_check_counts_the_errors_that_are_not_listed() {
    let text: String = (0..250).map(|at| format!("unknown_{at} = 1\n")).collect();
    let report = check("policy.toml", &format!("format = 1\n{text}"));
    let listed = report.errors.len();
    assert!(listed < 250 && report.more_errors > 0);
    let all = listed + report.more_errors;
    assert!(report.to_string().contains(&format!("{all} errors")), "{report}");
    assert_eq!(serde_json::to_value(&report).unwrap()["more_errors"], json!(report.more_errors));
}

#[test]
fn the_matrix_does_not_hold_it_to_the_reasons_of_the_seat() {
    let reasons = "reasons = [\"system down\"]";
    let page = draft(&DESIGN.replace("reason_required = true", reasons)).matrix().to_string();
    assert!(
        page.contains("at the seat for one of these reasons: system down; IT, by command"),
        "{page}"
    );
}

#[test]
fn explain_gives_verdict_rule_line_and_reason() {
    let policy = draft(DESIGN);
    let explained = policy.explain(&paste(312), &Context::default());
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
        let explained = policy.explain(&request, &Context::default());
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
        serde_json::to_value(policy.explain(&paste(5000), &Context::default())).unwrap();
    assert_eq!(explained["verdict"], json!("deny"));
    assert_eq!((&explained["rule"], &explained["line"]), (&json!(null), &json!(null)));
    assert_eq!(
        explained["nearly"],
        json!([{ "rule": "reference-text-in", "line": 35, "but": "only up to 4096 bytes" }])
    );

    let reader: UsbDescription = "vendor=08e7,product=3437,interfaces=0b/00/00".parse().unwrap();
    let request = Request::Usb(UsbRequest { device: reader.device(), to: None });
    let explained = policy.explain(&request, &Context::default());
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
        let nearly = policy.explain(&request, &Context::default()).nearly;
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
        let explained = policy.explain(&request, &Context::default());
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
    policy.explain_paste(&Paste {
        from: "internet",
        to: "clinical",
        media_type: MediaType::TextPlain,
        content: Some(text),
        size: None,
    })
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
fn the_matrix_gives_no_hub_to_anybody_whatever_a_rule_says() {
    let policy = draft(
        &DESIGN
            .replace("class = \"mass-storage\"", "class = \"hub\"")
            .replace("\"read-only\"", "\"allow\""),
    );
    let hub: UsbDescription = "vendor=05e3,product=0608,interfaces=09/00/00".parse().unwrap();
    let request = Request::Usb(UsbRequest { device: hub.device(), to: None });
    let decided = policy.decide(&request, &Context::default()).decision();
    let matrix = policy.matrix();
    let shown = matrix.usb.iter().find(|entry| entry.device.contains("hub")).unwrap();
    assert_eq!((shown.verdict, decided.word()), (decided, "deny"));
}

#[test]
fn the_matrix_shows_what_may_cross_and_that_nothing_else_does() {
    let matrix = draft(DESIGN).matrix();
    assert_eq!(
        matrix.to_string(),
        "CLINICAL: network passthrough, connects to anywhere on its network; keeps what is stored in it; priority high\n  \
           `egress` says 10.10.0.0/16 port 2762/tcp (DICOM TLS); 10.10.0.0/16 port 443/tcp (HTTPS): not enforced by this version\n\
         INTERNET: network passthrough, connects to anywhere on its network; forgets everything at every start; priority normal\n\
         \n\
         Paste from CLINICAL into INTERNET\n  \
           nothing\n\
         \n\
         Paste from INTERNET into CLINICAL\n  \
           text/plain up to 4096 bytes: allow unless korean-rrn or chart-number is found   [reference-text-in, line 35]\n\
         \n\
         USB devices; the first that fits decides\n  \
           smart-card, vendor 0x08e6 -> clinical: allow   [staff-card-reader, line 44]\n  \
           mass-storage -> clinical: read-only   [patient-media, line 50]\n\
         \n\
         Keyboards and scanners tied to a desktop\n  \
           vendor 0x05e0, product 0x1200 -> clinical: tied   [wristband-scanner, line 56]\n\
         \n\
         Looked for in what crosses; a hit denies\n  \
           korean-rrn: a resident registration number, built in; used by reference-text-in\n  \
           chart-number: what the pattern (?-u:\\b)MRN-?\\d{8}(?-u:\\b) finds; used by reference-text-in\n\
         \n\
         Break-glass: what an emergency opens\n  \
           Ctrl+Alt+B; only IT opens it, by command with a reason: there is none to choose from at the seat\n  \
           closes by itself after 30m\n  \
           opens the USB rules patient-media-writable\n\
         \n\
         The screen locks\n  \
           after 10m without a hand on the PC\n  \
           at once: Ctrl+Alt+L\n\
         \n\
         Hotkeys\n  \
           CLINICAL to the front: Ctrl+Alt+1\n  \
           INTERNET to the front: Ctrl+Alt+2\n  \
           copy: Ctrl+Alt+C\n  \
           paste: Ctrl+Alt+V\n  \
           lock: Ctrl+Alt+L\n  \
           break-glass: Ctrl+Alt+B\n\
         \n\
         Not enforced by this version\n  \
           `egress` of CLINICAL is not enforced by this version: its network card reaches whatever is on its network; \
           have the hospital's firewall or switch limit it; the list says what they are to let through   [CLINICAL, line 14]\n"
    );
    assert_eq!(serde_json::to_value(&matrix).unwrap()["clipboard"][0]["max_bytes"], json!(4096));
}

#[test]
fn the_matrix_page_holds_what_the_policy_says_in_both_languages_and_fits_a4() {
    let text = DESIGN.replace("\"CLINICAL\"", "\"진료망\"").replace("\"INTERNET\"", "\"인터넷\"");
    let page = draft(&text).matrix().html();
    for part in [
        "진료망",
        "붙여넣기: 인터넷 → 진료망",
        "closes by itself after 30m",
        "keeps what is stored in it",
        "forgets everything at every start",
        "after 10m without a hand on the PC",
        "at once: Ctrl+Alt+L",
        "paste: Ctrl+Alt+V",
        "(?-u:\\b)MRN-?\\d{8}(?-u:\\b)",
        "이 버전에서 시행되지 않음",
        "<strong>`egress` says 10.10.0.0/16 port 2762/tcp (DICOM TLS)",
        "@page { size: A4;",
        "lang=\"ko\"",
    ] {
        assert!(page.contains(part), "{part}\n{page}");
    }
}

#[test]
fn a_check_that_stops_says_what_is_still_to_come() {
    let wrong = check("policy.toml", &DESIGN.replace("serial = 7", "serail = 7"));
    assert!(
        wrong
            .to_string()
            .ends_with("; warnings, [[expect]] and colours are looked at once it can be read")
    );
    let whole = check("policy.toml", DESIGN);
    assert!(whole.next.is_none() && whole.to_string().ends_with("no errors, 4 warnings"));
}

#[test]
fn an_unknown_key_is_reported_beside_a_missing_one_in_the_same_table() {
    let text = DESIGN.replace("type = \"text/plain\", bytes = 10", "typ = \"text/plain\"");
    let report = check("policy.toml", &text);
    let found: Vec<&str> = report.errors.iter().map(|found| found.message.as_str()).collect();
    for part in ["has no `bytes`", "has no key `typ`"] {
        assert!(found.iter().any(|message| message.ends_with(part)), "{part} {found:?}");
    }
    // That `type` is missing is the same mistake as that there is a `typ`.
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn the_matrix_page_carries_no_markup_of_the_policys() {
    let text = DESIGN.replace("\"HTTPS\"", "\"<script>alert(1)</script>\"");
    let page = draft(&text).matrix().html();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !page.contains("<script"));
    assert!(page.contains("reference-text-in, line 35"));
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

#[test]
fn diff_lists_flows_and_settings_for_machines() {
    let old = draft(DESIGN);
    let new =
        draft(&DESIGN.replace("\"read-only\"", "\"allow\"").replace("\"discard\"", "\"keep\""));
    let diff = serde_json::to_value(policy::officer::diff(&old, &new)).unwrap();
    assert_eq!(diff["widened"], json!(true));
    assert_eq!(
        diff["flows"],
        json!([{
            "kind": "changed",
            "widened": true,
            "flow": {
                "what": "usb",
                "to": "clinical",
                "when": [
                    { "by_hand": false, "break_glass": false },
                    { "by_hand": true, "break_glass": false },
                    { "by_hand": false, "break_glass": true },
                    { "by_hand": true, "break_glass": true },
                ],
                "class": { "is": "mass-storage" },
                "vendor": "any",
                "product": "any",
                "serial": "any",
                "port": "any",
            },
            "before": { "verdict": "read-only", "rule": "patient-media", "line": 50 },
            "after": { "verdict": "allow", "rule": "patient-media", "line": 50 },
        }])
    );
    let setting = "domain.internet.persistence";
    assert_eq!(
        diff["settings"],
        json!([{ "setting": setting, "before": "discard", "after": "keep", "widened": true }])
    );
}
