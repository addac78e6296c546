//! What an officer is told of a mistake: once, where it is, and what to write instead of what was written.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

use policy::Policy;
use policy_tools::{Report, STARTER, check};
use proptest::prelude::*;

/// Returns the starter with something below it.
fn with(rules: &str) -> Report {
    check("policy.toml", &format!("{STARTER}\n{rules}"))
}

fn usb(matches: &str) -> Report {
    with(&format!(
        "[[usb]]\nid = \"x\"\nmatch = {{ {matches} }}\nto = \"clinical\"\naction = \"allow\"\n"
    ))
}

fn helps(report: &Report) -> Vec<&str> {
    report.errors.iter().map(|found| found.help.as_str()).collect()
}

#[test]
fn a_name_that_is_near_to_one_that_is_wrong_where_it_is_given_is_told_the_right_one() {
    let text = STARTER.replacen("name = \"clinical\"", "name = \"Clinical\"", 1)
        + "\n[[usb]]\nid = \"x\"\nmatch = { class = \"smart-card\" }\nto = \"clincal\"\naction = \"allow\"\n";
    let report = check("policy.toml", &text);
    assert!(helps(&report).contains(&"did you mean \"clinical\"?"), "{:?}", helps(&report));
}

#[test]
fn a_device_number_as_lsusb_prints_it_is_refused_with_the_number_it_stands_for() {
    for (written, right) in [
        ("\"08e6\"", "write 0x08e6, without quotes"),
        ("\"0x08E6\"", "write 0x08e6, without quotes"),
        ("08e6", "write 0x08e6"),
        ("8e6", "write 0x08e6"),
        ("0781", "write 0x0781"),
        ("1e10", "write 0x1e10"),
        ("a5ff", "write 0xa5ff"),
        ("08e6:3437", "write vendor = 0x08e6, product = 0x3437"),
        ("\"08e6:3437\"", "write vendor = 0x08e6, product = 0x3437"),
    ] {
        let report = usb(&format!("vendor = {written}"));
        assert_eq!(helps(&report), [right], "{written}");
    }
}

#[test]
fn a_device_number_in_decimal_is_warned_of_with_both_that_may_be_meant() {
    let report = usb("vendor = 403, product = 6001");
    assert!(report.ok);
    let warnings: Vec<_> =
        report.warnings.iter().filter(|found| found.message.contains("decimal")).collect();
    let helps: Vec<&str> = warnings.iter().map(|found| found.help.as_str()).collect();
    assert_eq!(
        helps,
        [
            "write 0x0403 if lsusb prints 0403, 0x0193 if it prints 0193",
            "write 0x6001 if lsusb prints 6001, 0x1771 if it prints 1771"
        ]
    );
    for unmistakable in ["vendor = 0x0403", "vendor = 7", "vendor = 40300"] {
        let report = usb(unmistakable);
        let decimal = report.warnings.iter().any(|found| found.message.contains("decimal"));
        assert!(report.ok && !decimal, "{unmistakable}");
    }
    // Still, it is what it says: what was signed before goes on meaning the same.
    let text = format!(
        "{STARTER}\n[[usb]]\nid = \"x\"\nmatch = {{ vendor = 403 }}\nto = \"clinical\"\naction = \"allow\"\n"
    );
    let policy = Policy::parse("policy.toml", &text).unwrap();
    assert_eq!(policy.usb().last().unwrap().matches.vendor, Some(403));
}

#[test]
fn a_wrong_name_is_reported_where_it_is_given_and_not_wherever_it_is_used() {
    let text = STARTER.replacen("name = \"clinical\"", "name = \"Clinical\"", 1);
    assert_ne!(text, STARTER);
    let mut text = text;
    for rule in 0..60 {
        text += &format!(
            "\n[[clipboard]]\nid = \"r-{rule}\"\nfrom = \"internet\"\nto = \"clinical\"\ntypes = [\"text/plain\"]\naction = \"deny\"\n"
        );
    }
    let report = check("policy.toml", &text);
    let messages: Vec<&str> = report.errors.iter().map(|found| found.message.as_str()).collect();
    assert_eq!(messages, ["\"Clinical\" cannot be a name"]);
    // A name that nothing was meant to have is reported still.
    let report = check(
        "policy.toml",
        &text.replacen("r-0\"\nfrom = \"internet\"", "r-0\"\nfrom = \"lab\"", 1),
    );
    assert_eq!(report.errors.len(), 2);
}

#[test]
fn a_key_that_is_misspelt_is_not_reported_as_missing_too() {
    let report = with(
        "[[clipboard]]\nid = \"x\"\nfrom = \"internet\"\nto = \"clinical\"\ntype = [\"text/plain\"]\naction = \"deny\"\n",
    );
    assert_eq!(helps(&report), ["did you mean `types`?"]);
}

