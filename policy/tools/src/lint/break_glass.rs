//! Break-glass that opens nothing, or that nobody can open.

use super::warn;
use policy::Policy;
use policy::diagnostic::{Diagnostic, Findings};
use policy::legible::{Appearance, is_legible};

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    let Some(break_glass) = policy.break_glass() else { return };
    for id in &break_glass.allow_usb {
        if !policy.usb().iter().any(|rule| rule.head.id.value == id.value) {
            warn(
                id.span,
                format!(
                    "no USB rule is called `{}`, so break-glass opens nothing by that name",
                    id.value
                ),
                "add the rule, marked `break_glass = true`, or take the name off this list",
                found,
            );
        }
    }
    // Of a rule that is marked and not listed its own warning says what to do.
    let marked = policy.usb().iter().any(|rule| rule.only_in_break_glass());
    if break_glass.allow_usb.is_empty() && !marked {
        let chosen = match break_glass.reasons.is_empty() {
            true => "",
            false => ", whichever reason is chosen",
        };
        warn(
            break_glass.span,
            format!("break-glass opens nothing{chosen}: `allow_usb` lists no rule"),
            "write the USB rules that count only in an emergency, mark each with `break_glass = true`, and list their ids in \
             `allow_usb`; or remove [break_glass], so that nobody relies on it",
            found,
        );
    }
    if !break_glass.opens_at_the_seat() {
        warn(
            break_glass.span,
            "nobody at the seat can open break-glass: it needs a reason, and there is none to choose from",
            "add reasons, as reasons = [\"unconscious patient\", \"system down\"]; without it only IT opens it, by \
             command",
            found,
        );
    }
    reasons(policy, found);
}

/// Checks the reasons: each is chosen at a glance, and is in the audit log afterwards.
fn reasons(policy: &Policy, found: &mut Findings) {
    let reasons = policy.break_glass().map(|open| open.reasons.as_slice()).unwrap_or_default();
    let looks: Vec<Appearance> = reasons.iter().map(|reason| Appearance::of(reason)).collect();
    for (number, (reason, look)) in reasons.iter().zip(&looks).enumerate() {
        if !is_legible(reason) {
            warn(
                reason.span,
                "nobody can read this reason: it shows no letter and no digit, or begins with a mark that belongs on one",
                "write in words why somebody opens break-glass, as \"unconscious patient\"",
                found,
            );
            continue;
        }
        let mut before = reasons.iter().zip(&looks).take(number);
        if let Some((other, _)) = before.find(|(_, other)| other.are_like(look)) {
            found.push(
                Diagnostic::warning(
                    reason.span,
                    format!("the reasons \"{}\" and \"{}\" look alike", other.value, reason.value),
                    "remove one, or write each such that it is told from the other at a glance",
                )
                .and(other.span, "the other one"),
            );
        }
    }
}
