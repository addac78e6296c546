//! The lint: a rule is called unreachable exactly if no request in the world is decided by it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeSet;

use policy::Policy;
use policy::request::{Context, Request};
use policy_tools::lint;
use proptest::prelude::*;
use support::{
    clipboard_requests, devices, draft, naive, naive_tie, policy_text, usb_request, ways,
};

/// Returns the rules that decide something, found by asking everything.
fn deciding(policy: &Policy) -> BTreeSet<String> {
    let mut rules = BTreeSet::new();
    for request in clipboard_requests() {
        rules.extend(naive(policy, &Request::Clipboard(request), &Context::default()).1);
    }
    for device in devices() {
        for (to, context) in ways() {
            rules.extend(naive(policy, &Request::Usb(usb_request(device, to)), &context).1);
        }
        rules.extend(naive_tie(policy, &device));
    }
    rules
}

/// Returns the rules that the lint says decide nothing.
fn called_dead(policy: &Policy) -> BTreeSet<String> {
    let lint = lint(policy);
    let dead = lint.iter().filter_map(|found| {
        let rest = found.message.strip_prefix("the rule `")?;
        let (rule, what) = rest.split_once('`')?;
        (what.starts_with(" is never reached") || what.starts_with(" can never match"))
            .then(|| rule.to_owned())
    });
    dead.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_rule_is_called_dead_exactly_if_no_request_is_decided_by_it(text in policy_text()) {
        let policy = draft(&text);
        let all = policy.clipboard().iter().map(|rule| &rule.head)
            .chain(policy.usb().iter().map(|rule| &rule.head))
            .chain(policy.input().iter().map(|rule| &rule.head));
        let deciding = deciding(&policy);
        let dead: BTreeSet<String> =
            all.map(|head| head.id.to_string()).filter(|id| !deciding.contains(id)).collect();
        prop_assert_eq!(called_dead(&policy), dead, "{}", text);
    }
}

const HEAD: &str = include_str!("one-domain.toml");

/// Makes a USB rule for domain `a`.
fn usb(id: &str, matches: &str) -> String {
    format!("[[usb]]\nid = \"{id}\"\nmatch = {{ {matches} }}\nto = \"a\"\naction = \"allow\"\n")
}

#[test]
fn rules_for_every_class_together_leave_nothing_to_a_rule_for_any_class() {
    let classes = |count: u16| -> String {
        (0..count).map(|c| usb(&format!("c{c}"), &format!("class = {c}"))).collect()
    };
    let any = usb("any", "vendor = 1");
    let dead = called_dead(&draft(&format!("{HEAD}{}{any}", classes(256))));
    assert_eq!(dead, BTreeSet::from(["any".to_owned(), "c9".to_owned()]), "hubs reach no rule");
    let dead = called_dead(&draft(&format!("{HEAD}{}{any}", classes(255))));
    assert_eq!(dead, BTreeSet::from(["c9".to_owned()]), "class 255 is left");
}

#[test]
fn where_too_many_rules_are_to_be_held_against_each_other_check_says_which_it_did_not_look_into() {
    let classes: String =
        (0..=255).map(|c| usb(&format!("c{c}"), &format!("class = {c}"))).collect();
    let below: String =
        (0..3000).map(|n| usb(&format!("u{n}"), &format!("vendor = {n:#06x}"))).collect();
    // As many that are never reached as are kept stand above.
    let dead: String = (0..150).map(|n| usb(&format!("d{n}"), "vendor = 0xffff")).collect();
    let lint = lint(&draft(&format!("{HEAD}{classes}{dead}{below}")));
    assert!(lint.to_string().contains("not looked into"), "a person is shown it: {lint}");
    let given_up: Vec<&str> = lint
        .iter()
        .map(|found| found.message.as_str())
        .filter(|message| message.contains("not looked into"))
        .collect();
    assert_eq!(given_up.len(), 1, "{given_up:?}");
    assert!(given_up.iter().all(|message| message.contains("rules below it")), "{given_up:?}");
    let dead = called_dead(&draft(&format!("{HEAD}{classes}{}", usb("u", "vendor = 1"))));
    assert!(dead.contains("u"), "{dead:?}");
}

#[test]
fn no_warning_is_hidden_by_the_many_of_another_kind_however_late_it_stands() {
    let high = "priority = \"high\"\nidle_lock = \"10m\"\n[[domain]]\nname = \"b\"\nlabel = \"B\"\n\
        colour = \"#ffffff\"\nhotkey = \"Ctrl+Alt+2\"\nnetwork = \"none\"\npersistence = \"keep\"\n";
    let clipboard = |id: &str, types: &str, action: &str| {
        format!(
            "[[clipboard]]\nid = \"{id}\"\nfrom = \"a\"\nto = \"b\"\ntypes = [\"{types}\"]\naction = \"{action}\"\n"
        )
    };
    let many = |rule: &dyn Fn(usize) -> String| (0..150).map(rule).collect::<String>();
    let camera =
        |n| usb(&format!("v{n}"), &format!("vendor = 1, product = {n:#06x}, class = \"video\""));
    let text = [
        HEAD.to_owned(),
        high.to_owned(),
        many(&|n| clipboard(&format!("c{n}"), "text/plain", "deny")),
        clipboard("leak", "image/png", "allow"),
        many(&camera),
        usb("sound", "class = \"audio\""),
        many(&|n| usb(&format!("u{n}"), "vendor = 2")),
        usb("any", ""),
        many(&|n| format!("[[input]]\nid = \"i{n}\"\nmatch = {{ vendor = {} }}\nto = \"a\"\n", n + 100)),
        "[[expect]]\nusb = { vendor = 1, product = 1, interfaces = \"03/01/01\", port = \"4\" }\nverdict = \"deny\"\n".to_owned(),
    ]
    .concat();
    let report = policy_tools::check("policy.toml", &text);
    let shown = report.render(false).to_string();
    for grave in [
        "the rule `leak` lets content out of A unasked",
        "the rule `any` admits every USB device there is",
        "in the rule `sound` is not enforced",
        "so no device is ever asked about by this",
    ] {
        let listed = report.warnings.iter().any(|found| found.message.contains(grave));
        assert!(listed, "{grave} is not listed: {:?}", report.errors);
        assert!(shown.replace("\n  │ ", " ").contains(grave), "{grave} is not shown: {shown}");
    }
    assert!(!shown.contains("is never reached"), "what harms nobody comes last: {shown}");
    let dead =
        |word: &str| report.warnings.iter().filter(|found| found.message.starts_with(word)).count();
    assert_eq!((dead("the rule `c"), dead("the rule `u")), (100, 100));
    assert!(report.more_warnings > 0);
}

#[test]
fn ten_thousand_rules_are_read_and_linted_in_bounded_time() {
    let mut text = HEAD.to_owned();
    for number in 0..10_000 {
        text.push_str(&usb(
            &format!("u{number}"),
            &format!("vendor = {:#06x}, serial = \"S{number}\"", number % 500),
        ));
    }
    let start = std::time::Instant::now();
    let policy = draft(&text);
    assert!(lint(&policy).is_empty());
    // The budget is a second in a release build; a debug build on a busy machine gets the factor that turns a square
    // into a failure and noise into none.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
