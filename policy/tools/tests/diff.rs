//! The diff: every request whose verdict changed lies in a reported change, and every reported change holds one.
#![allow(
    clippy::unwrap_used,
    reason = "clippy.toml allows it in tests and does not know that this is one"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

use policy::Policy;
use policy::decide::Decision;
use policy::request::{Context, Request};
use policy_tools::diff::Flow;
use policy_tools::{Diff, diff, explain};
use proptest::prelude::*;
use support::{clipboard_requests, devices, draft, policy_text, usb_request, ways};

/// Returns what happens, whatever rule makes it: the verdict, where it goes, and what is looked for.
fn happens(
    policy: &Policy,
    request: &Request<'_>,
    context: &Context,
) -> (Decision, Option<String>, Vec<String>) {
    let explained = explain(policy, request, context);
    let to = explained.to.filter(|_| explained.verdict != Decision::Deny);
    let mut inspect = explained.inspect;
    inspect.sort();
    (explained.verdict, to, inspect)
}

/// Returns every request of the small world, for each domain it may concern.
fn requests() -> Vec<(Request<'static>, Context)> {
    let clipboard = clipboard_requests()
        .into_iter()
        .map(|request| (Request::Clipboard(request), Context::default()));
    let usb = devices().into_iter().flat_map(|device| {
        ways().map(move |(to, context)| (Request::Usb(usb_request(device, to)), context))
    });
    clipboard.chain(usb).collect()
}

fn covering<'d>(diff: &'d Diff, request: &Request<'_>, context: &Context) -> Vec<&'d Flow> {
    diff.flows
        .iter()
        .map(|change| &change.flow)
        .filter(|flow| flow.covers(request, context))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_request_is_decided_otherwise_exactly_if_a_reported_change_covers_it(
        old in policy_text(),
        new in policy_text(),
    ) {
        let (old, new) = (draft(&old), draft(&new));
        let diff = diff(&old, &new);
        for (request, context) in requests() {
            let (before, after) = (happens(&old, &request, &context), happens(&new, &request, &context));
            let covering = covering(&diff, &request, &context);
            prop_assert_eq!(before != after, !covering.is_empty(), "{:?} {:?} {:?} {:?}", request, before, after, covering);
        }
        for device in devices() {
            let tied = |policy: &Policy| policy.pinned_to(&device).map(|(domain, _)| domain.name.to_string());
            let covered = diff.flows.iter().any(|change| match &change.flow {
                Flow::Input { region } => region.covers(&device, None),
                _ => false,
            });
            prop_assert_eq!(tied(&old) != tied(&new), covered);
        }
    }

    #[test]
    fn whatever_becomes_possible_is_reported_as_wider(old in policy_text(), new in policy_text()) {
        let (old, new) = (draft(&old), draft(&new));
        let diff = diff(&old, &new);
        for (request, context) in requests() {
            let (before, after) = (happens(&old, &request, &context), happens(&new, &request, &context));
            if after.0 > before.0 {
                prop_assert!(diff.widened);
                let covers = |change: &&diff::Change| change.flow.covers(&request, &context);
                prop_assert!(diff.flows.iter().filter(covers).any(|change| change.widened), "{:?}", request);
            }
        }
    }

    #[test]
    fn a_policy_does_not_differ_from_itself(text in policy_text()) {
        let diff = diff(&draft(&text), &draft(&text));
        prop_assert!(diff.flows.is_empty() && diff.settings.is_empty() && !diff.widened);
    }
}

const DESIGN: &str = include_str!("corpus/warn/design.toml");

fn after(change: impl Fn(&str) -> String) -> Diff {
    diff(&draft(DESIGN), &draft(&change(DESIGN)))
}

#[test]
fn a_larger_size_is_wider_and_a_smaller_one_is_not() {
    let larger = after(|text| text.replace("max_bytes = 4096", "max_bytes = 8192"));
    assert!(larger.widened);
    assert_eq!(
        larger.to_string(),
        "+ newly allowed  clipboard internet -> clinical: text/plain of 4097 to 8192 bytes\n      \
         was deny, by no rule\n      \
         now allow unless korean-rrn or chart-number is found, by `reference-text-in` (line 35)\n\
         the new policy is WIDER than the old one (lines marked +)\n"
    );
    assert!(!after(|text| text.replace("max_bytes = 4096", "max_bytes = 1024")).widened);
}

