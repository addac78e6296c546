//! A serial that no policy can follow.
//!
//! It is an error of `check`, and not of a policy that is read: a PC keeps the policy in force that was signed for it.

use policy::diagnostic::{Diagnostic, Findings};
use policy::{Policy, SERIAL_MAX};

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    let serial = policy.spanned_serial();
    if *serial >= SERIAL_MAX {
        found.push(Diagnostic::error(
            serial.span,
            format!("no policy can follow this one: a serial only grows, and ends at {SERIAL_MAX}"),
            "count on from the policy in force: on a PC that has taken this serial nothing follows until IT removes by hand what the PC remembers",
        ));
    }
}
