//! Random policies over a small world, every request in that world, and an interpreter that reads rules from the top.
//!
//! The world is small so that it can be searched whole: values that rules name, and for each field one that none does.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests and does not know that this is one"
)]

use std::fmt::Write as _;

use policy::Policy;
use policy::decide::Decision;
use policy::language::{ClipboardAction, MediaType, UsbAction, UsbClass, UsbRule};
use policy::request::{
    ClipboardRequest, Context, HidUse, Request, UsbDevice, UsbFunction, UsbRequest,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

pub const DOMAINS: [&str; 3] = ["clinical", "internet", "lab"];
const TYPES: [&str; 3] = ["text/plain", "text/html", "image/png"];
const SIZES: [u64; 4] = [1, 10, 100, 1000];
const CLASSES: [&str; 4] = ["mass-storage", "smart-card", "hid", "hub"];
const ACTIONS: [&str; 3] = ["allow", "ask", "deny"];
const USB_ACTIONS: [&str; 3] = ["allow", "read-only", "deny"];

/// Makes texts that are policies, most of them valid.
pub fn policy_text() -> impl Strategy<Value = String> {
    (vec(any::<bool>(), 3), vec(clipboard_rule(), 0..7), vec(usb_rule(), 0..9), vec(input_rule(), 0..4), any::<bool>())
        .prop_map(|(high, clipboard, usb, input, break_glass)| {
            let mut text = String::from("format = 1\nserial = 1\nissuer = \"Office\"\n");
            for (number, (name, high)) in DOMAINS.iter().zip(high).enumerate() {
                _ = writeln!(
                    text,
                    "[[domain]]\nname = \"{name}\"\nlabel = \"{name}\"\ncolour = \"#00000{number}\"\n\
                     hotkey = \"Ctrl+Alt+{number}\"\nnetwork = \"none\"\npersistence = \"keep\"\npriority = \"{}\"",
                    if high { "high" } else { "normal" }
                );
            }
            for (number, rule) in clipboard.iter().enumerate() {
                _ = writeln!(text, "[[clipboard]]\nid = \"c{number}\"\n{rule}");
            }
            let mut listed = Vec::new();
            for (number, (rule, marked, list)) in usb.iter().enumerate() {
                _ = writeln!(text, "[[usb]]\nid = \"u{number}\"\n{rule}");
                if *marked {
                    text.push_str("break_glass = true\n");
                    listed.extend(list.then(|| format!("\"u{number}\"")));
                }
            }
            for (number, rule) in input.iter().enumerate() {
                _ = writeln!(text, "[[input]]\nid = \"i{number}\"\n{rule}");
            }
            if break_glass {
                _ = writeln!(text, "[break_glass]\nallow_usb = [{}]", listed.join(", "));
            }
            text
        })
}

fn clipboard_rule() -> impl Strategy<Value = String> {
    let pair =
        (0..3usize, 1..3usize).prop_map(|(from, step)| (DOMAINS[from], DOMAINS[(from + step) % 3]));
    let inspect = subsequence(vec!["korean-rrn", "kr-phone"], 0..=2);
    (pair, subsequence(TYPES.to_vec(), 1..=3), option::of(select(&SIZES)), select(&ACTIONS), inspect).prop_map(
        |((from, to), types, max, action, inspect)| {
            let max = max.map_or(String::new(), |max| format!("max_bytes = {max}\n"));
            format!(
                "from = \"{from}\"\nto = \"{to}\"\ntypes = {types:?}\n{max}action = \"{action}\"\ninspect = {inspect:?}"
            )
        },
    )
}

/// Makes a rule, whether it is marked for break-glass, and whether break-glass lists it then.
fn usb_rule() -> impl Strategy<Value = (String, bool, bool)> {
    let fields = (
        option::of(select(&CLASSES)),
        option::of(1..3u16),
        option::weighted(0.3, 1..3u16),
        option::weighted(0.2, Just("A")),
        option::weighted(0.2, Just("1-1")),
    );
    let to = option::weighted(0.9, select(&DOMAINS));
    (fields, to, select(&USB_ACTIONS), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
        .prop_map(|((class, vendor, product, serial, port), to, action, marked, listed)| {
            let class = if action == "read-only" { class.map(|_| "mass-storage") } else { class };
            let action = if to.is_none() { "deny" } else { action };
            let to = to.map_or(String::new(), |to| format!("to = \"{to}\"\n"));
            let matches = matches(class, vendor, product, serial, port);
            (format!("match = {matches}\n{to}action = \"{action}\""), marked, listed)
        })
}

fn input_rule() -> impl Strategy<Value = String> {
    let fields = (1..3u16, option::of(1..3u16), option::of(Just("A")), option::of(Just("1-1")));
    (fields, select(&DOMAINS)).prop_map(|((vendor, product, serial, port), to)| {
        format!("match = {}\nto = \"{to}\"", matches(None, Some(vendor), product, serial, port))
    })
}

fn matches(
    class: Option<&str>,
    vendor: Option<u16>,
    product: Option<u16>,
    serial: Option<&str>,
    port: Option<&str>,
) -> String {
    let parts = [
        class.map(|class| format!("class = \"{class}\"")),
        vendor.map(|vendor| format!("vendor = {vendor}")),
        product.filter(|_| vendor.is_some()).map(|product| format!("product = {product}")),
        serial.map(|serial| format!("serial = \"{serial}\"")),
        port.map(|port| format!("port = \"{port}\"")),
    ];
    format!("{{ {} }}", parts.into_iter().flatten().collect::<Vec<_>>().join(", "))
}

/// Returns every key that the reading code asks for, with its tables: `domain.egress.to`. An unknown key in a table is answered with
/// those that are known there.
pub fn keys_of_the_language() -> std::collections::BTreeSet<String> {
    const UNKNOWN: &str = "zzzzzzzzzzzzzzzz = 1";
    let inside = |table: &str, key: &str, open: &str, close: &str| {
        (format!("{table}.{key}"), format!("[[{table}]]\n{key} = {open}{{ {UNKNOWN} }}{close}\n"))
    };
    let mut texts = vec![
        inside("domain", "egress", "[", "]"),
        inside("usb", "match", "", ""),
        inside("input", "match", "", ""),
        inside("expect", "clipboard", "", ""),
        inside("expect", "usb", "", ""),
    ];
    for table in ["domain", "detector", "clipboard", "usb", "input", "expect"] {
        texts.push((table.to_owned(), format!("[[{table}]]\n{UNKNOWN}\n")));
    }
    for table in ["hotkeys", "break_glass"] {
        texts.push((table.to_owned(), format!("[{table}]\n{UNKNOWN}\n")));
    }
    texts.push((String::new(), format!("{UNKNOWN}\n")));
    let mut keys = std::collections::BTreeSet::new();
    for (table, text) in texts {
        let found = Policy::draft("keys.toml", &text).unwrap_err();
        let of_the_table = |help: &str| {
            help.strip_prefix("remove it; known here: ")
                .map(|list| list.split(", ").map(str::to_owned).collect::<Vec<_>>())
        };
        let known: Vec<Vec<String>> =
            found.iter().filter_map(|mistake| of_the_table(&mistake.help)).collect();
        assert_eq!(known.len(), 1, "{text} {found}");
        let path =
            |key: &String| if table.is_empty() { key.clone() } else { format!("{table}.{key}") };
        keys.extend(known.iter().flatten().map(path));
    }
    keys
}

pub fn draft(text: &str) -> Policy {
    Policy::draft("policy.toml", text).unwrap_or_else(|found| panic!("{found}\n{text}"))
}

/// Makes every clipboard request worth asking.
pub fn clipboard_requests() -> Vec<ClipboardRequest<'static>> {
    let mut requests = Vec::new();
    for from in DOMAINS.into_iter().chain(["nowhere"]) {
        for to in DOMAINS {
            for (_, media_type) in MediaType::WORDS {
                for bytes in [0, 1, 2, 10, 11, 100, 101, 1000, 1001, u64::MAX] {
                    requests.push(ClipboardRequest { from, to, media_type, bytes });
                }
            }
        }
    }
    requests
}

/// Makes devices of one function: of every class, vendor, product, serial number and port that rules name, and one more.
pub fn devices() -> Vec<UsbDevice<'static>> {
    const FUNCTIONS: [UsbFunction; 4] = [
        UsbFunction::new(0x08, 0x06, 0x50),
        UsbFunction::new(0x0b, 0, 0),
        UsbFunction { hid: HidUse::Other, ..UsbFunction::new(0x03, 0, 0) },
        UsbFunction::new(0x0e, 1, 0),
    ];
    let mut devices = Vec::new();
    for function in &FUNCTIONS {
        for vendor in 1..=3 {
            for product in 1..=3 {
                for serial in [None, Some("A"), Some("B")] {
                    for port in [None, Some("1-1"), Some("1-2")] {
                        let functions = std::slice::from_ref(function);
                        devices.push(UsbDevice { vendor, product, serial, port, functions });
                    }
                }
            }
        }
    }
    devices
}

