//! The sentences that are true of a policy, found by asking it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use policy::Policy;
use policy::decide::{Decision, Paste};
use policy::language::{MediaType, Network, Persistence};
use policy::request::{Context, HidUse, Request, UsbDevice, UsbFunction, UsbRequest};

const NAMES: [&str; 4] = ["clinical", "ward", "internet", "lab"];

/// Returns whether something may happen that did not, a sign means something else than it did, or a promise is gone.
pub(crate) fn is_wider(old: &Policy, new: &Policy) -> bool {
    let (before, after) = (signs(old), signs(new));
    !may(new).is_subset(&may(old))
        || after.iter().any(|(sign, means)| before.get(sign).is_some_and(|meant| meant != means))
        || !promises(old).is_subset(&promises(new))
}

pub(crate) fn differ(old: &Policy, new: &Policy) -> bool {
    may(old) != may(new)
        || signs(old) != signs(new)
        || promises(old) != promises(new)
        || besides(old) != besides(new)
}

/// Returns everything that may happen.
fn may(policy: &Policy) -> BTreeSet<String> {
    let mut may = BTreeSet::new();
    for from in NAMES {
        for to in NAMES {
            for media_type in [MediaType::TextPlain, MediaType::FileList, MediaType::ImagePng] {
                for text in ["a", "MRN12345678", "XYZ12345678", "900101-1234568"] {
                    for size in [1, 100, 101, 1000, 1001] {
                        let content = Some(text.as_bytes());
                        let paste = Paste { from, to, media_type, content, size: Some(size) };
                        let verdict = policy.decide_paste(&paste).verdict.decision();
                        let what = format!("{from} -> {to}: {media_type}, {size} bytes of {text}");
                        if verdict != Decision::Deny {
                            may.insert(format!("{what} is pasted if the clinician says yes"));
                        }
                        if verdict == Decision::Allow {
                            may.insert(format!("{what} is pasted unasked"));
                        }
                    }
                }
            }
        }
    }
    for device in devices() {
        for to in [None, Some("clinical"), Some("ward"), Some("internet"), Some("lab")] {
            for break_glass in [false, true] {
                let request = Request::Usb(UsbRequest { device, to });
                let verdict = policy.decide(&request, &Context { break_glass });
                let gets = verdict.to().map(|domain| domain.name.to_string()).unwrap_or_default();
                let what = format!("{device:?}, break-glass {break_glass}, by hand {to:?}: {gets}");
                if verdict.decision() != Decision::Deny {
                    may.insert(format!("{what} reads it"));
                }
                if verdict.decision() == Decision::Allow {
                    may.insert(format!("{what} writes to it"));
                }
            }
        }
        for front in policy.domains() {
            let pinned = policy.pinned_to(&device).map(|(domain, _)| &domain.name.value);
            let hears = pinned.unwrap_or(&front.name.value);
            may.insert(format!("with {} in front {hears} hears {device:?}", front.name.value));
        }
    }
    for domain in policy.domains() {
        let name = &domain.name.value;
        may.insert(format!("{name} is a desktop"));
        if *domain.network != Network::None {
            may.insert(format!("{name} has a network"));
        }
        if domain.persistence == Persistence::Keep {
            may.insert(format!("{name} keeps what is stored"));
        }
        let renewed: BTreeSet<String> =
            domain.renew_at.iter().flat_map(|at| &at.value).map(|at| at.to_string()).collect();
        for time in ["07:00", "23:00"].into_iter().filter(|time| !renewed.contains(*time)) {
            may.insert(format!("{name} has after {time} what was stored before"));
        }
        for minutes in [10, 20] {
            if domain.renew_when_idle.is_none_or(|idle| idle.as_secs() > minutes * 60) {
                may.insert(format!("{name} has what was stored after {minutes} idle minutes"));
            }
        }
        for address in ["10.0.0.1", "10.200.0.1", "11.0.0.1"] {
            for port in [80, 443] {
                for proto in ["tcp", "udp"] {
                    let address: IpAddr = address.parse().unwrap();
                    let lets = domain.egress.as_ref().is_none_or(|places| {
                        places.iter().any(|place| {
                            let of_it = place.to.contains(address.to_string().parse().unwrap());
                            of_it && place.port == port && place.proto.word() == proto
                        })
                    });
                    if lets {
                        may.insert(format!("{name} connects to {address}, {port}/{proto}"));
                    }
                }
            }
        }
    }
    for minutes in [5, 10, 20] {
        let open = policy.idle_lock().is_none_or(|idle| idle.as_secs() > minutes * 60);
        if open {
            may.insert(format!("the screen is open after {minutes} minutes"));
        }
        let break_glass = policy.break_glass();
        if break_glass.is_some_and(|open| open.max_duration.as_secs() > minutes * 60) {
            may.insert(format!("break-glass is open after {minutes} minutes"));
        }
    }
    if policy.break_glass().is_some_and(|open| open.max_duration.as_secs() > 45 * 60) {
        may.insert("break-glass is open after 45 minutes".to_owned());
    }
    if policy.break_glass().is_some_and(|open| !open.reason_required) {
        may.insert("break-glass opens without a reason".to_owned());
    }
    if policy.break_glass().is_some_and(|open| open.opens_at_the_seat()) {
        may.insert("break-glass opens at the seat".to_owned());
    }
    may
}