#[test]
fn dropping_a_detector_or_writing_to_sticks_is_wider() {
    assert!(
        after(|text| text.replace("[\"korean-rrn\", \"chart-number\"]", "[\"korean-rrn\"]"))
            .widened
    );
    assert!(after(|text| text.replace("\"read-only\"", "\"allow\"")).widened);
    assert!(
        after(|text| text.replace(r"\d{8}", r"\d{9}")).widened,
        "another pattern finds other things"
    );
}

#[test]
fn a_detector_with_another_pattern_is_shown_with_both() {
    let shown = after(|text| text.replace(r"\d{8}", r"\d{9}")).to_string();
    assert!(shown.contains("chart-number was (?-u:\\b)MRN-?\\d{8}"), "{shown}");
    assert!(shown.contains("chart-number now (?-u:\\b)MRN-?\\d{9}"), "{shown}");
}

#[test]
fn a_scanner_that_types_into_another_desktop_than_it_did_is_wider() {
    let tied = "to = \"clinical\"\n\n[break_glass]";
    assert!(DESIGN.contains(tied));
    assert!(after(|text| text.replace(tied, "to = \"internet\"\n\n[break_glass]")).widened);
    let rule = DESIGN.split("[[input]]").nth(1).unwrap().split("[break_glass]").next().unwrap();
    let free = DESIGN.replace(&format!("[[input]]{rule}"), "");
    let found = diff(&draft(&free), &draft(DESIGN));
    assert!(found.widened, "it types into one whatever is in front");
    assert!(found.to_string().contains("was typed into whatever is in front\n"), "{found}");
}

#[test]
fn what_stood_for_one_desktop_and_stands_for_another_is_wider() {
    let exchange = |text: &str, one: &str, two: &str| {
        text.replace(one, "@@").replace(two, one).replace("@@", two)
    };
    for (one, two) in [
        ("label = \"CLINICAL\"", "label = \"INTERNET\""),
        ("#1b7f3b", "#b3261e"),
        ("hotkey = \"Ctrl+Alt+1\"", "hotkey = \"Ctrl+Alt+2\""),
        ("lock = \"Ctrl+Alt+L\"", "paste = \"Ctrl+Alt+V\""),
    ] {
        let keys = |text: &str| match one.split_once(" = ") {
            Some((key, value)) if !two.starts_with(key) => {
                let (other, second) = two.split_once(" = ").unwrap();
                text.replace(one, &format!("{key} = {second}"))
                    .replace(two, &format!("{other} = {value}"))
            }
            _ => exchange(text, one, two),
        };
        let found = after(keys);
        assert!(found.widened, "{one} {two}: {found}");
    }
    // Nearly the other's colour is as good as the other's.
    assert!(
        after(|text| exchange(text, "#1b7f3b", "#b3261e").replace("#b3261e", "#b3261f")).widened
    );
    assert!(!after(|text| text.replace("label = \"CLINICAL\"", "label = \"WARD\"")).widened);
}

#[test]
fn a_promise_that_is_gone_is_reported() {
    let promise = DESIGN.split("[[expect]]").nth(1).unwrap();
    let found = after(|text| text.replace(&format!("[[expect]]{promise}"), ""));
    assert!(found.widened);
    assert!(
        found.to_string().contains(
            "+ setting        expect\n      \
             was clipboard clinical -> internet: text/plain of 10 bytes: deny\n      \
             now no longer promised\n"
        ),
        "{found}"
    );
    let of_one = draft(&DESIGN.replace("bytes = 10 }", "bytes = 1 }"));
    let found = diff(&of_one, &draft(DESIGN)).to_string();
    assert!(found.contains("was clipboard clinical -> internet: text/plain of 1 byte: deny\n"));
}

#[test]
fn no_egress_means_no_limit_and_an_entry_that_is_not_there_is_not_allowed() {
    let list = DESIGN.find("egress = [").unwrap();
    let end = list + DESIGN[list..].find(" ]\n").unwrap() + 3;
    let without = DESIGN.replace(&DESIGN[list..end], "");
    let opened = diff(&draft(DESIGN), &draft(&without)).to_string();
    assert!(opened.contains("now anywhere, without a limit"), "{opened}");
    let more = after(|text| text.replace("port = 443, ", "port = 80, ")).to_string();
    assert!(more.contains("was not allowed\n      now 10.10.0.0/16 port 80/tcp"), "{more}");
    assert!(!opened.contains("absent") && !more.contains("absent"));
}

