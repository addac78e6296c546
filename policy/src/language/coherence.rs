//! What must hold between rules that are each well formed.

use super::{BreakGlass, DOMAINS_MAX, Domain, Hotkeys, Persistence, UsbRule};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::document::Sink;
use crate::legible::Appearance;

/// Checks that a clinician can tell domains apart by each of the things the banner shows.
pub(crate) fn domains(domains: &[Domain], sink: &Sink) {
    // One domain too many is an error of its own; a million of them are not compared with each other.
    let looks: Vec<_> =
        domains.iter().take(DOMAINS_MAX).map(|d| (&d.label, Appearance::of(&d.label))).collect();
    for (number, (label, look)) in looks.iter().enumerate() {
        let before = looks.get(..number).unwrap_or_default().iter();
        for (other, _) in before.filter(|(_, other)| other.are_like(look)) {
            let message = match other.value == label.value {
                true => format!("two domains have the label \"{}\"", label.value),
                false => {
                    format!("the labels \"{}\" and \"{}\" look alike", other.value, label.value)
                }
            };
            sink.report(
                Diagnostic::error(
                    label.span,
                    message,
                    "give each a label of its own, so that the banner tells them apart",
                )
                .and(other.span, "the other one"),
            );
        }
    }
    sink.all_different(
        domains.iter().map(|d| (*d.colour, d.colour.span)),
        |colour, span, first| {
            let message = format!("two domains have the colour {colour}");
            Diagnostic::error(
                span,
                message,
                "give each a colour of its own, so that the banner tells them apart",
            )
            .and(first, "the other one")
        },
    );
}

/// Checks that every chord means one thing, the default hotkeys included.
pub(crate) fn chords(domains: &[Domain], hotkeys: &Hotkeys, sink: &Sink) {
    let fixed = hotkeys.iter().map(|(key, chord)| (chord, format!("`hotkeys.{key}`")));
    let domains = domains.iter().map(|d| (d.hotkey, format!("the domain `{}`", d.name.value)));
    let mut taken: Vec<(Spanned<_>, String)> = Vec::new();
    // Defaults first: where one collides with something written, the written one is at fault and has a place to show.
    let (defaults, written): (Vec<_>, Vec<_>) =
        fixed.chain(domains).partition(|(chord, _)| chord.span == Span::default());
    for (chord, owner) in defaults.into_iter().chain(written) {
        if let Some((first, other)) = taken.iter().find(|(other, _)| **other == *chord) {
            let message = format!("{} already belongs to {other}", *chord);
            let default = first.span == Span::default();
            let found = Diagnostic::error(
                chord.span,
                message,
                match default {
                    true => "choose other keys, or give that hotkey another one under [hotkeys]",
                    false => "choose other keys for one of them",
                },
            );
            sink.report(if default { found } else { found.and(first.span, "here") });
        }
        taken.push((chord, owner));
    }
}

/// Checks that what begins anew keeps nothing.
pub(crate) fn renewals(domains: &[Domain], sink: &Sink) {
    for domain in domains.iter().filter(|domain| domain.persistence == Persistence::Keep) {
        let keys = [
            ("renew_at", domain.renew_at.as_ref().map(|at| at.span)),
            ("renew_when_idle", domain.renew_when_idle.map(|idle| idle.span)),
        ];
        for (key, span) in keys.into_iter().filter_map(|(key, span)| Some((key, span?))) {
            let label = &domain.label.value;
            sink.report(Diagnostic::error(
                span,
                format!(
                    "{label} keeps what it stores, and `{key}` is for a desktop that keeps nothing"
                ),
                format!("write `persistence = \"discard\"` for it, or remove `{key}`"),
            ));
        }
    }
}

/// Checks that what break-glass lists is what is marked for it. A name that no rule has opens nothing, which the lint warns of.
pub(crate) fn break_glass(break_glass: &BreakGlass, usb: &[UsbRule], sink: &Sink) {
    for listed in &break_glass.allow_usb {
        let rule = usb.iter().find(|rule| rule.head.id.value == listed.value);
        if let Some(rule) = rule.filter(|rule| !rule.only_in_break_glass()) {
            sink.report(
                Diagnostic::error(
                    listed.span,
                    format!(
                        "the rule `{}` is not marked for break-glass, so it counts always",
                        listed.value
                    ),
                    "add `break_glass = true` to the rule, or take it off this list",
                )
                .and(rule.head.id.span, "the rule"),
            );
        }
    }
}
