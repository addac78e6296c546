//! The diff over every key of the language: a policy that says each of them, each of them changed, and what may happen then found by
//! deciding.
//!
//! What a policy lets happen is a set of sentences, each the answer to one question that is asked of the policy itself: may this text
//! be pasted, who hears what is typed on this scanner, is the screen still open after so long. The new policy is wider exactly if a
//! sentence is true of it that was not of the old one.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests and does not know that this is one"
)]

mod sentences;
#[path = "../../../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;

use policy::Policy;
use policy::enforcement::{DiffTreatment, LANGUAGE};
use policy_tools::diff;
use proptest::prelude::*;
use sentences::{differ, is_wider};
use support::draft;

/// A policy with a hole for the value of every key.
const TEXT: &str = r##"
format = {format}
serial = {serial}
issuer = {issuer}

[[domain]]
name = "{domain.name}"
label = {domain.label.0}
colour = {domain.colour.0}
hotkey = {domain.hotkey.0}
network = {domain.network}
persistence = {domain.persistence}
priority = {domain.priority}
{domain.idle_lock}
egress = [ { to = {domain.egress.to}, port = {domain.egress.port}, proto = {domain.egress.proto}, purpose = {domain.egress.purpose} } ]

[[domain]]
name = "internet"
label = {domain.label.1}
colour = {domain.colour.1}
hotkey = {domain.hotkey.1}
network = "none"
persistence = "discard"
{domain.renew_at}
{domain.renew_when_idle}

[[domain]]
name = "lab"
label = "LAB"
colour = "#f0b429"
hotkey = "Ctrl+Alt+3"
network = "none"
persistence = "discard"

[hotkeys]
copy = {hotkeys.copy}
paste = {hotkeys.paste}
lock = {hotkeys.lock.0}
break_glass = {hotkeys.lock.1}

[[detector]]
name = "{detector.name}"
regex = {detector.regex}

[[clipboard]]
id = {clipboard.id}
from = {clipboard.from}
to = "{clipboard.to}"
types = {clipboard.types}
{clipboard.max_bytes}
action = {clipboard.action}
inspect = [{clipboard.inspect}]

[[usb]]
id = {usb.id}
match = { {usb.match.class} {usb.match.vendor} {usb.match.product} {usb.match.serial} {usb.match.port} }
to = {usb.to}
action = {usb.action}
break_glass = {usb.break_glass}

[[usb]]
id = "emergency"
match = { class = "smart-card", vendor = 0x0101 }
to = "internet"
action = "allow"
break_glass = true

[[input]]
id = {input.id}
match = { {input.match.vendor} {input.match.product} {input.match.serial} {input.match.port} }
to = {input.to}

[break_glass]
max_duration = {break_glass.max_duration}
reason_required = {break_glass.reason_required}
{break_glass.reasons}
allow_usb = [{break_glass.allow_usb}]

[[expect]]
clipboard = { from = {expect.clipboard.from}, to = {expect.clipboard.to}, type = {expect.clipboard.type}, text = {expect.clipboard.text}, bytes = {expect.clipboard.bytes} }
verdict = {expect.verdict}
{expect.rule}

[[expect]]
usb = { vendor = {expect.usb.vendor}, product = {expect.usb.product}, serial = {expect.usb.serial}, port = {expect.usb.port}, interfaces = {expect.usb.interfaces}, to = {expect.usb.to} }
verdict = "deny"
break_glass = {expect.break_glass}
"##;

