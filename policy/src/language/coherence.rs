//! What must hold between rules that are each well formed.

use unicode_normalization::UnicodeNormalization as _;
use unicode_security::skeleton;

use super::{BreakGlass, Domain, Hotkeys, UsbRule};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::document::Sink;
use crate::policy::DOMAINS_MAX;

/// Domains a clinician can tell apart, by each of the things the banner shows.
pub(crate) fn domains(domains: &[Domain], sink: &Sink) {
    // One domain too many is an error of its own; a million of them are not compared with each other.
    let looks: Vec<_> =
        domains.iter().take(DOMAINS_MAX).map(|d| (&d.label, looks(&d.label))).collect();
    for (number, (label, look)) in looks.iter().enumerate() {
        let before = looks.get(..number).unwrap_or_default().iter();
        for (other, _) in before.filter(|(_, other)| alike(other, look)) {
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

/// How a label is drawn, and how it would be drawn in small letters: the same in whichever of Unicode's forms and in whichever width it
/// is written, with one skeleton for letters of different scripts that are drawn alike (UTS 39, section 4).
fn looks(label: &str) -> [String; 2] {
    let plain: String = label.nfkc().collect();
    let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
    [skeleton(&plain).collect(), skeleton(&plain.to_lowercase()).collect()]
}

/// Whether somebody who glances at the banner takes one label for the other.
pub(crate) fn look_alike(one: &str, other: &str) -> bool {
    alike(&looks(one), &looks(other))
}

/// The same of labels whose looks are known.
fn alike(one: &[String; 2], other: &[String; 2]) -> bool {
    one.iter().zip(other).any(|(one, other)| one == other)
}

/// Every chord means one thing, the default hotkeys included.
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
                    true => "choose another chord, or give that hotkey another one under [hotkeys]",
                    false => "choose another chord for one of them",
                },
            );
            sink.report(if default { found } else { found.and(first.span, "here") });
        }
        taken.push((chord, owner));
    }
}

/// What break-glass lists is what is marked for it. A name that no rule has opens nothing, which the lint warns of.
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

#[cfg(test)]
mod tests {
    use super::look_alike;

    #[test]
    fn labels_that_look_alike_are_alike_and_others_are_not() {
        for (one, other) in [
            ("진료망", "\u{110c}\u{1175}\u{11ab}\u{1105}\u{116d}\u{1106}\u{1161}\u{11bc}"),
            ("CLINICAL", "ＣＬＩＮＩＣＡＬ"),
            ("CLINICAL", "С\u{4c0}INICAL"), // Cyrillic
            ("CLINICAL", "Clinical"),
            ("LAB 1", "LAB l"),
            ("LAB  1", "LAB 1"),
            ("INTERNET", "lNTERNET"),
            ("OP 0", "OP O"),
        ] {
            assert!(look_alike(one, other) && look_alike(other, one), "{one} {other}");
        }
        for (one, other) in [
            ("CLINICAL", "INTERNET"),
            ("진료망", "인터넷"),
            ("LAB 1", "LAB 2"),
            ("진료망", "진료방"),
        ] {
            assert!(!look_alike(one, other), "{one} {other}");
        }
    }
}
