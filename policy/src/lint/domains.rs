//! Domains that say one thing and do another, and detectors that nobody uses.

use super::warn;
use crate::diagnostic::Diagnostic;
use crate::language::Network;
use crate::policy::Policy;

/// The registered ports of DICOM in clear text (IANA; DICOM PS3.8). Its TLS port is 2762 (PS3.15, annex B).
const CLEAR_DICOM: [u16; 2] = [104, 11112];

pub(super) fn lint(policy: &Policy, found: &mut Vec<Diagnostic>) {
    for domain in policy.domains() {
        let egress = domain.egress.as_deref().unwrap_or_default();
        if *domain.network == Network::None && !egress.is_empty() {
            warn(
                domain.network.span,
                format!("{} has no network and a list of places to connect to", *domain.label),
                "remove `egress`, or give it a network",
                found,
            );
        }
        for entry in egress.iter().filter(|entry| CLEAR_DICOM.contains(&entry.port)) {
            warn(
                entry.span,
                format!("port {} carries DICOM images in clear text", entry.port),
                "use DICOM over TLS, port 2762",
                found,
            );
        }
    }
    for (detector, name) in policy.detectors() {
        let used = |rule: &crate::language::ClipboardRule| {
            rule.inspect.iter().any(|used| used.name() == detector.name())
        };
        if !policy.clipboard().iter().any(used) {
            warn(
                *name,
                format!("no rule uses the detector `{}`", detector.name()),
                "add it to the `inspect` of a rule, or remove it",
                found,
            );
        }
    }
}
