//! What `check` and `diff` print, for people and for machines.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::version::Version;
use policy_tools::{check, check_for};
use serde_json::json;
use support::draft;

const DESIGN: &str = include_str!("corpus/warn/design.toml");

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
    let says = "policy.toml: fit for this version; refused by 0.1.0: 1 error, ";
    assert!(refused.to_string().starts_with(says), "{refused}");
    let by_both = checked("0.1.0", &text.replace("\"allow\"  ", "\"alow\"  "));
    assert!(by_both.to_string().starts_with("policy.toml: refused: "), "{by_both}");
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
fn diff_lists_flows_and_settings_for_machines() {
    let old = draft(DESIGN);
    let new =
        draft(&DESIGN.replace("\"read-only\"", "\"allow\"").replace("\"discard\"", "\"keep\""));
    let diff = serde_json::to_value(policy_tools::diff(&old, &new)).unwrap();
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
