//! What is well formed and still not what anybody means.
//!
//! The lint reasons about which requests each rule decides, not about how it is written: a rule is called unreachable only
//! if there is no request at all that it would decide (`tests/lint.rs` looks for one).

use std::collections::BTreeMap;

use policy::Policy;
use policy::diagnostic::{Diagnostic, Diagnostics, Findings, Span};
use policy::language::Head;

mod break_glass;
mod clipboard;
pub(crate) mod colours;
mod devices;
mod domains;
mod hotkeys;
mod legibility;
mod serial;

/// Finds everything worth a warning; and as errors every expectation of the policy's own that does not hold, colours that are
/// hard to tell apart, a serial that none can follow, and separations that this version does not make.
#[must_use]
pub fn lint(policy: &Policy) -> Diagnostics {
    let mut found = policy.broken_expectations();
    found.join(policy.remarks().clone());
    // Each keeps as many errors as somebody reads, so that none is hidden by the many of another. Of warnings every kind does.
    for look in [
        clipboard::lint,
        devices::lint,
        break_glass::lint,
        hotkeys::lint,
        domains::lint,
        legibility::lint,
        serial::lint,
        colours::lint,
        unenforced,
    ] {
        let mut own = Findings::default();
        look(policy, &mut own);
        found.join(own);
    }
    Diagnostics::of(policy.source().clone(), found)
}

fn unenforced(policy: &Policy, found: &mut Findings) {
    // Each gap is a kind of its own.
    let mut gaps: BTreeMap<(&str, Option<&str>), Findings> = BTreeMap::new();
    for said in policy.unenforced() {
        gaps.entry((said.gap.key, said.gap.value)).or_default().push(said.diagnostic());
    }
    gaps.into_values().for_each(|own| found.join(own));
}

/// Rules that a report names: of those that decide instead of one there may be thousands.
const NAMED_MAX: usize = 8;

/// Finds a rule that decides nothing, with the rules that decide instead.
fn unreachable<'p>(rule: &Head, instead: impl IntoIterator<Item = &'p Head>) -> Diagnostic {
    let mut instead: Vec<&Head> = instead.into_iter().collect();
    instead.sort_by_key(|head| head.span);
    instead.dedup_by_key(|head| head.span);
    let mut named: Vec<String> = instead.iter().take(NAMED_MAX).map(|head| named(head)).collect();
    if let more @ 1.. = instead.len().saturating_sub(NAMED_MAX) {
        named.push(format!("one of {more} others"));
    }
    let found = Diagnostic::warning(
        rule.id.span,
        format!("the rule `{}` is never reached", rule.id.value),
        format!(
            "{} decides first all that it matches: remove it, or move it up",
            named.join(" or ")
        ),
    )
    .harmless();
    instead.into_iter().fold(found, |found, head| found.and(head.id.span, "decides first"))
}

/// Returns a rule as a message names it.
fn named(head: &Head) -> String {
    format!("`{}` (line {})", head.id.value, head.line)
}

#[track_caller]
fn warn(span: Span, message: impl Into<String>, help: impl Into<String>, found: &mut Findings) {
    found.push(Diagnostic::warning(span, message, help));
}