/// Lists every way to bring a device in.
pub fn ways() -> impl Iterator<Item = (Option<&'static str>, Context)> {
    [None].into_iter().chain(DOMAINS.map(Some)).flat_map(|to| {
        [false, true].into_iter().map(move |break_glass| (to, Context { break_glass }))
    })
}

pub fn usb_request<'a>(device: UsbDevice<'a>, to: Option<&'static str>) -> UsbRequest<'a> {
    UsbRequest { device, to }
}

/// A verdict as far as the rules determine it: decision, deciding rule, and the domain a device goes to.
pub type Answer = (Decision, Option<String>, Option<String>);

pub fn answer(policy: &Policy, request: &Request<'_>, context: &Context) -> Answer {
    let verdict = policy.decide(request, context);
    let admitted = verdict.to().filter(|_| verdict.decision() != Decision::Deny);
    (
        verdict.decision(),
        verdict.rule().map(|rule| rule.id.to_string()),
        admitted.map(|to| to.name.to_string()),
    )
}

/// Decides as `docs/security-office/policy-handbook.md` says: the rules of a list from the top, the first that matches.
pub fn naive(policy: &Policy, request: &Request<'_>, context: &Context) -> Answer {
    match request {
        Request::Clipboard(request) => naive_clipboard(policy, request),
        Request::Usb(request) => naive_usb(policy, request, context),
    }
}