#[test]
fn single_brackets_are_one_report_that_says_double() {
    let rule = "[clipboard]\nid = \"x\"\nfrom = \"internet\"\nto = \"clinical\"\ntypes = [\"text/plain\"]\naction = \"deny\"\n";
    for text in [rule.to_owned(), format!("{rule}{rule}{rule}")] {
        let text = format!("{}\n{text}", STARTER.split("\n[[clipboard]]").next().unwrap());
        let report = check("policy.toml", &text);
        assert!(!report.errors.is_empty());
        for help in helps(&report) {
            assert!(help.contains("[[clipboard]], in double brackets"), "{}", report.render(false));
        }
        assert!(report.errors.len() <= text.matches("\n[clipboard]").count(), "{report}");
    }
}

#[test]
fn a_report_of_two_places_far_apart_leaves_out_what_lies_between() {
    let rule = |id: &str, vendor: u16| {
        format!(
            "\n[[usb]]\nid = \"{id}\"\nmatch = {{ vendor = {vendor:#06x} }}\naction = \"deny\"\n"
        )
    };
    let many: String = (0..200).map(|at| rule(&format!("deny-{at}"), 0x1000 + at)).collect();
    let report = with(&format!("{many}{}", rule("deny-0", 0x2000)));
    let shown = report.render(false);
    assert!(shown.contains("the other one") && shown.contains("deny-0"), "{shown}");
    assert!(shown.lines().count() < 20, "{shown}");
}

#[test]
fn a_value_of_many_lines_is_shown_by_its_first() {
    let list = "  \"text/plain\",\n".repeat(100);
    let report = with(&format!(
        "[[clipboard]]\nid = \"x\"\nfrom = \"internet\"\nto = \"clinical\"\ntypes = [\n{list}]\naction = \"deny\"\n"
    ));
    let shown = report.render(false);
    assert!(shown.contains("types = ["), "{shown}");
    assert!(shown.lines().count() < 15, "{shown}");
}

#[test]
fn a_mistake_in_a_regular_expression_is_underlined_where_it_is() {
    for (pattern, wrong) in [(r"'MRN-?\d{8'", "{8"), (r"'진료 [0-9'", "[")] {
        let report = with(&format!("[[detector]]\nname = \"x\"\nregex = {pattern}\n"));
        assert_eq!(report.errors.len(), 1);
        let found = report.errors.first().unwrap();
        assert!(found.text.starts_with(wrong), "{found:?}");
        assert!(found.message.contains("at character"), "{found:?}");
    }
}

#[test]
fn a_line_that_ends_as_in_another_language_is_told_what_to_take_away() {
    for (right, wrong, end) in [
        ("serial = 1 ", "serial = 7, ", ","),
        ("serial = 1 ", "serial = 7; # raised", ";"),
        ("label = \"CLINICAL\"", "label = \"진료망\",", ","),
        ("label = \"CLINICAL\"", "label = \"CLINICAL\" ; # the banner", ";"),
        ("persistence = \"discard\"", "persistence = 'discard';;", ";;"),
        ("priority = \"high\"", "egress = [],", ","),
        (
            "priority = \"high\"",
            "egress = [{ to = \"10.0.0.1\", port = 443, proto = \"tcp\", purpose = \"HTTPS\" }];",
            ";",
        ),
    ] {
        let text = STARTER.replacen(right, wrong, 1);
        assert_ne!(text, STARTER);
        let report = check("policy.toml", &text);
        assert_eq!(helps(&report), [format!("remove the `{end}`")], "{}", report.render(false));
        let found = report.errors.first().unwrap();
        assert_eq!(found.text, end, "{wrong}");
    }
    let report = check("policy.toml", &STARTER.replacen("serial = 1 ", "serial = 7; x = 1 ", 1));
    assert_eq!(helps(&report), ["begin a new line instead of `;`"]);
    let report = check(
        "policy.toml",
        &STARTER.replacen("issuer =", "issuer :", 1).replacen("Office\"", "Office\",", 1),
    );
    assert_eq!(
        helps(&report),
        ["write `issuer = \"Information Security Office\"`, with one equals sign and one value"]
    );
}