/// What each key may be. Two desktops' labels, colours and hotkeys stand together, and so do two hotkeys, since they are what is exchanged.
const VALUES: &[(&str, &[&[&str]])] = &[
    ("format", &[&["1"]]),
    ("serial", &[&["7"], &["8"]]),
    ("issuer", &[&["\"Office\""], &["\"Somebody else\""]]),
    ("domain.name", &[&["clinical"], &["ward"]]),
    (
        "domain.label",
        &[
            &["\"CLINICAL\"", "\"INTERNET\""],
            &["\"INTERNET\"", "\"CLINICAL\""],
            &["\"WARD\"", "\"INTERNET\""],
        ],
    ),
    (
        "domain.colour",
        &[
            &["\"#1f4e9c\"", "\"#b3261e\""],
            &["\"#b3261e\"", "\"#1f4e9c\""],
            &["\"#b3261f\"", "\"#1f4e9d\""],
            &["\"#1f4e9d\"", "\"#b3261e\""],
        ],
    ),
    (
        "domain.hotkey",
        &[
            &["\"Ctrl+Alt+1\"", "\"Ctrl+Alt+2\""],
            &["\"Ctrl+Alt+2\"", "\"Ctrl+Alt+1\""],
            &["\"Ctrl+Alt+5\"", "\"Ctrl+Alt+2\""],
        ],
    ),
    ("domain.network", &[&["\"passthrough\""], &["\"none\""]]),
    ("domain.persistence", &[&["\"discard\""], &["\"keep\""]]),
    (
        "domain.renew_at",
        &[&[""], &["renew_at = [\"07:00\"]"], &["renew_at = [\"23:00\", \"07:00\"]"]],
    ),
    (
        "domain.renew_when_idle",
        &[&["renew_when_idle = \"10m\""], &["renew_when_idle = \"20m\""], &[""]],
    ),
    ("domain.priority", &[&["\"high\""], &["\"normal\""]]),
    (
        "domain.idle_lock",
        &[&["idle_lock = \"10m\""], &["idle_lock = \"20m\""], &["idle_lock = \"5m\""], &[""]],
    ),
    ("domain.egress.to", &[&["\"10.0.0.0/8\""], &["\"10.0.0.0/16\""], &["\"0.0.0.0/0\""]]),
    ("domain.egress.port", &[&["443"], &["80"]]),
    ("domain.egress.proto", &[&["\"tcp\""], &["\"udp\""]]),
    ("domain.egress.purpose", &[&["\"HTTPS\""], &["\"web\""]]),
    ("hotkeys.copy", &[&["\"Ctrl+Alt+C\""], &["\"Ctrl+Alt+K\""]]),
    ("hotkeys.paste", &[&["\"Ctrl+Alt+V\""], &["\"Ctrl+Alt+P\""]]),
    (
        "hotkeys.lock",
        &[&["\"Ctrl+Alt+L\"", "\"Ctrl+Alt+B\""], &["\"Ctrl+Alt+M\"", "\"Ctrl+Alt+B\""]],
    ),
    ("hotkeys.break_glass", &[&[], &["\"Ctrl+Alt+B\"", "\"Ctrl+Alt+L\""]]),
    ("detector.name", &[&["chart"], &["record"]]),
    ("detector.regex", &[&["'MRN[0-9]{8}'"], &["'XYZ[0-9]{8}'"]]),
    ("clipboard.id", &[&["\"text-in\""], &["\"text\""]]),
    ("clipboard.from", &[&["\"internet\""], &["\"lab\""]]),
    ("clipboard.to", &[&["{domain.name}"], &["{clipboard.other}"]]),
    ("clipboard.types", &[&["[\"text/plain\"]"], &["[\"text/plain\", \"file-list\"]"]]),
    ("clipboard.max_bytes", &[&["max_bytes = 100"], &["max_bytes = 1000"], &[""]]),
    ("clipboard.action", &[&["\"ask\""], &["\"allow\""], &["\"deny\""]]),
    ("clipboard.inspect", &[&["\"{detector.name}\""], &["\"korean-rrn\""], &[""]]),
    ("usb.id", &[&["\"reader\""], &["\"card\""]]),
    ("usb.match.class", &[&["class = \"mass-storage\","], &["class = \"smart-card\","], &[""]]),
    ("usb.match.vendor", &[&["vendor = 1,"], &["vendor = 2,"]]),
    ("usb.match.product", &[&["product = 1,"], &["product = 2,"], &[""]]),
    ("usb.match.serial", &[&["serial = \"A\","], &["serial = \"B\","], &[""]]),
    ("usb.match.port", &[&["port = \"1-1\""], &["port = \"1-2\""], &[""]]),
    ("usb.to", &[&["\"internet\""], &["\"lab\""]]),
    ("usb.action", &[&["\"allow\""], &["\"deny\""]]),
    ("usb.break_glass", &[&["false"], &["true"]]),
    ("input.id", &[&["\"scanner\""], &["\"wristbands\""]]),
    ("input.match.vendor", &[&["vendor = 1,"], &["vendor = 2,"]]),
    ("input.match.product", &[&["product = 1,"], &["product = 2,"], &[""]]),
    ("input.match.serial", &[&["serial = \"A\","], &["serial = \"B\","], &[""]]),
    ("input.match.port", &[&["port = \"1-1\""], &["port = \"1-2\""], &[""]]),
    ("input.to", &[&["\"internet\""], &["\"lab\""]]),
    ("break_glass.max_duration", &[&["\"30m\""], &["\"10m\""], &["\"1h\""]]),
    ("break_glass.reason_required", &[&["true"], &["false"]]),
    (
        "break_glass.reasons",
        &[&[""], &["reasons = [\"system down\"]"], &["reasons = [\"unconscious patient\"]"]],
    ),
    ("break_glass.allow_usb", &[&["\"emergency\""], &[""]]),
    ("expect.clipboard.from", &[&["\"lab\""], &["\"{domain.name}\""]]),
    ("expect.clipboard.to", &[&["\"internet\""], &["\"lab\""]]),
    ("expect.clipboard.type", &[&["\"text/plain\""], &["\"image/png\""]]),
    ("expect.clipboard.text", &[&["\"a\""], &["\"b\""]]),
    ("expect.clipboard.bytes", &[&["1"], &["2"]]),
    ("expect.usb.vendor", &[&["1"], &["2"]]),
    ("expect.usb.product", &[&["1"], &["2"]]),
    ("expect.usb.serial", &[&["\"A\""], &["\"B\""]]),
    ("expect.usb.port", &[&["\"1-1\""], &["\"1-2\""]]),
    ("expect.usb.interfaces", &[&["\"08/06/50\""], &["\"0b/00/00\""]]),
    ("expect.usb.to", &[&["\"lab\""], &["\"internet\""]]),
    ("expect.verdict", &[&["\"deny\""], &["\"allow\""]]),
    ("expect.rule", &[&["rule = \"text-in\""], &[""]]),
    ("expect.break_glass", &[&["false"], &["true"]]),
];

