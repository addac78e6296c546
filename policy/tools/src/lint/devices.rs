//! Device rules that decide nothing, or more than they should.
//!
//! A rule is a box in the space of devices: in each of class, vendor, product, serial and port it is one value or all of
//! them. Where a field has values that no rule names, what the earlier rules leave of a box includes the devices with
//! such values, and those only a rule with that field open can take. So earlier rules cover a box together only if one
//! of them covers it alone, and that one is found like a device's first rule. The exception is a finite field of which
//! every value is named; there the box is cut up and each piece looked at.

use std::collections::BTreeSet;

use super::{unreachable, warn};
use form::effort;
use policy::Policy;
use policy::diagnostic::{Diagnostic, Findings, Spanned};
use policy::index::{DeviceIndex, Fields, listed};
use policy::language::{DeviceMatch, DomainId, Head, UsbAction, UsbClass, UsbRule};

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    lint_within(LOOKS_MAX, policy, found);
}

/// Returns what is left of the looks, if any were needed.
fn lint_within(looks: usize, policy: &Policy, found: &mut Findings) -> Option<usize> {
    let boxes = || policy.usb().iter().map(|rule| Fields::of(&rule.matches, rule.class()));
    let exhausted = FINITE.iter().any(|field| field.is_exhausted(boxes()));
    let mut looks = exhausted.then_some(Budget { left: looks, given_up: None });
    for (number, rule) in policy.usb().iter().enumerate() {
        match never_matches(policy, rule) {
            Some(warning) => found.push(warning),
            None => reach(policy, number, rule, &mut looks, found),
        }
        admits(rule, found);
    }
    if let Some((first, others)) = looks.as_ref().and_then(|looks| looks.given_up) {
        let and_others = match others {
            0 => String::new(),
            1 => ", or one rule below it,".to_owned(),
            many => format!(", or any of {many} rules below it,"),
        };
        warn(
            first.id.span,
            format!(
                "it was not looked into whether the rule `{}`{and_others} is ever reached: there are too many rules above",
                first.id.value
            ),
            "let one rule without a class, a vendor or a product stand for the many that name every one there is",
            found,
        );
    }
    for (number, rule) in policy.input().iter().enumerate() {
        let fields = Fields::of(&rule.matches, None);
        let first = policy.index().input.first_covering(&fields).filter(|first| *first < number);
        if let Some(first) = first.and_then(|first| policy.input().get(first)) {
            found.push(unreachable(&rule.head, [&first.head]));
        }
    }
    looks.map(|looks| looks.left)
}

/// Finds a rule that no device in the world can meet.
fn never_matches(policy: &Policy, rule: &UsbRule) -> Option<Diagnostic> {
    if rule.class() == Some(UsbClass::HUB) {
        return Some(Diagnostic::warning(
            rule.matches.span,
            format!("the rule `{}` can never match", rule.head.id.value),
            "hubs never enter a domain, whatever the rules say: remove it",
        ));
    }
    let marked = rule.break_glass.filter(|marked| **marked)?;
    if listed(rule, policy.break_glass()) {
        return None;
    }
    Some(Diagnostic::warning(
        marked.span,
        format!("the rule `{}` can never match: break-glass does not open it", rule.head.id.value),
        format!(
            "add it to `allow_usb` under [break_glass]: allow_usb = [\"{}\"]",
            rule.head.id.value
        ),
    ))
}

/// How many times a rule may be looked at while rules are held against several earlier ones at once. A few dozen rules below those that
/// name every class take a hundredth of it.
const LOOKS_MAX: usize = 5_000_000;

/// Rules that are held against several earlier ones at once: the work for it grows with more than the length of the policy, so it ends.
#[derive(Debug)]
struct Budget<'p> {
    left: usize,
    /// The first rule that was not looked into to the end, and how many more there are.
    given_up: Option<(&'p Head, usize)>,
}

