//! Names on the screen and in the audit log that nobody can read.
//!
//! They are errors of `check`, and not of a policy that is read: a PC keeps the policy in force that was signed for it.

use policy::Policy;
use policy::diagnostic::{Diagnostic, Findings};
use policy::legible::is_legible;

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