#[test]
fn what_belongs_into_match_is_told_to_go_there_with_the_values_that_were_written() {
    let rule = |body: &str| {
        with(&format!("[[usb]]\nid = \"x\"\n{body}to = \"clinical\"\naction = \"read-only\"\n"))
    };
    for (body, right) in [
        ("class = \"mass-storage\"\n", "write match = { class = \"mass-storage\" }"),
        (
            "vendor = 0x0781\nproduct = 0x5567\n",
            "write match = { vendor = 0x0781, product = 0x5567 }",
        ),
        (
            "match = { vendor = 0x0781 }\nclass = \"mass-storage\"\n",
            "write match = { vendor = 0x0781, class = \"mass-storage\" }",
        ),
        ("match = {}\nport = \"1-4\"\n", "write match = { port = \"1-4\" }"),
    ] {
        let report = rule(body);
        assert_eq!(helps(&report), [right], "{}", report.render(false));
    }
    let report = with("[[input]]\nid = \"x\"\nvendor = 0x05e0\nto = \"clinical\"\n");
    assert_eq!(helps(&report), ["write match = { vendor = 0x05e0 }"]);
    let report = with(
        "[[expect]]\nfrom = \"clinical\"\nto = \"internet\"\ntype = \"text/plain\"\nbytes = 1\nverdict = \"deny\"\n",
    );
    let right = "write clipboard = { from = \"clinical\", to = \"internet\", type = \"text/plain\", bytes = 1 }";
    assert_eq!(helps(&report), [right], "{}", report.render(false));
}

#[test]
fn an_error_is_shown_before_any_number_of_warnings_and_the_rest_is_counted() {
    let rules: String = (100..180)
        .map(|vendor| {
            format!(
                "[[usb]]\nid = \"x{vendor}\"\nmatch = {{ vendor = {vendor} }}\naction = \"deny\"\n"
            )
        })
        .collect();
    let broken = "[[expect]]\nusb = { vendor = 0x0781, product = 0x5567, interfaces = \"08/06/50\" }\nverdict = \"allow\"\n";
    let report = with(&format!("{rules}{broken}"));
    let shown = report.render(false);
    assert_eq!((report.errors.len(), report.warnings.len(), report.more_warnings), (1, 80, 0));
    assert!(shown.contains("expected allow, but the answer is deny"), "{shown}");
    assert!(shown.contains("… and 31 more: 31 warnings\n"), "{shown}");
    // A hundred of a kind are listed, and the rest is in the sum.
    let many: String = (0..3).map(|n| rules.replace("id = \"x", &format!("id = \"{n}x"))).collect();
    let report = with(&many);
    assert_eq!((report.warnings.len(), report.more_warnings > 0), (200, true));
    assert!(
        report.to_string().ends_with(&format!("{} warnings", 200 + report.more_warnings)),
        "{report}"
    );
}

#[test]
fn a_serial_that_few_can_follow_is_warned_of_and_one_that_none_can_follow_is_signed_by_nobody() {
    let with = |serial: u64| STARTER.replacen("serial = 1 ", &format!("serial = {serial} "), 1);
    let warned = |serial: u64| {
        let report = check("policy.toml", &with(serial));
        assert!(report.ok);
        report.warnings.first().map(|found| found.message.clone()).unwrap_or_default()
    };
    let last = with(policy::SERIAL_MAX);
    let report = check("policy.toml", &last);
    assert_eq!((report.ok, report.errors.len(), report.warnings.len()), (false, 1, 0));
    assert!(report.errors.iter().all(|found| found.message.starts_with("no policy can follow")));
    assert!(Policy::parse("policy.toml", &last).is_ok(), "a PC keeps the one it has");
    assert_eq!(policy::SERIAL_MAX, 9_223_372_036_854_775_807);
    assert!(warned(9_223_372_036_854_775_806).starts_with("only one policy can follow this one"));
    assert!(warned(9_223_372_036_854_775_800).starts_with("only 7 policies can follow this one"));
    assert_eq!(warned(20_261_128_000_000), "");
}

proptest! {
    #[test]
    fn every_value_of_every_kind_gets_a_remedy_that_is_no_example_of_another(
        key in prop::sample::select(vec![
            "serial", "idle_lock", "max_bytes", "vendor", "class", "port", "break_glass", "types", "colour", "hotkey",
        ]),
        value in prop_oneof![
            "[0-9a-zA-Z#:.,/ +-]{1,12}",
            "\"[0-9a-zA-Z#:.,/ +-]{0,12}\"",
            "\\[[0-9\", a-z]{0,8}\\]",
            Just("{ a = 1 }".to_owned()),
        ],
    ) {
        let line = format!("{key} = {value}");
        let text = match key {
            "serial" => STARTER.replacen("serial = 1", &line, 1),
            "max_bytes" | "types" => format!("{STARTER}\n[[clipboard]]\nid = \"x\"\n{line}\n"),
            "vendor" | "class" | "port" | "break_glass" => format!("{STARTER}\n[[usb]]\nid = \"x\"\nmatch = {{ {line} }}\n{line}\n"),
            _ => format!("{STARTER}\n[[domain]]\nname = \"x\"\n{line}\n"),
        };
        let report = check("policy.toml", &text);
        for found in &report.errors {
            prop_assert!(!found.help.is_empty() && !found.help.contains("for example"), "{found:?}");
            prop_assert_eq!(text.get(found.start..found.end), Some(found.text.as_str()));
        }
        prop_assert!(!report.render(false).is_empty());
    }
}
