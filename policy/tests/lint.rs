//! The lint: a rule is called unreachable exactly if no request in the world is decided by it.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

mod support;

use std::collections::BTreeSet;

use policy::Policy;
use policy::request::{Context, Request};
use proptest::prelude::*;
use support::{
    clipboard_requests, devices, draft, naive, naive_tie, policy_text, usb_request, ways,
};

/// The rules that decide something, found by asking everything.
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

/// The rules that the lint says decide nothing.
fn called_dead(policy: &Policy) -> BTreeSet<String> {
    let lint = policy.lint();
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

const HEAD: &str = "format = 1\nserial = 1\nissuer = \"Office\"\n[[domain]]\nname = \"a\"\nlabel = \"A\"\n\
    colour = \"#000000\"\nhotkey = \"Ctrl+Alt+1\"\nnetwork = \"none\"\npersistence = \"keep\"\n";

/// A USB rule for domain `a`.
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
    let lint = draft(&format!("{HEAD}{classes}{below}")).lint();
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
    assert!(policy.lint().is_empty());
    // The budget is a second in a release build; a debug build on a busy machine gets the factor that turns a square
    // into a failure and noise into none.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
