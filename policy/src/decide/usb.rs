//! USB devices: every function must be admitted, and all of them to one domain.

use super::Decision;
use super::devices::{DeviceIndex, Fields};
use super::verdict::{Reason, Verdict};
use crate::language::{BreakGlass, DomainId, UsbAction, UsbClass, UsbRule};
use crate::policy::Policy;
use crate::request::{Context, HidUse, UsbDevice, UsbFunction, UsbRequest};

/// For every place a device can be bound for, the rules that have a say.
#[derive(Clone, Debug)]
pub(crate) struct UsbIndex {
    closed: Bound,
    open: Bound,
}

/// The rules that count while break-glass is closed, or open. A rule is in two of the indices at most, however many
/// domains there are.
#[derive(Clone, Debug)]
struct Bound {
    /// Plugged in: all of them, for their `to` is then where the device goes.
    nowhere: DeviceIndex,
    /// Attached by hand to a domain: those for that domain.
    domain: Vec<DeviceIndex>,
    /// And those for none in particular.
    any: DeviceIndex,
}

/// The rules that have a say over a device, in one index or two.
pub(crate) struct Chosen<'i>(&'i DeviceIndex, Option<&'i DeviceIndex>);

impl Chosen<'_> {
    /// The first rule that matches everything that `fields` does.
    pub(crate) fn first_covering(&self, fields: &Fields<'_>) -> Option<usize> {
        self.first_of(|index| index.first_covering(fields))
    }

    /// The first rule that matches a device's function.
    fn first(&self, device: &UsbDevice<'_>, class: UsbClass) -> Option<usize> {
        self.first_of(|index| index.first(device, Some(class)))
    }

    fn first_of(&self, find: impl Fn(&DeviceIndex) -> Option<usize>) -> Option<usize> {
        find(self.0).into_iter().chain(self.1.and_then(find)).min()
    }
}

impl UsbIndex {
    pub(crate) fn new(domains: usize, rules: &[UsbRule], break_glass: Option<&BreakGlass>) -> Self {
        let counting = |open: bool| -> Bound {
            let counts =
                |rule: &UsbRule| !rule.only_in_break_glass() || (open && listed(rule, break_glass));
            let all: Vec<(usize, &UsbRule)> =
                rules.iter().enumerate().filter(|(_, rule)| counts(rule)).collect();
            let index = |here: &dyn Fn(Option<usize>) -> bool| {
                let chosen = all.iter().filter(|(_, rule)| here(rule.to.map(|to| to.index())));
                DeviceIndex::new(
                    chosen.map(|(number, rule)| (*number, Fields::of(&rule.matches, rule.class()))),
                )
            };
            Bound {
                nowhere: index(&|_| true),
                domain: (0..domains).map(|domain| index(&|to| to == Some(domain))).collect(),
                any: index(&|to| to.is_none()),
            }
        };
        Self { closed: counting(false), open: counting(true) }
    }

    /// The rules that have a say over a domain, with break-glass open or closed.
    pub(crate) fn bound_for(&self, break_glass: bool, to: DomainId) -> Option<Chosen<'_>> {
        self.rules(&Context { break_glass }, Some(to))
    }

    fn rules(&self, context: &Context, to: Option<DomainId>) -> Option<Chosen<'_>> {
        let bound = if context.break_glass { &self.open } else { &self.closed };
        match to {
            None => Some(Chosen(&bound.nowhere, None)),
            Some(to) => Some(Chosen(bound.domain.get(to.index())?, Some(&bound.any))),
        }
    }
}

/// Whether break-glass opens this rule.
pub(crate) fn listed(rule: &UsbRule, break_glass: Option<&BreakGlass>) -> bool {
    break_glass
        .is_some_and(|open| open.allow_usb.iter().any(|listed| listed.value == rule.head.id.value))
}

/// What a rule gives: nothing where it names no domain, or a class that is never admitted.
pub(crate) fn given(rule: &UsbRule) -> Decision {
    match (*rule.action, rule.to) {
        _ if rule.class() == Some(UsbClass::HUB) => Decision::Deny,
        (UsbAction::Allow, Some(_)) => Decision::Allow,
        (UsbAction::ReadOnly, Some(_)) => Decision::ReadOnly,
        (UsbAction::Deny, _) | (_, None) => Decision::Deny,
    }
}

impl Policy {
    pub(super) fn decide_usb(&self, request: &UsbRequest<'_>, context: &Context) -> Verdict<'_> {
        let device = &request.device;
        if device.functions.is_empty() {
            return Verdict::denied(Reason::NoFunction);
        }
        if let Some(reason) = never_admitted(device.functions) {
            return Verdict::denied(reason);
        }
        let to = request.to.map(|name| self.domain_id(name));
        if to == Some(None) {
            return Verdict::denied(Reason::UnknownDomain);
        }
        let Some(rules) = self.index().usb.rules(context, to.flatten()) else {
            return Verdict::denied(Reason::UnknownDomain);
        };
        let mut whole: Option<Verdict<'_>> = None;
        for function in device.functions {
            let first = rules.first(device, function.class).and_then(|rule| self.usb().get(rule));
            let verdict = match first {
                Some(rule) => self.by_usb_rule(rule, function),
                None => {
                    let to = to.flatten().and_then(|to| self.domain_by_id(to));
                    Verdict::denied(Reason::NoUsbRule { class: function.class, to })
                }
            };
            if verdict.decision() == Decision::Deny {
                return verdict;
            }
            whole = Some(match whole {
                Some(whole) => whole.together_with(verdict),
                None => verdict,
            });
        }
        whole.unwrap_or(Verdict::denied(Reason::NoFunction))
    }

    fn by_usb_rule<'p>(&'p self, rule: &'p UsbRule, function: &UsbFunction) -> Verdict<'p> {
        let to = rule.to.and_then(|to| self.domain_by_id(*to));
        let decision = given(rule);
        let verdict = Verdict::by_rule(
            decision,
            &rule.head,
            Reason::UsbRule { rule, to, class: function.class },
        );
        let unseen = function.class == UsbClass::HID && function.hid == HidUse::Unknown;
        match to {
            Some(to) => verdict.into_domain(to).confirming_no_keyboard(unseen),
            None => verdict,
        }
    }
}

/// Why a device with these functions is never admitted as a whole, whatever the rules say.
fn never_admitted(functions: &[UsbFunction]) -> Option<Reason<'static>> {
    if functions.iter().any(|function| function.class == UsbClass::HUB) {
        Some(Reason::Hub)
    } else if functions.iter().all(UsbFunction::is_the_seats) {
        Some(Reason::KeyboardOrMouse)
    } else {
        functions.iter().any(UsbFunction::is_the_seats).then_some(Reason::KeyboardBesides)
    }
}