const NO: Answer = (Decision::Deny, None, None);

fn naive_clipboard(policy: &Policy, request: &ClipboardRequest<'_>) -> Answer {
    let name = |id| policy.domain_by_id(id).unwrap().name.as_str();
    for rule in policy.clipboard() {
        let fits = name(*rule.from) == request.from
            && name(*rule.to) == request.to
            && rule.types.iter().any(|media_type| **media_type == request.media_type)
            && rule.max_bytes.is_none_or(|max| request.bytes <= *max);
        if fits {
            let blind = !rule.inspect.is_empty() && !request.media_type.is_readable();
            let decision = match *rule.action {
                ClipboardAction::Deny => Decision::Deny,
                _ if blind => Decision::Deny,
                ClipboardAction::Ask => Decision::Ask,
                ClipboardAction::Allow => Decision::Allow,
            };
            let to = (decision != Decision::Deny).then(|| request.to.to_owned());
            return (decision, Some(rule.head.id.to_string()), to);
        }
    }
    NO
}

fn naive_usb(policy: &Policy, request: &UsbRequest<'_>, context: &Context) -> Answer {
    let device = &request.device;
    for function in device.functions {
        let keyboard = function.class.0 == 3
            && (function.protocol != 0 || function.hid == HidUse::KeyboardOrMouse);
        if keyboard || function.class.0 == 9 {
            return NO;
        }
    }
    let mut answers = Vec::new();
    for function in device.functions {
        let answer = naive_function(policy, request, function.class, context);
        if answer.0 == Decision::Deny {
            return answer;
        }
        answers.push(answer);
    }
    let Some(first) = answers.first().cloned() else {
        return NO;
    };
    if answers.iter().any(|answer| answer.2 != first.2) {
        return NO;
    }
    answers.into_iter().find(|answer| answer.0 == Decision::ReadOnly).unwrap_or(first)
}

fn naive_function(
    policy: &Policy,
    request: &UsbRequest<'_>,
    class: UsbClass,
    context: &Context,
) -> Answer {
    let device = &request.device;
    for rule in policy.usb() {
        let to = rule.to.map(|to| policy.domain_by_id(*to).unwrap().name.as_str());
        let matches = &rule.matches;
        let storage_only = *rule.action == UsbAction::ReadOnly;
        let fits = counts(policy, rule, context)
            && (to.is_none() || request.to.is_none() || to == request.to)
            && matches.class.is_none_or(|wanted| wanted == class)
            && (!storage_only || class == UsbClass::MASS_STORAGE)
            && matches.vendor.is_none_or(|vendor| vendor == device.vendor)
            && matches.product.is_none_or(|product| product == device.product)
            && matches.serial.as_deref().is_none_or(|serial| Some(serial) == device.serial)
            && matches.port.as_deref().is_none_or(|port| Some(port) == device.port);
        if fits {
            let decision = match *rule.action {
                UsbAction::Deny => Decision::Deny,
                UsbAction::ReadOnly => Decision::ReadOnly,
                UsbAction::Allow => Decision::Allow,
            };
            let to = to.filter(|_| decision != Decision::Deny).map(str::to_owned);
            return (decision, Some(rule.head.id.to_string()), to);
        }
    }
    NO
}

fn counts(policy: &Policy, rule: &UsbRule, context: &Context) -> bool {
    let marked = rule.break_glass.is_some_and(|marked| *marked);
    let listed = policy
        .break_glass()
        .is_some_and(|open| open.allow_usb.iter().any(|id| id.value == rule.head.id.value));
    !marked || (context.break_glass && listed)
}

/// Finds the rule that ties an input device, read from the top.
pub fn naive_tie(policy: &Policy, device: &UsbDevice<'_>) -> Option<String> {
    let rule = policy.input().iter().find(|rule| {
        let matches = &rule.matches;
        matches.vendor.is_none_or(|vendor| vendor == device.vendor)
            && matches.product.is_none_or(|product| product == device.product)
            && matches.serial.as_deref().is_none_or(|serial| Some(serial) == device.serial)
            && matches.port.as_deref().is_none_or(|port| Some(port) == device.port)
    })?;
    Some(rule.head.id.to_string())
}
