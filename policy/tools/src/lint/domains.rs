//! Domains that say one thing and do another, and detectors that nobody uses.

use std::collections::HashSet;
use std::time::Duration;

use super::warn;
use policy::Policy;
use policy::detect::Detector;
use policy::diagnostic::{Diagnostic, Findings};
use policy::language::{Domain, Network};

/// The registered ports of DICOM in clear text (IANA; DICOM PS3.8). Its TLS port is 2762 (PS3.15, annex B).
const CLEAR_DICOM: [u16; 2] = [104, 11112];

pub(super) fn lint(policy: &Policy, found: &mut Findings) {
    idle_lock(policy, found);
    for domain in policy.domains() {
        let egress = domain.egress.as_deref().map(Vec::as_slice).unwrap_or_default();
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
    let inspects = policy.clipboard().iter().flat_map(|rule| &rule.inspect);
    let used: HashSet<&str> = inspects.map(|detector| detector.name()).collect();
    for (detector, name) in policy.detectors() {
        if let Detector::Pattern(_, pattern) = detector
            && let Some(part) = pattern.words_of_every_script()
        {
            warn(
                *name,
                format!(
                    "to `{part}` Hangul is a word character: the detector `{}` misses what a Korean particle follows, like MRN12345678입니다",
                    detector.name()
                ),
                format!(
                    "write `(?-u:{part})`, for which words are of ASCII letters, digits and underscores"
                ),
                found,
            );
        }
        if !used.contains(detector.name()) {
            warn(
                *name,
                format!("no rule uses the detector `{}`", detector.name()),
                "add it to the `inspect` of a rule, or remove it",
                found,
            );
        }
    }
}

/// Checks the idle lock: the shortest counts, whatever is in front: what is longer never locks anything, and a care domain relies on one.
fn idle_lock(policy: &Policy, found: &mut Findings) {
    let Some(shortest) = policy.idle_lock() else {
        if let Some(domain) = policy.domains().iter().find(|domain| domain.is_high()) {
            warn(
                domain.name.span,
                format!("nothing locks the screen of a PC that {} was left on", *domain.label),
                "give it an `idle_lock`, such as \"10m\"",
                found,
            );
        }
        return;
    };
    let asks = |domain: &&Domain| domain.idle_lock.is_some_and(|idle| *idle == shortest);
    let Some(first) = policy.domains().iter().find(asks) else { return };
    for domain in policy.domains() {
        let Some(longer) = domain.idle_lock.filter(|idle| **idle > shortest) else { continue };
        let written = |idle: Duration| notation::duration::written(idle.as_secs());
        let message = format!(
            "the screen never waits {} to lock: the shortest `idle_lock` counts, {} of {}",
            written(*longer),
            written(shortest),
            *first.label
        );
        let help = "remove it, or give both the same time";
        let related = first.idle_lock.map(|idle| idle.span).unwrap_or_default();
        found.push(Diagnostic::warning(longer.span, message, help).and(related, "counts"));
    }
}
