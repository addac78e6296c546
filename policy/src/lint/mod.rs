//! What is well formed and still not what anybody means.
//!
//! The lint reasons about which requests each rule decides, not about how it is written: a rule is called unreachable only
//! if there is no request at all that it would decide (`tests/lint.rs` looks for one).

use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::enforcement::Said;
use crate::language::Head;
use crate::policy::Policy;

mod clipboard;
pub(crate) mod colours;
mod devices;
mod domains;
mod expect;

impl Policy {
    /// Everything worth a warning; and as errors every expectation of the policy's own that does not hold, colours that are hard to
    /// tell apart, and separations that this version does not make.
    #[must_use]
    pub fn lint(&self) -> Diagnostics {
        let mut found = self.broken_expectations();
        found.extend_from_slice(self.remarks());
        clipboard::lint(self, &mut found);
        devices::lint(self, &mut found);
        domains::lint(self, &mut found);
        colours::lint(self, &mut found);
        found.extend(self.unenforced().iter().map(Said::diagnostic));
        Diagnostics::new(self.source().clone(), found)
    }
}

/// A rule that decides nothing, with the rules that decide instead.
fn unreachable<'p>(rule: &Head, instead: impl IntoIterator<Item = &'p Head>) -> Diagnostic {
    let mut instead: Vec<&Head> = instead.into_iter().collect();
    instead.sort_by_key(|head| head.span);
    instead.dedup_by_key(|head| head.span);
    let named: Vec<String> = instead.iter().map(|head| named(head)).collect();
    let found = Diagnostic::warning(
        rule.id.span,
        format!("the rule `{}` is never reached", rule.id.value),
        format!(
            "{} decides first all that it matches: remove it, or move it up",
            named.join(" or ")
        ),
    );
    instead.into_iter().fold(found, |found, head| found.and(head.id.span, "decides first"))
}

/// A rule as a message names it.
fn named(head: &Head) -> String {
    format!("`{}` (line {})", head.id.value, head.line)
}

fn warn(
    span: Span,
    message: impl Into<String>,
    help: impl Into<String>,
    found: &mut Vec<Diagnostic>,
) {
    found.push(Diagnostic::warning(span, message, help));
}