/// Returns by what a clinician knows what: chords, and what the banner shows.
fn signs(policy: &Policy) -> BTreeMap<String, String> {
    let mut signs = BTreeMap::new();
    for domain in policy.domains() {
        // Nobody tells one shade from the next.
        let shade = domain.colour.to_string().chars().take(6).collect::<String>();
        for sign in [domain.label.value.clone(), shade, domain.hotkey.to_string()] {
            signs.insert(sign, domain.name.to_string());
        }
    }
    for (key, chord) in policy.hotkeys().iter() {
        signs.insert(chord.to_string(), key.to_owned());
    }
    signs
}

/// Returns what the policy promises of itself.
fn promises(policy: &Policy) -> BTreeSet<String> {
    let promise = |expected: &policy::language::Expectation| {
        let rule = expected.rule.as_ref().map(|rule| rule.value.to_string());
        let names: Vec<_> = policy.domains().iter().map(|domain| &domain.name.value).collect();
        format!(
            "{names:?} {:?} {} {rule:?} {}",
            expected.request, expected.break_glass, *expected.verdict
        )
    };
    policy.expectations().iter().map(promise).collect()
}

/// Returns what else it says that somebody goes by, and that lets nothing happen.
fn besides(policy: &Policy) -> Vec<String> {
    let domains = policy.domains().iter().map(|domain| {
        format!(
            "{:?} {:?} {} {}",
            domain.priority,
            domain.idle_lock.map(|idle| *idle),
            *domain.colour,
            *domain.network
        )
    });
    let reasons = policy.break_glass().map(|open| {
        open.reasons.iter().map(|reason| reason.value.clone()).collect::<Vec<_>>().join("; ")
    });
    domains.chain([policy.issuer().to_owned()]).chain(reasons).collect()
}

fn devices() -> Vec<UsbDevice<'static>> {
    const STORAGE: &[UsbFunction] = &[UsbFunction::new(0x08, 0x06, 0x50)];
    const READER: &[UsbFunction] = &[UsbFunction::new(0x0b, 0, 0)];
    const KEYS: &[UsbFunction] =
        &[UsbFunction { hid: HidUse::KeyboardOrMouse, ..UsbFunction::new(0x03, 1, 1) }];
    let mut devices = Vec::new();
    for functions in [STORAGE, READER, KEYS] {
        for vendor in [1, 2, 0x0101] {
            for product in [1, 2] {
                for serial in [None, Some("A"), Some("B")] {
                    for port in [Some("1-1"), Some("1-2")] {
                        devices.push(UsbDevice { vendor, product, serial, port, functions });
                    }
                }
            }
        }
    }
    devices
}
