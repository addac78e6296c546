//! USB devices and input devices that are treated otherwise.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::clipboard::domain_names;
use super::regions::{Budget, Region, RegionChange, Rule, compare};
use super::{AttachContext, Change, Flow, Outcome};
use policy::Policy;
use policy::decide::Decision;
use policy::index::{Fields, listed};
use policy::language::{Head, InputRule, UsbAction, UsbRule};

/// Every way in which a device comes to a domain.
const WAYS: [AttachContext; 4] = [
    AttachContext { by_hand: false, break_glass: false },
    AttachContext { by_hand: true, break_glass: false },
    AttachContext { by_hand: false, break_glass: true },
    AttachContext { by_hand: true, break_glass: true },
];

pub(super) fn usb(old: &Policy, new: &Policy, looks: &mut Budget) -> (Vec<Change>, Vec<String>) {
    let (mut changes, mut not_compared) = (Vec::new(), Vec::new());
    for to in domain_names(old, new) {
        let mut found: Vec<(Region, Outcome, Outcome, Vec<AttachContext>)> = Vec::new();
        let mut places: HashMap<(Region, [DeviceOutcome; 2]), usize> = HashMap::new();
        for when in WAYS {
            let (old, new) = (rules(old, to, when), rules(new, to, when));
            let compared = compare(&old, &new, &denied(None), &Outcome::is_like, looks);
            let Ok(compared) = compared else {
                not_compared.push(format!("USB -> {to} ({})", when.words()));
                continue;
            };
            for change in compared {
                let (region, before, after) = (change.region(), change.before, change.after);
                // A device's verdict and rule are all that its outcome says. Several rules may stand on one line.
                let says = [&before, &after].map(|says| (says.verdict, says.rule.clone()));
                match places.entry((region, says)) {
                    Entry::Occupied(place) => {
                        if let Some((.., whens)) = found.get_mut(*place.get()) {
                            whens.push(when);
                        }
                    }
                    Entry::Vacant(place) => {
                        let region = place.key().0.clone();
                        place.insert(found.len());
                        found.push((region, before, after, vec![when]));
                    }
                }
            }
        }
        changes.extend(found.into_iter().map(|(region, before, after, when)| {
            Change::new(Flow::Usb { to: to.to_owned(), when, region }, before, after)
        }));
    }
    (changes, not_compared)
}

/// What a policy says of a device: the verdict, and the rule's id.
type DeviceOutcome = (Decision, Option<String>);

/// Returns the rules that have a say over devices coming to `to` in this way, and what they say of that.
fn rules<'p>(policy: &'p Policy, to: &str, when: AttachContext) -> Vec<Rule<'p, Outcome>> {
    let goes_here = |rule: &UsbRule| {
        rule.to.is_none_or(|id| {
            policy.domain_by_id(*id).is_some_and(|domain| domain.name.as_str() == to)
        })
    };
    // A domain that this policy does not have gets nothing.
    let known = policy.domain(to).is_some();
    let counts = |rule: &&UsbRule| {
        let opened = when.break_glass && listed(rule, policy.break_glass());
        // Attached by hand, only the rules for this domain are asked; plugged in, all are, and one for another domain
        // takes the device there.
        known && (!rule.only_in_break_glass() || opened) && (!when.by_hand || goes_here(rule))
    };
    let says = |rule: &UsbRule| {
        let verdict = match *rule.action {
            UsbAction::Allow if goes_here(rule) => Decision::Allow,
            UsbAction::ReadOnly if goes_here(rule) => Decision::ReadOnly,
            _ => Decision::Deny,
        };
        Outcome { verdict, ..denied(Some(&rule.head)) }
    };
    let chosen = policy.usb().iter().filter(counts);
    chosen
        .map(|rule| Rule { fields: Fields::of(&rule.matches, rule.class()), says: says(rule) })
        .collect()
}

fn denied(rule: Option<&Head>) -> Outcome {
    Outcome {
        verdict: Decision::Deny,
        inspect: Vec::new(),
        tied_to: None,
        rule: rule.map(|head| head.id.to_string()),
        line: rule.map(|head| head.line),
        detectors: Vec::new(),
    }
}

/// Compares where input goes. What is typed always goes somewhere: it is allowed, into one domain or into whichever is in front.
pub(super) fn input(old: &Policy, new: &Policy, looks: &mut Budget) -> (Vec<Change>, Vec<String>) {
    let free = Outcome { verdict: Decision::Allow, ..denied(None) };
    let found = compare(&ties(old, &free), &ties(new, &free), &free, &Outcome::is_like, looks);
    let Ok(found) = found else { return (Vec::new(), vec!["input".to_owned()]) };
    let change = |found: RegionChange<Outcome>| {
        Change::new(Flow::Input { region: found.region() }, found.before, found.after)
    };
    (found.into_iter().map(change).collect(), Vec::new())
}

fn ties<'p>(policy: &'p Policy, free: &Outcome) -> Vec<Rule<'p, Outcome>> {
    let says = |rule: &InputRule| Outcome {
        tied_to: policy.domain_by_id(*rule.to).map(|domain| domain.name.to_string()),
        rule: Some(rule.head.id.to_string()),
        line: Some(rule.head.line),
        ..free.clone()
    };
    let rules = policy.input().iter();
    rules.map(|rule| Rule { fields: Fields::of(&rule.matches, None), says: says(rule) }).collect()
}