/// Which value each key has: the first, where none is chosen.
type Choice = BTreeMap<&'static str, usize>;

fn written(choice: &Choice) -> Option<String> {
    let value = |key: &str| {
        let values = VALUES.iter().find(|(known, _)| *known == key).map(|(_, values)| *values)?;
        values.get(choice.get(key).copied().unwrap_or(0)).copied()
    };
    let mut text = TEXT.to_owned();
    // The one exchange is written at the other's place.
    let exchanged = choice.get("hotkeys.break_glass").is_some_and(|chosen| *chosen > 0);
    if exchanged && choice.get("hotkeys.lock").is_some_and(|chosen| *chosen > 0) {
        return None;
    }
    let lock = value(if exchanged { "hotkeys.break_glass" } else { "hotkeys.lock" })?;
    for (number, word) in lock.iter().enumerate() {
        text = text.replace(&format!("{{hotkeys.lock.{number}}}"), word);
    }
    for (key, _) in VALUES {
        match value(key)? {
            [one] => text = text.replace(&format!("{{{key}}}"), one),
            several => {
                for (number, word) in several.iter().enumerate() {
                    text = text.replace(&format!("{{{key}.{number}}}"), word);
                }
            }
        }
    }
    // A value that holds a hole of its own, such as a name that was given above.
    let name = value("domain.name")?[0];
    let other = if text.contains("from = \"lab\"\nto = \"{clipboard.other}\"") {
        "internet"
    } else {
        "lab"
    };
    let text = text
        .replace("{domain.name}", name)
        .replace("{detector.name}", value("detector.name")?[0])
        .replace("{clipboard.other}", other);
    // An expectation's two domains are two.
    Some(text)
}

fn policy(choice: &Choice) -> Option<Policy> {
    Some(draft(&written(choice)?))
}

#[test]
fn every_key_that_is_changed_is_reported_or_listed_as_not_mattering() {
    let paths: Vec<&str> = VALUES.iter().map(|(path, _)| *path).collect();
    assert_eq!(paths, LANGUAGE.iter().map(|key| key.path).collect::<Vec<_>>(), "change each key");
    let old = policy(&Choice::new()).unwrap();
    for (key, (path, values)) in LANGUAGE.iter().zip(VALUES) {
        let mut changed_something = false;
        for number in 1..values.len() {
            let new = policy(&Choice::from([(*path, number)])).unwrap();
            for (old, new) in [(&old, &new), (&new, &old)] {
                let found = diff(old, new);
                let reported = !found.flows.is_empty() || !found.settings.is_empty();
                assert_eq!(found.widened, is_wider(old, new), "{path} {number}: {found}");
                assert_eq!(reported, differ(old, new), "{path} {number}: {found}");
                match key.compared {
                    DiffTreatment::Not(why) => {
                        assert!(!reported && !why.is_empty(), "{path}: {found}")
                    }
                    DiffTreatment::ByDecisions => {
                        assert!(!found.flows.is_empty(), "{path}: {found}")
                    }
                    DiffTreatment::AsSetting => {
                        assert!(!found.settings.is_empty(), "{path}: {found}")
                    }
                }
                changed_something = true;
            }
        }
        assert!(changed_something || *path == "format", "{path} has one value only");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_keys_are_changed_together_the_diff_says_wider_exactly_if_more_may_happen(
        one in choice(),
        other in choice(),
    ) {
        let (Some(old), Some(new)) = (policy(&one), policy(&other)) else { return Ok(()) };
        let found = diff(&old, &new);
        prop_assert_eq!(found.widened, is_wider(&old, &new), "{} {:?} {:?}", found, one, other);
        let reported = !found.flows.is_empty() || !found.settings.is_empty();
        prop_assert_eq!(reported, differ(&old, &new), "{}", found);
    }
}

/// Returns a few keys with another value than the first.
fn choice() -> impl Strategy<Value = Choice> {
    let chosen = (0..VALUES.len(), 0..4usize).prop_map(|(key, number)| {
        let (path, values) = VALUES[key];
        (path, number % values.len())
    });
    proptest::collection::vec(chosen, 0..4).prop_map(|chosen| chosen.into_iter().collect())
}