/// There were not enough looks left: nothing is known of the rule.
#[derive(Debug)]
struct BudgetSpent;

impl Budget<'_> {
    /// Takes so many.
    ///
    /// # Errors
    /// There are not so many, and from then on none.
    fn take(&mut self, count: usize) -> Result<(), BudgetSpent> {
        effort::spend(count.min(self.left));
        let left = self.left.checked_sub(count);
        self.left = left.unwrap_or(0);
        left.map(|_| ()).ok_or(BudgetSpent)
    }
}

fn reach<'p>(
    policy: &'p Policy,
    number: usize,
    rule: &'p UsbRule,
    looks: &mut Option<Budget<'p>>,
    found: &mut Findings,
) {
    let bound_for = match rule.to {
        Some(to) => vec![*to],
        None => (0..).take(policy.domains().len()).map(DomainId).collect(),
    };
    let open = rule.only_in_break_glass();
    let fields = Fields::of(&rule.matches, rule.class());
    let mut instead: Vec<&Head> = Vec::new();
    for to in bound_for {
        let index = policy.index().usb.bound_for(open, to);
        let alone =
            index.and_then(|index| index.first_covering(&fields)).filter(|first| *first < number);
        if let Some(first) = alone.and_then(|first| policy.usb().get(first)) {
            instead.push(&first.head);
            continue;
        }
        // Several cover it together only where a field has no value left that no rule names.
        let Some(looks) = looks else { return };
        let counts = |other: &&UsbRule| {
            other.to.is_none_or(|other| *other == to)
                && (!other.only_in_break_glass() || (open && listed(other, policy.break_glass())))
        };
        let together = looks.take(number).and_then(|()| {
            let earlier = policy.usb().iter().take(number).filter(counts);
            let earlier =
                earlier.map(|other| (Fields::of(&other.matches, other.class()), &other.head));
            covered_together(fields, &earlier.collect::<Vec<EarlierRule<'_>>>(), looks)
        });
        match together {
            Ok(Some(together)) => instead.extend(together),
            Ok(None) => return,
            Err(BudgetSpent) => {
                looks.given_up = Some(match looks.given_up {
                    Some((first, others)) => (first, others + 1),
                    None => (&rule.head, 0),
                });
                return;
            }
        }
    }
    found.push(unreachable(&rule.head, instead));
}

/// An earlier rule: what it matches, and where it stands.
type EarlierRule<'p> = (Fields<'p>, &'p Head);

/// A field with finitely many values.
struct FiniteField {
    /// How many a device can have: hubs reach no rule, so their class does not count.
    count: usize,
    values: fn() -> Box<dyn Iterator<Item = u16>>,
    get: fn(&Fields<'_>) -> Option<u16>,
    set: for<'r> fn(Fields<'r>, u16) -> Fields<'r>,
}

const FINITE: [FiniteField; 3] = [
    FiniteField {
        count: 255,
        values: || Box::new((0..=255).filter(|class| *class != u16::from(UsbClass::HUB.0))),
        get: |fields| {
            fields.class.filter(|class| *class != UsbClass::HUB).map(|class| class.0.into())
        },
        set: |fields, class| Fields { class: u8::try_from(class).ok().map(UsbClass), ..fields },
    },
    FiniteField {
        count: 1 << 16,
        values: || Box::new(0..=u16::MAX),
        get: |fields| fields.vendor,
        set: |fields, vendor| Fields { vendor: Some(vendor), ..fields },
    },
    FiniteField {
        count: 1 << 16,
        values: || Box::new(0..=u16::MAX),
        get: |fields| fields.product,
        set: |fields, product| Fields { product: Some(product), ..fields },
    },
];

impl FiniteField {
    /// Returns whether these rules name every value.
    fn is_exhausted<'f>(&self, rules: impl Iterator<Item = Fields<'f>>) -> bool {
        let named: BTreeSet<u16> = rules.filter_map(|fields| (self.get)(&fields)).collect();
        named.len() >= self.count
    }
}

