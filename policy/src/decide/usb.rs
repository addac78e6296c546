//! USB devices: every function must be admitted, and all of them to one domain.

use super::Decision;
use super::verdict::{Reason, Verdict};
use crate::language::{UsbAction, UsbClass, UsbRule};
use crate::policy::Policy;
use crate::request::{Context, HidUse, UsbFunction, UsbRequest};

/// Returns what a rule gives: nothing where it names no domain, or a class that is never admitted.
#[must_use]
pub fn given(rule: &UsbRule) -> Decision {
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

/// Returns why a device with these functions is never admitted as a whole, whatever the rules say.
fn never_admitted(functions: &[UsbFunction]) -> Option<Reason<'static>> {
    if functions.iter().any(|function| function.class == UsbClass::HUB) {
        Some(Reason::Hub)
    } else if functions.iter().all(UsbFunction::is_the_seats) {
        Some(Reason::KeyboardOrMouse)
    } else {
        functions.iter().any(UsbFunction::is_the_seats).then_some(Reason::KeyboardBesides)
    }
}
