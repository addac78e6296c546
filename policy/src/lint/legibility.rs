//! Names on the screen and in the audit log that nobody can read.
//!
//! They are errors of `check`, and not of a policy that is read: a PC keeps the policy in force that was signed for it.

use crate::diagnostic::{Diagnostic, Findings};
use crate::legible::is_legible;
use crate::policy::Policy;

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    for label in policy.domains().iter().map(|domain| &domain.label) {
        if !is_legible(label) {
            found.push(Diagnostic::error(
                label.span,
                "nobody can read this label: it shows no letter and no digit, or begins with a mark that belongs on one",
                "write what people call the desktop, as \"CLINICAL\": the banner shows it",
            ));
        }
    }
}