/// Returns the earlier rules that together leave nothing of a box, although none of them covers it alone; `None` if something is left.
fn covered_together<'p>(
    target: Fields<'p>,
    earlier: &[EarlierRule<'p>],
    looks: &mut Budget<'p>,
) -> Result<Option<Vec<&'p Head>>, BudgetSpent> {
    looks.take(FINITE.len().saturating_mul(earlier.len()))?;
    let boxes = || earlier.iter().map(|(fields, _)| *fields);
    let cut = |field: &&FiniteField| (field.get)(&target).is_none() && field.is_exhausted(boxes());
    let Some(field) = FINITE.iter().find(cut) else { return Ok(None) };
    let mut heads = Vec::new();
    for value in (field.values)() {
        looks.take(earlier.len().saturating_add(1))?;
        let piece = (field.set)(target, value);
        let reaches =
            |(fields, _): &&EarlierRule<'p>| (field.get)(fields).is_none_or(|named| named == value);
        let earlier: Vec<EarlierRule<'p>> = earlier.iter().filter(reaches).copied().collect();
        let index = DeviceIndex::new(earlier.iter().map(|(fields, _)| *fields).enumerate());
        match index.first_covering(&piece) {
            Some(first) => heads.extend(earlier.get(first).map(|(_, head)| *head)),
            None => match covered_together(piece, &earlier, looks)? {
                Some(together) => heads.extend(together),
                None => return Ok(None),
            },
        }
    }
    Ok(Some(heads))
}

/// Finds rules that let in more than their writer may have thought.
fn admits(rule: &UsbRule, found: &mut Findings) {
    if *rule.action == UsbAction::Deny {
        return;
    }
    let matches: &Spanned<DeviceMatch> = &rule.matches;
    if matches.is_empty() && *rule.action == UsbAction::Allow {
        warn(
            matches.span,
            format!("the rule `{}` admits every USB device there is", rule.head.id.value),
            "say which: `{ class = \"smart-card\" }`",
            found,
        );
    }
    const COMMUNICATIONS: UsbClass = UsbClass(0x02);
    const WIRELESS: UsbClass = UsbClass(0xe0);
    if let Some(class @ (COMMUNICATIONS | WIRELESS)) = matches.class {
        warn(
            matches.span,
            format!(
                "{class} devices can be network adapters, which join the domain to a network of their own"
            ),
            "name the vendor and product that you mean",
            found,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policy::diagnostic::Diagnostics;

    const HEAD: &str = include_str!("../../tests/one-domain.toml");

    fn rule(id: &str, matches: &str) -> String {
        format!("[[usb]]\nid = \"{id}\"\nmatch = {{ {matches} }}\naction = \"deny\"\n")
    }

    #[test]
    fn a_rule_that_was_looked_into_to_the_end_is_not_called_unexamined_by_the_last_look() {
        let classes: String = (0..=255)
            .map(|c| rule(&format!("c{c}"), &format!("vendor = 1, class = {c}")))
            .collect();
        // Something is left of the last: devices of other vendors.
        let text = format!("{HEAD}{classes}{}", rule("last", "vendor = 2"));
        let policy = Policy::draft("policy.toml", &text).unwrap();
        let unexamined = |looks: usize| {
            let mut found = Findings::default();
            let left = lint_within(looks, &policy, &mut found).unwrap();
            let found = Diagnostics::of(policy.source().clone(), found);
            (left, found.iter().filter(|found| found.message.contains("not looked into")).count())
        };
        let (left, none) = unexamined(LOOKS_MAX);
        assert!(left < LOOKS_MAX && none == 0);
        let needed = LOOKS_MAX - left;
        assert_eq!(unexamined(needed), (0, 0));
        assert_eq!(unexamined(needed - 1), (0, 1));
    }
}