#[test]
fn taking_a_scanner_off_its_desktop_is_wider() {
    assert!(after(|text| text.replace("product = 0x1200", "product = 0x1201")).widened);
}

#[test]
fn renaming_a_rule_and_splitting_one_in_two_are_no_difference() {
    let renamed = after(|text| text.replace("patient-media\"", "sticks\""));
    assert!(renamed.flows.is_empty() && !renamed.widened, "{renamed}");
    let split = after(|text| {
        let rule = text.split("[[clipboard]]").nth(1).unwrap().split("[[usb]]").next().unwrap();
        let small = rule.replace("4096", "100").replace("reference-text-in", "small");
        text.replacen("[[clipboard]]", &format!("[[clipboard]]{small}[[clipboard]]"), 1)
    });
    assert!(split.flows.is_empty(), "{split}");
}

#[test]
fn rules_on_one_line_are_told_apart() {
    let domains = DESIGN.split("\n[[clipboard]]").next().unwrap();
    let domains = domains.split("\n[[detector]]").next().unwrap();
    let old = format!(
        "{domains}\n[[usb]]\nid = \"x\"\nmatch = {{ vendor = 0x1234 }}\nto = \"clinical\"\naction = \"allow\"\n"
    );
    // What is plugged in goes to internet by one rule; what is attached to clinical by hand is denied by the other.
    let rules = "usb = [ { id = \"a\", match = { vendor = 0x1234 }, to = \"internet\", action = \"allow\" }, { id = \"b\", match = { vendor = 0x1234 }, action = \"deny\" } ]";
    let new = domains.replacen("\n[[domain]]", &format!("\n{rules}\n[[domain]]"), 1);
    assert!(new.contains(rules));
    let found = diff(&draft(&old), &draft(&new));
    let into_clinical =
        |change: &&diff::Change| matches!(&change.flow, Flow::Usb { to, .. } if to == "clinical");
    let rules: Vec<_> = found
        .flows
        .iter()
        .filter(into_clinical)
        .map(|change| (change.after.rule.as_deref(), change.flow.to_string()))
        .collect();
    let [(Some("a"), plugged_in), (Some("b"), by_hand)] = rules.as_slice() else {
        panic!("{rules:?}")
    };
    assert!(plugged_in.contains("plugged in") && !plugged_in.contains("by hand"), "{plugged_in}");
    assert!(by_hand.contains("by hand") && !by_hand.contains("plugged in"), "{by_hand}");
}

#[test]
fn settings_that_loosen_something_are_wider() {
    assert!(
        after(|text| text.replace("persistence = \"discard\"", "persistence = \"keep\"")).widened
    );
    assert!(after(|text| text.replace("idle_lock = \"10m\"", "idle_lock = \"20m\"")).widened);
    assert!(after(|text| text.replace("idle_lock = \"10m\"\n", "")).widened);
    assert!(
        !after(|text| text
            .replace("hotkey = \"Ctrl+Alt+2\"", "hotkey = \"Ctrl+Alt+2\"\nidle_lock = \"5m\""))
        .widened
    );
    assert!(after(|text| text.replace("port = 443, ", "port = 80, ")).widened);
    assert!(
        after(|text| text.replace("reason_required = true", "reason_required = false")).widened
    );
    assert!(
        !after(|text| text.replace("max_duration = \"30m\"", "max_duration = \"10m\"")).widened
    );
    assert!(!after(|text| text.replace("#b3261e", "#b3261f")).widened);
    let reasons = "reason_required = true\nreasons = [\"system down\"]";
    let opened = after(|text| text.replace("reason_required = true", reasons));
    assert!(opened.widened, "the seat can open break-glass, which only IT could before");
    let named = |text: &str| text.replace("reason_required = true", reasons);
    let (old, new) =
        (draft(&named(DESIGN)), draft(&named(DESIGN).replace("system down", "no network")));
    let changed = diff(&old, &new);
    assert!(!changed.settings.is_empty() && !changed.widened, "{changed}");
}
